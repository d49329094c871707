//! Bodies that the server takes: of any type or none where they are JSON, and beside a request that has no use for one.

use super::kept::Upstream;
use super::{assert_refused, token};
use crate::support::gate::login;
use crate::support::{Gate, GateBuilder};

const SEARCH: &str = "/_matrix/client/v3/user_directory/search";

#[tokio::test(flavor = "multi_thread")]
async fn a_search_is_json_whatever_its_type_is_said_to_be() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("matrix").await.start();
    let mut connection = gate.connect().await;
    for kind in [
        None,
        Some("application/json"),
        Some("application/x-www-form-urlencoded"),
        Some("text/plain"),
        Some("application/json; charset=utf-8; x=y"),
        Some(""),
    ] {
        let mut headers = token();
        headers.extend(kind.map(|kind| ("Content-Type", kind.to_owned())));
        let body = br#"{ "limit": 5, "search_term": "bo" }"#;
        let answer = connection.request("POST", SEARCH, &headers, body).await;
        assert_eq!(answer.status, 200, "{kind:?}: {}", answer.text());
        let request = upstream.newest();
        assert_eq!(String::from_utf8_lossy(&request.body), r#"{"limit":5,"search_term":"bo"}"#, "{kind:?}");
        assert_eq!(request.header("content-type"), Some("application/json"), "{kind:?}");
        assert_eq!(request.head.to_ascii_lowercase().matches("content-type").count(), 1, "{kind:?}");
    }
    let scoped = br#"{"search_term":"bo","search_scope":"local"}"#;
    let answer = connection.request("POST", SEARCH, &token(), scoped).await;
    assert_eq!((answer.status, upstream.newest().body.as_slice()), (200, &br#"{"search_scope":"local","search_term":"bo"}"#[..]));
    let long = format!(r#"{{"search_term":"{}"}}"#, "a".repeat(5000));
    assert_eq!(connection.request("POST", SEARCH, &token(), long.as_bytes()).await.status, 200, "no bound but the body's");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_json_or_has_more_than_one_reading_is_no_search() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("matrix").await.start();
    let mut connection = gate.connect().await;
    for (fields, body) in [
        (vec![], "search_term=bo"),
        (vec![("Content-Type", "application/x-www-form-urlencoded")], "access_token=other"),
        (vec![], r#"{"search_term":"a","search_term":"b"}"#),
        (vec![], r#"{"search_term":"a","access_token":"b"}"#),
        (vec![("Content-Encoding", "identity")], r#"{"search_term":"a"}"#),
        (vec![], "\u{feff}{\"search_term\":\"a\"}"),
    ] {
        let mut headers = token();
        headers.extend(fields.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let answer = connection.request("POST", SEARCH, &headers, body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{body}");
    }
    assert!(upstream.requests().is_empty());
}

/// Requests whose body the server would not read, with what stands behind their head.
fn superfluous() -> Vec<(&'static str, &'static str, &'static [u8])> {
    vec![
        ("GET", "Content-Length: 2", b"{}"),
        ("GET", "Content-Length: 2\r\nContent-Type: application/json", b"{}"),
        ("GET", "Transfer-Encoding: chunked", b"0\r\n\r\n"),
        ("GET", "Transfer-Encoding: chunked", b"2\r\n{}\r\n3\r\nabc\r\n0\r\n\r\n"),
        ("GET", "Content-Length: 0", b""),
        ("HEAD", "Content-Length: 2", b"{}"),
        ("GET", "Content-Length: 50", b"GET /hidden HTTP/1.1\r\nHost: chat.example.org\r\n\r\n  "),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_body_of_a_read_is_left_behind() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("matrix").await.start();
    let mut connection = gate.connect().await;
    let path = "/_synapse/admin/v1/rooms";
    for (method, fields, body) in superfluous() {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: hs\r\nAuthorization: Bearer t\r\n{fields}\r\n\r\n");
        connection.send(head.as_bytes()).await;
        connection.send(body).await;
        assert_eq!(connection.answer(method).await.status, 200, "{fields}");
        let request = upstream.newest();
        assert_eq!((request.target(), request.body.len()), (path, 0), "{fields}");
        for name in ["content-length", "transfer-encoding", "expect"] {
            assert_eq!(request.header(name), None, "{fields}: {}", request.head);
        }
        // What stood in the body is no request, and the connection goes on.
        assert_eq!(connection.get("/_matrix/client/v3/joined_rooms", &token()).await.status, 200, "{fields}");
    }
    assert_eq!(upstream.requests().len(), superfluous().len() * 2);
    assert!(gate.records_of("decision").iter().all(|record| record["decision"] == "permit"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_to_be_asked_for_such_a_body_is_asked() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("matrix").await.start();
    let mut connection = gate.connect().await;
    let head = "GET /_synapse/admin/v1/rooms HTTP/1.1\r\nHost: hs\r\nAuthorization: Bearer t\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    connection.send(head.as_bytes()).await;
    assert_eq!(connection.head().await.status, 100);
    connection.send(b"{}").await;
    assert_eq!(connection.answer("GET").await.status, 200);
    assert_eq!(upstream.newest().header("expect"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_a_read_has_the_bound_of_any_body_that_is_read_first() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("matrix").await.with(|config| config.limits.inspected_body = 100 * 1024).start();
    // More than the engine would keep, and left out all the same.
    let large = vec![b'x'; 90 * 1024];
    let answer = gate.connect().await.request("GET", "/_synapse/admin/v1/rooms", &token(), &large).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(upstream.newest().body.len(), 0);
    let larger = vec![b'x'; 110 * 1024];
    let answer = gate.connect().await.request("GET", "/_synapse/admin/v1/rooms", &token(), &larger).await;
    assert_refused(&gate, &answer, 413, "body_too_large", "announced");
    let mut connection = gate.connect().await;
    let head =
        "GET /_synapse/admin/v1/rooms HTTP/1.1\r\nHost: hs\r\nAuthorization: Bearer t\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.send(format!("{head}{:x}\r\n", larger.len()).as_bytes()).await;
    connection.send(&larger).await;
    let answer = connection.answer("GET").await;
    assert_refused(&gate, &answer, 413, "body_too_large", "not announced");
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_read_with_a_body_is_judged_as_one_without() {
    let gate = Gate::rocketchat().await;
    let target = format!("/api/v1/rooms.roles?rid={}", rolegate::demo::world::workspace::BOARDROOM);
    let mut connection = gate.connect().await;
    let hidden = b"GET /hidden HTTP/1.1\r\nHost: chat\r\n\r\n";
    for (who, status) in [("carol", 200), ("eve", 403), ("carol", 200)] {
        assert_eq!(connection.request("GET", &target, &login(who), hidden).await.status, status, "{who}");
    }
    assert_eq!(connection.request("GET", &target, &[], hidden).await.status, 401);
    assert_eq!(gate.sample.count("/hidden"), 0);
    let watched = GateBuilder::rocketchat().await.upstream(|upstream| upstream.mode = rolegate::model::Mode::Observe).start();
    let answer = watched.connect().await.request("GET", &target, &login("carol"), hidden).await;
    assert_eq!((answer.status, &watched.last_decision()["decision"]), (200, &"permit".into()));
}
