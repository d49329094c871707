//! The log itself: numbers each record, chains it, and hands back the proof that it was written.

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::alarm::{Alarm, Wait};
use super::entry::body;
use super::keep::Keeper;
use super::latch::Latch;
use super::queue::again;
use super::state::{Position, State, Ticket, is_full};
use super::suppress::Refusals;
use super::{Durability, Entry, OnFailure, OpenError, Settings};
use crate::metrics::Metrics;
use crate::model::Reason;

/// How long a buffered record waits for company.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// How often old files are looked for besides whenever one had its size.
const KEEP_EVERY: Duration = Duration::from_secs(10);

/// How often in a row.
const KEEP_PASSES: usize = 8;

/// How long a guarded request waits for room for its record.
const WAIT: Duration = Duration::from_secs(1);

/// How long it waits before it asks again: at first, and at most.
const ASK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

thread_local! {
    /// Room for a line's middle, kept from record to record.
    static MIDDLE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What is not kept of it for the sake of one long record.
const KEPT_BYTES: usize = 64 << 10;

/// The audit log of this process.
///
/// Dropping it writes what is buffered.
#[derive(Debug)]
pub struct AuditLog {
    shared: Arc<Shared>,
    on_failure: OnFailure,
    threads: Vec<JoinHandle<()>>,
}

/// The proof that the record of a `T` is where [`Durability`] says, or that the operator chose to go on without.
///
/// Only [`AuditLog`] makes one. It cannot be forged:
/// ```compile_fail,E0451
/// # use rolegate::audit::{Event, Recorded};
/// fn pass(event: Event, recorded: Recorded<Event>) -> Recorded<Event> {
///     Recorded { entry: event, seq: Some(1), made: std::time::Instant::now() }
/// }
/// ```
/// while this compiles:
/// ```
/// # use rolegate::audit::{Event, Recorded};
/// fn pass(event: Event, recorded: Recorded<Event>) -> Recorded<Event> {
///     recorded
/// }
/// ```
/// Nor does the entry pass for its record:
/// ```compile_fail,E0308
/// # use rolegate::audit::{Event, Recorded};
/// fn forward(_: &Recorded<Event>) {}
/// fn pass(event: Event, recorded: Recorded<Event>) {
///     forward(&event);
/// }
/// ```
/// while this compiles:
/// ```
/// # use rolegate::audit::{Event, Recorded};
/// fn forward(_: &Recorded<Event>) {}
/// fn pass(event: Event, recorded: Recorded<Event>) {
///     forward(&recorded);
/// }
/// ```
#[derive(Debug)]
pub struct Recorded<T> {
    entry: T,
    seq: Option<u64>,
    made: Instant,
}

impl<T> Recorded<T> {
    /// The record's number; none when it could not be written and the operator chose to go on. Where records before it were
    /// given up while it waited, it is a smaller one.
    #[must_use]
    pub fn seq(&self) -> Option<u64> {
        self.seq
    }

    /// When it was made.
    #[must_use]
    pub fn made(&self) -> Instant {
        self.made
    }
}

impl<T> Deref for Recorded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.entry
    }
}

/// What could not be recorded, under [`OnFailure::Deny`].
#[derive(Debug, thiserror::Error)]
#[error("the audit record could not be written: {cause}")]
pub struct Unrecorded<T> {
    /// What was to be recorded.
    pub entry: T,
    /// Why it was not.
    #[source]
    pub cause: io::Error,
}

impl AuditLog {
    /// Opens the log, makes the file where it is missing, and goes on with its chain.
    ///
    /// The torn beginning of a record, as a process leaves it that dies while it writes, is cut off; a `recovered` record tells
    /// how many bytes it had and holds the first 512 of them.
    ///
    /// # Errors
    /// The sink cannot be written, another process writes it, or what is there ends with something else than a record or its
    /// beginning. Then nothing is touched.
    pub fn open(settings: Settings, metrics: Metrics) -> Result<Self, OpenError> {
        let (durability, on_failure) = (settings.durability, settings.on_failure);
        let refusals = Refusals::new(settings.refusals_per_address, metrics.clone());
        let state = State::open(settings, metrics.clone())?;
        let (keeper, alarm) = (state.keeper(), state.alarm());
        let shared = Shared { latch: Latch::new(state), metrics, refusals, keeper, alarm };
        let mut log = Self { shared: Arc::new(shared), on_failure, threads: Vec::new() };
        if durability == Durability::Buffered {
            log.spawn("audit", FLUSH_EVERY, Wait::Time, |shared| {
                // What cannot be written now stays buffered, and was counted.
                let _ = shared.latch.lock().and_then(|mut state| state.flush());
            })?;
        }
        if log.shared.keeper.is_some() {
            log.spawn("audit-keep", KEEP_EVERY, Wait::Files, |shared| {
                if let Err(error) = shared.expire(Timestamp::now()) {
                    tracing::warn!(%error, "old files of the audit log could not be removed");
                }
            })?;
        }
        Ok(log)
    }

    /// Does something again and again until the log is dropped, and then for the last time.
    fn spawn(&mut self, name: &str, every: Duration, wait: Wait, again: fn(&Shared)) -> Result<(), OpenError> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || shared.until_stopped(every, wait, again));
        self.threads.push(thread.map_err(OpenError::Thread)?);
        Ok(())
    }

    /// Records `entry`; [`AuditLog::record_since`] is told when that began.
    ///
    /// # Errors
    /// Those of [`AuditLog::record_since`].
    pub fn record<T: Entry>(&self, entry: T) -> Result<Recorded<T>, Unrecorded<T>> {
        self.record_since(entry, Instant::now())
    }

    /// Records `entry`, which its caller began with at `started`.
    ///
    /// With [`Durability::Written`] its line is in the kernel when this returns, written by the calling thread; but where there is
    /// no room for it at this moment, as in a pipe that nobody reads, it waits in memory. So this is for what takes effect
    /// whether or not it is recorded, or is a refusal.
    ///
    /// # Errors
    /// The record could not be written, and [`OnFailure::Deny`] is set. The next one is tried afresh; once one
    /// succeeds, a `loss` record before it tells how many were not written.
    pub fn record_since<T: Entry>(&self, entry: T, started: Instant) -> Result<Recorded<T>, Unrecorded<T>> {
        let mut taken = self.take(&entry);
        let made = match land(&mut taken) {
            Err(cause) if is_full(&cause) => self.leave(&entry, taken.ok()),
            made => made,
        };
        self.recorded(entry, started, made)
    }

    /// Records `entry`, which its caller began with at `started`, like [`AuditLog::record_since`], together with what other
    /// tasks of this thread record now: whoever is ready to run goes first, and then all of it is written in one call to the
    /// kernel, before any of them goes on. A task that is dropped meanwhile leaves its record behind.
    ///
    /// Where there is no room for it, as in a pipe that nobody reads, the task waits for a second, and its thread goes on with
    /// others.
    ///
    /// # Errors
    /// Those of [`AuditLog::record_since`].
    pub async fn record_together<T: Entry>(&self, entry: T, started: Instant) -> Result<Recorded<T>, Unrecorded<T>> {
        let mut taken = self.take(&entry);
        if taken.as_ref().is_ok_and(Taken::is_open) {
            tokio::task::yield_now().await;
        }
        let made = match land(&mut taken) {
            // A future of its own, so that this one stays small.
            Err(cause) if is_full(&cause) => Box::pin(self.wait(&entry, taken.ok())).await,
            made => made,
        };
        self.recorded(entry, started, made)
    }

    /// Waits for room for a record that may have been taken.
    async fn wait<T: Entry>(&self, entry: &T, mut taken: Option<Taken<'_>>) -> io::Result<Option<u64>> {
        let deadline = tokio::time::Instant::now() + WAIT;
        let (mut pause, longest) = ASK;
        loop {
            tokio::time::sleep_until(deadline.min(tokio::time::Instant::now() + pause)).await;
            pause = (2 * pause).min(longest);
            let mut again = match taken {
                Some(taken) => Ok(taken),
                None => self.take(entry),
            };
            match land(&mut again) {
                Err(cause) if is_full(&cause) => taken = again.ok(),
                made => return made,
            }
            if tokio::time::Instant::now() >= deadline {
                let ticket = taken.and_then(|mut taken| taken.ticket.take());
                return Err(self.shared.latch.give_up(entry.time(), ticket));
            }
        }
    }

    /// Leaves a record that may have been taken to be written when there is room.
    fn leave(&self, entry: &impl Entry, taken: Option<Taken<'_>>) -> io::Result<Option<u64>> {
        let ticket = taken.and_then(|mut taken| taken.ticket.take());
        let left = self.shared.latch.lock().and_then(|mut state| match ticket {
            Some(ticket) => Ok(state.leave(ticket)),
            None => with_body(entry, |body| state.wait_in_memory(entry.time(), body?)),
        });
        left.map(Some).map_err(|_| self.shared.latch.give_up(entry.time(), ticket))
    }

    /// Records `entry`, which its caller began with at `started`, and for which nobody waits: with [`Durability::Written`],
    /// too, its line may wait for the next record, and is written with it in one call to the kernel. Says whether it now waits
    /// for a [flush](AuditLog::flush), which the caller sees to.
    pub fn record_soon(&self, entry: impl Entry, started: Instant) -> bool {
        // A failure is counted and told by the state; there is nobody left to refuse.
        let accepted = with_body(&entry, |body| {
            let mut state = self.shared.latch.lock()?;
            Ok::<_, io::Error>((state.accept(entry.time(), body), state.owes()))
        });
        match accepted {
            Ok((Ok(()), owes)) => {
                self.shared.metrics.audit_record(entry.kind(), started.elapsed());
                owes
            }
            Ok((Err(_), owes)) => owes,
            Err(_) => {
                self.shared.latch.give_up(entry.time(), None);
                false
            }
        }
    }

    /// Whether a refusal of a caller that is not known leaves no record of its own, because the `client` has left so many in this
    /// second; a `suppressed` record tells of it later. The refusal came at a moment by both clocks.
    #[must_use]
    pub fn suppresses(&self, client: Option<IpAddr>, reason: Reason, at: Instant, time: Timestamp) -> bool {
        !self.shared.refusals.records(client, reason, at, time)
    }

    /// Records refusals that were counted for ten seconds at `at`, or `all` that were. What cannot be recorded is counted on.
    /// Says whether a record waits for a [flush](AuditLog::flush), which the caller sees to.
    pub fn tell_suppressed(&self, at: Instant, all: bool) -> bool {
        let mut owes = false;
        for suppressed in self.shared.refusals.due(at, all) {
            let offered = with_body(&suppressed, |body| {
                let mut state = self.shared.latch.lock()?;
                let offered = state.offer(suppressed.time(), body);
                owes = state.owes();
                offered
            });
            match offered {
                Ok(()) => self.shared.metrics.audit_record(suppressed.kind(), at.elapsed()),
                Err(_) => self.shared.refusals.give_back(suppressed),
            }
        }
        owes
    }

    /// Removes rotated files beyond [`Settings::keep`] as of `now`, oldest first, each after a record of it was made; but one
    /// whose record has no room is removed before. Gives back how many. The log does so itself whenever a file had its size, and
    /// every ten seconds.
    ///
    /// # Errors
    /// A removal cannot be recorded, or a file cannot be removed; it stays then.
    pub fn expire(&self, now: Timestamp) -> io::Result<usize> {
        self.shared.expire(now)
    }

    fn take(&self, entry: &impl Entry) -> io::Result<Taken<'_>> {
        let ticket = with_body(entry, |body| self.shared.latch.lock()?.take(entry.time(), body))?;
        Ok(Taken { log: self, ticket: Some(ticket) })
    }

    fn recorded<T: Entry>(
        &self,
        entry: T,
        started: Instant,
        made: io::Result<Option<u64>>,
    ) -> Result<Recorded<T>, Unrecorded<T>> {
        let now = Instant::now();
        match (made, self.on_failure) {
            (Ok(seq), _) => {
                self.shared.metrics.audit_record(entry.kind(), now - started);
                Ok(Recorded { entry, seq, made: now })
            }
            (Err(cause), OnFailure::Deny) => Err(Unrecorded { entry, cause }),
            (Err(_), OnFailure::Allow) => Ok(Recorded { entry, seq: None, made: now }),
        }
    }

    /// Whether the next record can be written as far as one can know; after a failure this tries to write the `loss`
    /// record that is due, so that an idle process finds its way back. Waits at most 250 ms for others.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.shared.latch.lock().is_ok_and(|mut state| state.probe(Timestamp::now()).is_ok())
    }

    /// How far the log has come; as of the last time that it was asked while a write hangs.
    #[must_use]
    pub fn position(&self) -> Position {
        self.shared.latch.position()
    }

    /// Looks for the file at its path now, as SIGHUP asks for: where it was moved away, the chain goes on in a new file, which
    /// begins with a `rotated` record. Without it a moved file is noticed by the first record a second later.
    ///
    /// # Errors
    /// No new file can be begun. Records are refused until one can, or go on without.
    pub fn reopen(&self) -> io::Result<()> {
        self.shared.latch.lock()?.reopen(Timestamp::now())
    }

    /// Begins a new file whatever the size of the old one, with a `rotated` record. Gives back where the old one lies now;
    /// nothing when it holds no record. Who asks for it [removes old ones](AuditLog::expire), too.
    ///
    /// # Errors
    /// The log has no file, a new one cannot be begun, or what waits cannot be written.
    pub fn rotate(&self) -> io::Result<Option<PathBuf>> {
        self.shared.latch.lock()?.rotate(Timestamp::now())
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// It could not be written; it stays buffered.
    pub fn flush(&self) -> io::Result<()> {
        self.shared.latch.lock()?.flush()
    }

    /// Writes what is buffered, and waits a second for room for it.
    ///
    /// # Errors
    /// It could not be written; it stays buffered.
    pub async fn flush_in_time(&self) -> io::Result<()> {
        let deadline = tokio::time::Instant::now() + WAIT;
        loop {
            match self.flush() {
                Err(cause) if is_full(&cause) && tokio::time::Instant::now() < deadline => tokio::time::sleep(ASK.0).await,
                flushed => return flushed,
            }
        }
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.shared.alarm.end();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.tell_suppressed(Instant::now(), true);
        // What hangs in the kernel is left there.
        if let Ok(mut state) = self.shared.latch.lock() {
            state.end();
        }
    }
}

/// A record that was taken; it is made when this lands or is dropped.
struct Taken<'a> {
    log: &'a AuditLog,
    /// There until it has landed.
    ticket: Option<Ticket>,
}

impl Taken<'_> {
    /// Whether it is worth waiting for company.
    fn is_open(&self) -> bool {
        self.ticket.is_some_and(Ticket::is_open)
    }
}

/// Makes a record that was taken; its number. Where there is no room for it at this moment, it stays taken.
fn land(taken: &mut io::Result<Taken<'_>>) -> io::Result<Option<u64>> {
    match taken {
        Ok(Taken { log, ticket: place @ Some(_) }) => {
            let Some(ticket) = *place else { return Ok(None) };
            let made = log.shared.latch.lock().and_then(|mut state| state.land(ticket));
            if !made.as_ref().is_err_and(is_full) {
                *place = None;
            }
            made.map(Some)
        }
        Ok(Taken { ticket: None, .. }) => Ok(None),
        Err(cause) => Err(again(cause)),
    }
}

/// The request that waited is gone; its decision is recorded all the same.
impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            // A failure is counted and told by the state. A write that hangs in the kernel holds up all that wait behind it.
            if let Ok(mut state) = self.log.shared.latch.lock()
                && state.land(ticket).is_err_and(|cause| is_full(&cause))
            {
                state.leave(ticket);
            }
        }
    }
}

/// Calls `then` with a line's middle, or with why there can be none.
fn with_body<R>(entry: &impl Entry, then: impl FnOnce(io::Result<&[u8]>) -> R) -> R {
    let mut middle = MIDDLE.take();
    let written = body(entry, &mut middle);
    let result = then(written.map(|()| middle.as_slice()));
    if middle.capacity() <= KEPT_BYTES {
        MIDDLE.set(middle);
    }
    result
}

/// What the log shares with its threads.
#[derive(Debug)]
struct Shared {
    latch: Latch,
    metrics: Metrics,
    refusals: Refusals,
    keeper: Option<Arc<Keeper>>,
    alarm: Arc<Alarm>,
}

impl Shared {
    fn until_stopped(&self, every: Duration, wait: Wait, again: fn(&Self)) {
        loop {
            let goes_on = self.alarm.wait(every, wait);
            again(self);
            if !goes_on {
                return;
            }
        }
    }

    fn expire(&self, now: Timestamp) -> io::Result<usize> {
        let Some(keeper) = &self.keeper else { return Ok(0) };
        let mut removed = 0;
        // A file that made room may wait for its record. What cannot be written now is owed on.
        let _ = self.latch.lock()?.settle(now);
        // The records of removals can fill files themselves; where each fills one, this has no end.
        for _ in 0..KEEP_PASSES {
            let beyond = keeper.beyond(now)?;
            if beyond.is_empty() {
                break;
            }
            for old in &beyond {
                removed += usize::from(self.latch.lock()?.expire(keeper, old, now)?);
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests;
