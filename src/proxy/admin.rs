//! The listener for operators and monitoring: metrics, health, status, reload, invalidation.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::{Method, Response, StatusCode, Version};
use jiff::Timestamp;
use pingora::apps::http_app::ServeHttp;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::gate::{Gate, tell_of_restart};
use crate::audit::Event;
use crate::identity::Selection;
use crate::metrics::{InvalidationCause, RecordKind};

/// The longest body of an order, in bytes.
const LONGEST_ORDER: usize = 4096;
/// What there is, for people who look with a browser or curl.
const PAGE: &str = "\
rolegate's listener for operators

GET  /livez               whether the process runs
GET  /readyz              whether it takes requests and can record them
GET  /metrics             for Prometheus
GET  /status              how it is: mode, policies, upstreams, audit log (`rolegate status` shows it to people)
POST /reload              read the policies again
POST /facts/invalidate    forget what is remembered of a caller, {\"subject\":\"id\"}, or everything, {\"all\":true}
POST /audit/rotate        begin a new file of the audit log

Beyond loopback /status and the orders want the token of `[admin] token_file`.
";

/// Answers on the admin listener.
#[derive(Debug)]
pub(super) struct Admin {
    gate: Arc<Gate>,
    /// Whether the listener can be reached from other machines.
    exposed: bool,
}

/// `POST /facts/invalidate`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    subject: Option<String>,
    all: Option<bool>,
}

impl Admin {
    pub(super) fn new(gate: Arc<Gate>, exposed: bool) -> Self {
        Self { gate, exposed }
    }

    /// Whether the caller may see or change more than health and metrics; when not, why.
    fn allowed(&self, head: &RequestHeader) -> Result<(), StatusCode> {
        if head.method == Method::POST && head.headers.contains_key("origin") {
            // A web page somewhere made an operator's browser send this.
            return Err(StatusCode::FORBIDDEN);
        }
        if !self.exposed {
            return Ok(());
        }
        let Some(token) = &self.gate.config.admin.token else { return Err(StatusCode::NOT_FOUND) };
        let sent = head
            .headers
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        if sent.is_some_and(|sent| same(sent.as_bytes(), token.reveal().as_bytes())) {
            Ok(())
        } else {
            Err(StatusCode::UNAUTHORIZED)
        }
    }

    async fn answer(&self, session: &mut ServerSession) -> (StatusCode, &'static str, String) {
        let head = session.req_header();
        let method = if head.method == Method::HEAD { Method::GET } else { head.method.clone() };
        let path = head.uri.path().to_owned();
        let json = |status, body: Value| (status, "application/json", body.to_string());
        if !self.exposed && !is_for_this_machine(head) {
            // A web page had its own name lead to this machine (DNS rebinding), and would read the answer as its own.
            let why = "on a loopback address only its own names are answered: localhost, 127.0.0.1, [::1]";
            return json(StatusCode::MISDIRECTED_REQUEST, json!({ "error": why }));
        }
        match (&method, path.as_str()) {
            (&Method::GET, "/") => (StatusCode::OK, "text/plain", PAGE.to_owned()),
            (&Method::GET, "/livez") => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
            (&Method::GET, "/readyz") => self.ready(),
            (&Method::GET, "/metrics") => match self.gate.metrics.page() {
                Ok(page) => (StatusCode::OK, "text/plain; version=0.0.4", page),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{error}\n")),
            },
            (&Method::GET, "/status") | (&Method::POST, "/reload" | "/facts/invalidate" | "/audit/rotate") => {
                if let Err(status) = self.allowed(head) {
                    return json(status, json!({ "error": status.canonical_reason() }));
                }
                match path.as_str() {
                    "/status" => json(StatusCode::OK, self.status()),
                    "/reload" => self.reload().await,
                    "/audit/rotate" => self.rotate().await,
                    _ => self.invalidate(session).await,
                }
            }
            (_, "/" | "/livez" | "/readyz" | "/metrics" | "/status" | "/reload" | "/facts/invalidate" | "/audit/rotate") => {
                json(StatusCode::METHOD_NOT_ALLOWED, json!({ "error": "method not allowed" }))
            }
            _ => json(StatusCode::NOT_FOUND, json!({ "error": "not found" })),
        }
    }

    fn ready(&self) -> (StatusCode, &'static str, String) {
        let writable = self.gate.audit.writable();
        let draining = self.gate.draining();
        let status = if writable && !draining { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let word = |good| if good { "ok" } else { "failed" };
        let text = format!("policies ok\naudit {}\naccepting {}\n", word(writable), word(!draining));
        (status, "text/plain", text)
    }

    fn status(&self) -> Value {
        let live = self.gate.current.live();
        let upstreams: Vec<Value> = live
            .sites
            .iter()
            .zip(&self.gate.handles)
            .map(|(site, handle)| {
                let sizes = handle.identity.sizes();
                json!({
                    "name": site.upstream.name,
                    "provider": site.upstream.provider,
                    "mode": site.upstream.mode,
                    "open_routes": site.rules.provider.open_routes(),
                    "servers": handle.servers(),
                    "missing_routes": handle.identity.missing_routes(),
                    "misplaced": handle.misplaced().map(|misplaced| misplaced.report()),
                    "facts": { "callers": sizes.callers, "facts": sizes.facts, "tables": sizes.tables, "refused": sizes.refused },
                })
            })
            .collect();
        let observed = live
            .sites
            .iter()
            .filter(|site| site.upstream.mode == crate::model::Mode::Observe)
            .map(|site| site.upstream.name.clone());
        let observed: Vec<String> = observed.collect();
        let warning =
            (!observed.is_empty()).then(|| format!("NOTHING IS ENFORCED for {}: mode = \"observe\"", observed.join(", ")));
        json!({
            "version": crate::VERSION,
            "mode": if observed.is_empty() { "enforce" } else { "observe" },
            "warning": warning,
            "policy_revision": live.revision,
            "last_reload": self.gate.current.status(),
            "config": self.config(),
            "upstreams": upstreams,
            "connections": self.gate.open.load(std::sync::atomic::Ordering::Acquire),
            "fast_path": {
                "enabled": self.gate.config.listen.fast_path,
                "served": self.gate.fast.load(std::sync::atomic::Ordering::Relaxed),
            },
            "audit": self.gate.audit.position(),
        })
    }

    /// Whether the running configuration is the one on disk.
    fn config(&self) -> Value {
        let compared = self.gate.compared_config();
        let differing: Vec<String> = compared.differing.iter().map(|path| path.display().to_string()).collect();
        json!({ "matches_disk": differing.is_empty(), "differing": differing, "fault": compared.fault })
    }

    async fn reload(&self) -> (StatusCode, &'static str, String) {
        let gate = Arc::clone(&self.gate);
        let done = tokio::task::spawn_blocking(move || {
            tell_of_restart(&gate.compare_config());
            gate.current.reload(&gate.audit)
        });
        let (status, body) = match done.await {
            Ok(Ok(_)) => {
                // A changed configuration is not what runs now, though something was read again.
                let revision = &self.gate.current.live().revision;
                (StatusCode::OK, json!({ "policy_revision": revision, "config": self.config() }))
            }
            Ok(Err(faults)) => (StatusCode::UNPROCESSABLE_ENTITY, json!({ "error": faults.to_string() })),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": error.to_string() })),
        };
        (status, "application/json", body.to_string())
    }

    /// Begins a new file of the audit log, and removes old ones as the operator set.
    async fn rotate(&self) -> (StatusCode, &'static str, String) {
        let audit = Arc::clone(&self.gate.audit);
        let done = tokio::task::spawn_blocking(move || {
            let rotated = audit.rotate()?;
            Ok::<_, std::io::Error>((rotated, audit.expire(Timestamp::now())?))
        });
        let (status, body) = match done.await {
            Ok(Ok((rotated, removed))) => (StatusCode::OK, json!({ "rotated": rotated, "removed": removed })),
            Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, json!({ "error": error.to_string() })),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": error.to_string() })),
        };
        (status, "application/json", body.to_string())
    }

    async fn invalidate(&self, session: &mut ServerSession) -> (StatusCode, &'static str, String) {
        let mut body = Vec::new();
        let deadline = Instant::now() + self.gate.config.limits.header_deadline;
        // One that does not come in time is as good as half.
        while let Ok(Ok(Some(chunk))) = timeout_at(deadline, session.read_request_body()).await {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST_ORDER {
                return (
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "application/json",
                    json!({ "error": "the body is too long" }).to_string(),
                );
            }
        }
        let order = serde_json::from_slice::<Order>(&body);
        let selection = match &order {
            Ok(Order { subject: Some(subject), all: None }) => Selection::Subject(subject),
            Ok(Order { subject: None, all: Some(true) }) => Selection::All,
            _ => {
                let error = json!({ "error": "the body is {\"subject\":\"id\"} or {\"all\":true}" }).to_string();
                return (StatusCode::BAD_REQUEST, "application/json", error);
            }
        };
        let dropped: usize = self.gate.handles.iter().map(|handle| handle.identity.invalidate(selection)).sum();
        tracing::info!(dropped, cause = ?InvalidationCause::Admin, "facts invalidated");
        let mut fields = serde_json::Map::new();
        fields.insert("subject".into(), order.ok().and_then(|order| order.subject).into());
        fields.insert("dropped".into(), dropped.into());
        drop(self.gate.audit.record(Event { kind: RecordKind::Invalidate, time: Timestamp::now(), fields }));
        (StatusCode::OK, "application/json", json!({ "dropped": dropped }).to_string())
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let (status, kind, body) = self.answer(session).await;
        if !is_kept(session.req_header()) {
            session.set_keepalive(None);
        }
        let length = body.len();
        let body = if session.req_header().method == Method::HEAD { Vec::new() } else { body.into_bytes() };
        let response = Response::builder()
            .status(status)
            .header("content-type", kind)
            .header("content-length", length)
            .header("cache-control", "no-store")
            .body(body);
        response.unwrap_or_default()
    }
}

/// Whether a connection outlives its answer: over HTTP/1.0 only when the client asks for that (RFC 9112 §9.3).
fn is_kept(head: &RequestHeader) -> bool {
    let options = head.headers.get_all("connection").iter().filter_map(|value| value.to_str().ok());
    let asked = || options.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case("keep-alive"));
    head.version != Version::HTTP_10 || asked()
}

/// Whether a request names this machine's loopback interface, or no host at all as HTTP/1.0 may.
fn is_for_this_machine(head: &RequestHeader) -> bool {
    let fields = head.headers.get_all("host").iter().map(|host| host.to_str().unwrap_or("?"));
    fields.chain(head.uri.authority().map(|authority| authority.as_str())).all(is_loopback)
}

/// Whether `host` is `localhost` or a name below it, which lead nowhere else (RFC 6761 §6.3), or a loopback address.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((name, rest)) => (name, rest.strip_prefix(':').or(rest.is_empty().then_some(""))),
        None => host.split_once(':').map_or((host, Some("")), |(name, port)| (name, Some(port))),
    };
    if port.is_none_or(|port| !port.bytes().all(|byte| byte.is_ascii_digit())) {
        return false;
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let address = name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    address || name == "localhost" || name.ends_with(".localhost")
}

/// Compares in a time that does not tell where the two differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}
