//! The answer to a HEAD has everything but the content, wherever it is made (RFC 9110 §9.3.2).

use std::time::Duration;

use rolegate::demo::world::workspace::BOARDROOM;
use tokio::io::AsyncReadExt;

use super::recorder::Recorder;
use crate::support::gate::login;
use crate::support::{Connection, Gate, GateBuilder, PATIENCE};

/// Everything that comes until the connection is closed.
async fn all(mut connection: Connection, sent: &str) -> String {
    connection.send(sent.as_bytes()).await;
    let mut received = Vec::new();
    tokio::time::timeout(PATIENCE, connection.stream.read_to_end(&mut received)).await.expect("no end").ok();
    String::from_utf8(received).unwrap()
}

/// Asserts that `sent`, a HEAD, is answered with `status` and no content, though its length is told.
async fn bodiless(gate: &Gate, address: std::net::SocketAddr, sent: &str, status: u16) {
    let received = all(Connection::open(address).await, sent).await;
    assert!(received.starts_with(&format!("HTTP/1.1 {status} ")), "{sent:?}: {received:?}");
    let (head, body) = received.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "", "{sent:?}");
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(ToOwned::to_owned));
    assert!(length.unwrap().parse::<usize>().unwrap() > 0, "{sent:?}: {head}");
    let again = all(Connection::open(address).await, &sent.replacen("HEAD", "GET", 1)).await;
    let (_, body) = again.split_once("\r\n\r\n").unwrap();
    assert!(!body.is_empty(), "a GET is told the content: {sent:?}");
    drop(gate.records());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_head_has_no_content_wherever_it_is_made() {
    for fast in [true, false] {
        let (gate, _upstream) = Recorder::answering("HTTP/1.1 2xx\r\n\r\n", |config| {
            config.listen.fast_path = fast;
            config.limits.header_deadline = Duration::from_millis(200);
            config.limits.header_fields = 20;
            config.limits.inspected_body = 1024;
            config.upstreams[0].host = Some("x".to_owned());
        })
        .await;
        let fields = |who| -> String { login(who).iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect() };
        let (eve, carol) = (fields("eve"), fields("carol"));
        let room = format!("/api/v1/rooms.roles?rid={BOARDROOM}");
        let close = "Connection: close\r\n";
        for (sent, status) in [
            (format!("HEAD {room} HTTP/1.1\r\nHost: x\r\n{eve}{close}\r\n"), 403),
            (format!("HEAD {room} HTTP/1.1\r\nHost: x\r\n{close}\r\n"), 401),
            (format!("HEAD /api/v1//me HTTP/1.1\r\nHost: x\r\n{eve}{close}\r\n"), 400),
            (format!("HEAD {room} HTTP/1.0\r\nHost: x\r\n{eve}\r\n"), 403),
            (format!("HEAD {room} HTTP/1.1\r\nHost: y\r\n{carol}{close}\r\n"), 421),
            (format!("HEAD /open HTTP/1.1\r\nHost: y\r\n{close}\r\n"), 421),
            (format!("HEAD {room} HTTP/1.1\r\nHost: x\r\n{carol}{close}Content-Length: 2000\r\n\r\n"), 413),
            (format!("HEAD {room} HTTP/1.1\r\nHost: a..b\r\n\r\n"), 400),
            (format!("HEAD {room} HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(30)), 400),
            ("HEAD http://X/ HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 400),
            ("HEAD / HTTP/1.1\r\nHo".to_owned(), 408),
            (format!("HEAD {room} HTTP/1.1\r\nHost: x\r\n{carol}{close}\r\n"), 502),
            (format!("HEAD {room} HTTP/1.1\r\nHost: x\r\n{carol}\r\n"), 502),
            (format!("HEAD /open HTTP/1.1\r\nHost: x\r\n{close}\r\n"), 502),
            ("HEAD /open HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 502),
        ] {
            bodiless(&gate, gate.address(), &sent, status).await;
        }
        // A server that cannot be asked for facts: nothing listens on the port of discarded packets.
        let lost = GateBuilder::rocketchat().await.upstream(|settings| settings.url = "http://127.0.0.1:9".parse().unwrap());
        let lost = lost.with(|config| config.listen.fast_path = fast).start();
        bodiless(&lost, lost.address(), &format!("HEAD {room} HTTP/1.1\r\nHost: x\r\n{carol}{close}\r\n"), 503).await;
        let mut kept = Connection::open(lost.address()).await;
        for _ in 0..2 {
            // A content would be taken for the beginning of the next answer.
            kept.send(format!("HEAD {room} HTTP/1.1\r\nHost: x\r\n{carol}\r\n").as_bytes()).await;
            assert_eq!(kept.answer("HEAD").await.status, 503);
        }
        for (path, status) in [("/livez", 200), ("/status", 200), ("/nowhere", 404), ("/reload", 405)] {
            let sent = format!("HEAD {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", gate.admin());
            bodiless(&gate, gate.admin(), &sent, status).await;
        }
    }
}
