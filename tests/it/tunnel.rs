//! The door in a body: a method call is judged by the method that will run, whatever the path says.

use std::net::SocketAddr;

use rolegate::demo::world::workspace::{BOARDROOM, TOWN_SQUARE};
use rolegate::rules::Then;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::gate::{GateBuilder, login};
use crate::support::{Answer, Gate};

/// The body that calls `method` with `params`.
fn call(method: &str, params: Value) -> String {
    let message = json!({ "msg": "method", "id": "42", "method": method, "params": params });
    json!({ "message": message.to_string() }).to_string()
}

async fn post(gate: &Gate, path: &str, who: &str, kind: &str, body: &str) -> Answer {
    let mut headers = login(who);
    headers.push(("Content-Type", kind.into()));
    gate.connect().await.request("POST", path, &headers, body.as_bytes()).await
}

/// What the method answered.
fn result(answer: &Answer) -> Value {
    let message = answer.json()["message"].as_str().map(ToOwned::to_owned);
    serde_json::from_str(&message.unwrap_or_else(|| panic!("{}", answer.text()))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_harmless_path_does_not_hide_the_method_in_the_body() {
    let gate = Gate::rocketchat().await;
    for path in ["/api/v1/method.call/harmless", "/api/v1/method.callAnon/rooms%3Aget", "/api/v1/method.call/a%2Fb"] {
        for method in ["getUsersOfRoom", "getRoomRoles"] {
            let answer = post(&gate, path, "eve", "application/json", &call(method, json!([BOARDROOM]))).await;
            assert_eq!(answer.status, 403, "{path} {method}");
            assert_eq!(
                answer.text(),
                r#"{"message":"{\"msg\":\"result\",\"id\":\"42\",\"error\":{\"isClientSafe\":true,\"error\":\"error-not-allowed\",\"reason\":\"Not allowed\",\"message\":\"Not allowed [error-not-allowed]\",\"errorType\":\"Meteor.Error\"}}","success":false}"#
            );
            let record = gate.last_decision();
            assert_eq!((&record["door"], &record["reason"]), (&json!("method_call"), &json!("policy_denied")));
            assert_eq!(record["resource"]["id"], BOARDROOM);
        }
        assert_eq!(gate.sample.count(&path.replace("%3A", ":")), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permitted_call_is_sent_on_in_one_spelling_by_the_name_that_runs() {
    let gate = Gate::rocketchat().await;
    let spaced = format!(
        r#"{{ "message" : "{{ \"id\":\"42\", \"msg\":\"method\", \"params\":[ \"{BOARDROOM}\" ], \"method\":\"getRoomRoles\" }}" }}"#
    );
    let answer = post(&gate, "/api/v1/method.call/harmless", "carol", "application/json", &spaced).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(result(&answer)["result"][0]["u"]["username"], "bob");
    let seen = gate.sample.seen().into_iter().find(|seen| seen.method == "POST").unwrap();
    assert_eq!(seen.target, "/api/v1/method.call/getRoomRoles");
    let expected = call("getRoomRoles", json!([BOARDROOM]));
    assert_eq!(seen.header("content-length"), Some(expected.len().to_string().as_str()));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(gate.last_decision()["policies"], json!(["rooms-roles-member"]));
    let form = format!("message={}", spaced_form("getUsersOfRoom", TOWN_SQUARE));
    let answer = post(&gate, "/api/v1/method.call/x", "eve", "application/x-www-form-urlencoded", &form).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(gate.last_decision()["policies"], json!(["rooms-members-public"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_an_id_or_with_a_number_is_judged_and_answered_as_the_server_does() {
    let gate = Gate::rocketchat().await;
    let error = r#"\"error\":{\"isClientSafe\":true,\"error\":\"error-not-allowed\",\"reason\":\"Not allowed\",\"message\":\"Not allowed [error-not-allowed]\",\"errorType\":\"Meteor.Error\"}"#;
    for (id, told) in [("", ""), ("\"id\":7,", r#"\"id\":7,"#)] {
        let message = format!(r#"{{"msg":"method",{id}"method":"getRoomRoles","params":["{BOARDROOM}"]}}"#);
        let body = json!({ "message": message }).to_string();
        let answer = post(&gate, "/api/v1/method.call/getRoomRoles", "eve", "application/json", &body).await;
        let expected = format!(r#"{{"message":"{{\"msg\":\"result\",{told}{error}}}","success":false}}"#);
        assert_eq!((answer.status, answer.text()), (403, expected), "{message}");
        assert_eq!(gate.last_decision()["reason"], "policy_denied");
        let arrived = || gate.sample.seen().iter().filter(|seen| seen.method == "POST").count();
        let before = arrived();
        let answer = post(&gate, "/api/v1/method.call/getRoomRoles", "carol", "application/json", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(arrived(), before + 1, "{message}");
        let seen = gate.sample.seen().into_iter().rfind(|seen| seen.method == "POST").unwrap();
        assert_eq!(seen.header("content-length"), Some(body.len().to_string().as_str()), "sent on as it was read");
    }
}

fn spaced_form(method: &str, room: &str) -> String {
    rolegate::rules::target::encode(&json!({ "msg": "method", "id": "1", "method": method, "params": [room] }).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_verdict_serves_both_doors_of_an_action() {
    let gate = Gate::rocketchat().await;
    for who in ["alice", "bob", "carol", "eve", "gus"] {
        for room in [BOARDROOM, TOWN_SQUARE, "no-such-room"] {
            gate.get(&format!("/api/v1/rooms.roles?rid={room}"), &login(who)).await;
            let rest = gate.last_decision();
            post(&gate, "/api/v1/method.call/getRoomRoles", who, "application/json", &call("getRoomRoles", json!([room]))).await;
            let method = gate.last_decision();
            for key in ["decision", "reason", "policies", "action", "resource", "context"] {
                assert_eq!(rest[key], method[key], "{who} {room} {key}");
            }
            assert_eq!((&rest["door"], &method["door"]), (&json!("rest"), &json!("method_call")));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_with_more_than_one_reading_is_refused() {
    let gate = Gate::rocketchat().await;
    let good = call("getRoomRoles", json!([BOARDROOM]));
    let twice = good.replace(r#"{"message""#, r#"{"message":"{}","message""#);
    let named_twice = good.replace(r#"\"method\":\"getRoomRoles\""#, r#"\"method\":\"harmless\",\"method\":\"getRoomRoles\""#);
    for (kind, body, reason) in [
        ("application/json", twice.as_str(), "param_invalid"),
        ("application/json", &named_twice, "param_invalid"),
        ("text/plain", &good, "param_invalid"),
        ("application/json; charset=utf-16", &good, "param_invalid"),
        ("application/json", "{", "param_invalid"),
        ("application/json", &call("getRoomRoles", json!([])), "param_missing"),
        ("application/json", &call("getRoomRoles", json!([{ "$ne": 1 }])), "param_repeated"),
        ("application/json", &call("getRoomRoles", json!([BOARDROOM, "more"])), "param_unknown"),
    ] {
        let answer = post(&gate, "/api/v1/method.call/getRoomRoles", "carol", kind, body).await;
        assert_eq!(answer.status, 400, "{kind} {body}");
        assert_eq!(result(&answer)["error"]["error"], "invalid-params");
        assert_eq!(gate.last_decision()["reason"], reason, "{kind} {body}");
    }
    assert!(gate.sample.seen().iter().all(|seen| seen.method == "GET"), "only lookups arrived");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undeclared_method_goes_on_as_received_or_not_at_all() {
    let open = Gate::rocketchat().await;
    let body = format!("{} ", call("rooms/get", json!([])));
    let answer = post(&open, "/api/v1/method.call/rooms%3Aget", "eve", "application/json", &body).await;
    let seen = open.sample.seen().into_iter().find(|seen| seen.method == "POST").unwrap();
    assert_eq!(seen.target, "/api/v1/method.call/rooms%3Aget");
    assert_eq!(seen.header("content-length"), Some(body.len().to_string().as_str()), "not a byte is changed");
    assert_ne!(answer.status, 403);
    assert!(open.records_of("decision").is_empty());
    let closed = GateBuilder::rocketchat().await.upstream(|upstream| upstream.unlisted_methods = Then::Deny).start();
    let answer = post(&closed, "/api/v1/method.call/rooms%3Aget", "eve", "application/json", &body).await;
    assert_eq!((answer.status, &closed.last_decision()["reason"]), (403, &json!("route_unlisted")));
    assert!(closed.sample.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_inspected_up_to_its_bound_however_it_is_sent() {
    let gate = GateBuilder::rocketchat().await.with(|config| config.limits.inspected_body = 1024).start();
    let large = call("getRoomRoles", json!([BOARDROOM, "x".repeat(2000)]));
    let answer = post(&gate, "/api/v1/method.call/x", "carol", "application/json", &large).await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.json()["errorType"], "error-body-too-large");
    assert_eq!(gate.last_decision()["reason"], "body_too_large");
    let login: String = login("carol").iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = |extra: &str| {
        format!(
            "POST /api/v1/method.call/x HTTP/1.1\r\nHost: {}\r\n{login}Content-Type: application/json\r\n{extra}\r\n\r\n",
            gate.address()
        )
    };
    let mut chunked = gate.connect().await;
    chunked.send(format!("{}{:x}\r\n{large}\r\n0\r\n\r\n", head("Transfer-Encoding: chunked"), large.len()).as_bytes()).await;
    assert_eq!(chunked.answer("POST").await.status, 413);
    let small = call("getRoomRoles", json!([BOARDROOM]));
    let mut chunked = gate.connect().await;
    let (first, second) = small.split_at(10);
    let body = format!("a\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", second.len());
    chunked.send(format!("{}{body}", head("Transfer-Encoding: chunked")).as_bytes()).await;
    assert_eq!(chunked.answer("POST").await.status, 200);
    let mut waiting = gate.connect().await;
    waiting.send(head(&format!("Expect: 100-continue\r\nContent-Length: {}", small.len())).as_bytes()).await;
    assert_eq!(waiting.head().await.status, 100, "the client is asked for its body");
    waiting.send(small.as_bytes()).await;
    assert_eq!(waiting.answer("POST").await.status, 200);
    assert_eq!(gate.sample.seen().iter().filter(|seen| seen.method == "POST").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_method_needs_a_login_also_where_anybody_may_call() {
    let gate = Gate::rocketchat().await;
    let headers = [("Content-Type", "application/json".to_owned())];
    let body = call("getRoomRoles", json!([TOWN_SQUARE]));
    let answer = gate.connect().await.request("POST", "/api/v1/method.callAnon/getRoomRoles", &headers, body.as_bytes()).await;
    assert_eq!(answer.text(), r#"{"status":"error","message":"You must be logged in to do this."}"#);
    assert_eq!(gate.last_decision()["reason"], "credential_missing");
    let answer = gate.get("/api/v1/method.call/getRoomRoles", &login("carol")).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert!(gate.sample.seen().is_empty());
}

/// Passes connections on to `sample` one request at a time, but resets each kept one on which a second method call comes in:
/// the upstream was about to close it.
async fn fickle(sample: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        loop {
            let (mut outer, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut inner = TcpStream::connect(sample).await.unwrap();
                let (mut calls, mut received) = (0, vec![0; 64 * 1024]);
                let mut answered = vec![0; 64 * 1024];
                loop {
                    tokio::select! {
                        read = outer.read(&mut received) => {
                            let Ok(count @ 1..) = read else { return };
                            calls += usize::from(received[..count].starts_with(b"POST /api/v1/method.call"));
                            if calls == 2 {
                                // Without a farewell, so that the reset reaches whoever writes or reads.
                                outer.set_zero_linger().unwrap();
                                return;
                            }
                            inner.write_all(&received[..count]).await.unwrap();
                        }
                        read = inner.read(&mut answered) => {
                            let Ok(count @ 1..) = read else { return };
                            outer.write_all(&answered[..count]).await.unwrap();
                        }
                    }
                }
            });
        }
    });
    (address, accepting)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_survives_an_upstream_that_resets_a_kept_connection_while_the_call_is_sent() {
    let builder = GateBuilder::rocketchat().await;
    let sample = builder.sample.url().trim_start_matches("http://").parse().unwrap();
    let (address, accepting) = fickle(sample).await;
    let gate = builder.upstream(|upstream| upstream.url = format!("http://{address}").parse().unwrap()).start();
    let body = call("getRoomRoles", json!([BOARDROOM]));
    for _ in 0..5 {
        let answer = post(&gate, "/api/v1/method.call/getRoomRoles", "carol", "application/json", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // Two kept connections at once, both about to be closed.
    let hold = gate.sample.hold("/api/v1/method.call/getRoomRoles");
    let one = || post(&gate, "/api/v1/method.call/getRoomRoles", "carol", "application/json", &body);
    let release = async {
        hold.until_waiting(2).await;
        hold.release();
    };
    let (first, second, ()) = tokio::join!(one(), one(), release);
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(one().await.status, 200, "the next try has a connection of its own");
    let calls = gate.sample.seen().iter().filter(|seen| seen.method == "POST").count();
    assert_eq!(calls, 8, "none came twice");
    accepting.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_survives_an_upstream_that_closed_its_kept_connections() {
    let gate = Gate::rocketchat().await;
    let body = call("getRoomRoles", json!([BOARDROOM]));
    for _ in 0..3 {
        let answer = post(&gate, "/api/v1/method.call/getRoomRoles", "carol", "application/json", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        gate.sample.hang_up();
    }
}
