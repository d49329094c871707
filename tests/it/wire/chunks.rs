//! Chunked content of clients that two servers could read differently.

use super::recorder::Recorder;
use super::refused;
use crate::support::gate::login;
use crate::support::{Gate, until};

/// Chunked content with one fault each.
const FAULTS: &[&str] = &[
    "5;a\nb\r\nhello\r\n0\r\n\r\n",
    "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
    "5;a=\u{1}\r\nhello\r\n0\r\n\r\n",
    "5;a\u{7f}\r\nhello\r\n0\r\n\r\n",
    "5;a\rb\r\nhello\r\n0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "5 hello\r\nhello\r\n0\r\n\r\n",
    "\r\n5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n\r\n0\r\n\r\n",
    "5\r\nhello\r\n;a\r\n0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello!\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nno field\r\n\r\n",
    "5\r\nhello\r\n0\r\n: x\r\n\r\n",
    "5\r\nhello\r\n0\r\nA : x\r\n\r\n",
    "5\r\nhello\r\n0\r\n folded\r\n\r\n",
    "5\r\nhello\r\n0\r\nA: \u{1}\r\n\r\n",
    "5\r\nhello\r\n0\r\nA: b\n\r\n",
    "5\r\nhello\r\n0\r\n\n",
];

/// Sends `content` chunked to `target`, at once or after the head was taken.
async fn send(gate: &Gate, target: &str, content: &str, apart: bool) -> crate::support::Answer {
    let mut connection = gate.connect().await;
    let fields: String = login("carol").iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: {}\r\n{fields}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        connection.host
    );
    if apart {
        connection.send(head.as_bytes()).await;
        connection.send(b"2\r\n{ \r\n").await;
        let (shared, taken) = (gate.shared(), tokio::time::Instant::now());
        // The head has left the entrance by then, or comes with the rest: either is to be refused.
        while shared.open.load(std::sync::atomic::Ordering::Acquire) == 0 {
            assert!(taken.elapsed() < crate::support::PATIENCE);
            tokio::task::yield_now().await;
        }
        connection.send(content.as_bytes()).await;
    } else {
        connection.send(&[head.as_bytes(), content.as_bytes()].concat()).await;
    }
    let answer = connection.answer("POST").await;
    assert!(answer.status < 400 || connection.is_closed().await, "{content:?}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn chunked_content_that_two_servers_could_read_differently_is_refused_wherever_it_goes() {
    let (gate, upstream) = Recorder::gate(|_| {}).await;
    for target in ["/upload", "/api/v1/users.create", "/api/v1/method.call/getRoomRoles"] {
        for content in FAULTS {
            for apart in [false, true] {
                let told = format!("{target} {content:?}, apart: {apart}");
                let answer = send(&gate, target, content, apart).await;
                assert_eq!(answer.status, 400, "{told}");
                assert_eq!(refused(&gate, &answer, &told), "framing_invalid", "{told}");
                assert_eq!(answer.json()["success"], false, "{told}");
            }
        }
    }
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_framing_breaks_on_its_way_never_comes_to_its_end() {
    let (gate, upstream) = Recorder::gate(|_| {}).await;
    let mut connection = gate.connect().await;
    connection.send(b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    gate.until_metric("rolegate_connections", 1.0).await;
    connection.send(b"5;\x01\r\nhello\r\n0\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let answer = connection.answer("POST").await;
    assert_eq!((answer.status, refused(&gate, &answer, "an upload").as_str()), (400, "framing_invalid"));
    assert!(connection.is_closed().await);
    until("the upstream to see it break off", || (upstream.broken() <= 1).then_some(())).await;
    assert!(upstream.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn well_formed_chunks_pass_with_their_extensions_and_trailers() {
    let (gate, upstream) = Recorder::gate(|_| {}).await;
    for content in [
        "5\r\nhello\r\n0\r\n\r\n",
        "005 ; a=b;c=\"d \u{e9}\"\r\nhello\r\n0;e\r\nX-Sum: 1\r\nEmpty:\r\n\r\n",
        "2\r\nhe\r\n3\t\r\nllo\r\n000\r\n\r\n",
    ] {
        for apart in [false, true] {
            assert_eq!(send(&gate, "/upload", content, apart).await.status, 200, "{content:?}");
        }
    }
    assert_eq!(upstream.seen().len(), 6);
    let body = |chunks: &[u8]| String::from_utf8_lossy(chunks).lines().skip(1).step_by(2).collect::<String>();
    assert_eq!(body(&upstream.seen()[0].body), "hello");
}
