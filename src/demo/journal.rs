//! The list of what reached a sample server.

use std::collections::VecDeque;
use std::time::Instant;

use http::{HeaderMap, Method};
use parking_lot::Mutex;
use tokio::sync::watch;

/// How many requests are remembered, so that a demo may run for weeks; the oldest are forgotten first.
const KEPT: usize = 100_000;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The method.
    pub method: Method,
    /// The request target as received, without a raw `#` and what follows it: the HTTP library cuts that off.
    pub target: String,
    /// The path as the server reads it: decoded and resolved where the real server does so.
    pub path: String,
    /// The header fields, names in lower case.
    pub headers: HeaderMap,
    /// When its head had arrived.
    pub when: Instant,
}

impl Seen {
    /// The first value of header `name`, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Every request in the order of arrival.
#[derive(Debug)]
pub(super) struct Journal {
    seen: Mutex<VecDeque<Seen>>,
    arrivals: watch::Sender<u64>,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self { seen: Mutex::default(), arrivals: watch::Sender::new(0) }
    }

    pub(super) fn note(&self, seen: Seen) {
        let mut list = self.seen.lock();
        if list.len() >= KEPT {
            list.pop_front();
        }
        list.push_back(seen);
        // Counted before the list is let go, so that both say the same.
        self.arrivals.send_modify(|arrivals| *arrivals = arrivals.wrapping_add(1));
    }

    pub(super) fn all(&self) -> Vec<Seen> {
        self.seen.lock().iter().cloned().collect()
    }

    /// How many requests there ever were.
    pub(super) fn arrivals(&self) -> u64 {
        *self.arrivals.borrow()
    }

    /// The requests after the first `seen` ones that are still remembered; `seen` is moved on.
    pub(super) fn since(&self, seen: &mut u64) -> Vec<Seen> {
        let (list, arrivals) = (self.seen.lock(), self.arrivals());
        let new = usize::try_from(arrivals.saturating_sub(*seen)).unwrap_or(usize::MAX);
        *seen = arrivals;
        list.iter().skip(list.len().saturating_sub(new)).cloned().collect()
    }

    pub(super) fn count(&self, path: &str) -> usize {
        self.seen.lock().iter().filter(|seen| seen.path == path).count()
    }

    pub(super) fn forget(&self) {
        self.seen.lock().clear();
    }

    /// Returns once `count` requests for `path` have been noted.
    pub(super) async fn until(&self, path: &str, count: usize) {
        let mut arrivals = self.arrivals.subscribe();
        while self.count(path) < count {
            if arrivals.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_requests_are_forgotten_when_the_list_is_full() {
        let journal = Journal::new();
        for index in 0..KEPT + 2 {
            let path = if index < 2 { "/old" } else { "/new" }.to_owned();
            let (headers, when) = (HeaderMap::new(), Instant::now());
            journal.note(Seen { method: Method::GET, target: path.clone(), path, headers, when });
        }
        assert_eq!((journal.count("/old"), journal.count("/new")), (0, KEPT));
        let mut seen = journal.arrivals() - 2;
        assert_eq!((journal.since(&mut seen).len(), journal.since(&mut seen).len()), (2, 0));
        journal.forget();
        assert!(journal.all().is_empty());
    }
}
