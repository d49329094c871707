//! Every refusal, byte for byte, and one for each reason.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a story ends where it is not as told")]

mod audit_members;
mod cases;
mod closed;
mod docusign;
mod docusign_users;
mod matrix;
mod methods;
mod observe;
mod reasons;
mod room_roles;
mod told;
mod user_info;
mod users_in_role;

use rolegate::model::Reason;
use serde_json::Value;

use crate::support::{Answer, Gate};

/// What Rocket.Chat says to callers without a login.
const LOG_IN: &str = r#"{"status":"error","message":"You must be logged in to do this."}"#;
/// What Rocket.Chat says to callers without a permission.
const NO_PERMISSION: &str =
    r#"{"success":false,"error":"User does not have the permissions required for this action [error-unauthorized]"}"#;
/// What rolegate says in Rocket.Chat's manner to a target with several readings.
const INVALID_TARGET: &str =
    r#"{"success":false,"error":"Invalid request target [error-invalid-target]","errorType":"error-invalid-target"}"#;

/// Fails unless `answer` has `status` and `body` and the fields that every refusal has, with the decision id `id`.
#[track_caller]
fn assert_refusal(answer: &Answer, status: u16, body: &str, id: &str) {
    assert_eq!((answer.status, answer.text().as_str()), (status, body));
    assert_refusal_headers(answer, body.len(), id);
}

/// Fails unless `answer` has the fields that every refusal with `length` bytes of body has.
#[track_caller]
fn assert_refusal_headers(answer: &Answer, length: usize, id: &str) {
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("content-length"), Some(length.to_string().as_str()));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-request-id"), Some(id));
    assert_eq!(id.len(), 26, "a decision id is a ULID: {id}");
    assert_eq!(answer.header("transfer-encoding"), None);
    let mut names: Vec<&String> = answer.headers.iter().map(|(name, _)| name).collect();
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "a field was sent twice: {:?}", answer.headers);
}

/// Fails unless the newest decision is a denial for `reason`; gives back its record.
#[track_caller]
fn assert_denied(gate: &Gate, reason: Reason) -> Value {
    let record = gate.last_decision();
    assert_eq!((&record["decision"], &record["reason"]), (&"deny".into(), &reason.as_str().into()), "{record}");
    assert_eq!((&record["enforced"], &record["policies"].is_array()), (&true.into(), &true), "{record}");
    record
}

/// Fails when one of `secrets` stands anywhere in the audit file.
#[track_caller]
fn assert_no_secret_recorded(gate: &Gate, secrets: &[&str]) {
    let text = std::fs::read_to_string(gate.audit()).unwrap();
    for secret in secrets {
        assert!(!text.contains(secret), "`{secret}` was recorded");
    }
}
