//! Between the proxy engine's types and the walk's: heads in, heads out.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::date::get_cached_date;

use super::relay;
use crate::audit::Recorded;
use crate::model::{Body, RawRequest, Reason};
use crate::pipeline::{Permit, Site, dashed};
use crate::rules::provider::{HostHeader, Provider};
use crate::rules::refusal::{Filling, Refusal};
use crate::traces::Trace;
use ipnet::IpNet;

/// Whether a field of a guarded request tells a server nothing that it could be misled by.
fn is_harmless(name: &str) -> bool {
    matches!(
        name,
        "accept"
            | "accept-encoding"
            | "accept-language"
            | "cache-control"
            | "dnt"
            | "if-modified-since"
            | "if-none-match"
            | "origin"
            | "pragma"
            | "referer"
            | "sec-fetch-dest"
            | "sec-fetch-mode"
            | "sec-fetch-site"
            | "traceparent"
            | "tracestate"
            | "user-agent"
    )
}

/// Whether a field tells where a request came from; those are made anew, and no spelling of them is passed on.
fn is_forwarding(name: &str) -> bool {
    matches!(
        &*dashed(name),
        "forwarded" | "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "x-forwarded-port" | "x-real-ip"
    )
}

/// What stands in `X-Forwarded-For` for an address that is not known (RFC 7239 §6.3 has the same word).
const UNKNOWN: &str = "unknown";

/// Where a request came from, as far as it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// The client's address; nothing when a trusted proxy wrote none.
    pub(super) client: Option<IpAddr>,
    /// The chain to send on: what a trusted proxy said, and the peer it said it from. It begins with the client, or `unknown`.
    pub(super) forwarded_for: String,
    /// `http` or `https`.
    pub(super) proto: &'static str,
    /// A trusted proxy's id of the request.
    pub(super) correlation: Option<String>,
}

impl Origin {
    /// The client's address as it stands at the beginning of the chain, if it is known. A server that is told none sees where
    /// the connection comes from: that is true, and a proxy's address in the client's place is not.
    fn client_text(&self) -> Option<&str> {
        self.client.and_then(|_| self.forwarded_for.split(',').next())
    }
}

/// Where every request of a connection came from whose peer is no trusted proxy: whatever it says of that is worth nothing.
#[must_use]
pub(super) fn strangers(peer: IpAddr, tls: bool, trusted: &[IpNet]) -> Option<Origin> {
    let client = peer.to_canonical();
    let believed = trusted.iter().any(|net| net.contains(&client));
    let proto = if tls { "https" } else { "http" };
    (!believed).then(|| Origin { client: Some(client), forwarded_for: client.to_string(), proto, correlation: None })
}

/// Reads where a request came from: the peer's own address, unless the peer is a proxy that is trusted.
///
/// Of `X-Forwarded-For` the rightmost address that is not itself a trusted proxy is the client; what stands left of it was
/// written by the client and is worth nothing. Where all of them are trusted, the leftmost one is the client: a trusted machine
/// that asks through another. Where that place holds no address, or there is no such field, the client is not known: the next
/// address to the right is a proxy's, and stands in networks that the client is not in.
#[must_use]
pub(super) fn origin<'a>(fields: impl Fn(&'static str) -> Vec<&'a [u8]>, peer: IpAddr, tls: bool, trusted: &[IpNet]) -> Origin {
    if let Some(origin) = strangers(peer, tls, trusted) {
        return origin;
    }
    let peer = peer.to_canonical();
    let trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let own = if tls { "https" } else { "http" };
    let mut chain = vec![peer];
    let mut client = None;
    let stated = fields("x-forwarded-for");
    for element in stated.iter().rev().flat_map(|value| value.rsplit(|byte| *byte == b',')) {
        client = address(element);
        let Some(address) = client else { break };
        chain.push(address);
        if !trusted(address) {
            break;
        }
    }
    let unknown = client.is_none().then(|| UNKNOWN.to_owned());
    let named = chain.iter().rev().map(ToString::to_string);
    let forwarded_for = unknown.into_iter().chain(named).collect::<Vec<_>>().join(", ");
    let proto = match fields("x-forwarded-proto").first().copied() {
        Some(b"https") => "https",
        Some(b"http") => "http",
        _ => own,
    };
    let id = fields("x-request-id").first().and_then(|value| str::from_utf8(value).ok());
    let well_formed =
        |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    Origin { client, forwarded_for, proto, correlation: id.filter(well_formed).map(ToOwned::to_owned) }
}

/// The address in one element of `X-Forwarded-For`: alone, in brackets, or with the port that some gateways write behind it
/// (Azure's, IIS); an IPv4-mapped one is the IPv4 address in it.
fn address(element: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(element.trim_ascii()).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let address = text.parse::<IpAddr>().ok();
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.or_else(|| bracketed().map(IpAddr::from)).map(|address| address.to_canonical())
}

/// The request's head as the walk reads it; `bodiless` says that h2 ended the request with it.
#[must_use]
pub(super) fn raw_request<'a>(head: &'a RequestHeader, bodiless: bool, origin: &Origin) -> RawRequest<'a> {
    let length = head.headers.get("content-length").and_then(|value| value.to_str().ok()).and_then(|value| value.parse().ok());
    let body = match length {
        Some(0) => Body::Absent,
        Some(length) => Body::Sized(length),
        None if head.headers.contains_key("transfer-encoding") => Body::Streamed,
        None if head.version == http::Version::HTTP_2 && !bodiless => Body::Streamed,
        None => Body::Absent,
    };
    RawRequest {
        method: head.method.as_str(),
        target: head.raw_path(),
        host: host(head),
        headers: head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect(),
        body,
        content: None,
        client: origin.client,
        correlation: origin.correlation.clone(),
    }
}

/// The host that a request is addressed to: `:authority` of h2, else the `Host` field; nothing when there are several.
#[must_use]
pub(super) fn host(head: &RequestHeader) -> Option<&str> {
    if let Some(authority) = head.uri.authority() {
        return Some(authority.as_str());
    }
    let mut hosts = head.headers.get_all("host").iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        _ => None,
    }
}

/// The host that `raw` is addressed to, empty where a client of HTTP/1.0 names none: health checks do that, and the first server
/// of a virtual host's address then has them (RFC 9112 §3.2). Nothing where there must be one.
#[must_use]
pub(super) fn addressed<'a>(raw: &RawRequest<'a>, version: http::Version) -> Option<&'a str> {
    let nameless = version == http::Version::HTTP_10 && !raw.has_header("host");
    raw.host.filter(|host| !host.is_empty()).or(nameless.then_some(""))
}

/// Whether a head speaks of going on as a WebSocket, and of nothing else.
#[must_use]
pub(super) fn is_websocket(headers: &http::HeaderMap) -> bool {
    let mut named = headers.get_all("upgrade").iter();
    let first = named.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    first && named.next().is_none()
}

/// What makes an upstream's answer none that can be passed on, as the fast path has it: framing with more than one reading, or
/// another protocol than the one that was asked for, if any (RFC 9110 §15.2.2). The engine itself has put one head in order
/// already in which both a length and chunks were stated.
#[must_use]
pub(super) fn answer_fault(head: &ResponseHeader, upgrade: bool) -> Option<&'static str> {
    let values = |name| head.headers.get_all(name).iter().map(|value| value.as_bytes());
    match head.status.as_u16() {
        101 if upgrade && is_websocket(&head.headers) => None,
        101 => Some("the upstream changed to a protocol that was not asked for"),
        100..=199 => None,
        _ => {
            let old = head.version == http::Version::HTTP_10;
            relay::framing(values("content-length"), values("transfer-encoding"), old).err()
        }
    }
}

/// The head to send for a recorded permit: made from what was judged, with named fields of the client's and no others.
///
/// # Errors
/// Something cannot be written as a header.
pub(super) fn permitted(
    permit: &Recorded<Permit>,
    received: &RequestHeader,
    origin: &Origin,
    authority: &str,
    trace: Option<&Trace>,
) -> pingora::Result<RequestHeader> {
    let mut head = RequestHeader::build(permit.method(), permit.target().as_bytes(), Some(24))?;
    head.set_version(http::Version::HTTP_11);
    let fields = received.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    sent(permit, fields, host(received), origin, authority, trace, |name, value| {
        head.append_header(name.to_owned(), value.to_vec()).map(drop)
    })?;
    Ok(head)
}

/// The same head as bytes, for a connection that the engine is not shown.
pub(super) fn permitted_bytes<'a>(
    permit: &Recorded<Permit>,
    received: impl Iterator<Item = (&'a str, &'a [u8])>,
    host: &str,
    origin: &Origin,
    authority: &str,
    trace: Option<&Trace>,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1024);
    for part in [permit.method(), " ", permit.target(), " HTTP/1.1\r\n"] {
        bytes.extend_from_slice(part.as_bytes());
    }
    let written = sent(permit, received, Some(host), origin, authority, trace, |name, value| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            bytes.extend_from_slice(part);
        }
        Ok::<(), std::convert::Infallible>(())
    });
    match written {
        Ok(()) => bytes.extend_from_slice(b"\r\n"),
        Err(never) => match never {},
    }
    bytes
}

/// A request that is not judged, as bytes for a connection that the engine is not shown: as it was received, but for what
/// concerns one connection and what says where it came from.
pub(super) fn passed_bytes<'a>(
    raw: &RawRequest<'_>,
    received: impl Iterator<Item = (&'a str, &'a [u8], &'a [u8])>,
    provider: &Provider,
    origin: &Origin,
    authority: &str,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1024);
    for part in [raw.method.as_bytes(), b" ", raw.target, b" HTTP/1.1\r\n"] {
        bytes.extend_from_slice(part);
    }
    let mut put = |name: &[u8], value: &[u8]| {
        for part in [name, b": ", value, b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    };
    let replaced = provider.host == HostHeader::Upstream;
    for (name, spelt, value) in received {
        // Of what concerns one connection only this is recognised.
        if name != "connection" && !(name == "host" && replaced) && !is_forwarding(name) {
            put(spelt, value);
        }
    }
    if replaced {
        put(b"Host", authority.as_bytes());
    }
    put(b"x-forwarded-for", origin.forwarded_for.as_bytes());
    if let Some(client) = origin.client_text() {
        put(b"x-real-ip", client.as_bytes());
    }
    put(b"x-forwarded-proto", origin.proto.as_bytes());
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The `Host` that is sent to the server at `authority` for a request that came to the host `received`.
pub(super) fn host_sent<'a>(site: &'a Site, received: Option<&'a str>, authority: &'a str) -> &'a str {
    match site.rules.provider.host {
        HostHeader::Received => received.or(site.upstream.host.as_deref()).unwrap_or(authority),
        HostHeader::Upstream => authority,
    }
}

/// Every field of a guarded request as it is sent: from what was judged, and those of the client's that are named.
fn sent<'a, E>(
    permit: &Recorded<Permit>,
    received: impl Iterator<Item = (&'a str, &'a [u8])>,
    host: Option<&str>,
    origin: &Origin,
    authority: &str,
    trace: Option<&Trace>,
    mut put: impl FnMut(&str, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let provider = &permit.trail().site().rules.provider;
    let credential = &permit.credential().headers;
    put("host", host_sent(permit.trail().site(), host, authority).as_bytes())?;
    for (name, value) in received {
        let named = is_harmless(name) || provider.forward_headers.iter().any(|forward| forward == name);
        let made_anew = credential.iter().any(|(known, _)| **known == *name)
            || (name == "content-type" && permit.content().is_some())
            || matches!(name, "host" | "content-length" | "x-request-id")
            || trace.is_some_and(|trace| trace.replaces(name))
            || is_forwarding(name);
        if named && !made_anew {
            put(name, value)?;
        }
    }
    for (name, value) in credential {
        put(name, value.reveal().as_bytes())?;
    }
    if let Some(content) = permit.content() {
        put("content-type", b"application/json")?;
        put("content-length", content.len().to_string().as_bytes())?;
    }
    put("x-forwarded-for", origin.forwarded_for.as_bytes())?;
    if let Some(client) = origin.client_text() {
        put("x-real-ip", client.as_bytes())?;
    }
    put("x-forwarded-proto", origin.proto.as_bytes())?;
    if let Some(trace) = trace {
        put("traceparent", trace.traceparent().as_bytes())?;
    }
    put("x-request-id", permit.trail().id().as_bytes())
}

/// Makes one `cookie` of those that an h2 client may have sent apart from each other, as everything but h2 reads it (RFC 9113
/// §8.2.3).
///
/// # Errors
/// Something cannot be written as a header.
pub(super) fn join_cookies(head: &mut RequestHeader) -> pingora::Result<()> {
    let mut crumbs = head.headers.get_all("cookie").iter();
    if let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) {
        let whole = [first, second].into_iter().chain(crumbs).map(|crumb| crumb.as_bytes()).collect::<Vec<_>>().join(&b"; "[..]);
        head.insert_header("cookie", whole)?;
    }
    Ok(())
}

/// Replaces what the client said of where it came from by what is known.
///
/// # Errors
/// Something cannot be written as a header.
pub(super) fn forwarding(head: &mut RequestHeader, origin: &Origin) -> pingora::Result<()> {
    let spelt: Vec<String> =
        head.headers.keys().map(|name| name.as_str().to_owned()).filter(|name| is_forwarding(name)).collect();
    for name in spelt {
        head.remove_header(&name);
    }
    head.insert_header("x-forwarded-for", origin.forwarded_for.clone())?;
    if let Some(client) = origin.client_text() {
        head.insert_header("x-real-ip", client)?;
    }
    head.insert_header("x-forwarded-proto", origin.proto)?;
    Ok(())
}

/// Takes the credentials out of a head: a preflight needs none.
pub(super) fn without_credentials(head: &mut RequestHeader, provider: &Provider) {
    for name in provider.credentials.iter().flatten().map(|name| &**name).chain(["cookie", "authorization"]) {
        head.remove_header(name);
    }
}

/// What a client is told when an upstream failed with `code`: the provider's words.
pub(super) fn failure(provider: Option<&Provider>, id: &str, code: u16) -> Refusal {
    let reason = match code {
        500 => Reason::Internal,
        400..=499 => Reason::FramingInvalid,
        _ => Reason::FactsUnavailable,
    };
    let words = provider.and_then(|provider| provider.words_for(None, reason));
    let body = words.map_or_else(|| "{}".to_owned(), |words| words.fill(Filling { message: "", param: "", id }));
    let headers = provider.map(|provider| provider.refusal_headers.clone()).unwrap_or_default();
    Refusal { status: code, body, headers }
}

/// A refusal as bytes, for a connection that the engine is not shown; the connection ends with it unless it is `kept`. A HEAD is
/// told everything but the content (RFC 9110 §9.3.2).
pub(super) fn refusal_bytes(refusal: &Refusal, id: &str, kept: bool, head_only: bool) -> Vec<u8> {
    let reason =
        http::StatusCode::from_u16(refusal.status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Refused");
    let mut text = format!("HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\n", refusal.status);
    let length = refusal.body.len().to_string();
    let connection = if kept { "" } else { "close" };
    let date = get_cached_date();
    let own = [
        ("date", date.to_str().unwrap_or_default()),
        ("content-length", length.as_str()),
        ("cache-control", "no-store"),
        ("x-request-id", id),
        ("connection", connection),
    ];
    let given = refusal.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in own.into_iter().chain(given).filter(|(_, value)| !value.is_empty()) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    if !head_only {
        text.push_str(&refusal.body);
    }
    text.into_bytes()
}

/// The head of a refusal.
///
/// # Errors
/// Something cannot be written as a header.
pub(super) fn refusal(refusal: &Refusal, id: Option<&str>) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(refusal.status, Some(8))?;
    head.insert_header("content-type", "application/json")?;
    head.insert_header("content-length", refusal.body.len())?;
    head.insert_header("cache-control", "no-store")?;
    for (name, value) in &refusal.headers {
        head.insert_header(name.clone(), value.clone())?;
    }
    if let Some(id) = id {
        head.insert_header("x-request-id", id.to_owned())?;
    }
    Ok(head)
}

#[cfg(test)]
mod tests;
