//! What lies at the audit path and is not the log's own stays untouched, and the program does not start.

use std::fs;

use rolegate::demo::Sample;

use crate::support::gate::records;
use crate::support::{Process, Program};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_somebody_else_at_the_audit_path_ends_the_start_with_74_and_stays_as_it_was() {
    let sample = Sample::rocketchat().await.unwrap();
    let mut process = Process::before(sample.url(), &[]).await;
    process.terminate();
    assert_eq!(process.exit().await, 0);
    let file = process.folder.path().join("audit/audit.jsonl");
    let log = fs::read_to_string(&file).unwrap();
    let last = log.lines().last().unwrap();
    for (content, line) in [
        ("my notes".to_owned(), 1),
        ("# a list\\nof things\\n".replace("\\n", "\n"), 2),
        ("{\"name\":\"package\"}".to_owned(), 1),
        ("{}\n".to_owned(), 1),
        ("\u{0}\u{0}\u{0}".to_owned(), 1),
        (format!("{log}# closed by hand"), log.lines().count() + 1),
        (format!("{log}not a record\n"), log.lines().count() + 1),
        (format!("{log}{}\n", &last[..last.len() / 2]), log.lines().count() + 1),
        (format!("{log}{{\"v\":1,\"x\":2"), log.lines().count() + 1),
    ] {
        fs::write(&file, &content).unwrap();
        let arguments = ["run", "--provider", "rocketchat", "--upstream", sample.url(), "--listen", "127.0.0.1:0"];
        let ended = Program::new(&[&arguments[..], &["--admin", "127.0.0.1:0"]].concat()).within(process.folder.path()).run();
        assert_eq!(ended.code, 74, "{content:?}: {}", ended.err);
        assert!(ended.err.contains(&format!("audit.jsonl:{line}: ")), "{content:?}: {}", ended.err);
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_at_the_audit_path_is_refused_without_waiting_for_its_reader() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let text = "[[upstream]]\nprovider = \"rocketchat\"\nurl = \"http://127.0.0.1:9\"\n[audit]\npath = \"fifo\"\n";
    fs::write(folder.path().join("rolegate.toml"), text).unwrap();
    let arguments = ["run", "--config", "rolegate.toml", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let ended = Program::new(&arguments).within(folder.path()).run();
    assert!(ended.code == 74 && ended.err.contains("not a regular file"), "{}: {}", ended.code, ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_torn_beginning_of_a_record_is_set_aside_and_told() {
    let sample = Sample::rocketchat().await.unwrap();
    let mut process = Process::before(sample.url(), &[]).await;
    process.terminate();
    assert_eq!(process.exit().await, 0);
    let file = process.folder.path().join("audit/audit.jsonl");
    let log = fs::read_to_string(&file).unwrap();
    let last = log.lines().last().unwrap();
    let torn = &last[..last.len() - 3];
    fs::write(&file, format!("{log}{torn}")).unwrap();
    let folder = std::mem::replace(&mut process.folder, tempfile::tempdir().unwrap());
    let again = Process::run(folder, &["run", "--provider", "rocketchat", "--upstream", sample.url()]).await;
    let recovered = records(&again.folder.path().join("audit/audit.jsonl"));
    let recovered = recovered.iter().find(|record| record["kind"] == "recovered").unwrap();
    assert_eq!(recovered["text"], torn);
}
