//! What fuzzing once thought of stays tried: every seed, and every input that ever failed, goes through the fuzzer's own checks.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

// The fuzzer's crate has the same type from the crate `url`.
use reqwest::Url;

#[path = "../fuzz/checks.rs"]
mod checks;

/// Tries `check` on every file of these folders of `tests/fuzz`, and names those that fail.
fn replay(check: fn(&[u8]), folders: &[&str]) {
    let mut failed = Vec::new();
    let mut tried = 0;
    for folder in folders {
        for path in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(folder)) {
            let bytes = fs::read(&path).unwrap();
            tried += 1;
            if catch_unwind(|| check(&bytes)).is_err() {
                failed.push(path);
            }
        }
    }
    assert!(tried > 0, "{folders:?} hold nothing to try");
    assert!(failed.is_empty(), "{failed:#?}");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_known_target_is_sent_as_it_was_judged_or_not_at_all() {
    replay(checks::target, &["seeds/target", "crashes/target"]);
}

#[test]
fn every_known_query_is_read_back_as_it_was_written() {
    replay(checks::query, &["seeds/query", "crashes/query"]);
}

#[test]
fn every_known_set_of_headers_gives_one_credential_or_none() {
    replay(checks::headers, &["seeds/headers", "crashes/headers"]);
}

#[test]
fn every_known_body_of_a_call_runs_what_was_judged_or_nothing() {
    replay(checks::call, &["seeds/call", "crashes/call"]);
}

#[test]
fn every_known_text_of_rules_is_refused_at_its_place_or_can_be_used() {
    assert!(checks::small_is_accepted());
    replay(checks::provider_file, &["small", "seeds/provider_file", "crashes/provider_file"]);
}

#[test]
fn every_known_change_of_an_audit_log_is_noticed() {
    replay(checks::audit_line, &["seeds/audit_line", "crashes/audit_line"]);
}

#[test]
fn every_shipped_rule_file_can_be_read_in_the_place_of_any_other() {
    for (_, text) in rolegate::rules::source::BUILT_IN {
        checks::provider_file(text.as_bytes());
    }
}
