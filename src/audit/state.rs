//! What one thread at a time may touch: the chain's end, the output, and what waits or is owed.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Map, json};

use super::alarm::Alarm;
use super::chain::Chain;
use super::entry::body;
use super::file::Sight;
use super::keep::{Keeper, Old, wants_room};
use super::loss::{Cause, Losses};
use super::queue::{Claim, Queue, Turn};
use super::resume;
use super::sink::{Output, Partial, count_lines};
use super::{Durability, Event, OnFailure, OpenError, Settings, Sink};
use crate::metrics::{Metrics, RecordKind};

/// How long the file may be gone before a record notices.
const LOOK_EVERY: SignedDuration = SignedDuration::from_secs(1);

/// The room that is kept for what is written at once, in bytes.
const LINES_KEPT: usize = 256 << 10;

/// How long nobody asks again whether there is room, when there was none.
const ASK_EVERY: Duration = Duration::from_millis(2);

/// How much of a torn line its `recovered` record holds.
const TORN_BYTES_TOLD: usize = 512;

/// How far the log has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Position {
    /// The number of the last record, or the one that it will have when it is written; 0 before the first.
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
    queue: Queue,
    /// Room for what is written at once, kept from one write to the next.
    lines: Vec<u8>,
    losses: Losses,
    /// Nothing where every file is kept.
    keeper: Option<Arc<Keeper>>,
    alarm: Arc<Alarm>,
    /// Whether the record that is written is that of a removal: the file that it begins does not wake who made it.
    expiring: bool,
    /// When the file was last seen in its place.
    looked: Timestamp,
    /// Whether it was not there when it was looked for since, and no new one could be begun.
    missing: bool,
    failures: u64,
    /// Whether the last attempt to write failed.
    failing: bool,
    /// When there last was no room for a line.
    blocked: Option<Instant>,
    metrics: Metrics,
}

/// What is to be written of a record, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    /// The number that it has once it is written.
    seq: u64,
    /// Nothing when it was accepted, and is written without the one who brought it.
    turn: Option<Turn>,
}

impl Ticket {
    /// Whether the record is made only when it is [landed](State::land).
    pub(super) fn is_open(self) -> bool {
        self.turn.is_some()
    }
}

impl State {
    /// Opens the sink and finds the end of its chain.
    ///
    /// # Errors
    /// [`AuditLog::open`](super::AuditLog::open) says.
    pub(super) fn open(settings: Settings, metrics: Metrics) -> Result<Self, OpenError> {
        let Settings { sink, durability, rotate_bytes, on_failure, keep, .. } = settings;
        let (output, chain, torn) = match &sink {
            Sink::Stdout => (Output::stdout()?, Chain::new(), Vec::new()),
            Sink::File(path) => resume::file(path, rotate_bytes)?,
        };
        let keeper = match &sink {
            Sink::File(path) => Keeper::new(path, keep).map(Arc::new),
            Sink::Stdout => None,
        };
        let mut state = Self {
            output,
            chain,
            durability,
            on_failure,
            queue: Queue::default(),
            lines: Vec::new(),
            losses: Losses::default(),
            keeper,
            alarm: Arc::default(),
            expiring: false,
            looked: Timestamp::now(),
            missing: false,
            failures: 0,
            failing: false,
            blocked: None,
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

    /// Takes a record of something that happened at `time` and has this [`body`], if it has one, behind what is owed; it is made
    /// when its ticket [lands](State::land).
    ///
    /// # Errors
    /// The record is not made, and counts as lost; but for [`io::ErrorKind::WouldBlock`], after which it may be brought again, or
    /// [given up](State::give_up).
    pub(super) fn take(&mut self, time: Timestamp, body: io::Result<&[u8]>) -> io::Result<Ticket> {
        let body = self.ready(time, body)?;
        let seq = self.next();
        let turn = match self.durability {
            Durability::Written => Some(self.queue.awaited(time, body)),
            Durability::Buffered => {
                self.accepted(time, body);
                None
            }
        };
        Ok(Ticket { seq, turn })
    }

    /// Takes a record that nobody waits for: it is written with the next one, or when the log is [flushed](State::flush), and
    /// waits for that even where there is no room now.
    ///
    /// # Errors
    /// The record is not made, and counts as lost.
    pub(super) fn accept(&mut self, time: Timestamp, body: io::Result<&[u8]>) -> io::Result<()> {
        let accepted = body.and_then(|body| match self.prepare(time, body) {
            Ok(()) => {
                self.accepted(time, body);
                Ok(())
            }
            Err(cause) if is_full(&cause) => self.wait_in_memory(time, body).map(drop),
            Err(cause) => Err(cause),
        });
        accepted.inspect_err(|cause| self.gave_up(time, cause))
    }

    /// Keeps a record that nobody waits for until there is room for it; the number that it then has.
    ///
    /// # Errors
    /// As much waits as there is memory for.
    pub(super) fn wait_in_memory(&mut self, time: Timestamp, body: &[u8]) -> io::Result<u64> {
        if self.queue.is_full() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let seq = self.next();
        Chain::fits(seq, body)?;
        self.queue.push(time, body, Claim::Accepted);
        self.metrics.audit_pending(self.queue.accepted());
        Ok(seq)
    }

    /// Takes a record that nobody waits for and that is offered again when it is not taken.
    ///
    /// # Errors
    /// It is not taken.
    pub(super) fn offer(&mut self, time: Timestamp, body: io::Result<&[u8]>) -> io::Result<()> {
        let body = body?;
        self.prepare(time, body)?;
        self.accepted(time, body);
        Ok(())
    }

    /// Sees to it that a record is made, if that is not done yet: with everything that waits, in one call to the kernel.
    /// Gives back its number.
    ///
    /// # Errors
    /// It is not made, and counts as lost; but for [`io::ErrorKind::WouldBlock`], after which it waits on until it lands, is
    /// [left](State::leave) or [given up](State::give_up).
    pub(super) fn land(&mut self, ticket: Ticket) -> io::Result<u64> {
        let Some(turn) = ticket.turn else { return Ok(ticket.seq) };
        if self.queue.waits(turn)
            && let Err(cause) = self.write()
            && self.queue.waits(turn)
        {
            return Err(cause);
        }
        self.queue.failure(turn).map_or(Ok(ticket.seq), Err)
    }

    /// Nobody waits for a record any more that has not landed: it is written when there is room. Gives back its number.
    pub(super) fn leave(&mut self, ticket: Ticket) -> u64 {
        if let Some(turn) = ticket.turn {
            self.queue.leave(turn);
            self.metrics.audit_pending(self.queue.accepted());
        }
        ticket.seq
    }

    /// A record of something that happened at `time` is not made, for there was no room for too long.
    pub(super) fn give_up(&mut self, time: Timestamp, ticket: Option<Ticket>, cause: &io::Error) {
        let turn = ticket.map(|ticket| ticket.turn);
        match turn {
            // What was written in the meantime is not lost, although nobody waited for it; what failed was counted then.
            Some(turn) if turn.is_none_or(|turn| self.queue.withdraw(turn).is_none()) => {
                drop(turn.and_then(|turn| self.queue.failure(turn)));
            }
            _ => self.gave_up(time, cause),
        }
    }

    /// So many records of things that happened from `since` on were not made.
    pub(super) fn gave_up_many(&mut self, since: Timestamp, records: u64, cause: &io::Error) {
        self.failed(cause);
        self.losses.unwritten(records, since, cause);
    }

    /// Whether something waits that nobody sees to: what [`Durability::Buffered`] buffers has a thread of its own.
    pub(super) fn owes(&self) -> bool {
        self.durability == Durability::Written && self.queue.accepted() > 0
    }

    /// Notes that a record of something that happened at `time` was not made.
    fn gave_up(&mut self, time: Timestamp, cause: &io::Error) {
        self.failed(cause);
        self.losses.unwritten(1, time, cause);
    }

    /// Tries whether a record could be made now.
    ///
    /// # Errors
    /// It could not.
    pub(super) fn probe(&mut self, now: Timestamp) -> io::Result<()> {
        self.look_now(now)?;
        self.settle(now)?;
        if self.failing { self.write() } else { Ok(()) }
    }

    /// Who sees to old files, if anybody does.
    pub(super) fn keeper(&self) -> Option<Arc<Keeper>> {
        self.keeper.clone()
    }

    /// What wakes the threads of the log.
    pub(super) fn alarm(&self) -> Arc<Alarm> {
        Arc::clone(&self.alarm)
    }

    /// Records that a file is removed, and removes it; says whether it was there.
    ///
    /// # Errors
    /// There can be no such record, or the file cannot be removed; it stays then.
    pub(super) fn expire(&mut self, keeper: &Keeper, old: &Old, now: Timestamp) -> io::Result<bool> {
        self.look(now)?;
        self.settle(now)?;
        // It may have made room for a record in the meantime.
        if !old.is_there() {
            return Ok(false);
        }
        let record = old.record(now);
        self.expiring = true;
        let told = self.record_own(&record);
        self.expiring = false;
        told.inspect_err(|cause| self.failed(cause))?;
        // It may have made room for this very record.
        if !self.losses.is_told(&record) {
            keeper.remove(old)?;
        }
        Ok(true)
    }

    /// How far the log has come.
    pub(super) fn position(&self) -> Position {
        Position {
            seq: self.next().saturating_sub(1),
            file: self.output.place.as_ref().map(|place| place.path.clone()),
            bytes: self.output.bytes,
            failures: self.failures,
        }
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// What was accepted waits on.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.write().inspect_err(|cause| {
            if !is_full(cause) {
                self.failed(cause);
            }
        })
    }

    /// Writes what is owed and what waits for the last time.
    pub(super) fn end(&mut self) {
        let now = Timestamp::now();
        if let Err(error) = self.look_now(now).and_then(|()| self.settle(now)).and_then(|()| self.write()) {
            let waiting = self.queue.len();
            tracing::error!(%error, waiting, "the audit log ends without its last records");
        }
    }

    /// Looks for the file at most once a second, but always while something is wrong.
    fn look(&mut self, time: Timestamp) -> io::Result<()> {
        let is_fresh = time.duration_since(self.looked).abs() < LOOK_EVERY;
        if is_fresh && self.losses.is_empty() && !self.failing && !self.missing { Ok(()) } else { self.look_now(time) }
    }

    /// Writing to a file that has no name any more succeeds and helps nobody.
    fn look_now(&mut self, time: Timestamp) -> io::Result<()> {
        match self.output.look()? {
            Sight::There => {}
            Sight::Moved => {
                let records = self.output.records;
                self.missing = true;
                self.output.renew(self.chain.next())?;
                tracing::info!(records, "the audit log was moved; it goes on in a new file");
                self.losses.begun(Cause::Moved, None, records);
            }
            Sight::Lost(cause) => {
                if self.output.records > 0 || self.losses.is_empty() {
                    tracing::error!(cause, records = self.output.records, "the audit log was taken away");
                    self.losses.removed(self.output.records, self.looked, cause);
                    self.output.records = 0;
                }
                self.output.renew(self.chain.next())?;
            }
        }
        self.looked = time;
        self.missing = false;
        Ok(())
    }

    /// Looks for the file now, and begins a new one where it is gone.
    ///
    /// # Errors
    /// No new one can be begun, or nothing can be written to it.
    pub(super) fn reopen(&mut self, now: Timestamp) -> io::Result<()> {
        self.look_now(now).and_then(|()| self.settle(now)).inspect_err(|cause| self.failed(cause))
    }

    /// Begins a new file; where the old one lies now, or nothing when it holds no record.
    ///
    /// # Errors
    /// There is no file, no new one can be begun, or what waits cannot be written.
    pub(super) fn rotate(&mut self, now: Timestamp) -> io::Result<Option<PathBuf>> {
        self.look_now(now)?;
        self.settle(now)?;
        self.write()?;
        let Some((before, records)) = self.output.rotate(self.chain.next())? else { return Ok(None) };
        tracing::info!(before = %before.display(), records, "the audit log was rotated as asked");
        self.losses.begun(Cause::Asked, Some(&before), records);
        self.settle(now)?;
        Ok(Some(before))
    }

    /// Records what no record tells of yet.
    ///
    /// # Errors
    /// It cannot be written, and is owed on.
    pub(super) fn settle(&mut self, now: Timestamp) -> io::Result<()> {
        while let Some(loss) = self.losses.next(now, self.on_failure) {
            self.record_own(&loss)?;
            self.losses.settled(&loss);
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
        self.record_own(&event).inspect_err(|_| {
            // Whatever there is room for: the next process shall find the rest to be a rest, not nothing.
            let _ = self.output.medium.write(torn);
        })
    }

    fn record_own(&mut self, event: &Event) -> io::Result<()> {
        self.ask_for_room()?;
        let started = Instant::now();
        let mut middle = Vec::new();
        body(event, &mut middle)?;
        Chain::fits(self.next(), &middle)?;
        self.queue.push(event.time, &middle, Claim::Own);
        self.write()?;
        self.metrics.audit_record(event.kind, started.elapsed());
        Ok(())
    }

    fn ready<'b>(&mut self, time: Timestamp, body: io::Result<&'b [u8]>) -> io::Result<&'b [u8]> {
        let ready = body.and_then(|body| self.prepare(time, body).map(|()| body));
        ready.inspect_err(|cause| {
            if !is_full(cause) {
                self.gave_up(time, cause);
            }
        })
    }

    /// Sees to what must be before a record of something that happened at `time` and has this [`body`].
    ///
    /// # Errors
    /// There can be no such record now.
    fn prepare(&mut self, time: Timestamp, body: &[u8]) -> io::Result<()> {
        self.look(time)?;
        self.settle(time)?;
        if self.queue.is_full() {
            self.write()?;
        }
        Chain::fits(self.next(), body)
    }

    /// The number of the next record that is taken.
    fn next(&self) -> u64 {
        self.chain.next().saturating_add(self.queue.len() as u64)
    }

    fn accepted(&mut self, time: Timestamp, body: &[u8]) {
        self.queue.push(time, body, Claim::Accepted);
        self.metrics.audit_pending(self.queue.accepted());
        if self.queue.is_full() {
            // This record is accepted; the next one meets the failure if it lasts.
            let _ = self.flush();
        }
    }

    /// Writes everything that waits, in one call to the kernel.
    ///
    /// # Errors
    /// What was accepted and is not written waits on, and the chain ends with what is written. With
    /// [`io::ErrorKind::WouldBlock`] what is awaited waits on, too.
    fn write(&mut self) -> io::Result<()> {
        if self.queue.len() == 0 {
            return Ok(());
        }
        self.ask_for_room()?;
        let begun = self.output.begun;
        let mut surplus = None;
        let outcome = loop {
            let Err((cause, written)) = self.write_once() else { break Ok(()) };
            if is_full(&cause) {
                self.queue.written_in_part(written);
                self.blocked = Some(Instant::now());
            } else if wants_room(&cause) && self.make_room(&mut surplus) {
                self.queue.written_first(written);
                continue;
            } else {
                for time in self.queue.partly_written(written, &cause) {
                    self.gave_up(time, &cause);
                }
            }
            break Err(cause);
        };
        if self.output.begun != begun && !self.expiring {
            self.alarm.files();
        }
        self.metrics.audit_pending(self.queue.accepted());
        outcome
    }

    /// Tries to write everything that waits; the chain ends with what is written. A failure tells how many records are, which
    /// wait on as if they were not.
    fn write_once(&mut self) -> Result<(), (io::Error, usize)> {
        let mut chain = self.chain.clone();
        self.lines.clear();
        self.lines.shrink_to(LINES_KEPT);
        self.queue.bodies().for_each(|body| chain.seal(body, &mut self.lines));
        match self.output.append(&self.lines, self.queue.len(), self.chain.next()) {
            Ok(()) => {
                self.chain = chain;
                self.queue.written();
                self.succeeded();
                Ok(())
            }
            Err(Partial { cause, whole }) => {
                let written = count_lines(self.lines.get(..whole).unwrap_or_default());
                self.lines.clear();
                self.queue.bodies().take(written).for_each(|body| self.chain.seal(body, &mut self.lines));
                Err((cause, written))
            }
        }
    }

    /// Removes an old file that is not to be kept, for want of room; whether there was one. A process that dies before the
    /// record of it is made leaves a log that begins later, which is all that [`verify`](super::verify()) then says.
    fn make_room(&mut self, surplus: &mut Option<VecDeque<Old>>) -> bool {
        let Some(record) = self.keeper.as_ref().and_then(|keeper| keeper.make_room(surplus)) else { return false };
        self.losses.expired(record);
        self.alarm.files();
        true
    }

    /// Whether it is worth trying: a moment ago there was no room.
    fn ask_for_room(&self) -> io::Result<()> {
        match self.blocked.is_some_and(|blocked| blocked.elapsed() < ASK_EVERY) {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => Ok(()),
        }
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
        self.blocked = None;
        if self.failing {
            tracing::info!("the audit log can be written again");
            self.failing = false;
        }
    }
}

/// Whether there was only no room at that moment.
pub(super) fn is_full(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
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
        let settings = Settings { on_failure: OnFailure::Allow, ..Settings::new(sink) };
        let mut state = State::open(settings, Metrics::new().unwrap()).unwrap();
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        state.output.medium = Box::new(NoRoomForMore(file));
        state.recover(b"{\"v\":1,\"s").unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"{\"v\":1,\"s");
    }
}
