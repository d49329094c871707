//! A head in the one form that the fast path takes; every other is the engine's.

use std::net::IpAddr;

use super::convert;
use super::head::{Framing, Head};
use crate::model::{Body, RawRequest};
use ipnet::IpNet;

/// The most fields of such a head.
const MOST_FIELDS: usize = 64;

/// Whether a field says more of a request or its connection than that it is one.
fn is_telling(name: &str) -> bool {
    matches!(
        name,
        "content-length"
            | "expect"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// A GET or HEAD of HTTP/1.1 without a body, on a connection that is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival<'a> {
    /// Whether only the head of the answer is wanted.
    pub(super) head_only: bool,
    /// The one `Host`.
    pub(super) host: &'a str,
    target: &'a [u8],
    head: &'a Head,
    bytes: &'a [u8],
}

impl<'a> Arrival<'a> {
    /// Recognises a `head` that was read from the beginning of `bytes`.
    pub(super) fn recognise(head: &'a Head, bytes: &'a [u8]) -> Option<Self> {
        let head_only = match bytes.get(head.method.clone())? {
            b"GET" => false,
            b"HEAD" => true,
            _ => return None,
        };
        let plain = !head.old && !head.upgrade && head.framing == Framing::Length(0) && head.fields.count() <= MOST_FIELDS;
        let target = bytes.get(head.target.clone()).filter(|target| plain && is_origin_form(target))?;
        let mut host = None;
        for (name, value) in head.fields.of_head(bytes) {
            match name {
                "host" => host = str::from_utf8(value).ok().filter(|host| !host.is_empty()),
                "connection" if !value.eq_ignore_ascii_case(b"keep-alive") => return None,
                name if is_telling(name) => return None,
                _ => {}
            }
        }
        Some(Self { head_only, host: host?, target, head, bytes })
    }

    /// Every field: its name in lower case, and its value.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.head.fields.of_head(self.bytes)
    }

    /// Every field: its name in lower case, its name as it was written, and its value.
    pub(super) fn spelt(&self) -> impl Iterator<Item = (&'a str, &'a [u8], &'a [u8])> + use<'a> {
        self.head.fields.spelt(self.bytes)
    }

    /// Where it came from.
    pub(super) fn origin(&self, peer: IpAddr, tls: bool, trusted: &[IpNet]) -> convert::Origin {
        let values = |name: &'static str| self.fields().filter(|field| field.0 == name).map(|field| field.1).collect();
        convert::origin(values, peer, tls, trusted)
    }

    /// The request as the walk reads it, from where `client` and `correlation` say.
    pub(super) fn raw(&self, client: Option<IpAddr>, correlation: Option<String>) -> RawRequest<'a> {
        let mut headers = Vec::with_capacity(self.head.fields.count());
        headers.extend(self.fields());
        RawRequest {
            method: if self.head_only { "HEAD" } else { "GET" },
            target: self.target,
            host: Some(self.host),
            headers,
            body: Body::Absent,
            content: None,
            client,
            correlation,
        }
    }
}

/// A path and a query of the characters that RFC 3986 §3.3 and §3.4 have in them. The engine refuses some of the others.
fn is_origin_form(target: &[u8]) -> bool {
    target.starts_with(b"/")
        && target.iter().all(|byte| {
            matches!(
                byte,
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')'
                    | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' | b'%' | b'/' | b'?'
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::head::{self, Reading};

    /// What `look` sees of the head in `text`; nothing when it is the engine's.
    fn recognised<T>(text: &str, look: impl FnOnce(Arrival<'_>) -> T) -> Option<T> {
        let Reading::Complete(head) = head::read(text.as_bytes(), 4096, 128, &mut head::Fields::default()) else { return None };
        Arrival::recognise(&head, text.as_bytes()).map(look)
    }

    #[test]
    fn a_plain_get_is_read_with_its_fields_in_lower_case() {
        let head = "GET /api/v1/rooms.roles?rid=a HTTP/1.1\r\nHost: chat\r\nX-User-Id:  u \r\nConnection: Keep-Alive\r\n\r\n";
        recognised(head, |arrival| {
            let fields: Vec<_> = arrival.fields().collect();
            assert_eq!(fields, [("host", &b"chat"[..]), ("x-user-id", b"u"), ("connection", b"Keep-Alive")]);
            assert_eq!((arrival.host, arrival.head_only), ("chat", false));
        })
        .unwrap();
    }

    #[test]
    fn whatever_says_more_is_the_engines() {
        for head in [
            "POST /a HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /a HTTP/1.0\r\nHost: x\r\n\r\n",
            "GET http://x/a HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /a?b={} HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /a?b[]=c HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, x-auth-token\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\n",
        ] {
            assert!(recognised(head, |_| ()).is_none(), "{head:?}");
        }
        let many = format!("GET /a HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(MOST_FIELDS));
        assert!(recognised(&many, |_| ()).is_none());
    }
}
