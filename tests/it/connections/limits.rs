//! How much of the gate one client, and all of them, may use.

use std::time::{Duration, Instant};

use rolegate::config::Limits;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::gate::login;
use crate::support::{Connection, Gate, GateBuilder};

async fn limited(change: impl FnOnce(&mut Limits)) -> Gate {
    GateBuilder::rocketchat().await.with(|config| change(&mut config.limits)).start()
}

/// A connection that was served once and stays open.
async fn served(gate: &Gate) -> Connection {
    let mut connection = gate.connect().await;
    assert_eq!(connection.get("/echo", &[]).await.status, 200);
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_over_the_limit_is_closed_and_counted_until_another_one_ends() {
    let gate = limited(|limits| limits.connections = 2).await;
    let (first, _second) = (served(&gate).await, served(&gate).await);
    assert!(gate.connect().await.is_closed().await);
    assert_eq!(gate.metric(r#"rolegate_rejected_total{cause="connections"}"#).await, 1.0);
    assert_eq!(gate.metric("rolegate_connections").await, 2.0);
    drop(first);
    gate.until_metric("rolegate_connections", 1.0).await;
    served(&gate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_take_every_connection() {
    let gate = limited(|limits| limits.connections_per_address = 2).await;
    let (first, _second) = (served(&gate).await, served(&gate).await);
    assert!(gate.connect().await.is_closed().await);
    assert_eq!(gate.metric(r#"rolegate_rejected_total{cause="connections_per_address"}"#).await, 1.0);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let stream: TcpStream = socket.connect(gate.address()).await.unwrap();
    let mut neighbour = gate.connect().await;
    neighbour.stream = stream;
    assert_eq!(neighbour.get("/echo", &[]).await.status, 200, "another address has its own share");
    drop((first, neighbour));
    gate.until_metric("rolegate_connections", 1.0).await;
    served(&gate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_section_over_a_limit_is_refused_and_counted() {
    let gate = limited(|limits| (limits.header_fields, limits.header_bytes) = (10, 1000)).await;
    let fields = |count: usize| vec![("X-Filler", "a".to_owned()); count - 1];
    let bytes = |count: usize| {
        vec![("X-Filler", "a".repeat(count - "Host".len() - 4 - gate.address().to_string().len() - "X-Filler".len() - 4))]
    };
    assert_eq!(gate.get("/echo", &fields(10)).await.status, 200);
    assert_eq!(gate.get("/echo", &bytes(1000)).await.status, 200);
    for headers in [fields(11), bytes(1001)] {
        let answer = gate.get("/echo", &headers).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.json()["errorType"], "error-invalid-request");
        assert_eq!(gate.last_decision()["reason"], "framing_invalid");
    }
    assert_eq!(gate.metric(r#"rolegate_rejected_total{cause="header_too_large"}"#).await, 2.0);
    assert_eq!(gate.sample.count("/echo"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_after_its_time_and_not_before() {
    let gate = limited(|limits| limits.keepalive_idle = Duration::from_secs(1)).await;
    let mut connection = served(&gate).await;
    let answered = Instant::now();
    assert_eq!(connection.get("/slow?ms=1500", &login("eve")).await.text(), "slow", "a slow answer is no idleness");
    assert!(answered.elapsed() > Duration::from_millis(1500));
    let answered = Instant::now();
    assert!(connection.is_closed().await);
    assert!(answered.elapsed() > Duration::from_millis(900), "closed after {:?}", answered.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_arrive_in_time_ends_the_connection_however_slowly_it_drips() {
    let gate = limited(|limits| limits.header_deadline = Duration::from_millis(500)).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut silent = gate.connect().await;
    let mut drip = gate.connect().await;
    drip.send(b"GET /echo HTTP/1.1\r\nHost: a\r\nX-Drip: ").await;
    let mut byte = tokio::time::interval(Duration::from_millis(50));
    loop {
        byte.tick().await;
        match drip.stream.try_write(b"a") {
            Ok(_) => assert!(Instant::now() < deadline, "still open"),
            Err(_) => break,
        }
    }
    assert!(silent.is_closed().await);
    assert_eq!(gate.metric(r#"rolegate_rejected_total{cause="header_deadline"}"#).await, 1.0, "silence is no attempt");
    let mut patient = gate.connect().await;
    assert_eq!(patient.get("/slow?ms=1000", &[]).await.text(), "slow", "an answer may take longer");
    patient.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na").await;
    gate.sample.until_seen("/upload", 1).await;
    silent = gate.connect().await;
    assert!(silent.is_closed().await, "a deadline passed meanwhile");
    patient.send(b"b").await;
    assert_eq!(patient.answer("POST").await.json()["bytes"], 2, "and so may a body");
}
