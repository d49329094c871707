//! What is judged of a request beside its path: parameters, ids, bodies, and where the client is.

mod addresses;
mod bodies;
mod calls;
mod ids;
mod kept;
mod networks;
mod parameters;

use crate::support::Gate;
use crate::support::http::Answer;

/// The credential of somebody in Matrix.
fn token() -> Vec<(&'static str, String)> {
    vec![("Authorization", "Bearer syt_secret".to_owned())]
}

/// The credential of somebody in Rocket.Chat.
fn somebody() -> Vec<(&'static str, String)> {
    vec![("X-User-Id", "somebodyXPnMktTFb".to_owned()), ("X-Auth-Token", "some-token".to_owned())]
}

/// Fails unless `answer` is a refusal with this status whose record has this reason.
#[track_caller]
fn assert_refused(gate: &Gate, answer: &Answer, status: u16, reason: &str, told: &str) {
    assert_eq!(answer.status, status, "{told}: {}", answer.text());
    assert_eq!(gate.last_decision()["reason"], reason, "{told}");
}
