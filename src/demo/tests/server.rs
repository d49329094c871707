//! Counting, behaving and stopping.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::Behaviour;
use super::*;

#[tokio::test]
async fn whatever_arrives_is_seen_in_order_with_its_headers() {
    let sample = Sample::rocketchat().await.unwrap();
    get(&sample, "/api/v1/nothing?x=1", &["x-mark: one"]).await;
    get(&sample, "/api/v1/users%2einfo", &[]).await;
    get(&sample, "http://elsewhere.example/api/v1/users.info?a=b", &[]).await;
    let seen = sample.seen();
    let targets: Vec<&str> = seen.iter().map(|seen| seen.target.as_str()).collect();
    assert_eq!(targets, ["/api/v1/nothing?x=1", "/api/v1/users%2einfo", "http://elsewhere.example/api/v1/users.info?a=b"]);
    assert_eq!(seen[0].header("x-mark"), Some("one"));
    assert!(seen[0].when <= seen[2].when);
    assert_eq!((sample.count("/api/v1/users.info"), sample.count("/api/v1/me")), (2, 0));
    sample.forget();
    assert!(sample.seen().is_empty());
}

#[tokio::test]
async fn a_scripted_answer_replaces_the_real_one_until_calm() {
    let sample = Sample::rocketchat().await.unwrap();
    sample.behave("/api/v1/me", Behaviour::json(503, r#"{"success":false}"#));
    let answer = as_person(&sample, "bob", "/api/v1/me").await;
    assert_eq!((answer.status, answer.text()), (503, r#"{"success":false}"#));
    assert_eq!(as_person(&sample, "bob", "/api/v1/roles.list").await.status, 200, "other paths are not concerned");
    sample.calm();
    assert_eq!(as_person(&sample, "bob", "/api/v1/me").await.status, 200);
    assert_eq!(sample.count("/api/v1/me"), 2);
}

#[tokio::test]
async fn held_requests_wait_together_and_leave_together() {
    let sample = Arc::new(Sample::rocketchat().await.unwrap());
    let hold = sample.hold("/api/v1/me");
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let sample = Arc::clone(&sample);
            tokio::spawn(async move { as_person(&sample, "bob", "/api/v1/me").await.status })
        })
        .collect();
    soon(hold.until_waiting(3)).await;
    assert!(waiting.iter().all(|task| !task.is_finished()));
    hold.release();
    for task in waiting {
        assert_eq!(soon(task).await.unwrap(), 200);
    }
    assert_eq!(hold.waiting(), 0);
    assert_eq!(as_person(&sample, "bob", "/api/v1/me").await.status, 200, "whoever comes later is not held");
}

#[tokio::test]
async fn a_closed_connection_gives_no_answer_at_all() {
    let sample = Sample::rocketchat().await.unwrap();
    sample.behave("/api/v1/me", Behaviour::Close);
    assert!(send(&sample, "GET /api/v1/me", &[], "").await.is_none());
    assert_eq!(sample.count("/api/v1/me"), 1);
}

#[tokio::test]
async fn a_call_runs_when_the_request_arrives_and_the_answer_is_normal() {
    let sample = Sample::rocketchat().await.unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    sample.behave(
        "/",
        Behaviour::call(move |seen| {
            assert_eq!(seen.method, "GET");
            counted.fetch_add(1, Ordering::SeqCst);
        }),
    );
    assert_eq!(get(&sample, "/", &[]).await.status, 200);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn hanging_up_ends_idle_connections_and_the_next_one_is_served() {
    let sample = Sample::rocketchat().await.unwrap();
    let mut idle = TcpStream::connect(sample.address()).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut buffer = [0; 4096];
    assert!(soon(idle.read(&mut buffer)).await.unwrap() > 0);
    sample.hang_up();
    assert_eq!(soon(idle.read(&mut buffer)).await.unwrap_or(0), 0);
    assert_eq!(get(&sample, "/", &[]).await.status, 200);
    assert_eq!(sample.connections(), 2);
}

#[tokio::test]
async fn a_dropped_server_stops_listening_and_ends_what_is_open() {
    let sample = Sample::docusign().await.unwrap();
    let address = sample.address();
    let _hold = sample.hold("/oauth/userinfo");
    let mut open = TcpStream::connect(address).await.unwrap();
    open.write_all(b"GET /oauth/userinfo HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    soon(sample.until_seen("/oauth/userinfo", 1)).await;
    drop(sample);
    assert_eq!(soon(open.read(&mut [0; 16])).await.unwrap_or(0), 0);
    soon(async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
