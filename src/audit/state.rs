//! What one record at a time may touch: the chain's end, the output, and what is buffered or owed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Map, json};

use super::chain::Chain;
use super::entry::body;
use super::file::{Place, Sight, newest_rotated};
use super::loss::Losses;
use super::sink::{Output, Partial, count_lines};
use super::tail::Tail;
use super::{Durability, Event, OnFailure, OpenError, Settings, Sink};
use crate::metrics::{Metrics, RecordKind};

/// The bounds of what is buffered; the last record may pass the first one.
const BUFFERED_BYTES: usize = 64 << 10;
const BUFFERED_RECORDS: usize = 1000;

/// How long the file may be gone before a record notices.
const LOOK_EVERY: SignedDuration = SignedDuration::from_secs(1);

/// How much of a torn line its `recovered` record holds.
const TORN_BYTES_TOLD: usize = 512;

/// How far the log has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Position {
    /// The number of the last record; 0 before the first.
    pub seq: u64,
    /// The file being written; none for the standard output.
    pub file: Option<PathBuf>,
    /// Its length in bytes, or what this process sent to the standard output.
    pub bytes: u64,
    /// Failed attempts to write since the process began.
    pub failures: u64,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) output: Output,
    chain: Chain,
    durability: Durability,
    on_failure: OnFailure,
    /// Room for a line, kept from record to record.
    line: Vec<u8>,
    pending: Pending,
    losses: Losses,
    /// When the file was last seen in its place.
    looked: Timestamp,
    failures: u64,
    /// Whether the last attempt to write failed.
    failing: bool,
    metrics: Metrics,
}

/// When a record must be where [`Durability::Written`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Before anything else happens.
    Now,
    /// With the next record, or when the log is [flushed](State::flush).
    Soon,
}

/// Lines that have their place in the chain and are not yet written.
#[derive(Debug, Default)]
struct Pending {
    lines: Vec<u8>,
    records: usize,
}

impl Pending {
    fn is_full(&self) -> bool {
        self.lines.len() >= BUFFERED_BYTES || self.records >= BUFFERED_RECORDS
    }

    /// All of it is written.
    fn written(&mut self) {
        self.lines.clear();
        self.records = 0;
    }

    /// The first `bytes` bytes, which are whole lines, are written.
    fn partly_written(&mut self, bytes: usize) {
        self.records = self.records.saturating_sub(count_lines(self.lines.get(..bytes).unwrap_or_default()));
        self.lines.drain(..bytes.min(self.lines.len()));
    }
}

impl State {
    /// Opens the sink and finds the end of its chain.
    ///
    /// # Errors
    /// [`AuditLog::open`](super::AuditLog::open) says.
    pub(super) fn open(settings: Settings, metrics: Metrics) -> Result<Self, OpenError> {
        let Settings { sink, durability, rotate_bytes, on_failure } = settings;
        let (output, chain, torn) = match &sink {
            Sink::Stdout => (Output::stdout()?, Chain::new(), Vec::new()),
            Sink::File(path) => open_file(path, rotate_bytes)?,
        };
        let mut state = Self {
            output,
            chain,
            durability,
            on_failure,
            line: Vec::new(),
            pending: Pending::default(),
            losses: Losses::default(),
            looked: Timestamp::now(),
            failures: 0,
            failing: false,
            metrics,
        };
        match sink {
            Sink::File(path) if !torn.is_empty() => {
                state.recover(&torn).map_err(|source| OpenError::Io { path, source })?;
            }
            _ => {}
        }
        Ok(state)
    }

    /// Records something that happened at `time` and has this [`body`]; what is owed comes first.
    ///
    /// # Errors
    /// The record is not made; [`State::gave_up`] must be told.
    pub(super) fn record(&mut self, time: Timestamp, body: &[u8], urgency: Urgency) -> io::Result<u64> {
        self.look(time)?;
        self.settle(time)?;
        self.append(body, urgency)
    }

    /// Whether something is buffered that nobody sees to: what [`Durability::Buffered`] buffers has a thread of its own.
    pub(super) fn owes(&self) -> bool {
        self.durability == Durability::Written && self.pending.records > 0
    }

    /// Notes that a record of something that happened at `time` was not made, and says what that means.
    pub(super) fn gave_up(&mut self, time: Timestamp, cause: &io::Error) -> OnFailure {
        self.failed(cause);
        self.losses.unwritten(time, cause);
        self.on_failure
    }

    /// Tries whether a record could be made now.
    ///
    /// # Errors
    /// It could not.
    pub(super) fn probe(&mut self, now: Timestamp) -> io::Result<()> {
        self.look_now(now)?;
        self.settle(now)?;
        if self.failing { self.write_pending() } else { Ok(()) }
    }

    /// How far the log has come.
    pub(super) fn position(&self) -> Position {
        Position {
            seq: self.chain.next().saturating_sub(1),
            file: self.output.place.as_ref().map(|place| place.path.clone()),
            bytes: self.output.bytes,
            failures: self.failures,
        }
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// It stays buffered.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.write_pending().inspect_err(|cause| self.failed(cause))
    }

    /// Writes what is owed and buffered for the last time.
    pub(super) fn end(&mut self) {
        let now = Timestamp::now();
        if let Err(error) = self.look_now(now).and_then(|()| self.settle(now)).and_then(|()| self.write_pending()) {
            let buffered = self.pending.records;
            tracing::error!(%error, buffered, "the audit log ends without its last records");
        }
    }

    /// Looks for the file at most once a second, but always while something is wrong.
    fn look(&mut self, time: Timestamp) -> io::Result<()> {
        let is_fresh = time.duration_since(self.looked).abs() < LOOK_EVERY;
        if is_fresh && self.losses.is_empty() && !self.failing { Ok(()) } else { self.look_now(time) }
    }

    /// Writing to a file that has no name any more succeeds and helps nobody.
    fn look_now(&mut self, time: Timestamp) -> io::Result<()> {
        if let Sight::Lost(cause) = self.output.look()? {
            if self.output.records > 0 || self.losses.is_empty() {
                tracing::error!(cause, records = self.output.records, "the audit log was taken away");
                self.losses.removed(self.output.records, self.looked, cause);
                self.output.records = 0;
            }
            let first = self.first_unwritten();
            self.output.renew(first)?;
        }
        self.looked = time;
        Ok(())
    }

    /// Records the losses that no record tells of yet.
    fn settle(&mut self, now: Timestamp) -> io::Result<()> {
        while let Some(loss) = self.losses.next(now, self.on_failure) {
            self.record_own(&loss)?;
            self.losses.settled();
        }
        Ok(())
    }

    /// Records what the last process left of a line.
    fn recover(&mut self, torn: &[u8]) -> io::Result<()> {
        tracing::warn!(bytes = torn.len(), "the audit log ended with half a line, which was cut off");
        let told = torn.get(..TORN_BYTES_TOLD).unwrap_or(torn);
        let mut fields = Map::new();
        fields.insert("bytes".to_owned(), json!(torn.len()));
        fields.insert("text".to_owned(), json!(String::from_utf8_lossy(told)));
        let event = Event { kind: RecordKind::Recovered, time: Timestamp::now(), fields };
        self.record_own(&event).and_then(|()| self.write_pending()).inspect_err(|_| {
            // Whatever there is room for: the next process shall find the rest to be a rest, not nothing.
            let _ = self.output.medium.write(torn);
        })
    }

    fn record_own(&mut self, event: &Event) -> io::Result<()> {
        let started = Instant::now();
        let mut middle = Vec::new();
        body(event, &mut middle)?;
        self.append(&middle, Urgency::Now)?;
        self.metrics.audit_record(event.kind, started.elapsed());
        Ok(())
    }

    /// Puts one record at the chain's end.
    fn append(&mut self, body: &[u8], urgency: Urgency) -> io::Result<u64> {
        if self.pending.is_full() {
            self.write_pending()?;
        }
        let sealed = self.chain.seal(body, &mut self.line)?;
        let seq = sealed.seq;
        match (self.durability, urgency) {
            (Durability::Written, Urgency::Now) => {
                self.write_with_pending(seq)?;
                self.chain.advance(sealed);
            }
            (Durability::Buffered, _) | (Durability::Written, Urgency::Soon) => {
                self.pending.lines.extend_from_slice(&self.line);
                self.pending.records += 1;
                self.chain.advance(sealed);
                self.metrics.audit_pending(self.pending.records);
                if self.pending.is_full() {
                    // This record is accepted; the next one meets the failure if it lasts.
                    let _ = self.flush();
                }
            }
        }
        Ok(seq)
    }

    /// Writes what is buffered and, behind it, the line with the number `seq`: in one call to the kernel.
    ///
    /// # Errors
    /// The line is not written. What is buffered stays so, but for what was written of it.
    fn write_with_pending(&mut self, seq: u64) -> io::Result<()> {
        if self.pending.records == 0 {
            self.output.append(&self.line, 1, seq).map_err(|partial| partial.cause)?;
            self.succeeded();
            return Ok(());
        }
        let (first, buffered) = (self.first_unwritten(), self.pending.lines.len());
        self.pending.lines.extend_from_slice(&self.line);
        let outcome = self.output.append(&self.pending.lines, self.pending.records + 1, first);
        self.pending.lines.truncate(buffered);
        match outcome {
            Ok(()) => {
                self.pending.written();
                self.succeeded();
            }
            Err(Partial { cause, whole }) => {
                self.pending.partly_written(whole.min(buffered));
                self.metrics.audit_pending(self.pending.records);
                return Err(cause);
            }
        }
        self.metrics.audit_pending(self.pending.records);
        Ok(())
    }

    fn write_pending(&mut self) -> io::Result<()> {
        if self.pending.records == 0 {
            return Ok(());
        }
        let first = self.first_unwritten();
        let outcome = match self.output.append(&self.pending.lines, self.pending.records, first) {
            Ok(()) => {
                self.pending.written();
                self.succeeded();
                Ok(())
            }
            Err(Partial { cause, whole }) => {
                self.pending.partly_written(whole);
                Err(cause)
            }
        };
        self.metrics.audit_pending(self.pending.records);
        outcome
    }

    /// The number of the first line that no file holds.
    fn first_unwritten(&self) -> u64 {
        self.chain.next().saturating_sub(self.pending.records as u64)
    }

    /// Counts a failed attempt; only the first one in a row is worth a line in the process log.
    fn failed(&mut self, cause: &io::Error) {
        self.failures = self.failures.saturating_add(1);
        self.metrics.audit_failure();
        if !self.failing {
            tracing::error!(error = %cause, "the audit log cannot be written");
            self.failing = true;
        }
    }

    fn succeeded(&mut self) {
        if self.failing {
            tracing::info!("the audit log can be written again");
            self.failing = false;
        }
    }
}

/// Opens the file at `path`, cuts off a torn end, and finds the chain's end in it or in the newest rotated file.
fn open_file(path: &Path, rotate_bytes: u64) -> Result<(Output, Chain, Vec<u8>), OpenError> {
    let refused = |source| OpenError::Io { path: path.to_owned(), source };
    let (mut place, file) = Place::claim(path, rotate_bytes)?;
    let tail = Tail::read(&file, path)?;
    if !tail.torn.is_empty() {
        file.set_len(tail.whole).map_err(refused)?;
    }
    let (chain, held) = match tail.records {
        Some(records) => {
            place.first = records.first;
            let held = records.last.saturating_sub(records.first).saturating_add(1);
            (Chain::after(records.last, records.hash), held)
        }
        None => {
            let chain = chain_of_rotated(path)?;
            place.first = chain.next();
            (chain, 0)
        }
    };
    Ok((Output::file(file, place, tail.whole, held), chain, tail.torn))
}

/// The chain as the newest rotated file beside `path` ends it.
fn chain_of_rotated(path: &Path) -> Result<Chain, OpenError> {
    let directory_refused = |source| OpenError::Io { path: path.to_owned(), source };
    let Some(rotated) = newest_rotated(path).map_err(directory_refused)? else { return Ok(Chain::new()) };
    let refused = |source| OpenError::Io { path: rotated.clone(), source };
    let file = File::open(&rotated).map_err(refused)?;
    let broken = |line, why: &str| OpenError::Broken { file: rotated.clone(), line, why: why.to_owned() };
    let tail = Tail::read(&file, &rotated)?;
    match tail.records {
        Some(records) if tail.torn.is_empty() => Ok(Chain::after(records.last, records.hash)),
        Some(records) => {
            let line = records.last.saturating_sub(records.first).saturating_add(2);
            Err(broken(line, "a rotated file must not end with half a line"))
        }
        None => Err(broken(1, "a rotated file must hold a record")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    use super::*;
    use crate::audit::sink::Medium;

    #[test]
    fn half_a_line_that_cannot_be_told_of_is_put_back_for_the_next_process() {
        #[derive(Debug)]
        struct NoRoomForMore(File);
        impl Medium for NoRoomForMore {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if bytes.len() > 10 { Err(io::ErrorKind::StorageFull.into()) } else { Write::write(&mut self.0, bytes) }
            }
            fn mend(&mut self, count: u64) -> io::Result<()> {
                Medium::mend(&mut self.0, count)
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let sink = Sink::File(path.clone());
        let settings = Settings { sink, durability: Durability::Written, rotate_bytes: 1 << 20, on_failure: OnFailure::Allow };
        let mut state = State::open(settings, Metrics::new().unwrap()).unwrap();
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        state.output.medium = Box::new(NoRoomForMore(file));
        state.recover(b"{\"v\":1,\"s").unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"{\"v\":1,\"s");
    }
}
