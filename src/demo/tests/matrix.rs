//! The homeserver.

use super::super::world::homeserver::{COUNCIL, Membership, NOTICE_BOARD};
use super::*;

async fn ask(sample: &Sample, name: &str, target: &str) -> Answer {
    get(sample, target, &[&format!("authorization: Bearer {name}-mx-token")]).await
}

fn room(id: &str, rest: &str) -> String {
    format!("/_matrix/client/v3/rooms/{id}/{rest}")
}

#[tokio::test]
async fn who_is_in_a_room_is_told_to_those_who_are() {
    let sample = Sample::matrix().await.unwrap();
    let joined = ask(&sample, "carol", &room(COUNCIL, "joined_members")).await.json();
    let names: Vec<&String> = joined["joined"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["@bob:example.org", "@carol:example.org"]);
    let all = ask(&sample, "dave", &room("%21council%3Aexample.org", "members?not_membership=join")).await.json();
    let told: Vec<&str> =
        all["chunk"].as_array().unwrap().iter().map(|event| event["content"]["membership"].as_str().unwrap()).collect();
    assert_eq!(told, ["leave", "invite"]);
    assert_eq!(
        ask(&sample, "eve", &room(NOTICE_BOARD, "state/m.room.power_levels")).await.json()["users"]["@bob:example.org"],
        100
    );
}

#[tokio::test]
async fn each_refusal_has_its_status_and_code() {
    let sample = Sample::matrix().await.unwrap();
    let refused = async |name: &str, target: &str| {
        let answer = ask(&sample, name, target).await;
        (answer.status, answer.json()["errcode"].as_str().unwrap().to_owned())
    };
    for name in ["dave", "eve", "frank", "alice"] {
        assert_eq!(refused(name, &room(COUNCIL, "joined_members")).await, (403, "M_FORBIDDEN".into()), "{name}");
    }
    assert_eq!(refused("frank", &room(COUNCIL, "members")).await, (403, "M_FORBIDDEN".into()));
    assert_eq!(refused("carol", &room("!unknown:example.org", "joined_members")).await, (403, "M_FORBIDDEN".into()));
    assert_eq!(refused("carol", "/_synapse/admin/v1/rooms").await, (403, "M_FORBIDDEN".into()));
    assert_eq!(refused("nobody", &room(COUNCIL, "members")).await, (401, "M_UNKNOWN_TOKEN".into()));
    assert_eq!(refused("carol", "/_matrix/client/v9/joined_rooms").await, (404, "M_UNRECOGNIZED".into()));
    let missing = get(&sample, "/_matrix/client/v3/joined_rooms", &[]).await;
    assert_eq!((missing.status, &missing.json()["errcode"]), (401, &"M_MISSING_TOKEN".into()));
    sample.with(|world| {
        let council = world.homeserver.room_mut(COUNCIL).unwrap();
        council.members.insert("@carol:example.org".into(), Membership::Ban);
        world.homeserver.revoke("bob-mx-token");
    });
    assert_eq!(refused("carol", &room(COUNCIL, "joined_members")).await.0, 403);
    assert_eq!(refused("bob", "/_matrix/client/v3/joined_rooms").await.0, 401);
}

#[tokio::test]
async fn an_administrator_sees_rooms_and_users_and_everybody_finds_users() {
    let sample = Sample::matrix().await.unwrap();
    let members = ask(&sample, "alice", &format!("/_synapse/admin/v1/rooms/{COUNCIL}/members")).await.json();
    assert_eq!((&members["total"], &members["members"][0]), (&2.into(), &"@bob:example.org".into()));
    assert_eq!(ask(&sample, "alice", "/_synapse/admin/v1/users/@bob:example.org/admin").await.json()["admin"], false);
    assert_eq!(ask(&sample, "alice", "/_synapse/admin/v2/users").await.json()["total"], 6);
    let body = r#"{"search_term":"Car"}"#;
    let head = ["authorization: Bearer eve-mx-token"];
    let found = send(&sample, "POST /_matrix/client/v3/user_directory/search", &head, body).await.unwrap().json();
    assert_eq!(found["results"][0]["user_id"], "@carol:example.org");
}
