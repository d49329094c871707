//! Stories of the log: what its files hold after restarts, rotations, and from many threads.

mod failure;
mod keeping;
mod places;
mod stalls;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use serde_json::{Map, Value};
use tempfile::TempDir;

use super::*;
use crate::audit::{Event, Object, Sink, verify};
use crate::metrics::RecordKind;

/// A log in a folder of its own, and a clock that only the test moves.
struct Desk {
    folder: TempDir,
    settings: Settings,
    metrics: Metrics,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sink = Sink::File(folder.path().join("audit/audit.jsonl"));
        let settings = Settings { rotate_bytes: 1 << 20, ..Settings::new(sink) };
        Self { folder, settings, metrics: Metrics::new().unwrap() }
    }

    fn buffered(mut self) -> Self {
        self.settings.durability = Durability::Buffered;
        self
    }

    fn allowing(mut self) -> Self {
        self.settings.on_failure = OnFailure::Allow;
        self
    }

    fn rotating(mut self, bytes: u64) -> Self {
        self.settings.rotate_bytes = bytes;
        self
    }

    fn open(&self) -> AuditLog {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<AuditLog, OpenError> {
        AuditLog::open(self.settings.clone(), self.metrics.clone())
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("audit/audit.jsonl")
    }

    /// Every file of the log, oldest first.
    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> =
            fs::read_dir(self.folder.path().join("audit")).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        files
    }

    /// The whole chain, with every rotated file under the number of its first line.
    fn verified(&self) -> crate::audit::Verified {
        for file in self.files() {
            if file != self.path() {
                let first = lines(&file)[0]["seq"].as_u64().unwrap();
                assert_eq!(file, self.rotated(first));
            }
        }
        verify(&self.files()).unwrap()
    }

    fn rotated(&self, first: u64) -> PathBuf {
        self.path().with_file_name(format!("audit.{first:020}.jsonl"))
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics.page().unwrap().lines().any(|found| found == line)
    }
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn kinds(path: &Path) -> Vec<String> {
    lines(path).iter().map(|line| line["kind"].as_str().unwrap().to_owned()).collect()
}

/// An event `second` seconds after midnight.
fn event_at(second: i64) -> Event {
    let time = "2026-01-02T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(second);
    Event { kind: RecordKind::Reload, time, fields: Map::new() }
}

fn event() -> Event {
    event_at(0)
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        thread::yield_now();
    }
}

#[test]
fn the_keys_of_a_record_stand_in_the_order_of_the_contract() {
    #[derive(Debug)]
    struct Outcome;
    impl Entry for Outcome {
        fn kind(&self) -> RecordKind {
            RecordKind::Outcome
        }
        fn time(&self) -> Timestamp {
            event().time
        }
        fn id(&self) -> Option<&str> {
            Some("01J")
        }
        fn fields(&self, fields: &mut Object<'_>) -> io::Result<()> {
            for (name, number) in [("status", 200), ("bytes", 512), ("duration_us", 1840)] {
                fields.entry(name).number(number);
            }
            Ok(())
        }
    }
    let desk = Desk::new();
    let recorded = desk.open().record(Outcome).unwrap();
    assert_eq!(recorded.seq(), Some(1));
    assert_eq!(recorded.kind(), RecordKind::Outcome, "the proof lends what it proves");
    let zeros = "0".repeat(64);
    assert_eq!(
        fs::read_to_string(desk.path()).unwrap(),
        format!(
            "{{\"v\":1,\"seq\":1,\"time\":\"2026-01-02T00:00:00.000000Z\",\"id\":\"01J\",\"kind\":\"outcome\",\
             \"status\":200,\"bytes\":512,\"duration_us\":1840,\"prev\":\"{zeros}\"}}\n"
        )
    );
    assert!(desk.metric(r#"rolegate_audit_records_total{kind="outcome"} 1"#));
}

#[test]
fn only_the_owner_may_read_the_file_and_its_folder() {
    let desk = Desk::new();
    let _log = desk.open();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&desk.path()), 0o600);
    assert_eq!(mode(desk.path().parent().unwrap()), 0o700);
}

#[test]
fn a_restart_goes_on_with_the_chain() {
    let desk = Desk::new();
    for run in 1..=3 {
        let log = desk.open();
        log.record(event()).unwrap();
        assert_eq!(log.record(event()).unwrap().seq(), Some(run * 2));
    }
    let verified = desk.verified();
    assert_eq!((verified.records, verified.first, verified.last), (6, 1, 6));
}

#[test]
fn rotated_files_and_restarts_make_one_chain() {
    let desk = Desk::new().rotating(600);
    for _ in 0..3 {
        let log = desk.open();
        for _ in 0..10 {
            log.record(event()).unwrap();
        }
    }
    let files = desk.files();
    assert!(files.len() > 5, "{files:?}");
    for file in &files {
        assert!(fs::metadata(file).unwrap().len() <= 600);
    }
    assert_eq!(desk.verified().records, 30);
}

#[test]
fn a_missing_or_empty_file_goes_on_where_the_newest_rotated_one_ends() {
    let desk = Desk::new();
    let log = desk.open();
    for _ in 0..3 {
        log.record(event()).unwrap();
    }
    drop(log);
    // As a crash between the two steps of a rotation leaves it.
    fs::rename(desk.path(), desk.rotated(1)).unwrap();
    assert_eq!(desk.open().position().seq, 3);
    assert_eq!(fs::metadata(desk.path()).unwrap().len(), 0);
    assert_eq!(desk.open().record(event()).unwrap().seq(), Some(4));
    assert_eq!(desk.verified().records, 4);
}

#[test]
fn rotation_never_overwrites_and_its_failure_costs_no_record() {
    let desk = Desk::new().rotating(300);
    let log = desk.open();
    let taken = desk.rotated(1);
    fs::write(&taken, "mine").unwrap();
    for _ in 0..5 {
        log.record(event()).unwrap();
    }
    assert_eq!(fs::read_to_string(&taken).unwrap(), "mine");
    assert_eq!(verify(&[desk.path()]).unwrap().records, 5);
    fs::remove_file(&taken).unwrap();
    log.record(event()).unwrap();
    assert_eq!(verify(&[taken, desk.path()]).unwrap().records, 6, "rotation is made up for");
}

#[test]
fn half_a_line_at_the_end_is_cut_off_and_told() {
    let long = [&br#"{"v":1,"seq":2,"time":"2026","text":""#[..], &[b'x'; 2000]].concat();
    for torn in [&br#"{"v":1,"seq":3,"ti"#[..], b"{", b"{\"v\":1,\0\0", b"\0\0\0\0", &long] {
        let desk = Desk::new();
        let log = desk.open();
        log.record(event()).unwrap();
        drop(log);
        OpenOptions::new().append(true).open(desk.path()).unwrap().write_all(torn).unwrap();
        let log = desk.open();
        assert_eq!(log.record(event()).unwrap().seq(), Some(3));
        assert_eq!(kinds(&desk.path()), ["reload", "recovered", "reload"]);
        let recovered = &lines(&desk.path())[1];
        assert_eq!(recovered["bytes"], torn.len());
        assert_eq!(recovered["text"], String::from_utf8_lossy(&torn[..torn.len().min(512)]).as_ref());
        assert_eq!(desk.verified().records, 3);
        assert!(desk.metric(r#"rolegate_audit_records_total{kind="recovered"} 1"#));
    }
}

#[test]
fn half_a_line_as_the_whole_file_is_recovered_too() {
    let desk = Desk::new();
    drop(desk.open());
    fs::write(desk.path(), "{\"v\":1,").unwrap();
    drop(desk.open());
    assert_eq!(kinds(&desk.path()), ["recovered"]);
    assert_eq!(desk.verified().first, 1);
}

#[test]
fn a_file_that_does_not_end_with_a_record_stops_the_start_and_names_the_line() {
    let desk = Desk::new();
    let log = desk.open();
    log.record(event()).unwrap();
    drop(log);
    let good = fs::read_to_string(desk.path()).unwrap();
    let newer = good.replace("\"v\":1", "\"v\":2");
    for (content, line, why) in [
        (format!("{good}no json\n"), 2, "not JSON"),
        (format!("{good}{}\n", &good[..20]), 2, "not JSON"),
        (format!("{good}somebody's notes"), 2, "what follows the last record is not the beginning of one"),
        (format!("{good}{}", "x".repeat(2000)), 2, "what follows the last record"),
        ("my notes".to_owned(), 1, "holds something else than records"),
        ("my\nnotes\n".to_owned(), 2, "not JSON"),
        (format!("{good}{newer}"), 2, "its `v` is 2"),
        (format!("{good}{{}}\n"), 2, "missing field `v`"),
        (format!("{good}{good}garbage\ntorn"), 3, "not JSON"),
        (format!("{{}}\n{good}"), 1, "missing field `v`"),
        ("x".repeat(3 << 20), 0, "longer than 1 MiB"),
    ] {
        fs::write(desk.path(), &content).unwrap();
        let error = desk.try_open().unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(matches!(error, OpenError::Broken { line: named, .. } if named == line), "{error}");
        assert_eq!(fs::read_to_string(desk.path()).unwrap(), content, "nothing is touched");
    }
}

#[test]
fn a_second_process_cannot_fork_the_chain() {
    let desk = Desk::new();
    let log = desk.open();
    let error = desk.try_open().unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }));
    assert!(error.to_string().ends_with("another process is writing this audit log"), "{error}");
    drop(log);
    desk.open();
}

#[test]
fn a_device_a_folder_and_a_read_only_place_are_refused_at_the_start() {
    let mut desk = Desk::new();
    for path in [PathBuf::from("/dev/full"), desk.folder.path().to_owned()] {
        desk.settings.sink = Sink::File(path);
        assert!(matches!(desk.try_open(), Err(OpenError::NotAFile { .. })));
    }
    fs::write(desk.folder.path().join("file"), "").unwrap();
    desk.settings.sink = Sink::File(desk.folder.path().join("file/audit.jsonl"));
    assert!(matches!(desk.try_open(), Err(OpenError::Io { .. })));
}

#[test]
fn buffered_records_reach_the_file_by_themselves() {
    let desk = Desk::new().buffered();
    let log = desk.open();
    log.record(event()).unwrap();
    wait_until("the flush", || fs::metadata(desk.path()).unwrap().len() > 0);
    wait_until("the count", || desk.metric("rolegate_audit_pending_records 0"));
    assert_eq!(desk.verified().records, 1);
}

#[test]
fn flush_and_drop_write_what_is_buffered() {
    let desk = Desk::new().buffered();
    let log = desk.open();
    for count in 1..=10 {
        log.record(event()).unwrap();
        log.flush().unwrap();
        assert_eq!(desk.verified().records, count);
    }
    for _ in 0..10 {
        log.record(event()).unwrap();
    }
    drop(log);
    assert_eq!(desk.verified().records, 20);
}

#[test]
fn many_threads_make_one_chain() {
    for desk in [Desk::new(), Desk::new().buffered()] {
        let desk = desk.rotating(100 << 10);
        let log = desk.open();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        log.record(event()).unwrap();
                    }
                });
            }
        });
        drop(log);
        assert_eq!(desk.verified().records, 4000);
        assert!(desk.files().len() > 1);
        assert!(desk.metric(r#"rolegate_audit_records_total{kind="reload"} 4000"#));
        assert!(desk.metric("rolegate_audit_write_duration_seconds_count 4000"));
    }
}
