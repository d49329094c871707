//! A head in the one form that the fast path takes; every other is the engine's.

use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::ops::Range;

use super::convert;
use crate::model::{Body, RawRequest};
use ipnet::IpNet;

/// The most fields of such a head.
const MOST_FIELDS: usize = 64;

/// Fields that say more of a request or its connection than that it is one.
const TELLING: &[&str] = &[
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Where the parts of a head stand in its bytes: a GET or HEAD of HTTP/1.1 without a body, on a connection that is kept.
#[derive(Debug)]
pub(super) struct Arrival {
    /// Whether only the head of the answer is wanted.
    pub(super) head_only: bool,
    target: Range<usize>,
    /// Every name in lower case, one behind the other.
    names: String,
    fields: Vec<Field>,
}

/// Where a field stands.
#[derive(Debug)]
struct Field {
    /// Its name in `names`.
    name: Range<usize>,
    /// Its name as it was written, in the bytes.
    spelt: Range<usize>,
    /// Its value, in the bytes.
    value: Range<usize>,
}

impl Arrival {
    /// Recognises a head that was already found to have one reading.
    pub(super) fn recognise(head: &[u8], target: &[u8]) -> Option<Self> {
        let mut parsed = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut request = httparse::Request::new(&mut []);
        if request.parse_with_uninit_headers(head, &mut parsed).ok()?.is_partial() || request.version != Some(1) {
            return None;
        }
        let head_only = match request.method {
            Some("GET") => false,
            Some("HEAD") => true,
            _ => return None,
        };
        let path = request.path.map(str::as_bytes).filter(|path| *path == target && is_origin_form(path))?;
        let mut names = String::with_capacity(head.len());
        let mut fields = Vec::with_capacity(request.headers.len());
        for field in request.headers.iter() {
            let begins = names.len();
            names.push_str(field.name);
            let name = names.get_mut(begins..)?;
            name.make_ascii_lowercase();
            let name = &*name;
            if TELLING.contains(&name) || (name == "connection" && !field.value.eq_ignore_ascii_case(b"keep-alive")) {
                return None;
            }
            let name = begins..names.len();
            fields.push(Field { name, spelt: within(head, field.name.as_bytes())?, value: within(head, field.value)? });
        }
        Some(Self { head_only, target: within(head, path)?, names, fields })
    }

    /// Every field: its name in lower case, and its value.
    pub(super) fn fields<'a>(&'a self, head: &'a [u8]) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.fields.iter().filter_map(|field| Some((self.names.get(field.name.clone())?, head.get(field.value.clone())?)))
    }

    /// Every field: its name in lower case, its name as it was written, and its value.
    pub(super) fn spelt<'a>(&'a self, head: &'a [u8]) -> impl Iterator<Item = (&'a str, &'a [u8], &'a [u8])> {
        let spelt = self.fields.iter().filter_map(|field| head.get(field.spelt.clone()));
        self.fields(head).zip(spelt).map(|((name, value), spelt)| (name, spelt, value))
    }

    /// The one `Host`.
    pub(super) fn host<'a>(&'a self, head: &'a [u8]) -> Option<&'a str> {
        let mut hosts = self.fields(head).filter(|(name, _)| *name == "host");
        match (hosts.next(), hosts.next()) {
            (Some((_, host)), None) => std::str::from_utf8(host).ok().filter(|host| !host.is_empty()),
            _ => None,
        }
    }

    /// Where it came from.
    pub(super) fn origin(&self, head: &[u8], peer: IpAddr, tls: bool, trusted: &[IpNet]) -> convert::Origin {
        let values = |name: &'static str| self.fields(head).filter(|field| field.0 == name).map(|field| field.1).collect();
        convert::origin(values, peer, tls, trusted)
    }

    /// The request as it is sent on, for what its answer says of its credential.
    pub(super) fn raw_from<'a>(&'a self, head: &'a [u8], client: IpAddr) -> RawRequest<'a> {
        let origin = convert::Origin { client, forwarded_for: String::new(), proto: "http", correlation: None };
        self.raw(head, self.host(head).unwrap_or_default(), &origin)
    }

    /// The request as the walk reads it.
    pub(super) fn raw<'a>(&'a self, head: &'a [u8], host: &'a str, origin: &convert::Origin) -> RawRequest<'a> {
        RawRequest {
            method: if self.head_only { "HEAD" } else { "GET" },
            target: head.get(self.target.clone()).unwrap_or_default(),
            host: Some(host),
            headers: self.fields(head).collect(),
            body: Body::Absent,
            content: None,
            client: origin.client,
            correlation: origin.correlation.clone(),
        }
    }
}

/// A path and a query of the characters that RFC 3986 §3.3 and §3.4 have in them. The engine refuses some of the others.
fn is_origin_form(target: &[u8]) -> bool {
    target.starts_with(b"/") && target.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/?".contains(byte))
}

/// Where `part` stands in `whole`.
fn within(whole: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let begins = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let place = begins..begins + part.len();
    (whole.get(place.clone())? == part).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recognised(head: &str) -> Option<Arrival> {
        Arrival::recognise(head.as_bytes(), head.split(' ').nth(1).unwrap_or_default().as_bytes())
    }

    #[test]
    fn a_plain_get_is_read_with_its_fields_in_lower_case() {
        let head = "GET /api/v1/rooms.roles?rid=a HTTP/1.1\r\nHost: chat\r\nX-User-Id:  u \r\nConnection: Keep-Alive\r\n\r\n";
        let arrival = recognised(head).unwrap();
        let fields: Vec<_> = arrival.fields(head.as_bytes()).collect();
        assert_eq!(fields, [("host", &b"chat"[..]), ("x-user-id", b"u"), ("connection", b"Keep-Alive")]);
        assert_eq!((arrival.host(head.as_bytes()), arrival.head_only), (Some("chat"), false));
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
            assert!(recognised(head).is_none(), "{head:?}");
        }
        let many = format!("GET /a HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(MOST_FIELDS));
        assert!(recognised(&many).is_none());
    }
}
