//! Where facts are kept while they are young: bounded, with an age on every entry.

use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moka::notification::RemovalCause;
use moka::sync::Cache;
use tokio::time::Instant;

use super::key::{Hashed, Key};
use crate::metrics::{Metrics, Series};

/// More than this nothing is kept; the cache bounds how long it can be told to keep something.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// One kept fact: as small as can be, since there may be a million of them, and it stands in the cache itself.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) value: Arc<T>,
    pub(super) about: Arc<About>,
    /// The id of the caller it is about.
    pub(super) subject: Option<Arc<str>>,
    /// When its lookup began: what the upstream said cannot be older.
    pub(super) began: Instant,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        let Self { value, about, subject, began } = self;
        Self { value: Arc::clone(value), about: Arc::clone(about), subject: subject.clone(), began: *began }
    }
}

/// What the entries of one kind have in common.
#[derive(Debug)]
pub(super) struct About {
    pub(super) provider: Arc<str>,
    /// Its name in metrics.
    pub(super) fact: Arc<str>,
    /// Counts that it was there when it was needed.
    pub(super) hits: Series,
    pub(super) terms: Terms,
}

/// How long a fact is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    /// The age at which it is looked up again.
    pub(super) ttl: Duration,
    /// How much older it may be used when that fails.
    pub(super) max_stale: Duration,
    /// How long it may take up room.
    pub(super) kept: Duration,
}

impl<T> Entry<T> {
    /// Whether it is good at this age.
    pub(super) fn is_fresh(&self, age: Duration) -> bool {
        age < self.about.terms.ttl
    }

    /// Whether it may stand in, at this age, for a lookup that failed.
    pub(super) fn is_usable(&self, age: Duration) -> bool {
        age < self.about.terms.ttl.saturating_add(self.about.terms.max_stale)
    }
}

/// A bounded cache of entries that counts them by fact.
pub(super) struct Shelf<T> {
    entries: Cache<Key, Entry<T>, BuildHasherDefault<Hashed>>,
    metrics: Metrics,
}

impl<T: Send + Sync + 'static> Shelf<T> {
    pub(super) fn new(capacity: u64, metrics: &Metrics) -> Self {
        let counted = metrics.clone();
        let entries = Cache::builder()
            .max_capacity(capacity)
            .expire_after(Kept)
            .eviction_listener(move |_, entry: Entry<T>, cause| {
                counted.fact_entries(&entry.about.fact, -1);
                if cause == RemovalCause::Size {
                    counted.fact_eviction(&entry.about.fact);
                }
            })
            .build_with_hasher(BuildHasherDefault::default());
        Self { entries, metrics: metrics.clone() }
    }

    pub(super) fn entry(&self, key: &Key) -> Option<Entry<T>> {
        self.entries.get(key)
    }

    pub(super) fn put(&self, key: Key, entry: Entry<T>) {
        // Counted first: the listener may run within the insertion.
        self.metrics.fact_entries(&entry.about.fact, 1);
        self.entries.insert(key, entry);
    }

    pub(super) fn take(&self, key: &Key) -> bool {
        self.entries.remove(key).is_some()
    }

    /// Takes out every entry that `which` picks and says how many.
    pub(super) fn take_all(&self, which: impl Fn(&Entry<T>) -> bool) -> usize {
        let picked: Vec<Key> = self.entries.iter().filter(|(_, entry)| which(entry)).map(|(key, _)| *key).collect();
        picked.iter().filter(|key| self.take(key)).count()
    }

    pub(super) fn size(&self) -> u64 {
        self.entries.run_pending_tasks();
        self.entries.entry_count()
    }
}

/// Lets an entry take up room as long as its terms say, by the clock of the wall: whether it is fresh is asked elsewhere.
struct Kept;

impl<T> moka::Expiry<Key, Entry<T>> for Kept {
    fn expire_after_create(&self, _: &Key, entry: &Entry<T>, _: std::time::Instant) -> Option<Duration> {
        Some(entry.about.terms.kept.min(LONGEST))
    }

    fn expire_after_update(&self, _: &Key, entry: &Entry<T>, _: std::time::Instant, _: Option<Duration>) -> Option<Duration> {
        Some(entry.about.terms.kept.min(LONGEST))
    }
}

/// Keys remembered for a fixed time: refused credentials, and those dropped a moment ago.
#[derive(Debug)]
pub(super) struct Marks {
    marks: Cache<Key, Instant, BuildHasherDefault<Hashed>>,
    ttl: Duration,
    /// Whether there was ever one: as long as there was none, nobody needs to look.
    any: AtomicBool,
}

impl Marks {
    pub(super) fn new(capacity: u64, ttl: Duration) -> Self {
        let marks = Cache::builder()
            .max_capacity(capacity.max(1))
            .time_to_live(ttl.min(LONGEST))
            .build_with_hasher(BuildHasherDefault::default());
        Self { marks, ttl, any: AtomicBool::new(false) }
    }

    pub(super) fn set(&self, key: Key) {
        self.any.store(true, Ordering::Release);
        self.marks.insert(key, Instant::now());
    }

    /// Sets `key` unless it is set, and says whether it did; of several at once only one does.
    pub(super) fn claim(&self, key: Key) -> bool {
        self.any.store(true, Ordering::Release);
        let marked = self.marks.entry(key).or_insert_with_if(Instant::now, |since| since.elapsed() >= self.ttl);
        marked.is_fresh()
    }

    pub(super) fn remove(&self, key: &Key) {
        self.marks.invalidate(key);
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.any.load(Ordering::Acquire) && self.marks.get(key).is_some_and(|since| since.elapsed() < self.ttl)
    }

    pub(super) fn clear(&self) {
        self.marks.invalidate_all();
    }

    pub(super) fn size(&self) -> u64 {
        self.marks.run_pending_tasks();
        self.marks.entry_count()
    }
}
