//! The short way of a plain read: recognised on the stream that received it, judged by the same walk, forwarded without the
//! proxy engine. What has not exactly the one form that this path knows is the engine's.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use pingora::upstreams::peer::Peer as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Destination;
use super::arrival::Arrival;
use super::convert::{self, Origin};
use super::gate::{Gate, Handle, ended};
use super::head::{self, Fields, Head};
use super::kept::Line;
use super::patience::Patience;
use super::peer::{Connector, failure};
use super::relay::{self, Answer, Content, Reading};
use super::wire::Wire;
use crate::audit::Recorded;
use crate::metrics::{Labels, SlowClient, Stage, UpstreamError};
use crate::model::{Door, Mode};
use crate::pipeline::{Admission, Moment, Open, Outcome, Permit, Refused, Site};
use crate::traces::{Trace, Walked};

/// How much of what comes after the request is kept while it is answered; beyond that nobody looks whether the client left.
const STASH: usize = 64 * 1024;
/// How many fields a request may have more when it is sent on.
const ADDED_FIELDS: usize = 8;
/// How much is read from an upstream at once, and written to the client at once.
const PIECE: usize = 32 * 1024;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Served {
    /// It was answered at this moment, and the connection goes on.
    Kept(Instant),
    /// The connection is at its end.
    Ended,
    /// It is the engine's; nothing was done.
    Declined,
}

/// The path of one listener.
#[derive(Debug)]
pub(super) struct FastPath {
    connector: Connector,
}

/// One client's connection: what was read of it and not yet used stands in `buffer`.
pub(super) struct Client<'a> {
    pub(super) stream: &'a mut Wire,
    pub(super) buffer: &'a mut Vec<u8>,
    pub(super) peer: SocketAddr,
    pub(super) tls: bool,
    /// Where every request on it came from, unless each of them says so.
    pub(super) origin: Option<&'a Origin>,
    /// How long the upstream is waited for.
    pub(super) patience: &'a mut Patience,
    /// Whether the answer is the last one on it.
    pub(super) closing: bool,
}

/// Why a request may be sent.
#[derive(Clone, Copy)]
enum Leave<'a> {
    /// It was judged, and that is recorded.
    Permit(&'a Recorded<Permit>),
    /// It is not judged.
    Open(Open),
}

/// A request on its way.
struct Exchange<'a> {
    gate: &'a Gate,
    handle: &'a Handle,
    site: &'a Site,
    leave: Leave<'a>,
    /// When it was allowed to go.
    allowed: Instant,
    request: Vec<u8>,
    head_only: bool,
    client: Option<IpAddr>,
}

/// What a client was sent.
#[derive(Default)]
struct Told {
    status: Option<u16>,
    bytes: u64,
    /// When the head of the upstream's answer came, and the status in it.
    came: Option<(Instant, u16)>,
}

/// Why an exchange ended before its answer did.
enum Trouble {
    /// The client left, or took nothing for so long that the system gave it up.
    Left { slow: bool },
    /// The upstream failed; `stale` when it had kept the connection and may have closed it before it saw the request.
    Upstream { kind: UpstreamError, stale: bool },
}

impl Exchange<'_> {
    /// The decision id, if there is a verdict.
    fn id(&self) -> Option<&str> {
        match self.leave {
            Leave::Permit(permit) => Some(permit.trail().id()),
            Leave::Open(_) => None,
        }
    }

    /// The upstream does not know the credential: what is remembered of it goes.
    fn unauthorized(&self) {
        match self.leave {
            Leave::Permit(permit) => self.handle.unauthorized(permit),
            Leave::Open(Open::Route | Open::Unlisted | Open::Method) => {
                // What was sent still holds the credential.
                let limits = &self.gate.config.limits;
                let fields = limits.header_fields.saturating_add(ADDED_FIELDS);
                let head::Reading::Complete(head) = head::read(&self.request, usize::MAX, fields, &mut Fields::default()) else {
                    return;
                };
                let Some(sent) = Arrival::recognise(&head, &self.request) else { return };
                self.handle.revoke(&sent.raw(self.client, None), self.site);
            }
            Leave::Open(Open::Outside | Open::Preflight) => {}
        }
    }
}

impl FastPath {
    pub(super) fn new() -> Self {
        Self { connector: Connector::new() }
    }

    /// Serves the request whose head is `head`, at the beginning of the client's buffer, if it has the form of this path.
    pub(super) async fn serve(&self, gate: &Gate, head: &Head, client: &mut Client<'_>) -> Served {
        let Some(bytes) = client.buffer.get(..head.length) else { return Served::Declined };
        let Some(arrival) = Arrival::recognise(head, bytes) else { return Served::Declined };
        let Some((index, site)) = gate.site_for(arrival.host) else { return Served::Declined };
        let Some(handle) = gate.handles.get(index) else { return Served::Declined };
        let limits = &gate.config.limits;
        // The engine's path counts what each field takes when it is sent on; the number of fields is bounded already.
        let size: usize = arrival.fields().map(|(name, value)| name.len() + value.len() + 4).sum();
        if size > limits.header_bytes || site.upstream.mode != Mode::Enforce {
            return Served::Declined;
        }
        let told;
        let origin = match client.origin {
            Some(origin) => origin,
            None => {
                told = arrival.origin(client.peer.ip(), client.tls, &gate.config.listen.trusted_proxies);
                &told
            }
        };
        let raw = arrival.raw(origin.client, origin.correlation.clone());
        let (head_only, client_address) = (arrival.head_only, origin.client);
        let (began, mut walked) = (Moment::now(), Walked::default());
        let started = began.at;
        let admission = gate.pipeline.admit(&raw, &site, &handle.identity, began, &mut walked).await;
        let trace = gate.trace(&admission, raw.header_values("traceparent"), &walked);
        let authority = handle.peer.authority();
        let (request, permit, open) = match admission {
            // Where verdicts are only observed nobody comes here.
            Admission::Observed { .. } => return Served::Ended,
            Admission::Refused(refused) => {
                client.buffer.drain(..head.length);
                gate.fast.fetch_add(1, Ordering::Relaxed);
                return refuse(gate, &site, &refused, head_only, client, started, trace).await;
            }
            Admission::Open(open) => {
                (convert::passed_bytes(&raw, arrival.spelt(), &site.rules.provider, origin, authority), None, open)
            }
            Admission::Permitted(permit) => {
                let request = Destination::of(&permit).bytes(arrival.fields(), arrival.host, origin, authority, trace.as_deref());
                (request, Some(permit), Open::Outside)
            }
        };
        client.buffer.drain(..head.length);
        gate.fast.fetch_add(1, Ordering::Relaxed);
        let leave = permit.as_deref().map_or(Leave::Open(open), Leave::Permit);
        let allowed = permit.as_deref().map_or(started, Recorded::made);
        let exchange = Exchange { gate, handle, site: &site, leave, allowed, request, head_only, client: client_address };
        self.forward(exchange, client, started, trace).await
    }

    async fn forward(
        &self,
        exchange: Exchange<'_>,
        client: &mut Client<'_>,
        started: Instant,
        mut trace: Option<Box<Trace>>,
    ) -> Served {
        let (gate, site) = (exchange.gate, exchange.site);
        let id = exchange.id();
        let mut told = Told::default();
        if let Some(trace) = &mut trace {
            trace.ask();
        }
        let kept = match self.exchange(&exchange, client, &mut told).await {
            Ok(kept) => kept && !client.closing,
            Err(Trouble::Left { slow }) => {
                if slow {
                    gate.metrics.slow_client(SlowClient::SendIdle);
                }
                false
            }
            Err(Trouble::Upstream { kind, .. }) => {
                let provider = &site.rules.provider;
                gate.metrics.upstream_error(&provider.name, kind);
                exchange.handle.peer.health().failed(kind);
                if let Some(trace) = &mut trace {
                    trace.failed(kind);
                }
                if told.status.is_none() {
                    let code = if kind == UpstreamError::Timeout { 504 } else { 502 };
                    let failure = convert::failure(Some(provider), id.unwrap_or_default(), code);
                    let answer = convert::refusal_bytes(&failure, id.unwrap_or_default(), false, exchange.head_only);
                    if send(client.stream, &answer).await.is_ok() {
                        (told.status, told.bytes) = (Some(code), failure.body.len() as u64);
                    }
                }
                let trace_id = trace.as_ref().map(|trace| tracing::field::display(trace.trace_id()));
                match id {
                    Some(id) => tracing::warn!(id, trace_id, ?kind, "permitted request failed"),
                    None => tracing::debug!(?kind, "request failed"),
                }
                false
            }
        };
        let ended_at = Instant::now();
        let served = if kept { Served::Kept(ended_at) } else { Served::Ended };
        let elapsed = ended_at - started;
        // 499 is what operators know from nginx: the client left before it was answered.
        let code = told.status.unwrap_or(499);
        let Leave::Permit(permit) = exchange.leave else {
            let labels = Labels { provider: &site.rules.provider.name, door: Door::None, action: "none", usual: None };
            gate.metrics.request(labels, code, elapsed);
            return served;
        };
        let trail = permit.trail();
        gate.metrics.request(trail.labels(), code, elapsed);
        gate.pipeline.outcome(Outcome { permit, ended: ended_at, duration: elapsed, status: told.status, bytes: told.bytes });
        if let Some(mut trace) = trace {
            if let Some((came, status)) = told.came {
                trace.answered(came, status);
            }
            trace.end(&ended(started, permit.method(), site, trail.door(), trail.action(), told.status));
        }
        served
    }

    /// Sends the request and relays the answer; whether the client's connection can go on.
    async fn exchange(&self, exchange: &Exchange<'_>, client: &mut Client<'_>, told: &mut Told) -> Result<bool, Trouble> {
        // A connection that was made before that was known is not used either.
        let address = exchange.handle.peer.address().filter(|_| !exchange.handle.peer.health().is_itself());
        let kept = address.and_then(|address| exchange.handle.kept.take(address, exchange.allowed));
        if let Some(upstream) = kept {
            match self.once(exchange, upstream, address, Some(exchange.allowed), client, told).await {
                // It was closed by the upstream a moment ago: that is worth one more try, on a new one.
                Err(Trouble::Upstream { stale: true, .. }) => {}
                ended => return ended,
            }
        }
        let upstream = Line::new(self.connect(exchange).await?);
        self.once(exchange, upstream, address, None, client, told).await
    }

    async fn connect(&self, exchange: &Exchange<'_>) -> Result<Wire, Trouble> {
        let failed = |kind| Trouble::Upstream { kind, stale: false };
        let peer = match exchange.leave {
            Leave::Permit(permit) => Destination::of(permit).peer(exchange.handle),
            Leave::Open(_) => exchange.handle.peer.http(None),
        };
        let peer = peer.map_err(|_| failed(UpstreamError::Connect))?;
        if let Some(&address) = peer.address().as_inet().filter(|_| !peer.is_tls()) {
            let connected = timeout(exchange.site.upstream.connect_timeout, TcpStream::connect(address)).await;
            let stream = connected.map_err(|_| failed(UpstreamError::Timeout))?.map_err(|_| failed(UpstreamError::Connect))?;
            stream.set_nodelay(true).map_err(|_| failed(UpstreamError::Connect))?;
            return Ok(Wire::tcp(stream, address));
        }
        let connected = self.connector.0.new_stream(&peer).await;
        connected.map(Wire::Layered).map_err(|error| failed(failure(error.etype())))
    }

    /// Sends the request on `upstream`, which was `kept` and taken at that moment if it is not new, and relays the answer.
    async fn once(
        &self,
        exchange: &Exchange<'_>,
        mut upstream: Line,
        address: Option<SocketAddr>,
        kept: Option<Instant>,
        client: &mut Client<'_>,
        told: &mut Told,
    ) -> Result<bool, Trouble> {
        let settings = &exchange.site.upstream;
        let (forwarded, reused) = (kept.unwrap_or_else(Instant::now), kept.is_some());
        if !write(&mut upstream.stream, &exchange.request, settings.read_timeout).await {
            return Err(Trouble::Upstream { kind: UpstreamError::Broken, stale: reused });
        }
        let deadline = forwarded + settings.first_byte_timeout.max(settings.read_timeout);
        let mut answer = loop {
            match head(&mut upstream, exchange, deadline.into(), client).await {
                Ok(answer) if answer.status == 101 => return Err(broken()),
                Ok(answer) if answer.is_interim() => {
                    let mut interim = answer.head;
                    interim.extend_from_slice(b"\r\n");
                    send(client.stream, &interim).await?;
                    upstream.received.drain(..answer.length);
                }
                Ok(answer) => break answer,
                Err(Trouble::Upstream { kind: UpstreamError::Broken, .. }) if reused && upstream.received.is_empty() => {
                    return Err(Trouble::Upstream { kind: UpstreamError::Broken, stale: true });
                }
                Err(trouble) => return Err(trouble),
            }
        };
        let came = Instant::now();
        exchange.gate.metrics.stage(Stage::Upstream, came - forwarded);
        told.came = Some((came, answer.status));
        exchange.handle.peer.health().answered();
        if answer.status == 401 {
            exchange.unauthorized();
        }
        upstream.received.drain(..answer.length);
        let keeps = !matches!(answer.content, Content::Open { .. });
        client.closing |= exchange.gate.draining();
        if client.closing || !keeps {
            answer.head.extend_from_slice(b"Connection: close\r\n");
        }
        answer.head.extend_from_slice(b"\r\n");
        // Answers that came together go out one behind the other, so that whoever reads them is woken once.
        tokio::task::yield_now().await;
        let clean = relay(&mut upstream, &mut answer, settings.read_timeout, client, told).await;
        // What came behind the answer was not asked for.
        if clean?
            && answer.kept
            && upstream.received.is_empty()
            && let Some(address) = address.filter(|_| address == exchange.handle.peer.address())
        {
            // While the name led to one place only, so that it is known where the connection goes.
            exchange.handle.kept.put(upstream, address, came);
        }
        Ok(keeps)
    }
}

impl Destination<'_> {
    fn bytes<'a>(
        &self,
        received: impl Iterator<Item = (&'a str, &'a [u8])>,
        host: &str,
        origin: &Origin,
        authority: &str,
        trace: Option<&Trace>,
    ) -> Vec<u8> {
        convert::permitted_bytes(self.permit, received, host, origin, authority, trace)
    }
}

fn broken() -> Trouble {
    Trouble::Upstream { kind: UpstreamError::Broken, stale: false }
}

/// Reads until `received` begins with a whole head, and watches whether the client leaves.
async fn head(
    Line { stream: upstream, received, room }: &mut Line,
    exchange: &Exchange<'_>,
    deadline: tokio::time::Instant,
    client: &mut Client<'_>,
) -> Result<Answer, Trouble> {
    loop {
        if !received.is_empty() {
            match relay::read(received, exchange.head_only, exchange.id(), room) {
                Reading::Complete(answer) => return Ok(answer),
                Reading::Broken(why) => {
                    tracing::debug!(id = exchange.id(), why, "the upstream's answer cannot be read");
                    return Err(broken());
                }
                Reading::Incomplete => {}
            }
        }
        let watched = client.buffer.len() < STASH;
        tokio::select! {
            biased;
            read = upstream.read_buf(received) => if !matches!(read, Ok(1..)) {
                return Err(broken());
            },
            // The next request may come before this one is answered; the end of the connection is the client's leaving.
            read = client.stream.read_buf(client.buffer), if watched => match read {
                Ok(1..) => {}
                Ok(0) => return Err(Trouble::Left { slow: false }),
                Err(error) => return Err(left(&error)),
            },
            () = client.patience.until(deadline) => {
                return Err(Trouble::Upstream { kind: UpstreamError::Timeout, stale: false });
            }
        }
    }
}

/// Writes the head and the content as it comes; whether it came to its end.
async fn relay(
    Line { stream: upstream, received, room }: &mut Line,
    answer: &mut Answer,
    patience: Duration,
    client: &mut Client<'_>,
    told: &mut Told,
) -> Result<bool, Trouble> {
    let mut outgoing = std::mem::take(&mut answer.head);
    loop {
        let part = answer.content.take(received).ok_or_else(broken)?;
        outgoing.extend_from_slice(received.get(..part).unwrap_or_default());
        received.drain(..part);
        if !outgoing.is_empty() {
            send(client.stream, &outgoing).await?;
        }
        outgoing.clear();
        (told.status, told.bytes) = (Some(answer.status), answer.content.came());
        if answer.content.is_done() {
            *room = outgoing;
            return Ok(true);
        }
        received.reserve(PIECE);
        let deadline = tokio::time::Instant::now() + patience;
        let watched = client.buffer.len() < STASH;
        tokio::select! {
            biased;
            read = upstream.read_buf(received) => match read {
                Ok(1..) => {}
                Ok(0) if matches!(answer.content, Content::Open { .. }) => return Ok(true),
                Ok(0) | Err(_) => return Err(broken()),
            },
            read = client.stream.read_buf(client.buffer), if watched => match read {
                Ok(1..) => {}
                Ok(0) => return Err(Trouble::Left { slow: false }),
                Err(error) => return Err(left(&error)),
            },
            () = client.patience.until(deadline) => {
                return Err(Trouble::Upstream { kind: UpstreamError::Timeout, stale: false });
            }
        }
    }
}

async fn refuse(
    gate: &Gate,
    site: &Site,
    refused: &Refused,
    head_only: bool,
    client: &mut Client<'_>,
    started: Instant,
    trace: Option<Box<Trace>>,
) -> Served {
    let answer = convert::refusal_bytes(&refused.refusal, &refused.id, !client.closing, head_only);
    let written = send(client.stream, &answer).await.is_ok();
    let code = if written { refused.refusal.status } else { 499 };
    let ended_at = Instant::now();
    let labels = Labels { provider: &site.rules.provider.name, door: refused.door, action: &refused.action, usual: None };
    gate.metrics.request(labels, code, ended_at - started);
    if let Some(trace) = trace {
        let (method, status) = (if head_only { "HEAD" } else { "GET" }, written.then_some(code));
        trace.end(&ended(started, method, site, refused.door, &refused.action, status));
    }
    if written && !client.closing { Served::Kept(ended_at) } else { Served::Ended }
}

/// Sends all of it to the client. The system bounds how long the client may take nothing, on each connection that is accepted.
async fn send(stream: &mut Wire, bytes: &[u8]) -> Result<(), Trouble> {
    let sent = match stream.write_all(bytes).await {
        Ok(()) => stream.flush().await,
        Err(error) => Err(error),
    };
    sent.map_err(|error| left(&error))
}

/// The client is gone, as a read or a write of its connection tells by `error`.
fn left(error: &io::Error) -> Trouble {
    Trouble::Left { slow: error.kind() == io::ErrorKind::TimedOut }
}

/// Writes all of it in time.
async fn write(stream: &mut Wire, bytes: &[u8], patience: Duration) -> bool {
    let mut all = pin!(async {
        stream.write_all(bytes).await?;
        stream.flush().await
    });
    // Nearly everything is taken at once, and then no timer is needed.
    let at_once = poll_fn(|cx| Poll::Ready(all.as_mut().poll(cx))).await;
    match at_once {
        Poll::Ready(written) => written.is_ok(),
        Poll::Pending => matches!(timeout(patience, all).await, Ok(Ok(()))),
    }
}
