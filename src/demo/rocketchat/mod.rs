//! A Rocket.Chat server: the API in the newest server's order of checks, and the web application's other paths.

mod failure;
mod files;
mod guarded;
mod lookups;
mod methods;
mod page;
mod plain;
mod query;
mod routes;
mod schema;
mod session;
mod streams;
pub(super) mod target;

use std::net::{IpAddr, SocketAddr};

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;

use super::answer::{self, BODY_LIMIT};
use super::world::workspace::Person;
use super::world::{Workspace, World};
use failure::Failure;
use query::Query;
use routes::{Family, Route};
use schema::Arguments;

/// What a route's handler works on.
#[derive(Debug)]
struct Call {
    /// Who asks; always there on routes that need a login.
    caller: Option<Person>,
    /// The session token that proved it.
    token: Option<String>,
    /// The checked query.
    arguments: Arguments,
    /// The body of a POST, `null` if it is not JSON.
    body: Value,
}

impl Call {
    fn caller(&self) -> Result<&Person, Failure> {
        self.caller.as_ref().ok_or_else(Failure::anonymous)
    }
}

/// What a handler returns: the body of a 200, or why not.
type Outcome = Result<Value, Failure>;

/// Answers one request.
pub(super) async fn answer(world: &Mutex<World>, peer: SocketAddr, request: Request) -> Response {
    let place = target::read(request.uri().path());
    if !place.api {
        return plain::answer(&place.path, request).await;
    }
    if place.path == "/api/v1/echo.headers" {
        return plain::echo(request).await;
    }
    let (parts, body) = request.into_parts();
    if parts.method == Method::OPTIONS {
        return options(&place.path, &parts.headers);
    }
    if let Some(anonymous) = methods::door(&place.path).filter(|_| parts.method == Method::POST) {
        let body = read_body(body).await;
        let mut world = world.lock();
        return finish(methods::answer(&mut world.workspace, &parts.headers, &body, anonymous), None);
    }
    let Some(route) = routes::find(&place.path, &parts.method) else {
        return answer::text(StatusCode::NOT_FOUND, "text/plain; charset=UTF-8", "404 Not Found");
    };
    let body = if parts.method == Method::POST { read_body(body).await } else { Bytes::new() };
    let client = session::client(&parts.headers, peer.ip());
    let mut world = world.lock();
    let (outcome, allowance) = run(&mut world.workspace, route, &parts, &body, client);
    finish(outcome.map(|body| (StatusCode::OK, body)), allowance)
}

/// The newest server's order: session, permissions, license, query, schema, limiter, handler.
fn run(
    workspace: &mut Workspace,
    route: &Route,
    parts: &http::request::Parts,
    body: &[u8],
    client: IpAddr,
) -> (Outcome, Option<session::Allowance>) {
    let checked = check(workspace, route, &parts.headers, parts.uri.query(), body);
    let call = match checked {
        Ok(call) => call,
        Err(failure) => return (Err(failure), None),
    };
    // The limiter's key of a HEAD is never the one that is set up, so the real server does not limit it.
    let allowance = if parts.method == Method::HEAD {
        None
    } else {
        match session::spend(workspace, call.caller.as_ref(), client, &parts.method, route.path) {
            Ok(allowance) => allowance,
            Err((failure, allowance)) => return (Err(failure), Some(allowance)),
        }
    };
    ((route.handle)(workspace, &call), allowance)
}

/// Everything before the limiter.
fn check(workspace: &Workspace, route: &Route, headers: &HeaderMap, query: Option<&str>, body: &[u8]) -> Result<Call, Failure> {
    let (caller, token) = session::authenticate(workspace, headers).unzip();
    if route.login {
        let caller = caller.as_ref().ok_or_else(Failure::anonymous)?;
        if !route.permissions.iter().all(|permission| workspace.holds(caller, permission)) {
            return Err(Failure::permission());
        }
    }
    if route.enterprise && !workspace.licensed {
        return Err(Failure::unlicensed());
    }
    let query = Query::read(query).map_err(|_| Failure::too_much())?;
    let arguments = route.schema.check(&query).map_err(|messages| match route.family {
        Family::Typed => Failure::query(&messages),
        Family::Legacy => Failure::legacy_query(&messages),
    })?;
    let body = serde_json::from_slice(body).unwrap_or(Value::Null);
    Ok(Call { caller, token: token.flatten(), arguments, body })
}

/// Anybody's OPTIONS: the API's cross-origin switch is off, so a preflight is refused.
fn options(path: &str, headers: &HeaderMap) -> Response {
    if !routes::known(path) && methods::door(path).is_none() {
        return answer::text(StatusCode::NOT_FOUND, "text/plain; charset=UTF-8", "404 Not Found");
    }
    match headers.contains_key("access-control-request-method") {
        true => answer::text(
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain",
            "CORS not enabled. Go to \"Admin > General > REST Api\" to enable it.",
        ),
        false => answer::text(StatusCode::OK, "text/plain", "OK"),
    }
}

/// The whole body, or nothing when it is over the limit or cut short.
async fn read_body(body: Body) -> Bytes {
    to_bytes(body, BODY_LIMIT).await.unwrap_or_default()
}

fn finish(outcome: Result<(StatusCode, Value), Failure>, allowance: Option<session::Allowance>) -> Response {
    let (status, body) = outcome.unwrap_or_else(|failure| (failure.status, failure.body));
    let mut response = answer::json(status, "application/json", &body);
    let headers = response.headers_mut();
    answer::set(headers, "cache-control", "no-store");
    answer::set(headers, "pragma", "no-cache");
    if let Some(allowance) = allowance {
        answer::set(headers, "x-ratelimit-limit", allowance.limit);
        answer::set(headers, "x-ratelimit-remaining", allowance.remaining);
        answer::set(headers, "x-ratelimit-reset", allowance.reset);
    }
    response
}
