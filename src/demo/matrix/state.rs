//! The state of a room, as events.

use serde_json::{Value, json};

use crate::demo::world::homeserver::{Homeserver, Room};

/// Every event of the room's state.
pub(super) fn all(server: &Homeserver, room: &Room) -> Vec<Value> {
    let of_room = ["m.room.create", "m.room.power_levels", "m.room.history_visibility", "m.room.name"];
    let named = of_room.iter().filter_map(|kind| event(server, room, kind, ""));
    named.chain(members(server, room)).collect()
}

/// What each user is to the room.
pub(super) fn members(server: &Homeserver, room: &Room) -> Vec<Value> {
    room.members.keys().filter_map(|user| event(server, room, "m.room.member", user)).collect()
}

/// The event of this kind and key, if the room has one.
pub(super) fn event(server: &Homeserver, room: &Room, kind: &str, key: &str) -> Option<Value> {
    let content = match (kind, key) {
        // From version 11 on the creator is the event's sender.
        ("m.room.create", "") => json!({ "room_version": room.version }),
        ("m.room.power_levels", "") => json!({ "users": room.levels, "users_default": 0 }),
        ("m.room.history_visibility", "") => json!({ "history_visibility": visibility(room) }),
        ("m.room.name", "") => json!({ "name": room.name }),
        ("m.room.member", user) => json!({
            "membership": room.members.get(user)?.as_str(),
            "displayname": server.user(user).map(|user| &user.name),
        }),
        _ => return None,
    };
    let sender = if kind == "m.room.member" { key } else { &room.creator };
    Some(json!({ "type": kind, "state_key": key, "room_id": room.id, "sender": sender, "content": content }))
}

/// The word for who may read the room's history.
pub(super) fn visibility(room: &Room) -> &'static str {
    if room.world_readable { "world_readable" } else { "shared" }
}
