//! What happens to a connection before any verdict: heads that have one reading go on, the rest is answered, counted, recorded.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::support::gate::{GateBuilder, login};
use crate::support::{Connection, Gate};

/// The head of a guarded request by eve, who may not make it.
fn guarded(gate: &Gate, fields: &str) -> String {
    let login: String = login("eve").iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET /api/v1/users.info?username=bob HTTP/1.1\r\nHost: {}\r\n{login}{fields}\r\n", gate.address())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_servers_could_read_differently_is_refused_in_the_servers_words_and_recorded() {
    let gate = Gate::rocketchat().await;
    let mut refused = 0;
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 0\r\nContent-Length: 0\r\n",
        "Content-Length: +0\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: a\r\n folded\r\n",
        "X: a\n",
        "Host: other.example.org\r\n",
    ] {
        let mut connection = gate.connect().await;
        connection.send(guarded(&gate, fields).as_bytes()).await;
        let answer = connection.answer("GET").await;
        assert_eq!(answer.status, 400, "{fields:?}");
        assert_eq!(answer.json()["errorType"], "error-invalid-request", "{fields:?}");
        let record = gate.last_decision();
        assert_eq!((&record["decision"], &record["reason"]), (&"deny".into(), &"framing_invalid".into()), "{fields:?}");
        assert_eq!(record["target"], "/api/v1/users.info?username=...");
        assert_eq!(answer.header("x-request-id"), record["id"].as_str());
        assert!(connection.is_closed().await, "{fields:?}");
        refused += 1;
    }
    assert_eq!(gate.metric(r#"rolegate_rejected_total{cause="malformed"}"#).await, f64::from(refused));
    assert!(gate.sample.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order_and_each_is_judged() {
    let gate = Gate::rocketchat().await;
    let mut connection = gate.connect().await;
    let upload = format!("POST /upload HTTP/1.1\r\nHost: {}\r\nContent-Length: 5\r\n\r\nhello", gate.address());
    let private = guarded(&gate, "").replace("users.info?username=bob", "rooms.roles?rid=658282732dd9f928ad989e98");
    let all = format!("{}{upload}{private}{}", guarded(&gate, ""), guarded(&gate, ""));
    connection.send(all.as_bytes()).await;
    let mut statuses = Vec::new();
    for method in ["GET", "POST", "GET", "GET"] {
        statuses.push(connection.answer(method).await.status);
    }
    assert_eq!(statuses, [200, 200, 403, 200]);
    assert_eq!(gate.records_of("decision").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_comes_byte_by_byte_is_read_like_any_other() {
    let gate = Gate::rocketchat().await;
    let mut connection = gate.connect().await;
    for byte in guarded(&gate, "").as_bytes() {
        connection.send(&[*byte]).await;
    }
    assert_eq!(connection.answer("GET").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lives_on_after_bodies_of_either_framing() {
    let gate = Gate::rocketchat().await;
    let mut connection = gate.connect().await;
    for _ in 0..3 {
        let chunked = format!(
            "POST /upload HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            gate.address()
        );
        connection.send(chunked.as_bytes()).await;
        let answer = connection.answer("POST").await;
        assert_eq!((answer.status, &answer.json()["bytes"]), (200, &5.into()));
        let answer = connection.request("POST", "/upload", &[], b"hello, gate").await;
        assert_eq!((answer.status, &answer.json()["bytes"]), (200, &11.into()));
        assert_eq!(connection.get("/api/v1/users.info?username=bob", &login("eve")).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_head_has_a_deadline_and_silence_another() {
    let gate = GateBuilder::rocketchat().await.with(|config| config.limits.header_deadline = Duration::from_millis(200)).start();
    let mut silent = gate.connect().await;
    let mut slow = gate.connect().await;
    slow.send(b"GET / HTTP/1.1\r\nHo").await;
    let answer = slow.answer("GET").await;
    assert_eq!(answer.status, 408);
    assert_eq!(answer.json()["success"], false);
    assert!(slow.is_closed().await);
    assert!(silent.is_closed().await, "who says nothing at all is let go without a word");
    let mut second = gate.connect().await;
    assert_eq!(second.get("/", &[]).await.status, 200);
    second.send(b"GET / HT").await;
    assert_eq!(second.answer("GET").await.status, 408, "the deadline holds for later requests too");
    assert_eq!(gate.metric(r#"rolegate_rejected_total{cause="header_deadline"}"#).await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_too_large_is_refused_before_it_is_read_to_its_end() {
    let gate = GateBuilder::rocketchat().await.with(|config| config.limits.header_fields = 20).start();
    let mut large = gate.connect().await;
    let endless = format!("GET / HTTP/1.1\r\nHost: {}\r\nX: {}", gate.address(), "x".repeat(40 * 1024));
    large.stream.write_all(endless.as_bytes()).await.unwrap();
    assert_eq!(large.answer("GET").await.status, 400);
    let many: Vec<(&str, String)> = (0..30).map(|_| ("X-Many", "x".to_owned())).collect();
    assert_eq!(gate.get("/", &many).await.status, 400);
    assert_eq!(gate.metric(r#"rolegate_rejected_total{cause="header_too_large"}"#).await, 2.0);
    assert!(gate.sample.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_itself_refuses_is_counted() {
    let gate = Gate::rocketchat().await;
    let mut connection = Connection::open(gate.address()).await;
    let other = format!("GET http://other.example.org/ HTTP/1.1\r\nHost: {}\r\n\r\n", gate.address());
    connection.send(other.as_bytes()).await;
    assert_eq!(connection.answer("GET").await.status, 400);
    assert_eq!(gate.metric(r#"rolegate_rejected_total{cause="malformed"}"#).await, 1.0);
    assert!(gate.sample.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fragment_is_judged_though_the_engine_drops_it() {
    let gate = Gate::rocketchat().await;
    let answer = gate.get("/api/v1/users.info#x?username=bob", &login("eve")).await;
    assert_eq!(answer.status, 400);
    assert_eq!(gate.last_decision()["reason"], "target_ambiguous");
    assert!(gate.sample.seen().is_empty());
}
