//! Whether an upstream answers: seen from the traffic, looked at when there is none, told once a minute while it does not.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::metrics::UpstreamError;
use crate::pipeline::Moment;

/// How often a server is looked at that answers.
const CALM: Duration = Duration::from_secs(10);
/// How often one that does not; and how soon after a look a failed request may cause the next.
const SOON: Duration = Duration::from_secs(1);
/// How often the same is told.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// What is known of one server. Requests only leave marks here; one task per server looks, decides and tells.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Whether an answer came since the last look.
    answered: AtomicBool,
    /// How many requests and lookups failed since that was told.
    failed: AtomicU64,
    /// The last failure since the last look.
    trouble: Mutex<Option<UpstreamError>>,
    /// Whether it is this very process: a request sent there would go round until no connection is left.
    itself: AtomicBool,
    /// Wakes the task: a request failed.
    woken: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing before the first look.
    up: Option<bool>,
    /// Why it does not answer.
    why: Option<String>,
    /// Since when it is so.
    since: Option<Moment>,
    /// Whether it takes connections and answers nothing: then only an answer shows that it is well.
    mute: bool,
    /// When a line was last written about it.
    told: Option<Instant>,
    /// Whether it was told that it does not answer, so that its return is news.
    missed: bool,
    /// How the last request failed of those that were not told yet.
    untold: Option<UpstreamError>,
}

/// What the traffic showed since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    answered: bool,
    trouble: Option<UpstreamError>,
    mute: bool,
}

impl Seen {
    /// Whether the traffic shows that it is up, so that nobody need look.
    pub(super) fn is_up(self) -> bool {
        self.answered && !matches!(self.trouble, Some(UpstreamError::Connect | UpstreamError::Resolve))
    }

    /// Whether a connection is not enough to show that it is up: requests were sent and not answered.
    pub(super) fn wants_answer(self) -> bool {
        self.mute || !self.answered && matches!(self.trouble, Some(UpstreamError::Timeout | UpstreamError::Broken))
    }
}

/// A line for the process log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// The first look found it well.
    Up,
    /// It does not answer.
    Silent {
        /// Why.
        why: String,
        /// For how long.
        lasts: Duration,
        /// How many requests and lookups failed since the last line.
        failed: u64,
    },
    /// It answers again.
    Again {
        /// How long it did not.
        lasted: Duration,
        /// How many requests and lookups failed since the last line.
        failed: u64,
    },
    /// It answers, and requests failed all the same.
    Failing {
        /// How the last one failed.
        kind: UpstreamError,
        /// How many requests and lookups failed since the last line.
        failed: u64,
    },
}

impl Health {
    /// An answer came. Nearly free: most answers find the mark that an earlier one left.
    pub(super) fn answered(&self) {
        if !self.answered.load(Ordering::Relaxed) {
            self.answered.store(true, Ordering::Relaxed);
        }
    }

    /// A request or a lookup failed.
    pub(super) fn failed(&self, kind: UpstreamError) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        *self.trouble.lock() = Some(kind);
        self.woken.notify_one();
    }

    /// A look found that it is this very process, or that it is not.
    pub(super) fn note_itself(&self, itself: bool) {
        self.itself.store(itself, Ordering::Relaxed);
    }

    /// Whether nothing may be sent there, because it is this very process.
    pub(super) fn is_itself(&self) -> bool {
        self.itself.load(Ordering::Relaxed)
    }

    /// What the traffic showed since this was last asked.
    pub(super) fn seen(&self) -> Seen {
        Seen {
            answered: self.answered.swap(false, Ordering::Relaxed),
            trouble: self.trouble.lock().take(),
            mute: self.state.lock().mute,
        }
    }

    /// Takes note of what a look found, after the traffic had shown `seen`; gives back what is to be told.
    pub(super) fn note(&self, seen: Seen, found: Result<(), String>, now: Moment) -> Option<Line> {
        let mut state = self.state.lock();
        let rested = state.told.is_none_or(|told| now.at.saturating_duration_since(told) >= TOLD_EVERY);
        let lasts = state.since.map_or(Duration::ZERO, |since| now.at.saturating_duration_since(since.at));
        let before = state.up;
        if before != Some(found.is_ok()) {
            (state.up, state.since) = (Some(found.is_ok()), Some(now));
        }
        state.mute = found.is_err() && seen.wants_answer();
        state.untold = seen.trouble.or(state.untold);
        let line = match (found, before) {
            (Ok(()), None) if state.untold.is_none() => Some(Line::Up),
            (Ok(()), Some(false)) => {
                state.why = None;
                std::mem::take(&mut state.missed).then(|| Line::Again { lasted: lasts, failed: self.take() })
            }
            // Those that failed within a minute of the last line wait for the next.
            (Ok(()), None | Some(true)) => {
                state.untold.take_if(|_| rested).map(|kind| Line::Failing { kind, failed: self.take() })
            }
            (Err(why), before) => {
                state.why = Some(why.clone());
                let lasts = if before == Some(false) { lasts } else { Duration::ZERO };
                state.missed |= rested;
                rested.then(|| Line::Silent { why, lasts, failed: self.take() })
            }
        };
        if matches!(line, Some(Line::Silent { .. } | Line::Failing { .. })) {
            state.told = Some(now.at);
        }
        if line.is_some() {
            state.untold = None;
        }
        line
    }

    fn take(&self) -> u64 {
        self.failed.swap(0, Ordering::Relaxed)
    }

    /// Whether it answers; nothing before the first look.
    pub(super) fn is_up(&self) -> Option<bool> {
        self.state.lock().up
    }

    /// Waits until it is time for the next look.
    pub(super) async fn rest(&self) {
        tokio::time::sleep(SOON).await;
        if self.is_up() == Some(true) {
            // Either is a reason to look.
            let _ = tokio::time::timeout(CALM - SOON, self.woken.notified()).await;
        }
    }

    /// For `/status`: how the server at `url` is.
    pub(super) fn report(&self, url: &str) -> Value {
        let state = self.state.lock();
        let since = state.since.map(|since| since.time);
        json!({
            "url": url,
            "up": state.up,
            "why": state.why,
            "since": since.as_ref().map(Timestamp::to_string),
        })
    }
}

impl Line {
    /// Writes it to the process log.
    pub(super) fn write(&self, upstream: &str, url: &str) {
        match self {
            Self::Up => tracing::info!(upstream, url, "the upstream takes connections"),
            Self::Silent { why, lasts, failed } => {
                tracing::warn!(upstream, url, why, seconds = lasts.as_secs(), failed, "THE UPSTREAM DOES NOT ANSWER");
            }
            Self::Again { lasted, failed } => {
                tracing::info!(upstream, url, seconds = lasted.as_secs(), failed, "the upstream answers again");
            }
            Self::Failing { kind, failed } => {
                tracing::warn!(upstream, url, kind = kind.as_str(), failed, "requests to the upstream failed");
            }
        }
    }
}

/// Counts a lookup as failed unless it is over: one that takes too long is dropped, and nothing else tells of that.
pub(super) struct Underway<'h> {
    health: &'h Health,
    over: bool,
}

impl<'h> Underway<'h> {
    pub(super) fn new(health: &'h Health) -> Self {
        Self { health, over: false }
    }

    /// It ended with an answer, or failed.
    pub(super) fn over(mut self, outcome: Result<(), UpstreamError>) {
        self.over = true;
        match outcome {
            Ok(()) => self.health.answered(),
            Err(kind) => self.health.failed(kind),
        }
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.health.failed(UpstreamError::Timeout);
        }
    }
}

impl fmt::Debug for Underway<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Underway").field("over", &self.over).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server whose looks are made at given seconds.
    struct Story {
        health: Health,
        began: Moment,
    }

    impl Story {
        fn new() -> Self {
            Self { health: Health::default(), began: Moment::now() }
        }

        fn at(&self, second: u64, found: Result<(), &str>) -> Option<Line> {
            let at = self.began.at + Duration::from_secs(second);
            let now = Moment { at, time: self.began.time_at(at) };
            let seen = self.health.seen();
            self.health.note(seen, found.map_err(str::to_owned), now)
        }
    }

    fn silent(lasts: u64, failed: u64) -> Option<Line> {
        Some(Line::Silent { why: "refused".into(), lasts: Duration::from_secs(lasts), failed })
    }

    #[test]
    fn a_server_that_does_not_answer_is_told_once_a_minute_and_once_when_it_does_again() {
        let story = Story::new();
        assert_eq!(story.health.is_up(), None);
        assert_eq!(story.at(0, Ok(())), Some(Line::Up));
        assert_eq!(story.at(10, Ok(())), None);
        for _ in 0..7 {
            story.health.failed(UpstreamError::Connect);
        }
        assert_eq!(story.at(20, Err("refused")), silent(0, 7));
        assert_eq!(story.health.is_up(), Some(false));
        let mut lines = 0;
        for second in 21..200 {
            story.health.failed(UpstreamError::Connect);
            match story.at(second, Err("refused")) {
                None => {}
                line => {
                    lines += 1;
                    assert_eq!(line, silent(60 * lines, 60));
                }
            }
        }
        assert_eq!(lines, 2, "at 80 and at 140");
        assert_eq!(story.health.report("http://c")["why"], "refused");
        assert_eq!(story.at(200, Ok(())), Some(Line::Again { lasted: Duration::from_secs(180), failed: 59 }));
        assert_eq!(story.at(210, Ok(())), None);
        assert_eq!(story.health.report("http://c")["why"], Value::Null);
    }

    #[test]
    fn one_that_comes_and_goes_fills_no_log() {
        let story = Story::new();
        let mut lines = 0;
        for second in 0..600 {
            lines += usize::from(story.at(second, if second % 2 == 0 { Ok(()) } else { Err("refused") }).is_some());
        }
        assert!((10..=22).contains(&lines), "{lines} lines in ten minutes");
    }

    #[test]
    fn requests_that_fail_at_a_server_that_answers_leave_one_line_a_minute() {
        let story = Story::new();
        story.at(0, Ok(()));
        let mut told = Vec::new();
        for second in 1..=130 {
            story.health.answered();
            story.health.failed(UpstreamError::Broken);
            told.extend(story.at(second, Ok(())).map(|line| (second, line)));
        }
        let failing = |failed| Line::Failing { kind: UpstreamError::Broken, failed };
        assert_eq!(told, [(1, failing(1)), (61, failing(60)), (121, failing(60))]);
        // The last of them are told though none follows.
        let rest: Vec<_> = (131..300).filter_map(|second| Some((second, story.at(second, Ok(()))?))).collect();
        assert_eq!(rest, [(181, failing(9))]);
        // A failure before the first look is told, too.
        let early = Story::new();
        early.health.failed(UpstreamError::Broken);
        assert_eq!(early.at(0, Ok(())), Some(failing(1)));
    }

    #[test]
    fn the_traffic_shows_what_need_not_be_looked_at_and_what_a_connection_does_not_show() {
        let health = Health::default();
        let seen = |answered: bool, trouble: Option<UpstreamError>| {
            if answered {
                health.answered();
            }
            trouble.into_iter().for_each(|kind| health.failed(kind));
            let seen = health.seen();
            (seen.is_up(), seen.wants_answer())
        };
        assert_eq!(seen(false, None), (false, false), "nobody asked: a connection shows enough");
        assert_eq!(seen(true, None), (true, false));
        assert_eq!(seen(true, Some(UpstreamError::Connect)), (false, false), "it was there a moment ago");
        assert_eq!(seen(false, Some(UpstreamError::Connect)), (false, false));
        assert_eq!(seen(true, Some(UpstreamError::Timeout)), (true, false), "one answer among slow ones is an answer");
        assert_eq!(seen(false, Some(UpstreamError::Timeout)), (false, true), "it hangs, perhaps");
        assert_eq!(seen(false, Some(UpstreamError::Broken)), (false, true));
        assert_eq!(seen(false, None), (false, false), "each mark is read once");
    }

    #[test]
    fn a_server_that_hangs_is_up_again_only_with_an_answer() {
        let story = Story::new();
        story.at(0, Ok(()));
        story.health.failed(UpstreamError::Timeout);
        assert!(story.at(1, Err("no answer in time")).is_some());
        assert!(story.health.seen().wants_answer(), "though no request failed since");
        story.at(2, Err("no answer in time"));
        assert!(story.health.seen().wants_answer());
        story.at(3, Ok(()));
        assert!(!story.health.seen().wants_answer());
        // One whose port is closed is up again with a connection.
        story.at(4, Err("refused"));
        assert!(!story.health.seen().wants_answer());
    }

    #[test]
    fn a_lookup_that_is_dropped_took_too_long() {
        let health = Health::default();
        drop(Underway::new(&health));
        assert_eq!(health.seen().trouble, Some(UpstreamError::Timeout));
        Underway::new(&health).over(Ok(()));
        assert_eq!(health.seen(), Seen { answered: true, trouble: None, mute: false });
        Underway::new(&health).over(Err(UpstreamError::Connect));
        assert_eq!(health.seen().trouble, Some(UpstreamError::Connect));
    }
}
