//! The admin listener: whom it answers, for how long it waits, and that it takes nothing from clients.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rolegate::demo::Sample;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::silent::{OPERATORS, Silent, Streams};
use crate::support::{Connection, Gate, GateBuilder, PATIENCE, Policies};

/// The paths and methods of the listener.
const ASKED: &[(&str, &str)] = &[
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/status"),
    ("POST", "/reload"),
    ("POST", "/facts/invalidate"),
    ("GET", "/"),
];

#[tokio::test(flavor = "multi_thread")]
async fn on_a_loopback_address_only_loopback_names_are_answered() {
    let gate = Gate::rocketchat().await;
    let ask = async |method: &str, path: &str, host: &str| {
        Connection::open(gate.admin()).await.request(method, path, &[("Host", host.to_owned())], b"").await
    };
    for host in [
        "localhost",
        "localhost:9901",
        "LocalHost.",
        "admin.localhost",
        "127.0.0.1",
        "127.0.0.1:9901",
        "127.9.8.7",
        "[::1]",
        "[::1]:9901",
        "[::ffff:127.0.0.1]:1",
    ] {
        assert_eq!(ask("GET", "/status", host).await.status, 200, "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:9901",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "notlocalhost",
        "192.0.2.1",
        "0.0.0.0",
        "[::2]",
        "[::1",
        "[::1]evil",
        "localhost:evil",
        "127.0.0.1:80:80",
        "127.1",
        "localhost@evil.example",
    ] {
        for (method, path) in ASKED {
            let answer = ask(method, path, host).await;
            assert_eq!(answer.status, if answer.status == 400 { 400 } else { 421 }, "{method} {path} as {host}");
            assert!(answer.json()["error"].is_string(), "{host}: {}", answer.text());
        }
    }
    assert!(gate.records_of("reload").is_empty(), "what was refused was not done");

    // Who speaks the older version names no host, and is not a browser.
    let mut old = Connection::open(gate.admin()).await;
    old.send(b"GET /readyz HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.answer("GET").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_an_address_that_others_reach_any_name_is_answered() {
    let builder = GateBuilder::rocketchat().await;
    let gate = builder.with(|config| config.admin.address = (Ipv4Addr::UNSPECIFIED, 0).into()).start();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, gate.admin().port()));
    let host = [("Host", "rolegate.monitoring.svc:9901".to_owned())];
    assert_eq!(Connection::open(address).await.get("/metrics", &host).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_answered_without_a_body_whatever_the_answer_is() {
    let gate = Gate::rocketchat().await;
    for (path, host, status) in [
        ("/livez", "localhost", 200),
        ("/metrics", "localhost", 200),
        ("/status", "localhost", 200),
        ("/status", "evil.example", 421),
        ("/nowhere", "localhost", 404),
        ("/reload", "localhost", 405),
    ] {
        let mut connection = Connection::open(gate.admin()).await;
        let head = connection.request("HEAD", path, &[("Host", host.to_owned())], b"").await;
        assert_eq!(head.status, status, "{path}");
        assert!(head.header("content-length").is_some_and(|length| length != "0"), "{path}: {head:?}");
        // A body would be taken for the next answer.
        assert_eq!(connection.get("/livez", &[("Host", "localhost".into())]).await.text(), "ok\n", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_by_http_1_0_is_answered_and_closed_unless_it_asks_to_be_kept() {
    let gate = GateBuilder::rocketchat().await;
    // Nothing else ends a connection while this story lasts.
    let gate = gate.with(|config| config.limits.header_deadline = PATIENCE * 10).start();
    for asked in ["", "Connection: close\r\n"] {
        let mut check = Connection::open(gate.admin()).await;
        check.send(format!("GET /livez HTTP/1.0\r\n{asked}\r\n").as_bytes()).await;
        let answer = check.answer("GET").await;
        assert_eq!((answer.text().as_str(), answer.header("connection")), ("ok\n", Some("close")), "{asked:?}");
        assert!(check.is_closed().await, "{asked:?}");
    }
    let mut kept = Connection::open(gate.admin()).await;
    for _ in 0..2 {
        kept.send(b"GET /livez HTTP/1.0\r\nConnection: x, Keep-Alive\r\n\r\n").await;
        let answer = kept.answer("GET").await;
        assert_eq!((answer.text().as_str(), answer.header("connection")), ("ok\n", Some("keep-alive")));
    }
}

/// Half a request; it stays open for as long as the listener wants.
async fn half(admin: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Half: ").await.unwrap();
    stream
}

/// Waits until the listener closes; what it said before.
async fn closed(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    // A reset is an end, too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("never closed");
    String::from_utf8(said).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_half_requests_end_at_the_deadline_and_keep_nobody_out_meanwhile() {
    let deadline = Duration::from_secs(3);
    let gate = GateBuilder::rocketchat().await.with(|config| config.limits.header_deadline = deadline).start();
    let began = Instant::now();
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(half(gate.admin()).await);
    }
    for path in ["/readyz", "/metrics", "/status"] {
        assert_eq!(gate.admin_get(path).await.status, 200, "{path}");
    }
    assert_eq!(gate.get("/echo", &[]).await.status, 200);
    let mut late = 0;
    for stream in &mut streams {
        late += usize::from(closed(stream).await.starts_with("HTTP/1.1 408 "));
    }
    assert!(began.elapsed() >= deadline && began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert!((1..=64).contains(&late), "{late} were told that they are late; the others made room");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_an_order_that_drips_and_answers_that_nobody_reads_end_too() {
    let patience = Duration::from_secs(1);
    let gate = GateBuilder::rocketchat().await.with(|config| config.limits.header_deadline = patience).start();
    let mut silent = TcpStream::connect(gate.admin()).await.unwrap();
    let mut drip = TcpStream::connect(gate.admin()).await.unwrap();
    drip.write_all(b"POST /facts/invalidate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\n\r\n").await.unwrap();
    // With little room for answers on its way.
    let unread = TcpSocket::new_v4().unwrap();
    unread.set_recv_buffer_size(4096).unwrap();
    let mut unread = unread.connect(gate.admin()).await.unwrap();
    let asked = 2000;
    let many = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(asked);
    // What is not taken fills the way back, so that this may not end by itself.
    let asking = timeout(Duration::from_secs(10), unread.write_all(many.as_bytes()));
    let dripping = async {
        let began = Instant::now();
        while drip.try_write(b" ").is_ok() {
            assert!(began.elapsed() < PATIENCE, "an order that drips is still read");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (_, ()) = tokio::join!(asking, dripping);
    // Nothing but time ends it.
    tokio::time::sleep(patience * 3).await;
    assert_eq!(closed(&mut silent).await, "");
    let answers = closed(&mut unread).await.matches("HTTP/1.1 200 OK").count();
    assert!(answers < asked, "all {answers} answers were kept for a client that takes none");
    assert_eq!(gate.admin_get("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_requests_of_operators_take_no_descriptor_that_clients_need() {
    let sample = Sample::rocketchat().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    Policies::write(&folder.path().join("policies"));
    let log = File::create(folder.path().join("process.log")).unwrap();
    let few = Streams { before: "ulimit -n 256;", error: log.into(), ..Streams::usual() };
    let mut program = Silent::start(few, folder, sample.url());
    let (address, admin) = (program.listening(Ipv4Addr::LOCALHOST).await, program.listening(OPERATORS).await);
    let mut streams = Vec::new();
    for _ in 0..400 {
        streams.push(half(admin).await);
    }
    for _ in 0..20 {
        let answer = timeout(Duration::from_secs(5), async { Connection::open(address).await.get("/echo", &[]).await.status });
        assert_eq!(answer.await.expect("clients wait"), 200);
    }
    assert_eq!(Connection::open(admin).await.get("/readyz", &[]).await.status, 200);
    program.signal("-TERM");
    assert_eq!(program.ended().await.code(), Some(0));
    let log = fs::read_to_string(program.folder.path().join("process.log")).unwrap();
    assert!(!log.contains("was not accepted"), "{log}");
}
