//! An upstream that is only observed: every verdict is recorded, and the request goes on as it came.

use rolegate::demo::world::workspace::{BOARDROOM, EVE};
use rolegate::model::{Mode, Reason};
use serde_json::json;

use super::{assert_denied, assert_refusal};
use crate::support::gate::login;
use crate::support::{Gate, GateBuilder};

const INVALID: &str =
    r#"{"success":false,"error":"Invalid request [error-invalid-request]","errorType":"error-invalid-request"}"#;

async fn observed() -> Gate {
    GateBuilder::rocketchat().await.upstream(|upstream| upstream.mode = Mode::Observe).start()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_refused_goes_on_as_received_and_the_record_says_so() {
    let gate = observed().await;
    let mut connection = gate.connect().await;
    let cases = [
        ("GET", format!("/api/v1/rooms.roles?rid={BOARDROOM}"), Reason::PolicyDenied),
        ("GET", "/api/v1/rooms.roles?rid%5B%5D=GENERAL".to_owned(), Reason::ParamInvalid),
        ("GET", "/api/v1/rooms.roles".to_owned(), Reason::ParamMissing),
        ("GET", "/api/v1/users.info?x=%zz&userId=a".to_owned(), Reason::ParamInvalid),
        ("GET", "/api/v1/users.info?x=1&userId=a".to_owned(), Reason::ParamUnknown),
        ("GET", "/api/v1/users.info?userId=a&username=b".to_owned(), Reason::ParamRepeated),
        ("GET", format!("/api/v1/rooms%2eroles?rid={BOARDROOM}"), Reason::TargetAmbiguous),
        ("GET", format!("/api/v1/./rooms.roles?rid={BOARDROOM}"), Reason::TargetAmbiguous),
        ("DELETE", "/api/v1/rooms.roles?rid=a".to_owned(), Reason::MethodNotDeclared),
        ("POST", "/api/v1/mcp".to_owned(), Reason::RouteUnlisted),
    ];
    for (method, target, reason) in cases {
        gate.sample.forget();
        let mut headers = login("eve");
        headers.extend([("X-Own", "kept".to_owned()), ("X-Forwarded-For", "10.9.8.7".to_owned())]);
        connection.request(method, &target, &headers, b"").await;
        let seen = gate.sample.seen().into_iter().find(|seen| seen.header("x-own").is_some());
        let seen = seen.unwrap_or_else(|| panic!("{target} did not arrive"));
        assert_eq!((seen.method.as_str(), &seen.target), (method, &target));
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"), "the address is known all the same");
        assert_eq!(seen.header("x-auth-token"), Some("eve-token"));
        let record = gate.last_decision();
        assert_eq!(
            (&record["decision"], &record["reason"], &record["enforced"]),
            (&json!("deny"), &json!(reason), &json!(false)),
            "{record}"
        );
    }
    let metric = r#"rolegate_decisions_total{action="rooms.roles",decision="deny",door="rest",mode="observe",provider="rocketchat",reason="policy_denied"}"#;
    assert!((gate.metric(metric).await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_refused_credential_is_left_to_the_upstream() {
    let gate = observed().await;
    let target = format!("/api/v1/rooms.roles?rid={BOARDROOM}");
    let wrong = vec![("X-User-Id", EVE.to_owned()), ("X-Auth-Token", "wrong-token".to_owned())];
    let mut both = login("eve");
    both.push(("X-Auth-Token", "bob-token".to_owned()));
    for (headers, reason) in
        [(vec![], Reason::CredentialMissing), (wrong, Reason::CredentialRefused), (both, Reason::CredentialAmbiguous)]
    {
        let before = gate.sample.count("/api/v1/rooms.roles");
        let answer = gate.get(&target, &headers).await;
        assert_eq!(gate.sample.count("/api/v1/rooms.roles"), before + 1, "{reason}");
        let record = gate.last_decision();
        assert_eq!((&record["reason"], &record["enforced"]), (&json!(reason), &json!(false)), "{record}");
        assert_eq!(answer.header("x-request-id"), record["id"].as_str());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_permitted_goes_on_as_received_too() {
    let gate = observed().await;
    let mut headers = login("carol");
    headers.push(("X-Own", "kept".to_owned()));
    let target = format!("/api/v1/rooms.roles?rid=%{:x}{}", BOARDROOM.as_bytes()[0], &BOARDROOM[1..]);
    assert_eq!(gate.get(&target, &headers).await.status, 200);
    let record = gate.last_decision();
    assert_eq!((&record["decision"], &record["enforced"], &record["reason"]), (&json!("permit"), &json!(false), &json!(null)));
    let seen = gate.sample.seen().into_iter().find(|seen| seen.path == "/api/v1/rooms.roles").unwrap();
    assert_eq!((seen.target.as_str(), seen.header("x-own")), (target.as_str(), Some("kept")));
}

#[tokio::test(flavor = "multi_thread")]
async fn framing_host_and_header_refusals_stay_enforced() {
    let host = Some("chat.example.org".to_owned());
    let builder = GateBuilder::rocketchat().await;
    let gate = builder.upstream(|upstream| (upstream.mode, upstream.host) = (Mode::Observe, host)).start();
    let target = "/api/v1/rooms.roles?rid=GENERAL";
    let unknown = r#"{"success":false,"error":"Unknown host [error-unknown-host]","errorType":"error-unknown-host"}"#;
    let right = ("Host", "chat.example.org".to_owned());
    for (further, status, body, reason) in [
        (vec![right.clone(), ("X-Large", "x".repeat(33 << 10))], 400, INVALID, Reason::FramingInvalid),
        (vec![("Host", "evil.example.org".into())], 421, unknown, Reason::HostUnknown),
        (vec![right.clone(), ("X_User_Id", EVE.into())], 400, INVALID, Reason::HeaderAmbiguous),
        (vec![right, ("X-Original-URL", "/api/v1/users.info".into())], 400, INVALID, Reason::HeaderAmbiguous),
    ] {
        let headers = [login("eve"), further].concat();
        let answer = gate.get(target, &headers).await;
        let record = assert_denied(&gate, reason);
        assert_refusal(&answer, status, body, record["id"].as_str().unwrap());
    }
    assert!(gate.sample.seen().is_empty());
}
