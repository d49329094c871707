//! Connections that a test, or the end of the sample server, can cut at any moment.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// The connections that are open, and how many there ever were.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines(Arc<Mutex<(Vec<Weak<Line>>, usize)>>);

impl Lines {
    /// How many connections were accepted so far.
    pub(super) fn accepted(&self) -> usize {
        self.0.lock().1
    }

    /// Cuts every open connection.
    pub(super) fn cut(&self) {
        for line in self.0.lock().0.drain(..) {
            if let Some(line) = line.upgrade() {
                line.cut();
            }
        }
    }

    fn open(&self) -> Arc<Line> {
        let line = Arc::new(Line::default());
        let mut lines = self.0.lock();
        lines.0.retain(|line| line.strong_count() > 0);
        lines.0.push(Arc::downgrade(&line));
        lines.1 += 1;
        line
    }
}

/// One connection's way to be cut.
#[derive(Debug, Default)]
pub(super) struct Line {
    cut: AtomicBool,
    reader: AtomicWaker,
}

impl Line {
    /// Lets every further read and write fail, so that the connection is dropped as it stands.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.reader.wake();
    }

    fn check(&self) -> io::Result<()> {
        match self.cut.load(Ordering::Acquire) {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }
}

/// Accepts connections and keeps their [`Line`]s.
#[derive(Debug)]
pub(super) struct Doorway {
    listener: TcpListener,
    lines: Lines,
}

impl Doorway {
    pub(super) fn new(listener: TcpListener, lines: Lines) -> Self {
        Self { listener, lines }
    }
}

impl Listener for Doorway {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Without it small answers wait for the peer's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        (Stream { stream, line: self.lines.open() }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A TCP stream that fails once it is cut.
#[derive(Debug)]
pub(super) struct Stream {
    stream: TcpStream,
    line: Arc<Line>,
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Registered before the check: a cut in between wakes us, one before it is seen.
        self.line.reader.register(cx.waker());
        self.line.check()?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.line.check()?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.line.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Who is at the other end, for a request's handler.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) line: Arc<Line>,
}

impl Connected<IncomingStream<'_, Doorway>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Doorway>) -> Self {
        Self { address: *stream.remote_addr(), line: Arc::clone(&stream.io().line) }
    }
}
