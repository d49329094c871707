//! One lookup at a time for each key, whoever asks and however many; what was dropped meanwhile is not kept.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Failure;
use super::key::Key;
use super::limits::{Limits, Permit};
use super::store::{About, Entry, Marks, Shelf, Terms};
use crate::metrics::{LookupOutcome, Metrics};

/// How often one need looks again because what it waited for was dropped.
const ATTEMPTS: usize = 3;

/// One kind of fact: what is kept, and which lookups are under way.
pub(super) struct Hangar<T> {
    shelf: Shelf<T>,
    /// Credentials that the upstream refused a moment ago, where lookups prove credentials.
    refused: Option<Marks>,
    /// Held while anything is kept or dropped, so that no lookup keeps what was dropped while it was under way.
    flights: Mutex<HashMap<Key, Flight<T>>>,
    numbers: AtomicU64,
    limits: Arc<Limits>,
    lookup_timeout: Duration,
    /// Every kind of fact that was kept: a handful for each version of a provider file.
    kinds: Mutex<Vec<Arc<About>>>,
    metrics: Metrics,
}

/// What is needed, and for whom.
#[derive(Debug)]
pub(super) struct Need<'a> {
    pub(super) key: Key,
    pub(super) provider: &'a str,
    pub(super) fact: &'a str,
    /// The id of the caller it is about, when that is known beforehand.
    pub(super) subject: Option<&'a str>,
    pub(super) client: IpAddr,
    pub(super) terms: Terms,
    /// Whether lookups with other credentials answer the same need: then what befalls another's credential is not this one's.
    pub(super) shared: bool,
}

/// What a lookup found.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    /// The id of the caller it is about.
    pub(super) subject: Option<Arc<str>>,
}

/// What a need got.
#[derive(Debug)]
pub(super) struct Obtained<T> {
    pub(super) entry: Entry<T>,
    pub(super) age: Duration,
    pub(super) outcome: LookupOutcome,
}

#[derive(Debug)]
struct Flight<T> {
    number: u64,
    subject: Option<Arc<str>>,
    landing: watch::Receiver<Landing<T>>,
}

/// How a flight stands.
#[derive(Debug)]
enum Landing<T> {
    Flying,
    Landed(Result<Entry<T>, Failure>),
    /// The need was dropped meanwhile: look again.
    Dropped,
}

/// What a need boards.
enum Boarding<T> {
    Kept(Entry<T>, Duration),
    Flight { landing: watch::Receiver<Landing<T>>, own: bool },
}

impl<T: Send + Sync + 'static> Hangar<T> {
    pub(super) fn new(
        shelf: Shelf<T>,
        refused: Option<Marks>,
        limits: Arc<Limits>,
        lookup_timeout: Duration,
        metrics: Metrics,
    ) -> Self {
        let (flights, kinds) = (Mutex::default(), Mutex::default());
        Self { shelf, refused, flights, kinds, numbers: AtomicU64::new(0), limits, lookup_timeout, metrics }
    }

    /// What `need` names: kept, or by `look_up`, which is given the entry that has grown too old.
    pub(super) async fn obtain<F>(
        self: &Arc<Self>,
        need: &Need<'_>,
        look_up: impl Fn(Option<Entry<T>>) -> F,
    ) -> Result<Obtained<T>, Failure>
    where
        F: Future<Output = Result<Found<T>, Failure>> + Send + 'static,
    {
        let obtained = match self.attempt(need, look_up).await {
            Err(Failure::Unavailable { detail }) => self.stale(need).ok_or(Failure::Unavailable { detail }),
            other => other,
        };
        let outcome = match &obtained {
            Ok(obtained) => obtained.outcome,
            Err(Failure::Refused) => LookupOutcome::Refused,
            Err(_) => LookupOutcome::Error,
        };
        match &obtained {
            Ok(Obtained { entry, outcome: LookupOutcome::Hit, .. }) => entry.about.hits.inc(),
            _ => self.metrics.fact_lookup(need.provider, need.fact, outcome),
        }
        obtained
    }

    /// Drops what is kept under `key` and every lookup of it that is under way.
    pub(super) fn drop_key(&self, key: &Key) -> bool {
        let mut flights = self.flights.lock();
        let flew = flights.remove(key).is_some();
        self.shelf.take(key) || flew
    }

    /// Remembers that the upstream refuses `key`, and drops what was kept of it.
    pub(super) fn refuse(&self, key: Key) {
        let mut flights = self.flights.lock();
        flights.remove(&key);
        self.shelf.take(&key);
        if let Some(refused) = &self.refused {
            refused.set(key);
        }
    }

    /// Drops what is about the caller `subject`; also every lookup under way that may turn out to be about it.
    pub(super) fn drop_subject(&self, subject: &str) -> usize {
        let mut flights = self.flights.lock();
        flights.retain(|_, flight| flight.subject.as_deref().is_some_and(|other| other != subject));
        self.shelf.take_all(|entry| entry.subject.as_deref() == Some(subject))
    }

    /// Drops everything, refusals too.
    pub(super) fn drop_all(&self) -> usize {
        let mut flights = self.flights.lock();
        flights.clear();
        if let Some(refused) = &self.refused {
            refused.clear();
        }
        self.shelf.take_all(|_| true)
    }

    pub(super) fn size(&self) -> u64 {
        self.shelf.size()
    }

    pub(super) fn refused_size(&self) -> u64 {
        self.refused.as_ref().map_or(0, Marks::size)
    }

    async fn attempt<F>(
        self: &Arc<Self>,
        need: &Need<'_>,
        look_up: impl Fn(Option<Entry<T>>) -> F,
    ) -> Result<Obtained<T>, Failure>
    where
        F: Future<Output = Result<Found<T>, Failure>> + Send + 'static,
    {
        let mut last = Failure::unavailable("it was dropped again and again while it was looked up");
        for _ in 0..ATTEMPTS {
            let (mut landing, own) = match self.board(need, &look_up)? {
                Boarding::Kept(entry, age) => return Ok(Obtained { entry, age, outcome: LookupOutcome::Hit }),
                Boarding::Flight { landing, own } => (landing, own),
            };
            let landed = landing.wait_for(|landing| !matches!(landing, Landing::Flying)).await.map(|landing| landing.clone());
            match landed {
                Ok(Landing::Landed(Ok(entry))) => {
                    let outcome = if own { LookupOutcome::Miss } else { LookupOutcome::Coalesced };
                    return Ok(Obtained { age: entry.began.elapsed(), entry, outcome });
                }
                // Another's credential was refused or limited: this need asks with its own.
                Ok(Landing::Landed(Err(Failure::Refused))) if need.shared && !own => {
                    last = Failure::unavailable("the credentials it was looked up with were refused");
                }
                Ok(Landing::Landed(Err(limited @ Failure::Limited { .. }))) if need.shared && !own => last = limited,
                Ok(Landing::Landed(Err(failure))) => return Err(failure),
                Ok(Landing::Dropped | Landing::Flying) => {}
                // The task ended without a word: it panicked, or the runtime is shutting down.
                Err(_) => return Err(Failure::unavailable("the lookup was broken off")),
            }
        }
        Err(last)
    }

    fn board<F>(self: &Arc<Self>, need: &Need<'_>, look_up: impl Fn(Option<Entry<T>>) -> F) -> Result<Boarding<T>, Failure>
    where
        F: Future<Output = Result<Found<T>, Failure>> + Send + 'static,
    {
        if let Some((entry, age)) = self.kept(need)? {
            return Ok(Boarding::Kept(entry, age));
        }
        let mut flights = self.flights.lock();
        // Once more under the lock: a flight may have landed since.
        if let Some((entry, age)) = self.kept(need)? {
            return Ok(Boarding::Kept(entry, age));
        }
        if let Some(flight) = flights.get(&need.key) {
            return Ok(Boarding::Flight { landing: flight.landing.clone(), own: false });
        }
        let permit = self.limits.permit(need.client).ok_or(Failure::Overloaded)?;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (landed, landing) = watch::channel(Landing::Flying);
        flights.insert(need.key, Flight { number, subject: need.subject.map(Arc::from), landing: landing.clone() });
        // Released first: a runtime that is shutting down drops the task at once, and the task then leaves the registry.
        drop(flights);
        let pilot = Pilot {
            hangar: Arc::clone(self),
            key: need.key,
            provider: need.provider.into(),
            fact: need.fact.into(),
            terms: need.terms,
            number,
            landed,
            permit: Some(permit),
        };
        // A task of its own: a client that goes away takes nothing from those who wait for the same answer.
        tokio::spawn(pilot.fly(look_up(self.shelf.entry(&need.key))));
        Ok(Boarding::Flight { landing, own: true })
    }

    /// What the entries of a fact have in common.
    fn about(&self, provider: &Arc<str>, fact: &Arc<str>, terms: Terms) -> Arc<About> {
        let mut kinds = self.kinds.lock();
        let known = kinds.iter().find(|about| about.terms == terms && about.fact == *fact && about.provider == *provider);
        if let Some(about) = known {
            return Arc::clone(about);
        }
        let hits = self.metrics.fact_lookups(provider, fact, LookupOutcome::Hit);
        let about = Arc::new(About { provider: Arc::clone(provider), fact: Arc::clone(fact), hits, terms });
        kinds.push(Arc::clone(&about));
        about
    }

    /// What is kept and young enough. Nothing is kept under a key that was refused, so that only a miss asks for that.
    fn kept(&self, need: &Need<'_>) -> Result<Option<(Entry<T>, Duration)>, Failure> {
        let aged = self.shelf.entry(&need.key).map(|entry| (entry.began.elapsed(), entry));
        match aged.filter(|(age, entry)| entry.is_fresh(*age)).map(|(age, entry)| (entry, age)) {
            None if self.refused.as_ref().is_some_and(|refused| refused.has(&need.key)) => Err(Failure::Refused),
            entry => Ok(entry),
        }
    }

    /// What is kept and may stand in for a lookup that failed.
    fn stale(&self, need: &Need<'_>) -> Option<Obtained<T>> {
        let entry = self.shelf.entry(&need.key)?;
        let age = entry.began.elapsed();
        entry.is_usable(age).then_some(Obtained { entry, age, outcome: LookupOutcome::Stale })
    }
}

/// Carries one lookup through, and leaves the registry however it ends.
struct Pilot<T: Send + Sync + 'static> {
    hangar: Arc<Hangar<T>>,
    key: Key,
    provider: Arc<str>,
    fact: Arc<str>,
    terms: Terms,
    number: u64,
    landed: watch::Sender<Landing<T>>,
    permit: Option<Permit>,
}

impl<T: Send + Sync + 'static> Pilot<T> {
    async fn fly(mut self, lookup: impl Future<Output = Result<Found<T>, Failure>>) {
        let began = Instant::now();
        let bound = self.hangar.lookup_timeout;
        let found = match tokio::time::timeout(bound, lookup).await {
            Ok(found) => found,
            Err(_) => Err(Failure::unavailable(format!("no answer within {bound:?}"))),
        };
        let (provider, fact) = (&self.provider, &self.fact);
        self.hangar.metrics.fact_lookup_duration(provider, fact, began.elapsed());
        if let Err(failure) = &found {
            tracing::debug!(%provider, %fact, %failure, "a lookup failed");
        }
        let landing = self.land(found.map(|found| {
            let Found { value, subject } = found;
            Entry { value: Arc::new(value), about: self.hangar.about(provider, fact, self.terms), subject, began }
        }));
        // Given back first: whoever is woken by the answer may ask the next question at once.
        self.permit = None;
        self.landed.send_replace(landing);
    }

    /// Keeps what was found, unless it was dropped meanwhile.
    fn land(&self, found: Result<Entry<T>, Failure>) -> Landing<T> {
        let key = self.key;
        let mut flights = self.hangar.flights.lock();
        if flights.get(&key).is_none_or(|flight| flight.number != self.number) {
            return Landing::Dropped;
        }
        flights.remove(&key);
        match &found {
            Ok(entry) => self.hangar.shelf.put(key, entry.clone()),
            Err(Failure::Refused) => {
                if let Some(refused) = &self.hangar.refused {
                    self.hangar.shelf.take(&key);
                    refused.set(key);
                }
            }
            Err(_) => {}
        }
        Landing::Landed(found)
    }
}

impl<T: Send + Sync + 'static> Drop for Pilot<T> {
    fn drop(&mut self) {
        let mut flights = self.hangar.flights.lock();
        if flights.get(&self.key).is_some_and(|flight| flight.number == self.number) {
            flights.remove(&self.key);
        }
    }
}

impl<T> Clone for Landing<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Flying => Self::Flying,
            Self::Landed(found) => Self::Landed(found.clone()),
            Self::Dropped => Self::Dropped,
        }
    }
}
