//! What the proxy engine is shown instead of a target that it would refuse, and the upstream connection on which the target
//! itself goes out.
//!
//! The engine (pingora 0.9.1, through `http::Uri`) takes no `<`, `>` or grave accent in a path and no `"`, `<` or `>` in a query,
//! where Node, Twisted and nginx take them. Such a request is judged by its own target like any other. To the engine it is a
//! request for the same target with these characters encoded; where the request is sent on as it came, the line that the engine
//! writes is replaced by the received one on its way out.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use http::Method;
use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, percent_encode};
use pingora::connectors::TransportConnector;
use pingora::connectors::l4::Connect;
use pingora::protocols::Stream;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::upstreams::peer::HttpPeer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::peer::Connector;

/// The characters that the engine refuses in some part of a target.
const REFUSED: &AsciiSet = &AsciiSet::EMPTY.add(b'"').add(b'<').add(b'>').add(b'`');

/// What the engine is shown instead of `target`; nothing where it takes the target itself.
pub(super) fn stand_in(target: &[u8]) -> Option<Vec<u8>> {
    let odd = target.iter().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'"' | b'<' | b'>' | b'`'));
    let refused = odd && PathAndQuery::try_from(target).is_err();
    refused.then(|| percent_encode(target, REFUSED).collect::<String>().into_bytes())
}

/// Connections to one place on which the first line goes out as it was received.
pub(super) struct Restoring {
    connector: Arc<TransportConnector>,
    /// The place, and how it is connected to.
    peer: HttpPeer,
    /// What the engine begins with.
    written: Vec<u8>,
    /// What goes out instead.
    received: Vec<u8>,
}

impl Restoring {
    /// Connects to `peer` for a request of `method`, of whose target the engine is `shown` another form than was `received`.
    pub(super) fn new(connector: &Connector, peer: HttpPeer, method: &Method, shown: &[u8], received: &[u8]) -> Self {
        let line = |target: &[u8]| {
            // The engine drops a fragment.
            let target = target.split(|byte| *byte == b'#').next().unwrap_or_default();
            [method.as_str().as_bytes(), b" ", target, b" "].concat()
        };
        Self { connector: Arc::clone(&connector.0), peer, written: line(shown), received: line(received) }
    }

    /// How the engine connects by it.
    pub(super) fn into_peer(self, address: std::net::SocketAddr) -> HttpPeer {
        let options = self.peer.options.clone();
        // TLS, where there is any, is spoken below.
        let mut peer = HttpPeer::new(address, false, String::new());
        peer.options.connection_timeout = options.connection_timeout;
        peer.options.total_connection_timeout = options.total_connection_timeout;
        peer.options.read_timeout = options.read_timeout;
        peer.options.write_timeout = options.write_timeout;
        peer.options.custom_l4 = Some(Arc::new(self));
        peer
    }
}

impl fmt::Debug for Restoring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restoring").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[async_trait]
impl Connect for Restoring {
    async fn connect(&self, _: &SocketAddr) -> pingora::Result<L4Stream> {
        let stream = self.connector.new_stream(&self.peer).await?;
        let swap = Some((self.written.clone(), self.received.clone()));
        Ok(VirtualSocketStream::new(Box::new(Restored { stream, swap, pending: Vec::new(), sent: 0 })).into())
    }
}

/// A connection whose first bytes are replaced.
#[derive(Debug)]
struct Restored {
    stream: Stream,
    /// What is expected first, and what goes out instead.
    swap: Option<(Vec<u8>, Vec<u8>)>,
    /// What was taken and not yet written, of which so much was sent.
    pending: Vec<u8>,
    sent: usize,
}

impl Restored {
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.pending.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        (self.pending, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

impl VirtualSocket for Restored {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        // The connector below has set them.
        Ok(())
    }
}

impl AsyncRead for Restored {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Restored {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some((written, received)) = self.swap.take() {
            // The engine writes a head in one piece; what does not begin as it must is not sent at all.
            let Some(rest) = bytes.strip_prefix(written.as_slice()) else {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            };
            self.pending = [received.as_slice(), rest].concat();
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_pending(cx))?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use pingora::http::RequestHeader;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    proptest! {
        #[test]
        fn the_engine_takes_every_target_or_its_stand_in(target in "/[!-~\u{80}-\u{2ff}]{0,20}") {
            let shown = stand_in(target.as_bytes()).unwrap_or_else(|| target.clone().into_bytes());
            let head = RequestHeader::build("GET", &shown, None);
            prop_assert!(head.is_ok(), "{}", target);
            let head = head.unwrap();
            // But for a fragment, which is none of a target (RFC 9112 §3.2).
            let whole = shown.split(|byte| *byte == b'#').next().unwrap();
            prop_assert_eq!(head.raw_path(), whole);
        }
    }

    #[test]
    fn only_what_the_engine_refuses_has_a_stand_in() {
        for target in ["/", "/a?b={}|^\\[]'`", "/a\"b{}|^\\[]'", "/\u{e9}?\u{e9}", "*"] {
            assert_eq!(stand_in(target.as_bytes()), None, "{target}");
        }
        assert_eq!(stand_in(b"/a?q={\"b\":\"<\"}").unwrap(), b"/a?q={%22b%22:%22%3C%22}");
        assert_eq!(stand_in(b"/`<>").unwrap(), b"/%60%3C%3E");
    }

    fn restored(written: &str) -> (Restored, tokio::io::DuplexStream) {
        let (stream, other) = duplex(1024);
        let swap = Some((written.as_bytes().to_vec(), b"GET /\" ".to_vec()));
        (Restored { stream: Box::new(stream), swap, pending: Vec::new(), sent: 0 }, other)
    }

    #[test]
    fn the_first_line_goes_out_as_it_was_received_and_the_rest_as_it_is_written() {
        let (mut restored, mut other) = restored("GET /%22 ");
        restored.write_all(b"GET /%22 HTTP/1.1\r\nHost: x\r\n\r\n").now_or_never().unwrap().unwrap();
        restored.write_all(b"GET /%22 ").now_or_never().unwrap().unwrap();
        restored.flush().now_or_never().unwrap().unwrap();
        drop(restored);
        let mut received = String::new();
        other.read_to_string(&mut received).now_or_never().unwrap().unwrap();
        assert_eq!(received, "GET /\" HTTP/1.1\r\nHost: x\r\n\r\nGET /%22 ");
    }

    #[test]
    fn nothing_goes_out_that_begins_otherwise() {
        for begun in ["GET /%2", "GET /%23 HTTP/1.1\r\n", "POST /%22 HTTP/1.1\r\n"] {
            let (mut restored, mut other) = restored("GET /%22 ");
            assert!(restored.write_all(begun.as_bytes()).now_or_never().unwrap().is_err());
            drop(restored);
            let mut received = Vec::new();
            other.read_to_end(&mut received).now_or_never().unwrap().unwrap();
            assert!(received.is_empty());
        }
    }
}
