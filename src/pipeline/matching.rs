//! The first stop: which action a request is for, if it has one reading, and which credential it brings.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::trail::{Trail, method};
use super::tunnel::{self, Call, CallId, Unreadable, json_content};
use super::verdict::Denial;
use super::{Open, Site};
use crate::model::{Body, Credential, Door, RawRequest, Reason, Secret};
use crate::rules::provider::Tunnel;
use crate::rules::router::{self, Found, Pattern};
use crate::rules::target::Reading;
use crate::rules::vocabulary::brief;
use crate::rules::{Action, Then};

/// Header fields by which some server routes to another target than the one in the request line.
const REROUTING: &[&str] = &["x-original-url", "x-rewrite-url", "x-http-method-override", "x-http-method", "x-method-override"];

/// Those of them that name a target.
const TARGETS: &[&str] = &["x-original-url", "x-rewrite-url"];

/// Header fields that say where a message ends.
const FRAMING: &[&str] = &["content-length", "transfer-encoding"];

/// A request for an action, with a credential nobody has checked yet. Made here only.
#[derive(Debug)]
pub struct MatchedRequest {
    pub(super) trail: Box<Trail>,
    pub(super) action: Arc<Action>,
    pub(super) door: Arc<Pattern>,
    pub(super) method: Cow<'static, str>,
    pub(super) given: Given,
    pub(super) credential: Credential,
}

/// Where the parameters of a request stand.
#[derive(Debug)]
pub(super) enum Given {
    /// In the target and the body: named segments of the path, the query, unread, and the fields of the body's object.
    Request { segments: Vec<(String, String)>, query: Option<Vec<u8>>, fields: Option<Map<String, Value>> },
    /// In a method call.
    Call(Call),
}

/// What a request is, before anything is known of its caller.
#[derive(Debug)]
pub(super) enum Matched {
    /// Nothing that is judged.
    Open(Open),
    /// A request for an action.
    Guarded(MatchedRequest),
}

/// Only what is judged gets a `trail`, of the action that it turned out to be for.
pub(super) fn match_request(
    raw: &RawRequest<'_>,
    site: &Site,
    trail: impl FnOnce(Option<&Action>) -> Box<Trail>,
) -> Result<Matched, Box<Denial>> {
    let provider = &site.rules.provider;
    match raw.method {
        "TRACE" => return Err(trail(None).deny(Reason::FramingInvalid, "`TRACE` would show the credential to the client")),
        // The entrance refuses it in HTTP/1; in h2 it would be a further way to a socket (RFC 8441).
        "CONNECT" => return Err(trail(None).deny(Reason::FramingInvalid, "`CONNECT` asks for a tunnel")),
        _ => {}
    }
    let closed = site.upstream.websockets == Then::Deny;
    if closed && raw.has_header("upgrade") {
        return Err(trail(None).deny(Reason::RouteUnlisted, "the operator closed WebSockets"));
    }
    let reading = site.read(raw.target, raw.host);
    let beside = matches!(reading, Reading::Declared(_));
    let canonical = match reading {
        Reading::Outside => {
            return match misleading_header(raw, site) {
                Some(why) => Err(trail(None).deny(Reason::HeaderAmbiguous, why)),
                None => Ok(Matched::Open(Open::Outside)),
            };
        }
        Reading::Ambiguous(why) => return Err(trail(None).deny(Reason::TargetAmbiguous, why)),
        Reading::Inside(canonical) | Reading::Declared(canonical) => canonical,
    };
    if let Some(why) = ambiguous_header(raw, site) {
        return Err(trail(None).deny(Reason::HeaderAmbiguous, why));
    }
    let path = canonical.path.strip_prefix(&site.upstream.path_prefix).unwrap_or(canonical.path);
    if closed && provider.tree.is_socket(path) {
        let why = "the operator closed WebSockets, and this is another transport of theirs";
        return Err(trail(None).deny(Reason::RouteUnlisted, why));
    }
    match router::find(provider, raw.method, path) {
        Found::Tunnel { tunnel, pattern } => call(raw, site, trail(None), tunnel, pattern),
        Found::Variant => Err(trail(None).deny(Reason::TargetAmbiguous, "the path is a guarded one in another spelling")),
        Found::Undeclared => Err(trail(None).deny(Reason::TargetAmbiguous, "the path holds an encoding that no route declares")),
        Found::OtherMethod(_) if is_preflight(raw) => Ok(Matched::Open(Open::Preflight)),
        Found::OtherMethod(methods) => {
            let mut denial =
                trail(None).deny(Reason::MethodNotDeclared, format!("`{}` is not declared on this path", brief(raw.method)));
            denial.allow(&methods);
            Err(denial)
        }
        Found::Route(route) => match route.then {
            Then::Forward => Ok(Matched::Open(Open::Route)),
            Then::Deny => Err(trail(None).deny(Reason::RouteUnlisted, "the provider file closes this route")),
        },
        Found::Unlisted if beside => {
            Err(trail(None).deny(Reason::TargetAmbiguous, "the path is a declared one as a forgiving server reads it"))
        }
        Found::Unlisted => match site.upstream.unlisted {
            Then::Forward => Ok(Matched::Open(Open::Unlisted)),
            Then::Deny => Err(trail(None).deny(Reason::RouteUnlisted, "no action or route declares this path")),
        },
        Found::Action { action, pattern, segments } => {
            let mut trail = trail(Some(action));
            trail.found(action, Door::Rest);
            // Where the action takes none it is read all the same, and left out of what is sent.
            if raw.body != Body::Absent && raw.content.is_none() {
                return Err(trail.deny(Reason::BodyTooLarge, "the body is longer than what is inspected"));
            }
            let credential = match credential(raw, &provider.credentials) {
                Ok(Some(credential)) => credential,
                Ok(None) => return Err(trail.deny(Reason::CredentialMissing, "no complete credential was sent")),
                Err(why) => return Err(trail.deny(Reason::CredentialAmbiguous, why)),
            };
            let fields = match raw.body {
                Body::Sized(_) | Body::Streamed if action.takes_body() => match fields(raw) {
                    Ok(fields) => Some(fields),
                    Err(unreadable) => {
                        let mut denial = trail.deny(unreadable.reason, unreadable.why.clone());
                        denial.tell(unreadable.why, "body".to_owned(), None);
                        return Err(denial);
                    }
                },
                Body::Absent | Body::Sized(_) | Body::Streamed => None,
            };
            let given = Given::Request {
                segments: segments.into_iter().map(|(name, raw)| (name.to_owned(), raw)).collect(),
                query: canonical.query.map(<[u8]>::to_vec),
                fields,
            };
            let (action, door) = (Arc::clone(action), Arc::clone(pattern));
            let method = method(raw.method).unwrap_or_else(|| raw.method.to_owned().into());
            Ok(Matched::Guarded(MatchedRequest { trail, action, door, method, given, credential }))
        }
    }
}

/// Whether the content of a request must be read before it can be judged, or is no part of what is sent.
#[must_use]
pub fn wants_content(raw: &RawRequest<'_>, site: &Site) -> bool {
    let (Reading::Inside(canonical) | Reading::Declared(canonical)) = site.read(raw.target, raw.host) else { return false };
    let path = canonical.path.strip_prefix(&site.upstream.path_prefix).unwrap_or(canonical.path);
    matches!(router::find(&site.rules.provider, raw.method, path), Found::Tunnel { .. } | Found::Action { .. })
}

/// The fields of the body's object.
fn fields(raw: &RawRequest<'_>) -> Result<Map<String, Value>, Unreadable> {
    match json_content(raw)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Unreadable { reason: Reason::ParamInvalid, why: "the body is no object".to_owned() }),
    }
}

/// A method call: judged by the method that will run, which the body names.
fn call(
    raw: &RawRequest<'_>,
    site: &Site,
    mut trail: Box<Trail>,
    tunnel: &Arc<Tunnel>,
    door: &Arc<Pattern>,
) -> Result<Matched, Box<Denial>> {
    trail.door = Door::MethodCall;
    if raw.body != Body::Absent && raw.content.is_none() {
        return Err(trail.deny(Reason::BodyTooLarge, "the call is longer than what is inspected"));
    }
    trail.tunnel = Some((Arc::clone(tunnel), Some(CallId::Text(String::new()))));
    let unreadable = |trail: Box<Trail>, unreadable: Unreadable| {
        let mut denial = trail.deny(unreadable.reason, unreadable.why.clone());
        denial.tell(unreadable.why, "message".to_owned(), None);
        denial
    };
    let name = match tunnel::method(raw) {
        Ok(name) => name,
        Err(why) => return Err(unreadable(trail, why)),
    };
    let provider = &site.rules.provider;
    let (closes, action) = (provider.closes_method(&name), provider.method(&name));
    if closes.is_none() && action.is_none() && site.upstream.unlisted_methods == Then::Forward {
        return Ok(Matched::Open(Open::Method));
    }
    let read = Call::read(raw);
    if let Ok(call) = &read {
        trail.tunnel = Some((Arc::clone(tunnel), call.id.clone()));
    }
    if let Some(route) = closes {
        let closed = route.doors.first().map(ToString::to_string).unwrap_or_default();
        let why = format!("the provider file closes `{closed}`, and this method gives the same");
        return Err(trail.deny(Reason::RouteUnlisted, why));
    }
    let Some(action) = action else {
        let method = provider.vocabulary.told(&name);
        return Err(trail.deny(Reason::RouteUnlisted, format!("no action declares the method `{method}`")));
    };
    let call = match read {
        Ok(call) if call.method == name => call,
        Ok(_) => {
            let why = "the call names two methods".to_owned();
            return Err(unreadable(trail, Unreadable { reason: Reason::ParamInvalid, why }));
        }
        Err(why) => return Err(unreadable(trail, why)),
    };
    trail.found(action, Door::MethodCall);
    // The call is refused like any other without a login, also where the server would let anybody ask.
    let credential = match credential(raw, &site.rules.provider.credentials) {
        Ok(Some(credential)) => credential,
        Ok(None) => return Err(trail.deny(Reason::CredentialMissing, "no complete credential was sent")),
        Err(why) => return Err(trail.deny(Reason::CredentialAmbiguous, why)),
    };
    let (action, door) = (Arc::clone(action), Arc::clone(door));
    let method = method(raw.method).unwrap_or_else(|| raw.method.to_owned().into());
    Ok(Matched::Guarded(MatchedRequest { trail, action, door, method, given: Given::Call(call), credential }))
}

/// A CORS preflight asks what a later request may do; it carries no credential and reveals nothing (Fetch §4.8).
fn is_preflight(raw: &RawRequest<'_>) -> bool {
    raw.method == "OPTIONS"
        && raw.has_header("origin")
        && raw.has_header("access-control-request-method")
        && raw.body == Body::Absent
}

/// A field's name as a server reads it to which `_` and `.` are dashes.
pub(crate) fn dashed(name: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'_', b'.', name.as_bytes()).is_some() { name.replace(['_', '.'], "-").into() } else { name.into() }
}

/// A header by which a request that leads nowhere guarded would lead there after all, or would end elsewhere than it does.
fn misleading_header(raw: &RawRequest<'_>, site: &Site) -> Option<String> {
    for (name, value) in &raw.headers {
        let plain = dashed(name);
        if TARGETS.contains(&&*plain) && site.read(value, raw.host) != Reading::Outside {
            return Some(format!("`{name}` names a guarded target"));
        }
        if plain != *name && FRAMING.contains(&&*plain) {
            return Some(format!("`{name}` is another spelling of `{plain}`"));
        }
    }
    None
}

/// A header that two servers would read differently: another spelling of a credential's name, one that routes elsewhere,
/// or a credential that the next hop is told to remove.
fn ambiguous_header(raw: &RawRequest<'_>, site: &Site) -> Option<String> {
    let credentials = || site.rules.provider.credentials.iter().flatten().map(|name| &**name);
    for (name, value) in &raw.headers {
        if REROUTING.contains(name) {
            return Some(format!("`{name}` names another target or method"));
        }
        let plain = dashed(name);
        if plain != *name
            && (REROUTING.contains(&&*plain) || FRAMING.contains(&&*plain) || credentials().any(|known| known == plain))
        {
            return Some(format!("`{name}` is another spelling of `{plain}`"));
        }
        if *name == "connection" {
            let value = String::from_utf8_lossy(value).to_ascii_lowercase();
            if let Some(named) = value.split(',').map(str::trim).find(|token| credentials().any(|known| known == *token)) {
                return Some(format!("`connection` names the credential `{named}`"));
            }
        }
    }
    None
}

/// The credential of a request that is not judged, for what its answer says of it.
#[must_use]
pub fn revocable(raw: &RawRequest<'_>, site: &Site) -> Option<Credential> {
    if keeps_on_401(raw.target, site) {
        return None;
    }
    credential(raw, &site.rules.provider.credentials).ok().flatten()
}

/// Whether a 401 to `target` says nothing of the credential.
#[must_use]
pub fn keeps_on_401(target: &[u8], site: &Site) -> bool {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let path = path.strip_prefix(site.upstream.path_prefix.as_bytes()).unwrap_or(path);
    site.rules.provider.keep_on_401.iter().any(|kept| kept.as_bytes() == path)
}

/// The credential that the server would use: the first alternative that is there in full.
fn credential(raw: &RawRequest<'_>, alternatives: &[Vec<Arc<str>>]) -> Result<Option<Credential>, String> {
    for header in alternatives.iter().flatten() {
        if raw.header_values(header).count() > 1 {
            return Err(format!("`{header}` was sent more than once"));
        }
    }
    for alternative in alternatives {
        let mut headers = Vec::new();
        for name in alternative {
            let Some(value) = raw.header_values(name).next() else { break };
            if value.is_empty() {
                break;
            }
            if !value.iter().all(|byte| matches!(byte, b' '..=b'~')) || value.contains(&b',') {
                return Err(format!("`{name}` holds a comma, a control character or something that is not ASCII"));
            }
            let Ok(text) = str::from_utf8(value) else { break };
            if **name == *"authorization" && !is_bearer(text) {
                break;
            }
            headers.push((Arc::clone(name), Secret::new(text)));
        }
        if headers.len() == alternative.len() {
            return Ok(Some(Credential { headers }));
        }
    }
    Ok(None)
}

/// `Bearer` and one token (RFC 6750 §2.1); another scheme is no credential of these upstreams.
fn is_bearer(value: &str) -> bool {
    value.split_once(' ').is_some_and(|(scheme, token)| {
        scheme.eq_ignore_ascii_case("bearer") && !token.trim_start().is_empty() && !token.trim_start().contains(' ')
    })
}
