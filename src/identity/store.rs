//! Where facts are kept while they are young: bounded, with an age on every entry.

use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
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
///
/// What was found last stands once more in a table in front of it: to find something in the cache costs as much as all the rest
/// of a decision's way through memory, and most of that is the order in which the cache forgets.
pub(super) struct Shelf<T> {
    entries: Cache<Key, Entry<T>, BuildHasherDefault<Hashed>>,
    near: Box<[Place<T>]>,
    /// How often entries were taken out that nobody named.
    swept: AtomicU64,
    metrics: Metrics,
}

/// Where one of the entries is that share the rest of their keys' division.
struct Place<T> {
    /// How often an entry with such a key was put or taken.
    changes: AtomicU64,
    near: ArcSwapOption<Near<T>>,
}

/// An entry that was in the cache before anything changed.
struct Near<T> {
    key: Key,
    entry: Entry<T>,
    changes: u64,
    swept: u64,
    /// How often it was used.
    uses: AtomicU32,
}

/// How many entries stand in the table, if the cache may have as many.
const PLACES: usize = 16 * 1024;
/// One in so many uses is the cache's own, so that it knows what is in use.
const SEEN_BY_CACHE: u32 = 16;

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
        let places = usize::try_from(capacity).unwrap_or(PLACES).clamp(1, PLACES);
        let place = |_| Place { changes: AtomicU64::new(0), near: ArcSwapOption::empty() };
        Self { entries, near: (0..places).map(place).collect(), swept: AtomicU64::new(0), metrics: metrics.clone() }
    }

    fn place(&self, key: &Key) -> Option<&Place<T>> {
        self.near.get(key.rest(self.near.len()))
    }

    pub(super) fn entry(&self, key: &Key) -> Option<Entry<T>> {
        let Some(place) = self.place(key) else { return self.entries.get(key) };
        // Read before the look into the cache: whatever is taken out after that look changes them.
        let (changes, swept) = (place.changes.load(Ordering::Acquire), self.swept.load(Ordering::Acquire));
        let near = place.near.load();
        let near = near.as_ref().filter(|near| near.key == *key && near.changes == changes && near.swept == swept);
        if let Some(near) = near
            && !near.uses.fetch_add(1, Ordering::Relaxed).is_multiple_of(SEEN_BY_CACHE)
        {
            return Some(near.entry.clone());
        }
        let entry = self.entries.get(key)?;
        if near.is_none() {
            let near = Near { key: *key, entry: entry.clone(), changes, swept, uses: AtomicU32::new(1) };
            place.near.store(Some(Arc::new(near)));
        }
        Some(entry)
    }

    pub(super) fn put(&self, key: Key, entry: Entry<T>) {
        // Counted first: the listener may run within the insertion.
        self.metrics.fact_entries(&entry.about.fact, 1);
        self.entries.insert(key, entry);
        self.changed(&key);
    }

    /// What stands in the table for `key` is not to be used any more. Told after the cache, so that nobody puts it there again.
    fn changed(&self, key: &Key) {
        if let Some(place) = self.place(key) {
            place.changes.fetch_add(1, Ordering::AcqRel);
            // What nobody may use takes up no room.
            place.near.store(None);
        }
    }

    pub(super) fn take(&self, key: &Key) -> bool {
        let taken = self.entries.remove(key).is_some();
        self.changed(key);
        taken
    }

    /// Takes out every entry that `which` picks and says how many.
    pub(super) fn take_all(&self, which: impl Fn(&Entry<T>) -> bool) -> usize {
        let picked: Vec<Key> = self.entries.iter().filter(|(_, entry)| which(entry)).map(|(key, _)| *key).collect();
        let taken = picked.iter().filter(|key| self.take(key)).count();
        self.swept.fetch_add(1, Ordering::AcqRel);
        taken
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::metrics::LookupOutcome;

    fn shelf(capacity: u64) -> Shelf<u64> {
        Shelf::new(capacity, &Metrics::new().unwrap())
    }

    fn entry(value: u64) -> Entry<u64> {
        let day = Duration::from_secs(86_400);
        let terms = Terms { ttl: day, max_stale: day, kept: day };
        let hits = Metrics::new().unwrap().fact_lookups("rig", "caller", LookupOutcome::Hit);
        let about = Arc::new(About { provider: "rig".into(), fact: "caller".into(), hits, terms });
        Entry { value: Arc::new(value), about, subject: Some(value.to_string().into()), began: Instant::now() }
    }

    fn value(shelf: &Shelf<u64>, key: Key) -> Option<u64> {
        shelf.entry(&key).map(|entry| *entry.value)
    }

    #[test]
    fn what_the_cache_forgot_is_dropped_with_all_that_the_same_reason_drops() {
        let shelf = shelf(10);
        let keys: Vec<Key> = (0..100).map(|number| Key::of(number, u32::from(number))).collect();
        for (number, key) in (0..).zip(&keys) {
            shelf.put(*key, entry(number));
            assert_eq!(value(&shelf, *key), Some(number));
        }
        assert!(shelf.size() <= 10);
        shelf.take_all(|_| true);
        assert!(keys.iter().all(|key| shelf.entry(key).is_none()));
    }

    #[test]
    fn the_table_has_no_more_room_than_the_cache_and_keeps_nothing_that_was_taken_out() {
        let shelf = shelf(3);
        assert_eq!(shelf.near.len(), 3);
        let key = Key::of(1, 1);
        shelf.put(key, entry(1));
        assert_eq!(value(&shelf, key), Some(1));
        assert!(shelf.take(&key));
        assert!(shelf.near.iter().all(|place| place.near.load().is_none()));
        assert_eq!(value(&shelf, key), None);
    }

    #[test]
    fn the_cache_hears_of_what_is_in_use_now_and_then() {
        let shelf = shelf(10);
        let key = Key::of(1, 1);
        shelf.put(key, entry(1));
        assert_eq!(value(&shelf, key), Some(1));
        // Behind the table's back, as when the cache needs the room.
        shelf.entries.invalidate(&key);
        let uses = (0..=SEEN_BY_CACHE).take_while(|_| value(&shelf, key).is_some()).count();
        assert_eq!(uses, SEEN_BY_CACHE as usize - 1);
    }

    #[test]
    fn nobody_finds_what_was_taken_out_however_many_were_looking_at_it() {
        let shelf = shelf(100);
        let (key, done) = (Key::of(1, 1), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Acquire) {
                        drop(shelf.entry(&key));
                    }
                });
            }
            let wrong = (0..3000).find(|number| {
                shelf.put(key, entry(*number));
                let (put, taken) = (value(&shelf, key), shelf.take(&key));
                (put, taken, value(&shelf, key)) != (Some(*number), true, None)
            });
            done.store(true, Ordering::Release);
            assert_eq!(wrong, None);
        });
    }

    /// What may happen to a shelf; keys are few, and share two places.
    #[derive(Debug, Clone)]
    enum Turn {
        Put(u8, u64),
        Take(u8),
        /// Everything whose value has this rest when it is divided by three.
        TakeAll(u64),
        Find(u8),
    }

    proptest! {
        #[test]
        fn a_shelf_holds_what_was_put_last_and_not_taken(
            turns in prop::collection::vec(
                prop_oneof![
                    (0_u8..6, any::<u64>()).prop_map(|(key, value)| Turn::Put(key, value)),
                    (0_u8..6).prop_map(Turn::Take),
                    (0_u64..3).prop_map(Turn::TakeAll),
                    (0_u8..6).prop_map(Turn::Find),
                    (0_u8..6).prop_map(Turn::Find),
                ],
                0..100,
            ),
        ) {
            let (shelf, mut model) = (shelf(1000), HashMap::new());
            let key = |number: u8| Key::of(number, u32::from(number) % 2);
            for turn in turns {
                match turn {
                    Turn::Put(number, value) => {
                        shelf.put(key(number), entry(value));
                        model.insert(number, value);
                    }
                    Turn::Take(number) => prop_assert_eq!(shelf.take(&key(number)), model.remove(&number).is_some()),
                    Turn::TakeAll(rest) => {
                        let taken = shelf.take_all(|entry| *entry.value % 3 == rest);
                        let before = model.len();
                        model.retain(|_, value| *value % 3 != rest);
                        prop_assert_eq!(taken, before - model.len());
                    }
                    Turn::Find(number) => prop_assert_eq!(value(&shelf, key(number)), model.get(&number).copied()),
                }
            }
        }
    }
}
