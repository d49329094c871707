//! What is told of an error of the proxy engine.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use pingora::{BError, Error, ErrorSource, ErrorType};

use super::peer::failure;
use crate::metrics::{SlowClient, UpstreamError};

/// An error by its kinds and by what the system said. Its contexts are left out: there the engine puts what it could not read, a
/// head with its credentials or cookies perhaps.
pub(super) struct Told<'e>(pub(super) &'e Error);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.esource.as_str())?;
        let (mut error, mut before) = (self.0, "");
        loop {
            let kind = error.etype.as_str();
            if kind != before {
                write!(f, " {kind}")?;
            }
            before = kind;
            let Some(cause) = error.cause.as_deref() else { return Ok(()) };
            match (cause.downcast_ref::<BError>(), cause.downcast_ref::<io::Error>()) {
                (Some(inner), _) => error = inner,
                (None, Some(system)) => return write!(f, ": {system}"),
                (None, None) => return Ok(()),
            }
        }
    }
}

/// What a client is told whose content did not come in time (RFC 9110 §15.5.9).
pub(super) const LATE: u16 = 408;

/// The status that answers an exchange which ended with `error`; 0 when the client is gone.
pub(super) fn status(error: &Error) -> u16 {
    match (error.etype(), error.esource()) {
        (ErrorType::HTTPStatus(code), _) => *code,
        (kind, ErrorSource::Upstream) if failure(kind) == UpstreamError::Timeout => 504,
        (_, ErrorSource::Upstream) => 502,
        (ErrorType::WriteError | ErrorType::ReadError | ErrorType::ConnectionClosed, ErrorSource::Downstream) => 0,
        (ErrorType::ReadTimedout, ErrorSource::Downstream) => LATE,
        (_, ErrorSource::Downstream) => 400,
        (_, ErrorSource::Internal | ErrorSource::Unset) => 500,
    }
}

/// Whether the client of an exchange that ended with `error` had stopped to take or to send.
pub(super) fn slow_client(error: &Error) -> Option<SlowClient> {
    let of_client = *error.esource() == ErrorSource::Downstream;
    match error.root_etype() {
        _ if !of_client => None,
        ErrorType::ReadTimedout => Some(SlowClient::BodyIdle),
        ErrorType::WriteTimedout => Some(SlowClient::SendIdle),
        // The system gave the connection up; what h2 makes of that has only its text.
        _ => error.root_cause().to_string().contains(&given_up()).then_some(SlowClient::SendIdle),
    }
}

fn given_up() -> String {
    format!("os error {}", libc::ETIMEDOUT)
}

/// How often a fault is told while it lasts.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// A fault that comes again and again until its cause ends: it is told at once and then once a minute.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    told: Option<Instant>,
    times: u64,
}

impl Seldom {
    /// One more at `now`. How many there were since it was last told, when it is to be told again.
    pub(super) fn another(&mut self, now: Instant) -> Option<u64> {
        self.times += 1;
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < TOLD_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.times))
    }
}

/// Connections that could not be accepted.
#[derive(Debug)]
pub(super) struct Unaccepted {
    what: &'static str,
    seldom: Seldom,
}

impl Unaccepted {
    /// None yet of `what`.
    pub(super) fn of(what: &'static str) -> Self {
        Self { what, seldom: Seldom::default() }
    }

    /// One more.
    pub(super) fn tell(&mut self, error: &io::Error) {
        if let Some(times) = self.seldom.another(Instant::now()) {
            // Out of descriptors, or a client that left before it was accepted: the listener itself is well.
            tracing::warn!(%error, times, "{} was not accepted", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use pingora::ErrorType::{ConnectError, InvalidHTTPHeader, ReadError};

    use super::*;

    #[test]
    fn the_kinds_and_the_system_are_told_and_what_was_read_is_not() {
        let inner = Error::explain(InvalidHTTPHeader, "buf: set-cookie: secret");
        let outer = Error::because(ReadError, "reading secret", inner).into_up().more_context("Peer: secret");
        assert_eq!(Told(&outer).to_string(), "Upstream ReadError InvalidHTTPHeader");
        let refused = Error::because(ConnectError, "to secret", io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(Told(&refused).to_string(), " ConnectError: connection refused");
    }

    #[test]
    fn a_fault_that_lasts_is_told_at_once_and_then_once_a_minute_with_how_often_it_came() {
        let (mut seldom, begin) = (Seldom::default(), Instant::now());
        let told: Vec<(u64, u64)> = (0..=180)
            .step_by(10)
            .filter_map(|second| Some((second, seldom.another(begin + Duration::from_secs(second))?)))
            .collect();
        assert_eq!(told, [(0, 1), (60, 6), (120, 6), (180, 6)]);
    }

    #[test]
    fn a_client_is_slow_when_its_own_side_timed_out() {
        let given_up = || io::Error::from_raw_os_error(libc::ETIMEDOUT);
        let down = |kind: ErrorType| Error::new(kind).into_down();
        assert_eq!(slow_client(&down(ErrorType::ReadTimedout)), Some(SlowClient::BodyIdle));
        assert_eq!(slow_client(&down(ErrorType::WriteTimedout)), Some(SlowClient::SendIdle));
        let written = Error::because(ErrorType::WriteError, "a body", given_up()).into_down();
        assert_eq!(slow_client(&written), Some(SlowClient::SendIdle));
        let opaque = Error::because(ErrorType::H2Error, "a body", format!("connection error: {}", given_up())).into_down();
        assert_eq!(slow_client(&opaque), Some(SlowClient::SendIdle));
        assert_eq!(slow_client(&down(ErrorType::ConnectionClosed)), None);
        assert_eq!(slow_client(&Error::new(ErrorType::ReadTimedout).into_up()), None, "that is the server");
    }
}
