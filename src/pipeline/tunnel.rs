//! The door in a body: which method runs, when the body has one reading.
//!
//! `POST /api/v1/method.call/:method` runs the method that the *message inside the body* names, whatever the path says
//! (Rocket.Chat `apps/meteor/server/api/v1/misc.ts`); a gate that goes by the path is walked around.

use serde_json::{Map, Value, json};

use crate::model::{RawRequest, Reason};
use crate::rules::json;
use crate::rules::target;
use crate::rules::vocabulary::brief;

/// The method that the call in the content of `raw` runs. Nothing else in the content needs to be known.
///
/// # Errors
/// Why it cannot be told which method that is.
pub(super) fn method(raw: &RawRequest<'_>) -> Result<String, Unreadable> {
    let message = message(raw, |content| {
        // A decoder may let a broken sequence swallow the quotation mark behind it.
        str::from_utf8(content).map_err(|_| invalid("the body is not UTF-8"))?;
        let message = json::field(content, "message").map_err(|error| invalid(format!("the body: {error}")))?;
        message.ok_or_else(|| invalid("the body has no `message`"))
    })?;
    let method = json::field(&message, "method").map_err(|error| invalid(format!("the message: {error}")))?;
    let method = method.ok_or_else(|| invalid("the call names no method"))?;
    String::from_utf8(method).map_err(|_| invalid("the name of the method is no text"))
}

/// The message in the content of `raw`, in JSON as `of_json` finds it there or in a form.
fn message(raw: &RawRequest<'_>, of_json: impl FnOnce(&[u8]) -> Result<Vec<u8>, Unreadable>) -> Result<Vec<u8>, Unreadable> {
    let Some(content) = raw.content else { return Err(invalid("the call has no body")) };
    if raw.has_header("content-encoding") {
        return Err(invalid("the body is encoded"));
    }
    match media_type(raw)?.as_str() {
        "application/json" => of_json(content),
        "application/x-www-form-urlencoded" => {
            let pairs = target::pairs(content).map_err(|_| invalid("the form cannot be read in one way"))?;
            match <[(String, String); 1]>::try_from(pairs) {
                Ok([(name, message)]) if name == "message" => Ok(message.into_bytes()),
                _ => Err(invalid("the form holds something other than one `message`")),
            }
        }
        other => Err(invalid(format!("the body is of the type `{}`", told_type(other)))),
    }
}

/// A caller's id of a call, as both sides write it in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallId {
    /// A short text.
    Text(String),
    /// A whole number that is exact in JavaScript.
    Number(i64),
}

/// One call of a declared method.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    /// The caller's id of the call; the answer carries it, and none where there is none.
    pub(super) id: Option<CallId>,
    /// The method that will run.
    pub(super) method: String,
    /// Its parameters.
    pub(super) params: Vec<Value>,
}

/// Why a body names no one method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) reason: Reason,
    pub(super) why: String,
}

impl Call {
    /// Reads the call in the content of `raw`.
    pub(super) fn read(raw: &RawRequest<'_>) -> Result<Self, Unreadable> {
        let message = message(raw, |content| {
            let outer = json::read(content).map_err(|error| invalid(format!("the body: {error}")))?;
            only_message(outer).map(String::into_bytes)
        })?;
        let inner = json::read(&message).map_err(|error| invalid(format!("the message: {error}")))?;
        let Value::Object(mut fields) = inner else { return Err(invalid("the message is no object")) };
        // The route runs methods whatever this says; where it is missing, nothing else can be meant.
        if fields.remove("msg").is_some_and(|msg| msg != "method") {
            return Err(invalid("the message is no method call"));
        }
        let id = fields.remove("id").map(CallId::read).transpose()?;
        let Some(Value::String(method)) = fields.remove("method") else { return Err(invalid("the call names no method")) };
        let params = match fields.remove("params") {
            None => Vec::new(),
            Some(Value::Array(params)) => params,
            Some(_) => return Err(invalid("the method's parameters are no list")),
        };
        // What Meteor's own client may add: a seed for ids that both sides make up.
        fields.remove("randomSeed");
        match fields.keys().next() {
            Some(unknown) => {
                Err(Unreadable { reason: Reason::ParamUnknown, why: format!("the message holds `{}`", brief(unknown)) })
            }
            None => Ok(Self { id, method, params }),
        }
    }

    /// The call as it is sent on: in one spelling, with nothing that was not read.
    pub(super) fn content(&self) -> String {
        let call = [("method", json!(self.method)), ("params", json!(self.params))];
        json!({ "message": message_of("method", self.id.as_ref(), call).to_string() }).to_string()
    }

    /// The server's form of a call that failed; `error` is a JSON object.
    pub(super) fn failure(id: Option<&CallId>, error: &str) -> String {
        let error: Value = serde_json::from_str(error).unwrap_or_else(|_| Value::Object(Map::new()));
        let message = message_of("result", id, [("error", error)]);
        json!({ "message": message.to_string(), "success": false }).to_string()
    }
}

impl CallId {
    fn read(value: Value) -> Result<Self, Unreadable> {
        const EXACT: std::ops::RangeInclusive<i64> = -((1 << 53) - 1)..=(1 << 53) - 1;
        match value {
            Value::String(id) if id.len() <= 64 => Ok(Self::Text(id)),
            Value::Number(id) if let Some(id) = id.as_i64().filter(|id| EXACT.contains(id)) => Ok(Self::Number(id)),
            _ => Err(invalid("the call's `id` is neither a text of at most 64 bytes nor a whole number")),
        }
    }
}

/// A message in the order in which the server writes it.
fn message_of<const N: usize>(msg: &str, id: Option<&CallId>, rest: [(&str, Value); N]) -> Value {
    let id = id.map(|id| match id {
        CallId::Text(text) => json!(text),
        CallId::Number(number) => json!(number),
    });
    let id = id.map(|id| ("id", id));
    let fields = [("msg", json!(msg))].into_iter().chain(id).chain(rest);
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The content of `raw` as a JSON value with one reading, whatever its type is said to be: it is sent on as JSON, and what is no
/// JSON is refused.
pub(super) fn json_content(raw: &RawRequest<'_>) -> Result<Value, Unreadable> {
    let Some(content) = raw.content else { return Err(invalid("there is no body")) };
    if raw.has_header("content-encoding") {
        return Err(invalid("the body is encoded"));
    }
    json::read(content).map_err(|error| invalid(format!("the body: {error}")))
}

/// A content type as it may be told: one that is in use, or one that is too short for a secret.
fn told_type(kind: &str) -> &str {
    const USUAL: [&str; 4] =
        ["application/x-www-form-urlencoded", "application/octet-stream", "multipart/form-data", "application/ejson"];
    if USUAL.contains(&kind) { kind } else { brief(kind) }
}

/// The content type without its parameters; a charset other than UTF-8 would be another reading.
fn media_type(raw: &RawRequest<'_>) -> Result<String, Unreadable> {
    let mut values = raw.header_values("content-type");
    let (Some(value), None) = (values.next(), values.next()) else { return Err(invalid("not one content type")) };
    let value = String::from_utf8_lossy(value).to_ascii_lowercase();
    let mut parts = value.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_owned();
    match parts.next() {
        None | Some("charset=utf-8" | "charset=\"utf-8\"" | "") if parts.next().is_none() => Ok(kind),
        _ => Err(invalid("the content type has a parameter other than `charset=utf-8`")),
    }
}

fn only_message(outer: Value) -> Result<String, Unreadable> {
    let Value::Object(mut fields) = outer else { return Err(invalid("the body is no object")) };
    let Some(Value::String(message)) = fields.remove("message") else { return Err(invalid("the body has no `message`")) };
    match fields.keys().next() {
        Some(unknown) => Err(Unreadable { reason: Reason::ParamUnknown, why: format!("the body holds `{}`", brief(unknown)) }),
        None => Ok(message),
    }
}

fn invalid(why: impl Into<String>) -> Unreadable {
    Unreadable { reason: Reason::ParamInvalid, why: why.into() }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::model::Body;

    fn read(kind: &str, content: &str) -> Result<Call, Unreadable> {
        Call::read(&RawRequest {
            method: "POST",
            target: b"/",
            host: None,
            headers: vec![("content-type", kind.as_bytes())],
            body: Body::Sized(1),
            content: Some(content.as_bytes()),
            client: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            correlation: None,
        })
    }

    fn named(kind: &str, content: &str) -> Result<String, Unreadable> {
        method(&RawRequest {
            method: "POST",
            target: b"/",
            host: None,
            headers: vec![("content-type", kind.as_bytes())],
            body: Body::Sized(1),
            content: Some(content.as_bytes()),
            client: None,
            correlation: None,
        })
    }

    const CALL: &str = r#"{"message":"{\"msg\":\"method\",\"id\":\"1\",\"method\":\"getRoomRoles\",\"params\":[\"r1\"]}"}"#;

    #[test]
    fn the_method_in_the_body_is_the_one_that_runs() {
        let call = Call { id: Some(CallId::Text("1".into())), method: "getRoomRoles".into(), params: vec![json!("r1")] };
        assert_eq!(read("application/json", CALL).as_ref(), Ok(&call));
        assert_eq!(read("application/json; charset=UTF-8", CALL).as_ref(), Ok(&call));
        let form = format!("message={}", target::encode(r#"{"msg":"method","id":"1","method":"getRoomRoles","params":["r1"]}"#));
        assert_eq!(read("application/x-www-form-urlencoded", &form).as_ref(), Ok(&call));
        assert_eq!(call.content(), CALL);
        assert_eq!(read("application/json", &call.content()), Ok(call), "what is sent reads as what was judged");
    }

    #[test]
    fn the_id_of_a_call_is_what_the_server_takes_or_is_not_there() {
        let plain = |message: &str| json!({ "message": message }).to_string();
        for (written, sent, id) in [
            (r#""msg":"method","id":1,"#, r#""msg":"method","id":1,"#, Some(CallId::Number(1))),
            (r#""msg":"method","#, r#""msg":"method","#, None),
            ("", r#""msg":"method","#, None),
            (
                r#""msg":"method","id":-9007199254740991,"#,
                r#""msg":"method","id":-9007199254740991,"#,
                Some(CallId::Number(-9_007_199_254_740_991)),
            ),
            (r#""id":"","#, r#""msg":"method","id":"","#, Some(CallId::Text(String::new()))),
        ] {
            let message = |head: &str| plain(&format!(r#"{{{head}"method":"m","params":[1]}}"#));
            let call = read("application/json", &message(written)).unwrap_or_else(|why| panic!("{written}: {why:?}"));
            assert_eq!(call.id, id, "{written}");
            assert_eq!(call.content(), message(sent), "{written}");
            assert_eq!(read("application/json", &call.content()), Ok(call), "what is sent reads as what was judged");
        }
        assert_eq!(Call::failure(None, "{}"), r#"{"message":"{\"msg\":\"result\",\"error\":{}}","success":false}"#);
        let long = format!("\"{}\"", "x".repeat(65));
        for id in ["null", "true", "1.5", "1.0", "1e3", "9007199254740992", "[]", "{}", r#"{"$date":1}"#, &long] {
            let content = plain(&format!(r#"{{"msg":"method","id":{id},"method":"m","params":[]}}"#));
            assert!(read("application/json", &content).is_err(), "{id}");
        }
    }

    #[test]
    fn of_a_call_that_nobody_declares_only_the_method_need_be_known() {
        let plain = |message: &str| json!({ "message": message }).to_string();
        let deep = format!(r#"{{"method":"m","params":[{}{}]}}"#, "[".repeat(500), "]".repeat(500));
        for content in [
            plain(r#"{"method":"m"}"#),
            plain(r#"{"msg":"method","id":1,"method":"m","params":["cut \ud83d"]}"#),
            plain(r#"{"msg":"sub","method":"m","params":{"a":1,"a":2}}"#),
            plain(&deep),
            plain(r#"{"method":"m"}"#).replacen('{', r#"{"x":1,"x":[2],"#, 1),
            plain(r#"{"method":"m","x":"HALF"}"#).replace("HALF", r"\ud83d"),
        ] {
            assert_eq!(named("application/json", &content), Ok("m".into()), "{content}");
        }
        let form = format!("message={}", target::encode(r#"{"method":"m","id":2}"#));
        assert_eq!(named("application/x-www-form-urlencoded", &form), Ok("m".into()));
        assert_eq!(named("application/json", CALL), Ok("getRoomRoles".into()));
    }

    #[test]
    fn a_body_with_more_than_one_reading_is_refused() {
        for (kind, content) in [
            ("text/plain", CALL),
            ("application/json, text/plain", CALL),
            ("application/json; charset=utf-16", CALL),
            ("application/json", ""),
            ("application/json", "[]"),
            ("application/json", r#"{"message":"{}"}"#),
            ("application/json", r#"{"message":"x","message":"y"}"#),
            ("application/json", r#"{"message":{"msg":"method"}}"#),
            (
                "application/json",
                r#"{"message":"{\"msg\":\"method\",\"id\":\"1\",\"method\":\"a\",\"method\":\"b\",\"params\":[]}"}"#,
            ),
            ("application/json", r#"{"message":"{\"msg\":\"method\",\"id\":\"1\",\"method\":\"a\",\"params\":{}}"}"#),
            ("application/json", r#"{"message":"{\"msg\":\"method\",\"id\":[1],\"method\":\"a\",\"params\":[]}"}"#),
            ("application/json", r#"{"message":"{\"msg\":\"sub\",\"id\":\"1\",\"method\":\"a\",\"params\":[]}"}"#),
            ("application/json", r#"{"message":"{\"msg\":\"method\",\"id\":\"1\",\"method\":\"a\",\"params\":[]}","x":1}"#),
            ("application/x-www-form-urlencoded", "message=a&message=b"),
            ("application/x-www-form-urlencoded", "message[]=a"),
        ] {
            assert!(read(kind, content).is_err(), "{kind}: {content}");
        }
    }
}
