//! What all requests share: the rules in force, one handle for each upstream, the log, the metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::Value;

use super::head;
use super::kept::Kept;
use super::lookup::LookupClient;
use super::online::{self, Misplaced};
use super::peer::Peer;
use super::probe::{PATIENCE, Prober, Trouble};
use super::server::StartError;
use crate::audit::AuditLog;
use crate::config::{Compared, Config};
use crate::identity::{Identity, Settings};
use crate::metrics::{InvalidationCause, Metrics};
use crate::model::{Credential, Door, RawRequest, Reason};
use crate::pipeline::{self, Admission, Moment, Permit, Pipeline, Refused, Site};
use crate::reload::Current;
use crate::rules::refusal::Refusal;
use crate::traces::{Ended, Trace, Traces, Walked};

/// How often connections are looked through that were kept too long.
const SWEEP: Duration = Duration::from_secs(1);
/// How soon it is asked again for the API that did not answer as one: at first, and at most.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));
/// How often the configuration on disk is compared with the one that runs.
const GLANCE: Duration = Duration::from_secs(2);

/// What all requests share.
#[derive(Debug)]
pub struct Gate {
    /// The operator's settings.
    pub config: Config,
    /// The rules in force.
    pub current: Arc<Current>,
    /// The upstreams, in the order of the configuration.
    pub handles: Vec<Handle>,
    /// The walk.
    pub pipeline: Pipeline,
    /// The audit log.
    pub audit: Arc<AuditLog>,
    /// The metrics.
    pub metrics: Metrics,
    /// Where spans go, if anywhere.
    pub traces: Option<Traces>,
    /// Client connections that are open.
    pub open: AtomicUsize,
    /// Requests that the engine has: those of an h2 connection outlive it by a moment, in which their outcomes are recorded.
    underway: Arc<AtomicUsize>,
    /// Requests that the fast path answered.
    pub fast: AtomicU64,
    draining: AtomicBool,
    /// How the files of the configuration compare with what the process read.
    compared: Mutex<Compared>,
}

/// One upstream at run time.
#[derive(Debug)]
pub struct Handle {
    /// Where it is.
    pub peer: Arc<Peer>,
    /// What is known of its callers.
    pub identity: Identity<LookupClient>,
    /// Connections that the fast path keeps.
    pub(super) kept: Kept,
    /// What answers in place of the API, as far as it was asked.
    misplaced: Mutex<Option<Misplaced>>,
    peers: Vec<(Arc<Peer>, Duration)>,
}

impl Handle {
    /// For `/status`: the upstream itself, and the other servers that its provider names.
    pub(super) fn servers(&self) -> Vec<Value> {
        self.peers.iter().map(|(peer, _)| peer.health().report(&peer.url())).collect()
    }

    /// For `/status`: what answers in place of the API, if something does.
    pub(super) fn misplaced(&self) -> Option<Misplaced> {
        self.misplaced.lock().clone()
    }

    /// Asks the caller lookup without a credential until something answers as the API does, and tells of what does not: a server
    /// whose paths begin with something that `path_prefix` does not name serves its clients by paths that no rule knows.
    async fn find_api(&self, prober: &Prober, site: &Site) {
        let provider = &site.rules.provider;
        let elsewhere = provider.plan.caller.lookup.base.is_some();
        let Some((peer, _)) = self.peers.get(usize::from(elsewhere)) else { return };
        let upstream = &site.upstream.name;
        let (mut pause, longest) = ASK_AGAIN;
        loop {
            // Before a look that found it well, it might be this very process.
            let found = match peer.health().is_up() {
                Some(true) => online::find_api(prober, &site.upstream, provider, peer).await,
                _ => None,
            };
            match found {
                Some(Ok(())) => {
                    if self.misplaced.lock().is_some() {
                        // What it was said to lack, it may have now.
                        self.identity.probe(&provider.plan).await;
                        *self.misplaced.lock() = None;
                        tracing::info!(upstream, "the API answers where it is looked for");
                    }
                    return;
                }
                Some(Err(misplaced)) => {
                    let told = self.misplaced.lock().replace(misplaced.clone());
                    if told.as_ref() != Some(&misplaced) {
                        misplaced.tell(upstream);
                    }
                }
                None => {}
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(longest);
        }
    }

    /// The upstream does not know the credential of a permitted request any more: what is remembered of it goes.
    pub(super) fn unauthorized(&self, permit: &Permit) {
        let site = permit.trail().site();
        if !pipeline::keeps_on_401(permit.target().as_bytes(), site)
            && self.identity.at(permit.trail().host()).drop_credential(&site.rules.provider.plan, permit.credential())
        {
            tracing::debug!(id = permit.trail().id(), cause = ?InvalidationCause::Unauthorized, "credential dropped");
        }
    }

    /// The upstream does not know the credential of a request that is not judged: what is remembered of it goes.
    pub(super) fn revoke(&self, raw: &RawRequest<'_>, site: &Site) {
        let plan = &site.rules.provider.plan;
        let identity = self.identity.at(site.host(raw.host));
        if pipeline::revocable(raw, site).is_some_and(|credential| identity.drop_credential(plan, &credential)) {
            tracing::debug!(cause = ?InvalidationCause::Unauthorized, "credential dropped");
        }
    }
}

/// Counts a request that the engine has, for as long as it has it.
#[derive(Debug)]
pub(super) struct Underway(Arc<AtomicUsize>);

impl Underway {
    pub(super) fn new(gate: &Gate) -> Self {
        gate.underway.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(&gate.underway))
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Gate {
    /// Whether a connection is open or a request under way.
    pub(super) fn is_busy(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0 || self.underway.load(Ordering::Acquire) > 0
    }

    /// Puts a checked configuration, its rules and its log to work.
    ///
    /// # Errors
    /// A file that an upstream names cannot be read, or spans cannot be sent.
    pub fn new(config: Config, current: Arc<Current>, audit: Arc<AuditLog>, metrics: Metrics) -> Result<Self, StartError> {
        let unusable = |index: usize, why: String| StartError::Tls(super::unusable_authority(&config, index, &why).into());
        let handles = config.upstreams.iter().enumerate();
        let handles = handles.map(|(index, upstream)| handle(&config, upstream, &metrics).map_err(|why| unusable(index, why)));
        let handles = handles.collect::<Result<_, _>>()?;
        let traces = config.traces.otlp_endpoint.as_deref().map(Traces::to).transpose().map_err(StartError::Traces)?;
        let pipeline = Pipeline::new(Arc::clone(&audit), metrics.clone());
        Ok(Self {
            config,
            current,
            handles,
            pipeline,
            audit,
            metrics,
            traces,
            open: AtomicUsize::new(0),
            underway: Arc::default(),
            fast: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            compared: Mutex::default(),
        })
    }

    /// The upstream that serves `host`, with the rules in force: its index, and what its requests are judged by.
    #[must_use]
    pub fn site_for(&self, host: &str) -> Option<(usize, Site)> {
        let live = self.current.live();
        let name = rooted(host_name(host));
        let serves = |site: &Site| match &site.upstream.host {
            Some(served) => served.eq_ignore_ascii_case(host) || rooted(served).eq_ignore_ascii_case(name),
            None => true,
        };
        live.sites.iter().position(serves).and_then(|index| Some((index, live.sites.get(index)?.clone())))
    }

    /// The upstream that serves a request addressed to `host`, empty where it names none.
    ///
    /// # Errors
    /// The reason of the refusal, and its detail.
    pub(super) fn serving(&self, host: Option<&str>) -> Result<(usize, Site), (Reason, &'static str)> {
        let unnamed = (Reason::FramingInvalid, "no `Host`, or more than one");
        match host {
            None => Err(unnamed),
            Some("") => self.site_for("").or_else(|| self.only_site()).ok_or(unnamed),
            Some(host) if !head::is_host(host.as_bytes()) => Err((Reason::FramingInvalid, "`Host` is no host")),
            Some(host) => self.site_for(host).ok_or((Reason::HostUnknown, "no upstream serves this host")),
        }
    }

    /// The upstream where there is no other.
    fn only_site(&self) -> Option<(usize, Site)> {
        match self.current.live().sites.as_slice() {
            [only] => Some((0, only.clone())),
            _ => None,
        }
    }

    /// The first upstream: its words answer what belongs to none.
    #[must_use]
    pub fn first_site(&self) -> Option<Site> {
        self.current.live().sites.first().cloned()
    }

    /// The trace of a request that was judged, if there is to be one: it came with `traceparents`, and was `walked`.
    #[must_use]
    pub(super) fn trace<'a>(
        &self,
        admission: &Admission,
        traceparents: impl Iterator<Item = &'a [u8]>,
        walked: &Walked,
    ) -> Option<Box<Trace>> {
        let traces = self.traces.as_ref()?;
        Some(traces.trace(traceparents, admission.id()?, walked))
    }

    /// Resolves every upstream's name.
    pub async fn resolve_once(&self) {
        for (peer, _) in self.handles.iter().flat_map(|handle| &handle.peers) {
            peer.resolve().await;
        }
    }

    /// Closes what the fast path keeps too long, again and again. Never returns.
    pub async fn sweep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.handles.iter().for_each(|handle| handle.kept.sweep());
        }
    }

    /// Looks again and again whether each server answers, and tells of those that do not; `own` are the addresses that clients
    /// connect to. Never returns.
    pub(super) async fn watch_upstreams(self: Arc<Self>, own: Vec<SocketAddr>) {
        let prober = Prober::new();
        let each = self.config.upstreams.iter().zip(&self.handles);
        let servers = each.flat_map(|(upstream, handle)| handle.peers.iter().map(move |(peer, _)| (upstream, peer)));
        let watched = servers.map(|(upstream, peer)| {
            let (prober, own, this) = (&prober, own.as_slice(), &self);
            async move {
                let target = format!("{}/", upstream.path_prefix);
                let patience = upstream.first_byte_timeout.max(upstream.read_timeout).min(PATIENCE);
                let mut looked_at = None;
                loop {
                    let seen = peer.health().seen();
                    // What answers at another address may be this very process.
                    let found = if seen.is_up() && looked_at == peer.address() {
                        Ok(())
                    } else {
                        looked_at = peer.address();
                        prober.look(peer, seen.wants_answer().then_some((target.as_str(), patience)), own).await
                    };
                    peer.health().note_itself(found == Err(Trouble::Itself));
                    let line = peer.health().note(seen, found.map_err(|trouble| trouble.to_string()), Moment::now());
                    this.tell_up(&upstream.provider);
                    if let Some(line) = line {
                        line.write(&upstream.name, &peer.url());
                    }
                    peer.health().rest().await;
                }
            }
        });
        join_all(watched.collect::<Vec<_>>()).await;
    }

    /// The metric of a provider: up when each of its servers is.
    fn tell_up(&self, provider: &str) {
        let of_provider = self.config.upstreams.iter().zip(&self.handles).filter(|(upstream, _)| upstream.provider == provider);
        let states: Vec<Option<bool>> =
            of_provider.flat_map(|(_, handle)| &handle.peers).map(|(peer, _)| peer.health().is_up()).collect();
        if states.contains(&Some(false)) {
            self.metrics.upstream_up(provider, false);
        } else if !states.contains(&None) {
            self.metrics.upstream_up(provider, true);
        }
    }

    /// Compares the files of the configuration with what was read when the process started: those that differ.
    pub fn compare_config(&self) -> Compared {
        let compared = self.config.on_disk.compare();
        self.metrics.config_matches_disk(compared.differing.is_empty());
        self.compared.lock().clone_from(&compared);
        compared
    }

    /// What [`Gate::compare_config`] last found.
    pub(super) fn compared_config(&self) -> Compared {
        self.compared.lock().clone()
    }

    /// Compares the files of the configuration again and again, and tells when they begin to differ. Never returns.
    pub(super) async fn watch_config(self: Arc<Self>) {
        let mut told = Compared::default();
        loop {
            let gate = Arc::clone(&self);
            // A disk may take its time.
            if let Ok(compared) = tokio::task::spawn_blocking(move || gate.compare_config()).await {
                if compared != told {
                    tell_of_restart(&compared);
                }
                told = compared;
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Resolves every upstream's name again and again. Never returns.
    pub async fn resolve(self: Arc<Self>) {
        let following = self.handles.iter().flat_map(|handle| &handle.peers).map(|(peer, every)| async move {
            loop {
                tokio::time::sleep(*every).await;
                peer.resolve().await;
            }
        });
        join_all(following).await;
    }

    /// Learns which of its lookups each upstream has no route for, and whether its API is where it is looked for.
    pub async fn probe(self: Arc<Self>) {
        let (prober, live) = (Prober::new(), self.current.live());
        let each = self.handles.iter().zip(&live.sites).map(|(handle, site)| async {
            handle.identity.probe(&site.rules.provider.plan).await;
            handle.find_api(&prober, site).await;
        });
        join_all(each.collect::<Vec<_>>()).await;
    }

    /// Whether requests in flight are only being finished.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// From now on requests in flight are only finished.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}

/// Tells the operator which files are not what runs, and whether a restart could use them.
pub fn tell_of_restart(compared: &Compared) {
    for file in compared.differing.iter().map(|file| file.display()) {
        match &compared.fault {
            None => tracing::warn!(%file, "{file} differs from what runs; restart to use it"),
            Some(fault) => tracing::error!(%file, "{file} differs from what runs, and a restart would fail: {fault}"),
        }
    }
}

/// No upstream at all: a configuration that the checks do not let through.
pub(super) fn nothing_served() -> Admission {
    let refusal = Refusal { status: 500, body: "{}".to_owned(), headers: Vec::new() };
    Admission::Refused(Refused { id: String::new(), door: Door::None, action: "none".into(), reason: Reason::Internal, refusal })
}

/// What is known of a request for `site` at its end.
pub(super) fn ended<'a>(
    started: Instant,
    method: &'a str,
    site: &'a Site,
    door: Door,
    action: &'a str,
    status: Option<u16>,
) -> Ended<'a> {
    Ended { started, method, provider: &site.rules.provider.name, door, action, mode: site.upstream.mode, status }
}

/// A name without the dot of DNS's root, which may close it and changes nothing (RFC 1034 §3.1).
fn rooted(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// The host without its port; an IPv6 address keeps its brackets.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) => {
            name
        }
        _ => host,
    }
}

fn handle(config: &Config, upstream: &crate::config::Upstream, metrics: &Metrics) -> Result<Handle, String> {
    metrics.upstream(&upstream.provider);
    let peer = Arc::new(Peer::new(&upstream.url, upstream, metrics.clone())?);
    let mut peers = vec![(Arc::clone(&peer), upstream.resolve_every)];
    let mut bases = BTreeMap::new();
    if let Some(account) = &upstream.account {
        let account = Arc::new(Peer::new(account, upstream, metrics.clone())?);
        peers.push((Arc::clone(&account), upstream.resolve_every));
        bases.insert("account".to_owned(), account);
    }
    let (timeout, longest) = (upstream.first_byte_timeout, config.limits.lookup_body);
    let client = LookupClient::new(Arc::clone(&peer), bases, upstream.path_prefix.clone(), timeout, longest);
    let facts = &config.facts;
    let settings = Settings {
        upstream: upstream.name.clone(),
        host: upstream.host.clone(),
        ttl: facts.ttl,
        max_stale: facts.max_stale,
        refused_ttl: facts.refused_ttl,
        capacity: facts.capacity,
        lookup_timeout: facts.lookup_timeout,
        lookup_address: facts.lookup_address,
        lookups: config.limits.lookups,
        lookups_per_address: config.limits.lookups_per_address,
        service: upstream
            .service
            .clone()
            .map(|headers| Credential { headers: headers.into_iter().map(|(name, value)| (name.into(), value)).collect() }),
    };
    let identity = Identity::new(settings, client, metrics.clone()).map_err(|error| error.to_string())?;
    Ok(Handle { peer, identity, kept: Kept::default(), misplaced: Mutex::default(), peers })
}
