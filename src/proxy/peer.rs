//! Where an upstream is: its addresses, resolved in the background, and how a connection to it is made.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use pingora::ErrorType;
use pingora::connectors::{ConnectorOptions, TransportConnector};
use pingora::protocols::tls::CaType;
use pingora::tls::CertificateDer;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{WrappedX509, parse_x509};

use super::errors::Seldom;
use super::health::Health;
use super::websocket::{TunnelEnd, WebSocketConnector};
use crate::config::{Origin, Upstream};
use crate::files;
use crate::metrics::{Metrics, UpstreamError};

/// How long a connection to an upstream is kept for the next request: Node closes idle ones after 5 s.
pub(super) const KEPT: Duration = Duration::from_secs(4);

/// The pool of connections below WebSockets.
const TUNNELS: u64 = 1;
/// The longest file of certificates or keys that is read, in bytes: a bundle of all public authorities has a quarter of a million.
pub(super) const LARGEST_PEM: u64 = 4 * 1024 * 1024;
/// How long the resolver may take: its own bounds are those of `resolv.conf`, and other sources of names have none.
const RESOLVED_WITHIN: Duration = Duration::from_secs(15);

/// A server with the addresses its name had when it was last resolved.
#[derive(Debug)]
pub struct Peer {
    origin: Origin,
    authority: String,
    provider: String,
    addresses: ArcSwapOption<SocketAddr>,
    server_name: String,
    ca: Option<Arc<CaType>>,
    connect_timeout: Duration,
    read_timeout: Duration,
    metrics: Metrics,
    health: Health,
    unresolved: Mutex<Seldom>,
}

/// Why there is no connection to make.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreachable {
    /// Its name was never resolved.
    #[error("`{0}` has no address")]
    Unresolved(String),
    /// A request would come back to this process.
    #[error("`{0}` is this rolegate itself")]
    Itself(String),
}

impl Peer {
    /// The server at `origin`, with the settings of `upstream`.
    ///
    /// # Errors
    /// The certificate authority's file cannot be read.
    pub fn new(origin: &Origin, upstream: &Upstream, metrics: Metrics) -> Result<Self, String> {
        let ca = upstream.ca.as_deref().map(authorities).transpose()?;
        let server_name = upstream.server_name.clone().unwrap_or_else(|| origin.host.clone());
        let peer = Self {
            origin: origin.clone(),
            authority: origin.authority(),
            provider: upstream.provider.clone(),
            addresses: ArcSwapOption::empty(),
            server_name,
            ca,
            connect_timeout: upstream.connect_timeout,
            read_timeout: upstream.read_timeout,
            metrics,
            health: Health::default(),
            unresolved: Mutex::default(),
        };
        if let Ok(address) = peer.origin.host.parse::<std::net::IpAddr>() {
            peer.addresses.store(Some(Arc::new(SocketAddr::new(address, peer.origin.port))));
        }
        Ok(peer)
    }

    /// Resolves the name now; when that fails, the last addresses stay.
    pub(super) async fn resolve(&self) {
        if self.origin.host.parse::<std::net::IpAddr>().is_ok() {
            return;
        }
        let asked = tokio::net::lookup_host((self.origin.host.as_str(), self.origin.port));
        let Ok(answered) = tokio::time::timeout(RESOLVED_WITHIN, asked).await else {
            return self.unresolved("the resolver does not answer");
        };
        match answered {
            // A server that listens on one family only mostly chose IPv4, whatever `localhost` is first resolved to.
            Ok(addresses) => match addresses.min_by_key(SocketAddr::is_ipv6) {
                Some(address) => {
                    if self.addresses.load().as_deref() != Some(&address) {
                        tracing::info!(host = self.origin.host, %address, "upstream resolved");
                        self.addresses.store(Some(Arc::new(address)));
                    }
                }
                None => self.unresolved("the name has no address"),
            },
            Err(error) => self.unresolved(&error.to_string()),
        }
    }

    fn unresolved(&self, why: &str) {
        self.metrics.upstream_error(&self.provider, UpstreamError::Resolve);
        let Some(times) = self.unresolved.lock().another(Instant::now()) else { return };
        tracing::warn!(
            host = self.origin.host,
            error = why,
            times,
            "upstream could not be resolved; its last address stays in use"
        );
    }

    /// Where it is now.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.addresses.load().as_deref().copied()
    }

    /// Whether it answers.
    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// Its URL, for operators.
    pub(super) fn url(&self) -> String {
        format!("{}://{}", if self.origin.tls { "https" } else { "http" }, self.authority)
    }

    /// The `Host` that names this server itself.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What the proxy engine connects to, for a tunnel with its end where the connection may become one.
    ///
    /// # Errors
    /// The name was never resolved, or leads to this very process.
    pub(super) fn http(&self, tunnel: Option<&TunnelEnd>) -> Result<HttpPeer, Unreachable> {
        if self.health.is_itself() {
            return Err(Unreachable::Itself(self.origin.host.clone()));
        }
        self.anywhere(tunnel)
    }

    /// The same for a look at what is there, which nothing is sent to that could come back.
    ///
    /// # Errors
    /// The name was never resolved.
    pub(super) fn anywhere(&self, tunnel: Option<&TunnelEnd>) -> Result<HttpPeer, Unreachable> {
        let unresolved = || Unreachable::Unresolved(self.origin.host.clone());
        let address = self.addresses.load().as_deref().copied().ok_or_else(unresolved)?;
        let mut peer = HttpPeer::new(address, self.origin.tls, self.server_name.clone());
        let options = &mut peer.options;
        options.connection_timeout = Some(self.connect_timeout);
        options.total_connection_timeout = Some(self.connect_timeout);
        // A WebSocket may be silent for as long as both sides like.
        options.read_timeout = tunnel.is_none().then_some(self.read_timeout);
        options.write_timeout = Some(self.read_timeout);
        options.idle_timeout = Some(KEPT);
        options.ca.clone_from(&self.ca);
        if let Some(end) = tunnel {
            options.custom_l4 = Some(Arc::new(WebSocketConnector { timeout: self.connect_timeout, end: end.clone() }));
            // A connection that was made for other requests must not serve a WebSocket.
            peer.group_key = TUNNELS;
        }
        Ok(peer)
    }
}

/// The engine's connector, which has no form to print.
pub(super) struct Connector(pub(super) Arc<TransportConnector>);

impl Connector {
    pub(super) fn new() -> Self {
        Self(Arc::new(TransportConnector::new(None)))
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

/// What an error of the engine's says of an upstream.
pub(super) fn failure(error: &ErrorType) -> UpstreamError {
    match error {
        ErrorType::ConnectTimedout | ErrorType::ReadTimedout | ErrorType::WriteTimedout | ErrorType::TLSHandshakeTimedout => {
            UpstreamError::Timeout
        }
        ErrorType::ConnectError
        | ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::TLSHandshakeFailure
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError
        | ErrorType::SocketError => UpstreamError::Connect,
        _ => UpstreamError::Broken,
    }
}

/// What the lookups' own connector keeps.
pub(super) fn connector_options(kept: usize) -> ConnectorOptions {
    ConnectorOptions::new(kept)
}

/// The certificates of a PEM file.
pub(super) fn authorities(path: &Path) -> Result<Arc<CaType>, String> {
    let mut store = Vec::new();
    for der in certificates(path)? {
        // The engine's own parser panics on what is no certificate.
        x509_parser::parse_x509_certificate(&der).map_err(|error| error.to_string())?;
        store.push(WrappedX509::new(der.to_vec(), parse_x509));
    }
    if store.is_empty() { Err("holds no certificate".to_owned()) } else { Ok(store.into()) }
}

/// The certificates of a PEM file, in DER.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let blocks = blocks(path)?.into_iter().filter(|(label, _)| label == "CERTIFICATE");
    Ok(blocks.map(|(_, contents)| CertificateDer::from(contents)).collect())
}

/// The blocks of a PEM file: the label of each, and what it holds.
pub(super) fn blocks(path: &Path) -> Result<Vec<(String, Vec<u8>)>, String> {
    let text = files::bytes(path, LARGEST_PEM).map_err(|error| error.to_string())?;
    let blocks = x509_parser::pem::Pem::iter_from_buffer(&text);
    blocks.map(|block| block.map(|block| (block.label, block.contents)).map_err(|error| error.to_string())).collect()
}
