//! The upstream's connection below a WebSocket.
//!
//! The proxy engine (pingora 0.9.1) passes on "the request has no body" beside reading the answer. When the upstream's 101
//! is read first, the engine takes that message for the end of the tunnel and closes it right after the handshake. A server
//! close by answers fast enough for one handshake in ten to end so. This connection lets the engine finish what it is
//! sending first: after a write, the first look for an answer finds none yet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::{Error, ErrorType};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Connects for a WebSocket, within a time.
#[derive(Debug)]
pub(super) struct WebSocketConnector {
    pub(super) timeout: Duration,
}

#[async_trait]
impl Connect for WebSocketConnector {
    async fn connect(&self, address: &SocketAddr) -> pingora::Result<Stream> {
        let address = address.as_inet().ok_or_else(|| Error::explain(ErrorType::ConnectError, "no IP address"))?;
        match tokio::time::timeout(self.timeout, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => Ok(VirtualSocketStream::new(Box::new(Tunnel { stream, wrote: false })).into()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Error::e_because(ErrorType::ConnectRefused, "for a WebSocket", error)
            }
            Ok(Err(error)) => Error::e_because(ErrorType::ConnectError, "for a WebSocket", error),
            Err(error) => Error::e_because(ErrorType::ConnectTimedout, "for a WebSocket", error),
        }
    }
}

/// A connection that yields once between a write and the read that follows it.
#[derive(Debug)]
struct Tunnel {
    stream: TcpStream,
    wrote: bool,
}

impl VirtualSocket for Tunnel {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.stream.set_nodelay(true),
            // None is asked for.
            _ => Ok(()),
        }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.wrote) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wrote = true;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
