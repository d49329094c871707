//! The way to the state, which one thread at a time takes: nobody waits long for a thread whose write hangs in the kernel.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};

use super::state::{Position, State, Ticket};

/// How long a thread waits for another one's write; a healthy one takes microseconds. Once somebody has waited so long in vain,
/// nobody else does before a write has ended: a worker thread that waits serves nobody.
const PATIENCE: Duration = Duration::from_millis(250);

/// The state and its lock.
#[derive(Debug)]
pub(super) struct Latch {
    state: Mutex<State>,
    /// Whether somebody waited in vain since the lock was last taken, or left something to be told.
    stuck: AtomicBool,
    given_up: Mutex<GivenUp>,
    position: Mutex<Position>,
}

/// Records that were given up while the state was out of reach.
#[derive(Debug, Default)]
struct GivenUp {
    /// Those that the state has: they must not be written any more.
    taken: Vec<(Timestamp, Ticket)>,
    /// When each of the others happened, as far as that is told: the first one.
    since: Option<Timestamp>,
    /// How many others.
    others: u64,
}

impl Latch {
    pub(super) fn new(state: State) -> Self {
        let position = Mutex::new(state.position());
        Self { state: Mutex::new(state), stuck: AtomicBool::new(false), given_up: Mutex::default(), position }
    }

    /// The state, as soon as no other thread has it.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: the thread that has it does not come back.
    pub(super) fn lock(&self) -> io::Result<MutexGuard<'_, State>> {
        let Some(mut state) = self.state.try_lock().or_else(|| self.wait()) else {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "the last record is still being written"));
        };
        if self.stuck.load(Ordering::Acquire) {
            self.back(&mut state);
        }
        Ok(state)
    }

    #[cold]
    fn wait(&self) -> Option<MutexGuard<'_, State>> {
        if self.stuck.load(Ordering::Acquire) {
            return None;
        }
        let state = self.state.try_lock_for(PATIENCE);
        if state.is_none() {
            self.stuck.store(true, Ordering::Release);
        }
        state
    }

    /// A write has ended that hung: what was given up meanwhile is counted, and not written.
    #[cold]
    fn back(&self, state: &mut State) {
        self.stuck.store(false, Ordering::Release);
        let GivenUp { taken, since, others } = std::mem::take(&mut *self.given_up.lock());
        let cause = out_of_time();
        for (time, ticket) in taken {
            state.give_up(time, Some(ticket), &cause);
        }
        if let Some(since) = since {
            state.gave_up_many(since, others, &cause);
        }
    }

    /// A record of something that happened at `time` is not made, because there was no room for it for too long. Gives back why.
    pub(super) fn give_up(&self, time: Timestamp, ticket: Option<Ticket>) -> io::Error {
        let cause = out_of_time();
        match self.state.try_lock() {
            Some(mut state) => state.give_up(time, ticket, &cause),
            None => {
                let mut given_up = self.given_up.lock();
                match ticket {
                    Some(ticket) => given_up.taken.push((time, ticket)),
                    None => {
                        given_up.since = Some(given_up.since.map_or(time, |since| since.min(time)));
                        given_up.others = given_up.others.saturating_add(1);
                    }
                }
                drop(given_up);
                self.stuck.store(true, Ordering::Release);
            }
        }
        cause
    }

    /// How far the log has come, as of the last time that it could be asked.
    pub(super) fn position(&self) -> Position {
        let mut last = self.position.lock();
        if let Ok(state) = self.lock() {
            *last = state.position();
        }
        last.clone()
    }

    /// The state, whatever is under way.
    #[cfg(test)]
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

fn out_of_time() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "what takes the audit log's lines has not taken one for too long")
}
