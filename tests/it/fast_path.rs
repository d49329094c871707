//! The fast path beside the general one: the same bytes lead to the same verdict, record, upstream request and answer.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rolegate::demo::world::workspace::{BOARDROOM, CAROL, TOWN_SQUARE};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connections::drain::until_refused;
use crate::support::gate::{GateBuilder, bearer, login};
use crate::support::scripted::Scripted;
use crate::support::{Answer, Connection, Gate, PATIENCE, until};

const ROLES: &str = "/api/v1/rooms.roles";

async fn gate(fast: bool) -> Gate {
    GateBuilder::rocketchat().await.with(|config| config.listen.fast_path = fast).start()
}

/// How many requests the fast path of `gate` answered.
async fn served(gate: &Gate) -> u64 {
    gate.admin_get("/status").await.json()["fast_path"]["served"].as_u64().unwrap()
}

/// What both paths must agree on in an answer: all but the id, the date and how the connection goes on.
fn lasting(answer: &Answer) -> (u16, BTreeMap<String, Vec<String>>, String) {
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in &answer.headers {
        if !["connection", "date", "x-request-id", "keep-alive"].contains(&name.as_str()) {
            headers.entry(name.clone()).or_default().push(value.clone());
        }
    }
    let id = answer.header("x-request-id").unwrap_or("-");
    (answer.status, headers, String::from_utf8_lossy(&answer.body).replace(id, "ID"))
}

/// A record without what differs from one request to the next.
fn steady(mut record: Value) -> Value {
    for key in ["seq", "time", "id", "prev", "policy_revision", "duration_us"] {
        if let Some(fields) = record.as_object_mut() {
            fields.remove(key);
        }
    }
    if let Some(facts) = record["facts"].as_object_mut() {
        facts.values_mut().for_each(|fact| fact["age_ms"] = json!(0));
    }
    record
}

/// The requests that reached the sample, lookups apart, without what differs from one to the next.
fn arrived(gate: &Gate) -> Vec<(String, String, BTreeMap<String, String>)> {
    let upstream = gate.sample.url().trim_start_matches("http://").to_owned();
    let listens = gate.address().to_string();
    let seen = gate.sample.seen().into_iter().filter(|seen| seen.header("x-request-id").is_some());
    let told = seen.map(|seen| {
        let headers = seen.headers.iter().filter(|(name, _)| !["x-request-id", "connection"].contains(&name.as_str()));
        let headers = headers.map(|(name, value)| {
            let value = value.to_str().unwrap_or("not a text").replace(&listens, "GATE").replace(&upstream, "UPSTREAM");
            (name.as_str().to_owned(), value)
        });
        (seen.method.to_string(), seen.target.clone(), headers.collect())
    });
    told.collect()
}

/// Method, target and fields.
pub type Request = (&'static str, String, Vec<(&'static str, String)>);

/// Requests of every kind.
pub fn requests() -> Vec<Request> {
    let room = format!("{ROLES}?rid={BOARDROOM}");
    let mut requests = Vec::new();
    for who in ["carol", "eve", "alice", "audrey", "bob"] {
        for target in [
            room.clone(),
            format!("{ROLES}?rid={TOWN_SQUARE}"),
            format!("/api/v1/audit/rooms.members?roomId={BOARDROOM}&count=5&filter=a%20b"),
            "/api/v1/roles.getUsersInRole?role=admin".to_owned(),
            format!("/api/v1/users.info?userId={CAROL}&includeUserRooms=true"),
            "/api/v1/users.info?username=nobody".to_owned(),
            format!("{ROLES}?rid=a&rid=b"),
            format!("/api/v1/users.info?userId={CAROL}&fields={{\"userRooms\":1}}"),
            "/api/v1/users.info?username=<bob>`".to_owned(),
            format!("{ROLES}?rid[]=a"),
            ROLES.to_owned(),
            format!("{ROLES}?rid=%zz"),
            format!("{ROLES}?rid=a?b"),
            "/api/v1/users%2einfo?userId=a".to_owned(),
            "/api/v1//users.info?userId=a".to_owned(),
            "/api/v1/me".to_owned(),
            "/api/v1/users.listByStatus".to_owned(),
        ] {
            requests.push(("GET", target, login(who)));
        }
        requests.push(("HEAD", room.clone(), login(who)));
        requests.push(("DELETE", room.clone(), login(who)));
    }
    let with = |name: &'static str, value: &str| {
        let mut fields = login("carol");
        fields.push((name, value.to_owned()));
        fields
    };
    for (name, value) in [
        ("Accept", "application/json"),
        ("Accept-Encoding", "gzip, br"),
        ("Connection", "keep-alive"),
        ("Connection", "close"),
        ("Connection", "keep-alive, x-auth-token"),
        ("Content-Length", "0"),
        ("Cookie", "rc_token=x"),
        ("Expect", "100-continue"),
        ("If-None-Match", "\"x\""),
        ("Origin", "https://client.example"),
        ("Range", "bytes=0-3"),
        ("TE", "trailers"),
        ("Upgrade", "websocket"),
        ("User-Agent", "tel\u{e9}phone"),
        ("X-Auth-Token", "another"),
        ("X_User_Id", "alice"),
        ("X-Forwarded-For", "198.51.100.7"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-Original-URL", "/api/v1/me"),
        ("X-Request-Id", "mine"),
    ] {
        requests.push(("GET", room.clone(), with(name, value)));
    }
    requests.push(("GET", room.clone(), Vec::new()));
    requests.push(("GET", room.clone(), vec![("X-User-Id", CAROL.to_owned())]));
    requests.push(("GET", room.clone(), vec![("X-User-Id", CAROL.to_owned()), ("X-Auth-Token", "gone".to_owned())]));
    requests.push(("GET", room, vec![("Authorization", "Bearer carol-token".to_owned())]));
    requests
}

#[tokio::test(flavor = "multi_thread")]
async fn both_paths_give_the_same_verdict_record_request_and_answer() {
    let (fast, general) = (gate(true).await, gate(false).await);
    let requests = requests();
    for (method, target, fields) in &requests {
        let mut told = Vec::new();
        for gate in [&fast, &general] {
            let before = gate.records_of("decision").len();
            let mut connection = gate.connect().await;
            let answer = connection.request(method, target, fields, b"").await;
            let decisions = gate.records_of("decision").split_off(before);
            let mut outcomes = Vec::new();
            for decision in decisions.iter().filter(|decision| decision["decision"] == "permit") {
                outcomes.push(steady(gate.outcome(&decision["id"]).await));
            }
            let decisions: Vec<Value> = decisions.into_iter().map(steady).collect();
            told.push((lasting(&answer), decisions, outcomes));
        }
        assert_eq!(told[0], told[1], "{method} {target} {fields:?}");
    }
    assert_eq!(arrived(&fast), arrived(&general));
    assert_eq!(served(&general).await, 0);
    let taken = served(&fast).await;
    assert!(taken >= 60, "{taken} of {}", requests.len());
    for series in ["rolegate_decisions_total", "rolegate_requests_total"] {
        let counted = |page: String| {
            let lines = page.lines().filter(|line| line.starts_with(series)).map(ToOwned::to_owned);
            let mut lines: Vec<String> = lines.collect();
            lines.sort();
            lines
        };
        let pages = (fast.admin_get("/metrics").await.text(), general.admin_get("/metrics").await.text());
        assert_eq!(counted(pages.0), counted(pages.1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_judged_comes_through_both_paths_alike() {
    let (fast, general) = (gate(true).await, gate(false).await);
    let targets = [
        "/avatar/carol",
        "/api/v1/me",
        "/api/v1/users.listByStatus?status=a",
        "/api/v1/channels.list?a[]=b",
        "/a//b/../c%2Fd?e=%zz&&",
        "/",
    ];
    let fields = [
        vec![],
        vec![("Accept-Encoding", "gzip, br"), ("Range", "bytes=0-3"), ("If-Range", "\"x\"")],
        vec![("Cookie", "rc_uid=a"), ("Cookie", "rc_token=b"), ("Connection", "keep-alive")],
        vec![("X-Forwarded-For", "198.51.100.7"), ("X_Forwarded_For", "198.51.100.8"), ("x.real.ip", "198.51.100.9")],
        vec![
            ("Forwarded", "for=198.51.100.7"),
            ("X-Forwarded-Host", "other"),
            ("X-Request-Id", "mine"),
            ("traceparent", "as it is"),
        ],
        vec![("User-Agent", "tel\u{e9}phone"), ("X-Odd", "  spaces  within  "), ("X-Empty", "")],
        vec![("X-Original-URL", "/api/v1/users.info?userId=a")],
        vec![("Content_Length", "5")],
    ];
    let mut probe = 0;
    for who in ["carol", "nobody"] {
        for target in targets {
            for fields in &fields {
                probe += 1;
                let mut sent = if who == "nobody" { vec![("X-Auth-Token", "gone".to_owned())] } else { login(who) };
                sent.extend(fields.iter().map(|(name, value)| (*name, (*value).to_owned())));
                sent.push(("X-Probe", probe.to_string()));
                let mut told = Vec::new();
                for gate in [&fast, &general] {
                    told.push(lasting(
                        &gate.connect().await.request(if probe % 5 == 0 { "HEAD" } else { "GET" }, target, &sent, b"").await,
                    ));
                }
                assert_eq!(told[0], told[1], "{target} {sent:?}");
            }
        }
    }
    let passed = |gate: &Gate| {
        let listens = gate.address().to_string();
        let seen = gate.sample.seen().into_iter().filter(|seen| seen.header("x-probe").is_some());
        let told = seen.map(|seen| {
            let fields = seen.headers.iter().filter(|(name, _)| *name != "connection");
            let mut fields: Vec<(String, Vec<u8>)> = fields
                .map(|(name, value)| {
                    (name.to_string(), String::from_utf8_lossy(value.as_bytes()).replace(&listens, "GATE").into_bytes())
                })
                .collect();
            fields.sort();
            (seen.method.to_string(), seen.target.clone(), fields)
        });
        told.collect::<Vec<_>>()
    };
    let arrived = passed(&fast);
    assert!(arrived.len() >= 60, "{} of {probe} arrived", arrived.len());
    assert_eq!(arrived, passed(&general));
    assert!(served(&fast).await >= 60 && served(&general).await == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_paths_read_the_frozen_targets_alike() {
    let sample = include_str!("../differential/sample.jsonl");
    let lines = || sample.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["request"].clone());
    for (provider, fields) in [("rocketchat", login("carol")), ("docusign-rooms", bearer("bob"))] {
        let builder =
            || async { if provider == "rocketchat" { GateBuilder::rocketchat().await } else { GateBuilder::docusign().await } };
        let fast = builder().await.start();
        let general = builder().await.with(|config| config.listen.fast_path = false).start();
        let mut connections = [fast.connect().await, general.connect().await];
        for request in lines().filter(|request| request["provider"] == provider).step_by(5) {
            let (method, target) = (request["method"].as_str().unwrap(), request["target"].as_str().unwrap());
            let mut told = Vec::new();
            for (connection, gate) in connections.iter_mut().zip([&fast, &general]) {
                let answer = connection.request(method, target, &fields, b"").await;
                if answer.header("connection") == Some("close") {
                    *connection = gate.connect().await;
                }
                told.push(lasting(&answer));
            }
            assert_eq!(told[0], told[1], "{request}");
        }
        let decisions = |gate: &Gate| gate.records_of("decision").into_iter().map(steady).collect::<Vec<_>>();
        assert_eq!(decisions(&fast), decisions(&general));
        assert_eq!(arrived(&fast), arrived(&general));
        assert!(served(&fast).await > 50, "{provider}: {}", served(&fast).await);
    }
}

/// A head that began as an honest one: `edits` say where it was cut, doubled, swapped or overwritten.
fn spoilt(host: &str, edits: &[(u8, u16, u8)]) -> Vec<u8> {
    let fields: String = login("carol").iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("GET {ROLES}?rid={BOARDROOM} HTTP/1.1\r\nHost: {host}\r\n{fields}Accept: */*\r\nConnection: keep-alive");
    let mut lines: Vec<Vec<u8>> = head.split("\r\n").map(|line| line.as_bytes().to_vec()).collect();
    for (kind, place, byte) in edits {
        let index = usize::from(*place) % lines.len();
        let other = usize::from(*byte) % lines.len();
        let at = usize::from(*byte) % (lines[index].len() + 1);
        let strange = b"<>`\t :;,%/.?#&=@\\\"\x00\x7f\xff{[";
        match kind % 8 {
            0 if lines.len() > 1 => drop(lines.remove(index)),
            1 => lines.insert(index, lines[other].clone()),
            2 => lines.swap(index, other),
            3 => lines[index].insert(at, strange[usize::from(*place) % strange.len()]),
            4 => lines[index].truncate(at),
            5 => lines[index] = lines[index].to_ascii_uppercase(),
            6 => lines.push([b"Connection: close", b"Content-Length: 0", b"X_User_Id: a     "][other % 3].to_vec()),
            _ => {
                let more = lines[other].clone();
                lines[index].extend_from_slice(&more[..at.min(more.len())]);
            }
        }
    }
    [lines.join(&b"\r\n"[..]), b"\r\n\r\n".to_vec()].concat()
}

#[test]
fn both_paths_agree_on_heads_that_nobody_thought_of() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (fast, general) = runtime.block_on(async { (gate(true).await, gate(false).await) });
    let edits = prop::collection::vec((any::<u8>(), any::<u16>(), any::<u8>()), 0..4);
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(edits in edits)| {
        let told = runtime.block_on(async {
            let mut told = Vec::new();
            for gate in [&fast, &general] {
                let before = gate.records_of("decision").len();
                let mut connection = gate.connect().await;
                connection.send(&spoilt("chat.example.org", &edits)).await;
                // Whatever it was, the client has no more to say, so that nobody waits for the rest of it.
                let mut received = Vec::new();
                connection.send(b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
                tokio::time::timeout(PATIENCE, connection.stream.read_to_end(&mut received)).await.expect("no end").ok();
                let first = String::from_utf8_lossy(&received).lines().next().unwrap_or_default().to_owned();
                let decisions: Vec<Value> = gate.records_of("decision").split_off(before).into_iter().map(steady).collect();
                told.push((first, decisions));
            }
            told
        });
        prop_assert_eq!(&told[0], &told[1]);
    });
    let taken = runtime.block_on(served(&fast));
    assert!(taken >= 50, "only {taken} took the fast path");
    assert_eq!(arrived(&fast), arrived(&general));
    runtime.block_on(async { drop((fast, general)) });
}

/// A gate of each kind before an upstream that answers as the test says.
async fn scripted(fast: bool) -> (Gate, Scripted) {
    let builder = GateBuilder::rocketchat().await;
    let upstream = Scripted::before(builder.sample.url().trim_start_matches("http://").parse().unwrap(), ROLES).await;
    let url = format!("http://{}", upstream.address).parse().unwrap();
    let gate = builder.upstream(|settings| settings.url = url).with(|config| config.listen.fast_path = fast).start();
    (gate, upstream)
}

async fn ask(connection: &mut Connection, method: &str) -> Answer {
    connection.request(method, &format!("{ROLES}?rid={BOARDROOM}"), &login("carol"), b"").await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_an_answer_comes_through_both_paths_alike() {
    let long = "x".repeat(200_000);
    let chunked_long = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    let sized_long = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{long}", long.len());
    let wide = format!("HTTP/1.1 200 OK\r\nX-Wide: {}\r\nContent-Length: 2\r\n\r\nok", "a".repeat(20_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nok", "Set-Cookie: a=b\r\n".repeat(200));
    type Form<'a> = (&'a str, &'a str, Vec<&'a str>, bool, u16, &'a str);
    let forms: Vec<Form<'_>> = vec![
        ("sized", "GET", vec!["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"], false, 200, "hello"),
        (
            "sized, in pieces",
            "GET",
            vec!["HTTP/1.1 2", "00 OK\r\nContent-Le", "ngth: 5\r\n\r", "\nhe", "llo"],
            false,
            200,
            "hello",
        ),
        ("empty", "GET", vec!["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], false, 200, ""),
        (
            "chunked",
            "GET",
            vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"],
            false,
            200,
            "hello!",
        ),
        (
            "chunked, in pieces",
            "GET",
            vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "5", "\r\nhel", "lo\r\n0\r", "\n\r\n"],
            false,
            200,
            "hello",
        ),
        ("long and chunked", "GET", vec![&chunked_long], false, 200, &long),
        ("long and sized", "GET", vec![&sized_long], false, 200, &long),
        ("to the end of the connection", "GET", vec!["HTTP/1.1 200 OK\r\n\r\nhel", "lo"], true, 200, "hello"),
        ("closing", "GET", vec!["HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"], true, 200, "ok"),
        ("nothing", "GET", vec!["HTTP/1.1 204 No Content\r\n\r\n"], false, 204, ""),
        ("not changed", "GET", vec!["HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"], false, 304, ""),
        ("a head only", "HEAD", vec!["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"], false, 200, ""),
        ("a wide head", "GET", vec![&wide], false, 200, "ok"),
        (
            "a length said twice",
            "GET",
            vec!["HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"],
            false,
            200,
            "ok",
        ),
        ("many fields", "GET", vec![&many], false, 200, "ok"),
        ("a refusal of its own", "GET", vec!["HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"], false, 403, "no"),
        ("no answer", "GET", vec![], true, 502, ""),
        ("garbage", "GET", vec!["SSH-2.0-OpenSSH\r\n\r\n"], true, 502, ""),
    ];
    for fast in [true, false] {
        let (gate, upstream) = scripted(fast).await;
        for (name, method, pieces, closes, status, body) in &forms {
            let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
            upstream.play(&pieces, *closes);
            // Twice on one connection where it is kept: whatever was left behind by the first would be read as the second.
            let mut connection = gate.connect().await;
            for _ in 0..2 {
                let answer = ask(&mut connection, method).await;
                assert_eq!(answer.status, *status, "{name}, fast: {fast}");
                if *status != 502 {
                    assert_eq!(answer.text(), **body, "{name}, fast: {fast}");
                    let record = gate.outcome(&gate.last_decision()["id"]).await;
                    assert_eq!((&record["status"], &record["bytes"]), (&json!(status), &json!(body.len())), "{name}, {fast}");
                } else {
                    assert!(answer.text().contains("error-service-unavailable"), "{}", answer.text());
                }
                if answer.header("connection") == Some("close") || *closes {
                    connection = gate.connect().await;
                }
            }
        }
        assert_eq!(served(&gate).await, if fast { forms.len() as u64 * 2 } else { 0 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_two_readings_is_no_answer() {
    let (gate, upstream) = scripted(true).await;
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ] {
        upstream.play(&[answer.as_bytes()], false);
        let answer = ask(&mut gate.connect().await, "GET").await;
        assert_eq!((answer.status, answer.header("connection")), (502, Some("close")));
    }
    let huge = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(70_000));
    upstream.play(&[huge.as_bytes()], false);
    assert_eq!(ask(&mut gate.connect().await, "GET").await.status, 502);
    assert_eq!(gate.metric("rolegate_upstream_errors_total{kind=\"broken\",provider=\"rocketchat\"}").await, 7.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interim_answer_is_passed_on_before_the_last_one() {
    let (gate, upstream) = scripted(true).await;
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    upstream.play(&[hints.as_bytes(), b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"], false);
    let mut connection = gate.connect().await;
    let head = format!("GET {ROLES}?rid={BOARDROOM} HTTP/1.1\r\nHost: {}\r\n", connection.host);
    let fields: String = login("carol").iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    connection.send(format!("{head}{fields}\r\n").as_bytes()).await;
    let interim = connection.head().await;
    assert_eq!((interim.status, interim.header("link")), (103, Some("</a>")));
    assert_eq!(connection.answer("GET").await.text(), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_ends_the_connection_without_a_made_up_end() {
    let (gate, upstream) = scripted(true).await;
    for begun in
        ["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"]
    {
        upstream.play(&[begun.as_bytes()], true);
        let mut connection = gate.connect().await;
        let head = format!("GET {ROLES}?rid={BOARDROOM} HTTP/1.1\r\nHost: {}\r\n", connection.host);
        let fields: String = login("carol").iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        connection.send(format!("{head}{fields}\r\n").as_bytes()).await;
        let mut received = Vec::new();
        tokio::time::timeout(PATIENCE, connection.stream.read_to_end(&mut received)).await.unwrap().unwrap();
        let received = String::from_utf8(received).unwrap();
        assert!(received.starts_with("HTTP/1.1 200") && !received.ends_with("0\r\n\r\n"), "{received}");
        let outcome = gate.outcome(&gate.last_decision()["id"]).await;
        assert_eq!(outcome["status"], 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_behind_one_another_are_answered_in_order_whichever_path_they_take() {
    let gate = gate(true).await;
    let mut connection = gate.connect().await;
    let fields: String = login("carol").iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let one = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", connection.host);
    let room = format!("{ROLES}?rid={BOARDROOM}");
    // A bracket is none of the characters that the fast path takes.
    let all = [one(&room), one("/api/v1/me?a[]=b"), one(ROLES), one(&room), one("/echo"), one(&room)].concat();
    connection.send(all.as_bytes()).await;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(connection.answer("GET").await.status);
    }
    assert_eq!(statuses, [200, 200, 400, 200, 200, 200]);
    assert_eq!(served(&gate).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_the_upstream_closed_costs_no_request() {
    let gate = gate(true).await;
    let mut connection = gate.connect().await;
    for round in 0..5 {
        assert_eq!(ask(&mut connection, "GET").await.status, 200, "round {round}");
        gate.sample.hang_up();
    }
    let asked = gate.sample.seen().iter().filter(|seen| seen.path == ROLES).count();
    assert_eq!((asked, served(&gate).await), (5, 5), "none came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_its_upstream_request_along() {
    let (gate, upstream) = scripted(true).await;
    upstream.play(&[], false);
    let mut connection = gate.connect().await;
    let head = format!("GET {ROLES}?rid={BOARDROOM} HTTP/1.1\r\nHost: {}\r\n", connection.host);
    let fields: String = login("carol").iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    connection.send(format!("{head}{fields}\r\n").as_bytes()).await;
    until("the request upstream", || (!upstream.heads().is_empty()).then_some(())).await;
    connection.stream.shutdown().await.unwrap();
    drop(connection);
    let outcome = gate.outcome(&gate.last_decision()["id"]).await;
    assert_eq!((&outcome["status"], &outcome["bytes"]), (&Value::Null, &json!(0)));
    gate.until_metric("rolegate_connections", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_upstream_is_told_as_504() {
    let builder = GateBuilder::rocketchat().await;
    let upstream = Scripted::before(builder.sample.url().trim_start_matches("http://").parse().unwrap(), ROLES).await;
    let url = format!("http://{}", upstream.address).parse().unwrap();
    let short = std::time::Duration::from_millis(100);
    let gate =
        builder.upstream(|settings| (settings.url, settings.read_timeout, settings.first_byte_timeout) = (url, short, short));
    let gate = gate.start();
    let answer = ask(&mut gate.connect().await, "GET").await;
    assert_eq!((answer.status, served(&gate).await), (504, 1));
    assert_eq!(gate.metric("rolegate_upstream_errors_total{kind=\"timeout\",provider=\"rocketchat\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_only_slow_is_not_asked_twice() {
    for fast in [true, false] {
        let builder = GateBuilder::rocketchat().await.with(|config| config.listen.fast_path = fast);
        let upstream = Scripted::before(builder.sample.url().trim_start_matches("http://").parse().unwrap(), ROLES).await;
        let url = format!("http://{}", upstream.address).parse().unwrap();
        let short = std::time::Duration::from_millis(300);
        let builder = builder.upstream(|settings| {
            settings.url = url;
            (settings.read_timeout, settings.first_byte_timeout) = (short, short);
        });
        let gate = builder.start();
        upstream.play(&[b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"], false);
        assert_eq!(ask(&mut gate.connect().await, "GET").await.status, 200);
        upstream.play(&[], false);
        assert_eq!(ask(&mut gate.connect().await, "GET").await.status, 504, "on the kept connection, fast: {fast}");
        assert_eq!(upstream.heads().len(), 2, "fast: {fast}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_answer_before_the_end_says_so() {
    let mut gate = gate(true).await;
    let mut connection = gate.connect().await;
    assert_eq!(ask(&mut connection, "GET").await.header("connection"), None);
    let (hold, address) = (gate.sample.hold(ROLES), gate.address());
    let asked = tokio::spawn(async move {
        let answer = ask(&mut connection, "GET").await;
        (answer.status, answer.header("connection").map(ToOwned::to_owned), connection.is_closed().await)
    });
    hold.until_waiting(1).await;
    let release = async {
        until_refused(address).await;
        hold.release();
    };
    let (finished, ()) = tokio::join!(gate.stop(), release);
    assert!(finished, "what was under way was finished");
    assert_eq!(asked.await.unwrap(), (200, Some("close".to_owned()), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn docusign_rooms_take_the_fast_path_too_and_are_chosen_by_their_own_host() {
    let gate = GateBuilder::docusign().await.start();
    let target = format!("/restapi/v2/accounts/{}/rooms/1234/users", rolegate::demo::world::account::ACCOUNT);
    assert_eq!(gate.get(&target, &bearer("bob")).await.status, 200);
    assert_eq!(gate.get(&target, &bearer("eve")).await.status, 403);
    assert_eq!(served(&gate).await, 2);
    let seen = gate.sample.seen().into_iter().find(|seen| seen.header("x-request-id").is_some()).unwrap();
    assert_eq!(seen.header("host"), Some(gate.sample.url().trim_start_matches("http://")));
}
