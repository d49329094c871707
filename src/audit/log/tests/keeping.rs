//! Stories of old files: which are removed, which never are, and which records say so.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::{Desk, event, event_at, kinds, lines, wait_until};
use crate::audit::sink::Medium;
use crate::audit::{AuditLog, Before, Keep, verify};

const DAY: i64 = 24 * 60 * 60;

impl Desk {
    fn keeping(mut self, files: Option<usize>, age: Option<Duration>) -> Self {
        self.settings.keep = Keep { files, age };
        self
    }
}

/// Makes `files` files with a record each, a day apart.
fn fill(log: &AuditLog, files: i64) {
    for day in 0..files {
        log.record(event_at(day * DAY)).unwrap();
        log.rotate().unwrap();
    }
}

/// Rotates as the size of the file does it, which leaves no record.
fn rotate_in_silence(log: &AuditLog) {
    let next = log.position().seq + 1;
    log.shared.latch.state().output.rotate(next).unwrap();
}

/// The time of an event `second` seconds after midnight.
fn time(second: i64) -> Timestamp {
    event_at(second).time
}

fn expired(path: &Path) -> Vec<serde_json::Value> {
    lines(path).into_iter().filter(|line| line["kind"] == "expired").collect()
}

#[test]
fn files_beyond_the_number_are_removed_oldest_first_and_a_record_names_each() {
    // As long as nobody asks, everything is kept.
    let desk = Desk::new();
    let log = desk.open();
    fill(&log, 5);
    assert_eq!((log.expire(time(99 * DAY)).unwrap(), desk.files().len()), (0, 6));
    let second = lines(&desk.rotated(2));
    drop(log);
    let desk = desk.keeping(Some(3), None);
    let log = desk.open();
    assert_eq!((log.expire(time(0)).unwrap(), desk.files().len()), (2, 4));
    assert_eq!(log.expire(time(0)).unwrap(), 0);
    log.record(event()).unwrap();
    drop(log);
    let told = expired(&desk.path());
    let numbers: Vec<_> =
        told.iter().map(|record| (record["first"].as_u64().unwrap(), record["last"].as_u64().unwrap())).collect();
    assert_eq!(numbers, [(1, 1), (2, 3)]);
    assert_eq!((&told[0]["cause"], &told[0]["file"]), (&json!("keep"), &json!("audit.00000000000000000001.jsonl")));
    assert_eq!(told[1]["last_time"], second.last().unwrap()["time"]);
    let verified = verify(&desk.files()).unwrap();
    assert_eq!((verified.first, verified.before), (4, Before::Expired(told[1]["seq"].as_u64().unwrap())));
    assert_eq!(verify(&desk.files()[1..]).unwrap().before, Before::NotGiven, "what somebody else removed is not told of");
}

#[test]
fn files_whose_last_record_is_too_old_are_removed_and_younger_ones_are_not() {
    let desk = Desk::new().keeping(None, Some(Duration::from_secs(90 * 24 * 3600)));
    let log = desk.open();
    // Rotated under the clock of the test only by records, whose times it reads.
    for day in [0, 30, 60] {
        log.record(event_at(day * DAY)).unwrap();
        rotate_in_silence(&log);
    }
    log.record(event_at(61 * DAY)).unwrap();
    assert_eq!(log.expire(time(90 * DAY)).unwrap(), 0);
    assert_eq!(log.expire(time(90 * DAY + 1)).unwrap(), 1);
    assert_eq!(log.expire(time(149 * DAY)).unwrap(), 1);
    assert_eq!(expired(&desk.path()).iter().map(|record| &record["cause"]).collect::<Vec<_>>(), ["keep_age"; 2]);
    assert_eq!(log.expire(time(1000 * DAY)).unwrap(), 1);
    assert_eq!(desk.files(), [desk.path()], "the one being written stays, however old");
    assert!(matches!(verify(&[desk.path()]).unwrap().before, Before::Expired(_)));
    drop(log);
    assert_eq!(desk.open().record(event()).unwrap().seq(), Some(8), "and the chain goes on");
}

#[test]
fn nothing_is_removed_that_is_not_certainly_an_old_file_of_this_log() {
    let desk = Desk::new();
    let log = desk.open();
    fill(&log, 3);
    drop(log);
    let desk = desk.keeping(Some(1), Some(Duration::from_secs(1)));
    let folder = desk.path().parent().unwrap().to_owned();
    let good = fs::read(desk.rotated(2)).unwrap();
    let strangers = [
        ("audit.00000000000000000000.jsonl", b"theirs\n".to_vec()),
        ("audit.00000000000000000009.jsonl", good.clone()),
        ("audit.00000000000000000001.jsonl.gz", good.clone()),
        ("other.00000000000000000002.jsonl", good.clone()),
        ("audit.2.jsonl", good.clone()),
        ("notes", b"".to_vec()),
    ];
    for (name, content) in &strangers {
        fs::write(folder.join(name), content).unwrap();
    }
    let target = folder.join("target");
    fs::write(&target, &good).unwrap();
    fs::remove_file(desk.rotated(2)).unwrap();
    std::os::unix::fs::symlink(&target, desk.rotated(2)).unwrap();
    fs::create_dir(folder.join("audit.00000000000000000003.jsonl")).unwrap();
    let torn = [&fs::read(desk.rotated(1)).unwrap()[..], b"{\"v\":1"].concat();
    fs::write(desk.rotated(1), torn).unwrap();
    let log = desk.open();
    log.expire(time(1000 * DAY)).unwrap();
    for (name, content) in &strangers {
        assert_eq!(fs::read(folder.join(name)).unwrap(), *content, "{name}");
    }
    assert!(target.exists() && desk.rotated(2).is_symlink() && desk.rotated(1).exists());
    assert!(folder.join("audit.00000000000000000003.jsonl").is_dir());
}

#[test]
fn without_its_record_no_file_is_removed() {
    let desk = Desk::new().keeping(Some(1), None);
    let log = desk.open();
    log.record(event_at(0)).unwrap();
    rotate_in_silence(&log);
    log.record(event_at(1)).unwrap();
    rotate_in_silence(&log);
    // One that is not open for writing: no room would help.
    log.shared.latch.state().output.medium = Box::new(File::open(desk.path()).unwrap());
    log.expire(time(2)).unwrap_err();
    assert!(desk.rotated(1).exists() && desk.rotated(2).exists());
}

/// A disk that has room again once a file of the log is gone.
#[derive(Debug)]
struct FullUntil {
    gone: PathBuf,
    file: File,
}

impl Medium for FullUntil {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.gone.exists() { Err(io::ErrorKind::StorageFull.into()) } else { Write::write(&mut self.file, bytes) }
    }

    fn mend(&mut self, count: u64) -> io::Result<()> {
        Medium::mend(&mut self.file, count)
    }
}

/// Puts `log` on a disk that is full until the file whose first record has the number `gone` is removed.
fn fill_disk(desk: &Desk, log: &AuditLog, gone: u64) {
    let file = OpenOptions::new().append(true).open(desk.path()).unwrap();
    log.shared.latch.state().output.medium = Box::new(FullUntil { gone: desk.rotated(gone), file });
}

#[test]
fn on_a_full_disk_files_that_are_not_to_be_kept_make_room_and_no_record_is_refused() {
    for desk in [Desk::new(), Desk::new().buffered()] {
        let desk = desk.keeping(Some(1), None);
        let log = desk.open();
        for second in 0..3 {
            log.record(event_at(second)).unwrap();
            log.flush().unwrap();
            rotate_in_silence(&log);
        }
        fill_disk(&desk, &log, 2);
        assert_eq!(log.record(event_at(3)).unwrap().seq(), Some(4));
        log.flush().unwrap();
        assert!(!desk.rotated(1).exists() && !desk.rotated(2).exists(), "the oldest first, as many as it takes");
        assert!(desk.rotated(3).exists(), "and none that is to be kept");
        // Both are told before anything else is recorded; an idle log tells of them, too.
        wait_until("the record of both", || expired(&desk.path()).len() == 2);
        let numbers: Vec<_> = expired(&desk.path()).iter().map(|told| told["first"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [1, 2]);
        assert_eq!(log.position().failures, 0);
        assert_eq!(log.record(event_at(4)).unwrap().seq(), Some(7));
        drop(log);
        assert!(matches!(verify(&desk.files()).unwrap().before, Before::Expired(6)), "{:?}", verify(&desk.files()));
        assert!(!kinds(&desk.path()).contains(&"loss".to_owned()));
    }
}

#[test]
fn a_removal_whose_own_record_has_no_room_is_made_and_told_once() {
    let desk = Desk::new().keeping(Some(1), None);
    let log = desk.open();
    for second in 0..2 {
        log.record(event_at(second)).unwrap();
        rotate_in_silence(&log);
    }
    fill_disk(&desk, &log, 1);
    assert_eq!(log.expire(time(3)).unwrap(), 1);
    assert_eq!(log.expire(time(3)).unwrap(), 0);
    log.record(event_at(4)).unwrap();
    assert_eq!(kinds(&desk.path()), ["expired", "reload"]);
}

#[test]
fn a_full_disk_that_no_removal_helps_costs_no_file_that_is_to_be_kept_and_a_loss_is_told_beside_the_removals() {
    let desk = Desk::new().keeping(Some(1), None);
    let log = desk.open();
    for second in 0..2 {
        log.record(event_at(second)).unwrap();
        rotate_in_silence(&log);
    }
    fill_disk(&desk, &log, 2);
    log.record(event_at(3)).unwrap_err();
    assert!(!desk.rotated(1).exists() && desk.rotated(2).exists());
    // Somebody else makes room, and moves the file away; the chain tells of it all.
    fs::rename(desk.rotated(2), desk.folder.path().join("copy")).unwrap();
    assert_eq!(log.record(event_at(4)).unwrap().seq(), Some(5));
    assert_eq!(kinds(&desk.path()), ["expired", "loss", "reload"]);
    let files = [desk.folder.path().join("copy"), desk.path()];
    assert!(matches!(verify(&files).unwrap().before, Before::Expired(3)));
}

#[test]
fn a_process_that_dies_between_the_removal_and_its_record_leaves_a_log_that_begins_later_and_no_loss() {
    let desk = Desk::new();
    let log = desk.open();
    fill(&log, 3);
    drop(log);
    fs::remove_file(desk.rotated(1)).unwrap();
    let desk = desk.keeping(Some(2), None);
    let log = desk.open();
    log.record(event()).unwrap();
    assert_eq!(log.expire(time(0)).unwrap(), 0);
    assert!(!desk.files().iter().flat_map(|file| kinds(file)).any(|kind| kind == "loss"));
    assert_eq!(verify(&desk.files()).unwrap().before, Before::NotGiven, "which is what is known");
}

#[test]
fn files_beyond_the_number_are_removed_as_soon_as_another_is_begun() {
    let desk = Desk::new().rotating(1200).keeping(Some(2), None);
    let log = desk.open();
    for second in 0..30 {
        log.record(event_at(second)).unwrap();
    }
    wait_until("the removal, long before ten seconds", || desk.files().len() == 3);
    drop(log);
    assert!(matches!(verify(&desk.files()).unwrap().before, Before::Expired(_)));
}

#[test]
fn a_log_with_a_bound_takes_no_more_files_than_it_whatever_makes_it_rotate() {
    let desk = Desk::new().rotating(1200).keeping(Some(2), None);
    let log = desk.open();
    for second in 0..100 {
        log.record(event_at(second)).unwrap();
    }
    drop(log);
    assert_eq!(desk.files().len(), 3, "although the records of removals filled files, too");
    let all: Vec<String> = desk.files().iter().flat_map(|file| kinds(file)).collect();
    assert!(all.contains(&"expired".to_owned()), "{all:?}");
    assert!(matches!(verify(&desk.files()).unwrap().before, Before::Expired(_)));
}

#[test]
fn a_log_whose_files_hold_one_record_each_is_not_kept_busy_for_ever() {
    let desk = Desk::new().rotating(1).keeping(Some(1), None);
    let log = desk.open();
    for second in 0..10 {
        log.record(event_at(second)).unwrap();
    }
    assert!(log.expire(time(10)).unwrap() < 100);
    drop(log);
    assert!(lines(&desk.path())[0]["seq"].as_u64().unwrap() < 2000, "nor is the thread that the files wake");
}

proptest! {
    #[test]
    fn what_is_kept_is_always_the_end_of_the_chain_within_both_bounds(
        files in 1_usize..8,
        most in prop::option::of(1_usize..6),
        days in prop::option::of(1_i64..10),
        now in 0_i64..20,
    ) {
        let age = days.map(|days| Duration::from_secs(u64::try_from(days * DAY).unwrap()));
        let desk = Desk::new().keeping(most, age);
        let log = desk.open();
        for day in 0..files {
            log.record(event_at(day as i64 * DAY)).unwrap();
            rotate_in_silence(&log);
        }
        log.record(event_at(files as i64 * DAY)).unwrap();
        log.expire(time(now * DAY)).unwrap();
        let kept = desk.files().len() - 1;
        let too_old = days.map_or(0, |days| usize::try_from(now - days).unwrap_or(0).min(files));
        prop_assert_eq!(kept, files.min(most.unwrap_or(usize::MAX)).min(files - too_old));
        let verified = verify(&desk.files()).unwrap();
        prop_assert_eq!(verified.first, (files - kept) as u64 + 1);
        prop_assert_eq!(matches!(verified.before, Before::Nothing), kept == files);
        prop_assert!(!matches!(verified.before, Before::NotGiven));
    }
}
