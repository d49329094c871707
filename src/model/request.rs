//! A request as it arrived, before anything is believed of it.

use std::net::IpAddr;

/// What announces a request's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// No body, or one of length 0.
    Absent,
    /// A body of this many bytes.
    Sized(u64),
    /// A body whose length is not known beforehand.
    Streamed,
}

/// A request's head, borrowed from the connection that received it.
#[derive(Debug, Clone)]
pub struct RawRequest<'a> {
    /// The method as received.
    pub method: &'a str,
    /// The request target as received, in whichever form (RFC 9112 §3.2).
    pub target: &'a [u8],
    /// The host it is addressed to: the `Host` field, or the `:authority` of h2.
    pub host: Option<&'a str>,
    /// Field names in lower case with their values, in order, repeats included.
    pub headers: Vec<(&'a str, &'a [u8])>,
    /// What follows the head.
    pub body: Body,
    /// The content, where the walk asked for it and it was within its bound.
    pub content: Option<&'a [u8]>,
    /// The address the connection came from, or the one a trusted proxy vouches for; nothing when such a proxy wrote what is no
    /// address.
    pub client: Option<IpAddr>,
    /// A trusted proxy's id of the request, already checked for form.
    pub correlation: Option<String>,
}

impl<'a> RawRequest<'a> {
    /// The values of every field named `name` (lower case).
    pub fn header_values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |(field, _)| *field == name).map(|(_, value)| *value)
    }

    /// Whether a field named `name` (lower case) is there.
    #[must_use]
    pub fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|(field, _)| *field == name)
    }
}
