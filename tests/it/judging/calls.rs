//! Method calls that no action declares: the gate need only be sure which method it is, and passes them on as they came.

use std::sync::LazyLock;

use proptest::prelude::*;
use rolegate::config::{Origin, Upstream as Settings};
use rolegate::model::{Body, Mode, RawRequest};
use rolegate::pipeline::{Evaluation, Open, Site, evaluate_request};
use rolegate::rules::{Known, KnownSubject, Rules, Ruleset, Sources, Then};
use serde_json::{Value, json};

use super::kept::{Request, Upstream};
use super::{assert_refused, somebody};
use crate::support::{Answer, Gate};

const PATH: &str = "/api/v1/method.call/anything";

/// The body of a call with this message.
fn body(message: &str) -> String {
    json!({ "message": message }).to_string()
}

async fn post(gate: &Gate, kind: &str, body: &[u8]) -> Answer {
    let mut headers = somebody();
    headers.push(("Content-Type", kind.to_owned()));
    gate.connect().await.request("POST", PATH, &headers, body).await
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

#[tokio::test(flavor = "multi_thread")]
async fn whatever_stands_beside_the_name_of_an_undeclared_method_goes_on_as_it_came() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("rocketchat").await.start();
    let deep =
        format!(r#"{{"msg":"method","id":"1","method":"updateMessage","params":[{}{}]}}"#, "[".repeat(400), "]".repeat(400));
    for (kind, body) in [
        (JSON, body(r#"{"msg":"method","id":"1","method":"sendMessage","params":[{"msg":"cut \ud83d"}]}"#)),
        (JSON, body(r#"{"msg":"method","method":"sendMessage","params":[]}"#)),
        (JSON, body(r#"{"msg":"method","id":1,"method":"sendMessage"}"#)),
        (JSON, body(r#"{"id":"1","method":"sendMessage","params":[]}"#)),
        (JSON, body(r#"{"msg":"connect","id":null,"method":"sendMessage","params":{"a":1,"a":2},"more":1}"#)),
        (JSON, body(&deep)),
        (JSON, format!("{} ", body(r#" { "method" : "sendMessage" , "params" : [ 1e999 ] } "#))),
        (JSON, r#"{"x":1,"x":[2],"message":"{\"method\":\"sendMessage\",\"x\":\"\ud83d\"}","y":{"message":"{}"}}"#.to_owned()),
        (FORM, format!("message={}", rolegate::rules::target::encode(r#"{"method":"sendMessage","id":7}"#))),
    ] {
        let answer = post(&gate, kind, body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        let request = upstream.newest();
        assert_eq!(String::from_utf8_lossy(&request.body), body);
        assert_eq!((request.target(), request.header("content-type")), (PATH, Some(kind)));
    }
    assert!(gate.records_of("decision").is_empty() && upstream.lookups().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_could_name_two_methods_goes_nowhere() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("rocketchat").await.start();
    let escaped = r#"{"message":"{}","mess\u0061ge":"{}"}"#;
    for (kind, body) in [
        (JSON, body(r#"{"method":"sendMessage","method":"sendMessage"}"#).into_bytes()),
        (JSON, body(r#"{"method":"sendMessage","m\u0065thod":"getUsersOfRoom"}"#).into_bytes()),
        (JSON, body(r#"{"m\u0065thod":"sendMessage"}"#).into_bytes()),
        (JSON, body(r#"{"$escape":{"method":"getUsersOfRoom"}}"#).into_bytes()),
        (JSON, body(r#"{"method":{"$escape":"getUsersOfRoom"}}"#).into_bytes()),
        (JSON, body(r#"{"__proto__":{"method":"getUsersOfRoom"}}"#).into_bytes()),
        (JSON, body(r#"[{"method":"sendMessage"}]"#).into_bytes()),
        (JSON, body(r#"{"method":"sendMessage"},{"method":"getUsersOfRoom"}"#).into_bytes()),
        (JSON, body("\u{feff}{\"method\":\"sendMessage\"}").into_bytes()),
        (JSON, body(r#"{'method':'sendMessage'}"#).into_bytes()),
        (JSON, body(r#"{"method":"sendMessage",/**/"method":"x"}"#).into_bytes()),
        (JSON, escaped.as_bytes().to_vec()),
        (JSON, br#"{"message":"{}","message":"{}"}"#.to_vec()),
        (JSON, br#"{"message":{"method":"sendMessage"}}"#.to_vec()),
        (JSON, br#"{"method":"sendMessage"}"#.to_vec()),
        (JSON, [b"\xef\xbb\xbf", body(r#"{"method":"sendMessage"}"#).as_bytes()].concat()),
        (JSON, [br#"{"x":""#, &b"\xe2\x82"[..], br#"","message":"{\"method\":\"sendMessage\"}"}"#].concat()),
        (JSON, [br#"{"x":""#, &b"\xc0\xa2"[..], br#"","message":"{\"method\":\"sendMessage\"}"}"#].concat()),
        ("application/json; charset=utf-16", body(r#"{"method":"sendMessage"}"#).into_bytes()),
        ("text/plain", body(r#"{"method":"sendMessage"}"#).into_bytes()),
        (FORM, b"message=%7B%7D&message=%7B%7D".to_vec()),
        (FORM, b"message[]=%7B%7D".to_vec()),
    ] {
        let answer = post(&gate, kind, &body).await;
        assert_refused(&gate, &answer, 400, "param_invalid", &String::from_utf8_lossy(&body));
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_method_is_read_strictly_but_for_an_id_that_need_not_be() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("rocketchat").await.start();
    for message in [
        r#"{"msg":"sub","id":"1","method":"getRoomRoles","params":["r1"]}"#,
        r#"{"msg":"method","id":null,"method":"getRoomRoles","params":["r1"]}"#,
        r#"{"msg":"method","id":1.5,"method":"getRoomRoles","params":["r1"]}"#,
        r#"{"msg":"method","id":{"$date":1},"method":"getRoomRoles","params":["r1"]}"#,
        r#"{"msg":"method","id":"1","id":1,"method":"getRoomRoles","params":["r1"]}"#,
        r#"{"msg":"method","id":"1","method":"getRoomRoles","params":["r1"],"params":["r2"]}"#,
        r#"{"msg":"method","id":"1","method":"getRoomRoles","params":["\ud83d"]}"#,
        r#"{"msg":"method","id":"1","method":"get\u0052oomRoles","params":{"0":"r1"}}"#,
    ] {
        assert_eq!(post(&gate, JSON, body(message).as_bytes()).await.status, 400, "{message}");
    }
    assert!(upstream.requests().is_empty());
    for message in [
        r#"{"msg":"method","id":"1","method":"get\u0052oomRoles","params":["r1"]}"#,
        r#"{"msg":"method","id":1,"method":"getRoomRoles","params":["r1"]}"#,
        r#"{"msg":"method","method":"getRoomRoles","params":["r1"]}"#,
        r#"{"id":"1","method":"getRoomRoles","params":["r1"]}"#,
    ] {
        let answer = post(&gate, JSON, body(message).as_bytes()).await;
        assert_eq!(answer.status, 200, "{message}: {}", answer.text());
        assert_eq!(upstream.newest().target(), "/api/v1/method.call/getRoomRoles");
        assert_eq!(gate.last_decision()["action"]["name"], "rooms.roles");
    }
    assert_eq!(upstream.requests().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_undeclared_methods_are_closed_an_odd_call_is_refused_too() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("rocketchat").await.upstream(|upstream| upstream.unlisted_methods = Then::Deny).start();
    for (message, id) in [
        (r#"{"method":"sendMessage","id":1}"#, json!(1)),
        (r#"{"msg":"method","id":"7","method":"sendMessage","params":[]}"#, json!("7")),
        (r#"{"method":"sendMessage","id":[1]}"#, json!("")),
        (r#"{"method":"sendMessage"}"#, Value::Null),
    ] {
        let answer = post(&gate, JSON, body(message).as_bytes()).await;
        assert_refused(&gate, &answer, 403, "route_unlisted", message);
        let told: Value = serde_json::from_str(answer.json()["message"].as_str().unwrap()).unwrap();
        assert_eq!(told["id"], id, "{message}");
    }
    assert!(upstream.requests().is_empty());
}

/// A call with a picture of so many bytes in it.
fn picture(bytes: usize) -> String {
    body(&json!({ "msg": "method", "id": "1", "method": "uploadCustomSound", "params": ["é".repeat(bytes / 2)] }).to_string())
}

/// Posts `content` in chunks, half of it first.
async fn chunked(gate: &Gate, content: &[u8]) -> Answer {
    let login: String = somebody().iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: chat\r\n{login}Content-Type: {JSON}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut connection = gate.connect().await;
    connection.send(head.as_bytes()).await;
    for half in content.chunks(content.len() / 2 + 1) {
        connection.send(format!("{:x}\r\n", half.len()).as_bytes()).await;
        connection.send(half).await;
        connection.send(b"\r\n").await;
    }
    connection.send(b"0\r\n\r\n").await;
    connection.answer("POST").await
}

#[track_caller]
fn assert_as_it_came(request: &Request, content: &str) {
    assert_eq!((request.target(), request.body.len()), (PATH, content.len()));
    assert!(request.body == content.as_bytes(), "not a byte is changed");
    let framings = ["content-length", "transfer-encoding"].iter().filter(|name| request.header(name).is_some()).count();
    assert_eq!((framings, request.header("expect")), (1, None), "{}", request.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_a_hundred_kilobytes_passes_and_one_of_megabytes_where_the_operator_says_so() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("rocketchat").await.start();
    let usual = picture(100_000);
    assert_eq!(post(&gate, JSON, usual.as_bytes()).await.status, 200);
    assert_as_it_came(&upstream.newest(), &usual);
    assert_eq!(chunked(&gate, usual.as_bytes()).await.status, 200);
    assert_as_it_came(&upstream.newest(), &usual);
    let large = picture(3_000_000);
    // It is refused as soon as it is announced.
    let mut connection = gate.connect().await;
    let login: String = somebody().iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let announced = format!("Content-Type: {JSON}\r\nContent-Length: {}", large.len());
    connection.send(format!("POST {PATH} HTTP/1.1\r\nHost: chat\r\n{login}{announced}\r\n\r\n").as_bytes()).await;
    assert_refused(&gate, &connection.answer("POST").await, 413, "body_too_large", "the default");
    assert_eq!(upstream.requests().len(), 2);

    let gate = upstream.gate("rocketchat").await.with(|config| config.limits.inspected_body = 16 * 1024 * 1024).start();
    let mut connection = gate.connect().await;
    let mut headers = somebody();
    headers.push(("Content-Type", JSON.to_owned()));
    for _ in 0..2 {
        // On one connection, which a refusal, a small call and a judged one leave as it was.
        let answer = connection.request("POST", PATH, &headers, large.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["received"], PATH);
        assert_as_it_came(&upstream.newest(), &large);
        let small = picture(10);
        assert_eq!(connection.request("POST", PATH, &headers, small.as_bytes()).await.status, 200);
        assert_as_it_came(&upstream.newest(), &small);
    }
    assert_eq!(chunked(&gate, large.as_bytes()).await.status, 200);
    assert_as_it_came(&upstream.newest(), &large);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_call_that_is_padded_beyond_what_the_engine_keeps_is_sent_once_as_it_was_judged() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("rocketchat").await.start();
    let padded = body(&format!(r#"{{"msg":"method","id":"1",{}"method":"getRoomRoles","params":["r1"]}}"#, " ".repeat(100_000)));
    let answer = post(&gate, JSON, padded.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request = upstream.newest();
    let sent = body(r#"{"msg":"method","id":"1","method":"getRoomRoles","params":["r1"]}"#);
    assert_eq!((request.target(), String::from_utf8_lossy(&request.body)), ("/api/v1/method.call/getRoomRoles", sent.into()));
    let record = gate.last_decision();
    assert_eq!(request.header("x-request-id"), record["id"].as_str());
    assert_eq!(gate.outcome(&record["id"]).await["status"], 200);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_verdicts_are_only_observed_a_call_of_any_size_passes_and_is_recorded() {
    let upstream = Upstream::start().await;
    let observing = upstream.gate("rocketchat").await.upstream(|upstream| upstream.mode = Mode::Observe).start();
    let large = picture(1_000_000);
    for answer in [post(&observing, JSON, large.as_bytes()).await, chunked(&observing, large.as_bytes()).await] {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_as_it_came(&upstream.newest(), &large);
        let record = observing.last_decision();
        assert_eq!((&record["reason"], &record["enforced"]), (&json!("body_too_large"), &json!(false)));
    }
    assert_eq!(observing.records_of("decision").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_call_to_an_upstream_that_is_gone_is_told_as_any_other() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("rocketchat").await.start();
    drop(upstream);
    let answer = post(&gate, JSON, picture(100_000).as_bytes()).await;
    assert_eq!((answer.status, answer.header("content-type")), (502, Some(JSON)), "{}", answer.text());
    gate.until_metric(r#"rolegate_requests_total{action="none",code="502",door="method_call",provider="rocketchat"}"#, 1.0).await;
}

static RULES: LazyLock<std::sync::Arc<Rules>> =
    LazyLock::new(|| std::sync::Arc::clone(Ruleset::load(&Sources::built_in(), &[]).unwrap().provider("rocketchat").unwrap()));

/// What the gate makes of this content, for somebody without any permission.
fn judged(content: &str) -> Evaluation {
    let origin = Origin { tls: false, host: "upstream".into(), port: 80 };
    let site = Site::new(
        std::sync::Arc::new(Settings::new("rocketchat", origin)),
        std::sync::Arc::clone(&RULES),
        std::sync::Arc::from([]),
    );
    let raw = RawRequest {
        method: "POST",
        target: PATH.as_bytes(),
        host: None,
        headers: vec![("x-user-id", b"u1"), ("x-auth-token", b"t1"), ("content-type", b"application/json")],
        body: Body::Sized(content.len() as u64),
        content: Some(content.as_bytes()),
        client: None,
        correlation: None,
    };
    let subject = KnownSubject { id: "u1".into(), name: "somebody".into(), ..KnownSubject::default() };
    evaluate_request(site, &raw, &Known { subject: Some(subject), ..Known::default() })
}

/// The method as a parser reads it that takes the last of two names, or the first.
fn method(content: &str, last: bool) -> Option<String> {
    /// An object as a list, repeated names and all.
    struct Pairs(Vec<(String, Value)>);
    impl<'de> serde::Deserialize<'de> for Pairs {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Reader;
            impl<'de> serde::de::Visitor<'de> for Reader {
                type Value = Pairs;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                    let mut pairs = Vec::new();
                    while let Some(pair) = map.next_entry()? {
                        pairs.push(pair);
                    }
                    Ok(Pairs(pairs))
                }
            }
            deserializer.deserialize_map(Reader)
        }
    }
    let read = |text: &str, name: &str| {
        let pairs = serde_json::from_str::<Pairs>(text).ok()?.0;
        let mut named = pairs.into_iter().filter(|(key, _)| key == name);
        let value = if last { named.next_back() } else { named.next() };
        value?.1.as_str().map(str::to_owned)
    };
    read(&read(content, "message")?, "method")
}

/// Fields of a message: the method in several spellings, and what may stand beside it.
fn message() -> impl Strategy<Value = String> {
    let field = prop::sample::select(vec![
        r#""method":"sendMessage""#,
        r#""method":"getUsersOfRoom""#,
        r#""method":"get\u0055sersOfRoom""#,
        r#""m\u0065thod":"getUsersOfRoom""#,
        r#""method":null"#,
        r#""msg":"method""#,
        r#""msg":1"#,
        r#""id":"1""#,
        r#""id":7"#,
        r#""params":["r1"]"#,
        r#""params":[{"method":"x","method":"y"}]"#,
        r#""params":{"a":[[[[1]]]]}"#,
        r#""Method":"getUsersOfRoom""#,
        r#""x":"ü\n""#,
    ]);
    prop::collection::vec(field, 0..6).prop_map(|fields| format!("{{{}}}", fields.join(",")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_call_passes_untouched_exactly_where_every_parser_finds_one_undeclared_method(
        message in message(),
        beside in prop::sample::select(vec!["", r#","x":1"#, r#","message":"{}""#, r#","x":1,"x":2"#]),
        first in any::<bool>(),
    ) {
        let own = format!(r#""message":{}"#, Value::from(message.as_str()));
        let content = match (first, beside.strip_prefix(',')) {
            (true, Some(beside)) => format!("{{{beside},{own}}}"),
            _ => format!("{{{own}{beside}}}"),
        };
        let declared = |name: &str| RULES.provider.method(name).is_some();
        let (last, front) = (method(&content, true), method(&content, false));
        match judged(&content) {
            Evaluation::Open(open) => {
                prop_assert_eq!(open, Open::Method);
                prop_assert_eq!(&last, &front, "{}", &content);
                prop_assert!(last.as_deref().is_some_and(|name| !declared(name)), "{}", &content);
            }
            Evaluation::Denial(denial) => {
                let twice = message.matches("\"method\":").count() > 1 || message.contains(r"m\u0065thod") || content.matches("\"message\":").count() > 1;
                let agreed = last == front && last.as_deref().is_some_and(|name| !declared(name));
                prop_assert!(!agreed || twice, "{}: {}", &content, denial.detail());
            }
            Evaluation::Permit(_) => prop_assert!(false, "nobody permitted {}", &content),
        }
    }
}
