//! What could be a credential stands in no record, wherever a caller writes it, and what ends lines stands nowhere raw.

use proptest::prelude::*;
use rolegate::audit::{Entry, Object};
use rolegate::demo::Sample;
use rolegate::model::escape::is_unseen;
use rolegate::model::{Body, RawRequest};
use rolegate::pipeline::{Evaluation, Site, evaluate_request};
use rolegate::rules::{Known, KnownSubject, Then};

use super::{assert_refused, gate_with, site_with};
use crate::support::gate::login;
use crate::support::{Collector, GateBuilder, Process};

/// An action whose path holds a credential.
const SHARED: &str = r#"
[[action]]
id = "shared.file"
summary = "Fetch a file that was shared by a link"
resource = { type = "File", param = "file" }
rest = "GET /api/v1/shared/{file}/{key}"

[action.params.file]
in = "path"
type = "id"
required = true

[action.params.key]
in = "path"
type = "string"
required = true
secret = true

[action.params.code]
in = "query"
type = "string"
secret = true
"#;

const SHARED_POLICY: &str = r#"
@id("shared")
permit (principal in RocketChat::Role::"user", action == RocketChat::Action::"shared.file", resource);
"#;

fn closed() -> Site {
    site_with(SHARED, |upstream| {
        upstream.unlisted = Then::Deny;
        upstream.unlisted_methods = Then::Deny;
        upstream.websockets = Then::Deny;
    })
}

/// The record of a verdict, as it stands in the log.
fn record(site: &Site, method: &str, target: &str, headers: Vec<(&str, &[u8])>, content: Option<&str>) -> Option<String> {
    let raw = RawRequest {
        method,
        target: target.as_bytes(),
        host: Some("chat.example.org"),
        headers,
        body: content.map_or(Body::Absent, |content| Body::Sized(content.len() as u64)),
        content: content.map(str::as_bytes),
        client: Some([127, 0, 0, 1].into()),
        correlation: None,
    };
    let subject = KnownSubject { id: "u1".into(), name: "eve".into(), roles: vec!["user".into()], permissions: Vec::new() };
    let known = Known { subject: Some(subject), ..Known::default() };
    let text = |entry: &dyn Fn(&mut Object<'_>) -> std::io::Result<()>| {
        serde_json::Value::Object(Object::read(|fields| entry(fields)).unwrap()).to_string()
    };
    match evaluate_request(site.clone(), &raw, &known) {
        Evaluation::Denial(denial) => Some(text(&|fields| denial.fields(fields))),
        Evaluation::Permit(permit) => Some(text(&|fields| permit.fields(fields))),
        Evaluation::Open(_) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn a_secret_in_an_unlisted_or_refused_request_is_in_no_record(
        secret in "[A-Za-z0-9][A-Za-z0-9_-]{22,60}[A-Za-z0-9]",
        form in prop::sample::select(vec![
            "/api/v1/S", "/api/S/x", "/api/v1/method.callAnon/S", "/api/v1/method.call/S", "/api/v1/x?S", "/api/v1/x?S=1",
            "/api/v1/x?a=S", "/api/v1/rooms.roles?rid=a&S=b", "/api/v1/rooms.roles?rid=a&b=S", "/api/v1/rooms.roles/S", "/api/v1//S",
            "/api/v1/users%2einfo/S", "/api/v1/rooms.roles;S", "/api/v1/rooms.roles;a=S", "/api/v1/rooms.roles#S", "/api/v1\\S",
            "/api%2fS", "/api/v1/users.S", "/api/v1/S.json", "/hooks/a/S/../../../api/v1//x", "http://S@h/api/v1/x", "http://S/api/v1/x",
            "//S/api/v1/x", "/sockjs/1/S/xhr", "/sockjs/info?S", "/websocket?token=S", "/api/v1/x%3FS", "/api/v1/x%3fa=S",
            "/api/v1/S%2f..", "/api/v1/livechat/visitor//S", "/api/v1/shared/a/S", "/api/v1/shared/a/S/", "/api/v1/shared/a/b?code=S",
            "/api/v1/rooms.roles?rid=a&%53=S", "/api/v1/%53/S",
        ]),
        method in prop_oneof![Just("GET".to_owned()), Just("POST".to_owned()), "[A-Z]{24,30}"],
    ) {
        use std::sync::LazyLock;
        static SITE: LazyLock<Site> = LazyLock::new(closed);
        let target = form.replace('S', &secret);
        let headers = || vec![("x-user-id", &b"u1"[..]), ("x-auth-token", &b"t"[..]), ("content-type", &b"application/json"[..])];
        let record_of = |method: &str, target: &str, content: Option<&str>| record(&SITE, method, target, headers(), content);
        let told = record_of(&method, &target, None);
        prop_assert!(told.is_some(), "{} {} is not judged", method, target);
        prop_assert!(!told.as_ref().unwrap().contains(&secret), "{} {}: {}", method, target, told.unwrap());
        prop_assert!(method.len() < 24 || !record_of(&method, "/api/v1/x", None).unwrap().contains(&method));
        for content in [
            format!(r#"{{"message":"{{\"msg\":\"method\",\"id\":\"1\",\"method\":\"{secret}\",\"params\":[]}}"}}"#),
            format!(r#"{{"message":"{{\"msg\":\"method\",\"id\":\"1\",\"method\":\"x\",\"{secret}\":[]}}"}}"#),
            format!(r#"{{"{secret}":1,"message":"{{}}"}}"#),
            format!(r#"{{"{secret}":1,"{secret}":2}}"#),
            format!(r#"{{"message":"{secret}"}}"#),
        ] {
            let told = record_of("POST", "/api/v1/method.call/x", Some(&content)).unwrap();
            prop_assert!(!told.contains(&secret), "{}: {}", content, told);
        }
        let typed = vec![("x-user-id", &b"u1"[..]), ("x-auth-token", &b"t"[..]), ("content-type", secret.as_bytes())];
        let told = record(&SITE, "POST", "/api/v1/method.call/x", typed, Some("{}")).unwrap();
        prop_assert!(!told.contains(&secret.to_ascii_lowercase()) && !told.contains(&secret), "{}", told);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_credential_in_a_path_is_cut_however_short_it_is() {
    let gate = gate_with(SHARED, SHARED_POLICY, |_| {}).await;
    let answer = gate.get("/api/v1/shared/f1/k3y?code=c0de", &login("eve")).await;
    assert_eq!(answer.status, 404, "the sample has no such route, and was asked");
    let record = gate.last_decision();
    assert_eq!((&record["decision"], &record["target"]), (&"permit".into(), &"/api/v1/shared/f1/...?code=...".into()));
    assert_eq!(record["context"]["params"], serde_json::json!({ "code": "...", "file": "f1", "key": "..." }));
    for (method, target) in [
        ("GET", "/api/v1/shared/f1/k3y/"),
        ("PUT", "/api/v1/shared/f1/k3y?code=c0de"),
        ("GET", "/api/apps/private/a/k3y/e/%2e"),
        ("GET", "/x/../hooks/k3y/../../api/v1"),
    ] {
        gate.connect().await.request(method, target, &login("eve"), b"").await;
        let record = gate.last_decision();
        assert_eq!(record["decision"], "deny", "{method} {target}");
        assert!(!record["target"].as_str().unwrap().contains("c0de"), "{record}");
    }
    let hooks = gate.records_of("decision").pop().unwrap();
    assert_eq!(hooks["target"], "/x/../hooks/.../.../.../.../...");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_before_it_was_judged_holds_no_secret_either() {
    let host = |upstream: &mut rolegate::config::Upstream| upstream.host = Some("chat.example.org".into());
    let gate = GateBuilder::rocketchat().await.upstream(host).start();
    let secret = "s3cr3t-t0ken-of-an-integration-9f8e7d";
    for target in [format!("/hooks/{secret}"), format!("/avatar/{secret}?{secret}={secret}"), format!("/{secret}")] {
        let before = gate.records_of("decision").len();
        assert_eq!(gate.get(&target, &[]).await.status, 421, "another host");
        let record = assert_refused(&gate, before, &target, &["host_unknown"]);
        assert!(!record.to_string().contains(secret), "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_holds_no_character_that_ends_a_line_or_is_not_seen() {
    let gate = GateBuilder::rocketchat().await.start();
    let names = "%C2%9B2J%E2%80%A8%E2%80%AE%EF%BB%BF%7F%E2%80%8B";
    for target in [
        format!("/api/v1/users.info?username=a{names}"),
        format!("/api/v1/users.info?{names}=1"),
        format!("/api/v1/{names}"),
        format!("/api/v1/rooms.roles?rid={names}"),
    ] {
        gate.get(&target, &login("eve")).await;
        let text = std::fs::read_to_string(gate.audit()).unwrap();
        let line = text.lines().last().unwrap();
        assert!(!line.contains(is_unseen), "{line:?}");
    }
    assert_eq!(gate.records_of("decision").len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_a_path_is_in_no_record_no_span_and_no_line_of_the_log() {
    let secret = "wh-9f8e7d6c5b4a39281706f5e4d3c2b1a0";
    let (sample, collector) = (Sample::rocketchat().await.unwrap(), Collector::start().await);
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[[upstream]]\nprovider = \"rocketchat\"\nurl = \"{}\"\nunlisted = \"deny\"\nwebsockets = \"deny\"\n\
         [traces]\notlp_endpoint = \"{}\"\n",
        sample.url(),
        collector.url()
    );
    std::fs::write(folder.path().join("rolegate.toml"), config).unwrap();
    let mut process = Process::logging(folder, &["run", "--config", "rolegate.toml"], "trace").await;
    for target in [
        format!("/api/v1/{secret}"),
        format!("/api/v1/method.callAnon/{secret}"),
        format!("/api/v1/users.info?{secret}=1"),
        format!("/api/v1/rooms%2eroles/{secret}"),
        format!("/hooks/../api/v1//{secret}"),
        format!("/sockjs/1/{secret}/xhr"),
        format!("/hooks/{secret}"),
        format!("/home?{secret}"),
    ] {
        process.connect().await.request("POST", &target, &login("eve"), b"").await;
    }
    process.connect().await.get("/api/v1/rooms.roles?rid=nowhere", &login("eve")).await;
    process.terminate();
    assert_eq!(process.exit().await, 0);
    let spans = format!("{:?}", collector.spans());
    assert!(spans.contains("route_unlisted"), "{spans}");
    let records = std::fs::read_to_string(process.folder.path().join("audit/audit.jsonl")).unwrap();
    assert!(records.contains("/api/v1/method.callAnon/..."), "{records}");
    for (place, text) in [("a span", spans), ("a record", records), ("the log", process.whole_log())] {
        assert!(!text.contains(secret), "{place}: {text}");
    }
}
