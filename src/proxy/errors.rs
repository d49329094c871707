//! What is told of an error of the proxy engine.

use std::fmt;
use std::io;

use pingora::{BError, Error};

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
}
