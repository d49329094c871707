//! Completions that a shell takes, and manual pages that `man` shows.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::run;

/// The verbs that `--help` lists, and `help` itself.
fn verbs() -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let help = run(folder.path(), &["--help"], 0).out;
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    lines.filter(|line| !line.starts_with("   ")).map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn bash_completes_verbs_flags_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let script = run(folder.path(), &["completions", "bash"], 0).out;
    fs::write(folder.path().join("rolegate.bash"), script).unwrap();
    let complete = |words: &[&str]| {
        let last = words.len() - 1;
        let line = format!(
            "source ./rolegate.bash; COMP_WORDS=({}); COMP_CWORD={last}; _rolegate rolegate '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words[last],
            words[last - 1],
        );
        let output = Command::new("bash").args(["--norc", "-c", &line]).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert_eq!(complete(&["rolegate", "heal"]), BTreeSet::from(["healthcheck".to_owned()]));
    assert!(verbs().iter().all(|verb| complete(&["rolegate", ""]).contains(verb)));
    assert_eq!(complete(&["rolegate", "status", "--tok"]), BTreeSet::from(["--token-file".to_owned()]));
    assert_eq!(complete(&["rolegate", "test", "--format", ""]), BTreeSet::from(["human", "json"].map(str::to_owned)));
    assert_eq!(complete(&["rolegate", "audit", "ver"]), BTreeSet::from(["verify".to_owned()]));
}

#[test]
fn every_shell_that_is_offered_has_completions_with_every_verb() {
    let folder = tempfile::tempdir().unwrap();
    let offered = run(folder.path(), &["completions", "nushell"], 2).err;
    let shells = offered.split("[possible values: ").nth(1).unwrap().split(']').next().unwrap();
    let shells: Vec<&str> = shells.split(", ").collect();
    assert!(shells.len() >= 4, "{shells:?}");
    for shell in shells {
        let script = run(folder.path(), &["completions", shell], 0).out;
        assert!(verbs().iter().all(|verb| script.contains(verb.as_str())), "{shell}");
    }
}

#[test]
fn each_verb_has_a_manual_page_that_man_shows() {
    let folder = tempfile::tempdir().unwrap();
    let told = run(folder.path(), &["man", "share/man1"], 0).out;
    assert_eq!(told, "share/man1/rolegate.1\n");
    let pages = folder.path().join("share/man1");
    for verb in verbs().iter().filter(|verb| *verb != "help") {
        let page = fs::read_to_string(pages.join(format!("rolegate-{verb}.1"))).unwrap();
        assert!(page.contains("Exit codes: ") || verb == "audit", "{verb} does not say its exit codes");
    }
    let page = fs::read_to_string(pages.join("rolegate-audit-verify.1")).unwrap();
    assert!(page.contains("rolegate audit verify"), "{page}");
    let shown = Command::new("man").arg(pages.join("rolegate-status.1")).env("MANWIDTH", "100").env("MANPAGER", "cat").output();
    let shown = shown.expect("no `man` on PATH: install Debian's man-db package");
    let text = String::from_utf8(shown.stdout).unwrap();
    for part in ["NAME", "SYNOPSIS", "OPTIONS", "ROLEGATE_TOKEN_FILE"] {
        assert!(text.contains(part), "`man` does not show {part}:\n{text}{}", String::from_utf8_lossy(&shown.stderr));
    }
    // Older pages are replaced.
    run(folder.path(), &["man", "share/man1"], 0);
    fs::write(folder.path().join("file"), "no folder").unwrap();
    assert!(run(folder.path(), &["man", "file"], 1).err.starts_with("file: "));
}
