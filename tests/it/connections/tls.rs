//! TLS on both sides.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::{Client, ClientBuilder, Version};
use rolegate::demo::world::workspace::{BOARDROOM, CAROL};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::drain::until_refused;
use crate::support::authority::LAST_YEAR;
use crate::support::gate::login;
use crate::support::{Authority, Gate, GateBuilder, PATIENCE, Upstream, until};
use crate::wire::recorder::Recorder;

pub const NAME: &str = "chat.example.org";

/// A gate that listens with a certificate for [`NAME`]; the files that the certificate is read from beside it.
async fn listening(authority: &Authority) -> (Gate, (PathBuf, PathBuf)) {
    let builder = GateBuilder::rocketchat().await;
    let files = (builder.folder.path().join("cert.pem"), builder.folder.path().join("key.pem"));
    authority.place(NAME, &files);
    let used = files.clone();
    (builder.with(|config| config.listen.tls = Some(used)).start(), files)
}

/// A client that trusts `authority` and nobody else.
pub fn trusting(authority: &Authority, gate: &Gate) -> ClientBuilder {
    let root = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    Client::builder().no_proxy().timeout(PATIENCE).tls_certs_only([root]).resolve(NAME, gate.address())
}

async fn get(client: &Client, gate: &Gate, target: &str, name: &str) -> reqwest::Result<reqwest::Response> {
    let url = format!("https://{NAME}:{}{target}", gate.address().port());
    let request = login(name).into_iter().fold(client.get(url), |request, (name, value)| request.header(name, value));
    request.send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_are_the_same_over_http_1_1_and_h2() {
    let authority = Authority::new("ours");
    let (gate, _) = listening(&authority).await;
    let clients = [
        (trusting(&authority, &gate).build().unwrap(), Version::HTTP_2),
        (trusting(&authority, &gate).http1_only().build().unwrap(), Version::HTTP_11),
    ];
    let target = format!("/api/v1/rooms.roles?rid={BOARDROOM}");
    for (round, (client, version)) in clients.iter().enumerate() {
        let permitted = get(client, &gate, &target, "carol").await.unwrap();
        assert_eq!((permitted.status().as_u16(), permitted.version()), (200, *version));
        assert_eq!(permitted.headers()["x-request-id"], gate.last_decision()["id"].as_str().unwrap());
        let seen = gate.sample.seen().into_iter().rfind(|seen| seen.path == "/api/v1/rooms.roles").unwrap();
        assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
        assert_eq!(seen.header("x-request-id"), gate.last_decision()["id"].as_str());
        assert_eq!(permitted.json::<serde_json::Value>().await.unwrap()["success"], true);

        let refused = get(client, &gate, &target, "eve").await.unwrap();
        assert_eq!((refused.status().as_u16(), refused.version()), (403, *version));
        let record = gate.last_decision();
        let words =
            r#"{"success":false,"error":"User does not have the permissions required for this action [error-unauthorized]"}"#;
        let length = words.len().to_string();
        for (name, value) in [
            ("content-type", "application/json"),
            ("cache-control", "no-store"),
            ("content-length", &length),
            ("x-request-id", record["id"].as_str().unwrap()),
        ] {
            assert_eq!(refused.headers()[name], value);
        }
        assert_eq!(refused.text().await.unwrap(), words);
        assert_eq!(gate.sample.count("/api/v1/rooms.roles"), round + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_over_h2_and_hosts_are_told_apart_by_authority() {
    let authority = Authority::new("ours");
    let (gate, _) = listening(&authority).await;
    let client = trusting(&authority, &gate).build().unwrap();
    let url = |path: &str| format!("https://{NAME}:{}{path}", gate.address().port());
    let told = client.post(url("/upload")).body(vec![7; 3_000_000]).send().await.unwrap();
    assert_eq!(told.json::<serde_json::Value>().await.unwrap()["bytes"], 3_000_000);
    let body = client.get(url("/download?bytes=3000000&chunked=1")).send().await.unwrap().bytes().await.unwrap();
    assert!(body.len() == 3_000_000 && body.iter().enumerate().all(|(index, byte)| usize::from(*byte) == index % 251));
    let told = client.get(url("/echo")).send().await.unwrap().json::<serde_json::Value>().await.unwrap();
    let host = format!("{NAME}:{}", gate.address().port());
    let hosts: Vec<_> = told["headers"].as_array().unwrap().iter().filter(|field| field[0] == "host").collect();
    assert_eq!(hosts, [&json!(["host", host])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_over_h2_is_finished_before_the_end() {
    let authority = Authority::new("ours");
    let (mut gate, _) = listening(&authority).await;
    let client = trusting(&authority, &gate).build().unwrap();
    let (url, address) = (format!("https://{NAME}:{}/slow", gate.address().port()), gate.address());
    let hold = gate.sample.hold("/slow");
    let asked = tokio::spawn(async move { client.get(url).send().await.unwrap().text().await.unwrap() });
    hold.until_waiting(1).await;
    let release = async {
        until_refused(address).await;
        hold.release();
    };
    let (finished, ()) = tokio::join!(gate.stop(), release);
    assert!(finished);
    assert_eq!(asked.await.unwrap(), "slow");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_h2_connection_is_gone_has_its_outcome_before_the_end() {
    const ROLES: &str = "/api/v1/rooms.roles";
    let authority = Authority::new("ours");
    let (mut gate, _) = listening(&authority).await;
    let client = trusting(&authority, &gate).build().unwrap();
    let url = format!("https://{NAME}:{}{ROLES}?rid={BOARDROOM}", gate.address().port());
    let request = login("carol").into_iter().fold(client.get(url), |request, (name, value)| request.header(name, value));
    let hold = gate.sample.hold(ROLES);
    let asked = tokio::spawn(async move { request.send().await });
    hold.until_waiting(1).await;
    asked.abort();
    drop(client);
    let shared = gate.shared();
    until("the connection to end", || (shared.open.load(Ordering::Acquire) == 0).then_some(())).await;
    let (finished, ()) = tokio::join!(gate.stop(), async { hold.release() });
    assert!(finished);
    assert_eq!(gate.records_of("decision").len(), 1);
    assert_eq!(gate.records_of("outcome").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_h2_client_that_is_asleep_does_not_hold_up_the_end_and_one_that_is_awake_is_waited_for() {
    let authority = Authority::new("ours");
    let (mut gate, _) = listening(&authority).await;
    let tcp = TcpStream::connect(gate.address()).await.unwrap();
    let mut asleep = authority.connector(b"h2").connect(NAME.try_into().unwrap(), tcp).await.unwrap();
    // The preface and empty settings; whatever is said to it then stays without an answer.
    asleep.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut settings = [0; 9];
    asleep.read_exact(&mut settings).await.unwrap();
    let client = trusting(&authority, &gate).build().unwrap();
    let (url, open) = (format!("https://{NAME}:{}/slow", gate.address().port()), gate.shared());
    let hold = gate.sample.hold("/slow");
    let asked = tokio::spawn(async move { client.get(url).send().await.unwrap().text().await.unwrap() });
    hold.until_waiting(1).await;
    let stopping = tokio::spawn(async move { (gate.stop().await, gate) });
    until("the sleeper to be let go", || (open.open.load(Ordering::Acquire) == 1).then_some(())).await;
    assert!(!stopping.is_finished(), "it waits for the request of the other");
    hold.release();
    assert_eq!(asked.await.unwrap(), "slow");
    assert!(stopping.await.unwrap().0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_h2_client_whose_first_bytes_are_on_their_way_at_the_end_is_answered() {
    let authority = Authority::new("ours");
    let (mut gate, _) = listening(&authority).await;
    let tcp = TcpStream::connect(gate.address()).await.unwrap();
    let mut late = authority.connector(b"h2").connect(NAME.try_into().unwrap(), tcp).await.unwrap();
    let shared = gate.shared();
    let stopping = tokio::spawn(async move { gate.stop().await });
    until("the end to begin", || shared.draining().then_some(())).await;
    late.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut head = [0; 9];
    late.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "its settings");
    drop(late);
    assert!(stopping.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_bytes_and_strangers_are_turned_away_and_counted() {
    let authority = Authority::new("ours");
    let (gate, _) = listening(&authority).await;
    let mut plain = gate.connect().await;
    plain.send(b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n").await;
    gate.until_metric(r#"rolegate_rejected_total{cause="tls"}"#, 1.0).await;
    let other = trusting(&Authority::new("theirs"), &gate).build().unwrap();
    get(&other, &gate, "/echo", "eve").await.unwrap_err();
    gate.until_metric(r#"rolegate_rejected_total{cause="tls"}"#, 2.0).await;
    assert!(gate.sample.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_replaced_on_disk_is_used_for_new_handshakes_and_open_connections_live_on() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (gate, files) = listening(&old).await;
    let expiry = jiff::civil::date(LAST_YEAR.try_into().unwrap(), 1, 1).to_zoned(jiff::tz::TimeZone::UTC).unwrap();
    #[expect(clippy::cast_precision_loss, reason = "a float holds these seconds")]
    let expiry = expiry.timestamp().as_second() as f64;
    assert_eq!(gate.metric(r#"rolegate_certificate_expiry_timestamp_seconds"#).await, expiry);
    let client = trusting(&old, &gate).build().unwrap();
    assert_eq!(get(&client, &gate, "/echo", "eve").await.unwrap().status(), 200);
    new.place(NAME, &files);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    // A client of its own each time: a pooled connection would keep the old certificate.
    while get(&trusting(&new, &gate).build().unwrap(), &gate, "/echo", "eve").await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the new certificate is not used");
    }
    get(&trusting(&old, &gate).build().unwrap(), &gate, "/echo", "eve").await.unwrap_err();
    assert_eq!(get(&client, &gate, "/echo", "eve").await.unwrap().status(), 200, "the connection from before");
}

/// A gate whose upstream is reached over TLS as `chat.internal`, with the authority and the name that it is told to expect.
async fn before_tls(trusted: Option<&Authority>, expected: &str, actual: &Authority) -> (Gate, Upstream) {
    let builder = GateBuilder::rocketchat().await;
    let front = Upstream::tls(actual.acceptor("chat.internal"), builder.sample.address()).await;
    let ca = trusted.map(|authority| authority.write(builder.folder.path(), "ca.pem"));
    let gate = builder.upstream(|upstream| {
        upstream.url = format!("https://{}", front.address).parse().unwrap();
        upstream.ca = ca;
        upstream.server_name = Some(expected.to_owned());
    });
    (gate.start(), front)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_over_tls_is_reached_when_its_certificate_is_the_expected_one() {
    let authority = Authority::new("ours");
    let (gate, _front) = before_tls(Some(&authority), "chat.internal", &authority).await;
    assert_eq!(gate.get("/echo", &[]).await.status, 200);
    let answer = gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login("carol")).await;
    assert_eq!(answer.status, 200, "lookups go the same way");
    assert_eq!(gate.admin_get("/status").await.json()["fast_path"]["served"], 2, "and so does the fast path");
}

/// A gate whose upstream is reached over TLS, notes what comes and answers so; lookups are answered by the sample.
async fn recording(answer: &'static str) -> (Gate, Recorder, Upstream) {
    let authority = Authority::new("ours");
    let builder = GateBuilder::rocketchat().await;
    let recorder = Recorder::before(builder.sample.address(), answer).await;
    let front = Upstream::tls(authority.acceptor("chat.internal"), recorder.address).await;
    let ca = authority.write(builder.folder.path(), "ca.pem");
    let gate = builder.upstream(|upstream| {
        upstream.url = format!("https://{}", front.address).parse().unwrap();
        (upstream.ca, upstream.server_name) = (Some(ca), Some("chat.internal".to_owned()));
    });
    (gate.start(), recorder, front)
}

/// Targets that the proxy engine does not take.
const ODD: [&str; 4] = ["/avatar/a`b`", "/open?query={\"x\":1}", "/<a>\"b\"`?c=<\"`>", "/api/v1/users.list?query={\"a\":\"<\"}"];

#[tokio::test(flavor = "multi_thread")]
async fn every_target_is_sent_over_tls_as_it_came() {
    let (gate, upstream, _front) = recording("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let mut connection = gate.connect().await;
    for target in ODD {
        for (method, body) in [("GET", ""), ("HEAD", ""), ("POST", "hello")] {
            let answer = connection.request(method, target, &login("carol"), body.as_bytes()).await;
            assert_eq!(answer.status, 200, "{method} {target}");
            let seen = upstream.seen().pop().unwrap();
            assert_eq!(String::from_utf8_lossy(seen.line()), format!("{method} {target} HTTP/1.1"));
            assert_eq!(seen.body, body.as_bytes(), "{method} {target}");
        }
    }
    let judged = format!("/api/v1/users.info?userId={CAROL}&fields={{\"userRooms\":1}}");
    assert_eq!(connection.get(&judged, &login("carol")).await.status, 200);
    assert_eq!(gate.last_decision()["decision"], "permit");
    assert_eq!(upstream.seen().len(), ODD.len() * 3 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_with_such_a_target_is_opened_over_tls() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (gate, upstream, _front) = recording(switch).await;
    for target in ODD {
        let arrived = upstream.seen().len();
        let mut connection = gate.connect().await;
        let fields =
            ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="];
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", fields.join("\r\n")).as_bytes()).await;
        assert_eq!(connection.head().await.status, 101, "{target}");
        // What goes through the tunnel looks like a head to this upstream, and is answered like one.
        connection.send(b"through\r\n\r\n").await;
        assert_eq!(connection.head().await.status, 101, "{target}");
        let seen = upstream.seen().split_off(arrived);
        let lines: Vec<_> = seen.iter().map(|seen| String::from_utf8_lossy(seen.line())).collect();
        assert_eq!(lines, [format!("GET {target} HTTP/1.1"), "through".to_owned()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_with_another_name_or_from_an_unknown_authority_is_not_spoken_to() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    for (trusted, expected, actual) in
        [(Some(&ours), "chat.example.org", &ours), (Some(&ours), "chat.internal", &theirs), (None, "chat.internal", &ours)]
    {
        let (gate, _front) = before_tls(trusted, expected, actual).await;
        let answer = gate.get("/echo", &login("carol")).await;
        let words = json!({
            "success": false,
            "error": "Service unavailable [error-service-unavailable]",
            "errorType": "error-service-unavailable",
        });
        assert_eq!((answer.status, answer.json()), (502, words.clone()), "{expected}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(gate.metric(r#"rolegate_upstream_errors_total{kind="connect",provider="rocketchat"}"#).await, 1.0);
        let guarded = gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login("carol")).await;
        assert_eq!((guarded.status, guarded.json()), (503, words), "nobody is looked up there either");
        assert_eq!(gate.last_decision()["reason"], "facts_unavailable");
        assert!(gate.sample.seen().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_chose_h2_and_says_nothing_is_let_go_at_the_deadline() {
    let authority = Authority::new("ours");
    let builder = GateBuilder::rocketchat().await;
    let files = (builder.folder.path().join("cert.pem"), builder.folder.path().join("key.pem"));
    authority.place(NAME, &files);
    let gate =
        builder.with(|config| (config.listen.tls, config.limits.header_deadline) = (Some(files), Duration::from_millis(300)));
    let gate = gate.start();
    let tcp = tokio::net::TcpStream::connect(gate.address()).await.unwrap();
    let mut silent = authority.connector(b"h2").connect(NAME.try_into().unwrap(), tcp).await.unwrap();
    let closed = tokio::time::timeout(PATIENCE, silent.read(&mut [0; 1])).await.expect("still open");
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    gate.until_metric(r#"rolegate_rejected_total{cause="header_deadline"}"#, 1.0).await;
    gate.until_metric("rolegate_connections", 0.0).await;
}
