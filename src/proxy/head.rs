//! A request's head as bytes: read strictly, before the proxy engine sees it, so that no two servers read its bounds differently.

use std::mem::MaybeUninit;
use std::net::Ipv6Addr;
use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::metrics::RejectedCause;

/// How a head's content is framed (RFC 9112 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Exactly this many bytes follow; 0 when none are announced.
    Length(u64),
    /// Chunks follow.
    Chunked,
}

/// A head that has one reading: where its parts stand in the bytes that it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Its length in bytes, the empty line included.
    pub(super) length: usize,
    /// The method.
    pub(super) method: Range<usize>,
    /// The target as received.
    pub(super) target: Range<usize>,
    /// Whether it is HTTP/1.0's.
    pub(super) old: bool,
    /// What follows it.
    pub(super) framing: Framing,
    /// Whether the connection may become another protocol's.
    pub(super) upgrade: bool,
    /// Its fields.
    pub(super) fields: Fields,
}

/// The fields of a head, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields {
    /// Every name in lower case, one behind the other.
    names: String,
    places: Vec<Place>,
}

/// Where a field stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// Its name in `names`.
    name: Range<usize>,
    /// Its name as it was written, in the bytes.
    spelt: Range<usize>,
    /// Its value, in the bytes.
    value: Range<usize>,
}

impl Fields {
    /// Notes in `room` where the parts of `parsed` stand in `head`.
    fn of(head: &[u8], parsed: &[httparse::Header<'_>], room: Self) -> Option<Self> {
        let Self { mut names, mut places } = room;
        names.clear();
        names.reserve(parsed.iter().map(|field| field.name.len()).sum());
        places.clear();
        places.reserve(parsed.len());
        for field in parsed {
            let begins = names.len();
            names.push_str(field.name);
            let (spelt, value) = (within(head, field.name.as_bytes())?, within(head, field.value)?);
            places.push(Place { name: begins..names.len(), spelt, value });
        }
        names.make_ascii_lowercase();
        Some(Self { names, places })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// Every field in the `head` that they were read from: its name in lower case, and its value.
    pub(super) fn of_head<'a>(&'a self, head: &'a [u8]) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.spelt(head).map(|(name, _, value)| (name, value))
    }

    /// Every field: its name in lower case, its name as it was written, and its value.
    pub(super) fn spelt<'a>(&'a self, head: &'a [u8]) -> impl Iterator<Item = (&'a str, &'a [u8], &'a [u8])> {
        self.places.iter().filter_map(|place| {
            Some((self.names.get(place.name.clone())?, head.get(place.spelt.clone())?, head.get(place.value.clone())?))
        })
    }
}

/// Where `part` stands in `whole`, of which it is a part.
fn within(whole: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let begins = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let place = begins..begins.checked_add(part.len())?;
    (place.end <= whole.len()).then_some(place)
}

/// A head that is refused, with what could be read of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Malformed {
    /// What is wrong.
    pub(super) why: &'static str,
    /// The method, as far as it can be read.
    pub(super) method: String,
    /// The target, as far as it can be read.
    pub(super) target: Vec<u8>,
    /// The host, when there is exactly one.
    pub(super) host: Option<String>,
}

/// What the bytes read so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reading {
    /// The beginning of a head.
    Incomplete,
    /// A whole head.
    Complete(Head),
    /// No head that has one reading.
    Refused(Malformed),
}

/// For so many fields there is room without asking for memory.
const USUAL_FIELDS: usize = 128;
/// The longest request line, beside the header section.
pub(super) const REQUEST_LINE: usize = 16 * 1024;
/// Why a head is refused that is only too large.
pub(super) const TOO_LARGE: &str = "the head is too large";
pub(super) const TOO_MANY: &str = "the head has too many fields";
/// So much of the target of a refused head is told.
pub(super) const TOLD_TARGET: usize = 1024;

/// Ends a head.
static EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// Reads the head at the beginning of `bytes`; its header section may have `header_bytes` and `header_fields`. Takes the `room`
/// of an earlier head's fields for those of this one.
pub(super) fn read(bytes: &[u8], header_bytes: usize, header_fields: usize, room: &mut Fields) -> Reading {
    let refused = |why: &'static str| Reading::Refused(told(bytes, why));
    let end = EMPTY_LINE.find(bytes).map(|at| at + 4);
    let head = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    if let Some(why) = line_ends(head, end.is_some()) {
        return refused(why);
    }
    // The header section begins behind the request line and ends before the empty line.
    let begins = memchr::memchr(b'\n', head).map_or(head.len(), |at| at + 1);
    let section = head.len().saturating_sub(begins + if end.is_some() { 2 } else { 0 });
    if section > header_bytes || head.len() > header_bytes.saturating_add(REQUEST_LINE) {
        return refused(TOO_LARGE);
    }
    let Some(length) = end else { return Reading::Incomplete };
    let (mut few, mut many) = ([const { MaybeUninit::uninit() }; USUAL_FIELDS], Vec::new());
    let fields = match few.get_mut(..header_fields) {
        Some(fields) => fields,
        None => {
            many.resize_with(header_fields, MaybeUninit::uninit);
            &mut many
        }
    };
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(head, fields) {
        Ok(httparse::Status::Complete(parsed)) if parsed == length => {}
        Ok(_) => return refused("the head ends before its empty line"),
        Err(httparse::Error::TooManyHeaders) => return refused(TOO_MANY),
        Err(_) => return refused("the head is malformed"),
    }
    match complete(head, &request, std::mem::take(room)) {
        Ok(head) => Reading::Complete(head),
        Err(why) => refused(why),
    }
}

/// What was parsed of the whole `head`.
fn complete(head: &[u8], request: &httparse::Request<'_, '_>, room: Fields) -> Result<Head, &'static str> {
    const MALFORMED: &str = "the head is malformed";
    let (method, path) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let fields = Fields::of(head, request.headers, room).ok_or(MALFORMED)?;
    let old = match request.version {
        Some(1) => false,
        Some(0) => true,
        _ => return Err("the version is neither HTTP/1.1 nor HTTP/1.0"),
    };
    match method {
        "TRACE" => return Err("`TRACE` would show the credential to the client"),
        "CONNECT" => return Err("`CONNECT` asks for a tunnel"),
        _ => {}
    }
    let telling = Telling::of(fields.of_head(head));
    let framing = telling.framing(old)?;
    target_form(path, method, telling.host.once())?;
    let (method, target) = (within(head, method.as_bytes()), within(head, path.as_bytes()));
    let (method, target) = (method.ok_or(MALFORMED)?, target.ok_or(MALFORMED)?);
    let upgrade = telling.upgrade;
    Ok(Head { length: head.len(), method, target, old, framing, upgrade, fields })
}

/// Line ends other than CRLF: one server ends a line where another reads on (RFC 9112 §2.2 lets it choose).
fn line_ends(head: &[u8], complete: bool) -> Option<&'static str> {
    for at in memchr::memchr3_iter(b'\r', b'\n', 0, head) {
        match head.get(at) {
            Some(b'\n') if at == 0 || head.get(at - 1) != Some(&b'\r') => return Some("a line ends without a carriage return"),
            Some(b'\r') => match head.get(at + 1) {
                Some(b'\n') => {}
                None if !complete => {}
                _ => return Some("a carriage return stands within a line"),
            },
            Some(0) => return Some("the head holds a NUL"),
            _ => {}
        }
    }
    None
}

/// How often a field is there, and its value when it is there once.
#[derive(Default)]
enum Seen<'a> {
    #[default]
    Never,
    Once(&'a [u8]),
    Again,
}

impl<'a> Seen<'a> {
    fn once(&self) -> Option<&'a [u8]> {
        match self {
            Self::Once(value) => Some(value),
            Self::Never | Self::Again => None,
        }
    }
}

/// The fields that say for whom a message is and where it ends.
#[derive(Default)]
struct Telling<'a> {
    host: Seen<'a>,
    length: Seen<'a>,
    coding: Seen<'a>,
    upgrade: bool,
}

impl<'a> Telling<'a> {
    /// What the fields say of that.
    fn of<'n>(fields: impl Iterator<Item = (&'n str, &'a [u8])>) -> Self {
        let mut telling = Self::default();
        for (name, value) in fields {
            let seen = match name {
                "host" => &mut telling.host,
                "content-length" => &mut telling.length,
                "transfer-encoding" => &mut telling.coding,
                "upgrade" => {
                    telling.upgrade = true;
                    continue;
                }
                _ => continue,
            };
            *seen = match seen {
                Seen::Never => Seen::Once(value),
                Seen::Once(_) | Seen::Again => Seen::Again,
            };
        }
        telling
    }

    /// What follows the head, when both sides of a connection must agree on it (RFC 9112 §6.1, §6.3, §11.2).
    fn framing(&self, old: bool) -> Result<Framing, &'static str> {
        match self.host {
            Seen::Again => return Err("more than one `Host`"),
            Seen::Never if !old => return Err("no `Host`"),
            Seen::Once(host) if !is_host(host) => return Err("`Host` is no host"),
            Seen::Never | Seen::Once(_) => {}
        }
        let length = match self.length {
            Seen::Again => return Err("more than one `Content-Length`"),
            Seen::Once(length) => Some(decimal(length).ok_or("`Content-Length` is no plain number")?),
            Seen::Never => None,
        };
        match self.coding {
            Seen::Never => Ok(Framing::Length(length.unwrap_or(0))),
            _ if length.is_some() => Err("`Content-Length` and `Transfer-Encoding`"),
            _ if old => Err("`Transfer-Encoding` in HTTP/1.0"),
            Seen::Again => Err("more than one `Transfer-Encoding`"),
            Seen::Once(coding) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            Seen::Once(_) => Err("a `Transfer-Encoding` other than `chunked`"),
        }
    }
}

/// Why a request over h2 is refused whose names are in lower case and whose authority is its `host`: what has more than one
/// reading over HTTP/1 is not sent on from there either.
pub(super) fn fault<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Option<&'static str> {
    match Telling::of(fields).framing(false) {
        Err(why) => Some(why),
        // Frames say where its content ends (RFC 9113 §8.2.2).
        Ok(Framing::Chunked) => Some("`Transfer-Encoding` over h2"),
        Ok(Framing::Length(_)) => None,
    }
}

/// How a refusal for `why` is counted.
pub(super) fn cause(why: &str) -> RejectedCause {
    if [TOO_LARGE, TOO_MANY].contains(&why) { RejectedCause::HeaderTooLarge } else { RejectedCause::Malformed }
}

/// The forms that a target may have (RFC 9112 §3.2): a path, a URL of this very host, or `*` with `OPTIONS`. Whatever else
/// it were, one server would put a slash before it and another would look for a host in it.
fn target_form(target: &str, method: &str, host: Option<&[u8]>) -> Result<(), &'static str> {
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(());
    }
    let Some((scheme, rest)) = target.split_once("://") else { return Err("the target has none of the forms of a target") };
    let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    let is_web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    match host {
        Some(host) if is_web && host.eq_ignore_ascii_case(authority.as_bytes()) => Ok(()),
        _ => Err("the target names another authority than `Host`"),
    }
}

/// A name, an IPv4 address or an IPv6 address in brackets, with or without a port (RFC 9110 §7.2, RFC 3986 §3.2.2).
///
/// Of registered names only those that DNS could hold (RFC 1034 §3.5, and the underscore of service names): labels that are not
/// empty, the root's closing dot behind them or not.
pub(super) fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host.strip_prefix(b"[") {
        Some(literal) => {
            let Some(end) = memchr::memchr(b']', literal) else { return false };
            let (address, rest) = (literal.get(..end).unwrap_or_default(), literal.get(end + 1..).unwrap_or_default());
            if str::from_utf8(address).ok().and_then(|address| address.parse::<Ipv6Addr>().ok()).is_none() {
                return false;
            }
            (None, rest)
        }
        None => {
            let end = memchr::memchr(b':', host).unwrap_or(host.len());
            (host.get(..end), host.get(end..).unwrap_or_default())
        }
    };
    name.is_none_or(is_name) && is_port(port)
}

fn is_name(name: &[u8]) -> bool {
    let mut before = b'.';
    let labels = name.iter().all(|byte| {
        let fits = match byte {
            b'.' => before != b'.',
            _ => byte.is_ascii_alphanumeric() || b"-_~".contains(byte),
        };
        before = *byte;
        fits
    });
    labels && !name.is_empty()
}

/// Nothing, or a colon and the digits of a port, which RFC 3986 §3.2.3 lets be none.
fn is_port(port: &[u8]) -> bool {
    let Some(digits) = port.strip_prefix(b":") else { return port.is_empty() };
    digits.is_empty() || decimal(digits).is_some_and(|port| port <= u64::from(u16::MAX))
}

/// Whether a request line can hold `target`: text without spaces and control characters, as it is read here.
pub(super) fn is_target(target: &[u8]) -> bool {
    str::from_utf8(target).is_ok() && !target.iter().any(|byte| byte.is_ascii_control() || *byte == b' ')
}

/// Digits and nothing else: `+5`, `5,5` and ` 5` are lengths to one server and not to the next.
fn decimal(text: &[u8]) -> Option<u64> {
    let plain = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    plain.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

/// What can be told of a head that is refused, and of `why`.
pub(super) fn told(bytes: &[u8], why: &'static str) -> Malformed {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = lines.next().unwrap_or_default().splitn(3, |byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    let method = String::from_utf8_lossy(method.get(..method.len().min(32)).unwrap_or_default()).into_owned();
    let target = words.next().unwrap_or_default();
    let target = target.get(..target.len().min(TOLD_TARGET)).unwrap_or_default().to_vec();
    let mut hosts = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (line.get(..at)?, line.get(at + 1..)?);
        name.eq_ignore_ascii_case(b"host").then(|| String::from_utf8_lossy(value).trim().to_owned())
    });
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(host),
        _ => None,
    };
    Malformed { why, method, target, host }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reading(text: &str) -> Reading {
        read(text.as_bytes(), 1024, 10, &mut Fields::default())
    }

    #[test]
    fn a_plain_head_is_read_to_its_empty_line() {
        let text = "GET /a?b HTTP/1.1\r\nHost: x\r\n\r\nrest";
        let Reading::Complete(head) = reading(text) else { panic!("{text}") };
        assert_eq!((head.length, head.framing, head.upgrade, head.old), (text.len() - 4, Framing::Length(0), false, false));
        assert_eq!((&text[head.method], &text[head.target]), ("GET", "/a?b"));
        assert_eq!(head.fields.spelt(text.as_bytes()).collect::<Vec<_>>(), [("host", &b"Host"[..], &b"x"[..])]);
        assert_eq!(reading("GET /a?b HTTP/1.1\r\nHost: x\r\n\r"), Reading::Incomplete);
        assert_eq!(reading(""), Reading::Incomplete);
    }

    #[test]
    fn a_field_without_a_value_is_a_field() {
        for text in ["GET / HTTP/1.1\r\nHost: x\r\nA:\r\nB: \r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nA: \t \r\nB:\r\n\r\nrest"] {
            let Reading::Complete(head) = reading(text) else { panic!("{text:?}") };
            let fields: Vec<_> = head.fields.of_head(text.as_bytes()).collect();
            assert_eq!(fields, [("host", &b"x"[..]), ("a", b""), ("b", b"")]);
        }
    }

    #[test]
    fn content_is_framed_in_one_way_or_refused() {
        let framing = |fields: &str| match reading(&format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n")) {
            Reading::Complete(head) => Ok(head.framing),
            Reading::Refused(malformed) => Err(malformed.why),
            Reading::Incomplete => panic!("incomplete"),
        };
        assert_eq!(framing("Content-Length: 5\r\n"), Ok(Framing::Length(5)));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Ok(Framing::Chunked));
        // A server of that version knows no chunks (RFC 9112 §6.1).
        let old = reading("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
        assert!(matches!(old, Reading::Refused(_)));
        for fields in [
            "Content-Length: +5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999999\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length : 5\r\n",
            " folded: x\r\n",
            "A: b\r\n folded\r\n",
            "Host: y\r\n",
            "A: b\n",
            "A: b\rc\r\n",
            "A: \0\r\n",
        ] {
            assert!(framing(fields).is_err(), "{fields:?}");
        }
    }

    #[test]
    fn a_target_has_one_of_its_forms_and_names_no_other_host() {
        let refused = |line: &str| matches!(reading(&format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n")), Reading::Refused(_));
        for line in ["GET /a", "OPTIONS *", "GET http://x/a", "GET HTTPS://X", "GET //y/a"] {
            assert!(!refused(line), "{line}");
        }
        for line in ["GET *", "GET a", "GET http:/a", "GET http://y/a", "GET http://u@x/a", "GET ftp://x/a", "GET x:80", "GET ?a"]
        {
            assert!(refused(line), "{line}");
        }
    }

    #[test]
    fn a_bare_line_feed_is_refused_before_the_head_is_whole() {
        assert!(matches!(reading("GET / HTTP/1.1\nHost"), Reading::Refused(_)));
    }

    #[test]
    fn what_is_refused_is_told_as_far_as_it_can_be_read() {
        let Reading::Refused(malformed) = reading("GET /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n") else {
            panic!()
        };
        assert_eq!((malformed.method.as_str(), malformed.target.as_slice()), ("GET", &b"/api/x"[..]));
        assert_eq!(malformed.host.as_deref(), Some("a"));
    }

    #[test]
    fn a_head_has_its_bounds() {
        let large = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}", "a".repeat(2000));
        assert!(matches!(reading(&large), Reading::Refused(Malformed { why: TOO_LARGE, .. })));
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(10));
        assert!(matches!(reading(&many), Reading::Refused(Malformed { why: TOO_MANY, .. })));
        let long = format!("GET /{}", "a".repeat(20_000));
        assert!(matches!(reading(&long), Reading::Refused(Malformed { why: TOO_LARGE, .. })));
    }

    proptest! {
        #[test]
        fn a_head_is_the_same_whatever_stood_in_its_room(
            heads in prop::collection::vec(prop::collection::vec(("[A-Za-z-]{1,12}", "[ -~]{0,20}"), 0..8), 1..6),
        ) {
            let mut room = Fields::default();
            for fields in heads {
                let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                let text = format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
                let fresh = read(text.as_bytes(), 1024, 10, &mut Fields::default());
                let reused = read(text.as_bytes(), 1024, 10, &mut room);
                prop_assert_eq!(&reused, &fresh);
                if let Reading::Complete(head) = reused {
                    room = head.fields;
                }
            }
        }

        #[test]
        fn no_bytes_panic_and_a_head_never_reaches_past_them(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Reading::Complete(head) = read(&bytes, 200, 5, &mut Fields::default()) {
                prop_assert!(head.length <= bytes.len());
            }
        }

        #[test]
        fn what_is_incomplete_stays_so_however_little_is_cut(cut in 0_usize..36) {
            let text = "GET /a HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n";
            prop_assert_eq!(reading(&text[..cut.min(text.len() - 1)]), Reading::Incomplete);
        }
    }
}
