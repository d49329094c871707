//! The failure table: what each way in which a lookup can go wrong means, and that none of them is remembered.

use std::time::Duration;

use rolegate::demo::Behaviour;
use rolegate::demo::world::account::{ACCOUNT, ROOM};
use rolegate::demo::world::workspace::{BOARDROOM, BOB, EVE};
use serde_json::json;

use super::{INFO, ME, PERMISSIONS, ROLES, SUBSCRIPTION, about_bob, policies_with, roles_of};
use crate::support::gate::{bearer, login};
use crate::support::{Connection, Gate, GateBuilder};

const JSON: &str = "application/json";

/// An answer with headers.
fn answer(status: u16, headers: &[(&str, &str)], body: &'static str) -> Behaviour {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Behaviour::Answer { status, headers, body: body.into() }
}

/// Makes everybody and everything unknown to the gate.
async fn forget(gate: &Gate) {
    let mut admin = Connection::open(gate.admin()).await;
    assert_eq!(admin.request("POST", "/facts/invalidate", &[], br#"{"all":true}"#).await.status, 200);
}

/// What can be answered, the status and the reason it means, and what the operator is told.
fn table() -> Vec<(&'static str, Behaviour, &'static str, &'static str)> {
    vec![
        ("500", Behaviour::json(500, "{}"), "facts_unavailable", "answered 500"),
        ("503", Behaviour::json(503, "{}"), "facts_unavailable", "answered 503"),
        ("404", Behaviour::json(404, "{}"), "facts_unavailable", "answered 404"),
        ("a redirect", answer(302, &[("location", "/login")], ""), "facts_unavailable", "answered 302"),
        ("not JSON", answer(200, &[("content-type", "text/html")], "<html>maintenance</html>"), "facts_unavailable", "not JSON"),
        ("half of it", Behaviour::json(200, r#"{"_id":"bob"#), "facts_unavailable", "not JSON"),
        ("no body", Behaviour::json(200, ""), "facts_unavailable", "not JSON"),
        ("nothing in it", Behaviour::json(200, "{}"), "facts_unavailable", ""),
        ("something else", Behaviour::json(200, r#"[1,2,3]"#), "facts_unavailable", ""),
        ("a hang-up", Behaviour::Close, "facts_unavailable", "broke off"),
        ("429", Behaviour::json(429, r#"{"success":false}"#), "facts_limited", "limits"),
        ("429 in HTML", answer(429, &[], "slow down"), "facts_limited", "limits"),
        ("a limit's code", Behaviour::json(400, r#"{"errorCode":"X_LIMIT_EXCEEDED"}"#), "facts_limited", "limits"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_of_the_caller_lookup_has_its_reason_and_none_is_remembered() {
    let gate = Gate::rocketchat().await;
    for (name, behaviour, reason, detail) in table() {
        gate.sample.forget();
        gate.sample.behave(ME, behaviour);
        let refused = gate.get(&about_bob(), &login("bob")).await;
        let record = gate.last_decision();
        assert_eq!((refused.status, record["reason"].as_str()), (503, Some(reason)), "{name}: {}", refused.text());
        assert!(record["detail"].as_str().unwrap().contains(detail), "{name}: {}", record["detail"]);
        assert_eq!(record["subject"], json!(null), "{name}");
        assert_eq!(refused.header("retry-after"), Some("5"), "{name}");
        assert_eq!(gate.sample.count(INFO), 0, "{name}");
        gate.sample.calm();
        let next = gate.get(&about_bob(), &login("bob")).await;
        assert_eq!(next.status, 200, "{name}: it is not remembered");
        forget(&gate).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_of_a_table_or_a_fact_has_the_same_reason() {
    let gate = Gate::rocketchat().await;
    for path in [PERMISSIONS, SUBSCRIPTION] {
        for (name, behaviour, reason, _) in table() {
            // A subscription that is not there is no failure: it is how the server says "no member".
            if path == SUBSCRIPTION && matches!(name, "nothing in it" | "something else") {
                continue;
            }
            forget(&gate).await;
            gate.sample.behave(path, behaviour);
            let refused = gate.get(&roles_of(BOARDROOM), &login("bob")).await;
            let record = gate.last_decision();
            assert_eq!((refused.status, record["reason"].as_str()), (503, Some(reason)), "{path} {name}: {}", refused.text());
            assert_eq!(record["subject"]["id"], BOB, "{path} {name}: who asked is known");
        }
        gate.sample.calm();
        assert_eq!(gate.get(&roles_of(BOARDROOM), &login("bob")).await.status, 200, "{path}");
    }
    assert_eq!(gate.sample.count("/api/v1/rooms.roles"), 2, "only what was permitted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_that_hangs_is_given_up_after_its_bound() {
    let gate = GateBuilder::rocketchat().await.with(|config| config.facts.lookup_timeout = Duration::from_millis(200)).start();
    for path in [ME, PERMISSIONS, SUBSCRIPTION] {
        let hold = gate.sample.hold(path);
        let began = std::time::Instant::now();
        let refused = gate.get(&roles_of(BOARDROOM), &login("bob")).await;
        assert_eq!((refused.status, gate.last_decision()["reason"].as_str()), (503, Some("facts_unavailable")), "{path}");
        assert!(began.elapsed() < Duration::from_secs(3), "{path}: {:?}", began.elapsed());
        gate.sample.calm();
        hold.release();
    }
    assert_eq!(gate.get(&roles_of(BOARDROOM), &login("bob")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_says_when_it_ends_by_the_upstreams_own_header() {
    let gate = Gate::rocketchat().await;
    let now = i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let reset = (now + 42_000).to_string();
    gate.sample.behave(ME, answer(429, &[("content-type", JSON), ("x-ratelimit-reset", &reset)], r#"{"success":false}"#));
    let limited = gate.get(&about_bob(), &login("bob")).await;
    assert_eq!((limited.status, gate.last_decision()["reason"].as_str()), (503, Some("facts_limited")));
    let seconds: u64 = limited.header("retry-after").unwrap().parse().unwrap();
    assert!((30..=42).contains(&seconds), "{seconds}");

    // The real server's limit, as the sample keeps it: ten calls a minute for each address and route.
    gate.sample.calm();
    gate.sample.with(|world| world.workspace.limiter.calls = Some(1));
    assert_eq!(gate.get(&roles_of("nowhere01"), &login("eve")).await.status, 403);
    let second = gate.get(&roles_of("nowhere02"), &login("eve")).await;
    assert_eq!((second.status, gate.last_decision()["reason"].as_str()), (503, Some("facts_limited")));
    assert!((1..=60).contains(&second.header("retry-after").unwrap().parse::<u64>().unwrap()));
    assert_eq!(gate.get(&roles_of("nowhere01"), &login("carol")).await.status, 403, "carol has a share of her own");
}

#[tokio::test(flavor = "multi_thread")]
async fn docusigns_limit_is_a_400_and_yet_a_limit() {
    let gate = Gate::docusign().await;
    gate.sample.with(|world| world.account.exhausted = true);
    let answer = gate.get(&format!("/restapi/v2/accounts/{ACCOUNT}/rooms/{ROOM}/users"), &bearer("bob")).await;
    assert_eq!((answer.status, gate.last_decision()["reason"].as_str()), (503, Some("facts_limited")));
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let told: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!(told.abs_diff(3600 - now % 3600) <= 5 || told >= 3595 || told <= 5, "until the hour is full: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answered_id_that_is_not_the_claimed_one_is_a_refusal() {
    let gate = Gate::rocketchat().await;
    gate.sample.behave(ME, Behaviour::json(200, format!(r#"{{"_id":"{EVE}","username":"eve","roles":["admin"]}}"#)));
    let refused = gate.get(&about_bob(), &login("bob")).await;
    assert_eq!((refused.status, gate.last_decision()["reason"].as_str()), (401, Some("credential_refused")));
    gate.sample.calm();
    assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 401, "a refusal is remembered");
    assert_eq!((gate.sample.count(ME), gate.sample.count(INFO)), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_to_a_fact_is_no_refusal_unless_the_caller_lookup_says_so() {
    let gate = Gate::rocketchat().await;
    let unauthorized = || Behaviour::json(401, r#"{"status":"error"}"#);
    for path in [SUBSCRIPTION, PERMISSIONS] {
        gate.sample.behave(path, unauthorized());
    }
    let doubtful = gate.get(&roles_of(BOARDROOM), &login("bob")).await;
    assert_eq!((doubtful.status, gate.last_decision()["reason"].as_str()), (503, Some("facts_unavailable")));
    assert_eq!(gate.sample.count(ME), 2, "asked once more, and it is good");
    gate.sample.behave(ME, unauthorized());
    let refused = gate.get(&roles_of(BOARDROOM), &login("bob")).await;
    assert_eq!((refused.status, gate.last_decision()["reason"].as_str()), (401, Some("credential_refused")));
    assert_eq!(gate.sample.count(ME), 3);
    assert_eq!(gate.get(&roles_of(BOARDROOM), &login("bob")).await.status, 401);
    assert_eq!(gate.sample.count(ME), 3, "and remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_fact_stands_in_for_a_failed_lookup_and_says_so() {
    let gate = GateBuilder::rocketchat()
        .await
        .with(|config| {
            config.facts.ttl = Duration::from_nanos(1);
            config.facts.max_stale = Duration::from_secs(60);
        })
        .start();
    assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 200);
    assert_eq!(gate.last_decision()["facts"]["caller"]["stale"], json!(null));
    gate.sample.behave(ME, Behaviour::json(500, "{}"));
    let mut connection = gate.connect().await;
    assert_eq!(connection.get(&about_bob(), &login("bob")).await.status, 200);
    assert_eq!(gate.last_decision()["facts"]["caller"]["stale"], true);
    assert!(gate.metric(r#"rolegate_fact_lookups_total{fact="caller",outcome="stale",provider="rocketchat"}"#).await >= 1.0);
    assert!(gate.sample.count(ME) >= 2, "the lookup was tried");
    gate.sample.behave(ME, Behaviour::json(429, "{}"));
    assert_eq!(connection.get(&about_bob(), &login("bob")).await.status, 503, "a limit is not covered by what was known");
    gate.sample.behave(ME, Behaviour::json(401, "{}"));
    assert_eq!(connection.get(&about_bob(), &login("bob")).await.status, 401, "nor is a refusal");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_max_stale_a_failed_lookup_is_a_refusal_however_fresh_the_old_fact() {
    let gate = GateBuilder::rocketchat().await.with(|config| config.facts.ttl = Duration::from_nanos(1)).start();
    assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 200);
    gate.sample.behave(ME, Behaviour::json(500, "{}"));
    let mut connection = gate.connect().await;
    assert_eq!(connection.get(&about_bob(), &login("bob")).await.status, 503);
    assert_eq!(gate.last_decision()["reason"], "facts_unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_permission_table_stands_in_too_and_is_marked_where_it_is_used() {
    let builder = GateBuilder::rocketchat().await;
    let folder = policies_with(builder.folder.path(), "rocketchat", "ttl = \"60s\"", "ttl = \"1ms\"");
    let gate = builder
        .with(|config| {
            config.policies.directory = Some(folder);
            config.facts.max_stale = Duration::from_secs(60);
        })
        .start();
    let target = "/api/v1/roles.getUsersInRole?role=auditor";
    assert_eq!(gate.get(target, &login("alice")).await.status, 200);
    let known = gate.last_decision();
    assert_eq!((&known["facts"]["permissions"], &known["facts"]["role_scope"]), (&json!(null), &json!(null)));
    for path in [PERMISSIONS, ROLES] {
        gate.sample.behave(path, Behaviour::json(500, "{}"));
    }
    assert_eq!(gate.get(target, &login("alice")).await.status, 200);
    let facts = gate.last_decision()["facts"].clone();
    assert_eq!((&facts["permissions"]["stale"], &facts["role_scope"]["stale"]), (&json!(true), &json!(true)), "{facts}");
    assert!(facts["permissions"]["age_ms"].is_u64(), "{facts}");
}
