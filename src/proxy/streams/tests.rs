//! What the engine is shown, and that blocks are put together however they come.

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { bytes: 64 * 1024, fields: 100 };

fn presented(fields: Vec<Field>) -> Vec<Field> {
    super::presented(List { fields, whole: true }, BOUNDS)
}

/// The fields of a plain request, with `changed` in place of those of their names and behind them.
fn request(changed: &[(&str, &str)]) -> Vec<Field> {
    let usual = [(":method", "GET"), (":scheme", "https"), (":path", "/a"), (":authority", "x")];
    let kept = usual.iter().filter(|(name, _)| !changed.iter().any(|(other, _)| other == name));
    kept.chain(changed.iter().filter(|(_, value)| *value != "-")).map(|(name, value)| field(name, *value)).collect()
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
        (vec![(":method", "GE T")], "the method is no method"),
        (vec![(":method", "")], "the method is no method"),
        (vec![("content-length", "3"), ("content-length", "3")], "more than one `Content-Length`"),
        (vec![("content-length", "+3")], "`Content-Length` is no plain number"),
        (vec![("transfer-encoding", "chunked")], "`Transfer-Encoding` over h2"),
        (vec![("A", "b")], "a field has a name or a value that no field may have"),
        (vec![("", "b")], "a field has a name or a value that no field may have"),
        (vec![(":a", "b")], "a field has a name or a value that no field may have"),
        (vec![("a", "b\r\nc: d")], "a field has a name or a value that no field may have"),
    ] {
        let shown = presented(request(&changed));
        assert_eq!(told(&shown, REFUSED).unwrap(), why, "{changed:?}");
        assert_eq!(told(&shown, ":path").unwrap(), "/", "{changed:?}");
        assert!(["x", NOBODY].contains(&told(&shown, ":authority").unwrap().as_str()), "{changed:?}");
        assert_eq!(told(&shown, "x-forwarded-for").unwrap(), "unknown", "{changed:?}");
        assert_eq!(shown.len(), 7, "nothing else goes along: {shown:?}");
    }
}

#[test]
fn a_list_that_is_not_whole_is_never_taken_for_one() {
    let shown = super::presented(List { fields: request(&[("a", "b")]), whole: false }, BOUNDS);
    assert_eq!(told(&shown, REFUSED).unwrap(), TOO_LARGE);
    let trailers = super::presented(List { fields: vec![field("a", "b")], whole: false }, BOUNDS);
    assert_eq!(trailers, [field("connection", "close")], "for which the engine resets a stream");
}

#[test]
fn a_head_is_as_large_as_over_http_1() {
    let bounds = Bounds { bytes: 100, fields: 5 };
    let why = |fields: &[(&str, &str)]| excess(&request(fields), bounds);
    // `host: x` and its line end take 9 bytes, and those of `a` 5 beside its value.
    assert_eq!(why(&[("a", &"b".repeat(86))]), None);
    assert_eq!(why(&[("a", &"b".repeat(87))]), Some(TOO_LARGE));
    assert_eq!(why(&[(":authority", "-"), ("host", "x"), ("a", &"b".repeat(87))]), Some(TOO_LARGE));
    assert_eq!(why(&[("a", "b"); 4]), None);
    assert_eq!(why(&[("a", "b"); 5]), Some(TOO_MANY));
    // A cookie is one field, and takes `cookie: ` with a line end, and `; ` between its crumbs.
    assert_eq!(why(&[("cookie", "a=b"); 16]), None);
    assert_eq!(why(&[("cookie", "a=b"); 17]), Some(TOO_LARGE));
    // The line takes `GET ` and ` HTTP/1.1` with its end beside the target, the list its empty line.
    let target = |length: usize| format!("/{}", "a".repeat(length - 1));
    let most = REQUEST_LINE + 100 - 9 - 17;
    assert_eq!(why(&[(":path", &target(most))]), None);
    assert_eq!(why(&[(":path", &target(most + 1))]), Some(TOO_LARGE));
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
    let (mut streams, mut out) = (Streams::new(BOUNDS), Vec::new());
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

    #[test]
    fn every_field_that_is_shown_the_engine_takes(method in "[A-Z ]{0,3}", name in "[a-cA:\0 ]{0,3}", value in any::<Vec<u8>>()) {
        let list = [request(&[(":method", &method)]), vec![(name.clone().into_bytes(), value)]].concat();
        for (name, value) in presented(list) {
            prop_assert!(name.starts_with(b":") || http::HeaderName::from_lowercase(&name).is_ok(), "{:?}", name);
            prop_assert!(http::HeaderValue::from_bytes(&value).is_ok(), "{:?}", value);
            prop_assert!(name != b":method" || Method::from_bytes(&value).is_ok(), "{:?}", value);
        }
    }
}
