//! One request's walk, from its raw head to a recorded verdict; start reading here.
//!
//! ```text
//! RawRequest ── match ──▶ MatchedRequest ── validate ──▶ ValidatedRequest ── identify ──▶ IdentifiedRequest ── decide ──▶ Permit
//!     │                       │                             │                               │                           │
//!     ├─▶ Open                └──────────── deny(reason) ───┴───────────────────────────────┴──▶ Denial                  │
//!     ▼                                                                                            ▼                      ▼
//! streams through                                                                        Recorded<Denial>        Recorded<Permit>
//!                                                                                           is refused             is forwarded
//! ```
//!
//! Each stop takes the one before by value, has private fields and one maker, so that a wrong order does not compile. The
//! walk knows neither sockets nor the proxy engine: whoever owns a connection builds a [`RawRequest`] and carries out the
//! [`Admission`]. [`evaluate`] is the same walk with everything given instead of looked up and nothing recorded; `explain`,
//! `test`, `check` and the demo use it.

mod matching;
mod params;
pub mod rehearse;
mod shown;
mod subject;
mod trail;
mod tunnel;
mod verdict;

use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::Notify;

pub(crate) use matching::dashed;
pub use matching::{MatchedRequest, keeps_on_401, revocable, wants_content};
pub use params::ValidatedRequest;
pub use rehearse::{Evaluation, evaluate, evaluate_request, evaluate_with};
pub use subject::IdentifiedRequest;
pub use trail::{Moment, Trail};
pub use verdict::{Denial, Outcome, Permit};

use crate::audit::{AuditLog, Recorded, Unrecorded, Written};
use crate::config::Upstream;
use crate::identity::{Ask, Identity};
use crate::metrics::{Metrics, Stage};
use crate::model::{Decision, Mode, RawRequest, Reason};
use crate::rules::target::{self, Reading};
use crate::rules::{Rules, Then};
use crate::traces::Walked;
use matching::Matched;

/// An upstream with the rules that its requests are judged by; a request keeps the one it began with. A clone is the same one.
#[derive(Debug, Clone)]
pub struct Site(Arc<Parts>);

/// What a [`Site`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// The operator's settings.
    pub upstream: Arc<Upstream>,
    /// The rules of its provider.
    pub rules: Arc<Rules>,
    /// The guarded spaces as clients see them: with the path prefix.
    pub guarded: Box<[String]>,
    /// The operator's named networks.
    pub networks: Arc<[(String, Vec<ipnet::IpNet>)]>,
    /// The callers that were prepared for these rules last.
    recent: subject::Recent,
    /// `upstream` and `provider` of every record.
    names: Written,
    /// `policy_revision` of every record.
    revision: Written,
}

impl Deref for Site {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Site {
    /// Puts an upstream and its rules together.
    #[must_use]
    pub fn new(upstream: Arc<Upstream>, rules: Arc<Rules>, networks: Arc<[(String, Vec<ipnet::IpNet>)]>) -> Self {
        let guarded = rules.provider.guarded.iter().map(|space| format!("{}{space}", upstream.path_prefix)).collect();
        let names = Written::new(|fields| {
            fields.field("upstream").text(&upstream.name);
            fields.field("provider").text(&rules.provider.name);
        });
        let revision = Written::new(|fields| fields.field("policy_revision").text(&rules.revision));
        Self(Arc::new(Parts { upstream, rules, guarded, networks, recent: subject::Recent::default(), names, revision }))
    }

    /// Reads `target` against the guarded spaces and against every path beside them that something declares.
    #[must_use]
    pub fn read<'a>(&self, target: &'a [u8], host: Option<&str>) -> Reading<'a> {
        let tree = &self.rules.provider.tree;
        let sockets = self.upstream.websockets == Then::Deny;
        target::read_beside(target, host, &self.guarded, &|path| {
            let path = self.below_prefix(path);
            tree.is_beside(path) || (sockets && tree.is_socket(path))
        })
    }

    /// `path` without the path prefix, in whichever case that is written.
    fn below_prefix<'p>(&self, path: &'p str) -> &'p str {
        let prefix = &self.upstream.path_prefix;
        match path.split_at_checked(prefix.len()) {
            Some((begins, rest)) if begins.eq_ignore_ascii_case(prefix) => rest,
            _ => path,
        }
    }

    /// The named networks that `client` is in: none when it is not known.
    /// The host that the server behind it is asked by for a request that came to `host`; nothing where the configuration names
    /// it, or the provider goes by the server's own.
    pub(crate) fn host<'r>(&self, host: Option<&'r str>) -> Option<&'r str> {
        host.filter(|_| self.upstream.host.is_none() && self.rules.provider.plan.host_received)
    }

    fn networks_of(&self, client: Option<std::net::IpAddr>) -> Vec<String> {
        let Some(client) = client.map(|client| client.to_canonical()) else { return Vec::new() };
        let holds = |nets: &[ipnet::IpNet]| nets.iter().any(|net| net.contains(&client));
        self.networks.iter().filter(|(_, nets)| holds(nets)).map(|(name, _)| name.clone()).collect()
    }
}

/// Why a request is not judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// It leads to no guarded space.
    Outside,
    /// Its route is known and left open.
    Route,
    /// Its route is not known, and the operator lets those pass.
    Unlisted,
    /// It calls a method that no action declares, and the operator lets those pass.
    Method,
    /// It is a CORS preflight: forwarded without credentials.
    Preflight,
}

/// What is to be done with a request.
#[derive(Debug)]
pub enum Admission {
    /// It streams through.
    Open(Open),
    /// It is sent as the permit says.
    Permitted(Box<Recorded<Permit>>),
    /// It is answered; the denial is recorded, unless the record is what failed.
    Refused(Refused),
    /// The upstream is only observed: it streams through whatever the verdict, which is recorded.
    Observed {
        /// The decision id.
        id: String,
        /// The action's name, or `none`.
        action: String,
        /// The door.
        door: crate::model::Door,
    },
}

impl Admission {
    /// The decision id; nothing where nothing was judged.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Open(_) => None,
            Self::Permitted(permit) => Some(permit.trail().id()),
            Self::Refused(refused) => Some(&refused.id),
            Self::Observed { id, .. } => Some(id),
        }
    }
}

/// A refusal to carry out.
#[derive(Debug)]
pub struct Refused {
    /// The decision id.
    pub id: String,
    /// The door.
    pub door: crate::model::Door,
    /// The action's name, or `none`.
    pub action: String,
    /// Why.
    pub reason: Reason,
    /// What the client is told.
    pub refusal: crate::rules::refusal::Refusal,
}

/// Whether a refusal is carried out even where verdicts are only observed: the request has no one reading, or no record.
#[must_use]
pub(crate) fn always_enforced(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::FramingInvalid | Reason::HostUnknown | Reason::HeaderAmbiguous | Reason::AuditUnavailable | Reason::Internal
    )
}

/// Whether a denial is carried out.
fn is_enforced(denial: &Denial) -> bool {
    denial.trail().site().upstream.mode == Mode::Enforce || always_enforced(denial.reason())
}

/// The walk with its lookups and its record.
#[derive(Debug)]
pub struct Pipeline {
    audit: Arc<AuditLog>,
    metrics: Metrics,
    /// Told when outcomes wait to be written.
    owed: Notify,
}

/// How long an outcome waits for the next record, to be written with it.
const WAIT: Duration = Duration::from_millis(1);

/// How often refusals that were only counted are looked for.
const TELL_EVERY: Duration = Duration::from_secs(1);

impl Pipeline {
    /// A walk that records to `audit` and counts in `metrics`.
    #[must_use]
    pub fn new(audit: Arc<AuditLog>, metrics: Metrics) -> Self {
        Self { audit, metrics, owed: Notify::new() }
    }

    /// Judges a request for `site`, received `now`, and records the verdict; `walked` notes the way. A panic on the way is a
    /// refusal, too.
    pub async fn admit<A: Ask>(
        &self,
        raw: &RawRequest<'_>,
        site: &Site,
        identity: &Identity<A>,
        now: Moment,
        walked: &mut Walked,
    ) -> Admission {
        let walk = self.walk(raw, site, identity, now, walked);
        match AssertUnwindSafe(walk).catch_unwind().await {
            Ok(admission) => admission,
            Err(_) => {
                let detail = "a fault of rolegate itself: the walk panicked";
                let admission = self.refuse_early(raw, site.clone(), Reason::Internal, detail, now, walked);
                tracing::error!(id = admission.id(), "the walk panicked");
                admission
            }
        }
    }

    async fn walk<A: Ask>(
        &self,
        raw: &RawRequest<'_>,
        site: &Site,
        identity: &Identity<A>,
        now: Moment,
        walked: &mut Walked,
    ) -> Admission {
        let began = now.at;
        let unmatched = async |denial: Box<Denial>, walked: &mut Walked| {
            let refused = Instant::now();
            walked.passed(Stage::Match, began, refused);
            self.refuse(*denial, refused, walked).await
        };
        let matched = match matching::match_request(raw, site, |action| Trail::new(raw, site.clone(), now, action)) {
            Ok(Matched::Open(open)) => return Admission::Open(open),
            Ok(Matched::Guarded(matched)) => matched,
            Err(denial) => return unmatched(denial, walked).await,
        };
        let validated = match matched.validate() {
            Ok(validated) => validated,
            Err(denial) => return unmatched(denial, walked).await,
        };
        let matched = self.passed(Stage::Match, began, walked);
        let identified = validated.identify(identity).await;
        let asked = self.passed(Stage::Facts, matched, walked);
        let identified = match identified {
            Ok(identified) => identified,
            Err(denial) => return self.refuse(*denial, asked, walked).await,
        };
        let decided = identified.decide();
        let decided_at = self.passed(Stage::Decide, asked, walked);
        match decided {
            Ok(permit) => self.permit(permit, decided_at, walked).await,
            Err(denial) => self.refuse(*denial, decided_at, walked).await,
        }
    }

    /// Counts the stop that began at `began` and ends now, which is when the next one begins.
    fn passed(&self, stage: Stage, began: Instant, walked: &mut Walked) -> Instant {
        let now = Instant::now();
        self.metrics.stage(stage, now - began);
        walked.passed(stage, began, now);
        now
    }

    /// Records a refusal that was made outside of the walk: of framing, of a host, of a fault of our own.
    pub fn refuse_early(
        &self,
        raw: &RawRequest<'_>,
        site: Site,
        reason: Reason,
        detail: &str,
        now: Moment,
        walked: &mut Walked,
    ) -> Admission {
        let (denial, decided) = (Trail::new(raw, site, now, None).deny(reason, detail), Instant::now());
        if self.is_suppressed(&denial, decided) {
            return self.unrecorded_refusal(&denial, walked);
        }
        self.refused(self.audit.record_since(*denial, decided), decided, walked)
    }

    /// Records what became of a permitted request.
    pub fn outcome(&self, outcome: Outcome<'_>) {
        if self.audit.record_soon(outcome, outcome.ended) {
            self.owed.notify_one();
        }
    }

    /// Writes outcomes that wait for a record which does not come, and tells of refusals that were only counted. Never returns.
    pub async fn settle(&self) {
        let mut tick = tokio::time::interval(TELL_EVERY);
        loop {
            tokio::select! {
                () = self.owed.notified() => {}
                _ = tick.tick() => drop(self.audit.tell_suppressed(Instant::now(), false)),
            }
            tokio::time::sleep(WAIT).await;
            // What cannot be written stays buffered, and was counted; the next record or outcome tries again.
            drop(self.audit.flush());
        }
    }

    async fn permit(&self, permit: Permit, decided: Instant, walked: &mut Walked) -> Admission {
        let recorded = self.audit.record_together(permit, decided).await;
        self.recorded(&recorded, decided, walked);
        match recorded {
            Ok(permit) => {
                self.count(permit.trail(), Decision::Permit, None, walked);
                match permit.trail().site().upstream.mode {
                    Mode::Enforce => Admission::Permitted(Box::new(permit)),
                    Mode::Observe => observed(permit.trail()),
                }
            }
            Err(unrecorded) => self.unrecorded(unrecorded.entry.into_trail(), &unrecorded.cause.to_string(), walked),
        }
    }

    async fn refuse(&self, denial: Denial, decided: Instant, walked: &mut Walked) -> Admission {
        if self.is_suppressed(&denial, decided) {
            return self.unrecorded_refusal(&denial, walked);
        }
        let recorded = self.audit.record_together(denial, decided).await;
        self.refused(recorded, decided, walked)
    }

    /// Whether a denial leaves no record of its own. What is known of a caller, and what goes on all the same, always does.
    fn is_suppressed(&self, denial: &Denial, decided: Instant) -> bool {
        let trail = denial.trail();
        is_enforced(denial)
            && trail.caller.is_none()
            && self.audit.suppresses(trail.client, denial.reason(), decided, trail.began().time_at(decided))
    }

    fn unrecorded_refusal(&self, denial: &Denial, walked: &mut Walked) -> Admission {
        self.count(denial.trail(), Decision::Deny, Some(denial.reason()), walked);
        Admission::Refused(Refused::of(denial))
    }

    fn refused(
        &self,
        recorded: Result<Recorded<Denial>, Unrecorded<Denial>>,
        decided: Instant,
        walked: &mut Walked,
    ) -> Admission {
        self.recorded(&recorded, decided, walked);
        match recorded {
            Ok(denial) => {
                self.count(denial.trail(), Decision::Deny, Some(denial.reason()), walked);
                if is_enforced(&denial) { Admission::Refused(Refused::of(&denial)) } else { observed(denial.trail()) }
            }
            Err(unrecorded) => self.unrecorded(unrecorded.entry.into_trail(), &unrecorded.cause.to_string(), walked),
        }
    }

    /// Counts the last stop.
    fn recorded<T>(&self, recorded: &Result<Recorded<T>, Unrecorded<T>>, decided: Instant, walked: &mut Walked) {
        let made = recorded.as_ref().map_or_else(|_| Instant::now(), Recorded::made);
        self.metrics.stage(Stage::Record, made - decided);
        walked.passed(Stage::Record, decided, made);
    }

    /// The log itself counts and tells of the record that is missing.
    fn unrecorded(&self, trail: Box<Trail>, cause: &str, walked: &mut Walked) -> Admission {
        let denial = trail.deny(Reason::AuditUnavailable, cause);
        self.count(denial.trail(), Decision::Deny, Some(denial.reason()), walked);
        Admission::Refused(Refused::of(&denial))
    }

    fn count(&self, trail: &Trail, decision: Decision, reason: Option<Reason>, walked: &mut Walked) {
        walked.judged(decision, reason);
        let site = trail.site();
        self.metrics.decision(trail.labels(), decision, reason, site.upstream.mode);
    }
}

impl Refused {
    fn of(denial: &Denial) -> Self {
        let trail = denial.trail();
        Self {
            id: trail.id().to_owned(),
            door: trail.door(),
            action: trail.action().to_owned(),
            reason: denial.reason(),
            refusal: denial.refusal(),
        }
    }
}

fn observed(trail: &Trail) -> Admission {
    Admission::Observed { id: trail.id().to_owned(), action: trail.action().to_owned(), door: trail.door() }
}
