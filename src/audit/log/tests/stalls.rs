//! Stories of writes that hang and of pipes that nobody reads.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write, pipe};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::{Desk, event_at, kinds, lines};
use crate::audit::sink::{Medium, Output};
use crate::audit::{AuditLog, Event, verify};

/// A file on a disk that does not answer: each write waits until the other end of `held` is gone.
#[derive(Debug)]
struct HungDisk {
    file: File,
    entered: Sender<()>,
    held: Receiver<()>,
}

impl Medium for HungDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.entered.send(()).unwrap();
        // It only ever ends by being gone.
        let _ = self.held.recv();
        Write::write(&mut self.file, bytes)
    }

    fn mend(&mut self, count: u64) -> io::Result<()> {
        Medium::mend(&mut self.file, count)
    }
}

#[test]
fn a_write_that_hangs_keeps_the_others_waiting_for_a_moment_and_never_again() {
    let desk = Desk::new();
    let log = Arc::new(desk.open());
    log.record(event_at(0)).unwrap();
    let (entered, has_entered) = channel();
    let (release, held) = channel();
    let file = OpenOptions::new().append(true).open(desk.path()).unwrap();
    log.shared.latch.state().output.medium = Box::new(HungDisk { file, entered, held });
    let hangs = thread::spawn({
        let log = Arc::clone(&log);
        move || log.record(event_at(1)).map(|recorded| recorded.seq())
    });
    has_entered.recv().unwrap();
    let refused = log.record(event_at(2)).unwrap_err();
    assert_eq!((refused.cause.kind(), refused.entry), (io::ErrorKind::TimedOut, event_at(2)));
    let began = Instant::now();
    for second in 3..50 {
        log.record(event_at(second)).unwrap_err();
    }
    assert!(!log.record_soon(event_at(50), began));
    assert!(!log.writable());
    assert_eq!(log.position().file, Some(desk.path()), "who asks is answered");
    assert!(log.reopen().is_err() && log.rotate().is_err() && log.flush().is_err());
    assert!(began.elapsed() < Duration::from_millis(200), "only the first one waited: {:?}", began.elapsed());

    drop(release);
    assert_eq!(hangs.join().unwrap().unwrap(), Some(2));
    log.record(event_at(60)).unwrap();
    assert!(log.writable());
    assert_eq!(kinds(&desk.path()), ["reload", "reload", "loss", "reload"]);
    let loss = &lines(&desk.path())[2];
    assert_eq!((&loss["records"], &loss["since"]), (&json!(49), &json!("2026-01-02T00:00:02.000000Z")));
    assert_eq!(desk.verified().records, 4);
}

#[test]
fn a_record_that_was_taken_before_a_write_hung_is_not_written_when_nobody_waits_for_it_any_more() {
    let desk = Desk::new();
    let log = Arc::new(desk.open());
    let (entered, has_entered) = channel();
    let (release, held) = channel();
    let file = OpenOptions::new().append(true).open(desk.path()).unwrap();
    log.shared.latch.state().output.medium = Box::new(HungDisk { file, entered, held });
    let hangs = thread::spawn({
        let log = Arc::clone(&log);
        move || log.record(event_at(1)).is_ok()
    });
    has_entered.recv().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let refused = runtime.block_on(log.record_together(event_at(2), Instant::now())).unwrap_err();
    assert_eq!(refused.cause.kind(), io::ErrorKind::TimedOut);
    drop(release);
    assert!(hangs.join().unwrap());
    log.record(event_at(3)).unwrap();
    assert_eq!(seconds(&lines(&desk.path())), [1, 3]);
    assert_eq!(desk.verified().records, 3, "two of them and a loss");
}

/// The seconds of the events among `records`.
fn seconds(records: &[serde_json::Value]) -> Vec<i64> {
    let midnight = event_at(0).time;
    let events = records.iter().filter(|record| record["kind"] == "reload");
    events
        .map(|record| record["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().duration_since(midnight).as_secs())
        .collect()
}

/// A log into a pipe, and the pipe's other end, from which nothing is read unless the test reads it.
fn piped(desk: &Desk) -> (AuditLog, File) {
    let (reader, writer) = pipe().unwrap();
    let log = desk.open();
    log.shared.latch.state().output = Output::stream(File::from(OwnedFd::from(writer)));
    (log, File::from(OwnedFd::from(reader)))
}

/// An event that a pipe holds sixteen of: a page each, with no room behind it for any other record.
fn large(second: i64) -> Event {
    let mut event = event_at(second);
    event.fields.insert("text".to_owned(), json!("x".repeat(3800)));
    event
}

/// Everything that comes out of the pipe until the log is dropped, and every record in it, of one chain.
fn drained(desk: &Desk, log: AuditLog, mut before: Vec<u8>, mut reader: File) -> Vec<serde_json::Value> {
    let reading = thread::spawn(move || {
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        rest
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    while log.flush().is_err() || !log.writable() {
        assert!(Instant::now() < deadline, "the pipe is read, and takes nothing");
        thread::yield_now();
    }
    drop(log);
    before.extend(reading.join().unwrap());
    let file = desk.folder.path().join("read");
    std::fs::write(&file, before).unwrap();
    verify(std::slice::from_ref(&file)).unwrap();
    lines(&file)
}

#[test]
fn a_pipe_that_nobody_reads_refuses_after_a_second_and_a_refused_record_is_never_written() {
    let desk = Desk::new();
    let (log, reader) = piped(&desk);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut permitted = Vec::new();
    let refused = loop {
        let began = runtime.block_on(async { tokio::time::Instant::now() });
        let second = permitted.len() as i64;
        match runtime.block_on(log.record_together(large(second), Instant::now())) {
            Ok(_) => permitted.push(second),
            Err(refused) => break (refused, runtime.block_on(async { began.elapsed() })),
        }
        assert!(permitted.len() < 100, "a pipe takes 64 KiB");
    };
    assert_eq!((refused.0.entry, refused.0.cause.kind()), (large(permitted.len() as i64), io::ErrorKind::TimedOut));
    assert!((1000..1100).contains(&refused.1.as_millis()), "{:?}", refused.1);
    assert!(!log.writable());
    // What is no permit waits in memory.
    log.record(event_at(500)).unwrap();
    log.record_soon(event_at(501), Instant::now());
    let read = drained(&desk, log, Vec::new(), reader);
    permitted.extend([500, 501]);
    assert_eq!(seconds(&read), permitted);
    assert_eq!(read.iter().filter(|record| record["kind"] == "loss").map(|loss| &loss["records"]).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_record_waits_for_a_reader_that_is_slow() {
    let desk = Desk::new();
    let (log, mut reader) = piped(&desk);
    while desk.metric("rolegate_audit_pending_records 0") {
        log.record(large(0)).unwrap();
    }
    let mut read = vec![0; 16 << 10];
    let reading = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        reader.read_exact(&mut read).unwrap();
        (read, reader)
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(log.record_together(event_at(1), Instant::now())).unwrap();
    let (read, reader) = reading.join().unwrap();
    assert_eq!(seconds(&drained(&desk, log, read, reader)).last(), Some(&1));
}

#[test]
fn what_waits_for_a_pipe_is_bounded_in_memory() {
    let desk = Desk::new();
    let (log, reader) = piped(&desk);
    let accepted = (0..500).take_while(|second| log.record(large(*second)).is_ok()).count();
    assert!((30..60).contains(&accepted), "a pipe and 64 KiB of memory, not {accepted} records of 3 KiB");
    let read = drained(&desk, log, Vec::new(), reader);
    assert_eq!(seconds(&read).len(), accepted);
}

/// What may happen to a log in a pipe.
#[derive(Debug, Clone)]
enum Turn {
    /// A guarded request: it waits, and may be refused.
    Permit,
    /// A guarded request whose client leaves while it waits.
    Leave,
    Record,
    Soon,
    Flush,
    /// So many bytes are read.
    Read(usize),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn however_slowly_a_pipe_is_read_it_holds_the_chain_of_what_was_not_refused(
        turns in prop::collection::vec(
            prop_oneof![
                8 => Just(Turn::Permit),
                1 => Just(Turn::Leave),
                2 => Just(Turn::Record),
                2 => Just(Turn::Soon),
                1 => Just(Turn::Flush),
                3 => (0_usize..20_000).prop_map(Turn::Read),
            ],
            0..80,
        ),
    ) {
        let desk = Desk::new();
        let (log, mut reader) = piped(&desk);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (mut read, mut made, mut refused, mut left) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (second, turn) in turns.into_iter().enumerate() {
            let second = second as i64;
            match turn {
                Turn::Permit => {
                    let recorded = runtime.block_on(log.record_together(large(second), Instant::now()));
                    if recorded.is_ok() { made.push(second) } else { refused.push(second) }
                }
                Turn::Leave => {
                    let waits = async {
                        let recording = log.record_together(large(second), Instant::now());
                        drop(tokio::time::timeout(Duration::from_millis(20), recording).await);
                    };
                    runtime.block_on(waits);
                    left.push(second);
                }
                Turn::Record => if log.record(large(second)).is_ok() { made.push(second) } else { refused.push(second) },
                Turn::Soon => {
                    let failures = log.position().failures;
                    log.record_soon(large(second), Instant::now());
                    if log.position().failures == failures { made.push(second) } else { refused.push(second) }
                }
                Turn::Flush => drop(log.flush()),
                Turn::Read(most) => {
                    // Never more than there is, or the test would wait.
                    let there = usize::try_from(rustix::io::ioctl_fionread(&reader).unwrap()).unwrap();
                    let mut part = vec![0; most.min(there)];
                    reader.read_exact(&mut part).unwrap();
                    read.extend(part);
                }
            }
        }
        let records = drained(&desk, log, read, reader);
        let found = seconds(&records);
        let expected: Vec<i64> = found.iter().copied().filter(|second| !left.contains(second)).collect();
        prop_assert_eq!(expected, made);
        let lost: u64 = records.iter().filter_map(|record| record["records"].as_u64()).sum();
        prop_assert!(lost >= refused.len() as u64 && lost <= (refused.len() + left.len()) as u64, "{lost} of {refused:?}");
    }
}
