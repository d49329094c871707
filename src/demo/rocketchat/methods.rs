//! Remote methods over HTTP: the name in the body decides, whatever the URL says.

use http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::failure::Failure;
use super::guarded::{matches, member, members, roles_in_room};
use super::session;
use crate::demo::world::Workspace;
use crate::demo::world::workspace::Person;

/// Whether the path is the door to methods, and whether it opens without a session.
pub(super) fn door(path: &str) -> Option<bool> {
    let one_segment = |name: &str| !name.is_empty() && !name.contains('/');
    let named = path.strip_prefix("/api/v1/method.call/").map(|name| (name, false));
    let anonymous = || path.strip_prefix("/api/v1/method.callAnon/").map(|name| (name, true));
    named.or_else(anonymous).filter(|(name, _)| one_segment(name)).map(|(_, anonymous)| anonymous)
}

/// Runs the method that the body names.
pub(super) fn answer(
    workspace: &mut Workspace,
    headers: &HeaderMap,
    body: &[u8],
    anonymous: bool,
) -> Result<(StatusCode, Value), Failure> {
    let caller = session::authenticate(workspace, headers).map(|(person, _)| person);
    if caller.is_none() && !anonymous {
        return Err(Failure::anonymous());
    }
    let message = message(headers, body)?;
    let call: Value = serde_json::from_str(&message).map_err(|_| Failure::plain("Invalid message"))?;
    let id = call.get("id").cloned().unwrap_or(Value::Null);
    let name = call.get("method").and_then(Value::as_str).unwrap_or_default();
    let no_parameters = Vec::new();
    let parameters = call.get("params").and_then(Value::as_array).unwrap_or(&no_parameters);
    let (status, reply) = match run(workspace, caller.as_ref(), name, parameters) {
        Ok(result) => (StatusCode::OK, json!({"msg": "result", "id": id, "result": result})),
        Err(error) => (StatusCode::BAD_REQUEST, json!({"msg": "result", "id": id, "error": error})),
    };
    Ok((status, json!({"message": reply.to_string(), "success": status == StatusCode::OK})))
}

/// The message inside a JSON body of one member, or inside a form.
fn message(headers: &HeaderMap, body: &[u8]) -> Result<String, Failure> {
    let kind = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.starts_with("application/x-www-form-urlencoded") {
        let form = String::from_utf8_lossy(body);
        let found = form.split('&').find_map(|pair| pair.strip_prefix("message="));
        let found = found.ok_or_else(|| Failure::body("must have required property 'message'"))?;
        return Ok(percent_decode_str(&found.replace('+', " ")).decode_utf8_lossy().into_owned());
    }
    let body: Value = serde_json::from_slice(body).map_err(|_| Failure::plain("Invalid JSON body"))?;
    let fields = body.as_object().ok_or_else(|| Failure::body("must be object"))?;
    let message = fields.get("message").ok_or_else(|| Failure::body("must have required property 'message'"))?;
    if fields.len() > 1 {
        return Err(Failure::body("must NOT have additional properties"));
    }
    message.as_str().map(str::to_owned).ok_or_else(|| Failure::body("must be string"))
}

fn run(workspace: &Workspace, caller: Option<&Person>, name: &str, parameters: &[Value]) -> Result<Value, Value> {
    let text = |index: usize| parameters.get(index).and_then(Value::as_str).unwrap_or_default();
    match name {
        "getRoomRoles" => {
            roles_in_room(workspace, caller, text(0)).map(Value::from).map_err(|(reason, code)| error(reason, code, name))
        }
        "getUsersOfRoom" => {
            let stranger = || error("Invalid user", "error-invalid-user", name);
            let caller = caller.ok_or_else(stranger)?;
            let room = workspace.room(text(0)).ok_or_else(|| error("Invalid room", "error-invalid-room", name))?;
            if !workspace.can_access(room, caller) {
                return Err(error("Not allowed", "error-not-allowed", name));
            }
            let show_all = parameters.get(1).and_then(Value::as_bool).unwrap_or(false);
            let number = |key: &str| parameters.get(2)?.get(key)?.as_u64().and_then(|number| usize::try_from(number).ok());
            let mut people = members(workspace, &room.id);
            people.retain(|person| person.active && matches(person, text(3)) && (show_all || person.status != "offline"));
            people.sort_by(|a, b| a.username.cmp(&b.username));
            let total = people.len();
            let limit = number("limit").filter(|limit| *limit > 0).unwrap_or(usize::MAX);
            let records: Vec<Value> = people.into_iter().skip(number("skip").unwrap_or(0)).take(limit).map(member).collect();
            Ok(json!({"total": total, "records": records}))
        }
        _ => Err(json!({
            "isClientSafe": true,
            "error": 404,
            "reason": format!("Method '{name}' not found"),
            "message": format!("Method '{name}' not found [404]"),
            "errorType": "Meteor.Error",
        })),
    }
}

fn error(reason: &str, code: &str, method: &str) -> Value {
    json!({
        "isClientSafe": true,
        "error": code,
        "reason": reason,
        "message": format!("{reason} [{code}]"),
        "errorType": "Meteor.Error",
        "details": {"method": method},
    })
}
