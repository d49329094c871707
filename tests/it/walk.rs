//! The main job: who may see what, and the record that is left.

use serde_json::json;

use crate::support::gate::{bearer, login};
use crate::support::{Gate, until};
use rolegate::demo::world::account::ACCOUNT;
use rolegate::demo::world::workspace::{BOARDROOM, BOB, CAROL};

#[tokio::test(flavor = "multi_thread")]
async fn a_member_sees_who_owns_the_room_and_the_record_says_why() {
    let gate = Gate::rocketchat().await;
    let answer = gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login("carol")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["roles"][0]["u"]["username"], "bob");
    let record = gate.last_decision();
    assert_eq!(record["decision"], "permit");
    assert_eq!(record["policies"], json!(["rooms-roles-member"]));
    assert_eq!(record["subject"], json!({ "type": "User", "id": CAROL, "name": "carol", "roles": ["user"] }));
    assert_eq!(record["resource"], json!({ "type": "Room", "id": BOARDROOM }));
    assert_eq!(record["context"]["room"]["member"], true);
    let outcome = gate.outcome(&record["id"]).await;
    assert_eq!(outcome["status"], 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outsider_is_refused_in_the_servers_own_words_and_the_server_hears_nothing_of_it() {
    let gate = Gate::rocketchat().await;
    let mut connection = gate.connect().await;
    let answer = connection.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login("eve")).await;
    assert_eq!(answer.status, 403);
    assert_eq!(
        answer.text(),
        r#"{"success":false,"error":"User does not have the permissions required for this action [error-unauthorized]"}"#
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-request-id"), gate.last_decision()["id"].as_str());
    assert_eq!(gate.sample.count("/api/v1/rooms.roles"), 0);
    let again = connection.get(&format!("/api/v1/users.info?userId={BOB}"), &login("eve")).await;
    assert_eq!(again.status, 200, "the connection lives on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_judged_is_what_is_sent() {
    let gate = Gate::rocketchat().await;
    let mut headers = login("eve");
    headers.push(("X-Forwarded-For", "10.9.8.7".into()));
    headers.push(("X-Secret", "smuggled".into()));
    let answer = gate.get("/api/v1/users.info?username=bob&includeUserRooms=true", &headers).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["user"]["rooms"], json!(null));
    let seen = gate.sample.seen().into_iter().find(|seen| seen.target.starts_with("/api/v1/users.info")).unwrap();
    assert_eq!(seen.target, "/api/v1/users.info?username=bob");
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-secret"), None);
    let record = gate.last_decision();
    assert_eq!(seen.header("x-request-id"), record["id"].as_str());
    assert_eq!(record["obligations"], json!({ "without": ["fields", "includeUserRooms"] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_gate_guards_a_docusign_room() {
    let gate = Gate::docusign().await;
    let target = format!("/restapi/v2/accounts/{ACCOUNT}/rooms/1234/users");
    assert_eq!(gate.get(&target, &bearer("bob")).await.status, 200);
    let refused = gate.get(&target, &bearer("eve")).await;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.json()["errorCode"], "ROLEGATE_ACCESS_DENIED");
    assert_eq!(refused.json()["referenceId"], gate.last_decision()["id"]);
    until("both requests to be counted", || (gate.records_of("decision").len() == 2).then_some(())).await;
}
