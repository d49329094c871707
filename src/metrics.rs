//! Every metric, one typed method each; labels come from closed lists only, never from a user, a room, a URL or an address.

mod process;
mod words;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

pub use self::process::{log_line_dropped, panicked};
pub use self::words::{InvalidationCause, LookupOutcome, RecordKind, RejectedCause, SlowClient, Stage, UpstreamError};
use crate::model::{Decision, Door, Mode, Reason};

/// From 10 µs, where a cached decision lies, to 10 s, where every deadline has passed.
const BUCKETS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 5.0, 10.0,
];

/// The histogram of each stop, found once: every guarded request passes all of them.
#[derive(Debug, Clone)]
struct Stages {
    matching: Histogram,
    facts: Histogram,
    decide: Histogram,
    record: Histogram,
    upstream: Histogram,
}

impl Stages {
    fn of(all: &HistogramVec) -> Self {
        let stop = |name| all.with_label_values(&[name]);
        Self {
            matching: stop("match"),
            facts: stop("facts"),
            decide: stop("decide"),
            record: stop("record"),
            upstream: stop("upstream"),
        }
    }
}

/// One series of a counter, for who counts the same again and again.
#[derive(Debug, Clone)]
pub struct Series(IntCounter);

impl Series {
    /// Counts one more.
    pub fn inc(&self) {
        self.0.inc();
    }
}

/// What a request counts under.
#[derive(Debug, Clone, Copy)]
pub struct Labels<'a> {
    /// The provider's name.
    pub provider: &'a str,
    /// The door it came by.
    pub door: Door,
    /// The action's name, or `none`.
    pub action: &'a str,
    /// Where the action keeps what most of its requests count in.
    pub usual: Option<&'a Usual>,
}

/// The series in which the permits of one action count by the door and the mode of its first one, and its requests that were
/// answered with 200. To find a series by its labels takes longer than to count in it.
#[derive(Debug, Default)]
pub struct Usual {
    permitted: OnceLock<ByDoor<(Mode, IntCounter)>>,
    answered: OnceLock<ByDoor<(IntCounter, Histogram)>>,
}

/// Series of one door, and of the metrics that they belong to.
#[derive(Debug)]
struct ByDoor<T> {
    owner: Arc<()>,
    door: Door,
    series: T,
}

impl<T> ByDoor<T> {
    fn of(&self, metrics: &Metrics, door: Door) -> Option<&T> {
        (Arc::ptr_eq(&self.owner, &metrics.own) && self.door == door).then_some(&self.series)
    }
}

/// The counter of each kind of record, found once.
#[derive(Debug, Clone)]
struct Records([(RecordKind, IntCounter); 11]);

impl Records {
    fn of(all: &IntCounterVec) -> Self {
        let kinds = [
            RecordKind::Decision,
            RecordKind::Outcome,
            RecordKind::Start,
            RecordKind::Stop,
            RecordKind::Reload,
            RecordKind::Invalidate,
            RecordKind::Recovered,
            RecordKind::Loss,
            RecordKind::Rotated,
            RecordKind::Expired,
            RecordKind::Suppressed,
        ];
        Self(kinds.map(|kind| (kind, all.with_label_values(&[kind.as_str()]))))
    }
}

/// All metrics of one process; cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// Tells these from others in the same process.
    own: Arc<()>,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    stages: Stages,
    decisions: IntCounterVec,
    fact_lookups: IntCounterVec,
    fact_lookup_duration: HistogramVec,
    fact_entries: IntGaugeVec,
    fact_evictions: IntCounterVec,
    fact_invalidations: IntCounterVec,
    audit_records: Records,
    audit_write_duration: Histogram,
    audit_failures: IntCounter,
    audit_pending: IntGauge,
    audit_suppressed: IntCounterVec,
    policy_info: IntGaugeVec,
    policy_matches_disk: IntGauge,
    reload_successful: IntGauge,
    reload_timestamp: Gauge,
    connections: IntGauge,
    websocket_connections: IntGauge,
    rejected: IntCounterVec,
    slow_clients: IntCounterVec,
    upstream_errors: IntCounterVec,
    upstream_up: IntGaugeVec,
    config_matches_disk: IntGauge,
    certificate_expiry: GaugeVec,
}

impl Metrics {
    /// A registry of its own with every metric in it.
    ///
    /// # Errors
    /// A metric was named twice or wrongly; cannot happen with the names below, which a test holds.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let counters = |name: &str, help: &str, labels: &[&str]| {
            added(&registry, IntCounterVec::new(Opts::new(format!("rolegate_{name}"), help), labels)?)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            added(&registry, IntGaugeVec::new(Opts::new(format!("rolegate_{name}"), help), labels)?)
        };
        let gauge = |name: &str, help: &str| added(&registry, IntGauge::new(format!("rolegate_{name}"), help)?);
        let histograms = |name: &str, help: &str, labels: &[&str]| {
            let options = HistogramOpts::new(format!("rolegate_{name}"), help).buckets(BUCKETS.to_vec());
            added(&registry, HistogramVec::new(options, labels)?)
        };
        let build = gauges("build_info", "Always 1; the label names the running version.", &["version"])?;
        build.with_label_values(&[crate::VERSION]).set(1);
        process::counters().try_for_each(|counter| added(&registry, counter.clone()).map(drop))?;
        // A series that is there from the start counts its first event: one that begins with it begins at 1, which is no increase.
        let counted = |name: &str, help: &str, label: &str, values: &[&str]| {
            let counters = counters(name, help, &[label])?;
            values.iter().for_each(|value| drop(counters.with_label_values(&[value])));
            Ok::<_, prometheus::Error>(counters)
        };
        Ok(Self {
            requests: counters("requests_total", "Requests answered.", &["provider", "door", "action", "code"])?,
            request_duration: histograms(
                "request_duration_seconds",
                "Time from the request's head to the end of its answer.",
                &["provider", "action"],
            )?,
            stages: Stages::of(&histograms("stage_duration_seconds", "Time spent in one stop of the walk.", &["stage"])?),
            decisions: counters(
                "decisions_total",
                "Verdicts on guarded requests.",
                &["provider", "door", "action", "decision", "reason", "mode"],
            )?,
            fact_lookups: counters("fact_lookups_total", "Needs for a fact.", &["provider", "fact", "outcome"])?,
            fact_lookup_duration: histograms(
                "fact_lookup_duration_seconds",
                "Time a lookup took at the upstream.",
                &["provider", "fact"],
            )?,
            fact_entries: gauges("fact_entries", "Facts in the cache.", &["fact"])?,
            fact_evictions: counters("fact_evictions_total", "Facts that left the cache for want of room.", &["fact"])?,
            fact_invalidations: counted(
                "fact_invalidations_total",
                "Times that facts were dropped early.",
                "cause",
                &InvalidationCause::ALL.map(InvalidationCause::as_str),
            )?,
            audit_records: Records::of(&counters("audit_records_total", "Audit records written.", &["kind"])?),
            audit_write_duration: added(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new("rolegate_audit_write_duration_seconds", "Time to write one audit record.")
                        .buckets(BUCKETS.to_vec()),
                )?,
            )?,
            audit_failures: added(
                &registry,
                IntCounter::new("rolegate_audit_failures_total", "Audit records that could not be written.")?,
            )?,
            audit_pending: gauge("audit_pending_records", "Audit records accepted and not yet in the kernel.")?,
            audit_suppressed: counted(
                "audit_suppressed_total",
                "Refusals that were counted in a suppressed record instead of recorded one by one.",
                "reason",
                &Reason::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>(),
            )?,
            policy_info: gauges("policy_info", "Always 1; the label names the running policy revision.", &["revision"])?,
            policy_matches_disk: gauge("policy_matches_disk", "1 when the running policies are those on disk.")?,
            reload_successful: gauge("config_last_reload_successful", "1 when the last reload succeeded.")?,
            reload_timestamp: added(
                &registry,
                Gauge::new(
                    "rolegate_config_last_reload_success_timestamp_seconds",
                    "When rules were last loaded with success, in seconds since the epoch.",
                )?,
            )?,
            connections: gauge("connections", "Open client connections.")?,
            websocket_connections: gauge("websocket_connections", "Open WebSocket connections.")?,
            slow_clients: counted(
                "slow_clients_total",
                "Clients that sent or took too slowly.",
                "cause",
                &SlowClient::ALL.map(SlowClient::as_str),
            )?,
            rejected: counted(
                "rejected_total",
                "Connections and requests turned away before any verdict.",
                "cause",
                &RejectedCause::ALL.map(RejectedCause::as_str),
            )?,
            upstream_errors: counters(
                "upstream_errors_total",
                "Exchanges with the upstream that failed.",
                &["provider", "kind"],
            )?,
            upstream_up: gauges("upstream_up", "1 when each server of the provider answers.", &["provider"])?,
            config_matches_disk: gauge(
                "config_matches_disk",
                "1 when the running configuration is the one on disk; another takes a restart.",
            )?,
            certificate_expiry: added(
                &registry,
                GaugeVec::new(
                    Opts::new(
                        "rolegate_certificate_expiry_timestamp_seconds",
                        "When the certificate ends, in seconds since the epoch.",
                    ),
                    // Without a label, but not a plain gauge: where no certificate is used, none has ended in 1970.
                    &[],
                )?,
            )?,
            registry,
            own: Arc::default(),
        })
    }

    /// The page that Prometheus reads (text format 0.0.4).
    ///
    /// # Errors
    /// A metric could not be written as text.
    pub fn page(&self) -> Result<String, prometheus::Error> {
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page)?;
        String::from_utf8(page).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    /// One request was answered with status `code` after `duration`.
    pub fn request(&self, labels: Labels<'_>, code: u16, duration: Duration) {
        let Labels { provider, door, action, usual } = labels;
        let status = StatusCode::from_u16(code);
        let status = status.as_ref().map_or("none", StatusCode::as_str);
        let found = || {
            let requests = self.requests.with_label_values(&[provider, door.as_str(), action, status]);
            (requests, self.request_duration.with_label_values(&[provider, action]))
        };
        let usual = usual
            .filter(|_| code == 200)
            .map(|usual| usual.answered.get_or_init(|| ByDoor { owner: Arc::clone(&self.own), door, series: found() }));
        let other;
        let (requests, request_duration) = match usual.and_then(|kept| kept.of(self, door)) {
            Some(kept) => kept,
            None => {
                other = found();
                &other
            }
        };
        requests.inc();
        request_duration.observe(duration.as_secs_f64());
    }

    /// One stop of the walk took `duration`.
    pub fn stage(&self, stage: Stage, duration: Duration) {
        let Stages { matching, facts, decide, record, upstream } = &self.stages;
        let stop = match stage {
            Stage::Match => matching,
            Stage::Facts => facts,
            Stage::Decide => decide,
            Stage::Record => record,
            Stage::Upstream => upstream,
        };
        stop.observe(duration.as_secs_f64());
    }

    /// One verdict.
    pub fn decision(&self, labels: Labels<'_>, decision: Decision, reason: Option<Reason>, mode: Mode) {
        let Labels { provider, door, action, usual } = labels;
        let told = reason.map_or("none", Reason::as_str);
        let found =
            || self.decisions.with_label_values(&[provider, door.as_str(), action, decision.as_str(), told, mode.as_str()]);
        let usual = usual
            .filter(|_| decision == Decision::Permit && reason.is_none())
            .map(|usual| usual.permitted.get_or_init(|| ByDoor { owner: Arc::clone(&self.own), door, series: (mode, found()) }));
        match usual.and_then(|kept| kept.of(self, door)) {
            Some((kept, permitted)) if *kept == mode => permitted.inc(),
            _ => found().inc(),
        }
    }

    /// One need for a fact ended in `outcome`.
    pub fn fact_lookup(&self, provider: &str, fact: &str, outcome: LookupOutcome) {
        self.fact_lookups(provider, fact, outcome).inc();
    }

    /// The series of needs for a fact that end in `outcome`.
    #[must_use]
    pub fn fact_lookups(&self, provider: &str, fact: &str, outcome: LookupOutcome) -> Series {
        let outcome = match outcome {
            LookupOutcome::Hit => "hit",
            LookupOutcome::Miss => "miss",
            LookupOutcome::Coalesced => "coalesced",
            LookupOutcome::Refused => "refused",
            LookupOutcome::Stale => "stale",
            LookupOutcome::Error => "error",
        };
        Series(self.fact_lookups.with_label_values(&[provider, fact, outcome]))
    }

    /// A lookup took `duration` at the upstream, all its steps together.
    pub fn fact_lookup_duration(&self, provider: &str, fact: &str, duration: Duration) {
        self.fact_lookup_duration.with_label_values(&[provider, fact]).observe(duration.as_secs_f64());
    }

    /// The cache of `fact` grew or shrank by `difference` entries; several upstreams may each have one.
    pub fn fact_entries(&self, fact: &str, difference: i64) {
        self.fact_entries.with_label_values(&[fact]).add(difference);
    }

    /// A fact left the cache for want of room.
    pub fn fact_eviction(&self, fact: &str) {
        self.fact_evictions.with_label_values(&[fact]).inc();
    }

    /// Facts were dropped before their time.
    pub fn fact_invalidation(&self, cause: InvalidationCause) {
        self.fact_invalidations.with_label_values(&[cause.as_str()]).inc();
    }

    /// An audit record of `kind` was written in `duration`.
    pub fn audit_record(&self, kind: RecordKind, duration: Duration) {
        let Records(counters) = &self.audit_records;
        if let Some((_, counter)) = counters.iter().find(|(counted, _)| *counted == kind) {
            counter.inc();
        }
        self.audit_write_duration.observe(duration.as_secs_f64());
    }

    /// An audit record could not be written.
    pub fn audit_failure(&self) {
        self.audit_failures.inc();
    }

    /// How many accepted records are not yet in the kernel.
    pub fn audit_pending(&self, records: usize) {
        self.audit_pending.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// A refusal leaves no record of its own.
    pub fn audit_suppressed(&self, reason: Reason) {
        self.audit_suppressed.with_label_values(&[reason.as_str()]).inc();
    }

    /// These rules run from now on.
    pub fn policy(&self, revision: &str) {
        self.policy_info.reset();
        self.policy_info.with_label_values(&[revision]).set(1);
    }

    /// Whether the running rules are those on disk.
    pub fn policy_matches_disk(&self, matches: bool) {
        self.policy_matches_disk.set(i64::from(matches));
    }

    /// A reload ended; `succeeded_at` is the time in seconds since the epoch, or nothing when it failed.
    pub fn reload(&self, succeeded_at: Option<f64>) {
        self.reload_successful.set(i64::from(succeeded_at.is_some()));
        if let Some(time) = succeeded_at {
            self.reload_timestamp.set(time);
        }
    }

    /// How many client connections are open.
    pub fn connections(&self, open: usize) {
        self.connections.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// A WebSocket connection opened.
    pub fn websocket_opened(&self) {
        self.websocket_connections.inc();
    }

    /// A WebSocket connection closed.
    pub fn websocket_closed(&self) {
        self.websocket_connections.dec();
    }

    /// Something was turned away before any verdict.
    pub fn rejected(&self, cause: RejectedCause) {
        self.rejected.with_label_values(&[cause.as_str()]).inc();
    }

    /// A client sent or took too slowly.
    pub fn slow_client(&self, cause: SlowClient) {
        self.slow_clients.with_label_values(&[cause.as_str()]).inc();
    }

    /// There is an upstream of `provider`, of which nothing has failed yet.
    pub fn upstream(&self, provider: &str) {
        UpstreamError::ALL.iter().for_each(|kind| drop(self.upstream_errors.with_label_values(&[provider, kind.as_str()])));
    }

    /// An exchange with the upstream failed.
    pub fn upstream_error(&self, provider: &str, kind: UpstreamError) {
        self.upstream_errors.with_label_values(&[provider, kind.as_str()]).inc();
    }

    /// Whether each server of `provider` answers.
    pub fn upstream_up(&self, provider: &str, up: bool) {
        self.upstream_up.with_label_values(&[provider]).set(i64::from(up));
    }

    /// Whether the running configuration is the one on disk.
    pub fn config_matches_disk(&self, matches: bool) {
        self.config_matches_disk.set(i64::from(matches));
    }

    /// The listener's certificate ends at `time`, in seconds since the epoch.
    pub fn certificate_expiry(&self, time: f64) {
        self.certificate_expiry.with_label_values::<&str>(&[]).set(time);
    }
}

/// Registers `metric` and gives it back.
fn added<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> Result<M, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests;
