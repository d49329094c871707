//! The refusals of DocuSign Rooms: another form of body, with the decision id in it, and a challenge on a 401.

use rolegate::config::Config;
use rolegate::demo::world::account::ACCOUNT;
use rolegate::demo::{Behaviour, Sample};
use rolegate::model::Reason;
use rolegate::rules::Then;

use super::{assert_denied, assert_no_secret_recorded, assert_refusal};
use crate::support::GateBuilder;
use crate::support::gate::bearer;

/// One refusal.
struct Row {
    reason: Reason,
    status: u16,
    code: &'static str,
    message: &'static str,
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: &'static [u8],
    config: fn(&mut Config),
    prepare: fn(&Sample),
}

fn room() -> String {
    format!("/restapi/v2/accounts/{ACCOUNT}/rooms/1234/users")
}

fn row(reason: Reason, status: u16, code: &'static str, message: &'static str) -> Row {
    let (method, target, headers, body) = ("GET", room(), bearer("bob"), &b""[..]);
    Row { reason, status, code, message, method, target, headers, body, config: |_| {}, prepare: |_| {} }
}

fn rows() -> Vec<Row> {
    let token = |reason, headers| Row {
        headers,
        ..row(reason, 401, "AUTHORIZATION_INVALID_TOKEN", "The access token provided is expired, revoked or malformed.")
    };
    let invalid = |reason, headers| Row { headers, ..row(reason, 400, "ROLEGATE_INVALID_REQUEST", "The request is not valid.") };
    let denied = |reason| row(reason, 403, "ROLEGATE_ACCESS_DENIED", "You do not have access to this resource.");
    let unavailable =
        |reason, prepare| Row { prepare, ..row(reason, 503, "ROLEGATE_UNAVAILABLE", "The service is unavailable.") };
    let authorization = |value: &str| vec![("Authorization", value.to_owned())];
    vec![
        token(Reason::CredentialMissing, vec![]),
        token(Reason::CredentialMissing, authorization("Basic Ym9iOnNlY3JldA==")),
        token(Reason::CredentialMissing, authorization("Bearer ")),
        token(Reason::CredentialMissing, authorization("bob-ds-token")),
        token(Reason::CredentialRefused, authorization("Bearer no-such-token")),
        invalid(Reason::CredentialAmbiguous, [bearer("bob"), bearer("eve")].concat()),
        invalid(Reason::CredentialAmbiguous, authorization("Bearer bob-ds-token, Bearer eve-ds-token")),
        invalid(Reason::HeaderAmbiguous, [bearer("bob"), vec![("X-Original-URL", "/home".to_owned())]].concat()),
        Row { method: "TRACE", ..invalid(Reason::FramingInvalid, bearer("bob")) },
        Row {
            target: room().replace("/users", "/Users"),
            ..row(Reason::TargetAmbiguous, 400, "ROLEGATE_INVALID_TARGET", "The request target is not valid.")
        },
        Row {
            config: |config| config.upstreams[0].host = Some("rooms.example.org".to_owned()),
            ..row(Reason::HostUnknown, 421, "ROLEGATE_UNKNOWN_HOST", "The host is not served here.")
        },
        Row {
            method: "DELETE",
            ..row(Reason::MethodNotDeclared, 405, "ROLEGATE_METHOD_NOT_ALLOWED", "The method is not allowed.")
        },
        Row {
            body: b"{}",
            config: |config| config.limits.inspected_body = 1,
            ..row(Reason::BodyTooLarge, 413, "ROLEGATE_BODY_TOO_LARGE", "The request body is too large.")
        },
        Row { headers: bearer("eve"), ..denied(Reason::PolicyDenied) },
        Row { headers: bearer("mallory"), ..denied(Reason::PolicyDenied) },
        Row {
            target: "/v2/accounts/a/no_such_thing".to_owned(),
            config: |config| config.upstreams[0].unlisted = Then::Deny,
            ..denied(Reason::RouteUnlisted)
        },
        unavailable(Reason::FactsUnavailable, |sample| sample.behave("/oauth/userinfo", Behaviour::json(502, "{}"))),
        unavailable(Reason::FactsLimited, |sample| sample.behave("/oauth/userinfo", Behaviour::json(429, "{}"))),
        // 400 is "nothing known" to the room's lookup, but not with this code.
        unavailable(Reason::FactsLimited, |sample| sample.with(|world| world.account.exhausted = true)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_of_docusign_names_its_code_and_the_decision() {
    for row in rows() {
        let builder = GateBuilder::docusign().await.with(row.config);
        (row.prepare)(&builder.sample);
        let gate = builder.start();
        let mut connection = gate.connect().await;
        let answer = connection.request(row.method, &row.target, &row.headers, row.body).await;
        println!("{}: {} {}", row.reason, answer.status, answer.text());
        let record = assert_denied(&gate, row.reason);
        let id = record["id"].as_str().unwrap();
        let body = format!(r#"{{"errorCode":"{}","message":"{}","referenceId":"{id}"}}"#, row.code, row.message);
        assert_refusal(&answer, row.status, &body, id);
        assert_eq!(answer.header("www-authenticate"), (row.status == 401).then_some("Bearer"), "{}", row.reason);
        assert_eq!(answer.header("allow"), (row.status == 405).then_some("GET, HEAD, POST"), "{}", row.reason);
        let wait: Option<u64> = answer.header("retry-after").map(|seconds| seconds.parse().unwrap());
        assert_eq!(wait.is_some_and(|seconds| (1..=3600).contains(&seconds)), row.status == 503, "{}: {wait:?}", row.reason);
        let arrived =
            gate.sample.seen().into_iter().filter(|seen| !seen.target.contains("filter=") && seen.path != "/oauth/userinfo");
        assert_eq!(arrived.filter(|seen| seen.target.contains("users")).count(), 0, "{}", row.reason);
        assert_no_secret_recorded(&gate, &["ds-token", "no-such-token", "Ym9iOnNlY3JldA"]);
    }
}
