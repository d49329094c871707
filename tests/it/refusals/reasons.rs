//! One refusal for each reason of the closed list, as a client, an operator and the upstream see it.

use std::net::{IpAddr, Ipv4Addr};

use rolegate::config::Upstream;
use rolegate::demo::Behaviour;
use rolegate::demo::Sample;
use rolegate::demo::world::workspace::{BOARDROOM, BOB};
use rolegate::model::{Body, RawRequest, Reason};
use rolegate::pipeline::{Admission, Moment};
use rolegate::rules::source::BUILT_IN;
use rolegate::traces::Walked;
use serde_json::Value;

use super::told::{AT_MOST_100, STRING, UNKNOWN, legacy, missing, typed};
use super::{INVALID_TARGET, LOG_IN, NO_PERMISSION, assert_no_secret_recorded, assert_refusal};
use crate::support::gate::login;
use crate::support::{Answer, Connection, Gate, GateBuilder};

const INVALID: &str =
    r#"{"success":false,"error":"Invalid request [error-invalid-request]","errorType":"error-invalid-request"}"#;
const UNAVAILABLE: &str =
    r#"{"success":false,"error":"Service unavailable [error-service-unavailable]","errorType":"error-service-unavailable"}"#;

/// A refusal that was met.
struct Met {
    gate: Gate,
    connection: Connection,
    answer: Answer,
    status: u16,
    body: String,
    /// The action that was found before it was refused.
    action: &'static str,
    /// A field beside those of every refusal.
    beside: Option<(&'static str, String)>,
    /// Upstreams beside the first.
    others: Vec<Sample>,
}

impl Met {
    async fn by(gate: Gate, method: &str, target: &str, headers: &[(&str, String)], content: &[u8]) -> Self {
        let mut connection = gate.connect().await;
        let answer = connection.request(method, target, headers, content).await;
        Self { gate, connection, answer, status: 400, body: INVALID.to_owned(), action: "none", beside: None, others: Vec::new() }
    }

    async fn get(gate: Gate, target: &str, headers: &[(&str, String)]) -> Self {
        Self::by(gate, "GET", target, headers, b"").await
    }

    fn told(mut self, status: u16, body: impl Into<String>) -> Self {
        (self.status, self.body) = (status, body.into());
        self
    }

    fn of(mut self, action: &'static str) -> Self {
        self.action = action;
        self
    }

    fn beside(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.beside = Some((name, value.into()));
        self
    }
}

/// A gate whose policies forbid one room and stumble over one count.
async fn gate_with_further_policies() -> Gate {
    let builder = GateBuilder::rocketchat().await;
    let folder = builder.folder.path().join("policies");
    std::fs::create_dir_all(folder.join("rocketchat")).unwrap();
    for (path, text) in BUILT_IN.iter().filter(|(path, _)| path.starts_with("rocketchat/")) {
        std::fs::write(folder.join(path), text).unwrap();
    }
    let further = format!(
        r#"@id("the-boardroom-is-closed")
        @reason("closed until the audit is over")
        forbid (principal, action == RocketChat::Action::"rooms.roles", resource)
        when {{ context.params.rid == "{BOARDROOM}" }};
        @id("no-large-pages")
        forbid (principal, action == RocketChat::Action::"roles.getUsersInRole", resource)
        when {{ context.params has count && context.params.count * 9223372036854775807 > 1 }};"#
    );
    std::fs::write(folder.join("rocketchat/further.cedar"), further).unwrap();
    builder.with(|config| config.policies.directory = Some(folder)).start()
}

/// A gate before two upstreams, of which the first serves `chat.example.org`.
async fn gate_before_two() -> (Gate, Sample) {
    let other = Sample::docusign().await.unwrap();
    let url: rolegate::config::Origin = other.url().parse().unwrap();
    let gate = GateBuilder::rocketchat()
        .await
        .with(|config| {
            config.upstreams[0].host = Some("chat.example.org".into());
            let second = Upstream::new("docusign-rooms", url.clone());
            config.upstreams.push(Upstream { host: Some("rooms.example.org".into()), account: Some(url), ..second });
        })
        .start();
    (gate, other)
}

/// Provokes a refusal for `reason` over the network; none where no request can.
async fn provoke(reason: Reason) -> Option<Met> {
    let gate = || Gate::rocketchat();
    let room = format!("/api/v1/rooms.roles?rid={BOARDROOM}");
    let with = |name: &'static str, value: &str| {
        let mut headers = login("carol");
        headers.push((name, value.to_owned()));
        headers
    };
    let rooms = "rooms.roles";
    let fault = |target: &'static str| async move { Met::get(gate().await, target, &login("carol")).await.of("rooms.roles") };
    Some(match reason {
        Reason::FramingInvalid => {
            let gate = GateBuilder::rocketchat().await.with(|config| config.limits.header_fields = 5).start();
            let mut headers = login("carol");
            headers.extend((0..4).map(|_| ("X-One-Of-Many", "a".to_owned())));
            Met::get(gate, &room, &headers).await
        }
        Reason::HostUnknown => {
            let (gate, other) = gate_before_two().await;
            let mut met = Met::get(gate, &room, &with("Host", "evil.example.org")).await;
            met.connection.host = "chat.example.org".to_owned();
            met.others.push(other);
            met.told(421, r#"{"success":false,"error":"Unknown host [error-unknown-host]","errorType":"error-unknown-host"}"#)
        }
        Reason::HeaderAmbiguous => Met::get(gate().await, &room, &with("X_User_Id", BOB)).await,
        Reason::TargetAmbiguous => {
            let target = room.replace("rooms.roles", "rooms%2eroles");
            Met::get(gate().await, &target, &login("carol")).await.told(400, INVALID_TARGET)
        }
        Reason::MethodNotDeclared => {
            let body = r#"{"success":false,"error":"Method not allowed [error-method-not-allowed]","errorType":"error-method-not-allowed"}"#;
            let met = Met::by(gate().await, "DELETE", &room, &login("carol"), b"").await;
            met.told(405, body).beside("allow", "GET, HEAD")
        }
        Reason::RouteUnlisted => {
            Met::by(gate().await, "POST", "/api/v1/mcp", &login("carol"), b"{}").await.told(403, NO_PERMISSION)
        }
        Reason::BodyTooLarge => {
            let body =
                r#"{"success":false,"error":"Request body too large [error-body-too-large]","errorType":"error-body-too-large"}"#;
            let gate = GateBuilder::rocketchat().await.with(|config| config.limits.inspected_body = 1).start();
            Met::by(gate, "GET", &room, &login("carol"), b"{}").await.told(413, body).of(rooms)
        }
        Reason::CredentialMissing => Met::get(gate().await, &room, &login("carol")[..1]).await.told(401, LOG_IN).of(rooms),
        Reason::CredentialAmbiguous => Met::get(gate().await, &room, &with("X-Auth-Token", "eve-token")).await.of(rooms),
        Reason::CredentialRefused => {
            let headers = [("X-User-Id", BOB.to_owned()), ("X-Auth-Token", "carol-token".to_owned())];
            Met::get(gate().await, &room, &headers).await.told(401, LOG_IN).of(rooms)
        }
        Reason::ParamMissing => fault("/api/v1/rooms.roles").await.told(400, typed(&missing("rid"))),
        Reason::ParamInvalid => {
            let met = Met::get(gate().await, "/api/v1/audit/rooms.members?roomId=a&count=101", &login("audrey")).await;
            met.told(400, legacy(AT_MOST_100)).of("audit.rooms.members")
        }
        Reason::ParamUnknown => fault("/api/v1/rooms.roles?rid=a&x=1").await.told(400, typed(UNKNOWN)),
        Reason::ParamRepeated => fault("/api/v1/rooms.roles?rid=a&rid=b").await.told(400, typed(STRING)),
        Reason::FactsLimited => {
            let gate = gate().await;
            let body = r#"{"success":false,"error":"Error, too many requests."}"#;
            gate.sample.behave("/api/v1/subscriptions.getOne", Behaviour::json(429, body));
            Met::get(gate, &room, &login("carol")).await.told(503, UNAVAILABLE).of(rooms).beside("retry-after", "5")
        }
        Reason::FactsUnavailable => {
            let gate = gate().await;
            gate.sample.behave("/api/v1/me", Behaviour::json(500, "{}"));
            Met::get(gate, &room, &login("carol")).await.told(503, UNAVAILABLE).of(rooms).beside("retry-after", "5")
        }
        Reason::PolicyDenied => Met::get(gate().await, &room, &login("eve")).await.told(403, NO_PERMISSION).of(rooms),
        Reason::PolicyForbidden => {
            let gate = gate_with_further_policies().await;
            Met::get(gate, &room, &login("carol")).await.told(403, NO_PERMISSION).of(rooms)
        }
        Reason::PolicyError => {
            let target = "/api/v1/roles.getUsersInRole?role=admin&count=50";
            let met = Met::get(gate_with_further_policies().await, target, &login("alice")).await;
            met.told(403, NO_PERMISSION).of("roles.getUsersInRole")
        }
        Reason::AuditUnavailable => {
            let builder = GateBuilder::rocketchat().await;
            let folder = builder.folder.path().join("audit");
            let path = folder.join("audit.jsonl");
            let gate = builder.with(|config| config.audit.sink = rolegate::audit::Sink::File(path)).start();
            std::fs::remove_dir_all(&folder).unwrap();
            std::fs::write(&folder, "no folder").unwrap();
            assert_eq!(gate.admin_get("/readyz").await.status, 503, "it notices at once");
            Met::get(gate, &room, &login("carol")).await.told(503, UNAVAILABLE).of(rooms).beside("retry-after", "5")
        }
        Reason::Overloaded => {
            let gate = GateBuilder::rocketchat().await.with(|config| config.limits.lookups = 1).start();
            let hold = gate.sample.hold("/api/v1/me");
            let mut other = gate.connect().await;
            let waiting =
                tokio::spawn(async move { other.get(&format!("/api/v1/users.info?userId={BOB}"), &login("bob")).await });
            hold.until_waiting(1).await;
            let met = Met::get(gate, &room, &login("carol")).await;
            hold.release();
            assert_eq!(waiting.await.unwrap().status, 200, "who came first is served");
            met.told(503, UNAVAILABLE).of(rooms).beside("retry-after", "5")
        }
        Reason::Internal => return None,
    })
}

/// Fails unless `met` is what the contract says of a refusal for `reason`.
async fn check(reason: Reason, mut met: Met) {
    let id = met.answer.header("x-request-id").unwrap_or_default().to_owned();
    println!("{reason}: {} {}", met.answer.status, met.answer.text());
    assert_refusal(&met.answer, met.status, &met.body, &id);
    assert_eq!(met.answer.header("pragma"), Some("no-cache"), "{reason}: the provider's own field");
    for name in ["allow", "retry-after", "www-authenticate"] {
        let expected = met.beside.as_ref().filter(|(beside, _)| *beside == name).map(|(_, value)| value.as_str());
        assert_eq!(met.answer.header(name), expected, "{reason}: {name}");
    }

    let arrived = |path: &str| met.gate.sample.count(path);
    for path in ["rooms.roles", "audit/rooms.members", "roles.getUsersInRole", "mcp"] {
        assert_eq!(arrived(&format!("/api/v1/{path}")), 0, "{reason}: {path} arrived");
    }
    assert!(met.others.iter().all(|other| other.seen().is_empty()), "{reason}: the other upstream was asked");

    let door = if met.action == "none" { "none" } else { "rest" };
    let metric = format!(
        r#"rolegate_decisions_total{{action="{}",decision="deny",door="{door}",mode="enforce",provider="rocketchat",reason="{reason}"}}"#,
        met.action
    );
    assert!((met.gate.metric(&metric).await - 1.0).abs() < f64::EPSILON, "{reason}: {metric}");

    if reason != Reason::AuditUnavailable {
        let record = met.gate.records().into_iter().find(|record| record["id"] == id.as_str() && record["kind"] == "decision");
        assert_record(&record.unwrap_or_else(|| panic!("{reason} was not recorded")), reason, met.action);
        let tokens = ["carol-token", "eve-token", "bob-token", "audrey-token", "alice-token"];
        assert_no_secret_recorded(&met.gate, &tokens);
    }

    if reason == Reason::FramingInvalid {
        assert!(met.connection.is_closed().await, "nothing behind an ambiguous head can be trusted");
        return;
    }
    let next = met.connection.get("/still-here", &[]).await;
    assert_eq!((next.status, met.gate.sample.count("/still-here")), (200, 1), "{reason}: the connection lives on");
}

#[track_caller]
fn assert_record(record: &Value, reason: Reason, action: &str) {
    let text = |name: &str| record[name].as_str().unwrap_or_default();
    assert_eq!((text("decision"), text("reason")), ("deny", reason.as_str()), "{record}");
    assert_eq!(record["enforced"], true, "{record}");
    assert_eq!(record["action"]["name"].as_str().unwrap_or("none"), action, "{record}");
    assert_eq!(record["context"]["client"], "127.0.0.1", "{record}");
    assert!(!text("detail").is_empty(), "{record}");
    assert!(text("target").starts_with("/api/v1/") || reason == Reason::Internal, "{record}");
    let policies = match reason {
        Reason::PolicyForbidden => vec!["the-boardroom-is-closed"],
        _ => vec![],
    };
    assert_eq!(record["policies"], Value::from(policies), "{record}");
    let told = match reason {
        Reason::PolicyForbidden => "closed until the audit is over",
        Reason::PolicyError => "no-large-pages",
        _ => "",
    };
    assert!(text("detail").contains(told), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_of_the_closed_list_is_told_recorded_counted_and_kept_from_the_upstream() {
    let mut unreachable = Vec::new();
    for reason in Reason::ALL {
        match provoke(*reason).await {
            Some(met) => check(*reason, met).await,
            None => unreachable.push(*reason),
        }
    }
    assert_eq!(unreachable, [Reason::Internal], "no request leads there; see below");
}

/// No request makes the walk panic, so this begins behind the place that catches a panic.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_rolegate_itself_is_a_500_with_a_record() {
    let gate = Gate::rocketchat().await;
    let shared = gate.running.as_ref().unwrap().gate().clone();
    let raw = RawRequest {
        method: "GET",
        target: b"/api/v1/rooms.roles?rid=r1&auth=carol-token",
        host: Some("chat.example.org"),
        headers: vec![("x-auth-token", b"carol-token")],
        body: Body::Absent,
        content: None,
        client: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        correlation: None,
    };
    let site = shared.first_site().unwrap();
    let (reason, now) = (Reason::Internal, Moment::now());
    let admission = shared.pipeline.refuse_early(&raw, site, reason, "the walk panicked", now, &mut Walked::default());
    let Admission::Refused(refused) = admission else { panic!("{admission:?}") };
    assert_eq!((refused.reason, refused.refusal.status), (Reason::Internal, 500));
    assert_eq!(
        refused.refusal.body,
        r#"{"success":false,"error":"Internal server error [error-internal]","errorType":"error-internal"}"#
    );
    let record = gate.last_decision();
    assert_eq!(record["id"], refused.id);
    assert_record(&record, Reason::Internal, "none");
    assert_no_secret_recorded(&gate, &["carol-token"]);
}
