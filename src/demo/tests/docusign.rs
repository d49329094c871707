//! The Rooms server and the account server.

use std::collections::BTreeSet;

use super::super::world::account::{ACCOUNT, OTHER_ACCOUNT, Strangers};
use super::*;

async fn ask(sample: &Sample, name: &str, target: &str) -> Answer {
    get(sample, target, &[&format!("authorization: Bearer {name}-ds-token")]).await
}

fn users(room: i32) -> String {
    format!("/restapi/v2/accounts/{ACCOUNT}/rooms/{room}/users")
}

#[tokio::test]
async fn the_references_keys_are_all_there() {
    let sample = Sample::docusign().await.unwrap();
    let answer = ask(&sample, "bob", &users(1234)).await;
    let body = answer.json();
    for key in ["users", "resultSetSize", "startPosition", "endPosition", "nextUri", "priorUri", "totalRowCount"] {
        assert!(body.get(key).is_some(), "{key}");
    }
    for key in ["userId", "email", "firstName", "lastName", "transactionSideId", "roleId", "titleId"] {
        assert!(body["users"][0].get(key).is_some(), "{key}");
    }
    assert_eq!(body["users"][0]["lastName"], "Kennicott", "last name downwards is the default");
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    for name in ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "x-burstlimit-limit", "x-docusign-tracetoken"]
    {
        assert!(answer.header(name).is_some(), "{name}");
    }
}

#[tokio::test]
async fn the_prefix_may_be_left_out_and_cases_do_not_matter() {
    let sample = Sample::docusign().await.unwrap();
    let bare = format!("/v2/accounts/{ACCOUNT}/rooms/1234/users?sort=firstNameAsc");
    assert_eq!(ask(&sample, "bob", &bare).await.json()["users"][0]["firstName"], "Bob");
    let loud = format!("/V2/Accounts/{}/ROOMS/1234/%75sers", ACCOUNT.to_uppercase());
    assert_eq!(ask(&sample, "bob", &loud).await.status, 200);
}

#[tokio::test]
async fn the_account_server_knows_tokens_and_nothing_else() {
    let sample = Sample::docusign().await.unwrap();
    let bob = ask(&sample, "bob", "/oauth/userinfo").await.json();
    assert_eq!((&bob["email"], &bob["accounts"][0]["account_id"]), (&"bob@example.org".into(), &ACCOUNT.into()));
    assert_eq!(ask(&sample, "mallory", "/oauth/userinfo").await.json()["accounts"][0]["account_id"], OTHER_ACCOUNT);
    let dead = ask(&sample, "nobody", "/oauth/userinfo").await;
    assert_eq!((dead.status, &dead.json()["error"]), (401, &"internal_server_error".into()));
}

#[tokio::test]
async fn each_refusal_has_its_status_and_code() {
    let sample = Sample::docusign().await.unwrap();
    let refused = async |name: &str, target: &str| {
        let answer = ask(&sample, name, target).await;
        let code = if answer.body.is_empty() { String::new() } else { answer.json()["errorCode"].as_str().unwrap().to_owned() };
        (answer.status, code)
    };
    assert_eq!(refused("nobody", &users(1234)).await, (401, "AUTHORIZATION_INVALID_TOKEN".into()));
    assert_eq!(refused("mallory", &users(1234)).await, (401, "USER_DOES_NOT_BELONG_TO_SPECIFIED_ACCOUNT".into()));
    assert_eq!(refused("eve", &users(1234)).await, (401, "USER_LACKS_PERMISSIONS".into()));
    assert_eq!(refused("alice", &users(77)).await, (404, String::new()));
    assert_eq!(refused("bob", &format!("/v2/accounts/{ACCOUNT}/rooms/abc/users")).await.0, 400);
    assert_eq!(refused("bob", &format!("/v2/accounts/{ACCOUNT}/rooms/12%2f34/users")).await.0, 400);
    assert_eq!(refused("bob", &format!("{}?count=abc", users(1234))).await, (400, "INVALID_REQUEST_PARAMETER".into()));
    sample.with(|world| world.account.strangers = Strangers::FindNothing);
    assert_eq!(refused("eve", &users(1234)).await, (404, String::new()));
    sample.with(|world| world.account.exhausted = true);
    assert_eq!(refused("bob", &users(1234)).await, (400, "HOURLY_APIINVOCATION_LIMIT_EXCEEDED".into()));
    assert_eq!(ask(&sample, "bob", "/oauth/userinfo").await.status, 200, "the account server has limits of its own");
    sample.with(|world| world.account.revoke("bob-ds-token"));
    assert_eq!(refused("bob", &users(1234)).await, (401, "AUTHORIZATION_INVALID_TOKEN".into()));
}

#[tokio::test]
async fn an_administrator_sees_a_room_without_being_in_it() {
    let sample = Sample::docusign().await.unwrap();
    assert_eq!(ask(&sample, "alice", &users(1234)).await.json()["totalRowCount"], 2);
    assert_eq!(ask(&sample, "alice", &users(9999)).await.json()["users"], serde_json::json!([]));
}

#[tokio::test]
async fn following_the_links_reads_everybody_once() {
    for absolute in [false, true] {
        let sample = Sample::docusign().await.unwrap();
        sample.with(|world| world.account.absolute_links = absolute);
        let (mut next, mut emails, mut pages) = (Some(format!("{}?sort=EmailAsc", users(5678))), BTreeSet::new(), 0);
        while let Some(target) = next {
            let body = ask(&sample, "carol", &target).await.json();
            for user in body["users"].as_array().unwrap() {
                assert!(emails.insert(user["email"].as_str().unwrap().to_owned()));
            }
            next = body["nextUri"].as_str().map(str::to_owned);
            assert!(next.as_deref().is_none_or(|next| next.starts_with("http://") == absolute));
            pages += 1;
        }
        assert_eq!((emails.len(), pages), (130, 2));
    }
}

#[tokio::test]
async fn a_filter_meets_the_beginning_of_names_and_addresses() {
    let sample = Sample::docusign().await.unwrap();
    let total = async |filter: &str| {
        ask(&sample, "carol", &format!("{}?filter={filter}", users(5678))).await.json()["totalRowCount"].clone()
    };
    assert_eq!(total("CAROL%40example.org").await, 1);
    assert_eq!(total("kenn").await, 1);
    assert_eq!(total("of+the+house+3").await, 19);
    assert_eq!(total("ennicott").await, 0);
}

#[tokio::test]
async fn people_and_roles_of_the_account_can_be_read() {
    let sample = Sample::docusign().await.unwrap();
    let base = format!("/restapi/v2/accounts/{ACCOUNT}");
    let people = ask(&sample, "bob", &format!("{base}/users?filter=bob@example.org")).await.json();
    assert_eq!((&people["userSummaries"][0]["roleId"], &people["totalRowCount"]), (&102.into(), &1.into()));
    assert_eq!(ask(&sample, "bob", &format!("{base}/roles?filter=default")).await.json()["roles"][0]["name"], "Default Admin");
    let role = ask(&sample, "bob", &format!("{base}/roles/102")).await.json();
    let flags = role["permissions"].as_object().unwrap();
    assert_eq!((flags.len(), &flags["canAddUsersToRooms"], &flags["canManageAccount"]), (66, &true.into(), &false.into()));
    assert_eq!(ask(&sample, "bob", &format!("{base}/rooms/1234")).await.json()["roomOwnerIds"], serde_json::json!([12]));
}
