//! The routes that a gate looks facts up on, and two unguarded lists.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::failure::Failure;
use super::guarded::{matches, member, members};
use super::page::Page;
use super::{Call, Outcome};
use crate::demo::world::Workspace;
use crate::demo::world::workspace::{Person, Role, Room, RoomKind};

/// When everybody was created, changed and last seen.
pub(super) const PROFILE_TIME: &str = "2024-08-27T09:07:03.795Z";

/// `me`.
pub(super) fn me(_workspace: &mut Workspace, call: &Call) -> Outcome {
    let mut body = profile(call.caller()?);
    if let Some(fields) = body.as_object_mut() {
        fields.insert("success".to_owned(), json!(true));
    }
    Ok(body)
}

/// The person's own view, which `login` shows too.
pub(super) fn profile(person: &Person) -> Value {
    json!({
        "_id": person.id,
        "services": {"password": {"exists": true}},
        "emails": [{"address": person.email, "verified": true}],
        "status": person.status,
        "active": person.active,
        "_updatedAt": PROFILE_TIME,
        "roles": person.roles,
        "name": person.name,
        "statusConnection": person.status,
        "username": person.username,
        "utcOffset": 1,
        "settings": {"preferences": {}},
        "avatarUrl": format!("/avatar/{}", person.username),
        "email": person.email,
    })
}

/// `permissions.listAll`: everything, or what changed since.
pub(super) fn permissions(workspace: &mut Workspace, call: &Call) -> Outcome {
    let since = since(call, "error-roomId-param-invalid")?;
    let update: Vec<Value> = workspace
        .permissions
        .iter()
        .filter(|permission| since.is_none_or(|since| permission.updated > since))
        .map(|permission| json!({"_id": permission.id, "roles": permission.roles, "_updatedAt": stamp(permission.updated)}))
        .collect();
    let removed = workspace.withdrawn.iter().filter(|(_, when)| since.is_some_and(|since| *when > since));
    let remove: Vec<Value> = removed.map(|(id, when)| json!({"_id": id, "_deletedAt": stamp(*when)})).collect();
    Ok(json!({"update": update, "remove": remove, "success": true}))
}

/// `roles.list`.
pub(super) fn roles(workspace: &mut Workspace, _call: &Call) -> Outcome {
    let roles: Vec<Value> = workspace.roles.iter().map(role).collect();
    Ok(json!({"roles": roles, "success": true}))
}

/// `roles.sync`.
pub(super) fn roles_since(workspace: &mut Workspace, call: &Call) -> Outcome {
    let since = since(call, "error-invalid-param")?;
    let changed = workspace.roles.iter().filter(|role| since.is_none_or(|since| role.updated > since));
    let update: Vec<Value> = changed.map(role).collect();
    Ok(json!({"roles": {"update": update, "remove": []}, "success": true}))
}

/// `subscriptions.getOne`: the caller's own, `null` when there is none.
pub(super) fn subscription(workspace: &mut Workspace, call: &Call) -> Outcome {
    let caller = call.caller()?;
    let entry = workspace.subscription(&caller.id, call.arguments.text("roomId").unwrap_or_default());
    let subscription = entry.and_then(|entry| {
        let room = workspace.room(&entry.room)?;
        let mut told = json!({
            "_id": entry.id,
            "rid": entry.room,
            "u": {"_id": caller.id, "username": caller.username, "name": caller.name},
            "t": room.kind.as_str(),
            "name": room.name,
            "open": true,
            "unread": 0,
            "roles": entry.roles,
            "_updatedAt": PROFILE_TIME,
        });
        if let (true, Some(fields)) = (entry.invited, told.as_object_mut()) {
            fields.insert("status".to_owned(), json!("INVITED"));
        }
        Some(told)
    });
    Ok(json!({"subscription": subscription, "success": true}))
}

/// `rooms.info`, by id or name.
pub(super) fn room(workspace: &mut Workspace, call: &Call) -> Outcome {
    let room = by_id_or_name(workspace, call)?;
    if !workspace.can_access(room, call.caller()?) {
        return Err(Failure::typed("not-allowed", "Not Allowed"));
    }
    let mut body = json!({
        "_id": room.id,
        "name": room.name,
        "t": room.kind.as_str(),
        "usersCount": members(workspace, &room.id).len(),
        "ro": false,
        "_updatedAt": PROFILE_TIME,
    });
    if let (Some(parent), Some(fields)) = (&room.parent, body.as_object_mut()) {
        fields.insert("prid".to_owned(), json!(parent));
    }
    Ok(json!({"room": body, "success": true}))
}

/// `channels.members`: public rooms only.
pub(super) fn channel_members(workspace: &mut Workspace, call: &Call) -> Outcome {
    let room = by_id_or_name(workspace, call)?;
    if room.kind != RoomKind::Channel {
        return Err(no_such_room());
    }
    if !workspace.can_access(room, call.caller()?) {
        return Err(Failure::forbidden());
    }
    let mut members = members(workspace, &room.id);
    members.retain(|person| person.active && matches(person, call.arguments.text("filter").unwrap_or_default()));
    members.sort_by(|a, b| a.username.cmp(&b.username));
    let (page, total) = (Page::of(&call.arguments), members.len());
    let members: Vec<Value> = page.cut(members).into_iter().map(member).collect();
    Ok(json!({"members": members, "count": members.len(), "offset": page.offset, "total": total, "success": true}))
}

/// `users.list`: addresses and roles only for those who may see everything.
pub(super) fn users(workspace: &mut Workspace, call: &Call) -> Outcome {
    let caller = call.caller()?;
    if !workspace.holds(caller, "view-d-room") {
        return Err(Failure::forbidden());
    }
    let sees_all = workspace.holds(caller, "view-full-other-user-info");
    let shown = |person: &Person| {
        let mut user = json!({
            "_id": person.id,
            "username": person.username,
            "name": person.name,
            "type": "user",
            "status": person.status,
            "active": person.active,
            "avatarETag": person.username,
        });
        if let (true, Some(fields)) = (sees_all, user.as_object_mut()) {
            fields.insert("emails".to_owned(), json!([{"address": person.email, "verified": true}]));
            fields.insert("roles".to_owned(), json!(person.roles));
            fields.insert("lastLogin".to_owned(), json!(PROFILE_TIME));
        }
        user
    };
    let mut people: Vec<&Person> = workspace.people.iter().collect();
    people.sort_by(|a, b| a.username.cmp(&b.username));
    let (page, total) = (Page::of(&call.arguments), people.len());
    let users: Vec<Value> = page.cut(people).into_iter().map(shown).collect();
    Ok(json!({"users": users, "count": users.len(), "offset": page.offset, "total": total, "success": true}))
}

/// A time as the server writes it, to the millisecond.
fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn role(role: &Role) -> Value {
    json!({
        "_id": role.id,
        "name": role.name,
        "scope": role.scope.as_str(),
        "description": role.description,
        "protected": role.protected,
        "mandatory2fa": false,
        "_updatedAt": stamp(role.updated),
    })
}

fn since(call: &Call, code: &str) -> Result<Option<Timestamp>, Failure> {
    let Some(text) = call.arguments.text("updatedSince") else { return Ok(None) };
    let invalid = |_| Failure::meteor(Some("The \"updatedSince\" query parameter must be a valid date."), code, None);
    text.parse().map(Some).map_err(invalid)
}

fn by_id_or_name<'a>(workspace: &'a Workspace, call: &Call) -> Result<&'a Room, Failure> {
    let argument = |name| call.arguments.text(name).filter(|text| !text.is_empty());
    let found = match (argument("roomId"), argument("roomName")) {
        (Some(id), _) => workspace.room(id),
        (None, Some(name)) => workspace.rooms.iter().find(|room| room.name == name),
        (None, None) => {
            let reason = "The parameter \"roomId\" or \"roomName\" is required";
            return Err(Failure::meteor(Some(reason), "error-roomid-param-not-provided", None));
        }
    };
    found.ok_or_else(no_such_room)
}

fn no_such_room() -> Failure {
    let reason = "The required \"roomId\" or \"roomName\" param provided does not match any channel";
    Failure::meteor(Some(reason), "error-room-not-found", None)
}
