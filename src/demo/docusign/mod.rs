//! A DocuSign Rooms server and the account server beside it, on one listener.

mod failure;
mod page;
pub(super) mod target;

use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::answer;
use super::world::account::{ACCOUNT, FLAGS, Person, Role, Room, RoomUser, Strangers};
use super::world::{Account, World};
use failure::Failure;
use page::Page;

/// Of everything that the Rooms server sends.
const CONTENT_TYPE: &str = "application/json; charset=utf-8";
/// Calls an hour and account.
const HOURLY: u32 = 3000;
/// Calls in thirty seconds.
const BURST: u32 = 500;

/// Answers one request.
pub(super) fn answer(world: &Mutex<World>, request: Request) -> Response {
    // No route here reads a body.
    let (parts, _) = request.into_parts();
    let path = target::read(parts.uri.path());
    let mut world = world.lock();
    let account = &mut world.account;
    account.calls = account.calls.wrapping_add(1);
    let reference = format!("5f0c1e9a-0000-4000-8000-{:012x}", account.calls);
    if path.eq_ignore_ascii_case("/oauth/userinfo") {
        return match userinfo(account, &parts) {
            Ok(body) => answer::json(StatusCode::OK, "application/json", &body),
            Err(failure) => failure.answer(&reference),
        };
    }
    let mut response = match rooms_api(account, &parts, &path) {
        Ok(body) => answer::json(StatusCode::OK, CONTENT_TYPE, &body),
        Err(failure) => failure.answer(&reference),
    };
    let headers = response.headers_mut();
    let remaining = if account.exhausted { 0 } else { HOURLY.saturating_sub(account.calls) };
    let now = Timestamp::now().as_second();
    answer::set(headers, "cache-control", "no-cache");
    answer::set(headers, "x-ratelimit-limit", HOURLY);
    answer::set(headers, "x-ratelimit-remaining", remaining);
    answer::set(headers, "x-ratelimit-reset", now - now.rem_euclid(3600) + 3600);
    answer::set(headers, "x-burstlimit-limit", BURST);
    answer::set(headers, "x-burstlimit-remaining", BURST - 1);
    answer::set(headers, "x-docusign-tracetoken", reference);
    response
}

/// The account server: who a token belongs to.
fn userinfo(account: &Account, parts: &Parts) -> Result<Value, Failure> {
    if !reads(&parts.method) {
        return Err(Failure::NotFound);
    }
    let person = bearer(account, &parts.headers).ok_or(Failure::AccountServer)?;
    let accounts = person.accounts.iter().enumerate().map(|(index, id)| {
        json!({
            "account_id": id,
            "is_default": index == 0,
            "account_name": "Sample Realty",
            "base_uri": "https://na3.docusign.net",
        })
    });
    let accounts: Vec<Value> = accounts.collect();
    Ok(json!({
        "sub": person.subject,
        "name": format!("{} {}", person.first_name, person.last_name),
        "given_name": person.first_name,
        "family_name": person.last_name,
        "created": "2015-08-13T22:03:03.45",
        "email": person.email,
        "accounts": accounts,
    }))
}

/// The Rooms server, with and without `/restapi` before its paths.
fn rooms_api(account: &Account, parts: &Parts, path: &str) -> Result<Value, Failure> {
    let caller = bearer(account, &parts.headers).ok_or(Failure::InvalidToken)?;
    if account.exhausted {
        return Err(Failure::HourlyLimit);
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let below = match segments.as_slice() {
        [prefix, rest @ ..] if prefix.eq_ignore_ascii_case("restapi") => rest,
        all => all,
    };
    let [version, accounts, id, rest @ ..] = below else { return Err(Failure::NotFound) };
    let literal = |segment: &str, word: &str| segment.eq_ignore_ascii_case(word);
    if !literal(version, "v2") || !literal(accounts, "accounts") || !reads(&parts.method) {
        return Err(Failure::NotFound);
    }
    if !id.eq_ignore_ascii_case(ACCOUNT) || !caller.accounts.iter().any(|own| own.eq_ignore_ascii_case(id)) {
        return Err(Failure::NotInAccount);
    }
    if caller.locked_out {
        return Err(Failure::LacksPermissions);
    }
    let number = |text: &str| text.parse::<i32>().map_err(|_| Failure::InvalidParameter);
    let page = || Page::read(parts.uri.query());
    let link = link(account, parts);
    match rest {
        [rooms, room, users] if literal(rooms, "rooms") && literal(users, "users") => {
            Ok(room_users(account, visible_room(account, caller, number(room)?)?, &page()?, &link))
        }
        [rooms, room] if literal(rooms, "rooms") => Ok(room_body(account, visible_room(account, caller, number(room)?)?)),
        [users] if literal(users, "users") => Ok(company_users(account, &page()?, &link)),
        [roles] if literal(roles, "roles") => {
            let page = page()?;
            let named = account.roles.iter().filter(|role| page.keeps(&[&role.name]));
            Ok(page.answer("roles", named.map(|role| Value::Object(role_summary(role))).collect(), &link))
        }
        [roles, role] if literal(roles, "roles") => {
            Ok(role_with_permissions(account.role(number(role)?).ok_or(Failure::NotFound)?))
        }
        _ => Err(Failure::NotFound),
    }
}

/// The room, if the caller is on its roster or may see rooms without being on one.
fn visible_room<'a>(account: &'a Account, caller: &Person, id: i32) -> Result<&'a Room, Failure> {
    let room = account.room(id).ok_or(Failure::NotFound)?;
    let on_roster = room.roster.iter().any(|entry| entry.email.eq_ignore_ascii_case(&caller.email));
    match (on_roster || caller.access_level != "Contributor", account.strangers) {
        (true, _) => Ok(room),
        (false, Strangers::LackPermissions) => Err(Failure::LacksPermissions),
        (false, Strangers::FindNothing) => Err(Failure::NotFound),
    }
}

fn room_users(account: &Account, room: &Room, page: &Page, link: &str) -> Value {
    let kept = |entry: &&RoomUser| page.keeps(&[&entry.first_name, &entry.last_name, &entry.email]);
    let mut roster: Vec<&RoomUser> = room.roster.iter().filter(kept).collect();
    page.order(&mut roster, |entry| [entry.first_name.clone(), entry.last_name.clone(), entry.email.clone()]);
    let rows = roster.into_iter().map(|entry| {
        json!({
            "userId": entry.user,
            "email": entry.email,
            "firstName": entry.first_name,
            "lastName": entry.last_name,
            "transactionSideId": "buy",
            "roleId": entry.role,
            "titleId": null,
            "companyName": "Sample Realty",
            "roleName": account.role(entry.role).map(|role| role.name.as_str()),
        })
    });
    page.answer("users", rows.collect(), link)
}

fn company_users(account: &Account, page: &Page, link: &str) -> Value {
    let company = account.people.iter().filter(|person| person.accounts.iter().any(|own| own == ACCOUNT));
    let mut people: Vec<&Person> =
        company.filter(|person| page.keeps(&[&person.first_name, &person.last_name, &person.email])).collect();
    page.order(&mut people, |person| [person.first_name.clone(), person.last_name.clone(), person.email.clone()]);
    let rows = people.into_iter().map(|person| {
        json!({
            "userId": person.user,
            "email": person.email,
            "firstName": person.first_name,
            "lastName": person.last_name,
            "isLockedOut": person.locked_out,
            "status": "Active",
            "accessLevel": person.access_level,
            "defaultOfficeId": 1,
            "titleId": null,
            "roleId": person.role,
            "roleName": account.role(person.role).map(|role| role.name.as_str()),
            "profileImageUrl": null,
        })
    });
    page.answer("userSummaries", rows.collect(), link)
}

fn room_body(account: &Account, room: &Room) -> Value {
    let creator = account.people.first().map(|person| person.user);
    let owners: Vec<i32> = room.roster.first().map(|entry| entry.user).into_iter().collect();
    json!({
        "roomId": room.id,
        "companyRoomStatus": "Open",
        "name": room.name,
        "officeId": 1,
        "createdDate": "2024-08-27T09:07:03.79",
        "createdByUserId": creator,
        "rejectedByUserId": null,
        "roomOwnerIds": owners,
    })
}

fn role_summary(role: &Role) -> Map<String, Value> {
    let mut body = Map::new();
    for (name, value) in [
        ("roleId", json!(role.id)),
        ("legacyRoleId", Value::Null),
        ("name", json!(role.name)),
        ("isDefaultForAdmin", json!(role.name == "Default Admin")),
        ("isExternal", json!(role.external)),
        ("createdDate", json!("2024-08-27T09:07:03.79")),
    ] {
        body.insert(name.to_owned(), value);
    }
    body
}

fn role_with_permissions(role: &Role) -> Value {
    let held = |flag: &&str| role.flags.iter().any(|held| held == flag);
    let flags: Map<String, Value> = FLAGS.iter().map(|flag| ((*flag).to_owned(), json!(held(flag)))).collect();
    let mut body = role_summary(role);
    body.insert("isAssigned".to_owned(), Value::Null);
    body.insert("permissions".to_owned(), Value::Object(flags));
    Value::Object(body)
}

/// The address of the list at hand, as links to its neighbours begin.
fn link(account: &Account, parts: &Parts) -> String {
    let host = parts.headers.get("host").and_then(|value| value.to_str().ok());
    match host.filter(|_| account.absolute_links) {
        Some(host) => format!("http://{host}{}", parts.uri.path()),
        None => parts.uri.path().to_owned(),
    }
}

fn bearer<'a>(account: &'a Account, headers: &HeaderMap) -> Option<&'a Person> {
    let (scheme, token) = headers.get("authorization")?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| account.token_owner(token.trim()))?
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}
