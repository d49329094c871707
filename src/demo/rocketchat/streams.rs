//! Long bodies in both directions, events and WebSockets; none of it is ever held in memory as a whole.

use std::convert::Infallible;
use std::sync::LazyLock;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::demo::answer::{self, parameter};

/// The period of the downloaded pattern: byte `n` is `n % 251`, so that a lost or doubled block shows.
const PERIOD: usize = 251;

/// A block of whole periods, about 64 KiB.
static BLOCK: LazyLock<Bytes> = LazyLock::new(|| (0..=250_u8).cycle().take(PERIOD * 260).collect());

/// Counts and hashes the body.
pub(super) async fn upload(request: Request) -> Response {
    let mut body = request.into_body().into_data_stream();
    let (mut bytes, mut hash) = (0_u64, Sha256::new());
    while let Some(chunk) = body.next().await {
        let Ok(chunk) = chunk else {
            return answer::text(StatusCode::BAD_REQUEST, "text/plain", "the body ended early");
        };
        bytes = bytes.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        hash.update(&chunk);
    }
    answer::json(StatusCode::OK, "application/json", &json!({"bytes": bytes, "sha256": hex::encode(hash.finalize())}))
}

/// `bytes` bytes of the pattern, with their length unless `chunked=1`.
pub(super) fn download(query: Option<&str>) -> Response {
    let bytes: u64 = parameter(query, "bytes").and_then(|text| text.parse().ok()).unwrap_or(0);
    let blocks = stream::unfold(bytes, |left| async move {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK.len());
        (length > 0).then(|| (Ok::<_, Infallible>(BLOCK.slice(..length)), left.saturating_sub(length as u64)))
    });
    let mut response = Body::from_stream(blocks).into_response();
    answer::set(response.headers_mut(), "content-type", "application/octet-stream");
    if parameter(query, "chunked") != Some("1") {
        answer::set(response.headers_mut(), "content-length", bytes);
    }
    response
}

/// `count` server-sent events, `every_ms` milliseconds apart, the first one at once.
pub(super) fn events(query: Option<&str>) -> Response {
    let number = |name| parameter(query, name).and_then(|text| text.parse::<u64>().ok());
    let (count, pause) = (number("count").unwrap_or(3), Duration::from_millis(number("every_ms").unwrap_or(100)));
    let events = stream::unfold(0, move |sent| async move {
        if sent >= count {
            return None;
        }
        if sent > 0 {
            tokio::time::sleep(pause).await;
        }
        let event = format!("id: {sent}\nevent: tick\ndata: {{\"n\":{sent}}}\n\n");
        Some((Ok::<_, Infallible>(Bytes::from(event)), sent + 1))
    });
    let mut response = Body::from_stream(events).into_response();
    answer::set(response.headers_mut(), "content-type", "text/event-stream");
    answer::set(response.headers_mut(), "cache-control", "no-cache");
    response
}

/// Sends every text and binary message back.
pub(super) async fn echo_messages(request: Request) -> Response {
    match WebSocketUpgrade::from_request(request, &()).await {
        Ok(upgrade) => upgrade.on_upgrade(echo),
        Err(refused) => refused.into_response(),
    }
}

async fn echo(mut socket: WebSocket) {
    use axum::extract::ws::Message;
    while let Some(Ok(message)) = socket.recv().await {
        // The library answers pings and closes by itself.
        if matches!(message, Message::Text(_) | Message::Binary(_)) && socket.send(message).await.is_err() {
            return;
        }
    }
}
