//! An exit code is true whatever becomes of the output: written, refused by a full disk, or read by nobody.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use crate::support::{Policies, Program};

/// A record whose line was changed, so that the log is broken.
const BROKEN: &str = "{\"v\":1,\"seq\":1}\n{\"v\":1,\"seq\":9}\n";

/// Every verb that prints, in a folder that [`prepare`] made, and the exit code that it has earned.
const PRINTS: &[(&[&str], i32)] = &[
    (&["--help"], 0),
    (&["--version"], 0),
    (&["run", "--help"], 0),
    (&["demo", "--once"], 0),
    (&["demo", "--once", "--format", "json"], 0),
    (&["check"], 0),
    (&["check", "--format", "json"], 0),
    (&["check", "--policies", "faulty", "--format", "json"], 3),
    (&["test"], 0),
    (&["test", "--format", "json"], 0),
    (&["test", "--policies", "failing"], 4),
    (&["test", "--policies", "failing", "--format", "json"], 4),
    (&["test", "--policies", "faulty", "--format", "json"], 3),
    (&["explain", "--provider", "rocketchat", "GET /"], 0),
    (&["explain", "--provider", "rocketchat", "GET /api/v1/rooms.roles?rid=abc"], 6),
    (&["explain", "--provider", "rocketchat", "--format", "json", "GET /api/v1/rooms.roles?rid=abc"], 6),
    (&["audit", "verify", "--format", "json", "broken.jsonl"], 7),
    (&["audit", "rotate", "empty.jsonl"], 0),
    (&["audit", "rotate", "--format", "json", "empty.jsonl"], 0),
    (&["actions"], 0),
    (&["actions", "--format", "json"], 0),
    (&["schema"], 0),
    (&["init", "written"], 0),
    (&["completions", "bash"], 0),
    (&["man", "pages"], 0),
];

/// Verbs that print nothing to stdout until they serve, or only what a running rolegate told them; `status` has stories of its own.
const SILENT: &[&str] = &["run", "healthcheck", "status", "help"];

fn prepare(folder: &Path) {
    fs::write(folder.join("broken.jsonl"), BROKEN).unwrap();
    fs::write(folder.join("empty.jsonl"), "").unwrap();
    Policies::write(&folder.join("faulty")).put("policy.cedar", "permit");
    let case = "[[case]]\nname = \"wrong\"\nrequest = \"GET /api/v1/rooms.roles?rid=r1\"\nexpect = \"permit\"\n";
    Policies::write(&folder.join("failing")).put("cases.toml", case);
}

/// Runs the program with `stdout`; its exit code and what it said on stderr.
fn into(folder: &Path, arguments: &[&str], stdout: Stdio) -> (i32, String) {
    let mut command = Program::new(arguments).within(folder).0;
    let ended = command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    (ended.status.code().unwrap_or(-1), String::from_utf8(ended.stderr).unwrap())
}

#[test]
fn output_that_cannot_be_written_is_a_failure_of_every_verb_and_is_said() {
    for (arguments, earned) in PRINTS {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (code, told) = into(folder.path(), arguments, Stdio::from(full));
        let expected = if *earned == 0 { 1 } else { *earned };
        assert_eq!(code, expected, "{arguments:?}: {told}");
        assert!(told.contains("the output could not be written: No space left on device"), "{arguments:?}: {told}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_changes_no_exit_code() {
    for (arguments, earned) in PRINTS {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, told) = into(folder.path(), arguments, Stdio::from(writer));
        assert_eq!(code, *earned, "{arguments:?}: {told}");
        assert!(!told.contains("could not be written"), "{arguments:?}: {told}");
    }
}

#[test]
fn output_that_is_written_has_the_code_that_the_table_says() {
    for (arguments, earned) in PRINTS {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let (code, told) = into(folder.path(), arguments, Stdio::null());
        assert_eq!(code, *earned, "{arguments:?}: {told}");
    }
}

#[test]
fn the_table_knows_every_verb() {
    let folder = tempfile::tempdir().unwrap();
    let help = super::run(folder.path(), &["--help"], 0).out;
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A description that takes several lines begins far to the right.
    let verbs: Vec<&str> =
        verbs.filter(|line| !line.starts_with("   ")).map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(verbs.len() > 10, "{help}");
    for verb in verbs {
        let known = PRINTS.iter().any(|(arguments, _)| arguments[0] == verb) || SILENT.contains(&verb);
        assert!(known, "no line of the table runs `{verb}`");
    }
}
