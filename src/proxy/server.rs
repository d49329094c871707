//! The proxy as a whole: everything is opened before anything is served, and everything in flight is finished before it ends.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use pingora::apps::{HttpServerOptions, ServerApp};
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::admin::Admin;
use super::entrance::Entrance;
use super::gate::Gate;
use super::gateway::Gateway;
use super::operators::Operators;
use super::sockets::Sockets;
use super::streams::Bounds;
use super::tasks::keep;
use super::tls::Certificate;
use crate::audit::{AuditLog, Event, Settings};
use crate::config::Config;
use crate::metrics::{Metrics, RecordKind};
use crate::model::{Faults, Mode, Place};
use crate::reload::Current;

/// How often a drained server looks whether its last connection is gone, and the certificate whether it changed.
const TICK: Duration = Duration::from_millis(20);
/// How long the first resolution of upstream names may keep clients waiting.
const FIRST_RESOLUTION: Duration = Duration::from_secs(3);
/// How often the certificate's files are looked at.
const CERTIFICATE_GLANCE: Duration = Duration::from_secs(1);

/// Why the proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The policies have faults.
    #[error("{0}")]
    Policies(Faults),
    /// The audit log cannot be written.
    #[error("audit log: {0}")]
    Audit(String),
    /// An address cannot be bound.
    #[error("{place}: `{key}`: cannot listen on {address}: {source}{}", way_out(*address, source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The key of the configuration that names it.
        key: &'static str,
        /// Where it is named.
        place: Place,
        /// What the system said.
        source: std::io::Error,
    },
    /// The sockets that a service manager handed over are not those of the configuration.
    #[error("{0}")]
    Socket(String),
    /// A file of TLS cannot be used.
    #[error("{0}")]
    Tls(Faults),
    /// The metrics could not be registered.
    #[error("metrics: {0}")]
    Metrics(String),
    /// Spans cannot be sent.
    #[error("traces: {0}")]
    Traces(String),
}

/// A proxy whose ports are bound, whose rules are loaded and whose log is open; nothing is served yet.
#[derive(Debug)]
pub struct Server {
    gate: Arc<Gate>,
    listeners: Vec<StdListener>,
    admin: StdListener,
    certificate: Option<Arc<Certificate>>,
}

/// A proxy that serves.
pub struct Running {
    gate: Arc<Gate>,
    addresses: Vec<SocketAddr>,
    admin: SocketAddr,
    proxy: Arc<HttpProxy<Gateway>>,
    stop: watch::Sender<bool>,
    /// Those that accept clients, which end by themselves.
    accepting: Vec<JoinHandle<()>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Opens everything that `config` names.
    ///
    /// # Errors
    /// The first thing that cannot be opened; nothing was served.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        let metrics = Metrics::new().map_err(|error| StartError::Metrics(error.to_string()))?;
        let current = Arc::new(Current::load(&config, metrics.clone()).map_err(StartError::Policies)?);
        let certificate = match &config.listen.tls {
            None => None,
            Some(files) => {
                let certificate = Certificate::load(files.clone(), metrics.clone());
                let certificate = certificate.map_err(|unusable| StartError::Tls(unusable.fault(&config).into()))?;
                // What clients make of it is theirs to say: the gate serves, and says so.
                let (faults, notes) = super::tls::look(&config, SystemTime::now());
                faults.0.iter().for_each(|fault| tracing::error!("{fault}"));
                notes.iter().for_each(|note| tracing::warn!("{note}"));
                Some(Arc::new(certificate))
            }
        };
        let mut sockets = Sockets::taken()?;
        let listeners =
            config.listen.addresses.iter().enumerate().map(|(index, address)| sockets.clients(&config, index, *address));
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        let admin = sockets.operators(&config)?;
        sockets.done()?;
        let settings = Settings {
            sink: config.audit.sink.clone(),
            durability: config.audit.durability,
            rotate_bytes: config.audit.rotate_bytes,
            on_failure: config.audit.on_failure,
            keep: config.audit.keep,
            refusals_per_address: config.audit.refusals_per_address,
        };
        let audit = AuditLog::open(settings, metrics.clone()).map_err(|error| StartError::Audit(error.to_string()))?;
        let gate = Gate::new(config, current, Arc::new(audit), metrics)?;
        Ok(Self { gate: Arc::new(gate), listeners, admin, certificate })
    }

    /// Begins to serve, on the runtime that this is called from.
    ///
    /// # Errors
    /// A bound address could not be taken over, or the start could not be recorded and nothing is allowed unrecorded.
    pub fn serve(self) -> Result<Running, StartError> {
        let Self { gate, listeners, admin, certificate } = self;
        let (stop, shutdown) = watch::channel(false);
        let conf = Arc::new(ServerConf { threads: gate.config.listen.threads, max_retries: 2, ..ServerConf::default() });
        let mut proxy = HttpProxy::new(Gateway::new(Arc::clone(&gate)), conf);
        proxy.handle_init_modules();
        let mut options = HttpServerOptions::default();
        options.h2_idle_timeout = Some(gate.config.limits.keepalive_idle);
        proxy.server_options = Some(options);
        let mut h2 = default_h2_options();
        // What is too large is refused before the engine reads it, in the contract's form.
        h2.max_header_list_size(u32::try_from(Bounds::of(&gate.config.limits).shown()).unwrap_or(u32::MAX));
        proxy.h2_options = Some(h2);
        let proxy = Arc::new(proxy);
        let entrance = Entrance::new(Arc::clone(&proxy), Arc::clone(&gate), certificate.clone());
        let (mut accepting, mut tasks) = (Vec::new(), Vec::new());
        let mut addresses = Vec::new();
        for listener in listeners {
            let (listener, address) = adopt(listener)?;
            addresses.push(address);
            let (gate, entrance, shutdown) = (Arc::clone(&gate), entrance.clone(), shutdown.clone());
            accepting.push(keep("accepting clients", move || {
                let (gate, entrance) = (Arc::clone(&gate), entrance.clone());
                let (listener, shutdown, mut ended) = (Arc::clone(&listener), shutdown.clone(), shutdown.clone());
                async move {
                    // Until then clients wait in the kernel's queue, which is kinder than an answer that no upstream was found.
                    tokio::select! {
                        _ = tokio::time::timeout(FIRST_RESOLUTION, gate.resolve_once()) => {}
                        _ = ended.wait_for(|stop| *stop) => {}
                    }
                    entrance.accept(&listener, shutdown).await;
                }
            }));
        }
        let (listener, admin) = adopt(admin)?;
        let app = Admin::new(Arc::clone(&gate), !admin.ip().is_loopback());
        let operators = Arc::new(Operators::new(app, Arc::clone(&gate)));
        tasks.push(keep("accepting operators", move || Arc::clone(&operators).accept(Arc::clone(&listener))));
        let shared = || Arc::clone(&gate);
        let (resolving, sweeping, settling, watching) = (shared(), shared(), shared(), shared());
        let (looking, comparing, own) = (shared(), shared(), addresses.clone());
        tasks.push(keep("resolving names", move || Arc::clone(&resolving).resolve()));
        tasks.push(keep("looking at upstreams", move || Arc::clone(&looking).watch_upstreams(own.clone())));
        tasks.push(keep("comparing the configuration", move || Arc::clone(&comparing).watch_config()));
        tasks.push(keep("closing what was kept", move || Arc::clone(&sweeping).sweep()));
        tasks.push(keep("settling the audit log", move || {
            let gate = Arc::clone(&settling);
            async move { gate.pipeline.settle().await }
        }));
        tasks.push(keep("following the policies", move || Arc::clone(&watching.current).watch(Arc::clone(&watching.audit))));
        if let Some(certificate) = certificate {
            tasks.push(keep("following the certificate", move || refresh(Arc::clone(&certificate))));
        }
        let running = Running { gate, addresses, admin, proxy, stop, accepting, tasks };
        running.announce()?;
        Ok(running)
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("addresses", &self.addresses).field("admin", &self.admin).finish_non_exhaustive()
    }
}

impl Running {
    /// The addresses that clients connect to.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The address of the admin listener.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// What all requests share.
    #[must_use]
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Stops accepting, finishes what is in flight within `listen.drain`, flushes the audit log and sends the last spans. Gives
    /// back whether everything was finished.
    pub async fn drain(mut self) -> bool {
        let began = tokio::time::Instant::now();
        tracing::info!(open = self.gate.open.load(Ordering::Acquire), "draining");
        self.gate.drain();
        // The receivers are the accept loops and the connections; that all of them are gone is no error.
        let _ = self.stop.send(true);
        self.proxy.cleanup().await;
        let deadline = began + self.gate.config.listen.drain;
        let mut finished = true;
        for accepting in &mut self.accepting {
            // From then on every connection is counted. A loop that broke off has told why.
            drop(tokio::time::timeout_at(deadline, accepting).await);
        }
        while self.gate.is_busy() {
            if tokio::time::Instant::now() >= deadline {
                finished = false;
                break;
            }
            tokio::time::sleep(TICK).await;
        }
        for task in &self.tasks {
            task.abort();
        }
        let cut = self.gate.open.load(Ordering::Acquire);
        self.gate.audit.tell_suppressed(Instant::now(), true);
        if let Err(error) = self.event(RecordKind::Stop, [("cut_connections", cut.into())]) {
            tracing::error!(%error, "the end could not be recorded");
        }
        if let Err(error) = self.gate.audit.flush_in_time().await {
            tracing::error!(%error, "the audit log could not be flushed");
        }
        if let Some(traces) = self.gate.traces.clone() {
            // It waits for the collector, within its bound.
            drop(tokio::task::spawn_blocking(move || traces.close()).await);
        }
        tracing::info!(cut, "stopped");
        finished
    }

    fn announce(&self) -> Result<(), StartError> {
        let live = self.gate.current.live();
        for site in &live.sites {
            let provider = &site.rules.provider;
            let open = provider.open_routes();
            let (upstream, kind, mode) = (&site.upstream.name, &provider.name, site.upstream.mode);
            if mode == Mode::Observe {
                tracing::warn!(upstream, provider = kind, "NOTHING IS ENFORCED for this upstream: mode = \"observe\"");
            }
            if let Some(why) = provider.left_open(site.upstream.websockets, site.upstream.unlisted_methods) {
                tracing::warn!(upstream, provider = kind, "{why}");
            }
            if let Some(why) = provider.moot(site.upstream.unlisted_methods) {
                tracing::warn!(upstream, provider = kind, "{why}");
            }
            tracing::info!(
                upstream,
                provider = kind,
                %mode,
                actions = provider.actions.len(),
                open_routes = open,
                "guarding {} actions; {open} known routes that reveal members or roles stay open (`rolegate actions` lists them)",
                provider.actions.len(),
            );
        }
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        tracing::info!(listening = addresses.join(", "), admin = %self.admin, policy_revision = live.revision, "rolegate {}", crate::VERSION);
        let modes: Vec<String> =
            live.sites.iter().map(|site| format!("{}: {}", site.upstream.name, site.upstream.mode)).collect();
        self.event(
            RecordKind::Start,
            [("version", crate::VERSION.into()), ("policy_revision", live.revision.clone().into()), ("modes", modes.into())],
        )
        .map_err(|error| StartError::Audit(error.to_string()))
    }

    fn event<const N: usize>(&self, kind: RecordKind, fields: [(&str, serde_json::Value); N]) -> std::io::Result<()> {
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.gate.audit.record(Event { kind, time: Timestamp::now(), fields }).map(drop).map_err(|unrecorded| unrecorded.cause)
    }
}

/// Follows a certificate. Never returns.
async fn refresh(certificate: Arc<Certificate>) {
    loop {
        tokio::time::sleep(CERTIFICATE_GLANCE).await;
        certificate.refresh();
    }
}

fn adopt(listener: StdListener) -> Result<(Arc<TcpListener>, SocketAddr), StartError> {
    let refused = |error: std::io::Error| StartError::Socket(format!("a bound socket cannot be taken over: {error}"));
    let address = listener.local_addr().map_err(refused)?;
    Ok((Arc::new(TcpListener::from_std(listener).map_err(refused)?), address))
}

/// What to do about an address that cannot be bound.
fn way_out(address: SocketAddr, error: &std::io::Error) -> String {
    let port = address.port();
    let hint = match error.kind() {
        ErrorKind::AddrInUse => {
            format!("another process has the port: `ss -ltnp 'sport = :{port}'` shows it; name another one, or end it")
        }
        ErrorKind::AddrNotAvailable => {
            format!("no interface of this machine has the address {}: `ip address` lists them", address.ip())
        }
        ErrorKind::PermissionDenied => format!("a port below 1024 ({port}) needs the right CAP_NET_BIND_SERVICE"),
        _ => return String::new(),
    };
    format!("\n  hint: {hint}")
}
