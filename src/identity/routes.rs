//! Which lookups the server has no route for, by what it answered last.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::plan::Lookup;

/// The lookups of one upstream that its server does not know.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Whether there is any: nearly every answer finds none, and asks no more.
    any: AtomicBool,
    missing: Mutex<BTreeSet<String>>,
}

impl Routes {
    /// The server answered that it has no such route.
    pub(super) fn missing(&self, upstream: &str, lookup: &Lookup) {
        let mut missing = self.missing.lock();
        if missing.insert(lookup.to_string()) {
            self.any.store(true, Ordering::Release);
            drop(missing);
            tracing::warn!(
                upstream,
                lookup = %lookup,
                "the server has no such route: what is looked up there cannot be known, and what needs it is refused"
            );
        }
    }

    /// The server answered as one that has the route.
    pub(super) fn found(&self, upstream: &str, lookup: &Lookup) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut missing = self.missing.lock();
        if missing.remove(&lookup.to_string()) {
            self.any.store(!missing.is_empty(), Ordering::Release);
            drop(missing);
            tracing::info!(upstream, lookup = %lookup, "the server has the route now");
        }
    }

    /// All of them, in order.
    pub(super) fn all(&self) -> Vec<String> {
        self.missing.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_missing_until_the_server_answers_otherwise() {
        let routes = Routes::default();
        let [one, other] = ["GET /one/{room}", "GET /other"].map(|lookup| lookup.parse::<Lookup>().unwrap());
        routes.found("u", &one);
        assert!(routes.all().is_empty());
        routes.missing("u", &one);
        routes.missing("u", &one);
        routes.missing("u", &other);
        assert_eq!(routes.all(), ["GET /one/{room}", "GET /other"]);
        routes.found("u", &other);
        assert_eq!(routes.all(), ["GET /one/{room}"]);
        routes.found("u", &one);
        assert!(routes.all().is_empty() && !routes.any.load(Ordering::Acquire));
    }
}
