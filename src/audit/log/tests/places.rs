//! Stories of files that are moved, rotated, and put in the log's place.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::json;

use super::{Desk, event, event_at, kinds, lines};
use crate::audit::{AuditLog, Before, Sink, sorted, verify};

/// Moves the log away as `logrotate` does, without a word to who writes it.
fn move_away(desk: &Desk, name: &str) -> PathBuf {
    let aside = desk.folder.path().join(name);
    fs::rename(desk.path(), &aside).unwrap();
    aside
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_log_that_was_moved_goes_on_in_a_new_file_when_it_is_reopened_and_nothing_counts_as_lost() {
    let desk = Desk::new();
    let log = desk.open();
    log.record(event_at(0)).unwrap();
    let aside = move_away(&desk, "audit.jsonl.1");
    log.record(event_at(0)).unwrap();
    log.reopen().unwrap();
    assert_eq!(kinds(&desk.path()), ["rotated"], "the new file is tied to the old one at once");
    log.record(event_at(0)).unwrap();
    assert_eq!(
        (kinds(&aside), kinds(&desk.path())),
        (vec!["reload".to_owned(); 2], vec!["rotated".to_owned(), "reload".to_owned()])
    );
    let rotated = &lines(&desk.path())[0];
    assert_eq!((&rotated["cause"], &rotated["before"], &rotated["records"]), (&json!("moved"), &json!(null), &json!(2)));
    assert_eq!(mode(&desk.path()), 0o600);
    assert_eq!(verify(&[aside, desk.path()]).unwrap().before, Before::Nothing);
    assert!(desk.metric("rolegate_audit_failures_total 0"));
    assert!(desk.metric(r#"rolegate_audit_records_total{kind="rotated"} 1"#));
}

#[test]
fn a_moved_log_is_noticed_within_a_second_without_being_told() {
    let desk = Desk::new();
    desk.open().record(event_at(0)).unwrap();
    let log = desk.open();
    log.record(event_at(0)).unwrap();
    let aside = move_away(&desk, "elsewhere");
    log.record(event_at(0)).unwrap();
    assert!(!desk.path().exists(), "looking costs a call to the kernel, so that not every record does it");
    log.record(event_at(1)).unwrap();
    assert_eq!(kinds(&desk.path()), ["rotated", "reload"]);
    assert_eq!(lines(&desk.path())[0]["records"], 3);
    assert_eq!(verify(&[aside, desk.path()]).unwrap().records, 5);
}

#[test]
fn a_log_that_has_another_name_out_of_reach_is_not_lost() {
    let desk = Desk::new();
    let log = desk.open();
    log.record(event()).unwrap();
    let kept = desk.folder.path().join("kept");
    fs::hard_link(desk.path(), &kept).unwrap();
    fs::remove_file(desk.path()).unwrap();
    log.reopen().unwrap();
    log.record(event()).unwrap();
    assert_eq!(kinds(&desk.path()), ["rotated", "reload"]);
    assert_eq!(verify(&[kept, desk.path()]).unwrap().records, 3);
}

#[test]
fn a_log_that_was_moved_and_then_removed_or_cut_is_lost() {
    let harms: [fn(&Path); 2] = [
        |moved| fs::remove_file(moved).unwrap(),
        |moved| OpenOptions::new().write(true).open(moved).unwrap().set_len(10).unwrap(),
    ];
    for harm in harms {
        let desk = Desk::new();
        let log = desk.open();
        log.record(event()).unwrap();
        harm(&move_away(&desk, "moved"));
        log.reopen().unwrap();
        assert_eq!(kinds(&desk.path()), ["loss"]);
        assert_eq!((&lines(&desk.path())[0]["removed"], &lines(&desk.path())[0]["records"]), (&json!(true), &json!(1)));
    }
}

#[test]
fn a_log_that_is_in_its_place_is_reopened_without_a_trace() {
    let desk = Desk::new();
    let log = desk.open();
    log.record(event()).unwrap();
    log.reopen().unwrap();
    assert_eq!(kinds(&desk.path()), ["reload"]);
}

#[test]
fn an_empty_file_that_somebody_else_put_there_is_taken_without_the_permissions_that_the_log_did_not_have() {
    for (log_has, theirs, becomes) in [(0o600, 0o644, 0o600), (0o640, 0o666, 0o640), (0o644, 0o600, 0o600)] {
        let desk = Desk::new();
        let log = desk.open();
        log.record(event()).unwrap();
        fs::set_permissions(desk.path(), fs::Permissions::from_mode(log_has)).unwrap();
        let aside = move_away(&desk, "audit.jsonl.1");
        fs::write(desk.path(), "").unwrap();
        fs::set_permissions(desk.path(), fs::Permissions::from_mode(theirs)).unwrap();
        log.reopen().unwrap();
        assert_eq!(mode(&desk.path()), becomes, "{log_has:o} before, {theirs:o} put there");
        assert_eq!(verify(&[aside, desk.path()]).unwrap().records, 2);
    }
}

#[test]
fn a_file_with_content_that_somebody_else_put_there_is_kept_beside_the_log() {
    let desk = Desk::new();
    let log = desk.open();
    log.record(event()).unwrap();
    let aside = move_away(&desk, "moved");
    fs::write(desk.path(), "theirs\n").unwrap();
    log.reopen().unwrap();
    assert_eq!(fs::read_to_string(desk.rotated(1)).unwrap(), "theirs\n");
    assert_eq!(verify(&[aside, desk.path()]).unwrap().records, 2);
}

#[test]
fn a_process_that_dies_right_after_it_reopened_its_log_does_not_begin_a_second_chain() {
    let desk = Desk::new();
    let log = desk.open();
    log.record(event()).unwrap();
    let aside = move_away(&desk, "moved");
    log.reopen().unwrap();
    let left = fs::read(desk.path()).unwrap();
    drop(log);
    fs::write(desk.path(), left).unwrap();
    desk.open().record(event()).unwrap();
    assert_eq!(verify(&[aside, desk.path()]).unwrap().records, 3);
}

#[test]
fn a_log_is_rotated_when_it_is_asked_for() {
    let desk = Desk::new();
    let log = desk.open();
    assert_eq!(log.rotate().unwrap(), None, "there is nothing to rotate");
    log.record(event()).unwrap();
    assert_eq!(log.rotate().unwrap(), Some(desk.rotated(1)));
    assert_eq!(kinds(&desk.path()), ["rotated"]);
    let rotated = &lines(&desk.path())[0];
    let name = desk.rotated(1).file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!((&rotated["cause"], &rotated["before"], &rotated["records"]), (&json!("asked"), &json!(name), &json!(1)));
    log.record(event()).unwrap();
    assert_eq!(log.rotate().unwrap(), Some(desk.rotated(2)));
    assert_eq!(desk.verified().records, 4);
}

#[test]
fn a_rotation_that_cannot_be_made_says_why_and_costs_no_record() {
    let desk = Desk::new();
    let log = desk.open();
    log.record(event()).unwrap();
    fs::write(desk.rotated(1), "mine").unwrap();
    assert!(log.rotate().unwrap_err().to_string().contains("exists"));
    log.record(event()).unwrap();
    assert_eq!(verify(&[desk.path()]).unwrap().records, 2);
    let mut desk = Desk::new();
    desk.settings.sink = Sink::Stdout;
    assert!(desk.open().rotate().unwrap_err().to_string().contains("standard output"));
}

#[test]
fn what_waits_is_in_the_file_that_is_rotated() {
    let desk = Desk::new().buffered();
    let log = desk.open();
    for _ in 0..3 {
        log.record(event()).unwrap();
    }
    log.rotate().unwrap();
    assert_eq!(kinds(&desk.rotated(1)).len(), 3);
}

/// What may happen to a log's files.
#[derive(Debug, Clone)]
enum Turn {
    Record,
    Soon,
    Move,
    Reopen,
    Rotate,
    Restart,
    Ready,
    /// Seconds pass.
    Wait(i64),
    /// Somebody puts an empty file where the log was.
    Create,
}

proptest! {
    #[test]
    fn however_a_log_is_moved_and_rotated_its_files_are_one_chain_and_nothing_is_called_lost(
        turns in prop::collection::vec(
            prop_oneof![
                6 => Just(Turn::Record),
                2 => Just(Turn::Soon),
                3 => Just(Turn::Move),
                2 => Just(Turn::Reopen),
                2 => Just(Turn::Rotate),
                1 => Just(Turn::Restart),
                1 => Just(Turn::Ready),
                2 => (0_i64..3).prop_map(Turn::Wait),
                1 => Just(Turn::Create),
            ],
            0..40,
        ),
        small: bool,
    ) {
        let desk = Desk::new().rotating(if small { 600 } else { 1 << 20 });
        let mut log: Option<AuditLog> = Some(desk.open());
        let (mut second, mut made, mut moved) = (0, 0, 0);
        for turn in turns {
            let open = log.get_or_insert_with(|| desk.open());
            match turn {
                Turn::Record => {
                    open.record(event_at(second)).unwrap();
                    made += 1;
                }
                Turn::Soon => {
                    open.record_soon(event_at(second), std::time::Instant::now());
                    made += 1;
                }
                Turn::Move if desk.path().exists() => {
                    moved += 1;
                    fs::rename(desk.path(), desk.folder.path().join(format!("audit/moved.{moved}"))).unwrap();
                }
                Turn::Create if !desk.path().exists() => fs::write(desk.path(), "").unwrap(),
                Turn::Move | Turn::Create => {}
                Turn::Reopen => open.reopen().unwrap(),
                Turn::Rotate => drop(open.rotate().unwrap()),
                Turn::Restart => log = None,
                Turn::Ready => prop_assert!(open.writable()),
                Turn::Wait(seconds) => second += seconds,
            }
        }
        drop(log);
        let files = desk.files();
        let files = sorted(&files).unwrap().unwrap_or(files);
        let verified = verify(&files).unwrap();
        let all: Vec<String> = files.iter().flat_map(|file| kinds(file)).collect();
        prop_assert_eq!(all.iter().filter(|kind| *kind == "reload").count(), made);
        prop_assert_eq!(all.iter().filter(|kind| *kind == "loss").count(), 0);
        prop_assert_eq!(all.len() as u64, verified.records);
    }
}
