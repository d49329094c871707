//! The web application's paths, which nobody guards.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{files, streams};
use crate::demo::answer::{self, BODY_LIMIT};

const PAGE: &str = "<!DOCTYPE html>\n<html lang=\"en\"><head><title>Sample chat</title></head>\
    <body><h1>Sample chat</h1><p>A stand-in for a Rocket.Chat workspace.</p></body></html>\n";

/// Answers what is not the API's; as in the real server every path that is nothing else shows the application's page.
pub(super) async fn answer(path: &str, request: Request) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match path {
        "/websocket" => streams::echo_messages(request).await,
        "/upload" if request.method() == Method::POST => streams::upload(request).await,
        "/download" if reads => streams::download(request.uri().query()),
        "/events" if reads => streams::events(request.uri().query()),
        "/file-upload/report.txt" if reads => files::report(request.headers()),
        "/slow" if reads => slow(request.uri().query()).await,
        "/echo" => echo(request).await,
        _ => answer::text(StatusCode::OK, "text/html; charset=utf-8", PAGE),
    }
}

/// Tells what arrived: method, target, header fields in pairs, and how long the body was.
pub(super) async fn echo(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])
    };
    let headers: Vec<Value> = parts.headers.iter().map(field).collect();
    let Ok(body) = to_bytes(body, BODY_LIMIT).await else {
        return answer::text(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", "the body is longer than is echoed");
    };
    let told = json!({
        "method": parts.method.as_str(),
        "target": parts.uri.to_string(),
        "headers": headers,
        "body_bytes": body.len(),
    });
    answer::json(StatusCode::OK, "application/json", &told)
}

async fn slow(query: Option<&str>) -> Response {
    let milliseconds = answer::parameter(query, "ms").and_then(|text| text.parse().ok()).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    answer::text(StatusCode::OK, "text/plain", "slow")
}
