//! Exchanges with an upstream beside the traffic: to see whether it answers, and who answers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::{Error, ErrorType};
use tokio::time::timeout;

use super::errors::Told;
use super::lookup;
use super::peer::Peer;
use crate::identity::Reply;

/// The longest answer that is read, in bytes; what follows is left.
const LONGEST_ANSWER: usize = 64 * 1024;
/// The longest wait for an answer to a question of ours; the operator's bounds are for clients, who may ask for more.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Connects anew each time: a kept connection says nothing about the next one.
pub(super) struct Prober(Connector<()>);

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prober")
    }
}

/// Why a server does not answer; the texts are for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// Its name has no address.
    #[error("{0}")]
    Unresolved(String),
    /// Nothing listens at its address, or nothing leads there.
    #[error("no connection: {0}")]
    Connect(String),
    /// It took too long.
    #[error("no answer in time")]
    Slow,
    /// No agreement on TLS, a wrong name or an unknown authority among the reasons.
    #[error("no TLS: {0}")]
    Tls(String),
    /// It is this very process.
    #[error("it is this rolegate itself: requests would go round until no connection is left, and are refused (502)")]
    Itself,
    /// What came is no answer.
    #[error("no answer: {0}")]
    Broken(String),
}

impl Prober {
    pub(super) fn new() -> Self {
        Self(Connector::new(Some(super::peer::connector_options(1))))
    }

    /// Whether `peer` takes connections; where that is not enough, whether it also answers a HEAD for this target within this
    /// time. `own` are the addresses that this process listens at.
    pub(super) async fn look(&self, peer: &Peer, whole: Option<(&str, Duration)>, own: &[SocketAddr]) -> Result<(), Trouble> {
        let mut session = self.connect(peer).await?;
        let end = |address: Option<&pingora::protocols::l4::socket::SocketAddr>| address.and_then(|one| one.as_inet().copied());
        if is_own(end(session.client_addr()), end(session.server_addr()), own) {
            return Err(Trouble::Itself);
        }
        let Some((target, patience)) = whole else { return Ok(()) };
        let head = lookup::head_for("HEAD", target, peer.authority()).map_err(Trouble::Broken)?;
        let asked = async {
            session.write_request_header(Box::new(head)).await?;
            session.finish_request_body().await?;
            session.read_response_header().await
        };
        timeout(patience, asked).await.map_err(|_| Trouble::Slow)?.map_err(|error| trouble(&error))
    }

    /// Sends `head` to `peer` and reads the answer, as much of it as is of use.
    pub(super) async fn exchange(&self, peer: &Peer, head: RequestHeader) -> Result<Reply, Trouble> {
        let mut session = self.connect(peer).await?;
        let asked = async {
            session.write_request_header(Box::new(head)).await?;
            session.finish_request_body().await?;
            session.read_response_header().await?;
            let Some((status, headers)) = lookup::head(&session) else {
                return Err(Error::explain(ErrorType::ReadError, "no head"));
            };
            let mut body = Vec::new();
            // What came before it broke off is an answer all the same.
            while let Ok(Some(chunk)) = session.read_response_body().await {
                body.extend_from_slice(&chunk);
                if body.len() > LONGEST_ANSWER {
                    break;
                }
            }
            Ok(Reply { status, headers, body })
        };
        timeout(PATIENCE, asked).await.map_err(|_| Trouble::Slow)?.map_err(|error| trouble(&error))
    }

    async fn connect(&self, peer: &Peer) -> Result<HttpSession, Trouble> {
        if peer.address().is_none() {
            // The first resolution may be under way still.
            peer.resolve().await;
        }
        let target = peer.anywhere(None).map_err(|error| Trouble::Unresolved(error.to_string()))?;
        let connected = self.0.get_http_session(&target).await;
        connected.map(|(session, _)| session).map_err(|error| trouble(&error))
    }
}

/// Whether a connection from `local` to `remote` ends at one of the listeners `own`.
fn is_own(local: Option<SocketAddr>, remote: Option<SocketAddr>, own: &[SocketAddr]) -> bool {
    let Some(remote) = remote else { return false };
    let at = remote.ip().to_canonical();
    // Whoever connects to an address of this machine does so from that address, or from within the loopback network.
    let here = at.is_loopback() || local.is_some_and(|local| local.ip().to_canonical() == at);
    let meets = |listener: &SocketAddr| {
        let ip = listener.ip().to_canonical();
        listener.port() == remote.port() && (ip == at || ip.is_unspecified() && here)
    };
    own.iter().any(meets)
}

/// What a failure of the engine means to the operator.
fn trouble(error: &Error) -> Trouble {
    let cause = error.root_cause();
    match error.root_etype() {
        ErrorType::ConnectTimedout | ErrorType::ReadTimedout | ErrorType::WriteTimedout | ErrorType::TLSHandshakeTimedout => {
            Trouble::Slow
        }
        ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert | ErrorType::HandshakeError => Trouble::Tls(handshake(error)),
        ErrorType::ConnectError | ErrorType::ConnectRefused | ErrorType::ConnectNoRoute | ErrorType::SocketError => {
            // Nothing was read yet, so that the text holds nothing but what the system said.
            Trouble::Connect(cause.to_string())
        }
        ErrorType::InvalidHTTPHeader => Trouble::Broken("what comes is not HTTP".to_owned()),
        // The engine's own texts may hold what it read.
        _ => Trouble::Broken(cause.downcast_ref::<io::Error>().map_or_else(|| Told(error).to_string(), ToString::to_string)),
    }
}

/// What the handshake itself said: the engine has that inside the texts around it, and an address for a cause.
fn handshake(error: &Error) -> String {
    let mut inner = error;
    while let Some(cause) = inner.cause.as_ref().and_then(|cause| cause.downcast_ref::<Box<Error>>()) {
        inner = cause;
    }
    let text = inner.context.as_ref().map_or_else(|| inner.to_string(), |context| context.as_str().to_owned());
    let said = text.rsplit_once("cause: ").map_or(text.as_str(), |(_, said)| said);
    said.split_once(", SNI: ").map_or(said, |(said, _)| said).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_ends_at_an_own_listener_is_known() {
        let at = |text: &str| Some(text.parse::<SocketAddr>().unwrap());
        let own = |listeners: &[&str], local: &str, remote: &str| {
            let listeners: Vec<SocketAddr> = listeners.iter().map(|text| text.parse().unwrap()).collect();
            is_own(at(local), at(remote), &listeners)
        };
        assert!(own(&["127.0.0.1:8080"], "127.0.0.1:40000", "127.0.0.1:8080"));
        assert!(own(&["0.0.0.0:8080"], "127.0.0.1:40000", "127.0.0.2:8080"));
        assert!(own(&["0.0.0.0:8080"], "10.0.0.1:40000", "10.0.0.1:8080"));
        assert!(own(&["[::]:8080"], "[::ffff:10.0.0.1]:40000", "10.0.0.1:8080"));
        assert!(own(&["[::1]:1", "[::]:8080"], "[::1]:40000", "[::1]:8080"));
        assert!(!own(&["0.0.0.0:8080"], "10.0.0.1:40000", "10.0.0.2:8080"), "another machine");
        assert!(!own(&["127.0.0.1:8080"], "127.0.0.1:40000", "127.0.0.1:3000"), "another port");
        assert!(!own(&["127.0.0.1:8080"], "10.0.0.1:40000", "10.0.0.1:8080"), "another listener of that port");
        assert!(!own(&[], "127.0.0.1:40000", "127.0.0.1:8080"));
    }
}
