//! Answers of the upstream that are none, on both paths.

use rolegate::demo::world::workspace::BOARDROOM;

use super::recorder::Recorder;
use crate::support::gate::login;

const ROLES: &str = "/api/v1/rooms.roles";

/// What is asked for, and whether it is judged.
fn targets() -> [(String, bool); 2] {
    [(format!("{ROLES}?rid={BOARDROOM}"), true), ("/open".to_owned(), false)]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_has_two_readings_is_502_on_both_paths() {
    let answers = [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
        "HTTP/1.1 204 OK\r\nContent-Length: 0\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nA b: c\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nA: \u{1}\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\n: c\r\nContent-Length: 2\r\n\r\nok",
    ];
    for fast in [true, false] {
        let (gate, upstream) = Recorder::answering("", |config| config.listen.fast_path = fast).await;
        for answer in answers {
            upstream.answer(answer);
            for (target, judged) in targets() {
                let told = format!("{answer:?} {target}, fast: {fast}");
                let arrivals = upstream.seen().len();
                let answer = gate.get(&target, &login("carol")).await;
                assert_eq!(answer.status, 502, "{told}");
                assert_eq!(answer.json()["success"], false, "{told}");
                assert_eq!(answer.header("server"), None, "{told}");
                assert_eq!(answer.header("connection"), Some("close"), "{told}");
                assert_eq!(answer.header("x-request-id").is_some(), judged, "{told}");
                assert_eq!(upstream.seen().len(), arrivals + 1, "asked once: {told}");
            }
        }
        let failed = "rolegate_upstream_errors_total{kind=\"broken\",provider=\"rocketchat\"}";
        assert_eq!(gate.metric(failed).await, 2.0 * answers.len() as f64, "fast: {fast}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_websocket_asks_for_is_what_it_gets_or_nothing() {
    let ask = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n";
    for (answer, status) in [
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\n", 101),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", 502),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", 502),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n", 502),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n", 502),
    ] {
        let (gate, upstream) = Recorder::answering(answer, |_| {}).await;
        let mut connection = gate.connect().await;
        connection.send(format!("GET /websocket HTTP/1.1\r\nHost: x\r\n{ask}\r\n").as_bytes()).await;
        assert_eq!(connection.answer("GET").await.status, status, "{answer:?}");
        assert_eq!(upstream.seen()[0].values("upgrade"), ["websocket"]);
        // Another protocol is never asked for, so that none is given.
        let mut connection = gate.connect().await;
        connection.send(b"GET /other HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n").await;
        assert_eq!(connection.answer("GET").await.status, 502, "{answer:?}");
        assert!(upstream.seen()[1].values("upgrade").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_beside_an_upgrade_is_content_and_the_upgrade_is_not_asked_for() {
    let (gate, upstream) = Recorder::gate(|_| {}).await;
    let mut connection = gate.connect().await;
    for protocol in ["websocket", "h2c"] {
        let head = format!("POST /upload HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n");
        for content in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
            connection.send(format!("{head}{content}").as_bytes()).await;
            assert_eq!(connection.answer("POST").await.text(), "ok", "{protocol} {content:?}");
            let seen = upstream.seen().pop().unwrap();
            assert!(seen.values("upgrade").is_empty() && seen.values("connection").is_empty(), "{seen:?}");
            assert!(String::from_utf8(seen.body).unwrap().contains("hello"));
        }
    }
    connection
        .send(b"POST /upload HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n5;\n\r\n")
        .await;
    assert_eq!(connection.answer("POST").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_fields_about_the_connection_are_answered_by_the_upstream_or_in_the_contracts_form() {
    let (gate, upstream) = Recorder::gate(|_| {}).await;
    for nominated in ["host", "x-forwarded-for", ":authority", "\"x-real-ip\"", "a b", "keep-alive, , close", "content-length"] {
        let mut connection = gate.connect().await;
        connection.send(format!("GET /open HTTP/1.1\r\nHost: x\r\nConnection: {nominated}\r\n\r\n").as_bytes()).await;
        let answer = connection.answer("GET").await;
        assert_eq!(answer.header("server"), None, "{nominated}");
        if answer.status != 200 {
            assert_eq!((answer.status, &answer.json()["success"]), (400, &false.into()), "{nominated}");
        }
    }
    assert!(!upstream.seen().is_empty());
}
