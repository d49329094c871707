//! What the service manager is told (`sd_notify(3)`), by a thread of its own: a message waits for as long as the manager reads none,
//! and signals and the end do not wait with it.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;

/// How many messages may wait; a manager that reads none misses the rest.
const WAITING: usize = 64;

/// What there is to tell, with a line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// Requests are answered.
    Ready(String),
    /// They are answered by what the line says.
    Status(String),
    /// Files are read again.
    Reloading,
    /// The end has come.
    Stopping,
}

/// The service manager, if there is one; clones tell the same.
#[derive(Debug, Clone)]
pub(super) struct Manager {
    news: Option<SyncSender<Message>>,
}

/// News, and what is dropped once they are told.
type Message = (News, SyncSender<()>);

/// News on their way.
#[derive(Debug)]
pub(super) struct Told(Receiver<()>);

impl Told {
    /// Waits until they were told or cannot be, and not longer than `most`.
    pub(super) fn wait(self, most: Duration) {
        // Nothing is sent: the other end is dropped.
        let _ = self.0.recv_timeout(most);
    }
}

impl Manager {
    /// The one that `NOTIFY_SOCKET` names.
    pub(super) fn by_environment() -> Self {
        let named = std::env::var_os("NOTIFY_SOCKET").is_some();
        Self { news: named.then(|| by(|news| tell(&news))).flatten() }
    }

    /// Tells `news`, without waiting for that.
    pub(super) fn tell(&self, news: News) -> Told {
        let (untold, told) = sync_channel(0);
        let lost = self.news.as_ref().is_some_and(|manager| manager.try_send((news, untold)).is_err());
        if lost {
            tracing::warn!("the service manager does not read what it is told");
        }
        Told(told)
    }
}

/// A thread that tells what it is sent, in its order.
fn by(tell: impl Fn(News) + Send + 'static) -> Option<SyncSender<Message>> {
    let (sender, messages) = sync_channel::<Message>(WAITING);
    let all = move || messages.into_iter().for_each(|(news, _untold)| tell(news));
    let thread = thread::Builder::new().name("manager".to_owned()).spawn(all);
    thread.inspect_err(|error| tracing::warn!(%error, "the service manager cannot be told")).ok().map(|_| sender)
}

fn tell(news: &News) {
    let told = match news {
        News::Ready(line) => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(line)]),
        News::Status(line) => sd_notify::notify(&[NotifyState::Status(line)]),
        News::Reloading => match NotifyState::monotonic_usec_now() {
            Ok(now) => sd_notify::notify(&[NotifyState::Reloading, now]),
            Err(error) => Err(error),
        },
        News::Stopping => sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status("finishing requests in flight")]),
    };
    if let Err(error) = told {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_manager_that_reads_nothing_is_not_waited_for() {
        let (goes_on, stalled) = channel::<()>();
        let (heard, hears) = channel();
        let news = by(move |news| {
            // Until this end is gone it does not return.
            let _ = stalled.recv();
            heard.send(news).unwrap();
        });
        let manager = Manager { news };
        manager.tell(News::Ready("first".to_owned()));
        for _ in 0..1000 {
            manager.tell(News::Reloading);
        }
        drop((goes_on, manager));
        let first = hears.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(first, News::Ready("first".to_owned()));
        assert!((1..=WAITING + 1).contains(&hears.iter().count()));
    }

    #[test]
    fn without_a_manager_nothing_is_told_and_nothing_is_waited_for() {
        Manager { news: None }.tell(News::Stopping).wait(Duration::MAX);
    }

    #[test]
    fn the_end_waits_until_it_was_told() {
        let (heard, hears) = channel();
        let manager = Manager { news: by(move |news| heard.send(news).unwrap()) };
        manager.tell(News::Stopping).wait(Duration::from_secs(20));
        assert_eq!(hears.try_recv(), Ok(News::Stopping));
    }
}
