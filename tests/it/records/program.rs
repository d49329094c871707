//! The log of the program itself: on its standard output, and on a disk that is full.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use rolegate::demo::Sample;
use serde_json::{Value, json};

use super::{INFO, about_bob};
use crate::support::gate::{login, records};
use crate::support::{Connection, Program, Running, until};

/// The program while it serves.
struct Serving {
    child: Running,
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Serving {
    /// Runs `command` until it listens.
    async fn start(mut command: Command) -> Self {
        let mut child = Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
        let (log, kept) = (Arc::default(), BufReader::new(child.stderr.take().unwrap()).lines());
        let lines: Arc<Mutex<Vec<String>>> = Arc::clone(&log);
        std::thread::spawn(move || kept.map_while(Result::ok).for_each(|line| lines.lock().push(line)));
        let address = until("the program to listen", || {
            let lines = log.lock();
            let line = lines.iter().find(|line| line.contains("\"listening\""))?;
            serde_json::from_str::<Value>(line).unwrap()["listening"].as_str()?.parse().ok()
        });
        let address = address.await;
        Self { child, address, log }
    }

    async fn get(&self, target: &str, name: &str) -> u16 {
        Connection::open(self.address).await.get(target, &login(name)).await.status
    }

    /// Asks it to drain and gives back its exit code and what it had written.
    async fn end(mut self) -> (i32, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let mut out = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        let status = until("the program to end", || self.child.try_wait().unwrap()).await;
        (status.code().unwrap_or(-1), out)
    }
}

/// Writes a configuration before `sample` and gives back the arguments of `rolegate run`.
fn configure(folder: &Path, sample: &Sample, audit: &str) -> [String; 7] {
    let text = format!("[[upstream]]\nprovider = \"rocketchat\"\nurl = \"{}\"\n[audit]\n{audit}\n", sample.url());
    std::fs::write(folder.join("rolegate.toml"), text).unwrap();
    ["run", "--config", "rolegate.toml", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"].map(str::to_owned)
}

fn program(folder: &Path, arguments: &[String]) -> Command {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Program::new(&arguments).within(folder).0
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standard_output_holds_the_chain_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let sample = Sample::rocketchat().await.unwrap();
    let serving = Serving::start(program(folder.path(), &configure(folder.path(), &sample, "path = \"-\""))).await;
    assert_eq!(serving.get(&about_bob(), "bob").await, 200);
    assert_eq!(serving.get(INFO, "bob").await, 400);
    let (code, out) = serving.end().await;
    assert_eq!(code, 0);
    let piped = folder.path().join("piped.jsonl");
    std::fs::write(&piped, &out).unwrap();
    let kinds: Vec<Value> = records(&piped).into_iter().map(|record| record["kind"].clone()).collect();
    assert_eq!(kinds.len(), 5, "{out}");
    assert_eq!((&kinds[0], &kinds[4]), (&json!("start"), &json!("stop")));
    let mut verify = Program::new(&["audit", "verify"]);
    verify.0.arg(&piped);
    assert_eq!(verify.run().code, 0);
    assert!(!folder.path().join("audit").exists(), "no file besides");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_closes_the_standard_output_ends_the_forwarding_and_not_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let sample = Sample::rocketchat().await.unwrap();
    let mut serving = Serving::start(program(folder.path(), &configure(folder.path(), &sample, "path = \"-\""))).await;
    assert_eq!(serving.get(&about_bob(), "bob").await, 200);
    drop(serving.child.stdout.take());
    assert_eq!(serving.get(&about_bob(), "bob").await, 503);
    assert_eq!(sample.count(INFO), 1);
    assert_eq!(serving.get("/api/v1/users.list", "bob").await, 200, "it is alive");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_leaves_whole_lines_and_what_was_lost_is_told_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let sample = Sample::rocketchat().await.unwrap();
    let arguments = configure(folder.path(), &sample, "path = \"audit.jsonl\"");
    // The bound on a file's size stands in for a full disk: the write that meets it is cut, the next one fails.
    let mut limited = Command::new("sh");
    let script = "trap '' XFSZ; exec prlimit --fsize=5000:unlimited \"$0\" \"$@\"";
    limited.args(["-c", script, env!("CARGO_BIN_EXE_rolegate")]).args(&arguments).current_dir(folder.path());
    let serving = Serving::start(limited).await;
    let file = folder.path().join("audit.jsonl");
    let mut statuses = Vec::new();
    while statuses.iter().filter(|status| **status == 503).count() < 3 {
        assert!(statuses.len() < 50, "{statuses:?}");
        statuses.push(serving.get(&about_bob(), "bob").await);
    }
    let forwarded = statuses.iter().filter(|status| **status == 200).count();
    assert!(forwarded > 0, "{statuses:?}");
    assert_eq!(sample.count(INFO), forwarded, "nothing was forwarded without its record");
    let held = records(&file);
    assert_eq!(held.iter().filter(|record| record["kind"] == "decision").count(), forwarded);
    assert!(std::fs::read_to_string(&file).unwrap().ends_with('\n'), "half a line does not stay");
    let told = || serving.log.lock().iter().any(|line| line.contains("the audit log cannot be written")).then_some(());
    until("the process log to tell of it", told).await;

    let id = serving.child.id().to_string();
    assert!(Command::new("prlimit").args(["--pid", &id, "--fsize=unlimited:"]).status().unwrap().success());
    assert_eq!(serving.get(&about_bob(), "bob").await, 200);
    assert_eq!(serving.end().await.0, 0);
    let all = records(&file);
    let loss = all.iter().find(|record| record["kind"] == "loss").expect("a loss");
    assert!(loss["records"].as_u64().unwrap() >= 3, "{loss}");
    assert_eq!((&loss["removed"], &loss["on_failure"]), (&json!(false), &json!("deny")));
    let mut verify = Program::new(&["audit", "verify"]);
    verify.0.arg(&file);
    assert_eq!(verify.run().code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_opened_ends_the_start_with_74() {
    let folder = tempfile::tempdir().unwrap();
    let sample = Sample::rocketchat().await.unwrap();
    std::fs::create_dir(folder.path().join("taken")).unwrap();
    let arguments = configure(folder.path(), &sample, "path = \"taken\"");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = Program::new(&arguments).within(folder.path()).run();
    assert!(ended.code == 74 && ended.err.contains("taken"), "{}: {}", ended.code, ended.err);

    // Two processes would fork the chain.
    let arguments = configure(folder.path(), &sample, "path = \"audit.jsonl\"");
    let serving = Serving::start(program(folder.path(), &arguments)).await;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let second = Program::new(&arguments).within(folder.path()).run();
    assert!(second.code == 74 && second.err.contains("another process"), "{}: {}", second.code, second.err);
    assert_eq!(serving.get(&about_bob(), "bob").await, 200, "the first one goes on");
}
