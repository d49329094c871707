//! The end of a proxy, and a start that cannot be.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use rolegate::demo::Sample;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::streaming::{soon, websocket};
use crate::support::gate::{login, records};
use crate::support::{Connection, PATIENCE, Process, Program};

const HANDSHAKE: &str = "GET /websocket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// How many connections wait at the end.
const WAITING: usize = 300;

/// A proxy that drains for as long as `drain` says.
async fn draining_for(sample: &Sample, drain: &str) -> Process {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("[listen]\ndrain = \"{drain}\"\n[[upstream]]\nprovider = \"rocketchat\"\nurl = \"{}\"\n", sample.url());
    std::fs::write(folder.path().join("rolegate.toml"), text).unwrap();
    Process::run(folder, &["run", "--config", "rolegate.toml"]).await
}

/// Waits until no connection is accepted any more.
pub async fn until_refused(address: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).await.is_ok() {
        assert!(Instant::now() < deadline, "still accepting");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_at_the_end_is_finished_and_nothing_new_begins() {
    let sample = Sample::rocketchat().await.unwrap();
    let mut process = Process::before(sample.url(), &[]).await;
    let hold = sample.hold("/slow");
    let mut open = process.connect().await;
    open.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let held = sample.hold("/api/v1/users.info");
    let mut guarded = process.connect().await;
    let headers: String = login("eve").into_iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    guarded.send(format!("GET /api/v1/users.info?username=bob HTTP/1.1\r\nHost: a\r\n{headers}\r\n").as_bytes()).await;
    hold.until_waiting(1).await;
    held.until_waiting(1).await;
    process.terminate();
    until_refused(process.address).await;
    assert!(process.ended().is_none(), "it waits for both");
    hold.release();
    assert_eq!(open.answer("GET").await.text(), "slow");
    assert!(open.is_closed().await);
    held.release();
    let answer = guarded.answer("GET").await;
    assert_eq!((answer.status, answer.json()["user"]["username"].as_str()), (200, Some("bob")));
    assert_eq!(process.exit().await, 0);
    let left = records(&process.folder.path().join("audit/audit.jsonl"));
    let kinds: Vec<&str> = left.iter().map(|record| record["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["start", "decision", "outcome", "stop"]);
    assert_eq!(left[3]["cut_connections"], 0, "{}", left[3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_connection_from_before_the_end_is_answered_though_it_was_not_accepted_yet() {
    let sample = Sample::rocketchat().await.unwrap();
    let mut process = Process::before(sample.url(), &[]).await;
    // While it stands still the kernel takes connections for it, and it hears of them and of its end at once.
    process.signal("-STOP");
    let mut connections = Vec::new();
    for _ in 0..WAITING {
        let mut connection = process.connect().await;
        connection.send(b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n").await;
        connections.push(connection);
    }
    process.terminate();
    process.signal("-CONT");
    for mut connection in connections {
        let answer = connection.answer("GET").await;
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    }
    assert_eq!(process.exit().await, 0);
    assert_eq!(sample.count("/echo"), WAITING);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_process_ends_within_a_second_and_closes_what_is_kept_alive() {
    let sample = Sample::rocketchat().await.unwrap();
    let mut process = Process::before(sample.url(), &[]).await;
    let mut used = process.connect().await;
    assert_eq!(used.get("/echo", &[]).await.status, 200);
    let mut unused = process.connect().await;
    let mut half = process.connect().await;
    half.send(b"GET /echo HTTP/1.1\r\nHo").await;
    let asked = Instant::now();
    process.terminate();
    assert_eq!(process.exit().await, 0);
    let passed = asked.elapsed();
    assert!(passed < Duration::from_secs(1), "it took {passed:?}");
    assert!(used.is_closed().await && unused.is_closed().await && half.is_closed().await);
    assert_eq!(sample.count("/echo"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn open_websockets_do_not_hold_up_the_end() {
    let sample = Sample::rocketchat().await.unwrap();
    let mut process = Process::before(sample.url(), &[]).await;
    let mut socket = websocket(process.address).await;
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(soon(&mut socket).await, Message::text("hello"));
    let mut idle = websocket(process.address).await;
    let asked = Instant::now();
    process.terminate();
    assert_eq!(process.exit().await, 0);
    let passed = asked.elapsed();
    assert!(passed < Duration::from_secs(1), "it took {passed:?}");
    assert!(!matches!(socket.next().await, Some(Ok(_))) && !matches!(idle.next().await, Some(Ok(_))));
    let stop = records(&process.folder.path().join("audit/audit.jsonl")).pop().unwrap();
    assert_eq!((&stop["kind"], &stop["cut_connections"]), (&"stop".into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_nobody_reads_does_not_hold_up_the_end() {
    let sample = Sample::rocketchat().await.unwrap();
    let mut process = Process::before(sample.url(), &[]).await;
    let mut socket = websocket(process.address).await;
    // The server echoes each message; as nobody reads them, there is no more room anywhere in the end.
    let message = Message::binary(vec![7; 1 << 20]);
    while tokio::time::timeout(Duration::from_millis(500), socket.send(message.clone())).await.is_ok() {}
    let asked = Instant::now();
    process.terminate();
    assert_eq!(process.exit().await, 0);
    let passed = asked.elapsed();
    assert!(passed < Duration::from_secs(2), "it took {passed:?}");
}

/// A server that answers handshakes and then takes nothing; it is closed when the task ends.
async fn deaf() -> (SocketAddr, JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap_or(0) > 0 {}
            let answer: &[u8] = if head.starts_with(b"GET /websocket ") {
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            } else {
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            };
            // A probe may have left by now.
            let _ = stream.write_all(answer).await;
            if answer.starts_with(b"HTTP/1.1 101") {
                open.push(stream);
            }
        }
    });
    (address, accepting)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_whose_server_takes_no_more_does_not_hold_up_the_end() {
    let (address, accepting) = deaf().await;
    let mut process = Process::before(&format!("http://{address}"), &[]).await;
    let mut connection = process.connect().await;
    connection.send(HANDSHAKE.as_bytes()).await;
    assert_eq!(connection.head().await.status, 101);
    let piece = vec![7; 1 << 20];
    while tokio::time::timeout(Duration::from_millis(500), connection.stream.write_all(&piece)).await.is_ok() {}
    let asked = Instant::now();
    process.terminate();
    assert_eq!(process.exit().await, 0);
    let passed = asked.elapsed();
    assert!(passed < Duration::from_secs(2), "it took {passed:?}");
    accepting.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_finished_beside_an_open_websocket() {
    let sample = Sample::rocketchat().await.unwrap();
    let mut process = Process::before(sample.url(), &[]).await;
    let hold = sample.hold("/slow");
    let mut open = process.connect().await;
    open.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    hold.until_waiting(1).await;
    let mut socket = websocket(process.address).await;
    process.terminate();
    assert!(!matches!(tokio::time::timeout(PATIENCE, socket.next()).await.unwrap(), Some(Ok(_))), "the tunnel ends at once");
    assert!(process.ended().is_none(), "it waits for the request");
    hold.release();
    assert_eq!(open.answer("GET").await.text(), "slow");
    assert_eq!(process.exit().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_whose_handshake_is_in_flight_is_answered_before_it_ends() {
    let sample = Sample::rocketchat().await.unwrap();
    let mut process = Process::before(sample.url(), &[]).await;
    let hold = sample.hold("/websocket");
    let mut connection = process.connect().await;
    connection.send(HANDSHAKE.as_bytes()).await;
    hold.until_waiting(1).await;
    process.terminate();
    until_refused(process.address).await;
    assert!(process.ended().is_none(), "it waits for the answer");
    hold.release();
    assert_eq!(connection.head().await.status, 101);
    assert!(connection.is_closed().await);
    assert_eq!(process.exit().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_on_its_way_at_the_end_is_answered_and_told_that_it_was_the_last() {
    let sample = Sample::rocketchat().await.unwrap();
    let mut process = Process::before(sample.url(), &[]).await;
    let hold = sample.hold("/slow");
    let mut busy = process.connect().await;
    busy.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    hold.until_waiting(1).await;
    let (mut passing, mut guarded): (Connection, Connection) = (process.connect().await, process.connect().await);
    let about_bob = "/api/v1/users.info?username=bob";
    assert_ne!(passing.get("/echo", &[]).await.header("connection"), Some("close"));
    assert_ne!(guarded.get(about_bob, &login("eve")).await.header("connection"), Some("close"));
    process.terminate();
    for (connection, target, headers) in [(&mut passing, "/echo", Vec::new()), (&mut guarded, about_bob, login("eve"))] {
        loop {
            let answer = connection.get(target, &headers).await;
            assert_eq!(answer.status, 200, "{target}");
            if answer.header("connection") == Some("close") {
                break;
            }
        }
        assert!(connection.is_closed().await);
    }
    hold.release();
    let answer = busy.answer("GET").await;
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("slow", Some("close")), "it began before the end");
    assert_eq!(process.exit().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_end_is_cut_when_the_time_to_drain_is_over() {
    let sample = Sample::rocketchat().await.unwrap();
    let mut process = draining_for(&sample, "1s").await;
    let mut stream = process.connect().await;
    stream.send(b"GET /events?count=1000000&every_ms=10 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(stream.head().await.status, 200);
    let asked = Instant::now();
    process.terminate();
    assert_eq!(process.exit().await, 0);
    let passed = asked.elapsed();
    assert!(passed > Duration::from_secs(1) && passed < Duration::from_secs(4), "it took {passed:?}");
    let stop = records(&process.folder.path().join("audit/audit.jsonl")).pop().unwrap();
    assert_eq!((&stop["kind"], &stop["cut_connections"]), (&"stop".into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_ends_the_start_at_once_and_is_named() {
    let sample = Sample::rocketchat().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, free) = (listener.local_addr().unwrap().to_string(), "127.0.0.1:0");
    for (listen, admin) in [(taken.as_str(), free), (free, taken.as_str())] {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["run", "--provider", "rocketchat", "--upstream", sample.url(), "--listen", listen, "--admin", admin];
        let asked = Instant::now();
        let ended = Program::new(&arguments).within(folder.path()).run();
        assert_eq!(ended.code, 1, "{}", ended.err);
        assert!(ended.err.contains(&format!("cannot listen on {taken}: ")), "{}", ended.err);
        assert!(asked.elapsed() < Duration::from_secs(5));
    }
}
