//! HTTP/1.0: health checks and old load balancers.

use rolegate::demo::world::workspace::BOARDROOM;
use tokio::io::AsyncReadExt;

use super::recorder::Recorder;
use super::refused;
use crate::support::gate::login;
use crate::support::{Connection, PATIENCE};

/// Everything that comes until the connection is closed.
async fn all(connection: &mut Connection, sent: &str) -> String {
    connection.send(sent.as_bytes()).await;
    let mut received = Vec::new();
    tokio::time::timeout(PATIENCE, connection.stream.read_to_end(&mut received)).await.expect("no end").unwrap();
    String::from_utf8(received).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_without_a_host_reaches_the_only_upstream() {
    let (gate, upstream) = Recorder::gate(|_| {}).await;
    for check in ["GET / HTTP/1.0\r\n\r\n", "OPTIONS / HTTP/1.0\r\n\r\n", "HEAD /health HTTP/1.0\r\nUser-Agent: check\r\n\r\n"] {
        let told = all(&mut gate.connect().await, check).await;
        assert!(
            told.starts_with("HTTP/1.1 200 OK\r\n") && told.to_ascii_lowercase().contains("\r\nconnection: close\r\n"),
            "{told}"
        );
        assert_eq!(upstream.seen().pop().unwrap().values("host"), [upstream.address.to_string()], "it is told one");
    }
    assert!(gate.records_of("decision").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_guarded_is_judged_without_a_host_too() {
    let (gate, upstream) = Recorder::gate(|_| {}).await;
    for (who, status) in [("carol", 200), ("eve", 403)] {
        let fields: String = login(who).iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let told =
            all(&mut gate.connect().await, &format!("GET /api/v1/rooms.roles?rid={BOARDROOM} HTTP/1.0\r\n{fields}\r\n")).await;
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{told}");
    }
    assert_eq!(upstream.seen().len(), 1);
    assert_eq!(upstream.seen()[0].values("host"), [upstream.address.to_string()]);
    let mut connection = gate.connect().await;
    connection.send(b"GET /api/v1/rooms.roles?rid=a HTTP/1.0\r\n\r\n").await;
    let answer = connection.answer("GET").await;
    assert_eq!((answer.status, refused(&gate, &answer, "no credential").as_str()), (401, "credential_missing"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_host_is_for_the_only_upstream_though_it_is_named() {
    let (gate, upstream) = Recorder::gate(|config| config.upstreams[0].host = Some("chat.example.org".to_owned())).await;
    let fields: String = login("carol").iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let call = format!(
        r#"{{"message":"{{\"msg\":\"method\",\"id\":\"1\",\"method\":\"getRoomRoles\",\"params\":[\"{BOARDROOM}\"]}}"}}"#
    );
    let length = call.len();
    let json = format!("{fields}Content-Type: application/json\r\nContent-Length: {length}\r\n");
    for (sent, seen) in [
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), 1),
        (format!("GET /api/v1/rooms.roles?rid={BOARDROOM} HTTP/1.0\r\n{fields}\r\n"), 2),
        (format!("POST /api/v1/method.call/getRoomRoles HTTP/1.0\r\n{json}\r\n{call}"), 3),
    ] {
        let told = all(&mut gate.connect().await, &sent).await;
        assert!(told.starts_with("HTTP/1.1 200 "), "{sent:?}: {told}");
        assert_eq!(upstream.seen().len(), seen, "{sent:?}");
        assert_eq!(upstream.seen().pop().unwrap().values("host"), ["chat.example.org"], "{sent:?}");
    }
    let mut connection = gate.connect().await;
    connection.send(b"GET / HTTP/1.0\r\nHost: other.example.org\r\n\r\n").await;
    let answer = connection.answer("GET").await;
    assert_eq!((answer.status, refused(&gate, &answer, "another host").as_str()), (421, "host_unknown"));
    assert_eq!(upstream.seen().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_upstreams_are_told_apart_by_host_a_request_without_one_is_refused() {
    let (gate, upstream) = Recorder::gate(|config| {
        config.upstreams[0].host = Some("chat.example.org".to_owned());
        let mut second = config.upstreams[0].clone();
        (second.host, second.name) = (Some("talk.example.org".to_owned()), "talk".to_owned());
        config.upstreams.push(second);
    })
    .await;
    for sent in [
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\nHost:\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
    ] {
        let mut connection = gate.connect().await;
        connection.send(sent.as_bytes()).await;
        let answer = connection.answer("GET").await;
        assert_eq!((answer.status, refused(&gate, &answer, sent).as_str()), (400, "framing_invalid"));
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_knows_no_chunks_and_no_interim_answers_gets_none() {
    let fields: String = login("carol").iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    for answer in [
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x\r\nk\r\n0\r\n\r\n",
    ] {
        let (gate, _upstream) = Recorder::answering(answer, |_| {}).await;
        for target in ["/open".to_owned(), format!("/api/v1/rooms.roles?rid={BOARDROOM}")] {
            for kept in ["", "Connection: keep-alive\r\n"] {
                let told =
                    all(&mut gate.connect().await, &format!("GET {target} HTTP/1.0\r\nHost: x\r\n{kept}{fields}\r\n")).await;
                let (head, body) = told.split_once("\r\n\r\n").unwrap();
                assert_eq!(body, "ok", "{target} {told}");
                assert!(head.starts_with("HTTP/1.1 200 ") && !head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
                assert!(head.to_ascii_lowercase().contains("connection: close"), "{head}");
            }
        }
    }
}
