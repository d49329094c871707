//! The policy information point: who a credential belongs to and what the upstream knows about that caller, kept for a
//! short time, looked up once however many ask, and never guessed.

mod ask;
mod caller;
mod document;
mod errand;
mod flight;
mod key;
mod limits;
mod lookup;
mod plan;
mod pointer;
mod reading;
mod routes;
mod scope;
mod store;
mod table;
mod template;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use ask::{Ask, AskError, Question, Reply};
pub use caller::Caller;
use caller::RoleSets;
pub use key::NoEntropy;
pub use plan::{Answers, CallerPlan, FactPlan, Lookup, Origin, Output, Plan, ResetHeader, ResetUnit, Source, Step, TablePlan};
pub use pointer::{Pointer, PointerError, PointerTemplate};
pub use table::Table;
pub use template::{Target, Template, TemplateError};

use crate::metrics::{InvalidationCause, LookupOutcome, Metrics};
use crate::model::{Credential, Record};
use errand::Errand;
use flight::{Found, Hangar, Need, Obtained};
use key::Keyring;
use limits::Limits;
use lookup::Trouble;
use routes::Routes;
use scope::Scope;
use store::{Marks, Shelf, Terms};

/// How many tables are kept: those of one provider, and of its earlier versions for a while.
const TABLES: u64 = 1000;

/// How long a table is kept at least, as the base that changes are added to.
const TABLE_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The name of the caller lookup in metrics.
const CALLER: &str = "caller";

/// Answers questions about the callers of one upstream. Cloning shares everything.
pub struct Identity<A> {
    inner: Arc<Inner<A>>,
}

/// One virtual host of the upstream, as its callers know it: what another one says of them is kept apart.
pub struct At<'a, A> {
    inner: &'a Arc<Inner<A>>,
    /// The host that the upstream is asked by, where it is not the one of the settings.
    host: Option<&'a str>,
}

/// How one upstream is asked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The upstream's URL; part of every cache key.
    pub upstream: String,
    /// The host that a server is asked by which clients reach by one; without it, its own.
    pub host: Option<String>,
    /// The age at which a fact is looked up again, unless the plan says otherwise for it.
    pub ttl: Duration,
    /// How much older a fact may be used when its lookup fails.
    pub max_stale: Duration,
    /// How long a refused credential is remembered.
    pub refused_ttl: Duration,
    /// How many callers are kept and, apart from them, how many facts; refused credentials: a tenth.
    pub capacity: u64,
    /// What one lookup may take, all its questions together.
    pub lookup_timeout: Duration,
    /// Which address the upstream is told.
    pub lookup_address: LookupAddress,
    /// How many lookups may be under way.
    pub lookups: usize,
    /// How many of them for one client address.
    pub lookups_per_address: usize,
    /// The credential that tables are asked with, instead of the caller's at hand.
    pub service: Option<Credential>,
}

/// Which address the upstream is told that a lookup comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupAddress {
    /// One of the caller's own in `fd00::/8`, from a keyed hash of its credential: lookups then take neither the client's
    /// share of the upstream's limits nor its neighbours'.
    Caller,
    /// The client's.
    Client,
}

/// Something known, and since when.
#[derive(Debug)]
pub struct Known<T> {
    /// What is known.
    pub value: Arc<T>,
    /// The time since its lookup began.
    pub age: Duration,
    /// Whether it is past its time and stands in for a lookup that failed.
    pub stale: bool,
}

/// Why something is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The upstream does not accept the credential, or says that it belongs to somebody else than it claims.
    #[error("the upstream refuses the credential")]
    Refused,
    /// The upstream limits how often it may be asked.
    #[error("the upstream limits lookups for {retry_after} s")]
    Limited {
        /// Seconds until asking makes sense again: 1 to 3600.
        retry_after: u64,
    },
    /// There was no answer, or none that could be read.
    #[error("{detail}")]
    Unavailable {
        /// What went wrong, for the operator; without credentials or values.
        detail: String,
    },
    /// Too many lookups are under way.
    #[error("too many lookups are under way")]
    Overloaded,
}

/// Which facts are to be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection<'a> {
    /// The caller with this id, and what is known about it.
    Subject(&'a str),
    /// Everything: callers, facts, tables and refusals.
    All,
}

/// How many entries are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Callers.
    pub callers: u64,
    /// Facts about them.
    pub facts: u64,
    /// Tables.
    pub tables: u64,
    /// Refused credentials.
    pub refused: u64,
}

struct Inner<A> {
    ask: A,
    keys: Keyring,
    settings: Settings,
    callers: Arc<Hangar<Caller>>,
    facts: Arc<Hangar<Record>>,
    tables: Arc<Hangar<Table>>,
    /// Credentials that were dropped a moment ago.
    dropped: Marks,
    role_sets: RoleSets,
    routes: Routes,
    metrics: Metrics,
}

impl<A: Ask> Identity<A> {
    /// An empty one, with a random key of its own for the names of its entries.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn new(settings: Settings, ask: A, metrics: Metrics) -> Result<Self, NoEntropy> {
        let Settings { capacity, refused_ttl, lookup_timeout, .. } = settings;
        let limits = Limits::new(settings.lookups, settings.lookups_per_address);
        let refused = Marks::new(capacity / 10, refused_ttl);
        let callers =
            Hangar::new(Shelf::new(capacity, &metrics), Some(refused), Arc::clone(&limits), lookup_timeout, metrics.clone());
        let facts = Hangar::new(Shelf::new(capacity, &metrics), None, Arc::clone(&limits), lookup_timeout, metrics.clone());
        let tables = Hangar::new(Shelf::new(TABLES, &metrics), None, limits, lookup_timeout, metrics.clone());
        let inner = Inner {
            ask,
            keys: Keyring::new(settings.upstream.clone())?,
            dropped: Marks::new(capacity / 10, refused_ttl),
            role_sets: RoleSets::default(),
            routes: Routes::default(),
            settings,
            callers: Arc::new(callers),
            facts: Arc::new(facts),
            tables: Arc::new(tables),
            metrics,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What the virtual host `host` of the upstream knows; without one, the host of the settings.
    #[must_use]
    pub fn at<'a>(&'a self, host: Option<&'a str>) -> At<'a, A> {
        At { inner: &self.inner, host }
    }

    /// [`At::caller`], asked of the host that the settings name.
    ///
    /// # Errors
    /// Those of [`At::caller`].
    pub async fn caller(
        &self,
        plan: &Arc<Plan>,
        credential: &Credential,
        client: impl Into<Option<IpAddr>>,
    ) -> Result<Known<Caller>, Failure> {
        self.at(None).caller(plan, credential, client).await
    }

    /// [`At::fact`], asked of the host that the settings name.
    ///
    /// # Errors
    /// Those of [`At::fact`].
    pub async fn fact(
        &self,
        plan: &Arc<Plan>,
        fact: &str,
        caller: &Arc<Caller>,
        credential: &Credential,
        inputs: &[(&str, &str)],
        client: impl Into<Option<IpAddr>>,
    ) -> Result<Known<Record>, Failure> {
        self.at(None).fact(plan, fact, caller, credential, inputs, client).await
    }

    /// [`At::table`], asked of the host that the settings name.
    ///
    /// # Errors
    /// Those of [`At::table`].
    pub async fn table(
        &self,
        plan: &Arc<Plan>,
        table: &str,
        credential: &Credential,
        client: impl Into<Option<IpAddr>>,
    ) -> Result<Known<Table>, Failure> {
        self.at(None).table(plan, table, credential, client).await
    }

    /// Drops what an administrator selects, and says how many entries that were. A lookup under way that may be about
    /// the selection does not bring it back.
    pub fn invalidate(&self, which: Selection<'_>) -> usize {
        let Inner { callers, facts, tables, metrics, .. } = &*self.inner;
        metrics.fact_invalidation(InvalidationCause::Admin);
        match which {
            Selection::Subject(id) => callers.drop_subject(id) + facts.drop_subject(id),
            Selection::All => callers.drop_all() + facts.drop_all() + tables.drop_all(),
        }
    }

    /// [`At::drop_credential`] of the host of the settings.
    pub fn drop_credential(&self, plan: &Plan, credential: &Credential) -> bool {
        self.at(None).drop_credential(plan, credential)
    }

    /// Asks each lookup of `plan` once, without a credential and about nothing, to learn which of them the server has no route
    /// for; any other answer tells nothing.
    pub async fn probe(&self, plan: &Plan) {
        let credential = Credential { headers: Vec::new() };
        let errand = self.inner.errand(plan, &credential, IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), None);
        for lookup in plan.lookups() {
            if let Some(target) = lookup.target.fill(|_| Some("rolegate".into())) {
                let asked = errand.ask(lookup, &target);
                drop(tokio::time::timeout(self.inner.settings.lookup_timeout, asked).await);
            }
        }
    }

    /// The lookups that the server has no route for, as far as it was asked.
    #[must_use]
    pub fn missing_routes(&self) -> Vec<String> {
        self.inner.routes.all()
    }

    /// How many entries are kept now.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let Inner { callers, facts, tables, .. } = &*self.inner;
        Sizes { callers: callers.size(), facts: facts.size(), tables: tables.size(), refused: callers.refused_size() }
    }
}

impl<A: Ask> At<'_, A> {
    /// Who `credential` belongs to.
    ///
    /// # Errors
    /// Every [`Failure`]; nothing else can be known about a caller without this.
    pub async fn caller(
        &self,
        plan: &Arc<Plan>,
        credential: &Credential,
        client: impl Into<Option<IpAddr>>,
    ) -> Result<Known<Caller>, Failure> {
        let client = self.inner.counted(credential, client.into());
        let need = Need {
            key: self.inner.keys.caller(plan, credential, self.host),
            provider: &plan.provider,
            fact: CALLER,
            subject: None,
            client,
            terms: self.inner.terms(plan.caller.ttl),
            shared: false,
        };
        let look_up = |_| {
            let host = self.host.map(str::to_owned);
            let (inner, plan, credential) = (Arc::clone(self.inner), Arc::clone(plan), credential.clone());
            async move {
                let subject =
                    caller::prove(&inner.errand(&plan, &credential, client, host.as_deref()), &plan.caller, &inner.role_sets)
                        .await?;
                let id = Arc::clone(&subject.id);
                Ok(Found { value: Caller::new(subject), subject: Some(id) })
            }
        };
        self.inner.callers.obtain(&need, look_up).await.map(Known::from)
    }

    /// The fact named `fact` about `caller`, whose credential is `credential`, with `inputs` bound to what it needs.
    ///
    /// The record has every output of the fact, whatever its steps found.
    ///
    /// # Errors
    /// Every [`Failure`]. It is [`Failure::Refused`] only when the upstream answered 401 and the caller lookup, asked
    /// anew, was refused as well.
    pub async fn fact(
        &self,
        plan: &Arc<Plan>,
        fact: &str,
        caller: &Arc<Caller>,
        credential: &Credential,
        inputs: &[(&str, &str)],
        client: impl Into<Option<IpAddr>>,
    ) -> Result<Known<Record>, Failure> {
        let client = self.inner.counted(credential, client.into());
        let known = plan.fact(fact).ok_or_else(|| Failure::unavailable(format!("there is no fact `{fact}`")))?;
        let subject = &caller.subject;
        let need = Need {
            key: self.inner.keys.fact(plan, known, credential, &Scope::new(subject, inputs), self.host),
            provider: &plan.provider,
            fact: &known.name,
            subject: Some(&subject.id),
            client,
            terms: self.inner.terms(known.ttl),
            shared: false,
        };
        let look_up = |_| {
            let host = self.host.map(str::to_owned);
            let (inner, plan, credential) = (Arc::clone(self.inner), Arc::clone(plan), credential.clone());
            let (caller, fact) = (Arc::clone(caller), fact.to_owned());
            let inputs: Vec<(String, String)> =
                inputs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            async move {
                let known = plan.fact(&fact).ok_or_else(|| Failure::unavailable(format!("there is no fact `{fact}`")))?;
                let inputs: Vec<(&str, &str)> = inputs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let errand = inner.errand(&plan, &credential, client, host.as_deref());
                match lookup::fact(&errand, known, Scope::new(&caller.subject, &inputs)).await {
                    Ok(value) => Ok(Found { value, subject: Some(Arc::clone(&caller.subject.id)) }),
                    Err(Trouble::Failed(failure)) => Err(failure),
                    Err(Trouble::Unauthorized) => Err(inner.doubt(&plan, &credential, host.as_deref(), &errand).await),
                }
            }
        };
        self.inner.facts.obtain(&need, look_up).await.map(Known::from)
    }

    /// The table named `table`, which is the same for all callers; asked with the service credential, or else with
    /// `credential`.
    ///
    /// # Errors
    /// Every [`Failure`]. It is [`Failure::Refused`] only for this very credential.
    pub async fn table(
        &self,
        plan: &Arc<Plan>,
        table: &str,
        credential: &Credential,
        client: impl Into<Option<IpAddr>>,
    ) -> Result<Known<Table>, Failure> {
        let client = self.inner.counted(credential, client.into());
        let known = plan.table(table).ok_or_else(|| Failure::unavailable(format!("there is no table `{table}`")))?;
        let terms = self.inner.terms(known.ttl);
        let need = Need {
            key: self.inner.keys.table(plan, table, self.host),
            provider: &plan.provider,
            fact: &known.name,
            subject: None,
            client,
            terms: Terms { kept: terms.kept.max(TABLE_KEPT), ..terms },
            shared: true,
        };
        let look_up = |previous: Option<store::Entry<Table>>| {
            let host = self.host.map(str::to_owned);
            let (inner, plan, table) = (Arc::clone(self.inner), Arc::clone(plan), table.to_owned());
            let service = inner.settings.service.clone();
            let is_service = service.is_some();
            let credential = service.unwrap_or_else(|| credential.clone());
            async move {
                let known = plan.table(&table).ok_or_else(|| Failure::unavailable(format!("there is no table `{table}`")))?;
                let errand = inner.errand(&plan, &credential, client, host.as_deref());
                let previous = previous.map(|entry| entry.value);
                match table::look_up(&errand, known, previous).await {
                    Ok(value) => Ok(Found { value, subject: None }),
                    Err(Trouble::Failed(failure)) => Err(failure),
                    Err(Trouble::Unauthorized) if is_service => {
                        Err(Failure::unavailable("the upstream answered 401 to the service credential"))
                    }
                    Err(Trouble::Unauthorized) => Err(inner.doubt(&plan, &credential, host.as_deref(), &errand).await),
                }
            }
        };
        self.inner.tables.obtain(&need, look_up).await.map(Known::from)
    }

    /// Drops the caller that `credential` proved, because the upstream answered 401 to a request with it: the next
    /// request asks anew. At most once per `refused_ttl` for one credential; says whether it did.
    pub fn drop_credential(&self, plan: &Plan, credential: &Credential) -> bool {
        let key = self.inner.keys.caller(plan, credential, self.host);
        if !self.inner.dropped.claim(key) {
            return false;
        }
        if !self.inner.callers.drop_key(&key) {
            self.inner.dropped.remove(&key);
            return false;
        }
        self.inner.metrics.fact_invalidation(InvalidationCause::Unauthorized);
        true
    }
}

impl<A: Ask> Inner<A> {
    /// The address that a lookup counts for: a client whose address is not known has its caller's own, so that such clients do
    /// not share one bound.
    fn counted(&self, credential: &Credential, client: Option<IpAddr>) -> IpAddr {
        client.unwrap_or_else(|| self.keys.address(credential))
    }

    fn errand<'a>(&'a self, plan: &'a Plan, credential: &'a Credential, client: IpAddr, host: Option<&'a str>) -> Errand<'a, A> {
        let address = match self.settings.lookup_address {
            LookupAddress::Caller => self.keys.address(credential),
            LookupAddress::Client => client,
        };
        Errand {
            ask: &self.ask,
            credential,
            address,
            reset: plan.rate_limit_reset.as_ref(),
            answers: &plan.answers,
            routes: &self.routes,
            upstream: &self.settings.upstream,
            host: host.or(self.settings.host.as_deref()).filter(|_| plan.host_received),
        }
    }

    /// What an unexpected 401 means: only the caller lookup, asked anew, tells whether the credential is refused.
    async fn doubt(&self, plan: &Plan, credential: &Credential, host: Option<&str>, errand: &Errand<'_, A>) -> Failure {
        match caller::prove(errand, &plan.caller, &self.role_sets).await {
            Ok(_) => Failure::unavailable("the upstream answered 401, though it accepts the credential"),
            Err(Failure::Refused) => {
                self.callers.refuse(self.keys.caller(plan, credential, host));
                Failure::Refused
            }
            Err(failure) => failure,
        }
    }

    fn terms(&self, ttl: Option<Duration>) -> Terms {
        let Settings { max_stale, ttl: common, .. } = self.settings;
        let ttl = ttl.unwrap_or(common);
        Terms { ttl, max_stale, kept: ttl.saturating_add(max_stale) }
    }
}

impl Failure {
    fn unavailable(detail: impl Into<String>) -> Self {
        Self::Unavailable { detail: detail.into() }
    }
}

impl<T> From<Obtained<T>> for Known<T> {
    fn from(obtained: Obtained<T>) -> Self {
        let Obtained { entry, age, outcome } = obtained;
        Self { value: entry.value, age, stale: outcome == LookupOutcome::Stale }
    }
}

impl<T> Clone for Known<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), age: self.age, stale: self.stale }
    }
}

impl<A> Clone for Identity<A> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<A> fmt::Debug for At<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("At").field("host", &self.host).finish_non_exhaustive()
    }
}

impl<A> fmt::Debug for Identity<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}
