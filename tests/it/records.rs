//! What the audit log holds, when, and what happens when it cannot.

mod files;
mod program;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rolegate::audit::Durability;
use rolegate::demo::Behaviour;
use rolegate::demo::world::workspace::{BOARDROOM, BOB, EVE};
use rolegate::model::Mode;
use serde_json::{Value, json};

use crate::support::gate::{login, records};
use crate::support::{Connection, Gate, GateBuilder, until};

const INFO: &str = "/api/v1/users.info";

fn about_bob() -> String {
    format!("{INFO}?userId={BOB}")
}

/// The decisions that a file held when the upstream received a request, and the id that the request came with.
type Arrivals = Arc<Mutex<Vec<(Option<String>, Vec<Value>)>>>;

/// Reads the audit file of `gate` whenever a request for `path` reaches the upstream.
fn watch(gate: &Gate, path: &str) -> Arrivals {
    let arrivals = Arrivals::default();
    let (noted, file) = (Arc::clone(&arrivals), gate.audit());
    let read = Behaviour::call(move |seen| {
        noted.lock().push((seen.header("x-request-id").map(str::to_owned), records(&file)));
    });
    gate.sample.behave(path, read);
    arrivals
}

/// The files of the log in `folder`, oldest first.
fn files(folder: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<PathBuf> = names.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect();
    // The one being written has no number and is the youngest.
    names.sort_by_key(|path| (path.file_name().unwrap() == "audit.jsonl", path.clone()));
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_a_permit_is_on_disk_before_the_upstream_receives_the_request() {
    let gate = Gate::rocketchat().await;
    let arrivals = watch(&gate, INFO);
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let address = gate.address();
            tokio::spawn(async move { Connection::open(address).await.get(&about_bob(), &login("bob")).await.status })
        })
        .collect();
    for task in asking {
        assert_eq!(task.await.unwrap(), 200);
    }
    let arrivals = arrivals.lock();
    assert_eq!(arrivals.len(), 50);
    for (id, held) in arrivals.iter() {
        let id = id.as_deref().expect("a forwarded request carries its decision's id");
        let own: Vec<&Value> = held.iter().filter(|record| record["id"] == id).collect();
        assert!(matches!(own[..], [decision] if decision["kind"] == "decision" && decision["decision"] == "permit"), "{own:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observed_request_is_recorded_before_it_is_forwarded_too() {
    let gate = GateBuilder::rocketchat().await.upstream(|upstream| upstream.mode = Mode::Observe).start();
    let target = format!("/api/v1/rooms.roles?rid={BOARDROOM}");
    let arrivals = watch(&gate, "/api/v1/rooms.roles");
    gate.get(&target, &login("eve")).await;
    let arrivals = arrivals.lock();
    let (_, held) = &arrivals[0];
    let decision = held.iter().find(|record| record["kind"] == "decision").expect("a decision");
    assert_eq!(
        (&decision["decision"], &decision["enforced"], &decision["subject"]["id"]),
        (&json!("deny"), &json!(false), &json!(EVE))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn buffered_records_reach_the_file_within_a_moment_and_all_of_them_when_it_ends() {
    let mut gate = GateBuilder::rocketchat().await.with(|config| config.audit.durability = Durability::Buffered).start();
    assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 200);
    until("the buffer to be written", || (gate.records_of("outcome").len() == 1).then_some(())).await;
    for _ in 0..20 {
        assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 200);
    }
    assert!(gate.stop().await);
    let kinds: Vec<String> = gate.records().iter().map(|record| record["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds.first().map(String::as_str), Some("start"));
    assert_eq!(kinds.last().map(String::as_str), Some("stop"));
    assert_eq!(kinds.iter().filter(|kind| *kind == "decision").count(), 21);
    assert_eq!(kinds.iter().filter(|kind| *kind == "outcome").count(), 21);
}

/// The keys of an object, in their order.
fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_has_the_keys_and_types_of_the_contract_in_its_order() {
    let gate = GateBuilder::rocketchat()
        .await
        .upstream(|upstream| upstream.name = "chat.example.org".into())
        .with(|config| config.listen.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()])
        .start();
    let mut headers = login("bob");
    headers.push(("X-Forwarded-For", "203.0.113.7".to_owned()));
    headers.push(("X-Request-Id", "from-the-proxy_1.2".to_owned()));
    let target = format!("/api/v1/rooms.roles?rid={BOARDROOM}");
    let answer = gate.get(&target, &headers).await;
    let record = gate.last_decision();
    let contract = [
        "v",
        "seq",
        "time",
        "id",
        "kind",
        "upstream",
        "provider",
        "door",
        "method",
        "target",
        "correlation",
        "subject",
        "action",
        "resource",
        "context",
        "decision",
        "enforced",
        "reason",
        "policies",
        "policy_revision",
        "facts",
        "prev",
    ];
    assert_eq!(keys(&record), contract);
    let seq = record["seq"].as_u64().unwrap();
    let id = record["id"].as_str().unwrap();
    let status = Connection::open(gate.admin()).await.get("/status", &[]).await.json();
    let age = |fact: &str| record["facts"][fact]["age_ms"].as_u64().unwrap_or_else(|| panic!("{record}"));
    let expected = json!({
        "v": 1, "seq": seq, "time": record["time"], "id": id, "kind": "decision", "upstream": "chat.example.org",
        "provider": "rocketchat", "door": "rest", "method": "GET", "target": target, "correlation": "from-the-proxy_1.2",
        "subject": { "type": "User", "id": BOB, "name": "bob", "roles": ["user"] },
        "action": { "name": "rooms.roles" }, "resource": { "type": "Room", "id": BOARDROOM },
        "context": {
            "params": { "rid": BOARDROOM }, "client": "203.0.113.7",
            "room": { "invited": false, "kind": "p", "member": true, "roles": ["owner"], "access": false },
        },
        "decision": "permit", "enforced": true, "reason": null, "policies": ["rooms-roles-member"],
        "policy_revision": status["policy_revision"],
        "facts": { "caller": { "age_ms": age("caller") }, "room": { "age_ms": age("room"), "stale": false } },
        "prev": record["prev"],
    });
    // As text: the order of the inner keys counts, too.
    assert_eq!(record.to_string(), expected.to_string());
    assert!(matches!(id.len(), 26) && id.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()), "{id}");
    let time = record["time"].as_str().unwrap();
    assert!(time.len() == "2026-01-02T03:04:05.678901Z".len() && time.ends_with('Z') && time.as_bytes()[19] == b'.', "{time}");

    let outcome = gate.outcome(&record["id"]).await;
    assert_eq!(keys(&outcome), ["v", "seq", "time", "id", "kind", "status", "bytes", "duration_us", "prev"]);
    assert_eq!((&outcome["status"], outcome["bytes"].as_u64()), (&json!(200), Some(answer.body.len() as u64)));
    assert!(outcome["duration_us"].as_u64().unwrap() > 0);
    assert_eq!(outcome["seq"].as_u64(), Some(seq + 1));
    let first = &gate.records()[0];
    assert_eq!(
        (first["kind"].as_str(), first["seq"].as_u64(), first["prev"].as_str()),
        (Some("start"), Some(1), Some(&*"0".repeat(64)))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_at_the_stop_is_null() {
    let gate = Gate::rocketchat().await;
    gate.get(&about_bob(), &[]).await;
    let record = gate.last_decision();
    for key in ["correlation", "subject", "resource"] {
        assert_eq!(record.get(key), Some(&Value::Null), "{key} of a request without a credential: {record}");
    }
    assert_eq!(
        (&record["action"]["name"], &record["decision"], &record["reason"]),
        (&json!("users.info"), &json!("deny"), &json!("credential_missing"))
    );
    assert_eq!((&record["context"]["params"], &record["facts"], &record["policies"]), (&Value::Null, &json!({}), &json!([])));
    gate.get("/api/v1/rooms%2Eroles?rid=x", &login("bob")).await;
    let record = gate.last_decision();
    assert_eq!(
        (&record["action"], &record["door"], &record["reason"]),
        (&Value::Null, &json!("none"), &json!("target_ambiguous"))
    );
    assert!(gate.records_of("outcome").is_empty(), "a denial is answered by the gate: it has no outcome");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_its_answer_has_an_outcome_without_a_status() {
    let gate = Gate::rocketchat().await;
    let hold = gate.sample.hold(INFO);
    let mut connection = gate.connect().await;
    let mut head = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", about_bob(), connection.host);
    for (name, value) in login("bob") {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    connection.send(format!("{head}\r\n").as_bytes()).await;
    hold.until_waiting(1).await;
    drop(connection);
    let decision = gate.last_decision();
    let outcome = gate.outcome(&decision["id"]).await;
    assert_eq!(decision["decision"], "permit");
    assert_eq!((outcome.get("status"), &outcome["bytes"]), (Some(&Value::Null), &json!(0)));
    hold.release();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_request_and_an_upstreams_own_refusal_have_their_outcome_too() {
    let gate = Gate::rocketchat().await;
    let answer = gate.connect().await.request("HEAD", &about_bob(), &login("bob"), b"").await;
    assert_eq!((answer.status, gate.last_decision()["method"].as_str()), (200, Some("HEAD")));
    let outcome = gate.outcome(&gate.last_decision()["id"]).await;
    assert_eq!((&outcome["status"], &outcome["bytes"]), (&json!(200), &json!(0)));
    let answer = gate.get(&format!("{INFO}?userId=nobodyAtAll000000"), &login("bob")).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let outcome = gate.outcome(&gate.last_decision()["id"]).await;
    assert_eq!((&outcome["status"], outcome["bytes"].as_u64()), (&json!(400), Some(answer.body.len() as u64)));
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_tokens_nor_passwords_nor_values_of_undeclared_names_are_ever_in_the_log() {
    let secret = "s3cretThatMustNotBeThere0123456789abcdefghi";
    let gate = GateBuilder::rocketchat()
        .await
        .with(|config| config.listen.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()])
        .start();
    let host = gate.address();
    for target in [
        format!("{INFO}?userId={BOB}&token={secret}"),
        format!("{INFO}?userId={BOB}&{secret}"),
        format!("{INFO}?userId={BOB}&token%3D{secret}"),
        format!("{INFO}?%74oken={secret}"),
        format!("{INFO}?userId[]={secret}"),
        format!("{INFO}?token={secret}?userId={BOB}"),
        format!("{INFO};token={secret}?userId={BOB}"),
        format!("{INFO}#access_token={secret}"),
        format!("{INFO}%3Ftoken={secret}"),
        format!("{INFO}%23token={secret}"),
        format!("/api/v1/users%2Einfo?token={secret}"),
        format!("http://alice:{secret}@{host}{INFO}?userId={BOB}"),
        format!("http://alice:{secret}@{host}/api/v1/users%2Einfo"),
    ] {
        let mut connection = gate.connect().await;
        let answer = connection.get(&target, &login("bob")).await;
        assert_ne!(answer.status, 200, "{target}");
    }
    let credentials: [&[(&str, &str)]; 7] = [
        &[("X-User-Id", BOB), ("X-Auth-Token", secret)],
        &[("X-User-Id", secret), ("X-Auth-Token", "bob-token")],
        &[("X-Auth-Token", secret)],
        &[("Authorization", "Basic s3cretThatMustNotBeThere0123456789abcdefghi")],
        &[("Authorization", "Bearer s3cretThatMustNotBeThere0123456789abcdefghi")],
        &[("X-User-Id", BOB), ("X-Auth-Token", secret), ("X-Auth-Token", secret)],
        &[("X_Auth_Token", secret), ("X-Request-Id", "s3cretThatMustNotBeThere0123456789abcdefghi s"), ("Cookie", secret)],
    ];
    for headers in credentials {
        let headers: Vec<(&str, String)> = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        assert_ne!(gate.get(&about_bob(), &headers).await.status, 200);
    }
    let text = std::fs::read_to_string(gate.audit()).unwrap();
    // A part of it is a leak, too.
    let leaked: Vec<&str> = text.lines().filter(|line| line.contains(&secret[..10]) || line.contains("bob-token")).collect();
    assert!(leaked.is_empty(), "{}", leaked.join("\n"));
    assert!(gate.records_of("decision").len() >= 15, "{}", gate.records_of("decision").len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_recorded_up_to_its_bound() {
    let gate = Gate::rocketchat().await;
    gate.get(&format!("{INFO}?username={}", "x".repeat(5000)), &login("bob")).await;
    let target = gate.last_decision()["target"].as_str().unwrap().to_owned();
    assert!(target.len() <= 512 && target.starts_with(&format!("{INFO}?username=xxx")), "{target}");
}
