//! What a lookup says: the credential, an address, and nothing that a client wrote; and what DocuSign is asked.

use std::net::IpAddr;

use rolegate::demo::world::account::{ACCOUNT, LARGE_ROOM, OTHER_ACCOUNT, ROOM, RoomUser};
use rolegate::demo::world::workspace::{BOARDROOM, BOB};
use rolegate::demo::{Behaviour, Sample};
use rolegate::identity::LookupAddress;
use rolegate::model::Secret;

use super::{INFO, ME, PERMISSIONS, ROLES, SUBSCRIPTION, about_bob, roles_of, seen};
use crate::support::gate::{bearer, login};
use crate::support::{Gate, GateBuilder};

const USERINFO: &str = "/oauth/userinfo";

fn users_of(account: &str, room: i32) -> String {
    format!("/restapi/v2/accounts/{account}/rooms/{room}/users")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_carries_the_credential_and_nothing_else_that_the_client_sent() {
    let gate = Gate::rocketchat().await;
    let mut headers = login("bob");
    for (name, value) in [
        ("Cookie", "rc_uid=eve; rc_token=eve-token"),
        ("X-Forwarded-For", "10.9.8.7"),
        ("X-Real-IP", "10.9.8.7"),
        ("Forwarded", "for=10.9.8.7"),
        ("X-2fa-Code", "123456"),
        ("X-Odd", "odd"),
        ("User-Agent", "client/1"),
        ("Accept", "text/html"),
        ("Accept-Encoding", "gzip"),
        ("If-None-Match", "\"x\""),
        ("Authorization", "Bearer eve-bearer"),
        ("X-Request-Id", "mine"),
    ] {
        headers.push((name, value.to_owned()));
    }
    assert_eq!(gate.get(&roles_of(BOARDROOM), &headers).await.status, 200);
    for path in [ME, PERMISSIONS, SUBSCRIPTION] {
        let question = &seen(&gate, path)[0];
        let mut names: Vec<&str> = question.headers.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        let expected =
            ["accept", "accept-encoding", "host", "user-agent", "x-auth-token", "x-forwarded-for", "x-real-ip", "x-user-id"];
        assert_eq!(names, expected, "{path}");
        assert_eq!(question.headers.len(), expected.len(), "{path}: each once");
        assert_eq!((question.header("x-user-id"), question.header("x-auth-token")), (Some(BOB), Some("bob-token")));
        assert_eq!(question.header("accept-encoding"), Some("identity"));
        assert_ne!(question.header("user-agent"), Some("client/1"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_asks_from_an_address_of_its_own() {
    let gate = Gate::rocketchat().await;
    for name in ["bob", "carol"] {
        assert_eq!(gate.get(&roles_of(BOARDROOM), &login(name)).await.status, 200);
    }
    let address_of = |path: &str, index: usize| {
        let question = seen(&gate, path).remove(index);
        assert_eq!(question.header("x-forwarded-for"), question.header("x-real-ip"));
        question.header("x-real-ip").unwrap().parse::<IpAddr>().unwrap()
    };
    let (bob, carol) = (address_of(ME, 0), address_of(ME, 1));
    for address in [bob, carol] {
        assert!(matches!(address, IpAddr::V6(address) if address.octets()[0] == 0xfd), "{address}");
    }
    assert_ne!(bob, carol);
    assert_eq!((address_of(SUBSCRIPTION, 0), address_of(SUBSCRIPTION, 1)), (bob, carol), "the same for every lookup");
    assert_eq!(seen(&gate, "/api/v1/rooms.roles")[0].header("x-real-ip"), Some("127.0.0.1"), "requests keep the client's");
}

#[tokio::test(flavor = "multi_thread")]
async fn or_from_the_clients_where_the_operator_says_so() {
    let gate = GateBuilder::rocketchat()
        .await
        .with(|config| {
            config.facts.lookup_address = LookupAddress::Client;
            config.listen.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        })
        .start();
    let mut headers = login("bob");
    headers.push(("X-Forwarded-For", "10.0.0.1, 192.0.2.7".to_owned()));
    assert_eq!(gate.get(&roles_of(BOARDROOM), &headers).await.status, 200);
    for path in [ME, PERMISSIONS, SUBSCRIPTION] {
        let question = seen(&gate, path).remove(0);
        assert_eq!((question.header("x-forwarded-for"), question.header("x-real-ip")), (Some("192.0.2.7"), Some("192.0.2.7")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_asked_for_with_the_service_credential_where_there_is_one() {
    let service = [("x-user-id", rolegate::demo::world::workspace::ALICE), ("x-auth-token", "alice-token")];
    let service = service.map(|(name, value)| (name.to_owned(), Secret::new(value)));
    let gate = GateBuilder::rocketchat().await.upstream(|upstream| upstream.service = Some(service.to_vec())).start();
    assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 200);
    assert_eq!(gate.get("/api/v1/roles.getUsersInRole?role=user", &login("bob")).await.status, 403);
    for (path, token) in [(ME, "bob-token"), (PERMISSIONS, "alice-token"), (ROLES, "alice-token"), (INFO, "bob-token")] {
        let tokens: Vec<_> = seen(&gate, path).iter().map(|seen| seen.header("x-auth-token").unwrap().to_owned()).collect();
        assert_eq!(tokens, [token], "{path}");
    }
    // Its end is the operator's trouble: bob is no less logged in.
    gate.sample.with(|world| world.workspace.revoke("alice-token"));
    let mut admin = crate::support::Connection::open(gate.admin()).await;
    assert_eq!(admin.request("POST", "/facts/invalidate", &[], br#"{"all":true}"#).await.status, 200);
    assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 503);
    let record = gate.last_decision();
    assert_eq!(record["reason"], "facts_unavailable");
    assert!(record["detail"].as_str().unwrap().contains("service credential"), "{}", record["detail"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn docusign_is_asked_who_the_caller_is_and_then_about_this_room() {
    let gate = Gate::docusign().await;
    assert_eq!(gate.get(&users_of(ACCOUNT, ROOM), &bearer("carol")).await.status, 200);
    let targets: Vec<String> = gate.sample.seen().into_iter().map(|seen| seen.target).collect();
    let filter = "filter=carol%40example.org&count=100";
    assert_eq!(targets.first().map(String::as_str), Some(USERINFO));
    assert!(targets.contains(&format!("{}?{filter}", users_of(ACCOUNT, ROOM))), "{targets:?}");
    assert!(gate.sample.seen().iter().all(|seen| seen.header("authorization") == Some("Bearer carol-ds-token")));
    let record = gate.last_decision();
    assert_eq!(record["context"]["room"]["role"], "Contributor");
    assert_eq!(record["policies"], serde_json::json!(["rooms-users-roster"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_of_another_account_asks_for_no_roster() {
    let gate = Gate::docusign().await;
    for account in [ACCOUNT, "00000000-0000-0000-0000-000000000000"] {
        assert_eq!(gate.get(&users_of(account, ROOM), &bearer("mallory")).await.status, 403);
    }
    let paths: Vec<String> = gate.sample.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, [USERINFO], "whose token it is, once, and nothing of the account");
    assert_eq!(gate.last_decision()["context"]["room"]["in_account"], false);
    // In mallory's own account there is something to ask, and the server knows nothing of it.
    assert_eq!(gate.get(&users_of(OTHER_ACCOUNT, ROOM), &bearer("mallory")).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_is_found_on_a_later_page_of_the_roster() {
    for absolute in [false, true] {
        let gate = Gate::docusign().await;
        gate.sample.with(|world| {
            world.account.absolute_links = absolute;
            let room = world.account.rooms.iter_mut().find(|room| room.id == LARGE_ROOM).unwrap();
            // Names that begin as carol's address does, and come before hers in the server's order.
            room.roster.extend((0..120).map(|number| RoomUser {
                user: 5000 + number,
                email: format!("decoy{number}@example.net"),
                first_name: "Carol@Example.org".into(),
                last_name: format!("Zzz {number}"),
                role: rolegate::demo::world::account::BUYER,
            }));
        });
        let answer = gate.get(&users_of(ACCOUNT, LARGE_ROOM), &bearer("carol")).await;
        assert_eq!(answer.status, 200, "absolute links: {absolute}");
        let asked: Vec<String> = seen(&gate, &users_of(ACCOUNT, LARGE_ROOM)).into_iter().map(|seen| seen.target).collect();
        assert_eq!(asked.len(), 3, "two pages, and the request itself: {asked:?}");
        assert!(asked[1].contains("startPosition=100"), "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_the_next_page_never_leads_to_another_server() {
    let gate = Gate::docusign().await;
    let elsewhere = Sample::docusign().await.unwrap();
    let next = format!("{}/restapi/v2/elsewhere?page=2", elsewhere.url());
    gate.sample.behave(&users_of(ACCOUNT, ROOM), Behaviour::json(200, format!(r#"{{"users":[],"nextUri":"{next}"}}"#)));
    let refused = gate.get(&users_of(ACCOUNT, ROOM), &bearer("eve")).await;
    assert_eq!((refused.status, gate.last_decision()["reason"].as_str()), (503, Some("facts_unavailable")));
    assert!(elsewhere.seen().is_empty(), "the credential stays here");
    let asked = seen(&gate, &users_of(ACCOUNT, ROOM));
    assert!(asked.len() > 1 && asked.len() <= 50, "pages without end are given up: {}", asked.len());
    assert!(asked[1..].iter().all(|seen| seen.target.ends_with("/users?page=2")));
}
