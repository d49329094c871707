//! What the shipped Matrix folder makes of a homeserver's answers: membership, power, and who is an administrator.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use rolegate::identity::{Ask, AskError, Failure, Identity, LookupAddress, Question, Reply, Settings};
use rolegate::metrics::Metrics;
use rolegate::model::{Credential, Record, Secret};
use rolegate::rules::{Ruleset, Sources};
use serde_json::{Value, json};

const ME: &str = "@carol:example.org";
const ROOM: &str = "!r:example.org";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A homeserver that answers by the end of the target, and 403 to everything else, as Synapse does to an outsider.
struct Homeserver(HashMap<&'static str, (u16, Value)>);

impl Ask for Homeserver {
    async fn ask(&self, question: Question) -> Result<Reply, AskError> {
        let (status, body) = if question.target == "/_matrix/client/v3/account/whoami" {
            let device = self.0.contains_key(DEVICE).then_some("D1");
            (200, json!({ "user_id": ME, "is_guest": false, "device_id": device }))
        } else {
            let known = self.0.iter().find(|(end, _)| question.target.ends_with(*end));
            known.map_or((403, json!({ "errcode": "M_FORBIDDEN" })), |(_, answer)| answer.clone())
        };
        Ok(Reply { status, headers: Vec::new(), body: body.to_string().into_bytes() })
    }
}

async fn fact(name: &str, answers: &[(&'static str, u16, Value)]) -> Result<Arc<Record>, Failure> {
    let ruleset = Ruleset::load(&Sources::built_in(), &[]).unwrap();
    let plan = Arc::clone(&ruleset.provider("matrix").unwrap().provider.plan);
    let answers = answers.iter().map(|(end, status, body)| (*end, (*status, body.clone()))).collect();
    let settings = Settings {
        upstream: "http://homeserver".into(),
        host: None,
        ttl: Duration::from_secs(30),
        max_stale: Duration::ZERO,
        refused_ttl: Duration::from_secs(5),
        capacity: 100,
        lookup_timeout: Duration::from_secs(3),
        lookup_address: LookupAddress::Caller,
        lookups: 10,
        lookups_per_address: 10,
        service: None,
    };
    let identity = Identity::new(settings, Homeserver(answers), Metrics::new().unwrap()).unwrap();
    let credential = Credential { headers: vec![("authorization".into(), Secret::new("Bearer t"))] };
    let caller = identity.caller(&plan, &credential, CLIENT).await?.value;
    let inputs: &[(&str, &str)] = if name == "server" { &[] } else { &[("room", ROOM)] };
    Ok(identity.fact(&plan, name, &caller, &credential, inputs, CLIENT).await?.value)
}

const MEMBER: &str = "/rooms/%21r%3Aexample.org/state/m.room.member/%40carol%3Aexample.org";
const LEVELS: &str = "/rooms/%21r%3Aexample.org/state/m.room.power_levels";
const CREATE: &str = "/rooms/%21r%3Aexample.org/state/m.room.create?format=event";
const VISIBILITY: &str = "/rooms/%21r%3Aexample.org/state/m.room.history_visibility";
const JOINED: &str = "/rooms/%21r%3Aexample.org/joined_members";
/// Not a route: whether the caller's session has a device.
const DEVICE: &str = "(device)";
const ADMIN: &str = "/_synapse/admin/v1/users/%40carol%3Aexample.org/admin";

fn created(version: Option<&str>, sender: &str, additional: &[&str]) -> Value {
    json!({ "sender": sender, "content": { "room_version": version, "additional_creators": additional } })
}

#[tokio::test]
async fn membership_is_what_the_server_shows_the_caller() {
    for (answers, joined, was, world_readable) in [
        (vec![(MEMBER, 200, json!({ "membership": "join" }))], true, false, false),
        (vec![(MEMBER, 200, json!({ "membership": "leave" }))], false, true, false),
        (vec![(MEMBER, 200, json!({ "membership": "invite" }))], false, false, false),
        (vec![], false, false, false),
        (
            vec![(MEMBER, 404, json!({})), (VISIBILITY, 200, json!({ "history_visibility": "world_readable" }))],
            false,
            false,
            true,
        ),
        (vec![(MEMBER, 404, json!({})), (VISIBILITY, 200, json!({ "history_visibility": "shared" }))], false, false, false),
    ] {
        let room = fact("room", &answers).await.unwrap();
        let told = |name: &str| room.value(name).unwrap().to_string();
        assert_eq!(
            (told("joined"), told("was"), told("world_readable")),
            (joined.to_string(), was.to_string(), world_readable.to_string()),
            "{answers:?}"
        );
    }
    let failed = fact("room", &[(MEMBER, 500, json!({}))]).await;
    assert!(matches!(failed, Err(Failure::Unavailable { .. })), "a server in trouble is not an outsider: {failed:?}");
    let limited = fact("room", &[(MEMBER, 429, json!({ "errcode": "M_LIMIT_EXCEEDED" }))]).await;
    assert!(matches!(limited, Err(Failure::Limited { .. })), "{limited:?}");
}

#[tokio::test]
async fn power_makes_roles_and_creators_stand_above_it_from_room_version_12_on() {
    let join = || (MEMBER, 200, json!({ "membership": "join" }));
    let levels = |levels: Value| (LEVELS, 200, levels);
    let by = |sender, version| (CREATE, 200, created(version, sender, &["@x:example.org", ME]));
    let bob = "@bob:example.org";
    let all = "admin, moderator, member";
    for (name, answers, roles) in [
        ("an outsider", vec![], ""),
        ("who left", vec![(MEMBER, 200, json!({ "membership": "leave" })), levels(json!({ "users": { ME: 100 } }))], ""),
        ("a plain member", vec![join(), levels(json!({ "users": { bob: 50 } })), by(bob, Some("11"))], "member"),
        ("a muted member", vec![join(), levels(json!({ "users": { ME: -1 } })), by(bob, Some("11"))], "member"),
        ("a moderator", vec![join(), levels(json!({ "users": { ME: 50 } })), by(bob, Some("11"))], "moderator, member"),
        ("one whose level is a text", vec![join(), levels(json!({ "users": { ME: "100" } })), by(bob, Some("6"))], all),
        ("everybody", vec![join(), levels(json!({ "users_default": 50 })), by(bob, Some("11"))], "moderator, member"),
        ("a creator of version 12", vec![join(), levels(json!({ "users": {} })), by(ME, Some("12"))], all),
        ("an additional creator", vec![join(), levels(json!({ "users": {} })), by(bob, Some("12"))], all),
        ("a creator of version 11", vec![join(), levels(json!({ "users": {} })), by(ME, Some("11"))], "member"),
        ("additional creators of version 11 are none", vec![join(), levels(json!({})), by(bob, Some("11"))], "member"),
        ("a version that is not known", vec![join(), levels(json!({})), by(ME, Some("99"))], "member"),
        ("a creator without power levels", vec![join(), (LEVELS, 404, json!({})), by(ME, None)], all),
        ("a member without power levels", vec![join(), (LEVELS, 404, json!({})), by(bob, None)], "member"),
    ] {
        let power = fact("power", &answers).await.unwrap();
        let rolegate::model::Value::Set(found) = power.value("roles").unwrap() else { panic!("{name}") };
        assert_eq!(found.join(", "), roles, "{name}: {power:?}");
    }
    let unreadable = fact("power", &[join(), levels(json!({ "users": { ME: "much" } })), by(bob, None)]).await;
    assert!(matches!(unreadable, Err(Failure::Unavailable { .. })), "{unreadable:?}");
}

#[tokio::test]
async fn a_server_administrator_is_who_the_server_says() {
    for (answers, admin) in [
        (vec![(ADMIN, 200, json!({ "admin": true }))], "true"),
        (vec![(ADMIN, 200, json!({ "admin": false }))], "false"),
        (vec![], "false"),
    ] {
        let server = fact("server", &answers).await.unwrap();
        assert_eq!(server.value("admin").unwrap().to_string(), admin, "{answers:?}");
    }
    let lacking = fact("server", &[(ADMIN, 404, json!({ "errcode": "M_UNRECOGNIZED" }))]).await;
    assert!(matches!(&lacking, Err(Failure::Unavailable { detail }) if detail.contains("no route")), "{lacking:?}");
}

#[tokio::test]
async fn an_application_service_is_in_a_room_that_the_server_lists_to_it() {
    let members = json!({ "joined": { "@_ghost:example.org": {} } });
    for (answers, service) in [
        (vec![(JOINED, 200, members.clone())], "true"),
        (vec![(MEMBER, 404, json!({})), (JOINED, 403, json!({ "errcode": "M_FORBIDDEN" }))], "false"),
        (vec![(DEVICE, 200, json!({})), (JOINED, 200, members.clone())], "false"),
        (vec![(MEMBER, 200, json!({ "membership": "join" })), (JOINED, 500, json!({}))], "false"),
    ] {
        let room = fact("room", &answers).await.unwrap();
        assert_eq!(room.value("service").unwrap().to_string(), service, "{answers:?}");
    }
    assert!(fact("room", &[(JOINED, 502, json!({}))]).await.is_err(), "a server in trouble is no answer");
}
