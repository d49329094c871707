//! What a test makes a sample server do instead of, or before, its answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::journal::Seen;

/// What happens to every request for one path until [`Sample::calm`](super::Sample::calm).
#[derive(Clone)]
pub enum Behaviour {
    /// Answers this and nothing else.
    Answer {
        /// The status; one outside 100–999 becomes 500.
        status: u16,
        /// Names and values; what cannot stand in a header is left out.
        headers: Vec<(String, String)>,
        /// The body, sent with its length.
        body: Bytes,
    },
    /// Waits, then answers normally.
    Delay(Duration),
    /// Waits until released, then answers normally.
    Hold(Hold),
    /// Drops the connection without an answer.
    Close,
    /// Runs when the request arrives, then answers normally.
    Call(Arc<dyn Fn(&Seen) + Send + Sync>),
}

impl Behaviour {
    /// Answers `status` with a JSON body.
    #[must_use]
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self::Answer { status, headers: vec![("content-type".into(), "application/json".into())], body: body.into() }
    }

    /// Runs `call` when a request arrives.
    #[must_use]
    pub fn call(call: impl Fn(&Seen) + Send + Sync + 'static) -> Self {
        Self::Call(Arc::new(call))
    }
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer { status, .. } => write!(f, "Answer({status})"),
            Self::Delay(delay) => write!(f, "Delay({delay:?})"),
            Self::Hold(hold) => hold.fmt(f),
            Self::Close => f.write_str("Close"),
            Self::Call(_) => f.write_str("Call"),
        }
    }
}

/// Keeps requests waiting; a clone speaks of the same ones.
#[derive(Debug, Clone)]
pub struct Hold {
    released: Arc<watch::Sender<bool>>,
    waiting: Arc<watch::Sender<usize>>,
}

impl Default for Hold {
    fn default() -> Self {
        Self { released: Arc::new(watch::Sender::new(false)), waiting: Arc::new(watch::Sender::new(0)) }
    }
}

impl Hold {
    /// A hold that nothing waits on yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets go whoever waits, and everybody who comes later.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// How many requests wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        *self.waiting.borrow()
    }

    /// Returns once at least `count` requests wait at the same time.
    pub async fn until_waiting(&self, count: usize) {
        let mut waiting = self.waiting.subscribe();
        // An error would mean that the sender is gone, which `self` owns.
        let _ = waiting.wait_for(|now| *now >= count).await;
    }

    /// Waits for the release, counted while it does.
    pub(super) async fn pass(&self) {
        let mut released = self.released.subscribe();
        self.waiting.send_modify(|waiting| *waiting += 1);
        let _counted = Counted(self);
        let _ = released.wait_for(|released| *released).await;
    }
}

/// Takes itself off the count, also when the connection ends first.
struct Counted<'a>(&'a Hold);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|waiting| *waiting = waiting.saturating_sub(1));
    }
}
