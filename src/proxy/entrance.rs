//! Owns accepted connections: counts them, bounds them, speaks TLS, and hands each to the proxy engine.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::{ALPN, GetSocketDigest, SocketDigest, Stream};
use pingora::server::ShutdownWatch;
use tokio::net::{TcpListener, TcpStream};

use super::gate::Gate;
use super::tls::Certificate;
use crate::metrics::RejectedCause;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long to wait when the process has no file descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// Accepts connections for one application.
#[derive(Debug)]
pub(super) struct Entrance<A> {
    app: Arc<A>,
    gate: Arc<Gate>,
    certificate: Option<Arc<Certificate>>,
    per_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl<A> Clone for Entrance<A> {
    fn clone(&self) -> Self {
        Self {
            app: Arc::clone(&self.app),
            gate: Arc::clone(&self.gate),
            certificate: self.certificate.clone(),
            per_address: Arc::clone(&self.per_address),
        }
    }
}

impl<A: HttpServerApp + Send + Sync + 'static> Entrance<A> {
    pub(super) fn new(app: Arc<A>, gate: Arc<Gate>, certificate: Option<Arc<Certificate>>) -> Self {
        Self { app, gate, certificate, per_address: Arc::default() }
    }

    /// Accepts until `shutdown` turns true.
    pub(super) async fn accept(self, listener: TcpListener, mut shutdown: ShutdownWatch) {
        loop {
            let accepted = tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Some(guard) = self.admit(peer) else { continue };
                    let entrance = self.clone();
                    let shutdown = shutdown.clone();
                    tokio::spawn(async move {
                        entrance.serve(stream, peer, shutdown).await;
                        drop(guard);
                    });
                }
                Err(error) => {
                    // Out of descriptors, or a client that left between SYN and accept: the listener itself is well.
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(EXHAUSTED).await;
                }
            }
        }
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

    async fn serve(&self, stream: TcpStream, peer: SocketAddr, mut shutdown: ShutdownWatch) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "connection closed before it was served");
            return;
        }
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        // A later look at the descriptor could find another connection's.
        let _ = digest.peer_addr.set(Some(peer.into()));
        let mut stream = L4Stream::from(stream);
        stream.set_socket_digest(digest);
        let stream: Stream = match &self.certificate {
            None => Box::new(stream),
            Some(certificate) => {
                let acceptor = certificate.acceptor();
                let handshake = tokio::time::timeout(HANDSHAKE, acceptor.tls_handshake(stream));
                let done = tokio::select! {
                    done = handshake => done,
                    _ = shutdown.wait_for(|stop| *stop) => return,
                };
                match done {
                    Ok(Ok(stream)) => Box::new(stream),
                    Ok(Err(error)) => {
                        self.gate.metrics.rejected(RejectedCause::Tls);
                        tracing::debug!(%error, "TLS handshake failed");
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
            self.app.process_new(stream, &shutdown).await;
        } else {
            self.requests(stream, &shutdown).await;
        }
    }

    /// One HTTP/1 request after the other, until either side has enough.
    async fn requests(&self, stream: Stream, shutdown: &ShutdownWatch) {
        let idle = self.gate.config.limits.keepalive_idle.as_secs().max(1);
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive((!*shutdown.borrow()).then_some(idle));
        let mut result = self.app.process_new_http(session, shutdown).await;
        while let Some((stream, settings)) = result.map(|reused| reused.consume()) {
            let mut session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            result = self.app.process_new_http(session, shutdown).await;
        }
    }
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
