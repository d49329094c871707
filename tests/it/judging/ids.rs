//! Ids as wide as the server's: names that somebody typed, room ids with a slash, each legal spelling once.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use percent_encoding::percent_decode_str;
use proptest::prelude::*;
use rolegate::rules::target;
use rolegate::rules::{Ruleset, Sources};
use serde_json::{Value, json};

use super::kept::{ROLES, Upstream};
use super::{assert_refused, somebody, token};
use crate::differential::verdict::Judge;

const ROLE_LIST: &str = "/api/v1/roles.getUsersInRole";

#[tokio::test(flavor = "multi_thread")]
async fn a_role_may_be_called_what_somebody_typed() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("rocketchat").await.start();
    let mut connection = gate.connect().await;
    for role in ROLES {
        let encoded = target::encode(role);
        // In small letters, and a space as a form writes it.
        let (small, form) = (encoded.replace("%C2%A0", "%c2%a0").replace("%2F", "%2f"), encoded.replace("%20", "+"));
        for written in [&encoded, &small, &form] {
            let answer = connection.get(&format!("{ROLE_LIST}?role={written}"), &somebody()).await;
            assert_eq!(answer.status, 200, "{written}: {}", answer.text());
            assert_eq!(upstream.newest().target(), format!("{ROLE_LIST}?role={encoded}"), "{written}");
            assert_eq!(gate.last_decision()["resource"], json!({ "type": "Role", "id": role }), "{written}");
        }
    }
    for (written, role) in [("Owner's%20club", "Owner's club"), ("Betriebsrat/BR", "Betriebsrat/BR")] {
        let answer = connection.get(&format!("{ROLE_LIST}?role={written}"), &somebody()).await;
        assert_eq!((answer.status, &gate.last_decision()["resource"]["id"]), (200, &json!(role)), "what needs no encoding");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_server_holds_as_an_id_is_refused_everywhere() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("rocketchat").await.start();
    let mut connection = gate.connect().await;
    let long = "a".repeat(256);
    for written in [".", "..", "%2e", "%2E%2e", "a%00", "a%0Ab", "%7F", "a%C2%85b", long.as_str()] {
        for target in [format!("{ROLE_LIST}?role={written}"), format!("/api/v1/rooms.roles?rid={written}")] {
            let answer = connection.get(&target, &somebody()).await;
            assert_refused(&gate, &answer, 400, "param_invalid", &target);
        }
    }
    assert!(upstream.requests().is_empty() && upstream.lookups().is_empty());
}

/// A public test room of the Matrix server's own project, as it is written in a path.
const CAT: &str = "%21test%2Fv6%20%F0%9F%90%88%EF%B8%8F%3Ahs";
const CAT_ID: &str = "!test/v6 🐈\u{fe0f}:hs";

#[tokio::test(flavor = "multi_thread")]
async fn a_room_whose_id_holds_a_slash_a_space_and_a_cat_is_judged() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("matrix").await.start();
    let mut connection = gate.connect().await;
    let spellings = [
        CAT.to_owned(),
        CAT.replacen("%21", "!", 1),
        CAT.replace("%3A", ":"),
        CAT.to_ascii_lowercase().replace("%21", "!"),
        CAT.replace("test", "%74%65%73%74"),
    ];
    for (before, behind) in [
        ("/_synapse/admin/v1/rooms/", ""),
        ("/_synapse/admin/v1/rooms/", "/members"),
        ("/_synapse/admin/v1/rooms/", "/state"),
        ("/_matrix/client/v3/rooms/", "/members"),
        ("/_matrix/client/v3/rooms/", "/joined_members"),
        ("/_matrix/client/v3/rooms/", "/state"),
        ("/_matrix/client/v3/rooms/", "/state/m.room.power_levels"),
        ("/_matrix/client/v3/rooms/", "/state/m.room.member/@bob:hs"),
    ] {
        for spelling in &spellings {
            let answer = connection.get(&format!("{before}{spelling}{behind}"), &token()).await;
            assert_eq!(answer.status, 200, "{before}{spelling}{behind}: {}", answer.text());
            let sent = format!("{before}{CAT}{}", behind.replace("@bob:hs", "%40bob%3Ahs"));
            assert_eq!(upstream.newest().target(), sent, "{spelling}");
            assert_eq!(gate.last_decision()["resource"], json!({ "type": "Room", "id": CAT_ID }));
        }
    }
    let asked = format!("/_matrix/client/v3/rooms/{CAT}/state/m.room.member/%40carol%3Ahs");
    assert!(upstream.lookups().contains(&asked), "the fact is about the same room: {:?}", upstream.lookups());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_room_id_is_another_route_to_a_server_that_decodes_more_than_it_should() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("matrix").await.start();
    let mut connection = gate.connect().await;
    for target in [
        "/_synapse/admin/v1/rooms/%21r%3Ahs%2Fmembers",
        "/_synapse/admin/v1/rooms/%21r%3Ahs%2fstate",
        "/_synapse/admin/v1/rooms/%21r%3Ahs%252Fmembers",
        "/_synapse/admin/v1/rooms/%21r%3Ahs%5Cmembers",
        "/_synapse/admin/v1/rooms/%21r%3Ahs%2FMEMBERS",
        "/_synapse/admin/v1/rooms/%21r%3Ahs%2Fmembers%2F",
        "/_synapse/admin/v1/rooms/%21r%3Ahs%2Fmembers%3Fx",
        "/_synapse/admin/v1/rooms/%21r%3Ahs%2Fmembers%23x",
        "/_synapse/admin/v1/rooms/%21r%3Ahs%2Fmembers%3Bx",
        "/_synapse/admin/v1/rooms/%21r%3Ahs%2F%2Fmembers",
        "/_matrix/client/v3/rooms/%21r%3Ahs%2Fstate/members",
        "/_matrix/client/v3/rooms/%21r%3Ahs%2Fstate/joined_members",
    ] {
        let answer = connection.get(target, &token()).await;
        assert_refused(&gate, &answer, 400, "target_ambiguous", target);
    }
    for target in [
        "/_synapse/admin/v1/rooms/%21r%2F..",
        "/_synapse/admin/v1/rooms/%21r%2F..%2F..%2Fusers",
        "/_synapse/admin/v1/rooms/..%5Cusers",
        "/_synapse/admin/v1/rooms/%2e%2e",
        "/_synapse/admin/v1/rooms/%2E/members",
    ] {
        assert_eq!(connection.get(target, &token()).await.status, 400, "{target}");
    }
    assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());
}

/// Every door of a Matrix action by its segments, with the action.
static DOORS: LazyLock<Vec<(Vec<String>, String)>> = LazyLock::new(|| {
    let rules = Ruleset::load(&Sources::built_in(), &[]).unwrap();
    let actions = &rules.provider("matrix").unwrap().provider.actions;
    let doors = actions.iter().flat_map(|action| action.doors.iter().map(|door| (door.to_string(), action.id.clone())));
    let segments = |door: String| door.split_once(" /").unwrap().1.split('/').map(str::to_lowercase).collect();
    doors.map(|(door, id)| (segments(door), id)).collect()
});

static JUDGE: LazyLock<Judge> = LazyLock::new(|| Judge::new().unwrap());

/// The actions that a path is, to a server that decodes `times`, takes a backslash for a slash and merges slashes.
fn actions_of(path: &str, times: usize) -> Vec<&'static str> {
    let mut path = path.to_owned();
    for _ in 0..times {
        path = percent_decode_str(&path).decode_utf8_lossy().into_owned();
    }
    let path = path.replace('\\', "/").to_lowercase();
    let cut = path.split(['?', '#']).next().unwrap_or_default();
    let segments: Vec<&str> =
        cut.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).filter(|s| !s.is_empty()).collect();
    let matches = |door: &[String]| {
        let door: Vec<&String> = door.iter().filter(|segment| !segment.is_empty()).collect();
        door.len() == segments.len() && door.iter().zip(&segments).all(|(door, segment)| door.starts_with('{') || door == segment)
    };
    DOORS.iter().filter(|(door, _)| matches(door)).map(|(_, action)| action.as_str()).collect()
}

/// Pieces of ids: what somebody types, what parts a path, and words that are segments of other routes.
fn id() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-zA-Z0-9 .:!@&'+=~🐈-]{1,4}",
        prop::sample::select(vec!["/", "\\", "%", "%2F", "%5C", "//", "?", "#", ";", "/..", "..", "./"]).prop_map(str::to_owned),
        prop::sample::select(vec!["members", "state", "joined_members", "Members", "m.room.member", "messages", "context"])
            .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 1..6).prop_map(|pieces| format!("!{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_room_is_called_the_route_that_was_judged_is_the_only_one(
        id in id(),
        door in prop::sample::select(vec![
            ("/_synapse/admin/v1/rooms/", "", "admin.room"),
            ("/_synapse/admin/v1/rooms/", "/members", "admin.rooms.members"),
            ("/_synapse/admin/v1/rooms/", "/state", "admin.rooms.state"),
            ("/_matrix/client/v3/rooms/", "/members", "rooms.members"),
            ("/_matrix/client/v3/rooms/", "/joined_members", "rooms.joined_members"),
            ("/_matrix/client/r0/rooms/", "/state", "rooms.state"),
        ]),
    ) {
        let (before, behind, action) = door;
        let target = format!("{before}{}{behind}", target::encode(&id));
        let verdict = JUDGE.verdict(&json!({ "provider": "matrix", "method": "GET", "target": target })).unwrap();
        let expected: BTreeMap<&str, &str> = [("roomId", id.as_str())].into();
        if verdict["verdict"] == "forwarded" {
            prop_assert_eq!(&verdict["action"], action);
            prop_assert_eq!(&verdict["params"], &json!(expected));
            prop_assert_eq!(&verdict["sends"], &target);
            for times in 0..4 {
                let others: Vec<&str> = actions_of(&target, times).into_iter().filter(|other| *other != action).collect();
                prop_assert!(others.is_empty(), "{} is {:?} once it is decoded {} times", &target, others, times);
            }
        } else {
            prop_assert_eq!(&verdict["verdict"], "refused");
            // Nothing is refused that means nothing else.
            let parts = id.contains(['/', '\\', '%', '?', '#', ';']);
            let spaced = id.ends_with(' ');
            prop_assert!(parts || spaced, "{}: {}", &target, verdict);
        }
    }

    #[test]
    fn any_text_without_control_characters_is_an_id_in_a_query(id in "\\PC{1,40}") {
        let query = format!("/api/v1/rooms.roles?rid={}", target::encode(&id));
        let verdict = JUDGE.verdict(&json!({ "provider": "rocketchat", "method": "GET", "target": query })).unwrap();
        if matches!(id.as_str(), "." | "..") || id.chars().any(char::is_control) {
            prop_assert_eq!(&verdict["reason"], "param_invalid");
        } else {
            prop_assert_eq!(&verdict["sends"], &Value::from(query));
            prop_assert_eq!(&verdict["params"]["rid"], &Value::from(id));
        }
    }
}
