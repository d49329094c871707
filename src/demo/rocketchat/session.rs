//! Sessions and the limiter of calls.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::failure::Failure;
use super::lookups::profile;
use super::{Call, Outcome};
use crate::demo::world::Workspace;
use crate::demo::world::workspace::Person;

/// The window of the limiter.
const WINDOW: Duration = Duration::from_secs(60);

/// Who the headers prove: both session headers, else an OAuth token, of which "Bearer " is only a decoration.
pub(super) fn authenticate(workspace: &Workspace, headers: &HeaderMap) -> Option<(Person, Option<String>)> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty());
    let (owner, token) = match (header("x-user-id"), header("x-auth-token")) {
        (Some(id), Some(token)) => (workspace.token_owner(token).filter(|owner| *owner == id)?, Some(token.to_owned())),
        _ => (workspace.bearer_owner(&header("authorization")?.replacen("Bearer ", "", 1))?, None),
    };
    Some((workspace.person(owner)?.clone(), token))
}

/// `POST login`: user name or e-mail with a password, or a session token to resume.
pub(super) fn login(workspace: &mut Workspace, call: &Call) -> Outcome {
    let text = |name: &str| call.body.get(name).and_then(Value::as_str);
    let (person, token) = if let Some(token) = text("resume") {
        let owner = workspace.token_owner(token).ok_or_else(Failure::bad_login)?;
        (workspace.person(owner).cloned().ok_or_else(Failure::bad_login)?, token.to_owned())
    } else {
        let name = text("user").or_else(|| text("username")).or_else(|| text("email")).ok_or_else(Failure::bad_login)?;
        let password = text("password").ok_or_else(Failure::bad_login)?;
        let named = |person: &&Person| person.username == name || person.email.eq_ignore_ascii_case(name);
        let person = workspace.people.iter().find(named).filter(|person| person.active && person.password == password);
        let person = person.cloned().ok_or_else(Failure::bad_login)?;
        let token = workspace.issue(&person.id).ok_or_else(Failure::internal)?;
        (person, token)
    };
    Ok(json!({"status": "success", "data": {"userId": person.id, "authToken": token, "me": profile(&person)}}))
}

/// `GET` or `POST logout`: ends the token at hand.
pub(super) fn logout(workspace: &mut Workspace, call: &Call) -> Outcome {
    if let Some(token) = &call.token {
        workspace.revoke(token);
    }
    Ok(json!({"status": "success", "data": {"message": "You've been logged out!"}}))
}

/// Which address the limiter counts: the real server believes `X-Real-IP` when it does not count forwarders.
pub(super) fn client(headers: &HeaderMap, peer: IpAddr) -> IpAddr {
    headers.get("x-real-ip").and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok()).unwrap_or(peer)
}

/// What is left of a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// When the window ends, in milliseconds since 1970.
    pub(super) reset: i64,
}

/// Counts a call; `None` when the limiter is off or the caller passes it by.
pub(super) fn spend(
    workspace: &mut Workspace,
    caller: Option<&Person>,
    client: IpAddr,
    method: &Method,
    path: &str,
) -> Result<Option<Allowance>, (Failure, Allowance)> {
    let Some(limit) = workspace.limiter.calls else { return Ok(None) };
    if caller.is_some_and(|caller| workspace.holds(caller, "api-bypass-rate-limit")) {
        return Ok(None);
    }
    let now = Instant::now();
    workspace.limiter.counted.retain(|_, (begun, _)| now.duration_since(*begun) < WINDOW);
    let key = (client, format!("{method} {path}"));
    let (begun, calls) = workspace.limiter.counted.entry(key).or_insert((now, 0));
    *calls = calls.saturating_add(1);
    let left = WINDOW.saturating_sub(now.duration_since(*begun));
    let reset = Timestamp::now().as_millisecond().saturating_add(i64::try_from(left.as_millis()).unwrap_or(i64::MAX));
    let allowance = Allowance { limit, remaining: limit.saturating_sub(*calls), reset };
    match *calls > limit {
        true => Err((Failure::limited(left.as_secs() + 1), allowance)),
        false => Ok(Some(allowance)),
    }
}
