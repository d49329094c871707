//! The four routes that rolegate guards, with the server's own checks in the server's own order.

use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::lookups::PROFILE_TIME;
use super::page::Page;
use super::{Call, Outcome};
use crate::demo::world::Workspace;
use crate::demo::world::workspace::{Audition, Person, Scope};

/// `audit/rooms.members`: any room of any kind, without being in it; leaves a trace in the server's audit log.
pub(super) fn audit_room_members(workspace: &mut Workspace, call: &Call) -> Outcome {
    let page = Page::of(&call.arguments);
    let direction = sort_by_username(call.arguments.text("sort"))?;
    let id = call.arguments.text("roomId").unwrap_or_default();
    let room = workspace.room(id).ok_or_else(Failure::not_found)?.id.clone();
    let filter = call.arguments.text("filter").unwrap_or_default();

    let mut members = members(workspace, &room);
    members.retain(|person| person.active && matches(person, filter));
    match direction {
        Some(direction) => {
            members.sort_by(|a, b| a.username.cmp(&b.username));
            if direction < 0 {
                members.reverse();
            }
        }
        None => members.sort_by(|a, b| b.status.cmp(&a.status).then_with(|| a.username.cmp(&b.username))),
    }
    let total = members.len();
    let members: Vec<Value> = page.cut(members).into_iter().map(member).collect();
    let answer = json!({"members": members, "count": members.len(), "offset": page.offset, "total": total, "success": true});

    let (person, filter) = (call.caller()?.id.clone(), filter.to_owned());
    workspace.auditions.push(Audition { person, room, filter, results: total });
    Ok(answer)
}

/// `roles.getUsersInRole`.
pub(super) fn users_in_role(workspace: &mut Workspace, call: &Call) -> Outcome {
    let caller = call.caller()?;
    let role = call.arguments.text("role").unwrap_or_default();
    if role.is_empty() {
        return Err(Failure::meteor(Some("Query param \"role\" is required"), "error-param-not-provided", None));
    }
    let room = call.arguments.text("roomId").filter(|room| !room.is_empty());
    if room.is_some() && !workspace.holds(caller, "view-other-user-channels") {
        return Err(Failure::meteor(Some("Not allowed"), "error-not-allowed", None));
    }
    let invalid = || Failure::meteor(None, "error-invalid-roleId", None);
    let role = workspace.roles.iter().find(|known| known.id == role).ok_or_else(invalid)?;

    let mut holders: Vec<&Person> = workspace
        .people
        .iter()
        .filter(|person| match role.scope {
            Scope::Users => person.roles.contains(&role.id),
            Scope::Subscriptions => holds_in_a_room(workspace, person, room, &role.id),
        })
        .collect();
    holders.sort_by(|a, b| a.username.cmp(&b.username));
    let total = holders.len();
    let shown = |person: &Person| {
        json!({
            "_id": person.id,
            "createdAt": PROFILE_TIME,
            "username": person.username,
            "emails": [{"address": person.email, "verified": true}],
            "name": person.name,
            "avatarETag": person.username,
            "_updatedAt": PROFILE_TIME,
        })
    };
    let users: Vec<Value> = Page::of(&call.arguments).cut(holders).into_iter().map(shown).collect();
    Ok(json!({"users": users, "total": total, "success": true}))
}

/// `rooms.roles`; a room that one may not see answers otherwise than one that is not there.
pub(super) fn room_roles(workspace: &mut Workspace, call: &Call) -> Outcome {
    let rid = call.arguments.text("rid").unwrap_or_default();
    let roles = roles_in_room(workspace, call.caller.as_ref(), rid)
        .map_err(|(reason, code)| Failure::meteor(Some(reason), code, Some(json!({"method": "getRoomRoles"}))))?;
    Ok(json!({"roles": roles, "success": true}))
}

/// What both doors of the room's roles answer: the reason and code of an error, or the list.
pub(super) fn roles_in_room(
    workspace: &Workspace,
    caller: Option<&Person>,
    rid: &str,
) -> Result<Vec<Value>, (&'static str, &'static str)> {
    const STRANGER: (&str, &str) = ("Invalid user", "error-invalid-user");
    let room = workspace.room(rid).ok_or(("Invalid room", "error-invalid-room"))?;
    if !workspace.can_access(room, caller.ok_or(STRANGER)?) {
        return Err(STRANGER);
    }
    let public = |id: &String| {
        let role = workspace.roles.iter().find(|role| role.id == *id);
        role.is_some_and(|role| role.scope == Scope::Subscriptions && !role.description.is_empty())
    };
    let mut rows: Vec<_> = workspace
        .subscriptions
        .iter()
        .filter(|entry| entry.room == rid && entry.roles.iter().any(public))
        .filter_map(|entry| Some((workspace.person(&entry.person)?, entry)))
        .collect();
    rows.sort_by(|(a, _), (b, _)| a.username.cmp(&b.username));
    Ok(rows
        .into_iter()
        .map(|(person, entry)| {
            let mut user = json!({"_id": person.id, "username": person.username});
            if let (true, Some(user)) = (workspace.real_names, user.as_object_mut()) {
                user.insert("name".to_owned(), json!(person.name));
            }
            json!({"_id": entry.id, "rid": entry.room, "u": user, "roles": entry.roles})
        })
        .collect())
}

/// `users.info`: id and user name each find either.
pub(super) fn user_info(workspace: &mut Workspace, call: &Call) -> Outcome {
    let caller = call.caller()?;
    let argument = |name| call.arguments.text(name);
    let sees_all = workspace.holds(caller, "view-full-other-user-info");
    let by_id_or_name = argument("userId").or_else(|| argument("username"));
    let selector = by_id_or_name.or_else(|| argument("importId")).or_else(|| argument("email"));
    if selector.or_else(|| argument("freeSwitchExtension")).is_none_or(str::is_empty) {
        return Err(Failure::plain("Invalid search query."));
    }
    let found = match (by_id_or_name, argument("email")) {
        (Some(text), _) => workspace.people.iter().find(|person| person.id == text || person.username == text),
        (None, Some(email)) if sees_all => workspace.people.iter().find(|person| person.email == email),
        // Nobody here was imported or has a telephone extension.
        (None, _) => None,
    };
    let person = found.ok_or_else(|| Failure::plain("User not found."))?;

    let myself = argument("userId") == Some(&caller.id) || argument("username") == Some(&caller.username);
    let mut user = visible(person, myself, sees_all);
    let own_rooms = person.id == caller.id || workspace.holds(caller, "view-other-user-channels");
    if argument("includeUserRooms") == Some("true") && own_rooms {
        user.insert("rooms".to_owned(), rooms_of(workspace, person));
    }
    Ok(json!({"user": user, "success": true}))
}

/// The fields of a person that this caller may see.
fn visible(person: &Person, myself: bool, sees_all: bool) -> Map<String, Value> {
    let mut user = Map::new();
    let mut put = |name: &str, value: Value| user.insert(name.to_owned(), value);
    put("_id", json!(person.id));
    if myself || sees_all {
        put("createdAt", json!(PROFILE_TIME));
    }
    if myself {
        put("services", json!({"password": true, "email2fa": {"enabled": true, "changedAt": PROFILE_TIME}}));
    }
    put("username", json!(person.username));
    if myself || sees_all {
        put("emails", json!([{"address": person.email, "verified": true}]));
    }
    put("type", json!("user"));
    put("status", json!(person.status));
    put("active", json!(person.active));
    if myself || sees_all {
        put("roles", json!(person.roles));
    }
    put("name", json!(person.name));
    if myself || sees_all {
        put("requirePasswordChange", json!(false));
        put("lastLogin", json!(PROFILE_TIME));
        put("statusConnection", json!(person.status));
    }
    put("utcOffset", json!(1));
    put("statusText", json!(""));
    put("avatarETag", json!(person.username));
    put("nickname", json!(person.username));
    put("canViewAllInfo", json!(myself || sees_all));
    user
}

fn rooms_of(workspace: &Workspace, person: &Person) -> Value {
    let mine = workspace.subscriptions.iter().filter(|entry| entry.person == person.id);
    let rows = mine.filter_map(|entry| {
        let room = workspace.room(&entry.room)?;
        Some(json!({
            "_id": entry.id, "unread": 0, "rid": room.id, "name": room.name, "t": room.kind.as_str(), "roles": entry.roles,
        }))
    });
    rows.collect()
}

/// The order that `sort` asks for: only the user name counts, but every direction must be 1 or -1.
fn sort_by_username(sort: Option<&str>) -> Result<Option<i64>, Failure> {
    let Some(text) = sort else { return Ok(None) };
    let invalid = || {
        let reason = format!("Invalid sort parameter provided: \"{text}\"");
        Failure::meteor(Some(&reason), "error-invalid-sort", Some(json!({"helperMethod": "parseJsonQuery"})))
    };
    // A direction may be written 1.0: JavaScript has one kind of number.
    let direction = |value: &Value| value.as_f64().filter(|number| number.abs() == 1.0).map(|number| number as i64);
    match serde_json::from_str(text).map_err(|_| invalid())? {
        Value::Object(fields) if fields.values().all(|value| direction(value).is_some()) => {
            Ok(fields.get("username").and_then(direction))
        }
        Value::Array(items) if items.iter().all(|value| direction(value).is_some()) => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::Number(_) | Value::Bool(_) => Ok(None),
        _ => Err(invalid()),
    }
}

/// The members of a room in no order.
pub(super) fn members<'a>(workspace: &'a Workspace, room: &str) -> Vec<&'a Person> {
    let entries = workspace.subscriptions.iter().filter(|entry| entry.room == room && !entry.invited);
    entries.filter_map(|entry| workspace.person(&entry.person)).collect()
}

/// Whether the filter's text is in a searched field, in any case of letters.
pub(super) fn matches(person: &Person, filter: &str) -> bool {
    let wanted = filter.to_lowercase();
    [&person.username, &person.name].into_iter().any(|field| field.to_lowercase().contains(&wanted))
}

/// A member as lists show one.
pub(super) fn member(person: &Person) -> Value {
    json!({
        "_id": person.id,
        "status": person.status,
        "name": person.name,
        "username": person.username,
        "nickname": person.username,
        "avatarETag": person.username,
        "_updatedAt": PROFILE_TIME,
    })
}

/// Whether the person holds the role in `room`, or in any room when none is named.
fn holds_in_a_room(workspace: &Workspace, person: &Person, room: Option<&str>, role: &String) -> bool {
    let mut entries = workspace.subscriptions.iter().filter(|entry| entry.person == person.id);
    entries.any(|entry| room.is_none_or(|room| entry.room == room) && entry.roles.contains(role))
}
