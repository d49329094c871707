//! Access is not membership: what the server shows a caller is access, and an invitation is neither.

use rolegate::demo::world::workspace::{BOARDROOM, BOB, CAROL, EVE, RoomKind, TOWN_SQUARE};
use serde_json::json;

use crate::support::Gate;
use crate::support::gate::login;

const INFO: &str = "/api/v1/rooms.info";

/// The roles of a room and its members, asked as `name`: the statuses, and the policies behind the last one.
async fn doors(gate: &Gate, room: &str, name: &str) -> (u16, u16, Vec<String>) {
    let roles = gate.get(&format!("/api/v1/rooms.roles?rid={room}"), &login(name)).await.status;
    let by = gate.last_decision()["policies"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    let message = json!({"msg": "method", "id": "7", "method": "getUsersOfRoom", "params": [room]}).to_string();
    let body = json!({ "message": message }).to_string();
    let mut headers = login(name);
    headers.push(("Content-Type", "application/json".to_owned()));
    let target = "/api/v1/method.call/getUsersOfRoom";
    let members = gate.connect().await.request("POST", target, &headers, body.as_bytes()).await.status;
    (roles, members, by)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_the_parent_room_sees_the_people_of_a_discussion_and_an_outsider_does_not() {
    let gate = Gate::rocketchat().await;
    gate.sample.with(|world| {
        world.workspace.open("discussion00000001", RoomKind::Private, Some(BOARDROOM));
        world.workspace.open("discussion00000002", RoomKind::Private, Some("discussion00000001"));
        world.workspace.join(BOB, "discussion00000001", &["owner"]);
    });
    let access = || vec!["rooms-access".to_owned()];
    assert_eq!(doors(&gate, "discussion00000001", "carol").await, (200, 200, access()));
    assert_eq!(doors(&gate, "discussion00000002", "carol").await, (200, 200, access()), "also one of a discussion");
    let room = gate.last_decision()["context"]["room"].clone();
    assert_eq!((&room["member"], &room["access"], &room["kind"]), (&json!(false), &json!(true), &json!("p")));
    assert_eq!(doors(&gate, "discussion00000001", "eve").await, (403, 403, vec![]));
    assert_eq!(doors(&gate, "discussion00000001", "bob").await, (200, 200, vec!["rooms-roles-member".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_see_the_chats_of_the_livechat_sees_who_is_in_one() {
    let gate = Gate::rocketchat().await;
    gate.sample.with(|world| {
        world.workspace.open("livechat0000000001", RoomKind::Livechat, None);
        world.workspace.set_roles(EVE, &["user", "livechat-manager"]);
    });
    assert_eq!(doors(&gate, "livechat0000000001", "eve").await, (200, 200, vec!["rooms-access".to_owned()]));
    assert_eq!(doors(&gate, "livechat0000000001", "bob").await, (403, 403, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_no_membership_even_where_the_server_shows_the_room() {
    let gate = Gate::rocketchat().await;
    gate.sample.with(|world| world.workspace.invite(EVE, BOARDROOM));
    assert_eq!(doors(&gate, BOARDROOM, "eve").await, (403, 403, vec![]));
    let shown = json!({"room": {"_id": BOARDROOM, "t": "p"}, "success": true}).to_string();
    gate.sample.behave(INFO, rolegate::demo::Behaviour::json(200, shown));
    gate.sample.with(|world| {
        world.workspace.open("discussion00000003", RoomKind::Private, None);
        world.workspace.invite(EVE, "discussion00000003");
    });
    assert_eq!(doors(&gate, "discussion00000003", "eve").await, (403, 403, vec![]));
    let room = gate.last_decision()["context"]["room"].clone();
    assert_eq!((&room["invited"], &room["member"], &room["access"]), (&json!(true), &json!(false), &json!(false)), "{room}");
    assert_eq!(gate.sample.count("/api/v1/rooms.roles"), 0, "nothing that was refused arrived");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_room_needs_view_c_room_whatever_the_server_shows() {
    let gate = Gate::rocketchat().await;
    gate.sample.with(|world| world.workspace.set_roles(CAROL, &["guest"]));
    gate.sample.with(|world| world.workspace.leave(CAROL, TOWN_SQUARE));
    let shown = json!({"room": {"_id": TOWN_SQUARE, "t": "c"}, "success": true}).to_string();
    gate.sample.behave(INFO, rolegate::demo::Behaviour::json(200, shown));
    assert_eq!(doors(&gate, TOWN_SQUARE, "carol").await, (403, 403, vec![]));
}
