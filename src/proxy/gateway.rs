//! The policy enforcement point: translates between the proxy engine's hooks and the walk, and decides nothing itself.

mod body;

use std::any::Any;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use tokio::time::timeout;

use super::Destination;
use super::convert;
use super::entrance::{BROKEN_CHUNKS, Handed};
use super::errors::{LATE, Told, slow_client, status};
use super::fence::Handover;
use super::gate::{Gate, Underway, nothing_served};
use super::head;
use super::peer::{Connector, failure};
use super::read_first::{ReadBody, Sender};
use super::relay::{REQUEST_ID, leave_out_hop_by_hop};
use super::stand_in::Restoring;
use super::streams;
use super::websocket::TunnelEnd;
use crate::audit::Recorded;
use crate::metrics::{self, Labels, SlowClient, UpstreamError};
use crate::model::{Door, Mode, Reason};
use crate::pipeline::{Admission, Moment, Open, Outcome, Permit, Refused, Site};
use crate::traces::{Ended, Trace, Walked};

/// The first of the pools of one connection each, which no other request finds.
const FRESH: u64 = 2;
/// How long the body of a refused request may take to arrive before the connection is given up, and how long it may be.
const DRAIN: Duration = Duration::from_secs(5);
const LONGEST_DRAINED: usize = 64 * 1024;

/// Carries out what the walk says.
#[derive(Debug)]
pub(super) struct Gateway {
    gate: Arc<Gate>,
    /// Connects where the engine's own line is not what goes out.
    connector: Connector,
    /// Sends what was read of a body and is more than the engine keeps.
    sender: Sender,
    /// How many requests had a connection of their own.
    tries: AtomicU64,
}

/// One request on its way through.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Until the engine is done with it, the end waits for it.
    _underway: Underway,
    stage: Stage,
    started: Instant,
    index: usize,
    site: Option<Site>,
    origin: convert::Origin,
    /// The decision id, where there is a verdict and no permit.
    id: Option<String>,
    action: String,
    door: Door,
    trace: Option<Box<Trace>>,
    websocket: bool,
    /// The end of the tunnel that the connection may become, where it may.
    tunnel: Option<TunnelEnd>,
    /// The target as received, where the entrance read it.
    target: Option<Vec<u8>>,
    /// What the engine was shown instead of it.
    shown: Option<Vec<u8>>,
    /// Why the entrance would not have an h2 head.
    refused: Option<String>,
    /// What the entrance tells of the request meanwhile, where it does.
    handover: Option<Arc<Handover>>,
    /// Whether the upstream is asked to speak WebSocket.
    upgrade: bool,
    /// What was read of the body before the verdict.
    read: Option<ReadBody>,
    /// Whether it did not come in time.
    late: bool,
    /// Whether the permit's content was handed to the upstream in this try.
    sent: bool,
    /// When the head of this try was ready for the upstream.
    forwarded: Option<Instant>,
    /// Whether a kept connection failed this request: the next try has one of its own.
    retrying: bool,
}

impl Exchange {
    /// Whether the content turned out to be no chunked content.
    fn is_broken(&self) -> bool {
        self.handover.as_ref().is_some_and(|handover| handover.is_broken())
    }
}

/// How far a request has come. Only `PassThrough` and `Admitted` have a destination.
#[derive(Debug)]
enum Stage {
    Arrived,
    PassThrough(Open),
    Admitted(Box<Recorded<Permit>>),
    Refused,
}

impl Gateway {
    /// A gateway to what `gate` knows.
    #[must_use]
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        Self { gate, connector: Connector::new(), sender: Sender::new(), tries: AtomicU64::new(0) }
    }

    /// Judges the request, whose target was `received` so where the engine was not shown all of it.
    async fn judge(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        received: Option<&[u8]>,
        walked: &mut Walked,
    ) -> Admission {
        let deadline = self.gate.config.limits.body_deadline;
        let read = match timeout(deadline, self.read(session, exchange, received)).await {
            Ok(read) => read,
            Err(_) => {
                exchange.late = true;
                None
            }
        };
        let bodiless = session.as_downstream_mut().is_body_empty();
        let mut raw = convert::raw_request(session.req_header(), bodiless, &exchange.origin);
        raw.target = received.unwrap_or(raw.target);
        raw.content = read.as_ref().filter(|read| read.whole).map(|read| read.bytes.as_slice());
        let now = Moment::now();
        let Some(first) = self.gate.first_site() else { return nothing_served() };
        let mut refuse =
            |site: Site, reason, detail: &str| self.gate.pipeline.refuse_early(&raw, site, reason, detail, now, walked);
        let host = convert::addressed(&raw, session.req_header().version);
        let (index, site) = match self.gate.serving(host) {
            Ok(served) => served,
            Err((reason, why)) => {
                let told = exchange.refused.as_deref();
                return refuse(first, told.map_or(reason, |_| Reason::FramingInvalid), told.unwrap_or(why));
            }
        };
        exchange.index = index;
        exchange.site = Some(site.clone());
        if let Some(why) = exchange.refused.take() {
            return refuse(site, Reason::FramingInvalid, &why);
        }
        if exchange.is_broken() {
            return refuse(site, Reason::FramingInvalid, BROKEN_CHUNKS);
        }
        if exchange.late {
            self.gate.metrics.slow_client(SlowClient::BodyDeadline);
            return refuse(site, Reason::FramingInvalid, "the content did not come within `limits.body_deadline`");
        }
        let Some(handle) = self.gate.handles.get(index) else { return nothing_served() };
        let admission = self.gate.pipeline.admit(&raw, &site, &handle.identity, now, walked).await;
        exchange.read = read;
        admission
    }

    /// Lets a connection survive a refusal that is sent before the request's body was read: the engine reads a short one
    /// after the answer. A long one, one of unknown length, or one that is `late` already or may never come ends the connection.
    fn keep_after_refusal(&self, session: &mut Session, late: bool) {
        let headers = &session.req_header().headers;
        let length = headers.get("content-length").and_then(|value| value.to_str().ok()).and_then(|value| value.parse().ok());
        let short = length.is_some_and(|length: usize| length <= LONGEST_DRAINED);
        if short && !late && !headers.contains_key("expect") && !headers.contains_key("transfer-encoding") {
            let downstream = session.as_downstream_mut();
            downstream.set_close_on_response_before_downstream_finish(false);
            downstream.set_total_drain_timeout(Some(DRAIN));
        }
    }

    /// Answers with a refusal; the connection stays open.
    async fn answer(&self, session: &mut Session, refused: &Refused) -> pingora::Result<()> {
        let head = convert::refusal(&refused.refusal, Some(&refused.id))?;
        self.keep_after_refusal(session, refused.refusal.status == LATE);
        say(session, head, refused.refusal.body.clone()).await
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange {
            _underway: Underway::new(&self.gate),
            stage: Stage::Arrived,
            started: Instant::now(),
            index: 0,
            site: None,
            origin: convert::Origin { client: None, forwarded_for: String::new(), proto: "http", correlation: None },
            id: None,
            action: "none".to_owned(),
            door: Door::None,
            trace: None,
            websocket: false,
            tunnel: None,
            target: None,
            shown: None,
            refused: None,
            handover: None,
            upgrade: false,
            read: None,
            late: false,
            sent: false,
            forwarded: None,
            retrying: false,
        }
    }

    fn on_connection_reuse(&self, _session: &mut Session, exchange: &mut Exchange, handed: Box<dyn Any + Send + Sync>) {
        if let Ok(handed) = handed.downcast::<Handed>() {
            handed.handover.see();
            (exchange.target, exchange.shown) = (Some(handed.target), handed.shown);
            (exchange.handover, exchange.tunnel) = (Some(handed.handover), handed.tunnel);
        }
    }

    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> pingora::Result<bool> {
        let address = session.client_addr().and_then(|address| address.as_inet());
        let peer = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
        let tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        match session.req_header().version {
            http::Version::HTTP_2 => {
                let head = session.req_header_mut();
                convert::join_cookies(head)?;
                (exchange.target, exchange.refused) = streams::brought(head);
                if let Some(why) = &exchange.refused {
                    self.gate.metrics.rejected(head::cause(why));
                }
                exchange.shown = exchange.target.as_ref().map(|_| head.raw_path().to_vec());
            }
            // It knows no interim answers (RFC 9110 §15.2).
            http::Version::HTTP_10 => session.as_downstream_mut().set_ignore_info_resp(true),
            _ => {}
        }
        let headers = &session.req_header().headers;
        let fields = |name| headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
        exchange.origin = convert::origin(fields, peer, tls, &self.gate.config.listen.trusted_proxies);
        if self.gate.draining() {
            session.set_keepalive(None);
        }
        if session.is_http2() {
            // A stream has a window of its own that its client may never open; the connection below it is bounded by the system.
            session.as_downstream_mut().set_write_timeout(Some(self.gate.config.limits.send_idle));
        }
        let mut walked = Walked::default();
        let received = exchange.target.take();
        let admission = self.judge(session, exchange, received.as_deref(), &mut walked).await;
        exchange.target = received;
        let traceparents = session.req_header().headers.get_all("traceparent").iter().map(|value| value.as_bytes());
        exchange.trace = self.gate.trace(&admission, traceparents, &walked);
        match admission {
            Admission::Open(open) => {
                if open == Open::Method {
                    exchange.door = Door::MethodCall;
                }
                exchange.stage = Stage::PassThrough(open);
            }
            Admission::Observed { id, action, door } => {
                exchange.stage = Stage::PassThrough(Open::Route);
                exchange.id = Some(id);
                exchange.action = action;
                exchange.door = door;
            }
            Admission::Permitted(permit) => {
                permit.trail().action().clone_into(&mut exchange.action);
                exchange.door = permit.trail().door();
                exchange.stage = Stage::Admitted(permit);
            }
            Admission::Refused(mut refused) => {
                if exchange.late {
                    refused.refusal.status = LATE;
                    session.set_keepalive(None);
                }
                exchange.action.clone_from(&refused.action);
                exchange.door = refused.door;
                exchange.id = Some(refused.id.clone());
                exchange.stage = Stage::Refused;
                self.answer(session, &refused).await?;
                return Ok(true);
            }
        }
        // The engine would announce a body to the upstream where it read one, though none is sent.
        let left_behind = matches!(&exchange.stage, Stage::Admitted(permit) if permit.content().is_none());
        match exchange.read.take_if(|read| read.forgotten || (left_behind && !read.bytes.is_empty())) {
            Some(read) => self.send(session, exchange, read).await.map(|()| true),
            None => Ok(false),
        }
    }

    async fn upstream_peer(&self, session: &mut Session, exchange: &mut Exchange) -> pingora::Result<Box<HttpPeer>> {
        if let Some(trace) = &mut exchange.trace {
            trace.ask();
        }
        let tunnel = exchange.tunnel.as_ref().filter(|_| session.req_header().headers.contains_key("upgrade"));
        let handle = self.gate.handles.get(exchange.index);
        let handle = handle.ok_or_else(|| Error::explain(ErrorType::InternalError, "the upstream is gone"))?;
        let peer = match &exchange.stage {
            Stage::PassThrough(_) => handle.peer.http(tunnel),
            Stage::Admitted(permit) => Destination::of(permit).peer(handle),
            Stage::Arrived | Stage::Refused => {
                return Err(Error::explain(ErrorType::InternalError, "a request without a verdict"));
            }
        };
        let mut peer = peer.map_err(|error| {
            let mut error = Error::explain(ErrorType::ConnectError, error.to_string());
            error.as_up();
            error
        })?;
        if let Some(site) = &exchange.site
            && tunnel.is_none()
        {
            peer.options.read_timeout = Some(site.upstream.first_byte_timeout.max(site.upstream.read_timeout));
        }
        let passed = matches!(exchange.stage, Stage::PassThrough(_));
        let restored = passed.then_some(()).and(exchange.shown.as_ref()).zip(exchange.target.as_ref());
        if let (Some((shown, target)), Some(address)) = (restored, handle.peer.address()) {
            let restoring = Restoring::new(&self.connector, peer, &session.req_header().method, shown, target);
            peer = restoring.into_peer(address);
        }
        if exchange.retrying || restored.is_some() {
            // Where one kept connection was about to be closed, the others may be, too.
            peer.group_key = FRESH.saturating_add(self.tries.fetch_add(1, Ordering::Relaxed));
            peer.options.idle_timeout = Some(Duration::ZERO);
        }
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream_request: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> pingora::Result<()> {
        let Some(handle) = self.gate.handles.get(exchange.index) else { return Ok(()) };
        exchange.sent = false;
        exchange.forwarded = Some(Instant::now());
        match &exchange.stage {
            Stage::Admitted(permit) => {
                let trace = exchange.trace.as_deref();
                *upstream_request = Destination::of(permit).head(session.req_header(), &exchange.origin, handle, trace)?;
            }
            Stage::PassThrough(open) => {
                convert::forwarding(upstream_request, &exchange.origin)?;
                if exchange.tunnel.is_none() && upstream_request.remove_header("upgrade").is_some() {
                    upstream_request.remove_header("connection");
                }
                if exchange.read.is_some() {
                    // The client was already asked for its body.
                    upstream_request.remove_header("expect");
                }
                if let Some(site) = &exchange.site {
                    if *open == Open::Preflight {
                        convert::without_credentials(upstream_request, &site.rules.provider);
                    }
                    let nameless = !upstream_request.headers.contains_key("host");
                    if nameless || site.rules.provider.host == crate::rules::provider::HostHeader::Upstream {
                        let host = convert::host_sent(site, None, handle.peer.authority()).to_owned();
                        upstream_request.insert_header("host", host)?;
                    }
                }
            }
            Stage::Arrived | Stage::Refused => {
                return Err(Error::explain(ErrorType::InternalError, "a request without a verdict"));
            }
        }
        exchange.upgrade = convert::is_websocket(&upstream_request.headers);
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<bytes::Bytes>,
        _end_of_stream: bool,
        exchange: &mut Exchange,
    ) -> pingora::Result<()> {
        let Stage::Admitted(permit) = &exchange.stage else { return Ok(()) };
        if body.as_ref().is_some_and(|body| !body.is_empty()) {
            // What was received ends here; what was judged goes on, once.
            let content = if exchange.sent { "" } else { permit.content().unwrap_or_default() };
            *body = Some(bytes::Bytes::from(content.to_owned()));
            exchange.sent = true;
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> pingora::Result<()> {
        if let Some(forwarded) = exchange.forwarded.take() {
            self.gate.metrics.stage(metrics::Stage::Upstream, forwarded.elapsed());
            if let Some(handle) = self.gate.handles.get(exchange.index) {
                handle.peer.health().answered();
            }
        }
        if let Some(trace) = &mut exchange.trace {
            trace.answered(Instant::now(), response.status.as_u16());
        }
        if let Some(why) = convert::answer_fault(response, exchange.upgrade) {
            let mut error = Error::explain(ErrorType::InvalidHTTPHeader, why);
            error.as_up();
            return Err(error);
        }
        leave_out_hop_by_hop(response);
        if !response.status.is_informational() {
            if let Some(id) = id(exchange) {
                response.insert_header(REQUEST_ID, id.to_owned())?;
            }
            let old = session.req_header().version == http::Version::HTTP_10;
            if old && response.remove_header("transfer-encoding").is_some() || self.gate.draining() {
                // What knows no chunks is told the end by the connection's (RFC 9112 §6.1), or the end began while it was in flight.
                session.set_keepalive(None);
            }
        }
        match response.status.as_u16() {
            401 => self.unauthorized(session, exchange),
            101 => {
                exchange.websocket = true;
                if let Some(tunnel) = &exchange.tunnel {
                    tunnel.open();
                }
                self.gate.metrics.websocket_opened();
            }
            _ => {}
        }
        Ok(())
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        exchange: &mut Exchange,
        reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("Peer: {peer}"));
        let whole = !session.as_downstream().retry_buffer_truncated();
        let unanswered = session.response_written().is_none();
        if matches!(exchange.stage, Stage::Admitted(_)) {
            // What an action does is read, by whatever method: a kept connection that the upstream was about to close is no
            // reason to fail it. One that is only slow has heard the request.
            // An answer that cannot be read is an answer.
            let closed = *error.esource() == ErrorSource::Upstream
                && failure(error.etype()) != UpstreamError::Timeout
                && *error.etype() != ErrorType::InvalidHTTPHeader;
            error.set_retry(whole && unanswered && reused && closed);
        } else if whole && session.req_header().method.is_idempotent() {
            error.retry.decide_reuse(reused);
        } else {
            error.set_retry(false);
        }
        exchange.retrying = error.retry();
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, exchange: &mut Exchange) -> FailToProxy {
        let code = status(error);
        if *error.esource() == ErrorSource::Upstream {
            self.gate.metrics.upstream_error(provider(exchange), failure(error.etype()));
            if let Some(handle) = self.gate.handles.get(exchange.index) {
                handle.peer.health().failed(failure(error.etype()));
            }
            if let Some(trace) = &mut exchange.trace {
                trace.failed(failure(error.etype()));
            }
        }
        let broken = exchange.is_broken();
        if (code > 0 || broken) && session.response_written().is_none() {
            let written = match code {
                _ if broken => self.refuse_content(session, exchange).await,
                code => self.answer_failure(session, exchange, code).await,
            };
            if let Err(error) = written {
                tracing::debug!(id = id(exchange), error = %Told(&error), "client left before its error answer");
            }
        }
        FailToProxy { error_code: code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, exchange: &mut Exchange) {
        let status = session.response_written().map(|head| head.status.as_u16());
        let ended = Instant::now();
        let elapsed = ended - exchange.started;
        // 499 is what operators know from nginx: the client left before it was answered.
        let labels = Labels { provider: provider(exchange), door: exchange.door, action: &exchange.action, usual: None };
        self.gate.metrics.request(labels, status.unwrap_or(499), elapsed);
        if exchange.websocket {
            self.gate.metrics.websocket_closed();
        }
        if let Some(cause) = error.and_then(slow_client) {
            self.gate.metrics.slow_client(cause);
        }
        let trace_id = exchange.trace.as_ref().map(|trace| tracing::field::display(trace.trace_id()));
        if let Stage::Admitted(permit) = &exchange.stage {
            let bytes = u64::try_from(session.body_bytes_sent()).unwrap_or(u64::MAX);
            self.gate.pipeline.outcome(Outcome { permit, ended, duration: elapsed, status, bytes });
            if let Some(error) = error {
                tracing::warn!(id = permit.trail().id(), trace_id, error = %Told(error), "permitted request failed");
            }
        } else if let Some(error) = error {
            tracing::debug!(id = id(exchange), trace_id, error = %Told(error), "request failed");
        }
        if let Some(trace) = exchange.trace.take() {
            trace.end(&Ended {
                started: exchange.started,
                method: session.req_header().method.as_str(),
                provider: provider(exchange),
                door: exchange.door,
                action: &exchange.action,
                mode: exchange.site.as_ref().map_or(Mode::Enforce, |site| site.upstream.mode),
                status,
            });
        }
    }

    fn suppress_error_log(&self, _session: &Session, _exchange: &Exchange, _error: &Error) -> bool {
        true
    }
}

impl Gateway {
    /// The upstream does not know the credential any more: what is remembered of it goes.
    fn unauthorized(&self, session: &Session, exchange: &Exchange) {
        let (Some(site), Some(handle)) = (&exchange.site, self.gate.handles.get(exchange.index)) else { return };
        match &exchange.stage {
            Stage::Admitted(permit) => handle.unauthorized(permit),
            Stage::PassThrough(Open::Route | Open::Unlisted | Open::Method) => {
                let mut raw = convert::raw_request(session.req_header(), true, &exchange.origin);
                raw.target = exchange.target.as_deref().unwrap_or(raw.target);
                handle.revoke(&raw, site);
            }
            Stage::PassThrough(Open::Outside | Open::Preflight) | Stage::Arrived | Stage::Refused => {}
        }
    }

    /// Content that turned out to be malformed while it was sent on: the upstream never gets its end.
    async fn refuse_content(&self, session: &mut Session, exchange: &mut Exchange) -> pingora::Result<()> {
        let Some(site) = exchange.site.clone() else { return Ok(()) };
        let mut raw = convert::raw_request(session.req_header(), true, &exchange.origin);
        raw.target = exchange.target.as_deref().unwrap_or(raw.target);
        let (now, mut walked) = (Moment::now(), Walked::default());
        let admission = self.gate.pipeline.refuse_early(&raw, site, Reason::FramingInvalid, BROKEN_CHUNKS, now, &mut walked);
        let Admission::Refused(refused) = admission else { return Ok(()) };
        session.set_keepalive(None);
        self.answer(session, &refused).await?;
        exchange.id = Some(refused.id);
        Ok(())
    }

    /// A failure of the upstream, in the provider's words.
    async fn answer_failure(&self, session: &mut Session, exchange: &Exchange, code: u16) -> pingora::Result<()> {
        let id = id(exchange);
        let provider = exchange.site.as_ref().map(|site| &site.rules.provider);
        let failure = convert::failure(provider, id.unwrap_or_default(), code);
        session.set_keepalive(None);
        let head = convert::refusal(&failure, id)?;
        say(session, head, failure.body).await
    }
}

/// Sends an answer that no upstream made.
async fn say(session: &mut Session, head: ResponseHeader, body: String) -> pingora::Result<()> {
    // The engine leaves out the content of an answer to a HEAD over HTTP/1, and not over h2 (RFC 9110 §9.3.2).
    let bare = session.is_http2() && session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(head), false).await?;
    session.write_response_body((!bare).then(|| body.into()), true).await
}

/// The decision id, if there is a verdict.
fn id(exchange: &Exchange) -> Option<&str> {
    match &exchange.stage {
        Stage::Admitted(permit) => Some(permit.trail().id()),
        _ => exchange.id.as_deref(),
    }
}

fn provider(exchange: &Exchange) -> &str {
    exchange.site.as_ref().map_or("none", |site| site.rules.provider.name.as_str())
}
