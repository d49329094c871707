//! Spans of judged requests, sent to a collector: one for each request, with one for each stop that it passed.
//!
//! Nothing is kept open while a request is on its way: the walk notes its instants, and the spans are made of them at the end.
//! They say what the metrics say, and the decision id, which leads to the record; no user, room, target, address or token.
//!
//! A client's own `traceparent` is honoured, whoever it is: all that it decides is under which id its request is found, and
//! whether it is found among the spans. The record is written either way. Its `tracestate` is passed on and not exported.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks, SpanProcessor,
};
use parking_lot::Mutex;

use crate::metrics::{Stage, UpstreamError};
use crate::model::{Decision, Door, Mode, Reason};

/// How many spans may wait to be sent, which takes about 4 MiB; beyond that a request's spans are lost, and the request goes on.
const QUEUE: usize = 8192;
/// How many are sent at once, at the latest after [`PERIOD`].
const BATCH: usize = 1024;
/// How long a span waits for others to be sent along with.
const PERIOD: Duration = Duration::from_secs(2);
/// How long the collector may take for one batch.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of the process waits for what is still to be sent.
const FAREWELL: Duration = Duration::from_secs(3);
/// How often the log tells of spans that were lost.
const TELLING: Duration = Duration::from_secs(60);

/// The flags of a `traceparent` that are passed on: sampled, and random (W3C Trace Context level 2, §3.2.2.5).
const KNOWN_FLAGS: u8 = 0b11;

/// The methods that a span names; another one is `_OTHER`, as the semantic conventions have it.
const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Where spans go; cloning shares it.
#[derive(Clone)]
pub struct Traces(Arc<Queue>);

struct Queue {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    ids: RandomIdGenerator,
    tally: Arc<Tally>,
}

/// What became of spans.
#[derive(Debug, Default)]
struct Tally {
    /// How many wait to be sent.
    waiting: AtomicUsize,
    /// How many were lost since the log last told of it.
    lost: AtomicU64,
    told: Mutex<Option<Instant>>,
}

/// What a walk notes: when it passed its stops, and the verdict.
#[derive(Debug, Clone, Copy, Default)]
pub struct Walked {
    matching: Option<(Instant, Instant)>,
    facts: Option<(Instant, Instant)>,
    decide: Option<(Instant, Instant)>,
    record: Option<(Instant, Instant)>,
    verdict: Option<(Decision, Option<Reason>)>,
}

/// One judged request in its trace.
#[derive(Debug)]
pub struct Trace {
    traces: Traces,
    id: String,
    trace_id: TraceId,
    flags: TraceFlags,
    /// The span of whoever sent the request, where its `traceparent` named one.
    parent: Option<SpanId>,
    server: SpanId,
    upstream: SpanId,
    walked: Walked,
    /// When the upstream was first turned to.
    asked: Option<Instant>,
    /// When the head of its answer came, and the status in it.
    answered: Option<(Instant, u16)>,
    /// When it failed, and how.
    failed: Option<(Instant, UpstreamError)>,
}

/// What is known of a request at its end, as the metrics have it.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// When its head was there.
    pub started: Instant,
    /// Its method.
    pub method: &'a str,
    /// The kind of upstream.
    pub provider: &'a str,
    /// The door by which it came.
    pub door: Door,
    /// The action's name, or `none`.
    pub action: &'a str,
    /// Whether its verdict was carried out.
    pub mode: Mode,
    /// The status that the client was sent; nothing when it left before.
    pub status: Option<u16>,
}

impl Traces {
    /// Sends spans to the collector at `endpoint`, an `http://` URL with its path.
    ///
    /// # Errors
    /// The client cannot be made: the environment asks of it what it cannot do (`OTEL_EXPORTER_OTLP_COMPRESSION`).
    pub fn to(endpoint: &str) -> Result<Self, String> {
        // The blocking client cannot be made where an asynchronous runtime is at work.
        let client = std::thread::spawn(client).join().map_err(|_| "the client cannot be made".to_owned())?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client.map_err(|error| error.to_string())?)
            .with_endpoint(endpoint)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(PATIENCE)
            .build()
            .map_err(|error| error.to_string())?;
        let tally = Arc::new(Tally::default());
        let sender = Sender { exporter, tally: Arc::clone(&tally) };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(PERIOD)
            .build();
        let mut processor = BatchSpanProcessor::new(sender, config);
        let resource = Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_service_name("rolegate")
            .with_attribute(KeyValue::new("service.version", crate::VERSION));
        processor.set_resource(&resource.build());
        let scope = InstrumentationScope::builder("rolegate").with_version(crate::VERSION).build();
        Ok(Self(Arc::new(Queue { processor, scope, ids: RandomIdGenerator::default(), tally })))
    }

    /// Puts the request with the decision `id` into the trace that `traceparents`, the values of all its fields of that name,
    /// speak of; into one of its own where they speak of none.
    #[must_use]
    pub fn trace<'a>(&self, traceparents: impl Iterator<Item = &'a [u8]>, id: &str, walked: &Walked) -> Box<Trace> {
        let Self(queue) = self;
        let joined = parent(traceparents);
        let (trace_id, flags) = match joined {
            Some((trace_id, _, flags)) => (trace_id, flags),
            None => (queue.ids.new_trace_id(), TraceFlags::SAMPLED),
        };
        Box::new(Trace {
            traces: self.clone(),
            id: id.to_owned(),
            trace_id,
            flags,
            parent: joined.map(|(_, parent, _)| parent),
            server: queue.ids.new_span_id(),
            upstream: queue.ids.new_span_id(),
            walked: *walked,
            asked: None,
            answered: None,
            failed: None,
        })
    }

    /// Sends what waits, within a bound; blocks until then. Later spans are lost.
    pub fn close(&self) {
        let Self(queue) = self;
        if let Err(error) = queue.processor.shutdown_with_timeout(FAREWELL) {
            let waiting = u64::try_from(queue.tally.waiting.load(Ordering::Acquire)).unwrap_or(u64::MAX);
            queue.tally.lost.fetch_add(waiting, Ordering::AcqRel);
            queue.tally.tell(Some(&error.to_string()), true);
        } else {
            queue.tally.tell(None, true);
        }
    }

    fn send(&self, spans: Vec<SpanData>) {
        let Self(queue) = self;
        let count = spans.len();
        // A request is found whole or not at all.
        if queue.tally.waiting.fetch_add(count, Ordering::AcqRel) + count > QUEUE {
            queue.tally.waiting.fetch_sub(count, Ordering::AcqRel);
            queue.tally.lose(count);
            return;
        }
        spans.into_iter().for_each(|span| queue.processor.on_end(span));
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Traces({:?})", self.0.tally)
    }
}

/// Goes where the operator said and nowhere else: by no proxy of the environment, and not where an answer points.
fn client() -> reqwest::Result<reqwest::blocking::Client> {
    reqwest::blocking::Client::builder().timeout(PATIENCE).no_proxy().redirect(reqwest::redirect::Policy::none()).build()
}

impl Tally {
    fn lose(&self, count: usize) {
        self.lost.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::AcqRel);
    }

    /// Tells the log how many spans were lost, now and then, and at the end.
    fn tell(&self, error: Option<&str>, end: bool) {
        let mut told = self.told.lock();
        if !end && told.is_some_and(|told| told.elapsed() < TELLING) {
            return;
        }
        let spans = self.lost.swap(0, Ordering::AcqRel);
        if spans > 0 {
            *told = Some(Instant::now());
            tracing::warn!(spans, error, "spans were lost: the collector does not take them, or not as fast as they come");
        }
    }
}

/// Sends batches from the queue's own thread, and keeps the tally.
#[derive(Debug)]
struct Sender {
    exporter: SpanExporter,
    tally: Arc<Tally>,
}

impl opentelemetry_sdk::trace::SpanExporter for Sender {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let sent = self.exporter.export(batch).await;
        self.tally.waiting.fetch_sub(count, Ordering::AcqRel);
        if sent.is_err() {
            self.tally.lose(count);
        }
        self.tally.tell(sent.as_ref().err().map(ToString::to_string).as_deref(), false);
        sent
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl Walked {
    /// A stop took from `began` to `ended`.
    pub fn passed(&mut self, stage: Stage, began: Instant, ended: Instant) {
        let stop = match stage {
            Stage::Match => &mut self.matching,
            Stage::Facts => &mut self.facts,
            Stage::Decide => &mut self.decide,
            Stage::Record => &mut self.record,
            // Not of the walk.
            Stage::Upstream => return,
        };
        *stop = Some((began, ended));
    }

    /// The walk ended so.
    pub fn judged(&mut self, decision: Decision, reason: Option<Reason>) {
        self.verdict = Some((decision, reason));
    }
}

impl Trace {
    /// The trace it is found in.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// The field that tells the upstream which span asks; one that is not sampled has an id, too.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id, self.upstream, self.flags)
    }

    /// Whether a field of the client's is not passed on: what stands in `tracestate` belongs to the trace that it came with.
    #[must_use]
    pub fn replaces(&self, name: &str) -> bool {
        name == "traceparent" || (name == "tracestate" && self.parent.is_none())
    }

    /// The upstream is turned to, for the first time or once more.
    pub fn ask(&mut self) {
        self.asked.get_or_insert_with(Instant::now);
    }

    /// The head of an answer came from the upstream.
    pub fn answered(&mut self, came: Instant, status: u16) {
        self.answered = Some((came, status));
    }

    /// The upstream failed, before its answer or within it.
    pub fn failed(&mut self, kind: UpstreamError) {
        self.failed = Some((Instant::now(), kind));
    }

    /// Makes the spans, if the request is sampled.
    pub fn end(self: Box<Self>, ended: &Ended<'_>) {
        if self.flags.is_sampled() {
            let spans = self.spans(ended);
            self.traces.send(spans);
        }
    }

    fn spans(&self, ended: &Ended<'_>) -> Vec<SpanData> {
        let clock = Clock { now: Instant::now(), time: SystemTime::now() };
        let Walked { matching, facts, decide, record, verdict } = self.walked;
        let (decision, reason) = verdict.map_or((None, None), |(decision, reason)| (Some(decision), reason));
        let method = METHODS.iter().find(|known| **known == ended.method);
        let mut spans = Vec::with_capacity(6);
        for (stage, name, stop) in [
            (Stage::Match, "match", matching),
            (Stage::Facts, "facts", facts),
            (Stage::Decide, "decide", decide),
            (Stage::Record, "record", record),
        ] {
            let Some((began, passed)) = stop else { continue };
            let trouble = reason.filter(|reason| fails(*reason) == Some(stage)).map(Reason::as_str);
            let span = self.span(name, SpanKind::Internal, self.traces.0.ids.new_span_id(), clock.span(began, passed));
            spans.push(marked(span, trouble));
        }
        let named = |attributes: &mut Vec<KeyValue>, status: Option<u16>| {
            attributes.push(KeyValue::new("http.request.method", method.map_or("_OTHER", |known| *known)));
            attributes.extend(status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))));
        };
        let failed = self.failed.map(|(_, kind)| kind.as_str().to_owned());
        if let Some(asked) = self.asked {
            let status = self.answered.map(|(_, status)| status);
            let until = self.failed.map(|(at, _)| at).or(self.answered.map(|(at, _)| at)).unwrap_or(clock.now);
            let mut span = self.span("upstream", SpanKind::Client, self.upstream, clock.span(asked, until));
            named(&mut span.attributes, status);
            spans.push(marked(span, failed.clone().or(status.filter(|status| *status >= 400).map(|status| status.to_string()))));
        }
        let method = method.map_or("HTTP", |known| *known);
        let name: Cow<'static, str> =
            if ended.action == "none" { method.into() } else { format!("{method} {}", ended.action).into() };
        let mut span = self.span(name, SpanKind::Server, self.server, clock.span(ended.started, clock.now));
        span.parent_span_id = self.parent.unwrap_or(SpanId::INVALID);
        span.parent_span_is_remote = self.parent.is_some();
        named(&mut span.attributes, ended.status);
        span.attributes.extend([
            KeyValue::new("rolegate.id", self.id.clone()),
            KeyValue::new("rolegate.provider", ended.provider.to_owned()),
            KeyValue::new("rolegate.door", ended.door.as_str()),
            KeyValue::new("rolegate.action", ended.action.to_owned()),
            KeyValue::new("rolegate.mode", ended.mode.as_str()),
        ]);
        span.attributes.extend(decision.map(|decision| KeyValue::new("rolegate.decision", decision.as_str())));
        span.attributes.extend(reason.map(|reason| KeyValue::new("rolegate.reason", reason.as_str())));
        let error = ended.status.filter(|status| *status >= 500).map(|status| status.to_string());
        spans.push(marked(span, failed.or(error)));
        spans
    }

    /// A span of this trace, by default below that of the request.
    fn span(
        &self,
        name: impl Into<Cow<'static, str>>,
        span_kind: SpanKind,
        id: SpanId,
        (start_time, end_time): (SystemTime, SystemTime),
    ) -> SpanData {
        SpanData {
            span_context: SpanContext::new(self.trace_id, id, self.flags, false, TraceState::NONE),
            parent_span_id: self.server,
            parent_span_is_remote: false,
            span_kind,
            name: name.into(),
            start_time,
            end_time,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.traces.0.scope.clone(),
        }
    }
}

/// What an instant is on the clock on the wall.
#[derive(Clone, Copy)]
struct Clock {
    now: Instant,
    time: SystemTime,
}

impl Clock {
    fn at(self, instant: Instant) -> SystemTime {
        self.time.checked_sub(self.now.saturating_duration_since(instant)).unwrap_or(self.time)
    }

    fn span(self, began: Instant, ended: Instant) -> (SystemTime, SystemTime) {
        (self.at(began), self.at(ended))
    }
}

/// The span as one that failed, if there is `trouble`.
fn marked(mut span: SpanData, trouble: Option<impl Into<opentelemetry::Value>>) -> SpanData {
    if let Some(trouble) = trouble {
        span.attributes.push(KeyValue::new("error.type", trouble.into()));
        span.status = Status::Error { description: "".into() };
    }
    span
}

/// The stop that did not do its work where a request was refused so.
fn fails(reason: Reason) -> Option<Stage> {
    match reason {
        Reason::FactsLimited | Reason::FactsUnavailable | Reason::Overloaded => Some(Stage::Facts),
        Reason::PolicyError => Some(Stage::Decide),
        Reason::AuditUnavailable => Some(Stage::Record),
        _ => None,
    }
}

/// Reads a `traceparent` (W3C Trace Context level 2, §3.2): its trace, its span and its flags. There must be one; of a later
/// version only the parts that this one has are read. The library's own reader takes more than that: signs, other lengths, and
/// the first of several.
fn parent<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<(TraceId, SpanId, TraceFlags)> {
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let mut parts = std::str::from_utf8(value).ok()?.split('-');
    let mut hex = |length: usize| {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        parts.next().filter(|part| part.len() == length && part.bytes().all(digit))
    };
    let (version, trace, parent, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let trace = TraceId::from_hex(trace).ok().filter(|id| *id != TraceId::INVALID)?;
    let parent = SpanId::from_hex(parent).ok().filter(|id| *id != SpanId::INVALID)?;
    Some((trace, parent, TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & KNOWN_FLAGS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn read(values: &[&str]) -> Option<String> {
        let (trace, span, flags) = parent(values.iter().map(|value| value.as_bytes()))?;
        Some(format!("{trace}-{span}-{flags:02x}"))
    }

    #[test]
    fn a_traceparent_is_read_as_the_standard_has_it() {
        for (version, flags, rest, kept) in [
            ("00", "01", "", "01"),
            ("00", "00", "", "00"),
            ("00", "03", "", "03"),
            ("00", "ff", "", "03"),
            ("01", "01", "", "01"),
            ("cc", "01", "-what-the-future-will-be-like", "01"),
            ("cc", "01", "-", "01"),
        ] {
            let value = format!("{version}-{TRACE}-{SPAN}-{flags}{rest}");
            assert_eq!(read(&[&value]), Some(format!("{TRACE}-{SPAN}-{kept}")), "{value}");
        }
    }

    #[test]
    fn what_the_standard_calls_invalid_is_none() {
        let good = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[&good, &good]), None, "two are none");
        for value in [
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-x"),
            format!("cc-{TRACE}-{SPAN}-01.x"),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
            format!("00-{TRACE}-{SPAN}-0A"),
            format!("0X-{TRACE}-{SPAN}-01"),
            format!("00-+{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{TRACE}-{SPAN}-+1"),
            format!(" {good}"),
            format!("{good}, {good}"),
            "\u{e9}".to_owned(),
            String::new(),
        ] {
            assert_eq!(read(&[&value]), None, "{value:?}");
        }
    }

    #[test]
    fn what_the_queue_does_not_hold_is_lost_at_once_and_counted() {
        // A test's client speaks TLS, too, and asks for its cryptography.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let traces = Traces::to(&format!("http://{}/v1/traces", silent.local_addr().unwrap())).unwrap();
        let began = Instant::now();
        let mut walked = Walked::default();
        walked.passed(Stage::Match, began, began);
        let ended = Ended {
            started: began,
            method: "GET",
            provider: "p",
            door: Door::Rest,
            action: "a",
            mode: Mode::Enforce,
            status: Some(200),
        };
        for _ in 0..QUEUE {
            traces.trace(std::iter::empty(), "id", &walked).end(&ended);
        }
        assert!(began.elapsed() < PATIENCE, "nobody waited: {:?}", began.elapsed());
        let Tally { waiting, lost, .. } = &*traces.0.tally;
        assert_eq!(waiting.load(Ordering::Acquire), QUEUE);
        assert_eq!(lost.load(Ordering::Acquire), u64::try_from(QUEUE).unwrap());
    }

    #[test]
    fn the_clock_on_the_wall_keeps_the_distances() {
        let clock = Clock { now: Instant::now(), time: SystemTime::now() };
        let began = clock.now.checked_sub(Duration::from_micros(40)).unwrap();
        let ended = clock.now.checked_sub(Duration::from_micros(15)).unwrap();
        let (start, end) = clock.span(began, ended);
        assert_eq!(end.duration_since(start).unwrap(), Duration::from_micros(25));
        assert_eq!(clock.time.duration_since(end).unwrap(), Duration::from_micros(15));
    }
}
