//! The client that asks an upstream about its callers: built from scratch, pooled, bounded, never given a client's header
//! but the credential.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;

use super::errors::Told;
use super::health::Underway;
use super::peer::Peer;
use crate::identity::{Ask, AskError, Question, Reply};
use crate::metrics::UpstreamError;

/// How often at most it is told that an answer was too large.
const TOLD: Duration = Duration::from_secs(60);

/// The most interim answers before the one that counts: servers send one or two.
const MOST_INTERIM: u8 = 16;

/// Asks one upstream, and the other servers that its provider names.
pub struct LookupClient {
    connector: Connector<()>,
    upstream: Arc<Peer>,
    bases: BTreeMap<String, Arc<Peer>>,
    path_prefix: String,
    first_byte_timeout: Duration,
    /// The longest answer that is read, in bytes.
    longest: usize,
    /// When it was last told that one was too large.
    told: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for LookupClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LookupClient").field("upstream", &self.upstream).field("bases", &self.bases).finish_non_exhaustive()
    }
}

impl LookupClient {
    /// Asks `upstream` below `path_prefix`, and each of `bases` by its name; reads answers of up to `longest` bytes.
    #[must_use]
    pub fn new(
        upstream: Arc<Peer>,
        bases: BTreeMap<String, Arc<Peer>>,
        path_prefix: String,
        first_byte_timeout: Duration,
        longest: usize,
    ) -> Self {
        let connector = Connector::new(Some(super::peer::connector_options(128)));
        Self { connector, upstream, bases, path_prefix, first_byte_timeout, longest, told: Mutex::new(None) }
    }

    /// Tells that an answer was too large, once a minute at most: until the bound is raised each request meets it.
    fn too_large(&self, question: &Question) -> AskError {
        let mut told = self.told.lock();
        if told.is_none_or(|at| at.elapsed() >= TOLD) {
            *told = Some(Instant::now());
            let path = question.target.split('?').next().unwrap_or_default();
            tracing::warn!(path, bytes = self.longest, "the answer to a lookup is larger than `limits.lookup_body`: raise it");
        }
        AskError::TooLarge
    }

    async fn exchange(&self, question: &Question) -> Result<Reply, AskError> {
        let (server, prefix) = match &question.base {
            None => (&self.upstream, self.path_prefix.as_str()),
            Some(base) => (self.bases.get(base).ok_or_else(|| AskError::Connect(format!("no `{base}` is configured")))?, ""),
        };
        let underway = Underway::new(server.health());
        let replied = self.exchanged(server, prefix, question).await;
        underway.over(match &replied {
            Ok(_) | Err(AskError::TooLarge) => Ok(()),
            Err(AskError::Timeout) => Err(UpstreamError::Timeout),
            Err(AskError::Connect(_)) => Err(UpstreamError::Connect),
            Err(AskError::Broken(_)) => Err(UpstreamError::Broken),
        });
        replied
    }

    async fn exchanged(&self, server: &Peer, prefix: &str, question: &Question) -> Result<Reply, AskError> {
        let peer = server.http(None).map_err(|error| AskError::Connect(error.to_string()))?;
        // A pooled connection may have been closed by the other side a moment ago: that is worth one more try, on a new one.
        match self.once(server, &peer, prefix, question).await {
            Err(Failed { reused: true, answered: false, .. }) => {
                let mut fresh = peer.clone();
                fresh.options.idle_timeout = Some(Duration::ZERO);
                fresh.group_key = 1;
                self.once(server, &fresh, prefix, question).await.map_err(|failed| failed.error)
            }
            other => other.map_err(|failed| failed.error),
        }
    }

    async fn once(&self, server: &Peer, peer: &HttpPeer, prefix: &str, question: &Question) -> Result<Reply, Failed> {
        let (mut session, reused) = self.connector.get_http_session(peer).await.map_err(|error| Failed {
            error: AskError::Connect(Told(&error).to_string()),
            reused: false,
            answered: false,
        })?;
        session.set_read_timeout(Some(self.first_byte_timeout));
        let failed = |error: AskError, answered| Failed { error, reused, answered };
        let broken = |answered: bool| {
            move |error: Box<pingora::Error>| Failed { error: AskError::Broken(Told(&error).to_string()), reused, answered }
        };
        let request = request(server, prefix, question).map_err(|why| failed(AskError::Broken(why), true))?;
        session.write_request_header(Box::new(request)).await.map_err(broken(false))?;
        session.finish_request_body().await.map_err(broken(false))?;
        let mut interim = 0;
        let (status, headers) = loop {
            session.read_response_header().await.map_err(broken(interim > 0))?;
            let head = head(&session).ok_or_else(|| failed(AskError::Broken("no answer".into()), true))?;
            match head.0 {
                101 => return Err(failed(AskError::Broken("the upstream changed the protocol".into()), true)),
                100..=199 if interim == MOST_INTERIM => {
                    return Err(failed(AskError::Broken("interim answers without an end".into()), true));
                }
                // They say nothing of what was asked (RFC 9110 §15.2).
                100..=199 => interim += 1,
                _ => break head,
            }
        };
        let mut body = Vec::new();
        while let Some(chunk) = session.read_response_body().await.map_err(broken(true))? {
            if body.len() + chunk.len() > self.longest {
                return Err(failed(self.too_large(question), true));
            }
            body.extend_from_slice(&chunk);
        }
        if peer.group_key == 0 {
            self.connector.release_http_session(session, peer, peer.options.idle_timeout).await;
        }
        Ok(Reply { status, headers, body })
    }
}

struct Failed {
    error: AskError,
    reused: bool,
    answered: bool,
}

impl Ask for LookupClient {
    async fn ask(&self, question: Question) -> Result<Reply, AskError> {
        self.exchange(&question).await
    }
}

fn request(server: &Peer, prefix: &str, question: &Question) -> Result<RequestHeader, String> {
    let host = question.host.as_deref().unwrap_or(server.authority());
    let mut request = head_for("GET", &format!("{prefix}{}", question.target), host)?;
    let mut set = |name: &str, value: &str| {
        request.insert_header(name.to_owned(), value.to_owned()).map(drop).map_err(|error| error.to_string())
    };
    for (name, value) in &question.headers {
        // The error would hold the value.
        set(name, value.reveal()).map_err(|_| format!("`{name}` holds no header value"))?;
    }
    if let Some(client) = question.client {
        set("x-forwarded-for", &client.to_string())?;
        set("x-real-ip", &client.to_string())?;
    }
    Ok(request)
}

/// The head of a question of our own: nothing of a client's is in it.
pub(super) fn head_for(method: &str, target: &str, host: &str) -> Result<RequestHeader, String> {
    let told = |error: Box<pingora::Error>| error.to_string();
    let mut head = RequestHeader::build(method, target.as_bytes(), Some(8)).map_err(told)?;
    head.insert_header("host", host).map_err(told)?;
    head.insert_header("accept", "application/json").map_err(told)?;
    head.insert_header("accept-encoding", "identity").map_err(told)?;
    head.insert_header("user-agent", concat!("rolegate/", env!("CARGO_PKG_VERSION"))).map_err(told)?;
    Ok(head)
}

/// The status and the fields of an answer.
pub(super) fn head(session: &HttpSession) -> Option<(u16, Vec<(String, String)>)> {
    let response = session.response_header()?;
    let headers = response
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    Some((response.status.as_u16(), headers))
}
