//! The guarded routes, the lookups, sessions, methods and the limiter.

use super::super::world::workspace::{ALICE, BOARDROOM, BOB, CAROL, DIRECT, GENERAL, GUS, HELPDESK, TOWN_SQUARE};
use super::*;

const FORBIDDEN: &str =
    r#"{"success":false,"error":"User does not have the permissions required for this action [error-unauthorized]"}"#;
const ANONYMOUS: &str = r#"{"status":"error","message":"You must be logged in to do this."}"#;

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Asks as somebody and holds status and body against what the real server says.
async fn expect(sample: &Sample, name: &str, target: &str, status: u16, body: &str) {
    let answer = as_person(sample, name, target).await;
    assert_eq!((answer.status, answer.text()), (status, body), "{name} {target}");
}

#[tokio::test]
async fn the_references_examples_have_their_keys() {
    let sample = Sample::rocketchat().await.unwrap();
    let audit = as_person(&sample, "audrey", &format!("/api/v1/audit/rooms.members?roomId={TOWN_SQUARE}")).await.json();
    assert_eq!(keys(&audit), ["members", "count", "offset", "total", "success"]);
    for key in ["_id", "status", "name", "username", "_updatedAt"] {
        assert!(audit["members"][0][key].is_string(), "{key}");
    }
    let users = as_person(&sample, "alice", "/api/v1/roles.getUsersInRole?role=user").await.json();
    assert_eq!(keys(&users), ["users", "total", "success"]);
    for key in ["_id", "username", "name"] {
        assert!(users["users"][0][key].is_string(), "{key}");
    }
    let roles = as_person(&sample, "eve", &format!("/api/v1/rooms.roles?rid={TOWN_SQUARE}")).await.json();
    assert_eq!(keys(&roles), ["roles", "success"]);
    assert_eq!(keys(&roles["roles"][0]), ["_id", "rid", "u", "roles"]);
    assert_eq!(roles["roles"][0]["u"], serde_json::json!({"_id": ALICE, "username": "alice"}));
    assert_eq!(roles["roles"][1]["roles"], serde_json::json!(["moderator"]));
    let user = as_person(&sample, "bob", &format!("/api/v1/users.info?userId={BOB}&includeUserRooms=true")).await.json();
    for key in ["_id", "createdAt", "services", "username", "emails", "type", "status", "active", "roles", "name"] {
        assert!(!user["user"][key].is_null(), "{key}");
    }
    assert_eq!(keys(&user["user"]["rooms"][0]), ["_id", "unread", "rid", "name", "t", "roles"]);
}

#[tokio::test]
async fn an_anonymous_call_is_refused_before_anything_else_is_looked_at() {
    let sample = Sample::rocketchat().await.unwrap();
    for target in [
        "/api/v1/audit/rooms.members",
        "/api/v1/roles.getUsersInRole?x=1",
        "/api/v1/rooms.roles?rid=a&rid=b",
        "/api/v1/users.info",
        "/api/v1/me",
    ] {
        let answer = get(&sample, target, &[]).await;
        assert_eq!((answer.status, answer.text()), (401, ANONYMOUS), "{target}");
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
}

#[tokio::test]
async fn a_session_needs_both_headers_to_agree() {
    let sample = Sample::rocketchat().await.unwrap();
    let status = async |headers: &[&str]| get(&sample, "/api/v1/me", headers).await.status;
    let (id, token) = (format!("x-user-id: {BOB}"), "x-auth-token: bob-token");
    assert_eq!(status(&[&id, token]).await, 200);
    assert_eq!(status(&[&format!("x-user-id: {CAROL}"), token]).await, 401);
    assert_eq!(status(&[&id]).await, 401);
    assert_eq!(status(&["authorization: Bearer bob-bearer"]).await, 200);
    assert_eq!(status(&["authorization: bob-bearer"]).await, 200, "the word is only stripped");
    assert_eq!(status(&[&id, "authorization: Bearer carol-bearer"]).await, 200, "one header missing is none");
    assert_eq!(status(&[&id, "x-auth-token: wrong", "authorization: Bearer bob-bearer"]).await, 401);
    sample.with(|world| world.workspace.deactivate(BOB));
    assert_eq!(status(&[&id, token]).await, 401);
}

#[tokio::test]
async fn the_audit_route_checks_permission_then_license_then_query_then_sort_then_room() {
    let sample = Sample::rocketchat().await.unwrap();
    let route = "/api/v1/audit/rooms.members";
    expect(&sample, "bob", route, 403, FORBIDDEN).await;
    let missing =
        r#"{"success":false,"error":"must have required property 'roomId' [invalid-params]","errorType":"invalid-params"}"#;
    expect(&sample, "audrey", route, 400, missing).await;
    let sort = r#"{"success":false,"error":"Invalid sort parameter provided: \"{\"username\":2}\" [error-invalid-sort]","errorType":"error-invalid-sort","details":{"helperMethod":"parseJsonQuery"}}"#;
    expect(&sample, "audrey", &format!("{route}?roomId=none&sort=%7B%22username%22:2%7D"), 400, sort).await;
    let not_found = r#"{"success":false,"error":"Resource not found"}"#;
    expect(&sample, "audrey", &format!("{route}?roomId=none"), 404, not_found).await;
    sample.with(|world| world.workspace.licensed = false);
    let license = r#"{"success":false,"error":"This is an enterprise feature [error-action-not-allowed]","errorType":"error-action-not-allowed"}"#;
    expect(&sample, "audrey", route, 400, license).await;
}

#[tokio::test]
async fn an_audit_sees_every_room_sorted_filtered_and_paged_and_leaves_a_trace_even_by_head() {
    let sample = Sample::rocketchat().await.unwrap();
    let names = async |query: &str| -> (Vec<String>, Value) {
        let answer = as_person(&sample, "audrey", &format!("/api/v1/audit/rooms.members?{query}")).await.json();
        let names = answer["members"].as_array().unwrap().iter().map(|member| member["username"].as_str().unwrap().to_owned());
        (names.collect(), answer["total"].clone())
    };
    assert_eq!(names(&format!("roomId={BOARDROOM}")).await.0, ["carol", "bob"], "who is online comes first");
    assert_eq!(names(&format!("roomId={DIRECT}&sort=%7B%22username%22:1%7D")).await.0, ["bob", "carol"]);
    assert_eq!(
        names("roomId=GENERAL&sort=%7B%22username%22:-1%7D&count=2&offset=1").await,
        (vec!["carol".into(), "bob".into()], 5.into())
    );
    assert_eq!(names("roomId=GENERAL&filter=ALI").await.0, ["alice"]);
    assert_eq!(names("roomId[]=GENERAL&count=-1").await.0.len(), 5);
    sample.with(|world| {
        assert_eq!(world.workspace.auditions.len(), 5);
        assert_eq!(world.workspace.auditions[3].filter, "ALI");
    });
    let id = sample.with(|world| world.workspace.people[1].id.clone());
    let headers = [format!("x-user-id: {id}"), "x-auth-token: audrey-token".to_owned()];
    let head = send(&sample, "HEAD /api/v1/audit/rooms.members?roomId=GENERAL", &[&headers[0], &headers[1]], "").await.unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(sample.with(|world| world.workspace.auditions.len()), 6);
}

#[tokio::test]
async fn users_in_role_checks_in_the_servers_order_and_finds_roles_by_id_only() {
    let sample = Sample::rocketchat().await.unwrap();
    let route = "/api/v1/roles.getUsersInRole";
    expect(&sample, "bob", &format!("{route}?x=1"), 403, FORBIDDEN).await;
    let missing = r#"{"success":false,"errorType":"error-invalid-params","error":"must have required property 'role'"}"#;
    expect(&sample, "alice", route, 400, missing).await;
    let empty = r#"{"success":false,"error":"Query param \"role\" is required [error-param-not-provided]","errorType":"error-param-not-provided"}"#;
    expect(&sample, "alice", &format!("{route}?role="), 400, empty).await;
    let unknown = r#"{"success":false,"error":"[error-invalid-roleId]","errorType":"error-invalid-roleId"}"#;
    expect(&sample, "alice", &format!("{route}?role=helpdesk"), 400, unknown).await;
    sample.with(|world| {
        world.workspace.set_roles(CAROL, &["user", HELPDESK]);
        world.workspace.grant("access-permissions", &["admin", HELPDESK]);
    });
    let not_allowed = r#"{"success":false,"error":"Not allowed [error-not-allowed]","errorType":"error-not-allowed"}"#;
    expect(&sample, "carol", &format!("{route}?role=owner&roomId={BOARDROOM}"), 400, not_allowed).await;

    let names = async |query: &str| -> Vec<String> {
        let answer = as_person(&sample, "alice", &format!("{route}?{query}")).await.json();
        answer["users"].as_array().unwrap().iter().map(|user| user["username"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&format!("role={HELPDESK}")).await, ["carol"]);
    assert_eq!(names("role=owner").await, ["alice", "bob"], "without a room everybody who owns one");
    assert_eq!(names(&format!("role=owner&roomId={BOARDROOM}")).await, ["bob"]);
    assert_eq!(names(&format!("role=admin&roomId={BOARDROOM}")).await, ["alice"], "a global role does not mind the room");
    assert_eq!(names("role=user&count=2&offset=2").await, ["bob", "carol"]);
}

#[tokio::test]
async fn room_roles_tell_a_strange_room_from_a_missing_one() {
    let sample = Sample::rocketchat().await.unwrap();
    let stranger = r#"{"success":false,"error":"Invalid user [error-invalid-user]","errorType":"error-invalid-user","details":{"method":"getRoomRoles"}}"#;
    let missing = r#"{"success":false,"error":"Invalid room [error-invalid-room]","errorType":"error-invalid-room","details":{"method":"getRoomRoles"}}"#;
    expect(&sample, "alice", &format!("/api/v1/rooms.roles?rid={BOARDROOM}"), 400, stranger).await;
    expect(&sample, "gus", &format!("/api/v1/rooms.roles?rid={TOWN_SQUARE}"), 400, stranger).await;
    expect(&sample, "alice", "/api/v1/rooms.roles?rid=nowhere", 400, missing).await;
    expect(&sample, "alice", "/api/v1/rooms.roles?rid=", 400, missing).await;
    let limits = r#"{"success":false,"error":"Invalid query parameters"}"#;
    expect(&sample, "alice", &format!("/api/v1/rooms.roles?{}", vec!["rid=a"; 501].join("&")), 400, limits).await;
    let repeated = r#"{"success":false,"errorType":"error-invalid-params","error":"must be string"}"#;
    expect(&sample, "bob", &format!("/api/v1/rooms.roles?rid={BOARDROOM}&rid={BOARDROOM}"), 400, repeated).await;
    let spelled = as_person(&sample, "bob", &format!("/api/v1/rooms%2eroles?rid%5B%5D={BOARDROOM}?rid={GENERAL}")).await;
    assert_eq!(spelled.json()["roles"][0]["rid"], BOARDROOM, "decoded, unbracketed and cut at the second question mark");
}

#[tokio::test]
async fn user_info_shows_what_the_caller_may_see() {
    let sample = Sample::rocketchat().await.unwrap();
    let user = async |name: &str, query: &str| {
        as_person(&sample, name, &format!("/api/v1/users.info?{query}")).await.json()["user"].clone()
    };
    assert!(user("bob", "username=carol").await["roles"].is_null());
    assert_eq!(user("bob", "userId=carol").await["_id"], CAROL, "a user name passes for an id");
    assert_eq!(user("bob", "username=bob").await["canViewAllInfo"], true);
    assert_eq!(user("bob", &format!("username={BOB}")).await["canViewAllInfo"], false, "itself, but not literally");
    assert_eq!(user("alice", "username=bob").await["roles"], serde_json::json!(["user"]));
    assert!(user("bob", "username=carol&includeUserRooms=true").await["rooms"].is_null());
    assert_eq!(user("alice", "email=carol@example.org&includeUserRooms=true").await["rooms"].as_array().unwrap().len(), 4);
    assert!(user("alice", "username=bob&includeUserRooms=yes").await["rooms"].is_null());

    let not_found = r#"{"success":false,"error":"User not found."}"#;
    expect(&sample, "bob", "/api/v1/users.info?email=carol@example.org", 400, not_found).await;
    expect(&sample, "bob", "/api/v1/users.info?userId=nobody", 400, not_found).await;
    expect(&sample, "bob", "/api/v1/users.info?userId=", 400, r#"{"success":false,"error":"Invalid search query."}"#).await;
    let none = r#"{"success":false,"errorType":"error-invalid-params","error":"must have required property 'userId'\n must have required property 'username'\n must have required property 'importId'\n must have required property 'email'\n must have required property 'freeSwitchExtension'\n must match a schema in anyOf"}"#;
    expect(&sample, "bob", "/api/v1/users.info", 400, none).await;
    let two = r#"{"success":false,"errorType":"error-invalid-params","error":"must NOT have additional properties\n must NOT have additional properties\n must have required property 'importId'\n must have required property 'email'\n must have required property 'freeSwitchExtension'\n must match a schema in anyOf"}"#;
    expect(&sample, "bob", "/api/v1/users.info?userId=a&username=b", 400, two).await;
}

#[tokio::test]
async fn the_lookups_tell_who_and_what() {
    let sample = Sample::rocketchat().await.unwrap();
    let me = as_person(&sample, "audrey", "/api/v1/me").await.json();
    assert_eq!((&me["username"], &me["roles"]), (&"audrey".into(), &serde_json::json!(["auditor", "user"])));
    let all = as_person(&sample, "eve", "/api/v1/permissions.listAll").await.json();
    let row = all["update"].as_array().unwrap().iter().find(|row| row["_id"] == "view-members-list-all-rooms").unwrap();
    assert_eq!(row["roles"], serde_json::json!(["admin", "auditor"]));

    let since = "/api/v1/permissions.listAll?updatedSince=2024-01-01T00:00:00.000Z";
    assert_eq!(as_person(&sample, "eve", since).await.text(), r#"{"update":[],"remove":[],"success":true}"#);
    sample.with(|world| {
        world.workspace.grant("view-all-teams", &["admin"]);
        world.workspace.withdraw("can-audit");
    });
    let changed = as_person(&sample, "eve", since).await.json();
    assert_eq!((&changed["update"][0]["_id"], &changed["remove"][0]["_id"]), (&"view-all-teams".into(), &"can-audit".into()));
    let bad = as_person(&sample, "eve", "/api/v1/permissions.listAll?updatedSince=yesterday").await;
    assert_eq!((bad.status, &bad.json()["errorType"]), (400, &"error-roomId-param-invalid".into()));

    let own = as_person(&sample, "bob", &format!("/api/v1/subscriptions.getOne?roomId={BOARDROOM}")).await.json();
    assert_eq!(own["subscription"]["roles"], serde_json::json!(["owner"]));
    expect(
        &sample,
        "eve",
        &format!("/api/v1/subscriptions.getOne?roomId={BOARDROOM}"),
        200,
        r#"{"subscription":null,"success":true}"#,
    )
    .await;
    assert_eq!(as_person(&sample, "eve", &format!("/api/v1/rooms.info?roomId={TOWN_SQUARE}")).await.json()["room"]["t"], "c");
    assert_eq!(as_person(&sample, "eve", &format!("/api/v1/rooms.info?roomId={BOARDROOM}")).await.status, 400);
    let roles = as_person(&sample, "eve", "/api/v1/roles.list").await.json();
    assert!(roles["roles"].as_array().unwrap().iter().any(|role| role["_id"] == HELPDESK && role["scope"] == "Users"));
    assert!(as_person(&sample, "eve", "/api/v1/roles.sync").await.json()["roles"]["update"].is_array());
}

#[tokio::test]
async fn open_lists_have_pages_and_hide_addresses() {
    let sample = Sample::rocketchat().await.unwrap();
    sample.with(|world| world.workspace.crowd(120));
    let mut read = 0;
    for offset in [0, 50, 100] {
        let page =
            as_person(&sample, "eve", &format!("/api/v1/channels.members?roomId=GENERAL&offset={offset}&count=50")).await.json();
        assert_eq!(page["total"], 125);
        read += page["members"].as_array().unwrap().len();
    }
    assert_eq!(read, 125);
    assert_eq!(
        as_person(&sample, "gus", "/api/v1/channels.members?roomName=general").await.text(),
        r#"{"success":false,"error":"unauthorized"}"#
    );
    assert_eq!(as_person(&sample, "bob", &format!("/api/v1/channels.members?roomId={BOARDROOM}")).await.status, 400);
    assert!(as_person(&sample, "eve", "/api/v1/users.list").await.json()["users"][0]["emails"].is_null());
    assert!(as_person(&sample, "alice", "/api/v1/users.list").await.json()["users"][0]["emails"].is_array());
}

#[tokio::test]
async fn a_login_opens_a_session_that_a_logout_ends() {
    let sample = Sample::rocketchat().await.unwrap();
    let login = async |body: &str| send(&sample, "POST /api/v1/login", &["content-type: application/json"], body).await.unwrap();
    let first = login(r#"{"username":"bob","password":"bob-password"}"#).await.json();
    assert_eq!((&first["status"], &first["data"]["userId"]), (&"success".into(), &BOB.into()));
    let token = first["data"]["authToken"].as_str().unwrap().to_owned();
    assert_eq!(token.len(), 43);
    let headers = [format!("x-user-id: {BOB}"), format!("x-auth-token: {token}")];
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    assert_eq!(get(&sample, "/api/v1/me", &headers).await.status, 200);
    assert_eq!(login(&format!(r#"{{"resume":"{token}"}}"#)).await.json()["data"]["authToken"], token.as_str());
    assert_eq!(login(r#"{"user":"bob@example.org","password":"bob-password"}"#).await.status, 200);
    for wrong in [r#"{"username":"bob","password":"x"}"#, r#"{"resume":"x"}"#, "{}", "no json"] {
        assert_eq!(login(wrong).await.status, 401, "{wrong}");
    }
    assert_eq!(send(&sample, "POST /api/v1/logout", &headers, "").await.unwrap().status, 200);
    assert_eq!(get(&sample, "/api/v1/me", &headers).await.status, 401);
}

#[tokio::test]
async fn the_name_in_the_body_decides_which_method_runs() {
    let sample = Sample::rocketchat().await.unwrap();
    let call = async |line: &str, name: Option<&str>, method: &str, parameters: &str| {
        let message = format!(r#"{{"msg":"method","id":"7","method":"{method}","params":{parameters}}}"#);
        let body = serde_json::json!({ "message": message }).to_string();
        let headers = name.map(|name| [format!("x-user-id: {BOB}"), format!("x-auth-token: {name}-token")]);
        let headers: Vec<&str> = headers.iter().flatten().map(String::as_str).collect();
        send(&sample, line, &headers, &body).await.unwrap()
    };
    let inner = |answer: &Answer| -> Value { serde_json::from_str(answer.json()["message"].as_str().unwrap()).unwrap() };
    let rooms = format!("[\"{BOARDROOM}\"]");
    let door = "POST /api/v1/method.call/loadHistory";
    let answer = call(door, Some("bob"), "getRoomRoles", &rooms).await;
    assert_eq!((answer.status, &inner(&answer)["result"][0]["u"]["username"]), (200, &"bob".into()));
    let answer = call(door, Some("bob"), "getUsersOfRoom", &format!("[\"{BOARDROOM}\",true,{{\"limit\":1}}]")).await;
    assert_eq!(
        (&inner(&answer)["result"]["total"], &inner(&answer)["result"]["records"][0]["username"]),
        (&2.into(), &"bob".into())
    );
    let answer = call(door, Some("bob"), "getRoomRoles", "[\"nowhere\"]").await;
    assert_eq!(
        (answer.status, answer.json()["success"].clone(), inner(&answer)["error"]["error"].clone()),
        (400, false.into(), "error-invalid-room".into())
    );
    assert_eq!(call(door, None, "getRoomRoles", &rooms).await.text(), ANONYMOUS);
    let anonymous = call("POST /api/v1/method.callAnon/x", None, "getRoomRoles", &rooms).await;
    assert_eq!(inner(&anonymous)["error"]["error"], "error-invalid-user");
    let unknown = call("POST /api/v1/method.callAnon/x%3Ay", None, "nothing", "[]").await;
    assert_eq!(inner(&unknown)["error"]["error"], 404);
    let form = "message=%7B%22msg%22%3A%22method%22%2C%22id%22%3A%221%22%2C%22method%22%3A%22nothing%22%7D";
    let header = "content-type: application/x-www-form-urlencoded";
    let formed = send(&sample, "POST /api/v1/method.callAnon/x", &[header], form).await.unwrap();
    assert_eq!(inner(&formed)["id"], "1");
}

#[tokio::test]
async fn the_limiter_counts_per_address_and_route_and_spares_administrators_and_head() {
    let sample = Sample::rocketchat().await.unwrap();
    sample.with(|world| world.workspace.limiter.calls = Some(2));
    let first = as_person(&sample, "bob", "/api/v1/me").await;
    assert_eq!((first.header("x-ratelimit-limit"), first.header("x-ratelimit-remaining")), (Some("2"), Some("1")));
    as_person(&sample, "carol", "/api/v1/me").await;
    let third = as_person(&sample, "bob", "/api/v1/me").await;
    assert_eq!((third.status, third.header("x-ratelimit-remaining")), (429, Some("0")));
    assert!(third.text().ends_with("before trying this endpoint again. [error-too-many-requests]\"}"));
    assert_eq!(as_person(&sample, "alice", "/api/v1/me").await.status, 200);
    assert_eq!(as_person(&sample, "bob", "/api/v1/roles.list").await.status, 200);
    let id = format!("x-user-id: {BOB}");
    let headers = [id.as_str(), "x-auth-token: bob-token"];
    assert_eq!(send(&sample, "HEAD /api/v1/me", &headers, "").await.unwrap().status, 200);
    assert_eq!(get(&sample, "/api/v1/me", &[headers[0], headers[1], "x-real-ip: 192.0.2.7"]).await.status, 200);
}

#[tokio::test]
async fn other_methods_and_paths_are_answered_as_the_real_router_does() {
    let sample = Sample::rocketchat().await.unwrap();
    let gone = as_person(&sample, "alice", "/api/v1/Users.info?username=bob").await;
    assert_eq!(
        (gone.status, gone.text(), gone.header("content-type")),
        (404, "404 Not Found", Some("text/plain; charset=UTF-8"))
    );
    assert_eq!(send(&sample, "PATCH /api/v1/me", &[], "").await.unwrap().status, 404);
    assert_eq!(send(&sample, "POST /api/v1/me", &[], "").await.unwrap().status, 404);
    assert_eq!(send(&sample, "OPTIONS /api/v1/me", &[], "").await.unwrap().text(), "OK");
    assert_eq!(send(&sample, "OPTIONS /api/v1/me", &["access-control-request-method: GET"], "").await.unwrap().status, 405);
    for target in ["/api/v1\\me", "/api/v1/x/../me", "http://evil.example/api/v1/me"] {
        assert_eq!(as_person(&sample, "bob", target).await.json()["_id"], BOB, "{target}");
    }
    assert!(as_person(&sample, "bob", "/x/../api/v1/me").await.text().starts_with("<!DOCTYPE html>"));
    let guest = as_person(&sample, "gus", "/api/v1/me").await.json();
    assert_eq!(guest["_id"], GUS);
}
