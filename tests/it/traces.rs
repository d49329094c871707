//! Spans: what a collector is sent of judged requests, what the upstream is told of it, and what is never in it.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rolegate::demo::world::workspace::{BOARDROOM, BOB, CAROL, EVE};
use rolegate::demo::{Behaviour, Sample};
use rolegate::model::Mode;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::connections::tls::{NAME, trusting};
use crate::fast_path::requests;
use crate::support::collector::Span;
use crate::support::gate::login;
use crate::support::{Authority, Collector, Gate, GateBuilder, Process, Program, until};

const ROLES: &str = "/api/v1/rooms.roles";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A gate whose spans go to `endpoint`, and which takes the fast path or not.
async fn traced(endpoint: &str, fast: bool) -> GateBuilder {
    let endpoint = Some(endpoint.to_owned());
    GateBuilder::rocketchat().await.with(|config| (config.traces.otlp_endpoint, config.listen.fast_path) = (endpoint, fast))
}

fn room() -> String {
    format!("{ROLES}?rid={BOARDROOM}")
}

/// The login of `name`, with further headers.
fn with(name: &str, further: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let mut headers = login(name);
    headers.extend(further.iter().map(|(name, value)| (*name, (*value).to_owned())));
    headers
}

/// Stops `gate`, which sends what waits, and gives every span that `collector` has.
async fn stopped(mut gate: Gate, collector: &Collector) -> Vec<Span> {
    assert!(gate.stop().await);
    collector.spans()
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no span `{name}`: {spans:#?}"))
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

/// The values of the header `name` with which the last request for roles reached the sample.
fn forwarded(gate: &Gate, name: &str) -> Vec<String> {
    let seen = gate.sample.seen().into_iter().rfind(|seen| seen.path == ROLES).unwrap();
    seen.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

fn traceparent(trace: &str, span: &str, flags: &str) -> String {
    format!("00-{trace}-{span}-{flags}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permitted_request_leaves_a_span_with_one_below_it_for_each_stop() {
    for fast in [true, false] {
        let collector = Collector::start().await;
        let gate = traced(&collector.url(), fast).await.start();
        assert_eq!(gate.get(&room(), &login("carol")).await.status, 200);
        let (id, told) = (gate.last_decision()["id"].as_str().unwrap().to_owned(), forwarded(&gate, "traceparent"));
        let spans = stopped(gate, &collector).await;
        assert_eq!(names(&spans), ["match", "facts", "decide", "record", "upstream", "GET rooms.roles"], "fast: {fast}");

        let server = named(&spans, "GET rooms.roles");
        let expected = [
            ("http.request.method", "GET"),
            ("http.response.status_code", "200"),
            ("rolegate.action", "rooms.roles"),
            ("rolegate.decision", "permit"),
            ("rolegate.door", "rest"),
            ("rolegate.id", &id),
            ("rolegate.mode", "enforce"),
            ("rolegate.provider", "rocketchat"),
        ];
        assert_eq!(server.attributes, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!((server.kind, server.parent.as_str(), server.failed), (SpanKind::Server, "", false));

        let mut last = server.begins;
        for span in spans.iter().filter(|span| span.id != server.id) {
            assert_eq!((&span.trace, &span.parent, span.failed), (&server.trace, &server.id, false), "{}", span.name);
            assert!(last <= span.begins && span.begins <= span.ends && span.ends <= server.ends, "{spans:#?}");
            assert_eq!(span.kind, if span.name == "upstream" { SpanKind::Client } else { SpanKind::Internal });
            last = span.ends;
        }
        let upstream = named(&spans, "upstream");
        assert_eq!((upstream.attribute("http.request.method"), upstream.attribute("http.response.status_code")), ("GET", "200"));
        assert_eq!(told, [traceparent(&server.trace, &upstream.id, "01")]);

        let resource = collector.resource();
        assert_eq!((resource["service.name"].as_str(), resource["service.version"].as_str()), ("rolegate", rolegate::VERSION));
        let (request, kind, _) = collector.received().remove(0);
        assert_eq!((request.as_str(), kind.as_str()), ("POST /v1/traces", "application/x-protobuf"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_leaves_the_stops_that_it_reached_and_none_upstream() {
    let collector = Collector::start().await;
    let gate = traced(&collector.url(), true).await.start();
    assert_eq!(gate.get(&room(), &login("eve")).await.status, 403);
    assert_eq!(gate.get(ROLES, &login("eve")).await.status, 400);
    assert_eq!(gate.get(&room(), &login("eve")[..1]).await.status, 401);
    gate.sample.behave("/api/v1/subscriptions.getOne", Behaviour::Close);
    assert_eq!(gate.get(&room(), &login("carol")).await.status, 503);
    let mut broken = gate.connect().await;
    broken.send(b"FROBNICATE /api/v1/me HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    assert_eq!(broken.answer("GET").await.status, 400);
    let records = gate.records_of("decision");
    let spans = stopped(gate, &collector).await;
    let expected: [(&str, &str, &[&str]); 5] = [
        ("GET rooms.roles", "policy_denied", &["match", "facts", "decide", "record"]),
        ("GET rooms.roles", "param_missing", &["match", "record"]),
        ("GET rooms.roles", "credential_missing", &["match", "record"]),
        ("GET rooms.roles", "facts_unavailable", &["match", "facts", "record"]),
        ("HTTP", "framing_invalid", &["record"]),
    ];
    assert_eq!(records.len(), expected.len());
    for (record, (name, reason, stops)) in records.iter().zip(expected) {
        let server = spans.iter().find(|span| record["id"] == *span.attribute("rolegate.id")).unwrap();
        assert_eq!((server.name.as_str(), server.attribute("rolegate.reason")), (name, reason));
        assert_eq!((server.attribute("rolegate.decision"), record["reason"].as_str()), ("deny", Some(reason)));
        let below: Vec<&Span> = spans.iter().filter(|span| span.parent == server.id).collect();
        assert_eq!(below.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), stops, "{reason}");
        // A refusal is no failure of the gate; that a fact could not be looked up is one.
        let failed = reason == "facts_unavailable";
        assert_eq!((server.failed, server.attribute("error.type")), (failed, if failed { "503" } else { "" }));
        for stop in below {
            assert_eq!(stop.failed, failed && stop.name == "facts", "{} of {reason}", stop.name);
        }
    }
    assert_eq!(named(&spans, "HTTP").attribute("http.request.method"), "_OTHER", "a name from a list, not what was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_trace_is_continued_and_passed_on() {
    for fast in [true, false] {
        let collector = Collector::start().await;
        let gate = traced(&collector.url(), fast).await.start();
        let sent = traceparent(TRACE, PARENT, "03");
        let headers = with("carol", &[("traceparent", &sent), ("Tracestate", "a=1,b=2"), ("tracestate", "c=3")]);
        assert_eq!(gate.get(&room(), &headers).await.status, 200);
        let told = (forwarded(&gate, "traceparent"), forwarded(&gate, "tracestate"));
        let spans = stopped(gate, &collector).await;
        let (server, upstream) = (named(&spans, "GET rooms.roles"), named(&spans, "upstream"));
        assert!(spans.iter().all(|span| span.trace == TRACE));
        assert_eq!(server.parent, PARENT);
        assert_eq!(server.flags & 0x3ff, 0x303, "sampled, random, and the parent is another program's");
        assert_eq!(told.0, [traceparent(TRACE, &upstream.id, "03")], "fast: {fast}");
        assert_eq!(told.1, ["a=1,b=2", "c=3"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_caller_does_not_sample_is_not_sampled_here_either() {
    for fast in [true, false] {
        let collector = Collector::start().await;
        let gate = traced(&collector.url(), fast).await.start();
        let headers = with("carol", &[("traceparent", &traceparent(TRACE, PARENT, "00")), ("tracestate", "a=1")]);
        assert_eq!(gate.get(&room(), &headers).await.status, 200);
        let told = forwarded(&gate, "traceparent").remove(0);
        assert!(told.starts_with(&format!("00-{TRACE}-")) && told.ends_with("-00") && !told.contains(PARENT), "{told}");
        assert_eq!(forwarded(&gate, "tracestate"), ["a=1"]);
        assert_eq!(stopped(gate, &collector).await.len(), 0);
        assert_eq!(collector.received().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traceparent_that_says_nothing_begins_another_trace_and_takes_its_state_along() {
    let good = traceparent(TRACE, PARENT, "01");
    let invalid: [&[&str]; 6] = [
        &[],
        &["hello"],
        &[&good.replacen("00", "ff", 1)],
        &[&good.to_uppercase()],
        &[&traceparent(TRACE, "0000000000000000", "01")],
        &[&good, &good],
    ];
    for fast in [true, false] {
        let collector = Collector::start().await;
        let gate = traced(&collector.url(), fast).await.start();
        let mut told = Vec::new();
        for values in invalid {
            let mut further: Vec<(&'static str, &str)> = values.iter().map(|value| ("traceparent", *value)).collect();
            further.push(("tracestate", "a=1"));
            assert_eq!(gate.get(&room(), &with("carol", &further)).await.status, 200);
            told.extend(forwarded(&gate, "traceparent"));
            assert_eq!(forwarded(&gate, "tracestate"), Vec::<String>::new());
        }
        let spans = stopped(gate, &collector).await;
        let upstream = spans.iter().filter(|span| span.name == "upstream");
        let mut sent: Vec<String> = upstream.map(|span| traceparent(&span.trace, &span.id, "01")).collect();
        // A span is sent once its answer was, which may be after the next one's.
        sent.sort();
        told.sort();
        assert_eq!((sent.len(), &sent), (invalid.len(), &told));
        assert!(spans.iter().all(|span| span.trace != TRACE && span.parent != PARENT));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_no_header_is_invented_and_the_callers_pass_as_they_came() {
    for fast in [true, false] {
        let gate = GateBuilder::rocketchat().await.with(|config| config.listen.fast_path = fast).start();
        assert_eq!(gate.get(&room(), &login("carol")).await.status, 200);
        assert_eq!(forwarded(&gate, "traceparent"), Vec::<String>::new());
        let headers = with("carol", &[("traceparent", "what the caller says"), ("tracestate", "a=1")]);
        assert_eq!(gate.get(&room(), &headers).await.status, 200);
        assert_eq!(forwarded(&gate, "traceparent"), ["what the caller says"]);
        assert_eq!(forwarded(&gate, "tracestate"), ["a=1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_judged_leaves_no_span_and_keeps_its_traceparent() {
    let collector = Collector::start().await;
    let gate = traced(&collector.url(), true).await.start();
    let sent = traceparent(TRACE, PARENT, "01");
    for target in ["/echo", "/api/v1/me"] {
        assert_eq!(gate.get(target, &with("carol", &[("traceparent", &sent), ("tracestate", "a=1")])).await.status, 200);
        let seen = gate.sample.seen().pop().unwrap();
        assert_eq!((seen.header("traceparent"), seen.header("tracestate")), (Some(sent.as_str()), Some("a=1")), "{target}");
    }
    assert_eq!(stopped(gate, &collector).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observed_request_goes_on_as_received_and_leaves_its_verdict() {
    let collector = Collector::start().await;
    let gate = traced(&collector.url(), true).await.upstream(|upstream| upstream.mode = Mode::Observe).start();
    let sent = traceparent(TRACE, PARENT, "01");
    assert_eq!(gate.get(&room(), &with("eve", &[("traceparent", &sent)])).await.status, 400);
    assert_eq!(forwarded(&gate, "traceparent"), [sent]);
    let spans = stopped(gate, &collector).await;
    assert_eq!(names(&spans), ["match", "facts", "decide", "record", "upstream", "GET rooms.roles"]);
    let server = named(&spans, "GET rooms.roles");
    assert_eq!(
        ["rolegate.mode", "rolegate.decision", "rolegate.reason"].map(|name| server.attribute(name)),
        ["observe", "deny", "policy_denied"]
    );
    // The server itself refuses eve, which a client's span tells as a failure and a server's does not.
    assert_eq!((server.failed, named(&spans, "upstream").failed), (false, true));
}

/// A span without what differs from one request to the next.
type Steady = (String, SpanKind, BTreeMap<String, String>, bool);

/// The spans of the request with the decision `id`, its own the last.
fn of(id: &Value, all: &[Span]) -> Vec<Steady> {
    let server = all.iter().find(|span| span.attribute("rolegate.id") == id).unwrap_or_else(|| panic!("no span of {id}"));
    let spans = all.iter().filter(|span| span.trace == server.trace && [&span.id, &span.parent].contains(&&server.id));
    let steady = spans.map(|span| {
        let mut attributes = span.attributes.clone();
        attributes.remove("rolegate.id");
        (span.name.clone(), span.kind, attributes, span.failed)
    });
    steady.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_paths_and_h2_leave_the_same_spans() {
    let mut told = Vec::new();
    for fast in [true, false] {
        let collector = Collector::start().await;
        let gate = traced(&collector.url(), fast).await.start();
        let mut asked = requests();
        asked.push(("GET", room(), with("carol", &[("traceparent", &traceparent(TRACE, PARENT, "01"))])));
        for (method, target, fields) in asked {
            gate.connect().await.request(method, &target, &fields, b"").await;
        }
        let decisions = gate.records_of("decision");
        let spans = stopped(gate, &collector).await;
        let groups: Vec<Vec<Steady>> = decisions.iter().map(|record| of(&record["id"], &spans)).collect();
        assert_eq!(groups.iter().map(Vec::len).sum::<usize>(), spans.len(), "each belongs to a record");
        told.push(groups);
    }
    assert!(told[0].len() > 80, "{}", told[0].len());
    for (one, other) in told[0].iter().zip(&told[1]) {
        assert_eq!(one, other);
    }
    assert_eq!(told[0].len(), told[1].len());

    let (authority, collector) = (Authority::new("ours"), Collector::start().await);
    let builder = traced(&collector.url(), true).await;
    let files = (builder.folder.path().join("cert.pem"), builder.folder.path().join("key.pem"));
    authority.place(NAME, &files);
    let gate = builder.with(|config| config.listen.tls = Some(files)).start();
    let client = trusting(&authority, &gate).build().unwrap();
    let url = format!("https://{NAME}:{}{}", gate.address().port(), room());
    let headers = with("carol", &[("traceparent", &traceparent(TRACE, PARENT, "01"))]);
    let request = headers.into_iter().fold(client.get(url), |request, (name, value)| request.header(name, value));
    let answer = request.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_2));
    drop((answer, client));
    let (record, told_upstream) = (gate.last_decision(), forwarded(&gate, "traceparent"));
    let spans = stopped(gate, &collector).await;
    assert_eq!(Some(&of(&record["id"], &spans)), told[0].last());
    assert_eq!(told_upstream, [traceparent(TRACE, &named(&spans, "upstream").id, "01")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_by_the_tunnel_is_found_by_its_action() {
    let collector = Collector::start().await;
    let gate = traced(&collector.url(), true).await.start();
    let message = format!(r#"{{"msg":"method","id":"1","method":"getRoomRoles","params":["{BOARDROOM}"]}}"#);
    let body = serde_json::json!({ "message": message }).to_string();
    let headers = with("carol", &[("Content-Type", "application/json")]);
    let target = "/api/v1/method.call/getRoomRoles";
    let answer = gate.connect().await.request("POST", target, &headers, body.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let spans = stopped(gate, &collector).await;
    let server = named(&spans, "POST rooms.roles");
    assert_eq!((server.attribute("rolegate.door"), spans.len()), ("method_call", 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_fails_is_seen_in_its_span_and_in_the_requests() {
    for fast in [true, false] {
        for (behaviour, kind, status) in [("close", "broken", "502"), ("hold", "timeout", "504"), ("away", "connect", "502")] {
            let collector = Collector::start().await;
            let short = Duration::from_millis(200);
            let gate = traced(&collector.url(), fast).await.upstream(|upstream| {
                (upstream.read_timeout, upstream.first_byte_timeout) = (short, short);
            });
            let mut gate = gate.start();
            // Whoever asks is known from now on.
            assert_eq!(gate.get(&room(), &login("carol")).await.status, 200);
            let hold = gate.sample.hold("/elsewhere");
            match behaviour {
                "close" => gate.sample.behave(ROLES, Behaviour::Close),
                "hold" => gate.sample.behave(ROLES, Behaviour::Hold(hold)),
                // The connections end with it at once; the listener's task a moment later.
                _ => {
                    let before = gate.sample.address();
                    gate.sample = Sample::rocketchat().await.unwrap();
                    until("nobody listens", || std::net::TcpStream::connect(before).err()).await;
                }
            }
            let answer = gate.get(&room(), &login("carol")).await;
            assert_eq!(answer.status.to_string(), status, "{behaviour}, fast: {fast}");
            let spans = stopped(gate, &collector).await;
            // Spans are made a moment after the answer, so that those of the two requests come in either order.
            let id = answer.header("x-request-id").unwrap();
            let server = spans.iter().find(|span| span.attribute("rolegate.id") == id).unwrap();
            let upstream = spans.iter().find(|span| span.parent == server.id && span.name == "upstream").unwrap();
            assert_eq!((server.failed, upstream.failed), (true, true), "{behaviour}, fast: {fast}");
            assert_eq!([server, upstream].map(|span| span.attribute("error.type")), [kind, kind], "fast: {fast}");
            let statuses = [server, upstream].map(|span| span.attribute("http.response.status_code"));
            assert_eq!(statuses, [status, ""], "{behaviour}, fast: {fast}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_written_is_seen_in_its_stop() {
    let collector = Collector::start().await;
    let gate = traced(&collector.url(), true).await.start();
    fs::rename(gate.audit(), gate.folder.path().join("aside.jsonl")).unwrap();
    fs::create_dir(gate.audit()).unwrap();
    // The log looks for its file whenever it is asked whether it is ready.
    assert_eq!(gate.admin_get("/readyz").await.status, 503);
    assert_eq!(gate.get(&room(), &login("carol")).await.status, 503);
    fs::remove_dir(gate.audit()).unwrap();
    let spans = stopped(gate, &collector).await;
    assert_eq!(names(&spans), ["match", "facts", "decide", "record", "GET rooms.roles"]);
    assert_eq!(named(&spans, "record").attribute("error.type"), "audit_unavailable");
    let server = named(&spans, "GET rooms.roles");
    assert_eq!(["rolegate.decision", "rolegate.reason"].map(|name| server.attribute(name)), ["deny", "audit_unavailable"]);
    assert_eq!(spans.iter().filter(|span| span.failed).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_exported_byte_tells_of_a_user_a_room_or_a_token() {
    for fast in [true, false] {
        let collector = Collector::start().await;
        let mut gate = traced(&collector.url(), fast).await.start();
        let secrets = with("carol", &[("traceparent", &traceparent(TRACE, PARENT, "01")), ("tracestate", "state=hidden")]);
        for target in [
            room(),
            format!("{ROLES}?rid={BOARDROOM}&token=hidden"),
            format!("/api/v1/users.info?userId={BOB}"),
            "/api/v1/users.info?username=bob".to_owned(),
            "/api/v1//hidden?userId=hidden".to_owned(),
        ] {
            gate.get(&target, &secrets).await;
        }
        for (method, target, fields) in requests() {
            gate.connect().await.request(method, &target, &fields, b"").await;
        }
        let mut odd = gate.connect().await;
        odd.request("HIDDEN", &room(), &secrets, b"").await;
        assert!(gate.stop().await);
        let bytes: Vec<u8> = collector.received().into_iter().flat_map(|(_, _, content)| content).collect();
        assert!(bytes.len() > 10_000, "{}", bytes.len());
        let people = ["carol", "eve6GF", "alice", "audrey", "bob"];
        let others = [CAROL, EVE, BOB, BOARDROOM, "hidden", "HIDDEN", "token", "127.0.0.1", "/api", "rid", "client.example"];
        for secret in people.into_iter().chain(others) {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "`{secret}` is in what was exported, fast: {fast}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_sent_while_the_gate_serves() {
    let collector = Collector::start().await;
    let gate = traced(&collector.url(), true).await.start();
    gate.get(&room(), &login("carol")).await;
    until("spans", || (collector.spans().len() == 6).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_or_hangs_disturbs_no_request_and_holds_up_no_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    drop(listener);
    let hanging = Collector::hanging().await;
    for endpoint in [away, hanging.url()] {
        let mut gate = traced(&endpoint, true).await.start();
        let mut connection = gate.connect().await;
        // More than is sent at once, so that the collector is turned to while they are asked.
        for _ in 0..300 {
            let began = Instant::now();
            assert_eq!(connection.get(&room(), &login("carol")).await.status, 200);
            assert!(began.elapsed() < Duration::from_secs(4), "{endpoint}: a request took {:?}", began.elapsed());
        }
        drop(connection);
        let began = Instant::now();
        assert!(gate.stop().await);
        assert!(began.elapsed() < Duration::from_secs(10), "{endpoint}: the end took {:?}", began.elapsed());
    }
    assert!(!hanging.received().is_empty());
}

/// A program before the sample at `upstream`, with a configuration of its own.
async fn program(upstream: &str, endpoint: &str) -> Process {
    let folder = tempfile::tempdir().unwrap();
    let config =
        format!("[[upstream]]\nprovider = \"rocketchat\"\nurl = \"{upstream}\"\n\n[traces]\notlp_endpoint = \"{endpoint}\"\n");
    fs::write(folder.path().join("rolegate.toml"), config).unwrap();
    Process::run(folder, &["run", "--config", "rolegate.toml"]).await
}

/// The lines of its log that have `message`; every line is JSON.
fn lines(program: &Process, message: &str) -> Vec<Value> {
    let log = program.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    lines.filter(|line| line["message"].as_str().is_some_and(|text| text.contains(message))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_line_of_a_failed_request_leads_to_its_record_its_answer_and_its_trace() {
    let (sample, collector) = (Sample::rocketchat().await.unwrap(), Collector::start().await);
    sample.behave(ROLES, Behaviour::Close);
    let base = format!("http://{}", collector.address);
    let mut program = program(sample.url(), &base).await;
    let answer = program.connect().await.get(&room(), &login("carol")).await;
    let general = with("carol", &[("Connection", "close")]);
    let other = program.connect().await.get(&room(), &general).await;
    assert_eq!((answer.status, other.status), (502, 502));
    let told = until("two lines", || Some(lines(&program, "request failed")).filter(|lines| lines.len() == 2)).await;
    program.terminate();
    assert_eq!(program.exit().await, 0);
    let records = crate::support::gate::records(&program.folder.path().join("audit/audit.jsonl"));
    let spans = collector.spans();
    for (line, answer) in told.iter().zip([answer, other]) {
        let id = answer.header("x-request-id").unwrap();
        assert_eq!((line["level"].as_str(), line["id"].as_str()), (Some("WARN"), Some(id)));
        let kinds: Vec<&Value> = records.iter().filter(|record| record["id"] == id).map(|record| &record["kind"]).collect();
        assert_eq!(kinds, ["decision", "outcome"]);
        let server = spans.iter().find(|span| span.attribute("rolegate.id") == id).unwrap();
        assert_eq!(line["trace_id"], server.trace);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_ends_in_time_without_its_collector_and_says_what_was_lost() {
    let sample = Sample::rocketchat().await.unwrap();
    let hanging = Collector::hanging().await;
    let mut program = program(sample.url(), &hanging.url()).await;
    assert_eq!(program.connect().await.get(&room(), &login("carol")).await.status, 200);
    program.terminate();
    let began = Instant::now();
    assert_eq!(program.exit().await, 0);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let told = lines(&program, "spans were lost");
    assert_eq!((told.len(), told[0]["spans"].as_u64()), (1, Some(6)), "{}", program.log());
}

#[test]
fn a_collector_that_cannot_be_reached_safely_or_at_all_is_a_fault_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    for (endpoint, why) in [
        ("https://collector:4318", "begins with `https://`, and spans are sent without TLS"),
        ("collector:4318", "does not begin with `http://`"),
        ("grpc://collector:4317", "does not begin with `http://`"),
        ("http://", "names no host"),
        ("http:// collector", "names no host"),
        ("http://user:hidden@collector:4318", "holds a credential"),
        ("http://collector:4318/?token=hidden", "has a query"),
    ] {
        let config =
            format!("[traces]\notlp_endpoint = \"{endpoint}\"\n[[upstream]]\nprovider = \"rocketchat\"\nurl = \"http://c\"\n");
        fs::write(folder.path().join("rolegate.toml"), config).unwrap();
        let ended = Program::new(&["check", "--config", "rolegate.toml"]).within(folder.path()).run();
        assert_eq!(ended.code, 3, "{endpoint}");
        assert!(ended.err.contains(&format!("rolegate.toml:2:17: `otlp_endpoint` {why}")), "{}", ended.err);
        assert!(ended.err.contains("http://127.0.0.1:4318") && !ended.err.contains("hidden"), "{}", ended.err);
    }
}

#[test]
fn the_usual_path_is_added_where_the_collectors_url_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rolegate.toml");
    for (endpoint, sent) in [
        ("", None),
        ("http://c:4318", Some("http://c:4318/v1/traces")),
        ("http://c:4318/", Some("http://c:4318/v1/traces")),
        ("http://[::1]:4318", Some("http://[::1]:4318/v1/traces")),
        ("http://c/otlp/traces", Some("http://c/otlp/traces")),
    ] {
        let config =
            format!("[traces]\notlp_endpoint = \"{endpoint}\"\n[[upstream]]\nprovider = \"rocketchat\"\nurl = \"http://c\"\n");
        fs::write(&path, config).unwrap();
        let config = rolegate::config::Config::load(Some(&path), &Default::default()).unwrap();
        assert_eq!(config.traces.otlp_endpoint.as_deref(), sent);
    }
}
