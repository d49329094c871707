//! Which answers to lookups are believed, and what one odd row or one missing field costs.

use std::collections::BTreeMap;

use rolegate::demo::Behaviour;
use rolegate::demo::world::workspace::{ALICE, BOARDROOM, BOB};
use serde_json::{Value, json};

use crate::support::gate::login;
use crate::support::{Gate, GateBuilder};

const ME: &str = "/api/v1/me";
const PERMISSIONS: &str = "/api/v1/permissions.listAll";
const ROLES: &str = "/api/v1/roles.list";
const INFO: &str = "/api/v1/users.info";

fn about_bob() -> String {
    format!("{INFO}?userId={BOB}")
}

fn answered(status: u16, headers: &[(&str, &str)], body: &str) -> Behaviour {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Behaviour::Answer { status, headers, body: body.to_owned().into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_two_readings_or_of_somebody_else_is_a_503_and_nothing_arrives() {
    let json = ("content-type", "application/json");
    let good = format!(r#"{{"_id":"{BOB}","username":"bob","roles":["user"],"success":true}}"#);
    for (name, behaviour) in [
        ("a name twice", format!(r#"{{"_id":"{BOB}","roles":["user"],"roles":["admin"],"success":true}}"#)),
        ("an id twice", format!(r#"{{"_id":"{BOB}","_id":"{BOB}","roles":["admin"],"success":true}}"#)),
        ("two ids, the caller's last", format!(r#"{{"_id":"{ALICE}","_id":"{BOB}","roles":["user"],"success":true}}"#)),
        ("two ids, the caller's first", format!(r#"{{"_id":"{BOB}","_id":"{ALICE}","roles":["user"],"success":true}}"#)),
        ("no success", format!(r#"{{"success":false,"_id":"{BOB}","roles":["admin"]}}"#)),
        ("roles in a text", format!(r#"{{"success":true,"_id":"{BOB}","roles":"admin"}}"#)),
    ]
    .map(|(name, body)| (name, answered(200, &[json], &body)))
    .into_iter()
    .chain([
        ("a part", answered(206, &[json, ("content-range", "bytes 0-1/9")], &good)),
        ("a coding that was not asked for", answered(200, &[json, ("content-encoding", "gzip")], &good)),
        ("somebody else's", answered(203, &[json], &good)),
    ]) {
        let gate = Gate::rocketchat().await;
        gate.sample.behave(ME, behaviour);
        let answer = gate.get(&about_bob(), &login("bob")).await;
        assert_eq!((answer.status, gate.last_decision()["reason"].as_str()), (503, Some("facts_unavailable")), "{name}");
        assert_eq!(gate.sample.count(INFO), 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_roles_is_one_with_none() {
    for roles in ["", r#""roles":null,"#] {
        let gate = Gate::rocketchat().await;
        gate.sample.behave(ME, Behaviour::json(200, format!(r#"{{{roles}"_id":"{BOB}","username":"bob","success":true}}"#)));
        assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 200, "{roles}");
        assert_eq!(gate.last_decision()["subject"]["roles"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_odd_row_of_a_table_costs_that_row() {
    let gate = Gate::rocketchat().await;
    let rows = json!([{"_id": "old", "name": "old"}, {"_id": "admin", "scope": "Users"}, {"_id": "odd", "scope": {}}, "x"]);
    gate.sample.behave(ROLES, Behaviour::json(200, json!({"roles": rows, "success": true}).to_string()));
    let rows = json!([{"_id": "odd"}, {"roles": ["user"]}, {"_id": "access-permissions", "roles": ["user"]}]);
    let told = json!({"update": rows, "remove": [], "success": true}).to_string();
    gate.sample.behave(PERMISSIONS, Behaviour::json(200, told));
    let asked: BTreeMap<&str, (u16, Value)> = {
        let mut asked = BTreeMap::new();
        for role in ["admin", "old", "odd"] {
            let target = format!("/api/v1/roles.getUsersInRole?role={role}");
            let status = gate.get(&target, &login("bob")).await.status;
            asked.insert(role, (status, gate.last_decision()["context"]["table"]["role_scope"].clone()));
        }
        asked
    };
    // What the sample server says to a permitted request is not the gate's verdict.
    assert_ne!(asked["admin"].0, 503);
    assert_eq!(asked["admin"].1, "Users");
    assert_eq!(asked["old"].1, "Users", "as the server reads a role without a scope");
    assert_eq!(asked["odd"], (403, Value::Null), "a scope that cannot be read is not known");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_may_be_as_large_as_the_operator_says() {
    let padding = json!({"_id": "padding", "roles": [], "note": "x".repeat(2 << 20)});
    let view = json!({"_id": "view-c-room", "roles": ["user"]});
    let large = json!({"update": [padding, view], "remove": [], "success": true}).to_string();
    let gate = Gate::rocketchat().await;
    gate.sample.behave(PERMISSIONS, Behaviour::json(200, large.clone()));
    assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 200, "two megabytes are far from the default bound");

    let gate = GateBuilder::rocketchat().await.with(|config| config.limits.lookup_body = 1 << 20).start();
    gate.sample.behave(PERMISSIONS, Behaviour::json(200, large));
    assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 503);
    assert!(gate.last_decision()["detail"].as_str().unwrap().contains("`limits.lookup_body`"), "the record names the key");
    assert_eq!(gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login("bob")).await.status, 503);
}
