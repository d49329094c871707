//! The demo: what a newcomer sees first.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Connection, Program, Running, until};

/// The actions of the API reference, and one of Matrix.
const ACTIONS: [&str; 6] =
    ["audit.rooms.members", "roles.getUsersInRole", "rooms.roles", "users.info", "rooms.users", "rooms.joined_members"];

/// The demo as its own process, whose temporary folder is below one of the story's.
struct Demo {
    child: Running,
    lines: Receiver<String>,
}

impl Demo {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut command = Program::new(args).0;
        let mut child = Running::start(command.env("TMPDIR", folder).stdout(Stdio::piped()).stderr(Stdio::null()));
        let (told, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || output.map_while(Result::ok).all(|line| told.send(line).is_ok()));
        Self { child, lines }
    }

    /// The next line that holds `text`.
    fn line(&self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(60));
            let line = line.unwrap_or_else(|error| panic!("no line with `{text}`: {error}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Asks it to end; its exit code.
    fn end(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

fn run(folder: &Path, args: &[&str]) -> String {
    let mut program = Program::new(args);
    program.0.env("TMPDIR", folder);
    let ended = program.run();
    assert_eq!(ended.code, 0, "{args:?}: {}{}", ended.out, ended.err);
    ended.out
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn the_tour_permits_and_refuses_each_action_and_says_who_asked_what_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let lines = run(folder.path(), &["demo", "--once", "--format", "json"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (ready, steps) = lines.split_last().unwrap();
    assert!(ready["ready"]["rocketchat"]["gate"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    assert!(ready["ready"]["admin"].is_string() && ready["audit"].is_string());
    let steps: Vec<&Value> = steps.iter().map(|line| &line["step"]).collect();
    assert!(steps.iter().all(|step| step["expected"] == true && step["record"]["kind"] == "decision"), "{steps:?}");
    for action in ACTIONS {
        for verdict in ["permit", "deny"] {
            let played = |step: &&Value| step["record"]["action"]["name"] == action && step["record"]["decision"] == verdict;
            assert!(steps.iter().any(played), "{action} was never {verdict}");
        }
    }

    let shown = run(folder.path(), &["demo", "--once"]);
    for step in steps {
        let (who, what) = (step["who"].as_str().unwrap(), step["what"].as_str().unwrap());
        let line = shown.lines().find(|line| line.starts_with(&format!("  {who} ")) && line.contains(what));
        let told = line.unwrap_or_else(|| panic!("{who} {what} is not shown:\n{shown}")).split_once(what).unwrap().1;
        let status = step["status"].to_string();
        let verdict: Vec<&str> = vec![step["record"]["decision"].as_str().unwrap(), &status];
        let words: Vec<&str> = told.split_whitespace().collect();
        assert!(words.starts_with(&verdict) && words.len() > 2, "{told}");
        if let Some(detail) = step["record"]["detail"].as_str() {
            assert!(told.ends_with(detail), "{told}");
        }
    }
    assert!(!shown.contains(r#""kind":"decision""#), "records are for those who ask for them");
    let verbose = run(folder.path(), &["demo", "--once", "--verbose"]);
    assert_eq!(verbose.matches(r#""kind":"decision""#).count(), lines.len() - 1);
    assert!(is_empty(folder.path()), "nothing is left behind");
}

#[tokio::test]
async fn the_tour_takes_other_ports_when_a_well_known_one_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    // Another story may have it at the moment.
    let taken = until("the well-known port", || std::net::TcpListener::bind("127.0.0.1:8080").ok()).await;
    let shown = run(folder.path(), &["demo", "--once"]);
    drop(taken);
    assert!(!shown.contains("127.0.0.1:8080"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_that_comes_in_later_is_printed_and_nothing_is_left_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Demo::start(folder.path(), &["demo"]);
    let gate = demo.line("Rocket.Chat, behind ").split_once("behind ").unwrap().1.to_owned();
    let asked = demo.line("X-Auth-Token: eve-token");
    demo.line("End with Ctrl-C");
    let mut client = Connection::open(gate.strip_prefix("http://").unwrap().parse().unwrap()).await;
    assert_eq!(client.request("GET", "/echo", &[], b"").await.status, 200);
    assert_eq!(demo.line("/echo").split_whitespace().collect::<Vec<_>>(), ["-", "pass", "GET", "/echo:", "not", "guarded"]);
    let target = asked.rsplit_once(&gate).unwrap().1.trim_end_matches('\'');
    let eve = asked.split_once("X-User-Id: ").unwrap().1.split_once('\'').unwrap().0;
    let credential = [("x-user-id", eve.to_owned()), ("x-auth-token", "eve-token".to_owned())];
    assert_eq!(client.request("GET", target, &credential, b"").await.status, 403);
    let printed = demo.line("/api/v1/rooms.roles");
    assert!(printed.trim_start().starts_with("eve ") && printed.contains(" deny "), "{printed}");
    drop(client);
    assert_eq!(demo.end(), Some(0));
    assert!(is_empty(folder.path()), "nothing is left behind");
}
