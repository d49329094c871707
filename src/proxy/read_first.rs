//! Sends on a request whose body was read before its verdict, where the proxy engine cannot: one that is longer than the engine
//! keeps, of which it would send the head and never the body, and one whose body is left behind, which it would announce.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::client::HttpSession;
use pingora::proxy::Session;
use pingora::upstreams::peer::{HttpPeer, Peer as _};
use pingora::{Error, ErrorType};

/// Fields that concern one connection and end with it (RFC 9110 §7.6.1).
const OF_ONE_CONNECTION: [&str; 6] = ["connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"];

/// What was read of a request's body.
#[derive(Debug)]
pub(super) struct ReadBody {
    /// The bytes, in the order in which they came.
    pub(super) bytes: Vec<u8>,
    /// Whether that is all of it: nothing else can be judged.
    pub(super) whole: bool,
    /// Whether the engine no longer has them.
    pub(super) forgotten: bool,
}

/// Makes connections for such requests.
pub(super) struct Sender(Connector<()>);

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender")
    }
}

impl Sender {
    pub(super) fn new() -> Self {
        Self(Connector::new(None))
    }

    /// Sends `head` and `body`, and behind it what the client still sends if that is not all, and waits for the head of the
    /// answer.
    ///
    /// # Errors
    /// The upstream failed, or the client before its body came to its end.
    pub(super) async fn send(
        &self,
        peer: &HttpPeer,
        head: RequestHeader,
        body: Bytes,
        all: bool,
        client: &mut Session,
    ) -> pingora::Result<(HttpSession, ResponseHeader)> {
        let (mut upstream, _) = self.0.get_http_session(peer).await.map_err(|error| error.into_up())?;
        let options = peer.get_peer_options();
        upstream.set_read_timeout(options.and_then(|options| options.read_timeout));
        upstream.set_write_timeout(options.and_then(|options| options.write_timeout));
        upstream.write_request_header(Box::new(head)).await.map_err(|error| error.into_up())?;
        // An upstream that answers before it has heard everything may have stopped to listen.
        let refused = write(&mut upstream, body, all, client).await?.err();
        let answer = loop {
            if let Err(error) = upstream.read_response_header().await {
                return Err(refused.unwrap_or_else(|| error.into_up()));
            }
            match upstream.response_header() {
                Some(head) if head.status.as_u16() == 101 => return Err(broken("101 to a request that asked for no upgrade")),
                Some(head) if head.status.is_informational() => {}
                Some(head) => break head.clone(),
                None => return Err(broken("no answer")),
            }
        };
        Ok((upstream, answer))
    }
}

/// Writes the body; the inner error is the upstream's, the outer one the client's.
async fn write(upstream: &mut HttpSession, body: Bytes, all: bool, client: &mut Session) -> pingora::Result<pingora::Result<()>> {
    let mut next = (!body.is_empty()).then_some(body);
    loop {
        if let Some(bytes) = next
            && let Err(error) = upstream.write_request_body(bytes, false).await
        {
            return Ok(Err(error.into_up()));
        }
        next = match all {
            true => None,
            false => client.as_downstream_mut().read_request_body().await.map_err(|error| error.into_down())?,
        };
        if next.is_none() {
            return Ok(upstream.finish_request_body().await.map_err(|error| error.into_up()));
        }
    }
}

/// Sends the client `answer` and the content that follows it.
///
/// # Errors
/// Either side failed.
pub(super) async fn relay(upstream: &mut HttpSession, mut answer: ResponseHeader, client: &mut Session) -> pingora::Result<()> {
    for name in OF_ONE_CONNECTION {
        answer.remove_header(name);
    }
    let has_content = client.req_header().method != http::Method::HEAD && !matches!(answer.status.as_u16(), 204 | 304);
    if has_content && !answer.headers.contains_key(CONTENT_LENGTH) && !answer.headers.contains_key(TRANSFER_ENCODING) {
        // It ends with the upstream's connection; the client's goes on.
        answer.set_version(http::Version::HTTP_11);
        answer.insert_header(TRANSFER_ENCODING, "chunked")?;
    }
    client.write_response_header(Box::new(answer), false).await.map_err(|error| error.into_down())?;
    while let Some(chunk) = upstream.read_response_body().await.map_err(|error| error.into_up())? {
        client.write_response_body(Some(chunk), false).await.map_err(|error| error.into_down())?;
    }
    client.write_response_body(None, true).await.map_err(|error| error.into_down())
}

/// The head of a request that passes as it came, without what concerns the client's connection and how its body was framed.
///
/// # Errors
/// The host is no header value.
pub(super) fn passing(received: &RequestHeader, length: Option<usize>) -> pingora::Result<RequestHeader> {
    let mut head = received.clone();
    let nominated: Vec<String> = received
        .headers
        .get_all("connection")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .collect();
    let framing = ["content-length", "transfer-encoding", "expect", "http2-settings"];
    for name in nominated.iter().map(String::as_str).chain(OF_ONE_CONNECTION).chain(framing) {
        head.remove_header(name);
    }
    if !head.headers.contains_key(HOST)
        && let Some(authority) = received.uri.authority()
    {
        head.insert_header(HOST, authority.as_str())?;
    }
    head.set_version(http::Version::HTTP_11);
    match length {
        Some(length) => head.insert_header(CONTENT_LENGTH, length)?,
        None => head.insert_header(TRANSFER_ENCODING, "chunked")?,
    }
    Ok(head)
}

fn broken(why: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, why).into_up()
}
