//! Connections to an upstream that are kept: when one is used again, and what is sent again when one breaks.

use tokio::io::AsyncReadExt;

use crate::support::gate::{GateBuilder, login};
use crate::support::scripted::Scripted;
use crate::support::{Answer, Connection, Gate, PATIENCE};

/// An open path and a guarded one.
const PATHS: [&str; 2] = ["/odd", "/api/v1/rooms.roles"];

/// A gate before an upstream that answers `path` as the test says.
async fn gate(fast: bool, path: &'static str) -> (Gate, Scripted) {
    let builder = GateBuilder::rocketchat().await;
    let upstream = Scripted::before(builder.sample.url().trim_start_matches("http://").parse().unwrap(), path).await;
    let url = format!("http://{}", upstream.address).parse().unwrap();
    let gate = builder.upstream(|settings| settings.url = url).with(|config| config.listen.fast_path = fast).start();
    (gate, upstream)
}

async fn ask(gate: &Gate, method: &str, path: &str) -> Answer {
    gate.connect().await.request(method, &format!("{path}?rid=GENERAL"), &login("carol"), b"").await
}

fn whole(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_says_unasked_is_no_answer_to_the_next_request() {
    let unasked = whole("unasked");
    for (fast, path) in [(true, PATHS[0]), (true, PATHS[1]), (false, PATHS[0]), (false, PATHS[1])] {
        let (gate, upstream) = gate(fast, path).await;
        for (method, first) in [
            ("GET", whole("first")),
            ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n".to_owned()),
            ("GET", "HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_owned()),
        ] {
            let case = format!("fast: {fast}, {path}, {first}");
            let before = upstream.heads().len();
            upstream.play(&[format!("{first}{unasked}").as_bytes()], false);
            let answer = ask(&gate, method, path).await;
            assert!(answer.status < 300, "{case}");
            assert!(!answer.text().contains("unasked"), "{case}");
            upstream.play(&[whole("next").as_bytes()], false);
            assert_eq!(ask(&gate, "GET", path).await.text(), "next", "{case}");
            assert_eq!(upstream.heads().len() - before, 2, "{case}");
        }
    }
}

/// How often a request arrives that comes on a kept connection on which the upstream says `begun` and leaves.
async fn arrivals((gate, upstream): &(Gate, Scripted), path: &str, method: &str, begun: &str) -> usize {
    let before = upstream.heads().len();
    upstream.play(
        &[if method == "HEAD" { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_owned() } else { whole("first") }.as_bytes()],
        false,
    );
    assert_eq!(ask(gate, method, path).await.status, 200, "{path}, {method}");
    upstream.play(&[begun.as_bytes()], true);
    assert_eq!(ask(gate, method, path).await.status, 502, "{path}, {method}, {begun:?}");
    upstream.heads().len() - before - 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_breaks_off_within_the_head_of_an_answer_is_no_reason_to_ask_again() {
    for path in PATHS {
        let (fast, general) = (gate(true, path).await, gate(false, path).await);
        for begun in ["H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"] {
            assert_eq!(arrivals(&fast, path, "GET", begun).await, 1, "{path}, {begun:?}");
            // The engine does not tell how far an answer came; what is safe may be asked twice (RFC 9110 §9.2.2).
            assert!(arrivals(&general, path, "GET", begun).await <= 2, "{path}, {begun:?}");
            for method in ["POST", "PATCH"].into_iter().filter(|_| path == PATHS[0]) {
                assert_eq!(arrivals(&general, path, method, begun).await, 1, "{method}, {begun:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_on_a_kept_connection_that_closes_without_a_word_is_sent_again_only_if_it_may_arrive_twice() {
    for fast in [true, false] {
        let open = gate(fast, PATHS[0]).await;
        for (method, times) in [("GET", 2), ("HEAD", 2), ("PUT", 2), ("DELETE", 2), ("POST", 1), ("PATCH", 1), ("LOCK", 1)] {
            assert_eq!(arrivals(&open, PATHS[0], method, "").await, times, "fast: {fast}, {method}");
        }
        assert_eq!(arrivals(&gate(fast, PATHS[1]).await, PATHS[1], "GET", "").await, 2, "fast: {fast}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_behind_a_refused_request_that_waits_for_a_go_ahead_are_neither_its_body_nor_a_request() {
    for fast in [true, false] {
        let (gate, upstream) = gate(fast, PATHS[0]).await;
        let mut connection = gate.connect().await;
        let next = format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", PATHS[0]);
        let length = next.len();
        // Whether the client sends its body or its next request is not known: nothing that follows is read in either way.
        let head = format!("POST {} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n", PATHS[1]);
        connection.send(head.as_bytes()).await;
        let answer = connection.answer("POST").await;
        assert_eq!((answer.status, answer.header("connection")), (405, Some("close")), "fast: {fast}");
        connection.send(next.as_bytes()).await;
        assert!(rest(&mut connection).await.is_empty(), "fast: {fast}");
        assert!(upstream.heads().is_empty() && gate.sample.seen().is_empty(), "fast: {fast}");
    }
}

/// Everything that still comes on a connection that is about to be closed; a reset closes it, too.
async fn rest(connection: &mut Connection) -> Vec<u8> {
    let mut received = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, connection.stream.read_to_end(&mut received)).await.expect("it is closed");
    received
}
