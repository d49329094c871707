//! The heads of h2 requests on their way to the engine, which would reset a stream, or answer in its own words, for what HTTP/1
//! clients are judged by or told in the provider's.
//!
//! Each header block is read and written again. A target that the engine does not take is replaced by its stand-in. A head that
//! the engine would refuse, or that would be refused over HTTP/1, is replaced by one that the engine takes. The target as received
//! and the reason of a refusal go along in two fields that no client can send. What is no block at all ends the connection, as the
//! protocol has it (RFC 9113 §4.3).

use http::Method;
use http::uri::Authority;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode, percent_encode};
use pingora::http::RequestHeader;

use super::chunks::{is_text, is_token};
use super::head::{self, REQUEST_LINE, TOLD_TARGET, TOO_LARGE, TOO_MANY};
use super::hpack::{self, Decoder, List};
use super::stand_in::stand_in;
use crate::config::Limits;

/// The field that holds the target as received, percent-encoded.
const RECEIVED: &str = "x-rolegate-received";
/// The field that says why a head is refused.
const REFUSED: &str = "x-rolegate-refused";
/// The names of what h2 says beside the fields.
const PSEUDO: [&[u8]; 6] = [b":method", b":scheme", b":path", b":authority", b":protocol", b":status"];
/// What is written where an authority cannot be, and serves no host.
const NOBODY: &str = "invalid.";

/// The length of a frame's head.
const FRAME_HEAD: usize = 9;
/// The longest payload of a frame that the engine takes, which is what h2 begins with.
const LONGEST_FRAME: usize = 16_384;
/// The longest block, as it is sent, unless more than its half is within the bounds; and the most frames that it comes in.
const LONGEST_BLOCK: usize = 256 * 1024;
const MOST_FRAMES: u32 = 64;
/// The fields of a head beside those of its header section: `:method`, `:scheme`, `:path`, `:authority` and the two of ours.
const OTHER_FIELDS: usize = 8;
/// What the engine counts for a field beside its name and its value (RFC 9113 §6.5.2).
const ENTRY: usize = 32;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A connection from its client to the engine.
#[derive(Debug)]
pub(super) struct Streams {
    decoder: Decoder,
    bounds: Bounds,
    /// A frame that is not whole yet.
    begun: Vec<u8>,
    /// How much of the payload of a frame that is not read goes on as it comes.
    passing: usize,
    block: Option<Block>,
    /// Nothing more is read.
    broken: bool,
}

/// A header block that is not whole yet.
#[derive(Debug)]
struct Block {
    stream: [u8; 4],
    flags: u8,
    bytes: Vec<u8>,
    frames: u32,
}

/// How large a head may be, as over HTTP/1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The most bytes of a header section.
    bytes: usize,
    /// The most fields of a header section.
    fields: usize,
}

impl Bounds {
    /// The bounds that are configured.
    pub(super) fn of(limits: &Limits) -> Self {
        Self { bytes: limits.header_bytes, fields: limits.header_fields }
    }

    fn head(self) -> usize {
        self.bytes.saturating_add(REQUEST_LINE)
    }

    fn entries(self) -> usize {
        self.fields.saturating_add(OTHER_FIELDS).saturating_mul(ENTRY)
    }

    /// The largest list that is read as a whole. A client may send a cookie in many fields, which are one over HTTP/1.
    fn read(self) -> usize {
        self.head().saturating_mul(2).saturating_add(self.entries())
    }

    /// The longest block.
    fn block(self) -> usize {
        self.head().saturating_mul(2).max(LONGEST_BLOCK)
    }

    /// The largest list that the engine is shown. A target may take three bytes for each in its stand-in, and three for each of
    /// these as it was received.
    pub(super) fn shown(self) -> usize {
        self.head().saturating_mul(8).saturating_add(self.read())
    }
}

impl Streams {
    /// A connection whose heads have these bounds.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { decoder: Decoder::new(), bounds, begun: Vec::new(), passing: 0, block: None, broken: false }
    }

    /// Reads what came, and writes what the engine is to read.
    pub(super) fn take(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() && !self.broken {
            if self.passing > 0 {
                let (part, rest) = bytes.split_at(self.passing.min(bytes.len()));
                out.extend_from_slice(part);
                self.passing -= part.len();
                bytes = rest;
                continue;
            }
            let wanted = match self.begun.first_chunk() {
                None => FRAME_HEAD,
                Some(head) => FRAME_HEAD + length(head),
            };
            let (part, rest) = bytes.split_at((wanted - self.begun.len()).min(bytes.len()));
            self.begun.extend_from_slice(part);
            bytes = rest;
            self.frame(out);
        }
    }

    /// Looks at the frame that has begun, if it can be told what it is.
    fn frame(&mut self, out: &mut Vec<u8>) {
        let Some(head) = self.begun.first_chunk::<FRAME_HEAD>().copied() else { return };
        let length = length(&head);
        let [_, _, _, kind, flags, stream @ ..] = head;
        if !matches!(kind, HEADERS | CONTINUATION) {
            // Nothing may stand between the frames of a block (RFC 9113 §4.3).
            if self.block.is_some() {
                return self.fail(stream, out);
            }
            out.append(&mut self.begun);
            self.passing = length;
            return;
        }
        if length > LONGEST_FRAME {
            return self.fail(stream, out);
        }
        if self.begun.len() < FRAME_HEAD + length {
            return;
        }
        let frame = std::mem::take(&mut self.begun);
        let payload = frame.get(FRAME_HEAD..).unwrap_or_default();
        let block = match (kind, self.block.take()) {
            (HEADERS, None) => {
                fragment(payload, flags).map(|fragment| Block { stream, flags, bytes: fragment.to_vec(), frames: 1 })
            }
            (CONTINUATION, Some(mut block)) if block.stream == stream => {
                block.bytes.extend_from_slice(payload);
                block.frames += 1;
                Some(block)
            }
            _ => None,
        };
        match block.filter(|block| block.bytes.len() <= self.bounds.block() && block.frames <= MOST_FRAMES) {
            Some(block) if flags & END_HEADERS != 0 => self.whole(&block, out),
            Some(block) => self.block = Some(block),
            None => self.fail(stream, out),
        }
    }

    fn whole(&mut self, block: &Block, out: &mut Vec<u8>) {
        let Some(list) = self.decoder.decode(&block.bytes, self.bounds.read()) else { return self.fail(block.stream, out) };
        let mut written = Vec::new();
        for (name, value) in presented(list, self.bounds) {
            hpack::encode(&name, &value, &mut written);
        }
        let mut parts = written.chunks(LONGEST_FRAME).peekable();
        let (mut kind, mut flags) = (HEADERS, block.flags & END_STREAM);
        loop {
            let part = parts.next().unwrap_or_default();
            let last = parts.peek().is_none();
            put(kind, flags | if last { END_HEADERS } else { 0 }, block.stream, part, out);
            if last {
                return;
            }
            (kind, flags) = (CONTINUATION, 0);
        }
    }

    /// Gives the engine a block that is none: it says so to the client, and ends the connection.
    fn fail(&mut self, stream: [u8; 4], out: &mut Vec<u8>) {
        self.broken = true;
        put(HEADERS, END_HEADERS, stream, &[0x80], out);
    }
}

fn length(head: &[u8; FRAME_HEAD]) -> usize {
    usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])
}

fn put(kind: u8, flags: u8, stream: [u8; 4], payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    out.extend_from_slice(length.get(1..).unwrap_or_default());
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream);
    out.extend_from_slice(payload);
}

/// The part of a block in the payload of its first frame.
fn fragment(payload: &[u8], flags: u8) -> Option<&[u8]> {
    let (padding, payload) = match flags & PADDED {
        0 => (0, payload),
        _ => payload.split_first().map(|(padding, rest)| (usize::from(*padding), rest))?,
    };
    let payload = payload.get(if flags & PRIORITY == 0 { 0 } else { 5 }..)?;
    payload.get(..payload.len().checked_sub(padding)?)
}

type Field = (Vec<u8>, Vec<u8>);

fn field(name: &str, value: impl Into<Vec<u8>>) -> Field {
    (name.as_bytes().to_vec(), value.into())
}

fn is(field: &Field, name: &str) -> bool {
    field.0 == name.as_bytes()
}

/// The fields that the engine is shown. What it resets a stream for is left as it is where HTTP/1 has no word for it.
fn presented(list: List, bounds: Bounds) -> Vec<Field> {
    let List { mut fields, whole } = list;
    fields.retain(|field| !is(field, RECEIVED) && !is(field, REFUSED));
    let Some(request) = Request::of(&fields) else {
        // The engine resets a stream for this field (RFC 9113 §8.2.2), and would take what is left of the list for all of it.
        return if whole { fields } else { vec![field("connection", "close")] };
    };
    let why = match whole {
        true => excess(&fields, bounds).or_else(|| request.fault(&fields)),
        false => Some(TOO_LARGE),
    };
    if let Some(why) = why {
        return request.refused(why);
    }
    let path = request.path;
    // The engine drops a fragment, which is one of the things to be judged.
    let Some(shown) = stand_in(&path).or_else(|| path.contains(&b'#').then(|| path.clone())) else { return fields };
    if let Some(field) = fields.iter_mut().find(|field| is(field, ":path")) {
        field.1 = shown;
    }
    fields.push(received(&path));
    fields
}

fn received(path: &[u8]) -> Field {
    field(RECEIVED, percent_encode(path, NON_ALPHANUMERIC).collect::<String>())
}

/// Why a head would be too large over HTTP/1, where a cookie is one field and the authority another.
fn excess(fields: &[Field], bounds: Bounds) -> Option<&'static str> {
    let (mut line, mut section, mut count) = ("  HTTP/1.1\r\n".len(), 0, 0);
    let has = |name| fields.iter().any(|field| is(field, name));
    let (hosted, mut crumbled) = (has("host"), false);
    for (name, value) in fields {
        let (place, room) = match name.as_slice() {
            b":method" | b":path" => (&mut line, 0),
            b":authority" if !hosted => (&mut section, "host: \r\n".len()),
            b"cookie" if std::mem::replace(&mut crumbled, true) => (&mut section, "; ".len()),
            name if name.starts_with(b":") => continue,
            name => (&mut section, name.len() + ": \r\n".len()),
        };
        *place += value.len() + room;
        count += usize::from(room > "; ".len());
    }
    match line + section + "\r\n".len() {
        _ if section > bounds.bytes => Some(TOO_LARGE),
        whole if whole > bounds.head() => Some(TOO_LARGE),
        _ if count > bounds.fields => Some(TOO_MANY),
        _ => None,
    }
}

/// A list of fields that is a request's.
struct Request {
    method: Vec<u8>,
    path: Vec<u8>,
    authority: Option<Vec<u8>>,
    /// The authority, or else the first host.
    named: Option<Vec<u8>>,
    /// Whether it asks for a tunnel, and need not have a path.
    tunnel: bool,
}

impl Request {
    /// The request in `fields`; nothing where the engine resets its stream, or where these are no request's.
    fn of(fields: &[Field]) -> Option<Self> {
        let all = |name: &'static str| fields.iter().filter(move |field| is(field, name)).map(|field| field.1.clone());
        let once = |name| {
            let mut found = all(name);
            found.next().filter(|_| found.next().is_none())
        };
        let method = once(":method")?;
        let tunnel = method == b"CONNECT";
        let path = once(":path").or(tunnel.then(|| b"/".to_vec())).filter(|path| !path.is_empty())?;
        let lacking = all(":authority").count() > 1 || all(":scheme").next().is_none() && !tunnel;
        let authority = once(":authority");
        let named = authority.clone().or(all("host").next());
        (!lacking).then_some(Self { method, path, authority, named, tunnel })
    }

    /// Why it is refused, if it is.
    fn fault(&self, fields: &[Field]) -> Option<&'static str> {
        let path = self.path.as_slice();
        if self.tunnel {
            return Some("`CONNECT` asks for a tunnel");
        }
        if Method::from_bytes(&self.method).is_err() {
            return Some("the method is no method");
        }
        if !(path.starts_with(b"/") || path == b"*" && self.method == b"OPTIONS") {
            return Some("the target has none of the forms of a target");
        }
        if !head::is_target(path) {
            return Some("the target holds what no target may");
        }
        if !fields.iter().filter(|field| !PSEUDO.contains(&field.0.as_slice())).all(is_plain) {
            return Some("a field has a name or a value that no field may have");
        }
        let hosted = fields.iter().any(|field| is(field, "host"));
        let named = self.authority.as_deref().filter(|_| !hosted).map(|authority| ("host", authority));
        let told = fields.iter().filter_map(|(name, value)| Some((str::from_utf8(name).ok()?, value.as_slice())));
        if let Some(why) = head::fault(told.chain(named)) {
            return Some(why);
        }
        if self.authority.is_some() && fields.iter().any(|field| is(field, "host") && Some(&field.1) != self.authority.as_ref()) {
            return Some("`Host` differs from `:authority`");
        }
        self.named.as_deref().is_some_and(is_odd).then_some("`Host` is no host")
    }

    /// A head that the engine takes instead of this one, which is refused for `why`. Of its other fields nothing is believed.
    fn refused(self, why: &str) -> Vec<Field> {
        let method = match self.tunnel {
            // Another method to the engine, which would not let it through to be refused.
            true => b"connect".to_vec(),
            false => self.method.into_iter().filter(|byte| is_token(*byte)).take(32).collect(),
        };
        let method = if method.is_empty() { b"-".to_vec() } else { method };
        vec![
            field(":method", method),
            field(":scheme", "https"),
            field(":path", "/"),
            field(":authority", self.named.filter(|host| !is_odd(host)).unwrap_or_else(|| NOBODY.as_bytes().to_vec())),
            // Behind a trusted proxy the client is not known then.
            field("x-forwarded-for", "unknown"),
            field(REFUSED, why),
            received(self.path.get(..self.path.len().min(TOLD_TARGET)).unwrap_or_default()),
        ]
    }
}

/// Whether `host` is none, or none to the engine.
fn is_odd(host: &[u8]) -> bool {
    !head::is_host(host) || Authority::try_from(host).is_err()
}

/// Whether a field can be one over HTTP/1, with its name in lower case (RFC 9113 §8.2.1).
fn is_plain((name, value): &Field) -> bool {
    let named = !name.is_empty() && name.iter().all(|byte| is_token(*byte) && !byte.is_ascii_uppercase());
    named && value.iter().all(|byte| is_text(*byte))
}

/// What an h2 head brought along: its target as received, where that is not what the engine was shown, and why it is refused.
pub(super) fn brought(head: &mut RequestHeader) -> (Option<Vec<u8>>, Option<String>) {
    let target = head.remove_header(RECEIVED).map(|value| percent_decode(value.as_bytes()).collect());
    let why = head.remove_header(REFUSED).and_then(|value| Some(value.to_str().ok()?.to_owned()));
    (target, why)
}

#[cfg(test)]
mod tests;
