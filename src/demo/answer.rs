//! The forms in which the sample servers answer.

use std::convert::Infallible;
use std::future::ready;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

/// The most that a body is read into memory, in bytes; a longer one is refused.
pub(super) const BODY_LIMIT: usize = 1024 * 1024;

/// `value` without a content length, hence chunked, as the real servers send it.
pub(super) fn json(status: StatusCode, content_type: &'static str, value: &Value) -> Response {
    let body = Bytes::from(value.to_string());
    let body = Body::from_stream(stream::once(ready(Ok::<_, Infallible>(body))));
    (status, [(CONTENT_TYPE, HeaderValue::from_static(content_type))], body).into_response()
}

/// A short text with its length.
pub(super) fn text(status: StatusCode, content_type: &'static str, body: &'static str) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static(content_type))], body).into_response()
}

/// Sets `name`, if `value` can stand in a header.
pub(super) fn set(headers: &mut HeaderMap, name: &'static str, value: impl ToString) {
    if let Ok(value) = HeaderValue::try_from(value.to_string()) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// The first value of `name` in a query of plain `name=value` pairs, as spelled.
pub(super) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}
