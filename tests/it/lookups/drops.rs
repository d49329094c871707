//! What is forgotten, when, and that a lookup under way does not bring it back.

use std::time::{Duration, Instant};

use rolegate::demo::Behaviour;
use rolegate::demo::world::workspace::{AUDREY, BOARDROOM, BOB};
use serde_json::json;

use super::{INFO, ME, PERMISSIONS, about_bob, policies_with, roles_of};
use crate::support::gate::login;
use crate::support::{Connection, Gate, GateBuilder, PATIENCE};

/// Anything the server says to a request whose login it does not accept.
fn unauthorized() -> Behaviour {
    Behaviour::json(401, r#"{"status":"error","message":"You must be logged in to do this."}"#)
}

/// Tells the gate to forget the caller, and gives back how many entries that were.
async fn invalidate(gate: &Gate, order: &str) -> u64 {
    let mut admin = Connection::open(gate.admin()).await;
    let answer = admin.request("POST", "/facts/invalidate", &[], order.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["dropped"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_dropped_during_its_lookup_is_looked_up_again_and_the_late_answer_is_not_kept() {
    let gate = Gate::rocketchat().await;
    let hold = gate.sample.hold(ME);
    let address = gate.address();
    let asking = tokio::spawn(async move { Connection::open(address).await.get(&about_bob(), &login("bob")).await });
    hold.until_waiting(1).await;
    // The lookup is with the server; the server has not looked yet. What it will say was made stale by this very drop.
    gate.sample.calm();
    gate.sample.behave(ME, unauthorized());
    invalidate(&gate, &format!(r#"{{"subject":"{BOB}"}}"#)).await;
    hold.release();
    let answer = asking.await.unwrap();
    assert_eq!(answer.status, 401, "the first lookup's answer, a good one, was for a caller that has been dropped");
    assert_eq!(gate.sample.count(ME), 2);
    assert_eq!(gate.sample.count(INFO), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_dropped_during_a_lookup_stays_dropped() {
    let gate = Gate::rocketchat().await;
    let hold = gate.sample.hold(PERMISSIONS);
    let address = gate.address();
    let asking = tokio::spawn(async move { Connection::open(address).await.get(&about_bob(), &login("bob")).await });
    hold.until_waiting(1).await;
    assert_eq!(invalidate(&gate, r#"{"all":true}"#).await, 1, "bob; the table was not there yet");
    hold.release();
    assert_eq!(asking.await.unwrap().status, 200);
    assert_eq!(gate.sample.count(PERMISSIONS), 2);
    let record = gate.records_of("invalidate").pop().unwrap();
    assert_eq!((&record["subject"], &record["dropped"]), (&json!(null), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_to_a_forwarded_request_drops_the_credential_at_most_once_per_refused_ttl() {
    let gate = Gate::rocketchat().await;
    let dropped = "rolegate_fact_invalidations_total{cause=\"unauthorized\"}";
    gate.sample.behave(INFO, unauthorized());
    assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 401, "the server's own answer");
    assert_eq!((gate.sample.count(ME), gate.metric(dropped).await), (1, 1.0));
    for _ in 0..3 {
        assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 401);
    }
    assert_eq!(gate.sample.count(ME), 2, "asked anew once, then known for as long as a refusal is");
    assert_eq!(gate.metric(dropped).await, 1.0);
    assert_eq!(gate.records_of("decision").iter().filter(|record| record["decision"] == "permit").count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_has_ended_is_refused_from_the_servers_first_401_on() {
    let gate = Gate::rocketchat().await;
    assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 200);
    gate.sample.with(|world| world.workspace.revoke("bob-token"));
    assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 401);
    assert_eq!(gate.sample.count(INFO), 2, "bob was still known, so the server had the last word");
    assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 401);
    assert_eq!(gate.sample.count(INFO), 2, "and now it is not asked any more");
    assert_eq!(gate.last_decision()["reason"], "credential_refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_on_an_open_route_drops_the_credential_except_where_it_means_something_else() {
    let gate = Gate::rocketchat().await;
    assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 200);
    for kept in ["/api/v1/rooms.membersOrderedByRole", "/api/v1/rooms.bannedUsers"] {
        gate.sample.behave(kept, unauthorized());
        assert_eq!(gate.get(&format!("{kept}?roomId={BOARDROOM}"), &login("bob")).await.status, 401);
        assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 200);
        assert_eq!(gate.sample.count(ME), 1, "{kept}: the server says that for want of a permission");
    }
    gate.sample.behave("/api/v1/users.list", unauthorized());
    assert_eq!(gate.get("/api/v1/users.list", &login("bob")).await.status, 401);
    assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 200);
    assert_eq!(gate.sample.count(ME), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_taken_away_counts_for_its_ttl_and_no_longer() {
    let ttl = Duration::from_secs(1);
    let gate = GateBuilder::rocketchat().await.with(|config| config.facts.ttl = ttl).start();
    let target = format!("/api/v1/audit/rooms.members?roomId={BOARDROOM}");
    let mut connection = gate.connect().await;
    let began = Instant::now();
    assert_eq!(connection.get(&target, &login("audrey")).await.status, 200);
    gate.sample.with(|world| world.workspace.set_roles(AUDREY, &["user"]));
    while gate.last_decision()["decision"] == "permit" {
        assert!(began.elapsed() < ttl + PATIENCE, "the role still counts");
        assert!(gate.sample.count(ME) <= 1 || began.elapsed() >= ttl, "asked anew before its time");
        connection.get(&target, &login("audrey")).await;
    }
    assert!(began.elapsed() >= ttl, "{:?}", began.elapsed());
    let record = gate.last_decision();
    assert_eq!((record["reason"].as_str(), &record["subject"]["roles"]), (Some("policy_denied"), &json!(["user"])));
    assert_eq!(gate.sample.count(ME), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_who_leaves_is_an_outsider_once_the_gate_is_told() {
    let gate = Gate::rocketchat().await;
    assert_eq!(gate.get(&roles_of(BOARDROOM), &login("bob")).await.status, 200);
    gate.sample.with(|world| world.workspace.leave(BOB, BOARDROOM));
    invalidate(&gate, &format!(r#"{{"subject":"{BOB}"}}"#)).await;
    assert_eq!(gate.get(&roles_of(BOARDROOM), &login("bob")).await.status, 403);
    assert_eq!(gate.last_decision()["context"]["room"]["member"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guarded_route_can_answer_401_for_other_reasons_too() {
    let builder = GateBuilder::rocketchat().await;
    let kept = format!("keep_on_401 = [\"{INFO}\", ");
    let folder = policies_with(builder.folder.path(), "rocketchat", "keep_on_401 = [", &kept);
    let gate = builder.with(|config| config.policies.directory = Some(folder)).start();
    gate.sample.behave(INFO, unauthorized());
    for _ in 0..2 {
        assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 401);
    }
    assert_eq!(gate.sample.count(ME), 1);
    gate.sample.behave("/api/v1/rooms.roles", unauthorized());
    for _ in 0..2 {
        assert_eq!(gate.get(&roles_of(BOARDROOM), &login("bob")).await.status, 401);
    }
    assert_eq!(gate.sample.count(ME), 2, "only what the provider file names is kept");
}
