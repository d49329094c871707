//! A deadline that is moved for every request and hardly ever comes.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// One wait after the other, each with a deadline of its own.
///
/// To set a timer and to take it back for every wait costs as much as half the parsing of a request. This one is set, and left
/// as it is when the deadline moves on: it goes off once in a while, finds that it is too early, and is set anew.
#[derive(Default)]
pub(super) struct Patience {
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// Waits until `deadline`.
    pub(super) async fn until(&mut self, deadline: Instant) {
        poll_fn(|cx| self.poll(deadline, cx)).await;
    }

    fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if alarm.deadline() > deadline {
            alarm.as_mut().reset(deadline);
        }
        loop {
            ready!(alarm.as_mut().poll(cx));
            if alarm.deadline() >= deadline {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline);
        }
    }
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience").field("alarm", &self.alarm.as_ref().map(|alarm| alarm.deadline())).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_wait_lasts_until_its_own_deadline_whatever_was_waited_for_before() {
        let mut patience = Patience::default();
        let seconds = Duration::from_secs;
        for (waited, given_up) in [(10, false), (60, true), (1, false), (5, true), (30, false), (0, false), (90, false)] {
            let deadline = Instant::now() + seconds(waited);
            assert!(waited == 0 || patience.until(deadline).now_or_never().is_none());
            if given_up {
                // Something else came first.
                tokio::time::advance(seconds(1)).await;
                continue;
            }
            patience.until(deadline).await;
            let late = Instant::now() - deadline;
            assert!(late <= Duration::from_millis(1), "{waited} s: {late:?}");
        }
    }
}
