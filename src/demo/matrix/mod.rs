//! A Matrix homeserver with Synapse's admin API, as far as members and roles are told by it.

mod failure;
mod state;

use std::borrow::Cow;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::answer::{self, BODY_LIMIT};
use super::world::World;
use super::world::homeserver::{Homeserver, Membership, Room, User};
use failure::Failure;

/// Answers one request.
pub(super) async fn answer(world: &Mutex<World>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_LIMIT).await.unwrap_or_default();
    let world = world.lock();
    let path = segments(parts.uri.path());
    let path: Vec<&str> = path.iter().map(Cow::as_ref).collect();
    let answered = match path.as_slice() {
        ["_matrix", "client", "versions"] => Ok(json!({ "versions": ["v1.11", "v1.12"] })),
        ["_matrix", "client", "v3" | "r0" | "unstable", rest @ ..] | ["_matrix", "client", "api", "v1", rest @ ..] => {
            client(&world.homeserver, &parts, rest, &body)
        }
        ["_synapse", "admin", version @ ("v1" | "v2"), rest @ ..] => admin(&world.homeserver, &parts, version, rest),
        _ => Err(Failure::Unrecognized),
    };
    let mut response = match answered {
        Ok(body) => answer::json(StatusCode::OK, "application/json", &body),
        Err(failure) => failure.answer(),
    };
    answer::set(response.headers_mut(), "access-control-allow-origin", "*");
    response
}

/// The path as Twisted reads it: parted at slashes, then each segment decoded once.
fn segments(raw: &str) -> Vec<Cow<'_, str>> {
    raw.split('/').skip(1).map(|segment| percent_decode_str(segment).decode_utf8_lossy()).collect()
}

/// The path by which a test names what was asked.
pub(super) fn path(raw: &str) -> String {
    format!("/{}", segments(raw).join("/"))
}

/// The client-server API, below its version.
fn client(server: &Homeserver, parts: &Parts, path: &[&str], body: &[u8]) -> Result<Value, Failure> {
    let caller = bearer(server, &parts.headers)?;
    if let (["user_directory", "search"], &Method::POST) = (path, &parts.method) {
        return search(server, body);
    }
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(Failure::Unrecognized);
    }
    let query = parts.uri.query();
    match path {
        ["account", "whoami"] => Ok(json!({ "user_id": caller.id, "is_guest": false, "device_id": "DEMO" })),
        ["joined_rooms"] => Ok(json!({ "joined_rooms": joined(server, &caller.id) })),
        ["profile", user] => {
            let user = server.user(user).ok_or(Failure::NotFound)?;
            Ok(json!({ "displayname": user.name }))
        }
        ["profile", user, "displayname"] => {
            let user = server.user(user).ok_or(Failure::NotFound)?;
            Ok(json!({ "displayname": user.name }))
        }
        ["rooms", room, "joined_members"] => {
            // An unknown room is answered like somebody else's: the answer must not say which rooms there are.
            let room = server.room(room).ok_or(Failure::NotInRoom)?;
            if room.members.get(&caller.id) != Some(&Membership::Join) {
                return Err(Failure::NotInRoom);
            }
            let of =
                |id: &String| (id.clone(), json!({ "display_name": server.user(id).map(|user| &user.name), "avatar_url": null }));
            let joined = room.members.iter().filter(|(_, membership)| **membership == Membership::Join);
            Ok(json!({ "joined": joined.map(|(id, _)| of(id)).collect::<serde_json::Map<_, _>>() }))
        }
        ["rooms", room, "members"] => {
            let room = readable(server, room, &caller.id)?;
            let (only, not) = (answer::parameter(query, "membership"), answer::parameter(query, "not_membership"));
            let members = state::members(server, room).into_iter().filter(|event| {
                let membership = event.pointer("/content/membership").and_then(Value::as_str);
                only.is_none_or(|only| membership == Some(only)) && (not.is_none() || membership != not)
            });
            Ok(json!({ "chunk": members.collect::<Vec<_>>() }))
        }
        ["rooms", room, "state"] => Ok(Value::Array(state::all(server, readable(server, room, &caller.id)?))),
        ["rooms", room, "state", kind] => state_event(server, room, caller, kind, "", query),
        ["rooms", room, "state", kind, key] => state_event(server, room, caller, kind, key, query),
        _ => Err(Failure::Unrecognized),
    }
}

/// Synapse's admin API: for administrators of the server only.
fn admin(server: &Homeserver, parts: &Parts, version: &str, path: &[&str]) -> Result<Value, Failure> {
    let caller = bearer(server, &parts.headers)?;
    if !caller.admin {
        return Err(Failure::NotServerAdmin);
    }
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(Failure::Unrecognized);
    }
    let room = |id: &str| server.room(id).ok_or(Failure::NotFound);
    let user = |id: &str| server.user(id).ok_or(Failure::NotFound);
    match (version, path) {
        ("v1", ["users", id, "admin"]) => Ok(json!({ "admin": user(id)?.admin })),
        ("v1", ["users", id, "joined_rooms"]) => {
            let rooms = joined(server, &user(id)?.id);
            Ok(json!({ "total": rooms.len(), "joined_rooms": rooms }))
        }
        ("v1", ["rooms"]) => {
            let rooms: Vec<Value> = server.rooms.iter().map(summary).collect();
            Ok(json!({ "offset": 0, "total_rooms": rooms.len(), "rooms": rooms }))
        }
        ("v1", ["rooms", id]) => Ok(summary(room(id)?)),
        ("v1", ["rooms", id, "members"]) => {
            let members = members(room(id)?);
            Ok(json!({ "total": members.len(), "members": members }))
        }
        ("v1", ["rooms", id, "state"]) => Ok(json!({ "state": state::all(server, room(id)?) })),
        ("v1", ["whois", id]) => Ok(json!({ "user_id": user(id)?.id, "devices": {} })),
        ("v2", ["users"]) => {
            let users: Vec<Value> = server.users.iter().map(account).collect();
            Ok(json!({ "total": users.len(), "users": users }))
        }
        ("v2", ["users", id]) => Ok(account(user(id)?)),
        _ => Err(Failure::Unrecognized),
    }
}

/// The event's content; with `format=event` the whole of it.
fn state_event(
    server: &Homeserver,
    room: &str,
    caller: &User,
    kind: &str,
    key: &str,
    query: Option<&str>,
) -> Result<Value, Failure> {
    let room = readable(server, room, &caller.id)?;
    let event = state::event(server, room, kind, key).ok_or(Failure::NotFound)?;
    match answer::parameter(query, "format") {
        Some("event") => Ok(event),
        _ => Ok(event.get("content").cloned().unwrap_or_default()),
    }
}

/// The room, if its state is shown to this user: to members, to those who were, and to everybody where its history is open.
fn readable<'a>(server: &'a Homeserver, room: &str, user: &str) -> Result<&'a Room, Failure> {
    let room = server.room(room).ok_or(Failure::NotInRoom)?;
    match room.members.get(user) {
        Some(Membership::Join | Membership::Leave | Membership::Ban) => Ok(room),
        Some(Membership::Invite) | None if room.world_readable => Ok(room),
        Some(Membership::Invite) | None => Err(Failure::NotInRoom),
    }
}

/// Users whose name or id holds the term.
fn search(server: &Homeserver, body: &[u8]) -> Result<Value, Failure> {
    let body: Value = serde_json::from_slice(body).map_err(|_| Failure::NotJson)?;
    let term = body.get("search_term").and_then(Value::as_str).ok_or(Failure::MissingParameter)?.to_lowercase();
    let found = server.users.iter().filter(|user| user.id.contains(&term) || user.name.to_lowercase().contains(&term));
    let results: Vec<Value> = found.map(|user| json!({ "user_id": user.id, "display_name": user.name })).collect();
    Ok(json!({ "limited": false, "results": results }))
}

fn joined<'a>(server: &'a Homeserver, user: &str) -> Vec<&'a str> {
    let joined = server.rooms.iter().filter(|room| room.members.get(user) == Some(&Membership::Join));
    joined.map(|room| room.id.as_str()).collect()
}

fn members(room: &Room) -> Vec<&str> {
    let joined = room.members.iter().filter(|(_, membership)| **membership == Membership::Join);
    joined.map(|(id, _)| id.as_str()).collect()
}

fn summary(room: &Room) -> Value {
    json!({
        "room_id": room.id,
        "name": room.name,
        "joined_members": members(room).len(),
        "version": room.version,
        "creator": room.creator,
        "history_visibility": state::visibility(room),
    })
}

fn account(user: &User) -> Value {
    json!({ "name": user.id, "displayname": user.name, "admin": user.admin, "deactivated": false })
}

fn bearer<'a>(server: &'a Homeserver, headers: &HeaderMap) -> Result<&'a User, Failure> {
    let sent = headers.get("authorization").and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
    let token = sent.ok_or(Failure::MissingToken)?;
    server.token_owner(token).ok_or(Failure::UnknownToken)
}
