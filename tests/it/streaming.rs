//! What is not guarded passes through as it is.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use rolegate::demo::{Behaviour, Sample};
use rolegate::rules::Then;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::gate::login;
use crate::support::{Connection, Gate, GateBuilder, PATIENCE, Process, Upstream};

/// What a long body is made of: byte `n` of it is `n % 251`, so that a lost or doubled block shows.
const PERIOD: usize = 251;
const LONG: usize = 200 * 1024 * 1024;
const REPORT: &str = "/file-upload/report.txt";

pub async fn websocket(address: std::net::SocketAddr) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    tokio_tungstenite::client_async(format!("ws://{address}/websocket"), stream).await.unwrap().0
}

pub async fn soon(socket: &mut WebSocketStream<TcpStream>) -> Message {
    timeout(PATIENCE, socket.next()).await.expect("no message in time").expect("the tunnel ended").unwrap()
}

fn pattern(length: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(length).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_carries_texts_bytes_a_mebibyte_and_pings_in_both_directions() {
    let gate = Gate::rocketchat().await;
    let mut socket = websocket(gate.address()).await;
    for message in [Message::text("hello"), Message::binary(vec![0, 255, 7]), Message::binary(pattern(1 << 20))] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(soon(&mut socket).await, message);
    }
    socket.send(Message::Ping("are you there".into())).await.unwrap();
    assert_eq!(soon(&mut socket).await, Message::Pong("are you there".into()));
    assert_eq!(gate.metric("rolegate_websocket_connections").await, 1.0);
    socket.close(None).await.unwrap();
    while socket.next().await.is_some_and(|message| message.is_ok()) {}
    gate.until_metric("rolegate_websocket_connections", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_frame_sent_together_with_the_handshake_arrives_every_time() {
    let gate = Gate::rocketchat().await;
    for _ in 0..60 {
        early_frame(gate.connect().await).await;
    }
}

async fn early_frame(mut connection: Connection) {
    let mut bytes = format!(
        "GET /websocket HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        connection.host
    )
    .into_bytes();
    // A final text frame of five bytes, masked with zeros.
    bytes.extend(b"\x81\x85\0\0\0\0early");
    connection.send(&bytes).await;
    let head = connection.head().await;
    assert_eq!(head.status, 101);
    assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(connection.bytes(7).await, b"\x81\x05early");
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_websockets_are_refused_and_the_server_hears_nothing_of_them() {
    let gate = GateBuilder::rocketchat().await.upstream(|upstream| upstream.websockets = Then::Deny).start();
    let mut connection = gate.connect().await;
    let headers = [
        ("Connection", "Upgrade".to_owned()),
        ("Upgrade", "websocket".into()),
        ("Sec-WebSocket-Version", "13".into()),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==".into()),
    ];
    let answer = connection.get("/websocket", &headers).await;
    assert_eq!((answer.status, answer.json()["success"].clone()), (403, json!(false)), "{}", answer.text());
    assert_eq!(gate.last_decision()["reason"], "route_unlisted");
    assert_eq!(gate.sample.count("/websocket"), 0);
    assert_eq!(connection.get("/echo", &[]).await.status, 200, "the connection lives on");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_uploads_and_downloads_pass_without_being_held_in_memory() {
    let sample = Sample::rocketchat().await.unwrap();
    let process = Process::before(sample.url(), &[]).await;
    let block = pattern(PERIOD * 4096);
    let mut hash = Sha256::new();
    for part in parts(LONG, block.len()) {
        hash.update(&block[..part]);
    }
    let expected = json!({ "bytes": LONG, "sha256": hex::encode(hash.finalize()) });

    let mut connection = process.connect().await;
    connection.send(format!("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {LONG}\r\n\r\n").as_bytes()).await;
    for part in parts(LONG, block.len()) {
        connection.send(&block[..part]).await;
    }
    assert_eq!(connection.answer("POST").await.json(), expected);

    connection.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for part in parts(LONG, block.len()) {
        connection.send(format!("{part:x}\r\n").as_bytes()).await;
        connection.send(&block[..part]).await;
        connection.send(b"\r\n").await;
    }
    connection.send(b"0\r\n\r\n").await;
    assert_eq!(connection.answer("POST").await.json(), expected);

    for (query, framing) in [("", "content-length"), ("&chunked=1", "transfer-encoding")] {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}/download?bytes={LONG}{query}", process.address);
        let answer = client.get(url).send().await.unwrap();
        assert!(answer.headers().contains_key(framing), "{framing}");
        let (mut body, mut count) = (answer.bytes_stream(), 0);
        while let Some(chunk) = body.next().await {
            let chunk = chunk.unwrap();
            for piece in chunk.chunks(PERIOD * 2048) {
                let at = count % PERIOD;
                assert!(piece == &block[at..at + piece.len()], "the body differs near byte {count}");
                count += piece.len();
            }
        }
        assert_eq!(count, LONG);
    }
    let peak = process.peak_memory();
    assert!(peak < 100 * 1024 * 1024, "the proxy held {peak} bytes");
}

fn parts(length: usize, block: usize) -> impl Iterator<Item = usize> {
    (0..length.div_ceil(block)).map(move |index| block.min(length - index * block))
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_when_they_are_sent_and_the_stream_ends_with_its_client() {
    let gate = Gate::rocketchat().await;
    let mut stream = TcpStream::connect(gate.address()).await.unwrap();
    let asked = Instant::now();
    stream.write_all(b"GET /events?count=1000000&every_ms=500 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut text = String::new();
    for event in 0..3_u32 {
        while !text.contains(&format!("data: {{\"n\":{event}}}\n\n")) {
            let mut chunk = [0; 4096];
            let count = timeout(PATIENCE, stream.read(&mut chunk)).await.expect("no event in time").unwrap();
            text.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
        }
        let passed = asked.elapsed();
        assert!(passed < Duration::from_millis(500) * (event + 1), "event {event} came after {passed:?}, with the next one");
        assert!(!text.contains(&format!("{{\"n\":{}}}", event + 1)));
    }
    drop(stream);
    gate.until_metric("rolegate_connections", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_conditions_are_answered_by_the_server_on_one_connection() {
    let gate = Gate::rocketchat().await;
    let mut connection = gate.connect().await;
    let whole = connection.get(REPORT, &[]).await;
    let (tag, modified) = (whole.header("etag").unwrap().to_owned(), whole.header("last-modified").unwrap().to_owned());
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    let part = connection.get(REPORT, &[("Range", "bytes=4-9".into())]).await;
    assert_eq!((part.status, part.body.as_slice()), (206, &whole.body[4..10]));
    assert_eq!(part.header("content-range"), Some(format!("bytes 4-9/{}", whole.body.len()).as_str()));
    assert_eq!(connection.get(REPORT, &[("Range", "bytes=4000-".into())]).await.status, 416);
    let stale = connection.get(REPORT, &[("Range", "bytes=4-9".into()), ("If-Range", "\"old\"".into())]).await;
    assert_eq!((stale.status, stale.body), (200, whole.body.clone()));
    for (name, value) in [("If-None-Match", tag.clone()), ("If-Modified-Since", modified)] {
        let known = connection.get(REPORT, &[(name, value)]).await;
        assert_eq!((known.status, known.header("etag")), (304, Some(tag.as_str())), "{name}");
    }
    assert_eq!(connection.get(REPORT, &[]).await.body, whole.body, "after answers without a body");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_leave_the_connection_in_step() {
    let gate = Gate::rocketchat().await;
    let mut connection = gate.connect().await;
    let head = connection.request("HEAD", "/download?bytes=200000", &[], b"").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("200000")));
    gate.sample.behave("/nothing", Behaviour::Answer { status: 204, headers: Vec::new(), body: Default::default() });
    let nothing = connection.request("DELETE", "/nothing", &[], b"").await;
    assert_eq!((nothing.status, nothing.header("transfer-encoding")), (204, None));
    assert_eq!(connection.get("/slow", &[]).await.text(), "slow");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_says_whether_a_body_is_expected() {
    let gate = Gate::rocketchat().await;
    let head = "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let mut connection = gate.connect().await;
    connection.send(head.as_bytes()).await;
    assert_eq!(connection.head().await.status, 100);
    connection.send(b"12345").await;
    assert_eq!(connection.answer("POST").await.json()["bytes"], 5);

    gate.sample.behave("/upload", Behaviour::json(413, "{}"));
    let mut connection = gate.connect().await;
    connection.send(head.as_bytes()).await;
    assert_eq!(connection.answer("POST").await.status, 413, "without a 100, and before the body");
}

#[tokio::test(flavor = "multi_thread")]
async fn unguarded_requests_keep_their_headers_but_for_hop_by_hop_and_forwarding_ones() {
    let gate = Gate::rocketchat().await;
    let mut headers = login("eve");
    for (name, value) in [
        ("Cookie", "a=1; b=\"2\""),
        ("X-Mark", "one"),
        ("x-mark", "two"),
        ("X-Request-Id", "mine"),
        ("X_Under_Score", "kept"),
        ("Accept-Encoding", "br;q=1.0, gzip"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Content-Type", "application/x-thing"),
        ("Connection", "keep-alive, X-Only-Here"),
        ("X-Only-Here", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "deflate"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        ("X-Forwarded-For", "10.9.8.7"),
        ("X-Real-IP", "10.9.8.7"),
        ("X-Forwarded-Proto", "https"),
        ("Forwarded", "for=10.9.8.7"),
    ] {
        headers.push((name, value.to_owned()));
    }
    let told = gate.connect().await.request("PATCH", "/echo?a=1&a=2&b=%zz", &headers, b"12345").await.json();
    assert_eq!(
        (&told["method"], &told["target"], &told["body_bytes"]),
        (&"PATCH".into(), &"/echo?a=1&a=2&b=%zz".into(), &5.into())
    );
    let mut arrived: Vec<(&str, &str)> = told["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| (field[0].as_str().unwrap(), field[1].as_str().unwrap()))
        .collect();
    arrived.sort_unstable();
    let (host, eve) = (gate.address().to_string(), login("eve")[0].1.clone());
    let mut expected = vec![
        ("host", host.as_str()),
        ("x-user-id", &eve),
        ("x-auth-token", "eve-token"),
        ("cookie", "a=1; b=\"2\""),
        ("x-mark", "one"),
        ("x-mark", "two"),
        ("x-request-id", "mine"),
        ("x_under_score", "kept"),
        ("accept-encoding", "br;q=1.0, gzip"),
        ("x-http-method-override", "DELETE"),
        ("content-type", "application/x-thing"),
        ("content-length", "5"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
    ];
    expected.sort_unstable();
    assert_eq!(arrived, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_outside_of_the_guarded_spaces_is_sent_as_it_came() {
    const ANSWER: &[u8] =
        b"HTTP/1.1 207 Odd Words\r\nX-Case: Kept\r\nx-case: again\r\nServer: chat\r\nDate: Tue, 27 Aug 2024 09:07:03 GMT\r\n\
          Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nKeep-Alive: timeout=5\r\nContent-Length: 3\r\nConnection: close\r\n\r\n\x00\xff\n";
    let raw = Upstream::answering(ANSWER).await;
    let gate = GateBuilder::rocketchat().await.upstream(|upstream| upstream.url.port = raw.address.port()).start();
    let targets = [
        "/",
        "/avatar%2fbob;v=1",
        "//channel//general/",
        "/a/../b/./c",
        "/file-upload/%7Ea%C3%A9?x=%zz&&y[]=1&y[]=2?z;w",
        "/a|b{c}*'()!$@,=:+~",
        "/%00%ff",
        "/x?next=/api/v1/users.info",
        "/caf\u{e9}?q=\u{fc}",
    ];
    for target in targets {
        let answer = gate.get(target, &[]).await;
        assert_eq!(answer.status, 207, "{target}");
        assert_eq!(answer.body, b"\x00\xff\n");
        assert_eq!(raw.heads().last().unwrap().lines().next(), Some(format!("GET {target} HTTP/1.1").as_str()));
        let values = |name: &str| -> Vec<&str> {
            answer.headers.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str()).collect()
        };
        assert_eq!(values("x-case"), ["Kept", "again"]);
        assert_eq!(values("set-cookie"), ["a=1", "b=2"]);
        assert_eq!((values("server"), values("content-length")), (vec!["chat"], vec!["3"]));
        assert!(
            values("connection").iter().all(|value| *value != "close"),
            "the upstream's own connection is none of the client's"
        );
    }
    assert_eq!(raw.heads().len(), targets.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn unlisted_routes_inside_the_guarded_space_pass_with_body_and_query_unread() {
    let gate = Gate::rocketchat().await;
    let target = "/api/v1/echo.headers?rid[]=1&rid=2&&%zz=%00&x=?y";
    let body = pattern(300_000);
    let mut connection: Connection = gate.connect().await;
    let told: Value = connection.request("POST", target, &login("eve"), &body).await.json();
    assert_eq!((&told["target"], &told["body_bytes"]), (&target.into(), &300_000.into()));
    assert!(gate.records_of("decision").is_empty(), "nothing was judged");
    assert_eq!(gate.sample.seen().len(), 1, "nobody was looked up");
}
