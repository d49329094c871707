//! Tasks that last as long as the process does.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;

/// How long after a panic a task is begun again, so that one that panics at once does not take a processor.
const AGAIN: Duration = Duration::from_secs(1);

/// Runs the future that `begin` makes until it is over; one that panics is told in the process log and begun again: whatever it
/// was about to do, without it reloads, resolutions or new connections would stop, and nothing would show that.
pub(super) fn keep<T: Future<Output = ()> + Send>(
    name: &'static str,
    begin: impl Fn() -> T + Send + Sync + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        // What a task shares with others is behind locks that know no poison, and is whole between its steps.
        while AssertUnwindSafe(async { begin().await }).catch_unwind().await.is_err() {
            tracing::error!(task = name, "a task broke off; it begins again");
            tokio::time::sleep(AGAIN).await;
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_begins_again_and_one_that_is_over_does_not() {
        let begun = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&begun);
        let kept = keep("a test", move || {
            let number = counted.fetch_add(1, Ordering::AcqRel);
            // The first one panics before there is a future, the others within.
            assert!(number != 0, "at once");
            async move {
                tokio::task::yield_now().await;
                assert!(number >= 3, "later");
            }
        });
        kept.await.unwrap();
        assert_eq!(begun.load(Ordering::Acquire), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_is_given_up_is_not_begun_again() {
        let kept = keep("a test", std::future::pending);
        tokio::task::yield_now().await;
        kept.abort();
        assert!(kept.await.unwrap_err().is_cancelled());
    }
}
