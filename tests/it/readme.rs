//! The README is true: every command on it runs, and shows what stands there.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::gate::records;
use crate::support::{Program, Running};

const README: &str = include_str!("../../README.md");

/// A fenced block: its language and its text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let mut fences = README.split("```");
    fences.next();
    let fenced = fences.step_by(2);
    fenced.map(|block| block.split_once('\n').unwrap()).collect()
}

/// Every command, with the lines that stand below it.
fn commands() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut commands: Vec<(&str, Vec<&str>)> = Vec::new();
    for (language, text) in blocks() {
        match language {
            "sh" => commands.extend(text.lines().map(|line| (line.split(" #").next().unwrap().trim(), Vec::new()))),
            "console" => {
                for line in text.lines() {
                    match line.strip_prefix("$ ") {
                        Some(command) => commands.push((command, Vec::new())),
                        None => commands.last_mut().unwrap().1.push(line),
                    }
                }
            }
            _ => {}
        }
    }
    commands
}

/// The demo as its own process; ended when dropped.
struct Demo {
    child: Running,
    ready: Value,
}

impl Demo {
    fn start() -> Self {
        let mut command = Program::new(&["demo", "--format", "json"]).0;
        let mut child = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::null()));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready =
            lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()).find(|line| line.get("ready").is_some());
        Self { child, ready: ready.expect("the demo ended before it was ready") }
    }

    fn gate(&self) -> &str {
        self.ready["ready"]["rocketchat"]["gate"].as_str().unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        // Asked to end, it takes its temporary folder away.
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap();
    }
}

#[test]
fn every_command_is_one_that_the_stories_below_run() {
    let known = ["cargo run -- demo", "tests/run", "curl -i ", "rolegate "];
    for (command, _) in commands() {
        assert!(known.iter().any(|known| command.starts_with(known)), "nothing runs `{command}`");
    }
    assert!(std::path::Path::new("tests/run").exists());
    assert!(include_str!("../run").contains("cargo run --locked --quiet -- demo --once"));
}

#[test]
fn nothing_that_is_built_wants_cmake() {
    assert!(!include_str!("../../Cargo.lock").contains("name = \"cmake\""), "the README's first command would fail without it");
    assert!(!include_str!("../run").contains("cmake"));
}

#[test]
fn the_calls_are_answered_and_recorded_as_printed() {
    let demo = Demo::start();
    let printed: Vec<Value> = blocks()
        .iter()
        .filter(|(language, _)| *language == "json")
        .map(|(_, text)| serde_json::from_str(text).unwrap())
        .collect();
    let calls: Vec<_> = commands().into_iter().filter(|(command, _)| command.starts_with("curl ")).collect();
    assert_eq!((calls.len(), printed.len()), (2, 2));
    for ((command, shown), printed) in calls.iter().zip(printed) {
        let command = command.replace("http://127.0.0.1:8080", demo.gate());
        let output = Command::new("sh").args(["-c", &command.replace("curl -i", "curl -sS -i")]).output().unwrap();
        let answer = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(answer.lines().next(), shown.first().copied(), "{command}");
        assert_eq!(answer.lines().last(), shown.last().copied(), "{command}");
        let left = records(std::path::Path::new(demo.ready["audit"].as_str().unwrap()));
        let left = left.into_iter().rfind(|record| record["kind"] == "decision").unwrap();
        assert_eq!(steady(left), steady(printed), "{command}");
    }
}

/// A record without what differs from run to run.
fn steady(mut record: Value) -> Value {
    for key in ["seq", "time", "id", "prev", "policy_revision"] {
        assert!(record.get(key).is_some(), "a record has `{key}`");
        record[key] = Value::Null;
    }
    for fact in record["facts"].as_object_mut().unwrap().values_mut() {
        fact["age_ms"] = Value::Null;
    }
    record
}

#[test]
fn the_operators_commands_do_what_stands_below_them() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Demo::start();
    for (command, shown) in commands() {
        let Some(args) = command.strip_prefix("rolegate ") else { continue };
        if args.starts_with("run ") {
            continue;
        }
        if args.starts_with("audit ") {
            // As the gate of the printed file would have left it.
            std::fs::create_dir(folder.path().join("gate/audit")).unwrap();
            std::fs::copy(demo.ready["audit"].as_str().unwrap(), folder.path().join("gate/audit/audit.jsonl")).unwrap();
        }
        let script = format!("{} {args}", env!("CARGO_BIN_EXE_rolegate"));
        let output = Command::new("sh").args(["-c", &script]).current_dir(folder.path()).env("NO_COLOR", "1").output().unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        let expected = if args.starts_with("explain ") { 6 } else { 0 };
        assert_eq!(output.status.code(), Some(expected), "{command}: {out}{}", String::from_utf8_lossy(&output.stderr));
        if !shown.is_empty() {
            assert_eq!(out.lines().collect::<Vec<_>>(), shown, "{command}");
        }
    }
}

#[test]
fn the_proxy_starts_with_the_flags_and_with_the_file_that_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Program::new(&["init", "gate"]).within(folder.path()).run().code, 0);
    let started: Vec<_> = commands().into_iter().filter(|(command, _)| command.starts_with("rolegate run ")).collect();
    assert_eq!(started.len(), 3);
    for (command, _) in started {
        let mut args: Vec<&str> = command.strip_prefix("rolegate ").unwrap().split(' ').collect();
        // The printed command takes the well-known ports, which another program on this machine may have.
        args.extend(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        let mut command = Program::new(&args).within(folder.path()).0;
        let mut child = Running::start(command.stderr(Stdio::piped()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = lines.any(|line| line.unwrap().contains("\"listening\""));
        assert!(listening, "`rolegate {}` did not start", args.join(" "));
    }
}

#[test]
fn the_number_of_open_routes_is_the_one_that_is_printed() {
    let providers = Program::new(&["actions", "--format", "json"]).run().json();
    let open: u64 =
        providers["providers"].as_array().unwrap().iter().map(|provider| provider["open_routes"].as_u64().unwrap()).sum();
    assert!(README.contains(&format!("{open} of them are known")), "{open}");
}

#[test]
fn the_numbers_of_judged_queries_are_those_of_the_table() {
    let table: Value = serde_json::from_str(include_str!("../validators/table.json")).unwrap();
    let rows = table["rows"].as_array().unwrap();
    let beyond = rows.iter().filter(|row| row.get("because").is_some()).count();
    let all = format!("{},{:03} query strings are judged", rows.len() / 1000, rows.len() % 1000);
    assert!(README.contains(&all), "{all}");
    assert!(README.contains(&format!("each of the {beyond} that it refuses beyond")), "{beyond}");
}

#[test]
fn the_policy_and_the_case_that_are_printed_are_shipped() {
    let shipped = [include_str!("../../policies/rocketchat/policy.cedar"), include_str!("../../policies/rocketchat/cases.toml")];
    for (language, shipped) in ["cedar", "toml"].into_iter().zip(shipped) {
        let (_, printed) = blocks().into_iter().find(|(found, _)| *found == language).unwrap();
        assert!(shipped.contains(printed.trim()), "{printed}");
    }
}
