//! The heads of h2 requests on their way to the engine, which would reset a stream, or answer in its own words, for what HTTP/1
//! clients are judged by or told in the provider's.
//!
//! Each header block is read and written anew. A target that the engine does not take is replaced by its stand-in, and a head
//! that it would refuse is made one that it takes; what was received, and why it is refused, goes along in two fields that no
//! client can send. What is no block at all ends the connection, as the protocol has it (RFC 9113 §4.3).

use http::uri::Authority;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode, percent_encode};
use pingora::http::RequestHeader;

use super::head;
use super::hpack::{self, Decoder};
use super::stand_in::stand_in;

/// The field that holds the target as received, percent-encoded.
const RECEIVED: &str = "x-rolegate-received";
/// The field that says why a head is refused.
const REFUSED: &str = "x-rolegate-refused";
/// What is written where an authority cannot be, and serves no host.
const NOBODY: &str = "invalid.";

/// The length of a frame's head.
const FRAME_HEAD: usize = 9;
/// The longest payload of a frame that the engine takes, which is what h2 begins with.
const LONGEST_FRAME: usize = 16_384;
/// The longest block, as it is sent, and the most frames that it comes in.
const LONGEST_BLOCK: usize = 256 * 1024;
const MOST_FRAMES: u32 = 64;

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
    /// The largest list of fields that the engine is to see before it finds it too large.
    most: usize,
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

impl Streams {
    /// A connection whose lists of fields take at most `header_bytes`.
    pub(super) fn new(header_bytes: usize) -> Self {
        let most = header_bytes.saturating_mul(2).saturating_add(LONGEST_FRAME);
        Self { decoder: Decoder::new(), most, begun: Vec::new(), passing: 0, block: None, broken: false }
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
        match block.filter(|block| block.bytes.len() <= LONGEST_BLOCK && block.frames <= MOST_FRAMES) {
            Some(block) if flags & END_HEADERS != 0 => self.whole(&block, out),
            Some(block) => self.block = Some(block),
            None => self.fail(stream, out),
        }
    }

    fn whole(&mut self, block: &Block, out: &mut Vec<u8>) {
        let Some(fields) = self.decoder.decode(&block.bytes, self.most) else { return self.fail(block.stream, out) };
        let mut written = Vec::new();
        for (name, value) in presented(fields) {
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

/// The fields that the engine is shown. What it resets a stream for is left as it is where HTTP/1 has no word for it.
fn presented(mut fields: Vec<Field>) -> Vec<Field> {
    fields.retain(|(name, _)| ![RECEIVED.as_bytes(), REFUSED.as_bytes()].contains(&name.as_slice()));
    let is = |field: &Field, name: &str| field.0 == name.as_bytes();
    let once = |name: &str| {
        let mut found = fields.iter().filter(|field| is(field, name));
        found.next().filter(|_| found.next().is_none()).map(|field| field.1.clone())
    };
    let Some(method) = once(":method") else { return fields };
    let tunnel = method == b"CONNECT";
    let Some(path) = once(":path").or(tunnel.then(|| b"/".to_vec())).filter(|path| !path.is_empty()) else { return fields };
    let authorities = fields.iter().filter(|field| is(field, ":authority")).count();
    let hosts: Vec<&Field> = fields.iter().filter(|field| is(field, "host")).collect();
    if authorities > 1 || !fields.iter().any(|field| is(field, ":scheme")) && !tunnel {
        return fields;
    }
    let authority = once(":authority");
    let named = authority.as_deref().or(hosts.first().map(|host| host.1.as_slice()));
    let odd = |host: &[u8]| !head::is_host(host) || Authority::try_from(host).is_err();
    let why = match (named, hosts.as_slice()) {
        _ if tunnel => Some("`CONNECT` asks for a tunnel"),
        _ if !(path.starts_with(b"/") || path == b"*" && method == b"OPTIONS") => {
            Some("the target has none of the forms of a target")
        }
        _ if !head::is_target(&path) => Some("the target holds what no target may"),
        (None, _) => Some("no `Host`"),
        (_, [_, _, ..]) => Some("more than one `Host`"),
        (Some(named), hosts) if hosts.iter().any(|host| host.1 != named) => Some("`Host` differs from `:authority`"),
        (Some(named), _) if odd(named) => Some("`Host` is no host"),
        _ => None,
    };
    let shown = match why {
        Some(_) => Some(b"/".to_vec()),
        // The engine drops a fragment, which is one of the things to be judged.
        None => stand_in(&path).or_else(|| path.contains(&b'#').then(|| path.clone())),
    };
    let Some(shown) = shown else { return fields };
    if let Some(why) = why {
        let kept = named.filter(|host| !odd(host)).unwrap_or(NOBODY.as_bytes()).to_vec();
        fields.retain(|field| ![":authority", ":path", "host", ":protocol"].iter().any(|name| is(field, name)));
        if tunnel {
            // Another method to the engine, which would not let it through to be refused.
            fields.retain(|field| !is(field, ":method") && !is(field, ":scheme"));
            fields.insert(0, (b":scheme".to_vec(), b"https".to_vec()));
            fields.insert(0, (b":method".to_vec(), b"connect".to_vec()));
        }
        fields.insert(0, (b":authority".to_vec(), kept));
        fields.insert(0, (b":path".to_vec(), shown));
        fields.push((REFUSED.as_bytes().to_vec(), why.as_bytes().to_vec()));
    } else if let Some(field) = fields.iter_mut().find(|field| is(field, ":path")) {
        field.1 = shown;
    }
    fields.push((RECEIVED.as_bytes().to_vec(), percent_encode(&path, NON_ALPHANUMERIC).collect::<String>().into_bytes()));
    fields
}

/// What an h2 head brought along: its target as received, where that is not what the engine was shown, and why it is refused.
pub(super) fn brought(head: &mut RequestHeader) -> (Option<Vec<u8>>, Option<String>) {
    let target = head.remove_header(RECEIVED).map(|value| percent_decode(value.as_bytes()).collect());
    let why = head.remove_header(REFUSED).and_then(|value| Some(value.to_str().ok()?.to_owned()));
    (target, why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(name: &str, value: &str) -> Field {
        (name.as_bytes().to_vec(), value.as_bytes().to_vec())
    }

    /// The fields of a plain request, with `changed` in place of those of their names and behind them.
    fn request(changed: &[(&str, &str)]) -> Vec<Field> {
        let usual = [(":method", "GET"), (":scheme", "https"), (":path", "/a"), (":authority", "x")];
        let kept = usual.iter().filter(|(name, _)| !changed.iter().any(|(other, _)| other == name));
        kept.chain(changed.iter().filter(|(_, value)| *value != "-")).map(|(name, value)| field(name, value)).collect()
    }

    fn told(fields: &[Field], name: &str) -> Option<String> {
        fields.iter().find(|field| field.0 == name.as_bytes()).map(|field| String::from_utf8_lossy(&field.1).into_owned())
    }

    #[test]
    fn a_plain_head_is_shown_as_it_is() {
        for fields in [
            request(&[]),
            request(&[(":path", "/a?b={}|^\\[]'")]),
            request(&[("host", "x")]),
            request(&[(":authority", "-"), ("host", "x")]),
            request(&[(":method", "OPTIONS"), (":path", "*")]),
            // What the protocol itself has no reading of is the engine's to reset.
            request(&[(":path", "")]),
            request(&[(":method", "-")]),
            request(&[(":scheme", "-")]),
            vec![field("grpc-status", "0")],
        ] {
            assert_eq!(presented(fields.clone()), fields);
        }
    }

    #[test]
    fn a_target_that_the_engine_does_not_take_goes_along_beside_its_stand_in() {
        let shown = presented(request(&[(":path", "/a?q={\"b\":\"<\"}")]));
        assert_eq!(told(&shown, ":path").unwrap(), "/a?q={%22b%22:%22%3C%22}");
        assert_eq!(told(&shown, RECEIVED).unwrap(), "%2Fa%3Fq%3D%7B%22b%22%3A%22%3C%22%7D");
        assert_eq!(told(&shown, REFUSED), None);
    }

    #[test]
    fn what_the_engine_would_refuse_is_made_one_that_it_takes_and_says_why() {
        for (changed, why) in [
            (vec![(":method", "CONNECT"), (":path", "-"), (":scheme", "-")], "`CONNECT` asks for a tunnel"),
            (vec![(":path", "http://x/")], "the target has none of the forms of a target"),
            (vec![(":path", "/a b")], "the target holds what no target may"),
            (vec![(":path", "/a\r\nX: y")], "the target holds what no target may"),
            (vec![(":authority", "-")], "no `Host`"),
            (vec![("host", "x"), ("host", "x")], "more than one `Host`"),
            (vec![("host", "y")], "`Host` differs from `:authority`"),
            (vec![(":authority", "u@x")], "`Host` is no host"),
            (vec![(":authority", "a..b")], "`Host` is no host"),
        ] {
            let shown = presented(request(&changed));
            assert_eq!(told(&shown, REFUSED).unwrap(), why, "{changed:?}");
            assert_eq!(told(&shown, ":path").unwrap(), "/", "{changed:?}");
            assert!(["x", NOBODY].contains(&told(&shown, ":authority").unwrap().as_str()), "{changed:?}");
            assert_eq!(told(&shown, "host"), None, "{changed:?}");
        }
    }

    #[test]
    fn no_client_can_send_what_only_this_may_say() {
        let shown = presented(request(&[(RECEIVED, "%2Fapi"), (REFUSED, "because"), ("a", "b")]));
        assert_eq!(shown, request(&[("a", "b")]));
        let shown = presented(vec![field(RECEIVED, "x"), field("trailer", "y")]);
        assert_eq!(shown, [field("trailer", "y")]);
    }

    /// The frames in `bytes`: kind, flags, stream and payload.
    fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some(head) = bytes.first_chunk() {
            let payload = bytes[FRAME_HEAD..FRAME_HEAD + length(head)].to_vec();
            frames.push((head[3], head[4], head[8], payload));
            bytes = &bytes[FRAME_HEAD + length(head)..];
        }
        frames
    }

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        put(kind, flags, [0, 0, 0, stream], payload, &mut frame);
        frame
    }

    fn block(fields: &[Field]) -> Vec<u8> {
        let mut block = Vec::new();
        fields.iter().for_each(|(name, value)| hpack::encode(name, value, &mut block));
        block
    }

    /// What the engine reads of `bytes` that come in pieces of `step`.
    fn passed(bytes: &[u8], step: usize) -> Vec<u8> {
        let (mut streams, mut out) = (Streams::new(32 * 1024), Vec::new());
        bytes.chunks(step).for_each(|piece| streams.take(piece, &mut out));
        out
    }

    #[test]
    fn blocks_are_put_together_however_they_come_and_other_frames_pass() {
        let plain = block(&request(&[("a", "b")]));
        let (first, second) = plain.split_at(7);
        let padded = [&[3], &[0; 5][..], first, &[0; 3]].concat();
        let bytes = [
            frame(4, 0, 0, &[0; 12]),
            frame(HEADERS, END_STREAM | PADDED | PRIORITY, 1, &padded),
            frame(CONTINUATION, END_HEADERS, 1, second),
            frame(0, 0, 3, &[7; 20_000]),
            frame(HEADERS, END_HEADERS, 5, &block(&request(&[("long", &"x".repeat(20_000))]))[..16_384]),
        ]
        .concat();
        let expected = [
            frame(4, 0, 0, &[0; 12]),
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &plain),
            frame(0, 0, 3, &[7; 20_000]),
            // A block that ends within a field is none.
            frame(HEADERS, END_HEADERS, 5, &[0x80]),
        ]
        .concat();
        for step in [1, 2, 9, 10, 1000, 100_000] {
            assert_eq!(frames(&passed(&bytes, step)), frames(&expected), "by {step}");
        }
    }

    #[test]
    fn a_long_block_goes_on_in_several_frames() {
        let long = block(&request(&[("long", &"x".repeat(40_000))]));
        let (first, rest) = long.split_at(16_000);
        let (second, third) = rest.split_at(16_000);
        let bytes =
            [frame(HEADERS, 0, 1, first), frame(CONTINUATION, 0, 1, second), frame(CONTINUATION, END_HEADERS, 1, third)].concat();
        let passed = frames(&passed(&bytes, 1000));
        let shape: Vec<_> = passed.iter().map(|(kind, flags, ..)| (*kind, *flags)).collect();
        assert_eq!(shape, [(HEADERS, 0), (CONTINUATION, 0), (CONTINUATION, END_HEADERS)]);
        assert_eq!(passed.into_iter().flat_map(|frame| frame.3).collect::<Vec<_>>(), long);
    }

    #[test]
    fn what_is_no_block_ends_the_connection_and_nothing_behind_it_is_read() {
        let good = frame(HEADERS, END_HEADERS, 7, &block(&request(&[])));
        for begun in [
            frame(HEADERS, END_HEADERS, 1, &[0x80]),
            frame(HEADERS, END_HEADERS | PADDED, 1, &[9, 0]),
            frame(CONTINUATION, END_HEADERS, 1, &[0x82]),
            [frame(HEADERS, 0, 1, &[0x82]), frame(CONTINUATION, END_HEADERS, 3, &[0x82])].concat(),
            [frame(HEADERS, 0, 1, &[0x82]), frame(0, 0, 1, &[1])].concat(),
            [frame(HEADERS, 0, 1, &[0x82]), frame(CONTINUATION, 0, 1, &[]).repeat(100)].concat(),
            frame(HEADERS, END_HEADERS, 1, &vec![0x82; 20_000]),
        ] {
            let passed = frames(&passed(&[begun.clone(), good.clone()].concat(), 13));
            let (kind, flags, _, payload) = passed.last().unwrap();
            assert_eq!((*kind, *flags, payload.as_slice()), (HEADERS, END_HEADERS, &[0x80][..]), "{begun:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_pieces_do_not_matter(bytes in prop::collection::vec(0_u8..12, 0..200), step in 1_usize..30) {
            prop_assert_eq!(passed(&bytes, step), passed(&bytes, 1000));
        }

        #[test]
        fn whatever_is_shown_the_engine_takes(path in "/[ -~\u{80}-\u{2ff}\r\n\u{0}]{0,12}", host in "[a-z.:@\\[\\] 0-9]{0,6}") {
            let shown = presented(request(&[(":path", &path), (":authority", &host)]));
            let (path, authority) = (told(&shown, ":path").unwrap(), told(&shown, ":authority").unwrap());
            prop_assert!(http::uri::PathAndQuery::try_from(path.as_str()).is_ok(), "{}", path);
            prop_assert!(Authority::try_from(authority.as_str()).is_ok(), "{}", authority);
            prop_assert!(!path.contains(['\r', '\n', ' ', '\0']), "{:?}", path);
        }
    }
}
