//! The upstream's connection below a WebSocket, and the end of both its sides.
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
use pingora::server::ShutdownWatch;
use pingora::{Error, ErrorType};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::fence::Ending;

/// The end of a tunnel, of which each of its two sides is told.
///
/// A tunnel has no request in flight that could be finished, and would last as long as its client does: it ends with the
/// process, at once, and the client connects again. A handshake that is not answered yet is a request like any other. Both sides
/// are told because the engine looks at one of them only while it waits for the other: where a server takes no more, it does
/// not read from the client either.
#[derive(Debug, Clone)]
pub(super) struct TunnelEnd {
    opened: watch::Sender<bool>,
    shutdown: ShutdownWatch,
}

impl TunnelEnd {
    /// The end of a tunnel that is not open yet.
    pub(super) fn new(shutdown: &ShutdownWatch) -> Self {
        Self { opened: watch::Sender::new(false), shutdown: shutdown.clone() }
    }

    /// The handshake was answered.
    pub(super) fn open(&self) {
        self.opened.send_replace(true);
    }

    /// When one side is to end.
    pub(super) fn ending(&self) -> Ending {
        let (mut opened, mut shutdown) = (self.opened.subscribe(), self.shutdown.clone());
        Ending::new(async move {
            if opened.wait_for(|open| *open).await.is_err() {
                // It never became a tunnel.
                std::future::pending::<()>().await;
            }
            // That nobody can say so any more is the end, too.
            drop(shutdown.wait_for(|stop| *stop).await);
        })
    }
}

/// Connects for a WebSocket, within a time.
#[derive(Debug)]
pub(super) struct WebSocketConnector {
    pub(super) timeout: Duration,
    pub(super) end: TunnelEnd,
}

#[async_trait]
impl Connect for WebSocketConnector {
    async fn connect(&self, address: &SocketAddr) -> pingora::Result<Stream> {
        let address = address.as_inet().ok_or_else(|| Error::explain(ErrorType::ConnectError, "no IP address"))?;
        match tokio::time::timeout(self.timeout, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                Ok(VirtualSocketStream::new(Box::new(Tunnel { stream, wrote: false, ending: Some(self.end.ending()) })).into())
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Error::e_because(ErrorType::ConnectRefused, "for a WebSocket", error)
            }
            Ok(Err(error)) => Error::e_because(ErrorType::ConnectError, "for a WebSocket", error),
            Err(error) => Error::e_because(ErrorType::ConnectTimedout, "for a WebSocket", error),
        }
    }
}

/// A connection that yields once between a write and the read that follows it, and that a server which takes no more does not
/// hold beyond its end.
#[derive(Debug)]
struct Tunnel {
    stream: TcpStream,
    wrote: bool,
    /// Nothing when the end has come.
    ending: Option<Ending>,
}

impl Tunnel {
    fn or_ended<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_pending() && Ending::poll(&mut self.ending, cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        written
    }
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
        if Ending::poll(&mut self.ending, cx) {
            // The engine goes on to read where it could not write.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wrote = true;
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.or_ended(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
