//! What goes over the wire: every byte of a target, hosts, chunks, answers that are none, and the id of a decision.

mod answers;
mod both;
mod chunks;
mod frozen;
mod h2;
mod heads;
mod hosts;
mod ids;
mod interim;
mod kept;
mod old;
pub mod recorder;
mod targets;

use crate::support::{Answer, Gate};

/// How many decisions were recorded so far.
pub fn decisions(gate: &Gate) -> usize {
    std::fs::read_to_string(gate.audit()).unwrap().matches("\"kind\":\"decision\"").count()
}

/// Asserts that `answer` is a refusal in the contract's form, and that it was recorded: the reason of its record.
pub fn refused(gate: &Gate, answer: &Answer, what: &str) -> String {
    assert_eq!(answer.header("server"), None, "{what}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
    let id = answer.header("x-request-id").unwrap_or_else(|| panic!("{what}: no id in {answer:?}"));
    let log = std::fs::read_to_string(gate.audit()).unwrap();
    let line = log.lines().rfind(|line| line.contains(id)).unwrap_or_else(|| panic!("{what}: no record of {id}"));
    let record: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(record["decision"], "deny", "{what}");
    record["reason"].as_str().unwrap().to_owned()
}
