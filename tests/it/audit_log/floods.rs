//! Refusals that cost nothing to send are bounded in the log, and none of them is silent.

use rolegate::demo::world::workspace::BOARDROOM;
use rolegate::model::Mode;
use serde_json::Value;

use super::of_kind;
use crate::support::gate::login;
use crate::support::{Gate, GateBuilder};

const GUARDED: &str = "/api/v1/users.info?username=bob";

/// The refusals that `suppressed` records tell of, for one reason.
fn told(suppressed: &[Value], reason: &str) -> u64 {
    suppressed.iter().filter_map(|record| record["reasons"][reason].as_u64()).sum()
}

fn recorded(gate: &Gate, reason: &str) -> u64 {
    gate.records_of("decision").iter().filter(|record| record["reason"] == reason).count() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_without_credentials_leaves_few_records_and_every_refusal_is_counted() {
    let mut gate = GateBuilder::rocketchat().await.with(|config| config.audit.refusals_per_address = 2).start();
    let mut connection = gate.connect().await;
    for _ in 0..150 {
        let refused = connection.get(GUARDED, &[]).await;
        assert_eq!(refused.status, 401);
        assert!(refused.header("x-request-id").is_some());
        assert_eq!(gate.connect().await.get("/api/v1/%2e", &[]).await.status, 400);
    }
    // Whoever is known is recorded, permitted or not, in the midst of it.
    let denied = format!("/api/v1/rooms.roles?rid={BOARDROOM}");
    for _ in 0..30 {
        assert_eq!(connection.get(GUARDED, &login("bob")).await.status, 200);
        assert_eq!(connection.get(&denied, &login("eve")).await.status, 403);
    }
    let counted = gate.metric("rolegate_audit_suppressed_total{reason=\"credential_missing\"}").await;
    assert!(gate.stop().await);
    let suppressed = gate.records_of("suppressed");
    assert!((1..=10).contains(&suppressed.len()), "{suppressed:?}");
    assert!(
        suppressed.iter().all(|record| record["client"] == "127.0.0.1" && record["since"].as_str() <= record["until"].as_str())
    );
    for reason in ["credential_missing", "target_ambiguous"] {
        assert_eq!(recorded(&gate, reason) + told(&suppressed, reason), 150, "{reason}");
    }
    assert_eq!(counted, told(&suppressed, "credential_missing") as f64);
    let alone = recorded(&gate, "credential_missing") + recorded(&gate, "target_ambiguous");
    assert!((20..200).contains(&alone), "{alone}");
    assert_eq!((recorded(&gate, "policy_denied"), gate.records_of("outcome").len()), (30, 30));
    let kinds = of_kind(&[gate.audit()], &["suppressed", "stop"]);
    assert_eq!(kinds.last().unwrap()["kind"], "stop", "what was counted is told before the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observed_request_that_goes_on_always_leaves_its_record() {
    let gate = GateBuilder::rocketchat()
        .await
        .with(|config| config.audit.refusals_per_address = 1)
        .upstream(|upstream| upstream.mode = Mode::Observe)
        .start();
    let mut connection = gate.connect().await;
    for _ in 0..30 {
        connection.get(GUARDED, &[]).await;
    }
    assert_eq!(recorded(&gate, "credential_missing"), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_address_has_its_own_bound() {
    let gate = GateBuilder::rocketchat()
        .await
        .with(|config| {
            config.audit.refusals_per_address = 1;
            config.listen.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        })
        .start();
    let mut connection = gate.connect().await;
    let mut from = async |client: &str| {
        let forwarded = [("X-Forwarded-For", client.to_owned())];
        assert_eq!(connection.get(GUARDED, &forwarded).await.status, 401);
    };
    for number in 0..40 {
        from("203.0.113.7").await;
        // One person's addresses.
        from(&format!("2001:db8::{number:x}")).await;
    }
    from("203.0.113.8").await;
    let by = |client: &str| {
        let decisions = gate.records_of("decision");
        decisions.iter().filter(|record| record["context"]["client"].as_str().unwrap().starts_with(client)).count()
    };
    for client in ["203.0.113.7", "2001:db8::"] {
        assert!((10..30).contains(&by(client)), "{client}: {}", by(client));
    }
    assert_eq!(by("203.0.113.8"), 1);
}
