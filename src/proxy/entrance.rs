//! Owns accepted connections: counts and bounds them, speaks TLS, reads each head before the proxy engine does, and hands over
//! one request at a time.

use std::collections::HashMap;
use std::io;
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use parking_lot::Mutex;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::{ALPN, GetSocketDigest, Stream};
use pingora::server::ShutdownWatch;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::chunks::Chunks;
use super::convert;
use super::errors::{Told, Unaccepted};
use super::fast_path::{Client, FastPath, Served};
use super::fence::{Fence, Handover};
use super::gate::{Gate, ended};
use super::head::{self, Fields, Framing, Head, Malformed, Reading};
use super::patience::Patience;
use super::sockets::WAITING;
use super::stand_in::stand_in;
use super::streams::{Bounds, Streams};
use super::tls::Certificate;
use super::websocket::TunnelEnd;
use super::wire::{self, Wire};
use crate::metrics::RejectedCause;
use crate::model::{Body, RawRequest, Reason};
use crate::pipeline::{Admission, Moment};
use crate::rules::refusal::{Filling, Refusal};
use crate::traces::Walked;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long to wait when the process has no file descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(50);
/// What is read of a head at once: nearly every head whole. Each idle connection holds as much.
const READ_AT_ONCE: usize = 2048;
/// How much the system takes for a client over TLS that is not on its way yet, in bytes.
const UNSENT: u32 = 128 * 1024;
/// The length of the client's connection preface (RFC 9113 §3.4).
const PREFACE: usize = 24;
/// How long a connection on which no request has begun is kept once the end has come: one that is on its way is still answered,
/// with `Connection: close`, and a client that asks on is not met by a closed door (RFC 9112 §9.6 asks clients to be ready for
/// that, and not all of them are).
const GRACE: Duration = Duration::from_millis(300);
/// How long an h2 peer may take to answer a PING.
const PONG: Duration = Duration::from_secs(2);
/// Why chunked content is refused.
pub(super) const BROKEN_CHUNKS: &str = "the chunked content is malformed";
/// How much is read from a client after it was refused, in bytes, and for how long.
const DRAINED: usize = 256 * 1024;
const FAREWELL: Duration = Duration::from_secs(1);

/// Accepts connections for one application.
#[derive(Debug)]
pub(super) struct Entrance<A> {
    app: Arc<A>,
    gate: Arc<Gate>,
    certificate: Option<Arc<Certificate>>,
    /// Takes what it can before the engine; none where the operator switched it off.
    fast_path: Option<Arc<FastPath>>,
    per_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl<A> Clone for Entrance<A> {
    fn clone(&self) -> Self {
        Self {
            app: Arc::clone(&self.app),
            gate: Arc::clone(&self.gate),
            certificate: self.certificate.clone(),
            fast_path: self.fast_path.clone(),
            per_address: Arc::clone(&self.per_address),
        }
    }
}

impl<A: HttpServerApp + Send + Sync + 'static> Entrance<A> {
    pub(super) fn new(app: Arc<A>, gate: Arc<Gate>, certificate: Option<Arc<Certificate>>) -> Self {
        let fast_path = gate.config.listen.fast_path.then(|| Arc::new(FastPath::new()));
        Self { app, gate, certificate, fast_path, per_address: Arc::default() }
    }

    /// Accepts until `shutdown` turns true, and then what waits in the kernel's queue: to its clients it was accepted long ago, and
    /// the end of the listener would reset it.
    pub(super) async fn accept(self, listener: &TcpListener, mut shutdown: ShutdownWatch) {
        let mut unaccepted = Unaccepted::of("a connection");
        loop {
            let accepted = tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.begin(stream, peer, &shutdown),
                Err(error) => {
                    unaccepted.tell(&error);
                    tokio::time::sleep(EXHAUSTED).await;
                }
            }
        }
        // A queue that a service manager holds fills up again.
        for _ in 0..WAITING {
            // A client that has left meanwhile is no reason to leave the others.
            match waiting(listener) {
                Ok((stream, peer)) => self.begin(stream, peer, &shutdown),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        unaccepted.tell(&error);
                    }
                    return;
                }
            }
        }
    }

    /// Serves a connection, if there is room for it.
    fn begin(&self, stream: TcpStream, peer: SocketAddr, shutdown: &ShutdownWatch) {
        let Some(guard) = self.admit(peer) else { return };
        let (entrance, shutdown) = (self.clone(), shutdown.clone());
        tokio::spawn(async move {
            entrance.serve(stream, peer, shutdown).await;
            drop(guard);
        });
    }

    /// Counts a connection, or closes it when there are too many.
    fn admit(&self, peer: SocketAddr) -> Option<Guard> {
        let limits = &self.gate.config.limits;
        let address = peer.ip().to_canonical();
        if self.gate.open.load(Ordering::Acquire) >= limits.connections {
            self.gate.metrics.rejected(RejectedCause::Connections);
            return None;
        }
        {
            let mut per_address = self.per_address.lock();
            let count = per_address.entry(address).or_insert(0);
            if *count >= limits.connections_per_address {
                self.gate.metrics.rejected(RejectedCause::ConnectionsPerAddress);
                return None;
            }
            *count += 1;
        }
        let open = self.gate.open.fetch_add(1, Ordering::AcqRel) + 1;
        self.gate.metrics.connections(open);
        Some(Guard { gate: Arc::clone(&self.gate), per_address: Arc::clone(&self.per_address), address })
    }

    async fn serve(&self, stream: TcpStream, peer: SocketAddr, shutdown: ShutdownWatch) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "connection closed before it was served");
            return;
        }
        // Below h2 the engine has a bound of its own for each stream, and has to be woken while its client is only slow.
        let unsent = self.certificate.is_some().then_some(UNSENT);
        if let Err(error) = wire::bound(&stream, self.gate.config.limits.send_idle, unsent) {
            tracing::debug!(%error, "a client that takes nothing of an answer is kept");
        }
        let stream: Stream = match &self.certificate {
            None => return self.requests(Wire::tcp(stream, peer), peer, shutdown).await,
            Some(certificate) => {
                let digest = wire::digest(&stream, peer);
                let mut stream = L4Stream::from(stream);
                stream.set_socket_digest(digest);
                let acceptor = certificate.acceptor();
                let handshake = tokio::time::timeout(HANDSHAKE, acceptor.tls_handshake(stream));
                match handshake.await {
                    Ok(Ok(stream)) => Box::new(stream),
                    Ok(Err(error)) => {
                        self.gate.metrics.rejected(RejectedCause::Tls);
                        tracing::debug!(error = %Told(&error), "TLS handshake failed");
                        return;
                    }
                    Err(_) => {
                        self.gate.metrics.rejected(RejectedCause::Tls);
                        return;
                    }
                }
            }
        };
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            self.streams(stream, shutdown).await;
        } else {
            self.requests(Wire::Layered(stream), peer, shutdown).await;
        }
    }

    /// Hands an h2 connection over once its preface came: the engine itself would wait for that without an end.
    async fn streams(&self, mut stream: Stream, shutdown: ShutdownWatch) {
        let mut preface = vec![0; PREFACE];
        let deadline = tokio::time::timeout(self.gate.config.limits.header_deadline, stream.read_exact(&mut preface));
        // Each waits with a watch of its own: the engine hears of the end only through one that has not seen it yet.
        let came = tokio::select! {
            came = deadline => came,
            () = end(shutdown.clone()).then(|()| tokio::time::sleep(GRACE)) => return,
        };
        match came {
            Ok(Ok(_)) => {
                let heard = Arc::default();
                let streams = Streams::new(Bounds::of(&self.gate.config.limits));
                let fence = Fence::streams(Wire::Layered(stream), preface, Arc::clone(&heard), streams);
                tokio::select! {
                    // First, so that what it hears comes after the PING.
                    biased;
                    () = unanswered(&heard, shutdown.clone()) => {}
                    _ = self.app.process_new(Box::new(fence), &shutdown) => {}
                }
            }
            Ok(Err(_)) => {}
            Err(_) => self.gate.metrics.rejected(RejectedCause::HeaderDeadline),
        }
    }

    /// One HTTP/1 request after the other, until either side has enough.
    async fn requests(&self, mut stream: Wire, peer: SocketAddr, shutdown: ShutdownWatch) {
        let limits = &self.gate.config.limits;
        let (mut buffer, mut room) = (Vec::new(), Fields::default());
        let tls = self.certificate.is_some();
        let origin = convert::strangers(peer.ip(), tls, &self.gate.config.listen.trusted_proxies);
        // Of what was not read nothing is believed.
        let client = origin.as_ref().and_then(|origin| origin.client);
        // A client that connects and says nothing gets no longer than one that says half a head.
        let mut deadline = Instant::now() + limits.header_deadline;
        let mut ended = pin!(end(shutdown.clone()).fuse());
        let (mut for_client, mut for_upstream) = (Patience::default(), Patience::default());
        loop {
            let head = match self.next(&mut stream, &mut buffer, &mut room, deadline, &mut for_client, ended.as_mut()).await {
                Next::Head(head) => head,
                Next::Closed => return,
                Next::Late => {
                    self.gate.metrics.rejected(RejectedCause::HeaderDeadline);
                    self.dismiss(stream, &self.late(buffer.starts_with(b"HEAD "))).await;
                    return;
                }
                Next::Refused(malformed) => {
                    let answer = self.refuse(&malformed, client);
                    self.dismiss(stream, &answer).await;
                    return;
                }
            };
            if let Some(fast_path) = &self.fast_path {
                let closing = *shutdown.borrow() || self.gate.draining();
                let origin = origin.as_ref();
                let patience = &mut for_upstream;
                let mut client = Client { stream: &mut stream, buffer: &mut buffer, peer, tls, origin, patience, closing };
                match fast_path.serve(&self.gate, &head, &mut client).await {
                    Served::Kept(at) => {
                        room = head.fields;
                        deadline = Instant::from_std(at) + limits.keepalive_idle;
                        continue;
                    }
                    Served::Ended => return self.dismiss(stream, &[]).await,
                    Served::Declined => {}
                }
            }
            let mut bytes = std::mem::take(&mut buffer);
            let mut chunks = Chunks::default();
            let chunked = match head.framing {
                Framing::Chunked => chunks.take(bytes.get(head.length..).unwrap_or_default()),
                Framing::Length(_) => 0,
            };
            if chunks.is_broken() {
                let answer = self.refuse(&head::told(&bytes, BROKEN_CHUNKS), client);
                return self.dismiss(stream, &answer).await;
            }
            let target = bytes.get(head.target.clone()).unwrap_or_default().to_vec();
            let shown = stand_in(&target);
            let mut length = head.length;
            if let Some(shown) = &shown {
                // It is never shorter.
                length += shown.len().saturating_sub(target.len());
                bytes.splice(head.target.clone(), shown.iter().copied());
            }
            let handover = Arc::new(Handover::default());
            // What has content does not become a tunnel: the content's bounds would be lost.
            let tunnel = (head.upgrade && head.framing == Framing::Length(0)).then(|| TunnelEnd::new(&shutdown));
            let ours = Arc::clone(&handover);
            let fence = match (head.framing, &tunnel) {
                (_, Some(tunnel)) => Fence::tunnel(stream, bytes, tunnel.ending(), ours),
                (Framing::Length(content), None) => {
                    let length = u64::try_from(length).unwrap_or(u64::MAX);
                    Fence::around(stream, bytes, length.saturating_add(content), ours)
                }
                (Framing::Chunked, None) => Fence::chunked(stream, bytes, length + chunked, chunks, ours),
            };
            let handed = Handed { target, shown, handover: Arc::clone(&handover), tunnel };
            let mut session = ServerSession::new_http1(Box::new(fence));
            session.set_keepalive((!*shutdown.borrow()).then_some(limits.keepalive_idle.as_secs().max(1)));
            // A tunnel may be silent for as long as both sides like.
            session.set_read_timeout(handed.tunnel.is_none().then_some(limits.body_idle));
            session.set_connection_user_context(Some(Box::new(handed)));
            let reused = self.app.process_new_http(session, &shutdown).await;
            if let Some((stream, bytes)) = handover.refused() {
                // By the engine itself, before any hook: what it would have said is not what clients know.
                let answer = self.refuse(&head::told(&bytes, "the head has more than one reading"), client);
                return self.dismiss(stream, &answer).await;
            }
            let Some((returned, _)) = reused.map(|reused| reused.consume()) else { return };
            let Ok(fence) = returned.into_any().downcast::<Fence>() else { return };
            let Some((inner, rest)) = fence.into_parts() else { return };
            stream = inner;
            buffer = rest;
            deadline = Instant::now() + limits.keepalive_idle;
        }
    }

    /// Reads until `buffer` begins with a whole head: until `deadline` for its first byte, the header deadline for the rest.
    async fn next(
        &self,
        stream: &mut Wire,
        buffer: &mut Vec<u8>,
        room: &mut Fields,
        mut deadline: Instant,
        patience: &mut Patience,
        mut ended: Pin<&mut (impl FusedFuture<Output = ()> + Send)>,
    ) -> Next {
        let limits = &self.gate.config.limits;
        let mut ending = ended.is_terminated();
        if ending {
            deadline = deadline.min(Instant::now() + GRACE);
        }
        // Half a head at the end is no request yet: nobody has acted on it, and waiting for the rest would hold up the end.
        let mut began = ending;
        loop {
            // An empty line before a request is left over from the one before (RFC 9112 §2.2).
            while buffer.starts_with(b"\r\n") {
                buffer.drain(..2);
            }
            match head::read(buffer, limits.header_bytes, limits.header_fields, room) {
                Reading::Complete(head) => return Next::Head(head),
                Reading::Refused(malformed) => return Next::Refused(malformed),
                Reading::Incomplete => {}
            }
            if !buffer.is_empty() && !began {
                began = true;
                deadline = Instant::now() + limits.header_deadline;
            }
            buffer.reserve(READ_AT_ONCE);
            let read = tokio::select! {
                biased;
                read = stream.read_buf(buffer) => Some(read),
                () = &mut ended, if !ending => {
                    (ending, began) = (true, true);
                    deadline = deadline.min(Instant::now() + GRACE);
                    continue;
                }
                () = patience.until(deadline) => None,
            };
            match read {
                Some(Ok(0) | Err(_)) => return Next::Closed,
                Some(Ok(_)) => {}
                None if !buffer.is_empty() && !ending => return Next::Late,
                None => return Next::Closed,
            }
        }
    }

    /// Records a head that has no one reading; the answer in the provider's words. Of what a trusted proxy says in such a head
    /// nothing is believed, and its own address is not the `client`'s.
    fn refuse(&self, malformed: &Malformed, client: Option<IpAddr>) -> Vec<u8> {
        let (now, mut walked) = (Moment::now(), Walked::default());
        self.gate.metrics.rejected(head::cause(malformed.why));
        let served = malformed.host.as_deref().and_then(|host| self.gate.site_for(host)).map(|(_, site)| site);
        let Some(site) = served.or_else(|| self.gate.first_site()) else { return Vec::new() };
        let raw = RawRequest {
            method: &malformed.method,
            target: &malformed.target,
            host: malformed.host.as_deref(),
            headers: Vec::new(),
            body: Body::Absent,
            content: None,
            client,
            correlation: None,
        };
        let reason = Reason::FramingInvalid;
        let admission = self.gate.pipeline.refuse_early(&raw, site.clone(), reason, malformed.why, now, &mut walked);
        // What was not read speaks of no trace.
        let trace = self.gate.trace(&admission, iter::empty(), &walked);
        match admission {
            Admission::Refused(refused) => {
                if let Some(trace) = trace {
                    trace.end(&ended(now.at, raw.method, &site, refused.door, &refused.action, Some(refused.refusal.status)));
                }
                convert::refusal_bytes(&refused.refusal, &refused.id, false, malformed.method == "HEAD")
            }
            Admission::Open(_) | Admission::Permitted(_) | Admission::Observed { .. } => Vec::new(),
        }
    }

    /// What a client is told whose head did not come in time (RFC 9110 §15.5.9).
    fn late(&self, head_only: bool) -> Vec<u8> {
        let site = self.gate.first_site();
        let words = site.as_ref().and_then(|site| site.rules.provider.words_for(None, Reason::FramingInvalid));
        let filling = Filling { message: "", param: "", id: "" };
        let body = words.map_or_else(|| "{}".to_owned(), |words| words.fill(filling));
        convert::refusal_bytes(&Refusal { status: 408, body, headers: Vec::new() }, "", false, head_only)
    }

    /// Answers and closes. What still comes is read for a moment: unread input can turn the close into a reset that eats
    /// the answer.
    async fn dismiss(&self, mut stream: Wire, answer: &[u8]) {
        let farewell = async {
            stream.write_all(answer).await?;
            stream.flush().await?;
            AsyncWriteExt::shutdown(&mut stream).await?;
            let mut rest = [0; 4096];
            let mut drained = 0;
            while drained < DRAINED {
                match stream.read(&mut rest).await? {
                    0 => break,
                    count => drained += count,
                }
            }
            Ok::<(), std::io::Error>(())
        };
        // The client may be gone, or may never stop sending; either way this is the end.
        drop(tokio::time::timeout(FAREWELL, farewell).await);
    }
}

/// The next connection in the kernel's queue. The runtime would say that there is none where it has not been told of it yet.
fn waiting(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, peer) = SockRef::from(listener).accept()?;
    socket.set_nonblocking(true)?;
    let peer = peer.as_socket().ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((TcpStream::from_std(socket.into())?, peer))
}

/// Waits for the end of the process.
async fn end(mut shutdown: ShutdownWatch) {
    // That nobody can say so any more is the end, too.
    drop(shutdown.wait_for(|stop| *stop).await);
}

/// Waits for the end of the process and a peer that says nothing then. The engine takes leave of an h2 connection with a PING
/// and waits for its answer without an end: a laptop that sleeps would hold up the process until `listen.drain` is over.
async fn unanswered(heard: &AtomicBool, shutdown: ShutdownWatch) {
    end(shutdown).await;
    heard.store(false, Ordering::Release);
    tokio::time::sleep(PONG).await;
    if heard.load(Ordering::Acquire) {
        std::future::pending::<()>().await;
    }
}

/// What came next on a connection.
enum Next {
    Head(Head),
    Refused(Malformed),
    Late,
    Closed,
}

/// What goes with a connection to the gateway, which marks it as seen.
#[derive(Debug)]
pub(super) struct Handed {
    /// The target as received: the engine drops a fragment, which is one of the things to be judged.
    pub(super) target: Vec<u8>,
    /// What the engine is shown instead of it, where that is something else.
    pub(super) shown: Option<Vec<u8>>,
    /// What is told of the request meanwhile.
    pub(super) handover: Arc<Handover>,
    /// The end of the tunnel that the connection may become; none where it may not.
    pub(super) tunnel: Option<TunnelEnd>,
}

/// Counts a connection for as long as it lives.
#[derive(Debug)]
struct Guard {
    gate: Arc<Gate>,
    per_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut per_address = self.per_address.lock();
        if let Some(count) = per_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                per_address.remove(&self.address);
            }
        }
        drop(per_address);
        let open = self.gate.open.fetch_sub(1, Ordering::AcqRel) - 1;
        self.gate.metrics.connections(open);
    }
}
