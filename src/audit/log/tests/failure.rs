//! Stories of loss: full disks, and files that are removed, replaced or taken over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::join_all;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::{Desk, event, event_at, kinds, lines};
use crate::audit::sink::Medium;
use crate::audit::{AuditLog, Event, Recorded, Unrecorded, verify};

/// A file on a disk with room for so many bytes more.
#[derive(Debug)]
struct SmallDisk {
    file: File,
    room: Arc<AtomicUsize>,
}

impl Medium for SmallDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.room.load(Ordering::SeqCst));
        if count == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.room.fetch_sub(count, Ordering::SeqCst);
        self.file.write_all(&bytes[..count]).map(|()| count)
    }

    fn mend(&mut self, count: u64) -> io::Result<()> {
        Medium::mend(&mut self.file, count)
    }
}

/// A file that counts the calls to the kernel.
#[derive(Debug)]
struct Counted {
    file: File,
    calls: Arc<AtomicUsize>,
}

impl Medium for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Write::write(&mut self.file, bytes)
    }

    fn mend(&mut self, count: u64) -> io::Result<()> {
        Medium::mend(&mut self.file, count)
    }
}

/// Counts how often `log` calls the kernel to write.
fn count_calls(log: &AuditLog, path: &Path) -> Arc<AtomicUsize> {
    let calls = Arc::new(AtomicUsize::new(0));
    let file = OpenOptions::new().append(true).open(path).unwrap();
    log.shared.latch.state().output.medium = Box::new(Counted { file, calls: Arc::clone(&calls) });
    calls
}

/// Puts a disk with room for `bytes` bytes under `log`.
fn shrink_disk(log: &AuditLog, path: &Path, bytes: usize) -> Arc<AtomicUsize> {
    let room = Arc::new(AtomicUsize::new(bytes));
    let file = OpenOptions::new().append(true).open(path).unwrap();
    log.shared.latch.state().output.medium = Box::new(SmallDisk { file, room: Arc::clone(&room) });
    room
}

#[test]
fn on_a_full_disk_nothing_is_permitted_and_the_loss_is_told_afterwards() {
    let desk = Desk::new();
    let log = desk.open();
    log.record(event_at(0)).unwrap();
    // The kernel's own "no space left on device".
    log.shared.latch.state().output.medium = Box::new(OpenOptions::new().append(true).open("/dev/full").unwrap());
    for second in 1..=3 {
        let refused = log.record(event_at(second)).unwrap_err();
        assert_eq!(refused.cause.kind(), io::ErrorKind::StorageFull);
        assert_eq!(refused.entry, event_at(second), "the entry comes back");
    }
    assert!(!log.writable());
    assert_eq!(log.position().failures, 3);
    assert!(desk.metric("rolegate_audit_failures_total 3"));
    shrink_disk(&log, &desk.path(), usize::MAX);
    assert_eq!(log.record(event_at(9)).unwrap().seq(), Some(3));
    assert_eq!(kinds(&desk.path()), ["reload", "loss", "reload"]);
    let loss = &lines(&desk.path())[1];
    assert_eq!(loss["records"], 3);
    assert_eq!(loss["since"], "2026-01-02T00:00:01.000000Z");
    assert_eq!(loss["removed"], false);
    assert_eq!(loss["on_failure"], "deny");
    assert!(loss["cause"].as_str().unwrap().contains("No space left"), "{loss}");
    assert!(log.writable());
    assert_eq!(desk.verified().records, 3);
}

#[test]
fn an_operator_may_choose_to_go_on_without_records() {
    let desk = Desk::new().allowing();
    let log = desk.open();
    let room = shrink_disk(&log, &desk.path(), 0);
    assert_eq!(log.record(event()).unwrap().seq(), None);
    assert_eq!(log.record(event()).unwrap().seq(), None);
    room.store(usize::MAX, Ordering::SeqCst);
    assert_eq!(log.record(event()).unwrap().seq(), Some(2));
    let loss = &lines(&desk.path())[0];
    assert_eq!((&loss["records"], &loss["on_failure"]), (&json!(2), &json!("allow")));
}

#[test]
fn an_idle_process_finds_out_by_itself_that_it_can_write_again() {
    let desk = Desk::new();
    let log = desk.open();
    let room = shrink_disk(&log, &desk.path(), 0);
    log.record(event()).unwrap_err();
    assert!(!log.writable());
    room.store(usize::MAX, Ordering::SeqCst);
    assert!(log.writable());
    assert_eq!(kinds(&desk.path()), ["loss"]);
    assert!(log.writable());
    assert_eq!(kinds(&desk.path()), ["loss"], "told once");
}

#[test]
fn a_write_that_stops_half_way_leaves_no_half_line() {
    let desk = Desk::new();
    let log = desk.open();
    log.record(event()).unwrap();
    let whole = fs::read(desk.path()).unwrap();
    for room in [1, 50, whole.len() - 1] {
        shrink_disk(&log, &desk.path(), room);
        log.record(event()).unwrap_err();
        assert_eq!(fs::read(desk.path()).unwrap(), whole);
    }
    // What others append meanwhile is not taken for our own half line.
    OpenOptions::new().append(true).open(desk.path()).unwrap().write_all(b"theirs\n").unwrap();
    shrink_disk(&log, &desk.path(), 50);
    log.record(event()).unwrap_err();
    assert_eq!(fs::read(desk.path()).unwrap(), [&whole[..], b"theirs\n"].concat());
}

#[test]
fn a_half_line_that_cannot_be_cut_at_once_is_cut_before_the_next_write() {
    #[derive(Debug)]
    struct Stuck(File);
    impl Medium for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.starts_with(b"{\"v") {
                Write::write(&mut self.0, &bytes[..10])
            } else {
                Err(io::ErrorKind::StorageFull.into())
            }
        }
        fn mend(&mut self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
    let desk = Desk::new();
    let log = desk.open();
    log.record(event()).unwrap();
    let whole = fs::metadata(desk.path()).unwrap().len();
    let file = OpenOptions::new().append(true).open(desk.path()).unwrap();
    log.shared.latch.state().output.medium = Box::new(Stuck(file));
    log.record(event()).unwrap_err();
    log.record(event()).unwrap_err();
    assert_eq!(fs::metadata(desk.path()).unwrap().len(), whole + 10, "nothing runs into the half line");
    shrink_disk(&log, &desk.path(), usize::MAX);
    log.record(event()).unwrap();
    assert_eq!(desk.verified().records, 3);
}

#[test]
fn a_record_that_does_not_fit_in_a_line_is_refused_and_counted_as_lost() {
    let desk = Desk::new();
    let log = desk.open();
    let mut large = event();
    large.fields.insert("text".to_owned(), json!("x".repeat(1 << 20)));
    assert_eq!(log.record(large).unwrap_err().cause.kind(), io::ErrorKind::InvalidData);
    let mut forged = event();
    forged.fields.insert("seq".to_owned(), json!(1));
    assert_eq!(log.record(forged).unwrap_err().cause.kind(), io::ErrorKind::InvalidData);
    log.record(event()).unwrap();
    assert_eq!(lines(&desk.path())[0]["records"], 2);
    assert_eq!(desk.verified().records, 2);
}

#[test]
fn a_removed_file_is_noticed_within_a_second_and_the_chain_goes_on() {
    let desk = Desk::new();
    desk.open().record(event_at(0)).unwrap();
    let log = desk.open();
    log.record(event_at(0)).unwrap();
    fs::remove_file(desk.path()).unwrap();
    log.record(event_at(0)).unwrap();
    assert!(!desk.path().exists(), "looking costs a call to the kernel, so that not every record does it");
    log.record(event_at(1)).unwrap();
    assert_eq!(kinds(&desk.path()), ["loss", "reload"]);
    let loss = &lines(&desk.path())[0];
    assert_eq!((&loss["removed"], &loss["records"]), (&json!(true), &json!(3)));
    assert_eq!((&loss["since"], &loss["cause"]), (&json!("2026-01-02T00:00:00.000000Z"), &json!("the file was removed")));
    assert_eq!(verify(&[desk.path()]).unwrap().first, 4);
}

#[test]
fn a_readiness_check_notices_that_the_file_of_an_idle_process_was_removed() {
    let desk = Desk::new();
    let log = desk.open();
    log.record(event()).unwrap();
    fs::remove_dir_all(desk.path().parent().unwrap()).unwrap();
    assert!(log.writable());
    assert_eq!(kinds(&desk.path()), ["loss"]);
}

#[test]
fn a_file_that_cannot_be_made_again_refuses_records_until_it_can() {
    let desk = Desk::new();
    let log = desk.open();
    log.record(event_at(0)).unwrap();
    let folder = desk.path().parent().unwrap().to_owned();
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "").unwrap();
    log.record(event_at(1)).unwrap_err();
    log.record(event_at(2)).unwrap_err();
    fs::remove_file(&folder).unwrap();
    log.record(event_at(2)).unwrap();
    assert_eq!(kinds(&desk.path()), ["loss", "loss", "reload"]);
    assert_eq!(lines(&desk.path())[0]["removed"], true);
    assert_eq!(lines(&desk.path())[0]["records"], 1);
    assert_eq!(lines(&desk.path())[1]["records"], 2);
}

#[test]
fn what_a_readiness_check_found_missing_is_missing_for_the_next_record_too() {
    let desk = Desk::new();
    let log = desk.open();
    let folder = desk.path().parent().unwrap().to_owned();
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "").unwrap();
    assert!(!log.writable());
    log.record(Event { time: Timestamp::now(), ..event() }).unwrap_err();
}

#[test]
fn a_file_removed_at_the_very_end_is_told_of_at_the_end() {
    let desk = Desk::new();
    let log = desk.open();
    log.record(event()).unwrap();
    fs::remove_file(desk.path()).unwrap();
    drop(log);
    assert_eq!(kinds(&desk.path()), ["loss"]);
}

#[test]
fn a_rotation_does_not_take_a_stranger_for_its_own_file() {
    let desk = Desk::new().rotating(300);
    let log = desk.open();
    log.record(event()).unwrap();
    fs::rename(desk.path(), desk.path().with_file_name("moved")).unwrap();
    fs::write(desk.path(), "theirs\n").unwrap();
    for _ in 0..3 {
        log.record(event_at(0)).unwrap();
    }
    assert_eq!(fs::read_to_string(desk.path()).unwrap(), "theirs\n");
    log.record(event_at(1)).unwrap();
    assert_eq!(fs::read_to_string(desk.rotated(1)).unwrap(), "theirs\n");
    let rotated = &lines(&desk.rotated(5))[0];
    assert_eq!((&rotated["kind"], &rotated["cause"], &rotated["records"]), (&json!("rotated"), &json!("moved"), &json!(4)));
}

#[test]
fn an_edited_file_is_kept_beside_the_one_that_goes_on() {
    let desk = Desk::new();
    let log = desk.open();
    log.record(event_at(0)).unwrap();
    log.record(event_at(0)).unwrap();
    // Editors write a new file and rename it.
    let edited = desk.path().with_file_name("edited");
    fs::copy(desk.path(), &edited).unwrap();
    fs::rename(&edited, desk.path()).unwrap();
    log.record(event_at(2)).unwrap();
    let aside = desk.rotated(1);
    assert_eq!(desk.files(), [aside, desk.path()]);
    assert_eq!(lines(&desk.path())[0]["cause"], "the file was replaced");
    assert_eq!(desk.verified().records, 4, "the edit changed nothing");
}

#[test]
fn a_shortened_file_is_kept_beside_the_one_that_goes_on() {
    let desk = Desk::new();
    let log = desk.open();
    log.record(event_at(0)).unwrap();
    OpenOptions::new().write(true).open(desk.path()).unwrap().set_len(20).unwrap();
    log.record(event_at(2)).unwrap();
    assert_eq!(lines(&desk.path())[0]["cause"], "the file was shortened");
    let broken = verify(&desk.files()).unwrap_err().to_string();
    assert!(broken.contains(".jsonl:1: the line is torn"), "{broken}");
}

#[test]
fn a_log_that_another_process_took_over_is_left_to_it() {
    let desk = Desk::new();
    let log = desk.open();
    log.record(event_at(0)).unwrap();
    fs::rename(desk.path(), desk.path().with_file_name("moved")).unwrap();
    let other = desk.open();
    other.record(event_at(0)).unwrap();
    let refused = log.record(event_at(5)).unwrap_err();
    assert!(refused.cause.to_string().contains("another process"), "{refused}");
    assert_eq!(kinds(&desk.path()), ["reload"]);
    drop(other);
    log.record(event_at(6)).unwrap();
}

#[test]
fn what_is_buffered_is_bounded_and_survives_a_full_disk_without_a_gap() {
    let desk = Desk::new().buffered().rotating(10 << 10);
    let log = desk.open();
    let room = shrink_disk(&log, &desk.path(), 0);
    log.record(event()).unwrap();
    log.flush().unwrap_err();
    assert!(!log.writable());
    let mut large = event();
    large.fields.insert("text".to_owned(), json!("x".repeat(1000)));
    let accepted = 1 + (0..200).take_while(|_| log.record(large.clone()).is_ok()).count();
    assert!((55..60).contains(&accepted), "64 KiB and the record that passed them, not {accepted} records");
    assert!(desk.metric(&format!("rolegate_audit_pending_records {accepted}")));
    assert!(!log.writable());
    // Room for three lines and a part of the next: the three stay, and the part is cut.
    room.store(2900, Ordering::SeqCst);
    log.flush().unwrap_err();
    assert_eq!(lines(&desk.path()).len(), 3);
    room.store(usize::MAX, Ordering::SeqCst);
    log.record(event()).unwrap();
    drop(log);
    let verified = desk.verified();
    assert_eq!(verified.records, accepted as u64 + 2, "all of them, a loss record and the last one");
}

#[test]
fn what_nobody_waits_for_is_written_with_the_next_record_or_when_the_log_is_flushed() {
    let desk = Desk::new();
    let log = desk.open();
    log.record(event()).unwrap();
    assert!(log.record_soon(event(), Instant::now()), "it waits");
    assert!(desk.metric("rolegate_audit_pending_records 1"));
    assert_eq!((kinds(&desk.path()).len(), log.position().seq), (1, 2));
    assert_eq!(log.record(event()).unwrap().seq(), Some(3));
    assert!(desk.metric("rolegate_audit_pending_records 0"));
    assert_eq!(desk.verified().records, 3);
    log.record_soon(event(), Instant::now());
    log.flush().unwrap();
    assert_eq!(desk.verified().records, 4);
    log.record_soon(event(), Instant::now());
    drop(log);
    assert_eq!(desk.verified().records, 5, "the end writes what waits");
}

#[test]
fn what_is_buffered_anyway_waits_for_the_thread_that_writes_it() {
    let log = Desk::new().buffered().open();
    assert!(!log.record_soon(event(), Instant::now()));
}

#[test]
fn a_record_that_fails_behind_what_waits_takes_nothing_of_it_along() {
    let desk = Desk::new();
    let log = desk.open();
    log.record(event()).unwrap();
    let line = fs::read(desk.path()).unwrap().len();
    for _ in 0..2 {
        log.record_soon(event(), Instant::now());
    }
    // Room for one of the two, and a part of the other.
    let room = shrink_disk(&log, &desk.path(), line + line / 2);
    log.record(event()).unwrap_err();
    assert_eq!(kinds(&desk.path()).len(), 2);
    assert!(desk.metric("rolegate_audit_pending_records 1"));
    room.store(usize::MAX, Ordering::SeqCst);
    assert_eq!(log.record(event()).unwrap().seq(), Some(5));
    assert_eq!(kinds(&desk.path()), ["reload", "reload", "reload", "loss", "reload"]);
    assert_eq!(lines(&desk.path())[3]["records"], 1);
    assert_eq!(desk.verified().records, 5);
}

#[test]
fn tasks_that_record_at_the_same_moment_share_one_call_to_the_kernel() {
    let desk = Desk::new();
    let log = desk.open();
    let calls = count_calls(&log, &desk.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let recorded = runtime.block_on(join_all((0..50).map(|second| log.record_together(event_at(second), Instant::now()))));
    let numbers: Vec<_> = recorded.into_iter().map(|recorded| recorded.unwrap().seq().unwrap()).collect();
    assert_eq!(numbers, Vec::from_iter(1..=50));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(desk.verified().records, 50);
}

#[test]
fn a_task_that_is_dropped_while_it_waits_for_company_leaves_its_record() {
    let desk = Desk::new();
    let log = desk.open();
    let waiting = begun(&log, 1);
    assert_eq!((kinds(&desk.path()).len(), log.position().seq), (0, 1));
    drop(waiting);
    assert_eq!(desk.verified().records, 1);
}

#[test]
fn of_records_that_are_written_together_each_one_that_fails_is_an_error_and_a_loss() {
    let desk = Desk::new();
    let log = desk.open();
    log.record(event()).unwrap();
    let line = fs::read(desk.path()).unwrap().len();
    // Room for two of the five, and a part of the third.
    let room = shrink_disk(&log, &desk.path(), 2 * line + line / 2);
    let waiting: Vec<_> = (1..=5).map(|second| begun(&log, second)).collect();
    log.record_soon(event(), Instant::now());
    let ended: Vec<_> = waiting.into_iter().map(|waiting| waiting.now_or_never().unwrap()).collect();
    assert_eq!(ended.iter().map(|ended| ended.as_ref().ok()?.seq()).collect::<Vec<_>>(), [Some(2), Some(3), None, None, None]);
    for (refused, second) in ended.into_iter().filter_map(Result::err).zip(3..) {
        assert_eq!((refused.entry, refused.cause.kind()), (event_at(second), io::ErrorKind::StorageFull));
    }
    assert!(desk.metric("rolegate_audit_failures_total 3"));
    assert!(desk.metric("rolegate_audit_pending_records 1"), "what nobody waits for waits on");
    room.store(usize::MAX, Ordering::SeqCst);
    assert_eq!(log.record(event()).unwrap().seq(), Some(6));
    assert_eq!(kinds(&desk.path()), ["reload", "reload", "reload", "reload", "loss", "reload"]);
    assert_eq!(lines(&desk.path())[4]["records"], 3);
    assert_eq!(lines(&desk.path())[4]["since"], "2026-01-02T00:00:03.000000Z");
    desk.verified();
}

#[test]
fn records_that_cannot_be_written_together_are_made_without_a_number_where_the_operator_goes_on() {
    let desk = Desk::new().allowing();
    let log = desk.open();
    let room = shrink_disk(&log, &desk.path(), 0);
    let waiting: Vec<_> = (1..=2).map(|second| begun(&log, second)).collect();
    for waiting in waiting {
        assert_eq!(waiting.now_or_never().unwrap().unwrap().seq(), None);
    }
    room.store(usize::MAX, Ordering::SeqCst);
    log.record(event()).unwrap();
    assert_eq!(lines(&desk.path())[0]["records"], 2);
}

#[test]
fn what_is_buffered_waits_for_no_company() {
    let desk = Desk::new().buffered();
    let log = desk.open();
    assert_eq!(log.record_together(event(), Instant::now()).now_or_never().unwrap().unwrap().seq(), Some(1));
}

/// A record under way, of something that happened at this second.
type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Recorded<Event>, Unrecorded<Event>>> + 'a>>;

/// Begins to record, and waits for company.
fn begun(log: &AuditLog, second: i64) -> Waiting<'_> {
    let mut recording = Box::pin(log.record_together(event_at(second), Instant::now()));
    assert!(recording.as_mut().now_or_never().is_none());
    recording
}

/// What may happen to a log.
#[derive(Debug, Clone)]
enum Turn {
    Record,
    Soon,
    /// A task begins to record.
    Begin,
    /// One of those that have begun goes on.
    GoOn(prop::sample::Index),
    /// One of those that have begun is dropped.
    Leave(prop::sample::Index),
    Flush,
    /// So much room is left on the disk.
    Room(usize),
}

proptest! {
    #[test]
    fn whatever_order_records_come_in_and_wherever_the_disk_is_full_the_chain_holds_all_that_was_accepted(
        turns in prop::collection::vec(
            prop_oneof![
                3 => Just(Turn::Record),
                3 => Just(Turn::Soon),
                4 => Just(Turn::Begin),
                2 => any::<prop::sample::Index>().prop_map(Turn::GoOn),
                1 => any::<prop::sample::Index>().prop_map(Turn::Leave),
                1 => Just(Turn::Flush),
                1 => (0_usize..1000).prop_map(Turn::Room),
                1 => Just(Turn::Room(usize::MAX)),
            ],
            0..60,
        ),
    ) {
        let desk = Desk::new();
        let log = desk.open();
        let room = shrink_disk(&log, &desk.path(), usize::MAX);
        let (mut accepted, mut left) = (0, 0);
        let mut waiting = Vec::new();
        for turn in turns {
            match turn {
                Turn::Begin => {
                    let mut recording = Box::pin(log.record_together(event(), Instant::now()));
                    // What cannot even begin is refused at once.
                    if recording.as_mut().now_or_never().is_none() {
                        waiting.push(recording);
                    }
                }
                Turn::GoOn(which) if !waiting.is_empty() => {
                    let went = waiting.swap_remove(which.index(waiting.len())).now_or_never().unwrap();
                    accepted += usize::from(went.is_ok());
                }
                Turn::Leave(which) if !waiting.is_empty() => {
                    drop(waiting.swap_remove(which.index(waiting.len())));
                    left += 1;
                }
                Turn::GoOn(_) | Turn::Leave(_) => {}
                Turn::Record => accepted += usize::from(log.record(event()).is_ok()),
                Turn::Soon => {
                    let before = log.position().seq;
                    log.record_soon(event(), Instant::now());
                    accepted += usize::from(log.position().seq > before);
                }
                Turn::Flush => drop(log.flush()),
                Turn::Room(left) => room.store(left, Ordering::SeqCst),
            }
        }
        room.store(usize::MAX, Ordering::SeqCst);
        for recording in waiting {
            accepted += usize::from(recording.now_or_never().unwrap().is_ok());
        }
        log.record(event()).unwrap();
        let kept = kinds(&desk.path()).iter().filter(|kind| *kind == "reload").count();
        prop_assert!((accepted + 1..=accepted + 1 + left).contains(&kept), "{kept} of {accepted}, and {left} left");
        desk.verified();
    }
}
