//! A connection: TCP as it is, or with what the proxy engine lays over it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pingora::protocols::{SocketDigest, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// One side's bytes.
///
/// The engine's stream of plain TCP has three layers, which read a clock twice for every read that has to wait. Whoever
/// reads by himself has no use for them.
pub(super) enum Wire {
    /// Plain TCP, and what the engine wants to know of its socket.
    Tcp(TcpStream, Arc<SocketDigest>),
    /// TLS, or what the engine connected.
    Layered(Stream),
}

impl Wire {
    /// Plain TCP to or from `peer`.
    pub(super) fn tcp(stream: TcpStream, peer: SocketAddr) -> Self {
        let digest = digest(&stream, peer);
        Self::Tcp(stream, Arc::new(digest))
    }
}

/// What the engine wants to know of the socket to or from `peer`.
pub(super) fn digest(stream: &TcpStream, peer: SocketAddr) -> SocketDigest {
    let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
    // A later look at the descriptor could find another connection's.
    let _ = digest.peer_addr.set(Some(peer.into()));
    digest
}

/// Has the system end a connection when the other side takes nothing for as long as `idle` (`TCP_USER_TIMEOUT`), and keep no more
/// than `unsent` bytes that are not on their way. Reads and writes then fail with "timed out".
///
/// The system sees each acknowledgement and each opening of the window. Who writes is woken only when a third of what the system
/// keeps has gone, which may be a megabyte: by that, a client on a slow line would look like one that takes nothing.
///
/// # Errors
/// The system does not know the option. Outside Linux nothing is bounded.
#[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "other systems have no such option"))]
pub(super) fn bound(stream: &TcpStream, idle: Duration, unsent: Option<u32>) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let socket = socket2::SockRef::from(stream);
        socket.set_tcp_user_timeout(Some(idle))?;
        unsent.map_or(Ok(()), |unsent| socket.set_tcp_notsent_lowat(unsent))?;
    }
    Ok(())
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(stream, _) => stream.fmt(f),
            Self::Layered(stream) => stream.fmt(f),
        }
    }
}

/// Calls the same method of whichever stream it is.
macro_rules! either {
    ($wire:expr, $method:ident($($argument:expr),*)) => {
        match $wire.get_mut() {
            Wire::Tcp(stream, _) => Pin::new(stream).$method($($argument),*),
            Wire::Layered(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_read(cx, buffer))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_shutdown(cx))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        either!(self, poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream, _) => stream.is_write_vectored(),
            Self::Layered(stream) => stream.is_write_vectored(),
        }
    }
}
