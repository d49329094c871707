//! A connection of which the proxy engine is shown one request and not a byte more.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};

use super::chunks::Chunks;
use super::streams::Streams;
use super::wire::Wire;

/// How much of what comes after the request is kept while it is answered; beyond that the sender must wait.
const STASH: usize = 64 * 1024;

/// How much of an answer is gathered until the engine asks for it to be sent. The engine writes a head, a chunk's length and
/// its content one by one and counts on the buffer of its own listener, which it gives to no stream that others accepted.
const GATHERED: usize = 4096;

/// How much of an h2 connection is read at once.
const PIECE: usize = 8192;

/// Where the request ends.
#[derive(Debug)]
enum Bound {
    /// After this many bytes that are still to come.
    Length(u64),
    /// Where its chunks do.
    Chunks(Chunks),
    /// Nowhere: the engine owns the rest of the connection, of which it is shown what is made of it. Whether anything came is
    /// told.
    Streams(Arc<AtomicBool>, Box<Streams>),
    /// Nowhere, but once the connection became a tunnel it has an end of its own; nothing when that has come.
    Tunnel(Option<Ending>),
}

/// What the entrance and the code that serves a request tell each other of the request.
#[derive(Debug, Default)]
pub(super) struct Handover {
    /// Whether a hook was reached: until then whatever the engine writes is kept from the client.
    seen: AtomicBool,
    /// Whether the content turned out to be no chunked content.
    broken: AtomicBool,
    /// The connection of a request that the engine refused before any hook, and what was read of the request.
    refused: Mutex<Option<(Wire, Vec<u8>)>>,
}

impl Handover {
    /// A hook was reached.
    pub(super) fn see(&self) {
        self.seen.store(true, Ordering::Release);
    }

    /// Whether the content turned out to be no chunked content.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// The connection of a request that the engine refused before any hook, to which nothing was written, and what was read of
    /// the request.
    pub(super) fn refused(&self) -> Option<(Wire, Vec<u8>)> {
        self.refused.lock().take()
    }

    fn is_seen(&self) -> bool {
        self.seen.load(Ordering::Acquire)
    }
}

/// When a tunnel is to end, whatever its two sides still have to say.
pub(super) struct Ending(Pin<Box<dyn Future<Output = ()> + Send + Sync>>);

impl Ending {
    /// The end is when `end` is ready.
    pub(super) fn new(end: impl Future<Output = ()> + Send + Sync + 'static) -> Self {
        Self(Box::pin(end))
    }

    /// Whether the end has come; `ending` is `None` after that.
    pub(super) fn poll(ending: &mut Option<Self>, cx: &mut Context<'_>) -> bool {
        if ending.as_mut().is_some_and(|ending| ending.0.as_mut().poll(cx).is_ready()) {
            *ending = None;
        }
        ending.is_none()
    }
}

impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ending")
    }
}

/// A stream that yields what was already read of it, then as much more as belongs to the same request.
///
/// The boundary that was computed when the head was judged is the boundary that the engine meets: it cannot read one request
/// where the judge saw another. What comes after is kept, and the end of the stream is passed on, so that a client that
/// leaves is noticed.
#[derive(Debug)]
pub(super) struct Fence {
    inner: BufWriter<Wire>,
    prefix: Vec<u8>,
    shown: usize,
    bound: Bound,
    stash: Vec<u8>,
    handover: Arc<Handover>,
}

impl Fence {
    /// Shows the first `length` bytes that come, of which `read` were read already.
    pub(super) fn around(inner: Wire, mut read: Vec<u8>, length: u64, handover: Arc<Handover>) -> Self {
        let kept = usize::try_from(length).unwrap_or(usize::MAX).min(read.len());
        let stash = read.split_off(kept);
        let remaining = length.saturating_sub(u64::try_from(kept).unwrap_or(u64::MAX));
        Self::new(inner, read, Bound::Length(remaining), stash, handover)
    }

    /// Shows a head and the `chunks` behind it. The first `length` bytes of what was read already are theirs; where they end is
    /// then known to `chunks`.
    pub(super) fn chunked(inner: Wire, mut read: Vec<u8>, length: usize, chunks: Chunks, handover: Arc<Handover>) -> Self {
        let stash = read.split_off(read.len().min(length));
        Self::new(inner, read, Bound::Chunks(chunks), stash, handover)
    }

    /// Shows what `streams` makes of everything, behind the preface that was `read` already; `heard` is set whenever something
    /// comes.
    pub(super) fn streams(inner: Wire, read: Vec<u8>, heard: Arc<AtomicBool>, streams: Streams) -> Self {
        let handover = Arc::new(Handover::default());
        handover.see();
        Self::new(inner, read, Bound::Streams(heard, Box::new(streams)), Vec::new(), handover)
    }

    /// Shows everything, beginning with what was read already, until `ending`: for the engine that is the client's leaving, on
    /// which it closes both sides of a tunnel.
    pub(super) fn tunnel(inner: Wire, read: Vec<u8>, ending: Ending, handover: Arc<Handover>) -> Self {
        Self::new(inner, read, Bound::Tunnel(Some(ending)), Vec::new(), handover)
    }

    fn new(inner: Wire, prefix: Vec<u8>, bound: Bound, stash: Vec<u8>, handover: Arc<Handover>) -> Self {
        Self { inner: BufWriter::with_capacity(GATHERED, inner), prefix, shown: 0, bound, stash, handover }
    }

    /// The connection, and what was read of the next request. Nothing when this one was not read to its end or its answer not
    /// sent to its end; where the engine owns the connection it gives it back only when it read the request to its end and not
    /// beyond.
    pub(super) fn into_parts(self) -> Option<(Wire, Vec<u8>)> {
        let ended = matches!(self.bound, Bound::Streams(..) | Bound::Tunnel(_)) || self.is_done();
        let whole = self.shown == self.prefix.len() && ended && self.inner.buffer().is_empty();
        whole.then(|| (self.inner.into_inner(), self.stash))
    }

    /// What the engine laid over the connection, if it did.
    fn layered(&self) -> Option<&Stream> {
        match self.inner.get_ref() {
            Wire::Tcp(..) => None,
            Wire::Layered(stream) => Some(stream),
        }
    }

    fn is_done(&self) -> bool {
        match &self.bound {
            Bound::Length(remaining) => *remaining == 0,
            Bound::Chunks(chunks) => chunks.is_done(),
            Bound::Streams(..) | Bound::Tunnel(_) => false,
        }
    }

    /// Gives the connection back where the engine ends it before any hook was reached.
    fn hand_back(&mut self) -> bool {
        let unseen = !self.handover.is_seen();
        if unseen {
            let (closed, _) = tokio::io::duplex(1);
            let ours = std::mem::replace(&mut self.inner, BufWriter::with_capacity(0, Wire::Layered(Box::new(closed))));
            self.handover.refused.lock().get_or_insert((ours.into_inner(), std::mem::take(&mut self.prefix)));
        }
        unseen
    }

    /// Whether this is a tunnel whose end has come.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> bool {
        let Bound::Tunnel(ending) = &mut self.bound else { return false };
        Ending::poll(ending, cx)
    }

    /// A client that takes no more does not hold a tunnel beyond its end.
    fn or_ended<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_pending() && self.poll_ended(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        written
    }

    /// Shows what is left of what was read already, if anything is.
    fn show(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let rest = self.prefix.get(self.shown..).unwrap_or_default();
        let part = rest.get(..rest.len().min(buffer.remaining())).unwrap_or_default();
        buffer.put_slice(part);
        self.shown += part.len();
        !rest.is_empty()
    }

    /// Reads until there is something to be shown of it, or the end.
    fn poll_streams(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut space = [const { MaybeUninit::uninit() }; PIECE];
        while let Bound::Streams(heard, streams) = &mut self.bound {
            let mut came = ReadBuf::uninit(&mut space);
            ready!(Pin::new(self.inner.get_mut()).poll_read(cx, &mut came))?;
            heard.store(true, Ordering::Release);
            if came.filled().is_empty() {
                break;
            }
            self.prefix.clear();
            self.shown = 0;
            streams.take(came.filled(), &mut self.prefix);
            if self.show(buffer) {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads beyond the request: what comes is kept, and only the end is told.
    fn poll_beyond(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.stash.len() < STASH {
            // A read that was not done leaves nothing behind, so that each turn may begin one anew.
            let read = pin!(self.inner.get_mut().read_buf(&mut self.stash));
            if ready!(read.poll(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }
}

impl AsyncRead for Fence {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.show(buffer) {
            return Poll::Ready(Ok(()));
        }
        if this.is_done() {
            return this.poll_beyond(cx);
        }
        if this.poll_ended(cx) {
            return Poll::Ready(Ok(()));
        }
        let most = match &this.bound {
            Bound::Length(remaining) => usize::try_from(*remaining).unwrap_or(usize::MAX).min(buffer.remaining()),
            Bound::Chunks(_) => buffer.remaining(),
            Bound::Streams(..) => return this.poll_streams(cx, buffer),
            Bound::Tunnel(_) => return Pin::new(this.inner.get_mut()).poll_read(cx, buffer),
        };
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
        ready!(Pin::new(this.inner.get_mut()).poll_read(cx, &mut part))?;
        let count = match &mut this.bound {
            Bound::Length(remaining) => {
                *remaining = remaining.saturating_sub(u64::try_from(part.filled().len()).unwrap_or(u64::MAX));
                part.filled().len()
            }
            Bound::Chunks(chunks) => {
                let content = chunks.take(part.filled());
                if chunks.is_broken() {
                    this.handover.broken.store(true, Ordering::Release);
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                this.stash.extend_from_slice(part.filled().get(content..).unwrap_or_default());
                content
            }
            Bound::Streams(..) | Bound::Tunnel(_) => part.filled().len(),
        };
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Fence {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.handover.is_seen() {
            // Words of the engine's own; the entrance has better ones.
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.or_ended(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.or_ended(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hand_back() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if !self.handover.is_seen() {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, parts);
        self.or_ended(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Fence {
    async fn shutdown(&mut self) {
        if self.hand_back() {
            return;
        }
        // Whoever is gone misses nothing.
        drop(self.inner.flush().await);
        match self.inner.get_mut() {
            Wire::Tcp(stream, _) => drop(stream.shutdown().await),
            Wire::Layered(stream) => Shutdown::shutdown(&mut **stream).await,
        }
    }
}

impl UniqueID for Fence {
    fn id(&self) -> UniqueIDType {
        match self.inner.get_ref() {
            Wire::Tcp(stream, _) => stream.as_raw_fd(),
            Wire::Layered(stream) => stream.id(),
        }
    }
}

impl Ssl for Fence {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.layered()?.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.layered()?.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.layered()?.selected_alpn_proto()
    }
}

impl GetTimingDigest for Fence {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.layered().map(|stream| stream.get_timing_digest()).unwrap_or_default()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.layered().map_or(Duration::ZERO, |stream| stream.get_read_pending_time())
    }

    fn get_write_pending_time(&self) -> Duration {
        self.layered().map_or(Duration::ZERO, |stream| stream.get_write_pending_time())
    }
}

impl GetProxyDigest for Fence {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.layered()?.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        if let Wire::Layered(stream) = self.inner.get_mut() {
            stream.set_proxy_digest(digest);
        }
    }
}

impl GetSocketDigest for Fence {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        match self.inner.get_ref() {
            Wire::Tcp(_, digest) => Some(Arc::clone(digest)),
            Wire::Layered(stream) => stream.get_socket_digest(),
        }
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        match self.inner.get_mut() {
            Wire::Tcp(_, known) => *known = Arc::new(digest),
            Wire::Layered(stream) => stream.set_socket_digest(digest),
        }
    }
}

// Without a look ahead the engine reads what it is shown.
impl Peek for Fence {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fence around what was read, with the bound that `made` gives it.
    fn fence(made: impl FnOnce(Wire, Arc<Handover>) -> Fence) -> Fence {
        let (ours, _) = tokio::io::duplex(1);
        made(Wire::Layered(Box::new(ours)), Arc::default())
    }

    /// How much of the first eight bytes is shown, and whether the connection comes back then.
    async fn after_eight(mut fence: Fence) -> (usize, bool) {
        let shown = fence.read(&mut [0; 8]).await.unwrap();
        (shown, fence.into_parts().is_some())
    }

    #[tokio::test]
    async fn a_connection_comes_back_only_once_the_request_was_read_to_its_end() {
        for (length, back) in [(8, true), (10, false)] {
            let around = fence(|inner, handover| Fence::around(inner, b"GET / HT".to_vec(), length, handover));
            assert_eq!(after_eight(around).await, (8, back), "{length}");
        }
        for (text, back) in [("0\r\n\r\n   ", true), ("1\r\na\r\n0\r", false)] {
            let mut chunks = Chunks::default();
            let length = chunks.take(text.as_bytes());
            let chunked = fence(|inner, handover| Fence::chunked(inner, text.into(), length, chunks, handover));
            assert_eq!(after_eight(chunked).await, (length, back), "{text:?}");
        }
        let unread = fence(|inner, handover| Fence::around(inner, b"GET / HT".to_vec(), 8, handover));
        assert!(unread.into_parts().is_none());
    }
}
