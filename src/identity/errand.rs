//! One question on a caller's behalf: what goes with it, and what the reply means before anybody reads its content.

use std::net::IpAddr;

use serde_json::Value as Json;

use super::Failure;
use super::ask::{Ask, Question, Reply};
use super::plan::{ResetHeader, ResetUnit};
use super::template::Filled;
use crate::model::Credential;

/// What a limited caller is told when the upstream does not say how long the limit lasts, in seconds.
const RETRY_AFTER: u64 = 5;

/// Asks with one credential.
#[derive(Debug)]
pub(super) struct Errand<'a, A> {
    pub(super) ask: &'a A,
    pub(super) credential: &'a Credential,
    /// The address that the upstream is told.
    pub(super) address: IpAddr,
    pub(super) reset: Option<&'a ResetHeader>,
}

/// A reply that is neither a limit nor a broken exchange.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The body, when it is JSON.
    json: Option<Json>,
}

impl<A: Ask> Errand<'_, A> {
    /// Asks `target` of `base`.
    pub(super) async fn ask(&self, base: Option<&str>, target: &Filled) -> Result<Answer, Failure> {
        let question = Question {
            base: base.map(str::to_owned),
            target: target.to_string(),
            headers: self.credential.headers.clone(),
            client: Some(self.address),
        };
        let reply = self.ask.ask(question).await.map_err(|error| Failure::unavailable(error.to_string()))?;
        let json = serde_json::from_slice::<Json>(&reply.body).ok();
        if reply.status == 429 || json.as_ref().is_some_and(names_a_limit) {
            let now = jiff::Timestamp::now().as_millisecond();
            return Err(Failure::Limited { retry_after: retry_after(&reply, self.reset, now) });
        }
        Ok(Answer { status: reply.status, json })
    }
}

impl Answer {
    /// The document of a successful answer.
    pub(super) fn document(self) -> Result<Json, Failure> {
        if !(200..=299).contains(&self.status) {
            return Err(Failure::unavailable(format!("the upstream answered {}", self.status)));
        }
        self.json.ok_or_else(|| Failure::unavailable("the answer is not JSON"))
    }
}

/// DocuSign reports its limits under several statuses, among them 400.
fn names_a_limit(body: &Json) -> bool {
    body.get("errorCode").and_then(Json::as_str).is_some_and(|code| code.ends_with("_LIMIT_EXCEEDED"))
}

/// Seconds until the reset that `reply` names, at least 1 and at most an hour.
fn retry_after(reply: &Reply, reset: Option<&ResetHeader>, now_milliseconds: i64) -> u64 {
    let stated = reset.and_then(|header| {
        let number: i64 = reply.header(&header.name)?.trim().parse().ok()?;
        let milliseconds = match header.unit {
            ResetUnit::EpochMilliseconds => number.saturating_sub(now_milliseconds),
            ResetUnit::EpochSeconds => number.saturating_mul(1000).saturating_sub(now_milliseconds),
            ResetUnit::Seconds => number.saturating_mul(1000),
        };
        // Rounded up: a second too early is another refusal.
        u64::try_from(milliseconds.saturating_add(999).div_euclid(1000).clamp(1, 3600)).ok()
    });
    stated.unwrap_or(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reset_header_says_how_long_a_limit_lasts() {
        let now = 1_700_000_000_000;
        let told = |value: &str, unit| {
            let reply = Reply { status: 429, headers: vec![("x-reset".into(), value.into())], body: Vec::new() };
            retry_after(&reply, Some(&ResetHeader { name: "x-reset".into(), unit }), now)
        };
        assert_eq!(told("1700000007001", ResetUnit::EpochMilliseconds), 8, "rounded up");
        assert_eq!(told("1700000042", ResetUnit::EpochSeconds), 42);
        assert_eq!(told(" 17 ", ResetUnit::Seconds), 17);
        assert_eq!(told("1600000000", ResetUnit::EpochSeconds), 1, "never in the past");
        assert_eq!(told("9223372036854775807", ResetUnit::EpochSeconds), 3600, "never more than an hour");
        assert_eq!(told("-9223372036854775808", ResetUnit::EpochMilliseconds), 1);
        assert_eq!(told("soon", ResetUnit::Seconds), RETRY_AFTER);
        assert_eq!(retry_after(&Reply::default(), None, now), RETRY_AFTER);
    }
}
