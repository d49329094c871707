//! Files that are links, or not files at all, where policies, certificates and secrets are expected.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rolegate::config::ReloadBy;
use rolegate::demo::world::workspace::BOARDROOM;

use crate::support::gate::login;
use crate::support::{Connection, Gate, GateBuilder, Policies, Program, until};

/// A gate whose policies lie in `policies` of its folder.
async fn gate_by(reload: ReloadBy) -> (Gate, Policies) {
    let builder = GateBuilder::rocketchat().await;
    let policies = Policies::write(&builder.folder.path().join("policies"));
    (watching(builder, &policies, reload), policies)
}

fn watching(builder: GateBuilder, policies: &Policies, reload: ReloadBy) -> Gate {
    let directory = Some(policies.0.clone());
    builder.with(|config| config.policies = rolegate::config::Policies { directory, reload }).start()
}

async fn carol(gate: &Gate) -> u16 {
    gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login("carol")).await.status
}

/// Waits until carol is answered `status`.
async fn until_answered(gate: &Gate, status: u16, what: &str) {
    let began = Instant::now();
    while carol(gate).await != status {
        assert!(began.elapsed() < crate::support::PATIENCE, "{what}: never answered {status}");
    }
}

/// Something that is not a regular file is made at the path; what it makes may have to be kept.
type Odd = (&'static str, fn(&Path) -> Option<UnixListener>);

/// What can stand where a file is expected, and what tells of it.
const ODD: &[Odd] = &[
    ("a named pipe", |path| {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        None
    }),
    ("a socket", |path| Some(UnixListener::bind(path).unwrap())),
    ("a directory", |path| {
        fs::create_dir(path).unwrap();
        None
    }),
    ("a device", |path| {
        symlink("/dev/zero", path).unwrap();
        None
    }),
    ("at most", |path| {
        // As long as a disk, and of no size on it.
        fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
        None
    }),
    ("No such file", |path| {
        symlink("nowhere", path).unwrap();
        None
    }),
];

fn cleared(path: &Path) {
    if fs::symlink_metadata(path).unwrap().is_dir() { fs::remove_dir(path).unwrap() } else { fs::remove_file(path).unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_regular_file_in_a_policy_folder_is_a_fault_that_names_it_and_the_reloads_go_on() {
    let (gate, policies) = gate_by(ReloadBy::Watch).await;
    let odd = policies.path("odd.cedar");
    for (index, (told, make)) in ODD.iter().enumerate() {
        let _kept = make(&odd);
        let failed = until(told, || {
            let last = gate.records_of("reload").pop()?;
            last["error"].as_str().is_some_and(|error| error.contains("odd.cedar") && error.contains(told)).then_some(last)
        });
        assert_eq!(failed.await["succeeded"], false);
        gate.until_metric("rolegate_policy_matches_disk", 0.0).await;
        gate.until_metric("rolegate_config_last_reload_successful", 0.0).await;
        assert_eq!(gate.admin_get("/readyz").await.status, 200, "what runs is still good");
        cleared(&odd);
        let closed = index % 2 == 0;
        policies.put("policy.cedar", &if closed { policies.closed() } else { policies.open() });
        until_answered(&gate, if closed { 403 } else { 200 }, &format!("the edit after {told}")).await;
        gate.until_metric("rolegate_policy_matches_disk", 1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_to_reload_is_answered_whatever_stands_where_a_policy_is_expected() {
    let (gate, policies) = gate_by(ReloadBy::Signal).await;
    for (told, make) in ODD {
        fs::remove_file(policies.path("policy.cedar")).unwrap();
        let _kept = make(&policies.path("policy.cedar"));
        let answer = Connection::open(gate.admin()).await.request("POST", "/reload", &[], b"").await;
        assert_eq!(answer.status, 422, "{told}: {}", answer.text());
        assert!(answer.text().contains(told), "{told}: {}", answer.text());
        assert_eq!(carol(&gate).await, 200, "the last good rules stay");
        cleared(&policies.path("policy.cedar"));
        policies.put("policy.cedar", &policies.open());
    }
}

/// The program's exit code and what it said, if it ended in time.
async fn ended(program: Program, what: &str) -> (i32, String) {
    let ended = tokio::task::spawn_blocking(move || program.run());
    let ended = tokio::time::timeout(crate::support::PATIENCE, ended).await.unwrap_or_else(|_| panic!("{what} hangs")).unwrap();
    (ended.code, ended.err)
}

#[tokio::test(flavor = "multi_thread")]
async fn check_ends_with_a_fault_whatever_stands_where_a_named_file_is_expected() {
    for (told, make) in ODD {
        let folder = tempfile::tempdir().unwrap();
        let policies = Policies::write(&folder.path().join("policies"));
        let _kept = make(&policies.path("odd.cedar"));
        let check = Program::new(&["check", "--policies", "policies"]).within(folder.path());
        let (code, said) = ended(check, told).await;
        assert_eq!(code, 3, "{told}: {said}");
        assert!(said.contains("odd.cedar") && said.contains(told), "{told}: {said}");
    }
    let named = [
        "[admin]\ntoken_file = \"odd\"",
        "[listen]\ntls = { certificate = \"odd\", key = \"odd\" }",
        "[[upstream]]\nprovider = \"rocketchat\"\nurl = \"http://127.0.0.1:1\"\nservice = { headers_file = \"odd\" }",
        "[[upstream]]\nprovider = \"rocketchat\"\nurl = \"https://127.0.0.1:1\"\ntls = { ca = \"odd\" }",
    ];
    for text in named {
        for (told, make) in ODD {
            let folder = tempfile::tempdir().unwrap();
            let _kept = make(&folder.path().join("odd"));
            let upstream =
                if text.contains("upstream") { "" } else { "[[upstream]]\nprovider = \"rocketchat\"\nurl = \"http://a\"\n" };
            fs::write(folder.path().join("rolegate.toml"), format!("{text}\n{upstream}")).unwrap();
            let check = Program::new(&["check", "--config", "rolegate.toml"]).within(folder.path());
            let (code, said) = ended(check, &format!("{text} with {told}")).await;
            assert_eq!(code, 3, "{text} with {told}: {said}");
            assert!(said.contains(told), "{text} with {told}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_may_come_through_a_pipe_and_must_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_rolegate"));
    let mut child = check
        .args(["check", "--config", "/dev/stdin"])
        .current_dir(folder.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"[[upstream]]\nprovider = \"rocketchat\"\nurl = \"http://127.0.0.1:1\"\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let (code, said) = ended(Program::new(&["check", "--config", "/dev/zero"]), "an endless configuration").await;
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("/dev/zero") && said.contains("is longer; at most"), "{said}");
}

/// A chain of links, each in a folder of its own, from `policy.cedar` to a file; where the file is, and the folders between.
fn linked(policies: &Policies, beside: &Path, links: usize) -> PathBuf {
    let mut target = beside.join("elsewhere");
    fs::create_dir_all(&target).unwrap();
    target.push("shared.cedar");
    let end = target.clone();
    fs::write(&target, policies.open()).unwrap();
    for link in 1..links {
        let folder = beside.join(format!("link{link}"));
        fs::create_dir_all(&folder).unwrap();
        symlink(&target, folder.join("next.cedar")).unwrap();
        target = folder.join("next.cedar");
    }
    fs::remove_file(policies.path("policy.cedar")).unwrap();
    symlink(&target, policies.path("policy.cedar")).unwrap();
    end
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_a_file_that_a_policy_is_a_link_to_is_followed_within_a_second() {
    for links in [1, 3] {
        let builder = GateBuilder::rocketchat().await;
        let policies = Policies::write(&builder.folder.path().join("policies"));
        let end = linked(&policies, builder.folder.path(), links);
        let gate = watching(builder, &policies, ReloadBy::Watch);
        assert_eq!(carol(&gate).await, 200);
        let mut slowest = Duration::ZERO;
        for round in 0..6 {
            let closed = round % 2 == 0;
            let text = if closed { policies.closed() } else { policies.open() };
            match round {
                // In place, by a rename, and with the old time.
                0 | 1 => fs::write(&end, text).unwrap(),
                2 | 3 => {
                    let aside = end.with_extension("next");
                    fs::write(&aside, text).unwrap();
                    fs::rename(aside, &end).unwrap();
                }
                _ => {
                    let before = fs::metadata(&end).unwrap().modified().unwrap();
                    fs::write(&end, text).unwrap();
                    fs::File::options().append(true).open(&end).unwrap().set_modified(before).unwrap();
                }
            }
            let edited = Instant::now();
            until_answered(&gate, if closed { 403 } else { 200 }, &format!("{links} links, round {round}")).await;
            slowest = slowest.max(edited.elapsed());
            gate.until_metric("rolegate_policy_matches_disk", 1.0).await;
        }
        // A second is what the contract allows; a machine that is busy gets more.
        assert!(slowest < Duration::from_secs(6), "{links} links: an edit was followed after {slowest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_behind_a_link_shows_in_the_metric_where_edits_wait_for_a_signal() {
    let builder = GateBuilder::rocketchat().await;
    let policies = Policies::write(&builder.folder.path().join("policies"));
    let end = linked(&policies, builder.folder.path(), 2);
    let gate = watching(builder, &policies, ReloadBy::Signal);
    gate.until_metric("rolegate_policy_matches_disk", 1.0).await;
    fs::write(&end, policies.closed()).unwrap();
    gate.until_metric("rolegate_policy_matches_disk", 0.0).await;
    assert_eq!(carol(&gate).await, 200);
    fs::write(&end, policies.open()).unwrap();
    gate.until_metric("rolegate_policy_matches_disk", 1.0).await;
}
