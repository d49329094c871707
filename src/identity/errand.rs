//! One question on a caller's behalf: what goes with it, and what the reply means before anybody reads its content.

use std::borrow::Cow;
use std::net::IpAddr;

use serde_json::Value as Json;

use super::ask::{Ask, Question, Reply};
use super::plan::{Answers, Lookup, ResetHeader, ResetUnit};
use super::pointer::Pointer;
use super::routes::Routes;
use super::template::Filled;
use super::{Failure, document, reading};
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
    pub(super) answers: &'a Answers,
    /// Where it is noted which routes the server lacks, and under which name of the upstream that is told.
    pub(super) routes: &'a Routes,
    pub(super) upstream: &'a str,
    /// The host that the upstream itself is asked by, where it is not its own.
    pub(super) host: Option<&'a str>,
}

/// A reply that is neither a limit nor a broken exchange.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The body, or why it is not believed.
    body: Result<Json, String>,
}

impl<A: Ask> Errand<'_, A> {
    /// Asks `target`, which is `lookup` with everything filled in.
    pub(super) async fn ask(&self, lookup: &Lookup, target: &Filled) -> Result<Answer, Failure> {
        let question = Question {
            base: lookup.base.clone(),
            host: self.host.filter(|_| lookup.base.is_none()).map(str::to_owned),
            target: target.to_string(),
            headers: self.credential.headers.clone(),
            client: Some(self.address),
        };
        let reply = self.ask.ask(question).await.map_err(|error| Failure::unavailable(error.to_string()))?;
        let read = document::read(&reply.body);
        if reply.status == 429 || read.as_ref().is_ok_and(names_a_limit) {
            let now = jiff::Timestamp::now().as_millisecond();
            return Err(Failure::Limited { retry_after: retry_after(&reply, self.reset, now) });
        }
        if self.answers.lack_the_route(&reply, read.as_ref().ok()) {
            self.routes.missing(self.upstream, lookup);
            return Err(Failure::unavailable(format!("the server has no route `{lookup}`")));
        }
        self.routes.found(self.upstream, lookup);
        let body = match reply.headers.iter().find(|(name, coding)| name == "content-encoding" && !is_identity(coding)) {
            Some((_, coding)) => Err(format!("it is encoded as {coding:?}, which was not asked for")),
            None => read,
        };
        Ok(Answer { status: reply.status, body: body.and_then(|body| self.answers.believed(body)) })
    }
}

impl Answers {
    /// The body of an answer that does not say of itself that it is a failure.
    fn believed(&self, body: Json) -> Result<Json, String> {
        let at =
            |pointer: &Option<Pointer>| pointer.as_ref().and_then(|pointer| reading::at(pointer, &body).map(Cow::into_owned));
        if at(&self.success).is_some_and(|success| success != true) {
            return Err("it says that it is no success".to_owned());
        }
        if at(&self.error).is_some() {
            return Err("it names an error".to_owned());
        }
        Ok(body)
    }

    /// Whether the server says that it has no such route: in its own form, or, as routers do before they come to an API, with
    /// a page or a text where the API answers JSON or nothing.
    fn lack_the_route(&self, reply: &Reply, body: Option<&Json>) -> bool {
        match body {
            Some(body) if !(200..=299).contains(&reply.status) => self.no_route.as_ref().is_some_and(|(pointer, texts)| {
                let text = reading::at(pointer, body).and_then(|text| reading::text(&text));
                text.is_some_and(|text| texts.contains(&text))
            }),
            Some(_) => false,
            None => matches!(reply.status, 404 | 405 | 501) && !reply.body.trim_ascii().is_empty(),
        }
    }
}

/// Whether a content coding changes nothing.
fn is_identity(coding: &str) -> bool {
    coding.split(',').all(|coding| matches!(coding.trim().to_ascii_lowercase().as_str(), "" | "identity"))
}

impl Answer {
    /// The document of a successful answer.
    pub(super) fn document(self) -> Result<Json, Failure> {
        // Others of this class are a part of an answer, none, or not the server's own.
        if self.status != 200 {
            return Err(Failure::unavailable(format!("the upstream answered {}", self.status)));
        }
        self.body.map_err(|why| Failure::unavailable(format!("the answer is not believed: {why}")))
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
