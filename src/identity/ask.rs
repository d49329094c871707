//! The one door to the upstream: a question built from scratch, and the reply to it.

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::Secret;

/// Puts questions to one upstream and its named bases.
///
/// The implementor owns connections and the bound on a body; it sends a GET with the headers named here,
/// those that HTTP needs, and the address as `X-Forwarded-For` and `X-Real-IP`. The caller bounds the time.
pub trait Ask: Send + Sync + 'static {
    /// Puts `question` and waits for the whole reply, whatever its status.
    ///
    /// # Errors
    /// There was no reply that could be read to its end.
    fn ask(&self, question: Question) -> impl Future<Output = Result<Reply, AskError>> + Send;
}

/// One GET to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Which server: the upstream itself, or another URL of its configuration by name.
    pub base: Option<String>,
    /// The `Host` that requests reach the server by, where it is not its own.
    pub host: Option<String>,
    /// Path and query in origin form.
    pub target: String,
    /// The credential: names in lower case with their values. No other header of a client is ever here.
    pub headers: Vec<(Arc<str>, Secret)>,
    /// The address that the upstream is told the question comes from.
    pub client: Option<IpAddr>,
}

/// What the upstream said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Field names in lower case with their values.
    pub headers: Vec<(String, String)>,
    /// The whole body; the implementor refuses one above its bound.
    pub body: Vec<u8>,
}

impl Reply {
    /// The first value of the field `name` (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// Why there is no reply; the texts are for the operator and hold no credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// No connection, or a base of an unknown name.
    #[error("no connection: {0}")]
    Connect(String),
    /// The body was larger than the bound.
    #[error("the answer is larger than `limits.lookup_body`")]
    TooLarge,
    /// The exchange broke off, or was not HTTP.
    #[error("the exchange broke off: {0}")]
    Broken(String),
}
