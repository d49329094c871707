//! The closed lists that labels come from.

/// What became of one need for a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupOutcome {
    /// It was in the cache, young enough.
    Hit,
    /// It was looked up.
    Miss,
    /// Somebody else was already looking it up.
    Coalesced,
    /// The upstream refused the credential, now or a moment ago.
    Refused,
    /// The lookup failed, and an older fact within `max_stale` was used.
    Stale,
    /// The lookup failed.
    Error,
}

/// Why facts were dropped before their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidationCause {
    /// The upstream answered 401 to a forwarded request.
    Unauthorized,
    /// The admin listener was told to.
    Admin,
}

impl InvalidationCause {
    /// Every cause, in the order of its declaration.
    pub(super) const ALL: [Self; 2] = [Self::Unauthorized, Self::Admin];

    /// The text in the metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Admin => "admin",
        }
    }
}

/// What kind of audit record was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// A verdict.
    Decision,
    /// What became of a permitted request.
    Outcome,
    /// The process began.
    Start,
    /// The process ended.
    Stop,
    /// Rules were replaced, or not.
    Reload,
    /// Facts were dropped by an administrator.
    Invalidate,
    /// A torn end of the file was cut off.
    Recovered,
    /// Records could not be written.
    Loss,
    /// A new file was begun before the old one had its size.
    Rotated,
    /// An old file is removed, as `keep` or `keep_age` say.
    Expired,
    /// Refusals that left no records of their own.
    Suppressed,
}

impl RecordKind {
    /// The text in the record's `kind` and in the metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Outcome => "outcome",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Reload => "reload",
            Self::Invalidate => "invalidate",
            Self::Recovered => "recovered",
            Self::Loss => "loss",
            Self::Rotated => "rotated",
            Self::Expired => "expired",
            Self::Suppressed => "suppressed",
        }
    }
}

/// Why a connection or a request was turned away before any verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectedCause {
    /// Too many connections in all.
    Connections,
    /// Too many connections of one address.
    ConnectionsPerAddress,
    /// The head did not arrive in time.
    HeaderDeadline,
    /// The head was too large.
    HeaderTooLarge,
    /// The head could not be read.
    Malformed,
    /// The TLS handshake failed.
    Tls,
}

impl RejectedCause {
    /// Every cause, in the order of its declaration.
    pub(super) const ALL: [Self; 6] =
        [Self::Connections, Self::ConnectionsPerAddress, Self::HeaderDeadline, Self::HeaderTooLarge, Self::Malformed, Self::Tls];

    /// The text in the metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::HeaderDeadline => "header_deadline",
            Self::HeaderTooLarge => "header_too_large",
            Self::Malformed => "malformed",
            Self::Tls => "tls",
        }
    }
}

/// Which bound a client did not keep, by the key of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlowClient {
    /// A content that is judged did not come in time.
    BodyDeadline,
    /// Of a content that streams nothing came for too long.
    BodyIdle,
    /// Of an answer nothing was taken for too long.
    SendIdle,
}

impl SlowClient {
    /// Every cause for which a slow client is ended.
    pub(super) const ALL: [Self; 3] = [Self::BodyDeadline, Self::BodyIdle, Self::SendIdle];

    /// The text in the metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BodyDeadline => "body_deadline",
            Self::BodyIdle => "body_idle",
            Self::SendIdle => "send_idle",
        }
    }
}

/// Whose fault a failed exchange with the upstream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamError {
    /// No connection, or none that TLS accepts.
    Connect,
    /// No answer in time.
    Timeout,
    /// The exchange broke off.
    Broken,
    /// The name has no address.
    Resolve,
}

impl UpstreamError {
    /// Every kind.
    pub(super) const ALL: [Self; 4] = [Self::Connect, Self::Timeout, Self::Broken, Self::Resolve];

    /// The text in the metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Resolve => "resolve",
        }
    }
}

/// A stop of the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Finding the action and reading its parameters.
    Match,
    /// Looking up who asks and what is known of them.
    Facts,
    /// Asking the policies.
    Decide,
    /// Writing the audit record.
    Record,
    /// Waiting for the head of the upstream's answer.
    Upstream,
}
