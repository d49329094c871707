//! The same list of fields over HTTP/1 and over h2 is taken by both or refused by both, in the same words.

use rolegate::config::Config;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::h2::{Raw, gate};
use super::recorder::Recorder;
use crate::connections::tls::NAME;
use crate::support::{Authority, Gate, PATIENCE};

/// The bounds of these stories.
const SECTION: usize = 2000;
const FIELDS: usize = 10;
/// The longest request line beside a header section.
const LINE: usize = 16 * 1024;

/// A request: its method, its target, and its fields but the host.
type Request = (&'static str, String, Vec<(Vec<u8>, Vec<u8>)>);

/// What became of a request: the status of its answer, how the answer begins, what arrived, what was recorded, and what was
/// counted as malformed and as too large.
#[derive(Debug, PartialEq)]
struct Fate {
    status: u16,
    words: String,
    arrived: usize,
    record: Option<Value>,
    counted: (f64, f64),
}

fn fields(told: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    told.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

async fn over_http_1(gate: &Gate, authority: &Authority, (method, target, fields): &Request) -> (u16, String) {
    let tcp = TcpStream::connect(gate.address()).await.unwrap();
    let mut stream = authority.connector(b"http/1.1").connect(NAME.try_into().unwrap(), tcp).await.unwrap();
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {NAME}\r\n").into_bytes();
    for (name, value) in fields {
        head.extend([name.as_slice(), b": ", value, b"\r\n"].concat());
    }
    head.extend(b"\r\n");
    let content: &[u8] = if *method == "POST" { b"abc" } else { b"" };
    stream.write_all(&[head.as_slice(), content].concat()).await.unwrap();
    let mut came = Vec::new();
    // A refusal ends the connection.
    while !came.ends_with(b"ok") && tokio::time::timeout(PATIENCE, stream.read_buf(&mut came)).await.unwrap().unwrap_or(0) > 0 {}
    let text = String::from_utf8(came).unwrap();
    let body = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}")).1;
    (text[9..12].parse().unwrap(), body.to_owned())
}

async fn over_h2(gate: &Gate, authority: &Authority, (method, target, fields): &Request) -> (u16, String) {
    let mut connection = Raw::open(gate, authority).await;
    let pseudo = [(":method", *method), (":scheme", "https"), (":path", target), (":authority", NAME)];
    let pseudo = pseudo.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let list: Vec<(&[u8], &[u8])> =
        pseudo.chain(fields.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))).collect();
    let content: Option<&[u8]> = (*method == "POST").then_some(b"abc");
    let told = connection.post(&list, content).await.unwrap_or_else(|| panic!("reset: {}", short(&(method, target, fields))));
    let plain: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/next"), (b":authority", NAME.as_bytes())];
    assert_eq!(connection.ask(&plain).await.unwrap().status(), 200, "the connection lives on");
    (told.status(), String::from_utf8(told.body).unwrap())
}

fn short(what: &impl std::fmt::Debug) -> String {
    format!("{what:?}").chars().take(200).collect()
}

/// Both fates of `request`.
async fn fates(gate: &Gate, upstream: &Recorder, authority: &Authority, request: &Request) -> [Fate; 2] {
    let mut fates = Vec::new();
    for h2 in [false, true] {
        let counted = async || {
            let of = async |cause: &str| gate.metric(&format!("rolegate_rejected_total{{cause=\"{cause}\"}}")).await;
            (of("malformed").await, of("header_too_large").await)
        };
        let open = |seen: &[super::recorder::Seen]| seen.iter().filter(|seen| !seen.line().starts_with(b"GET /next ")).count();
        let (before, arrivals, records) = (counted().await, open(&upstream.seen()), gate.records_of("decision").len());
        let (status, words) = match h2 {
            false => over_http_1(gate, authority, request).await,
            true => over_h2(gate, authority, request).await,
        };
        let after = counted().await;
        let mut record = gate.records_of("decision").split_off(records).pop();
        if let Some(Value::Object(fields)) = &mut record {
            // Over h2 what no method has is left out of one.
            fields["method"] = fields["method"].as_str().unwrap().replace('{', "").into();
            fields.retain(|name, _| {
                ["reason", "decision", "method", "target", "host", "client", "status"].contains(&name.as_str())
            });
        }
        let arrived = open(&upstream.seen()) - arrivals;
        fates.push(Fate { status, words, arrived, record, counted: (after.0 - before.0, after.1 - before.1) });
    }
    fates.try_into().unwrap()
}

fn bounded(config: &mut Config) {
    (config.limits.header_bytes, config.limits.header_fields) = (SECTION, FIELDS);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_over_http_1_is_refused_over_h2() {
    let many = |count: usize| vec![(b"a".to_vec(), b"b".to_vec()); count];
    let large = |length: usize| vec![(b"a".to_vec(), vec![b'b'; length])];
    let framed = |list: &[(&str, &str)]| [fields(&[("content-type", "text/plain")]), fields(list)].concat();
    let mut rows: Vec<Request> = vec![
        ("POST", "/open".into(), framed(&[("content-length", "3"), ("content-length", "3")])),
        ("POST", "/api/v1/method.call/getRoomRoles".into(), framed(&[("content-length", "3"), ("content-length", "3")])),
        ("GET", "/open".into(), framed(&[("content-length", "0"), ("content-length", "0")])),
        ("GET", "/open".into(), framed(&[("host", NAME), ("host", NAME)])),
        ("GET", "/open".into(), framed(&[("transfer-encoding", "gzip")])),
        ("GE{T", "/open".into(), Vec::new()),
        ("GET", "/open".into(), many(FIELDS)),
        ("GET", "/open".into(), large(SECTION)),
        ("GET", "/open".into(), large(20_000)),
        ("GET", "/open".into(), large(100_000)),
        ("GET", "/open".into(), [large(1000), large(1000), large(1000)].concat()),
        ("GET", format!("/{}", "a".repeat(LINE + SECTION)), Vec::new()),
        ("GET", format!("/{}", "a".repeat(60_000)), Vec::new()),
        ("GET", format!("/{}", "\"".repeat(LINE + SECTION)), Vec::new()),
    ];
    for length in ["+3", "3, 3", "", "0x3", "3 3", "-3", "99999999999999999999999"] {
        rows.push(("POST", "/open".into(), framed(&[("content-length", length)])));
    }
    for coding in [["chunked", "chunked"], ["chunked", "gzip"]] {
        rows.push(("POST", "/open".into(), framed(&[("transfer-encoding", coding[0]), ("transfer-encoding", coding[1])])));
    }
    rows.push(("POST", "/open".into(), framed(&[("content-length", "3"), ("transfer-encoding", "chunked")])));
    for byte in (0..=0x1f).chain([0x7f]).filter(|byte| *byte != b'\t') {
        rows.push(("GET", "/open".into(), vec![(b"a".to_vec(), vec![b'b', byte, b'c'])]));
    }
    for name in ["", "a b", "a(b", "a\0", "a\u{e9}"] {
        rows.push(("GET", "/open".into(), fields(&[(name, "b")])));
    }
    let (gate, upstream, authority, _folder) = gate(|config| {
        bounded(config);
        config.listen.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    for row in rows {
        let [old, new] = fates(&gate, &upstream, &authority, &row).await;
        assert_eq!(new, old, "{}", short(&row));
        assert_eq!((new.status, new.arrived, new.counted.0 + new.counted.1), (400, 0, 1.0), "{}", short(&row));
        assert!(new.words.contains("error-invalid-request"), "{}: {}", short(&row), new.words);
        assert_eq!(new.record.unwrap()["reason"], "framing_invalid", "{}", short(&row));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_over_http_1_is_taken_over_h2() {
    let host = "Host: \r\n".len() + NAME.len();
    let long = |odd: &str| {
        let rest = LINE + SECTION - host - "GET / HTTP/1.1\r\n\r\n".len();
        format!("/{}", odd.repeat(rest))
    };
    let rows: Vec<Request> = vec![
        ("POST", "/open".into(), fields(&[("content-length", "3")])),
        ("GET", "/open".into(), fields(&[("content-length", "0")])),
        ("GET", "/open".into(), vec![(b"a".to_vec(), b"b".to_vec()); FIELDS - 1]),
        ("GET", "/open".into(), vec![(b"a".to_vec(), vec![b'b'; SECTION - host - "a: \r\n".len()])]),
        (
            "GET",
            "/open".into(),
            vec![(b"a".to_vec(), (1..=0xff).filter(|byte| *byte == b'\t' || *byte > 0x1f && *byte != 0x7f).collect())],
        ),
        ("GET", "/open".into(), vec![(b"!#$%&'*+-.^_`|~09az".to_vec(), Vec::new())]),
        ("GET", long("a"), Vec::new()),
        ("GET", format!("/?{}", &long("\"")[2..]), Vec::new()),
    ];
    let (gate, upstream, authority, _folder) = gate(bounded).await;
    for row in rows {
        let [old, new] = fates(&gate, &upstream, &authority, &row).await;
        assert_eq!(new, old, "{}", short(&row));
        assert_eq!((new.status, new.arrived, new.counted), (200, 1, (0.0, 0.0)), "{}", short(&row));
    }
}
