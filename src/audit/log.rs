//! The log itself: numbers each record, chains it, and hands back the proof that it was written.

use std::cell::RefCell;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::{Condvar, Mutex};

use super::entry::body;
use super::state::{Position, State, Ticket};
use super::{Durability, Entry, OnFailure, OpenError, Settings};
use crate::metrics::Metrics;

/// How long a buffered record waits for company.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// How long the question whether the log is writable waits for records under way: a healthy write takes microseconds.
const PATIENCE: Duration = Duration::from_millis(250);

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
    flusher: Option<JoinHandle<()>>,
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
    /// The record's number; none when it could not be written and the operator chose to go on.
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
    /// A line that the last process left torn is cut off; a `recovered` record tells how many bytes it had and holds
    /// the first 512 of them.
    ///
    /// # Errors
    /// The sink cannot be written, another process writes it, or what is there does not end with a record.
    pub fn open(settings: Settings, metrics: Metrics) -> Result<Self, OpenError> {
        let (durability, on_failure) = (settings.durability, settings.on_failure);
        let state = State::open(settings, metrics.clone())?;
        let shared = Arc::new(Shared { state: Mutex::new(state), metrics, stopping: Mutex::new(false), stop: Condvar::new() });
        let flusher = match durability {
            Durability::Written => None,
            Durability::Buffered => {
                let shared = Arc::clone(&shared);
                let thread = thread::Builder::new().name("audit".to_owned()).spawn(move || shared.flush_until_stopped());
                Some(thread.map_err(OpenError::Thread)?)
            }
        };
        Ok(Self { shared, on_failure, flusher })
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
    /// With [`Durability::Written`] its line is in the kernel when this returns, written by the calling thread.
    ///
    /// # Errors
    /// The record could not be written, and [`OnFailure::Deny`] is set. The next one is tried afresh; once one
    /// succeeds, a `loss` record before it tells how many were not written.
    pub fn record_since<T: Entry>(&self, entry: T, started: Instant) -> Result<Recorded<T>, Unrecorded<T>> {
        let made = self.take(&entry).and_then(Taken::land);
        self.recorded(entry, started, made)
    }

    /// Records `entry`, which its caller began with at `started`, like [`AuditLog::record_since`], together with what other
    /// tasks of this thread record now: whoever is ready to run goes first, and then all of it is written in one call to the
    /// kernel, before any of them goes on. A task that is dropped meanwhile leaves its record behind.
    ///
    /// # Errors
    /// Those of [`AuditLog::record_since`].
    pub async fn record_together<T: Entry>(&self, entry: T, started: Instant) -> Result<Recorded<T>, Unrecorded<T>> {
        let taken = self.take(&entry);
        if taken.as_ref().is_ok_and(Taken::is_open) {
            tokio::task::yield_now().await;
        }
        let made = taken.and_then(Taken::land);
        self.recorded(entry, started, made)
    }

    /// Records `entry`, which its caller began with at `started`, and for which nobody waits: with [`Durability::Written`],
    /// too, its line may wait for the next record, and is written with it in one call to the kernel. Says whether it now waits
    /// for a [flush](AuditLog::flush), which the caller sees to.
    pub fn record_soon(&self, entry: impl Entry, started: Instant) -> bool {
        // A failure is counted and told by the state; there is nobody left to refuse.
        let (accepted, owes) = with_body(&entry, |body| {
            let mut state = self.shared.state.lock();
            (state.accept(entry.time(), body), state.owes())
        });
        if accepted.is_ok() {
            self.shared.metrics.audit_record(entry.kind(), started.elapsed());
        }
        owes
    }

    fn take(&self, entry: &impl Entry) -> io::Result<Taken<'_>> {
        let ticket = with_body(entry, |body| self.shared.state.lock().take(entry.time(), body))?;
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
        self.shared.state.try_lock_for(PATIENCE).is_some_and(|mut state| state.probe(Timestamp::now()).is_ok())
    }

    /// How far the log has come.
    #[must_use]
    pub fn position(&self) -> Position {
        self.shared.state.lock().position()
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// It could not be written; it stays buffered.
    pub fn flush(&self) -> io::Result<()> {
        self.shared.state.lock().flush()
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        *self.shared.stopping.lock() = true;
        self.shared.stop.notify_all();
        if let Some(thread) = self.flusher.take() {
            let _ = thread.join();
        }
        self.shared.state.lock().end();
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

    /// Makes the record; its number.
    fn land(mut self) -> io::Result<Option<u64>> {
        self.ticket.take().map(|ticket| self.log.shared.state.lock().land(ticket)).transpose()
    }
}

/// Whoever waited is gone; what was decided is recorded all the same.
impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            // A failure is counted and told by the state.
            drop(self.log.shared.state.lock().land(ticket));
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

/// What the log shares with its thread.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    metrics: Metrics,
    stopping: Mutex<bool>,
    stop: Condvar,
}

impl Shared {
    fn flush_until_stopped(&self) {
        let mut stopping = self.stopping.lock();
        while !*stopping {
            self.stop.wait_for(&mut stopping, FLUSH_EVERY);
            // What cannot be written now stays buffered, and was counted.
            let _ = self.state.lock().flush();
        }
    }
}

#[cfg(test)]
mod tests;
