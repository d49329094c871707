//! A collector that keeps every byte it is sent, and reads spans in them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A collector; it is closed when dropped.
pub struct Collector {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    /// Method and target, content type, content.
    received: Mutex<Vec<(String, String, Bytes)>>,
    hangs: AtomicBool,
}

/// A span as it was received.
#[derive(Debug, Clone)]
pub struct Span {
    pub name: String,
    pub trace: String,
    pub id: String,
    /// Empty where there is none.
    pub parent: String,
    pub kind: SpanKind,
    pub begins: u64,
    pub ends: u64,
    pub attributes: BTreeMap<String, String>,
    pub failed: bool,
    pub flags: u32,
}

impl Span {
    /// The attribute `name`; empty where there is none.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

impl Collector {
    /// One that takes everything.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shared) = (listener.local_addr().unwrap(), Arc::new(Shared::default()));
        let app = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        let accepting = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared, accepting }
    }

    /// One that takes everything and never says so.
    pub async fn hanging() -> Self {
        let collector = Self::start().await;
        collector.shared.hangs.store(true, Ordering::Release);
        collector
    }

    /// What a configuration names it by.
    pub fn url(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    /// What came so far: method and target, content type, content.
    pub fn received(&self) -> Vec<(String, String, Bytes)> {
        self.shared.received.lock().clone()
    }

    /// The attributes of whoever sent the first spans.
    pub fn resource(&self) -> BTreeMap<String, String> {
        attributes(&self.requests()[0].resource_spans[0].resource.as_ref().unwrap().attributes)
    }

    /// Every span so far.
    pub fn spans(&self) -> Vec<Span> {
        let requests = self.requests();
        let scopes = requests.iter().flat_map(|request| &request.resource_spans).flat_map(|resource| &resource.scope_spans);
        let spans = scopes.flat_map(|scope| &scope.spans).map(|span| Span {
            name: span.name.clone(),
            trace: hex::encode(&span.trace_id),
            id: hex::encode(&span.span_id),
            parent: hex::encode(&span.parent_span_id),
            kind: span.kind(),
            begins: span.start_time_unix_nano,
            ends: span.end_time_unix_nano,
            attributes: attributes(&span.attributes),
            failed: span.status.as_ref().is_some_and(|status| status.code() == SpanStatus::Error),
            flags: span.flags,
        });
        spans.collect()
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        self.received().into_iter().map(|(_, _, content)| ExportTraceServiceRequest::decode(content).unwrap()).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn receive(State(shared): State<Arc<Shared>>, request: Request) -> StatusCode {
    let (head, body) = request.into_parts();
    let content = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let kind = head.headers.get("content-type").map_or("", |kind| kind.to_str().unwrap());
    shared.received.lock().push((format!("{} {}", head.method, head.uri), kind.to_owned(), content));
    if shared.hangs.load(Ordering::Acquire) {
        std::future::pending::<()>().await;
    }
    StatusCode::OK
}

fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => panic!("no such attribute is known: {other:?}"),
    };
    pairs.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect()
}
