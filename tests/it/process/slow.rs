//! Clients that send or take too slowly end, by whatever way they came, and those that are only slow do not.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::SinkExt;
use reqwest::Client;
use rolegate::config::Limits;
use rolegate::demo::world::workspace::BOARDROOM;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::connections::tls::{NAME, trusting};
use crate::streaming::{soon, websocket};
use crate::support::gate::login;
use crate::support::{Authority, Connection, Gate, GateBuilder, PATIENCE, until};

/// A call that is judged by its content.
const CALL: &str = "/api/v1/method.call/getRoomRoles";
/// As long as every bound of these stories.
const BOUND: Duration = Duration::from_secs(1);
const ANSWER: usize = 64 * 1024 * 1024;

fn call() -> Vec<u8> {
    let message = json!({ "msg": "method", "id": "1", "method": "getRoomRoles", "params": [BOARDROOM] }).to_string();
    json!({ "message": message }).to_string().into_bytes()
}

fn bounded(limits: &mut Limits) {
    (limits.body_deadline, limits.body_idle, limits.send_idle) = (BOUND, BOUND, BOUND);
}

async fn gate(change: impl FnOnce(&mut Limits)) -> Gate {
    GateBuilder::rocketchat().await.with(|config| change(&mut config.limits)).start()
}

/// A gate that listens with a certificate, and a client that trusts it.
async fn secure(change: impl FnOnce(&mut Limits)) -> (Gate, Authority) {
    let authority = Authority::new("ours");
    let builder = GateBuilder::rocketchat().await.with(|config| change(&mut config.limits));
    let files = (builder.folder.path().join("cert.pem"), builder.folder.path().join("key.pem"));
    authority.place(NAME, &files);
    (builder.with(|config| config.listen.tls = Some(files)).start(), authority)
}

fn url(gate: &Gate, path: &str) -> String {
    format!("https://{NAME}:{}{path}", gate.address().port())
}

async fn slow(gate: &Gate, cause: &str) -> f64 {
    gate.metric(&format!("rolegate_slow_clients_total{{cause=\"{cause}\"}}")).await
}

/// The head of a call by carol; its content comes in `framing`.
fn head(path: &str, framing: &str) -> Vec<u8> {
    let fields: String = login("carol").iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{fields}{framing}\r\n\r\n").into_bytes()
}

/// `content` byte by byte, each in the framing of its head.
fn pieces(content: &[u8], chunked: bool) -> Vec<Vec<u8>> {
    let piece = |byte: &u8| if chunked { [b"1\r\n", &[*byte][..], b"\r\n"].concat() } else { vec![*byte] };
    let mut pieces: Vec<Vec<u8>> = content.iter().map(piece).collect();
    if chunked {
        pieces.push(b"0\r\n\r\n".to_vec());
    }
    pieces
}

/// Sends `pieces` with `pause` between them until an answer comes; the answer, and after how long.
async fn drip(connection: &mut Connection, pieces: Vec<Vec<u8>>, pause: Duration) -> (crate::support::Answer, Duration) {
    let began = Instant::now();
    for piece in pieces {
        // The other side may have had enough.
        if connection.stream.write_all(&piece).await.is_err() || timeout(pause, connection.stream.readable()).await.is_ok() {
            break;
        }
    }
    let answer = connection.answer("POST").await;
    (answer, began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_is_judged_must_come_within_its_deadline_however_it_drips() {
    let gate = gate(bounded).await;
    let mut content = call();
    content.resize(60_000, b' ');
    for (chunked, framing) in [(false, format!("Content-Length: {}", content.len())), (true, "Transfer-Encoding: chunked".into())]
    {
        let before = slow(&gate, "body_deadline").await;
        let mut connection = gate.connect().await;
        connection.send(&head(CALL, &framing)).await;
        let (answer, after) = drip(&mut connection, pieces(&content, chunked), Duration::from_millis(50)).await;
        assert_eq!(answer.status, 408, "{framing}: {}", answer.text());
        assert!(after >= BOUND * 9 / 10 && after < PATIENCE / 2, "{framing}: refused after {after:?}");
        assert_eq!(answer.json()["success"], false, "{framing}: in the server's words: {}", answer.text());
        assert!(connection.is_closed().await);
        let record = gate.last_decision();
        assert_eq!((&record["decision"], &record["reason"]), (&json!("deny"), &json!("framing_invalid")), "{framing}");
        assert_eq!(answer.header("x-request-id"), record["id"].as_str());
        assert_eq!(slow(&gate, "body_deadline").await, before + 1.0, "{framing}");
    }
    assert_eq!(gate.sample.count(CALL), 0, "nothing of it arrived");
    // What comes slowly and in time is judged.
    for chunked in [false, true] {
        let mut connection = gate.connect().await;
        let framing = if chunked { "Transfer-Encoding: chunked".into() } else { format!("Content-Length: {}", call().len()) };
        connection.send(&head(CALL, &framing)).await;
        let (answer, _) = drip(&mut connection, pieces(&call(), chunked), Duration::from_micros(500)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_h2_a_content_that_is_judged_has_the_same_deadline() {
    let (gate, authority) = secure(bounded).await;
    let client = trusting(&authority, &gate).build().unwrap();
    let bytes = futures_util::stream::unfold(0, |sent| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        (sent < 60_000).then_some((Ok::<_, Infallible>(Bytes::from_static(b" ")), sent + 1))
    });
    let request =
        login("carol").into_iter().fold(client.post(url(&gate, CALL)), |request, (name, value)| request.header(name, value));
    let request = request.header("content-type", "application/json").body(reqwest::Body::wrap_stream(bytes));
    let began = Instant::now();
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 408);
    assert!(began.elapsed() >= BOUND && began.elapsed() < PATIENCE / 2);
    assert_eq!(answer.json::<Value>().await.unwrap()["success"], false);
    assert_eq!((slow(&gate, "body_deadline").await, gate.sample.count(CALL)), (1.0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_streams_may_take_its_time_but_not_stop() {
    let gate = gate(|limits| limits.body_idle = BOUND).await;
    for chunked in [false, true] {
        let before = slow(&gate, "body_idle").await;
        let framing = if chunked { "Transfer-Encoding: chunked" } else { "Content-Length: 30" };
        let mut connection = gate.connect().await;
        connection.send(&head("/upload", framing)).await;
        let (answer, after) = drip(&mut connection, pieces(&[b'x'; 30], chunked), BOUND / 10).await;
        assert_eq!((answer.status, answer.json()["bytes"].clone()), (200, json!(30)), "{framing}");
        assert!(after > BOUND * 2, "it took {after:?}");

        let mut connection = gate.connect().await;
        connection.send(&head("/upload", framing)).await;
        connection.send(&pieces(&[b'x'; 29], chunked).concat()[..20]).await;
        let stopped = Instant::now();
        let answer = connection.answer("POST").await;
        assert_eq!(answer.status, 408, "{framing}");
        assert!(stopped.elapsed() >= BOUND * 9 / 10 && stopped.elapsed() < PATIENCE / 2, "{:?}", stopped.elapsed());
        assert!(connection.is_closed().await);
        assert_eq!(slow(&gate, "body_idle").await, before + 1.0, "{framing}");
    }
}

/// Asks for a long answer with `further` fields and reads nothing of it.
async fn unread(gate: &Gate, further: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gate.address()).await.unwrap();
    let request = format!("GET /download?bytes={ANSWER} HTTP/1.1\r\nHost: a\r\n{further}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// A server whose every answer is long; how many of its connections are open.
async fn pouring() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::AcqRel);
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {ANSWER}\r\n\r\n");
                // The gate leaves when its client does.
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&vec![b'x'; ANSWER]).await;
                counted.fetch_sub(1, Ordering::AcqRel);
            });
        }
    });
    (address, open)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_take_nothing_of_an_answer_end_with_their_connections_to_the_server() {
    let (server, open) = pouring().await;
    let builder = GateBuilder::rocketchat().await.upstream(|upstream| upstream.url.port = server.port());
    let gate = builder.with(|config| config.limits.send_idle = BOUND).start();
    for (way, further) in [("the short way", ""), ("the general way", "TE: trailers\r\n")] {
        let before = slow(&gate, "send_idle").await;
        let fast = gate.shared().fast.load(Ordering::Relaxed);
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(unread(&gate, further).await);
        }
        gate.until_metric("rolegate_connections", 8.0).await;
        gate.until_metric("rolegate_connections", 0.0).await;
        until(way, || (open.load(Ordering::Acquire) == 0).then_some(())).await;
        let served = gate.shared().fast.load(Ordering::Relaxed) - fast;
        assert_eq!(served, if further.is_empty() { 8 } else { 0 }, "{way}");
        assert_eq!(slow(&gate, "send_idle").await, before + 8.0, "{way}");
        drop(clients);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_and_with_a_closed_h2_window_they_end_too() {
    let (gate, authority) = secure(|limits| limits.send_idle = BOUND).await;
    let path = format!("/download?bytes={ANSWER}");
    let clients: [(&str, Client); 3] = [
        ("HTTP/1.1 over TLS", trusting(&authority, &gate).http1_only().build().unwrap()),
        ("h2", trusting(&authority, &gate).build().unwrap()),
        ("h2 without a window", trusting(&authority, &gate).http2_initial_stream_window_size(0).build().unwrap()),
    ];
    for (way, client) in clients {
        let before = slow(&gate, "send_idle").await;
        let answer = client.get(url(&gate, &path)).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{way}");
        // Its head came; of its content nothing is asked for.
        let deadline = Instant::now() + PATIENCE;
        while slow(&gate, "send_idle").await == before {
            assert!(Instant::now() < deadline, "{way} goes on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(slow(&gate, "send_idle").await, before + 1.0, "{way}");
        assert!(answer.bytes().await.is_err(), "{way}: what was cut is not whole");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_gets_its_answer_whole() {
    let gate = gate(|limits| limits.send_idle = BOUND).await;
    let bytes = 24 * 1024 * 1024;
    for further in ["", "TE: trailers\r\n"] {
        let mut stream = TcpStream::connect(gate.address()).await.unwrap();
        let request = format!("GET /download?bytes={bytes} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{further}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let (began, mut read) = (Instant::now(), 0);
        let mut piece = vec![0; 256 * 1024];
        loop {
            match timeout(PATIENCE, stream.read(&mut piece)).await.unwrap() {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) => panic!("cut after {read} bytes and {:?}: {error}", began.elapsed()),
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        assert!(read > bytes, "{read} bytes came");
        assert!(began.elapsed() > BOUND * 2, "{:?} is not slow", began.elapsed());
    }
    assert_eq!(slow(&gate, "send_idle").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_is_silent_is_not_slow() {
    let gate = gate(bounded).await;
    let mut socket = websocket(gate.address()).await;
    for _ in 0..2 {
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(soon(&mut socket).await, Message::text("hello"));
        // No message for longer than anything is waited for.
        tokio::time::sleep(BOUND * 2).await;
    }
    socket.send(Message::text("still here")).await.unwrap();
    assert_eq!(soon(&mut socket).await, Message::text("still here"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_may_take_longer_than_the_server_may_be_silent() {
    let gate = GateBuilder::rocketchat().await.upstream(|upstream| {
        (upstream.first_byte_timeout, upstream.read_timeout) = (BOUND, BOUND);
    });
    let gate = gate.start();
    let mut connection = gate.connect().await;
    connection.send(&head("/upload", "Content-Length: 30")).await;
    let (answer, after) = drip(&mut connection, pieces(&[b'x'; 30], false), BOUND / 10).await;
    assert!(after > BOUND * 2, "it took {after:?}");
    assert_eq!((answer.status, answer.json()["bytes"].clone()), (200, json!(30)));
}
