//! Living with the audit log: files that are moved, rotated and removed, floods of refusals, and checks of what is left.

mod configured;
mod denials;
mod floods;
mod foreign;
mod rotation;
mod stalls;
mod verifying;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::Program;
use crate::support::gate::records;

/// `rolegate audit` with these arguments in `folder`: its exit code, what it printed, and what it said beside.
fn audit(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let ended = Program::new(&[&["audit"], arguments].concat()).within(folder).run();
    (ended.code, ended.out, ended.err)
}

/// The files of the log in `folder`, oldest first.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| !records(file).is_empty());
    files.sort_by_key(|file| records(file)[0]["seq"].as_u64());
    files
}

/// Every record of these kinds in `files`, in their order.
fn of_kind(files: &[PathBuf], kinds: &[&str]) -> Vec<Value> {
    let all = files.iter().flat_map(|file| records(file));
    all.filter(|record| kinds.contains(&record["kind"].as_str().unwrap())).collect()
}
