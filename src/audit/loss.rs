//! What the log owes its reader: records that could not be written, and files that were taken away.

use std::io;

use jiff::Timestamp;
use serde_json::{Map, json};

use super::{Event, OnFailure};
use crate::metrics::RecordKind;

/// Losses of which no record tells yet.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Records that were refused or given up.
    unwritten: Option<Loss>,
    /// Records that are not where they were written.
    removed: Option<Loss>,
}

/// Several losses in a row are told as one.
#[derive(Debug)]
struct Loss {
    records: u64,
    since: Timestamp,
    cause: String,
}

impl Losses {
    /// Nothing is owed.
    pub(super) fn is_empty(&self) -> bool {
        self.unwritten.is_none() && self.removed.is_none()
    }

    /// One record, of something that happened at `time`, could not be written.
    pub(super) fn unwritten(&mut self, time: Timestamp, cause: &io::Error) {
        Loss::add(&mut self.unwritten, 1, time, || cause.to_string());
    }

    /// A file with `records` records is gone since some time after `since`.
    pub(super) fn removed(&mut self, records: u64, since: Timestamp, cause: &str) {
        Loss::add(&mut self.removed, records, since, || cause.to_owned());
    }

    /// What to record next, in the order in which [`Losses::settled`] strikes it off.
    pub(super) fn next(&self, now: Timestamp, on_failure: OnFailure) -> Option<Event> {
        let (loss, removed) = match (&self.removed, &self.unwritten) {
            (Some(loss), _) => (loss, true),
            (None, Some(loss)) => (loss, false),
            (None, None) => return None,
        };
        let mut fields = Map::new();
        fields.insert("removed".to_owned(), json!(removed));
        fields.insert("records".to_owned(), json!(loss.records));
        fields.insert("since".to_owned(), json!(format!("{:.6}", loss.since)));
        fields.insert("cause".to_owned(), json!(loss.cause));
        if !removed {
            fields.insert("on_failure".to_owned(), json!(on_failure.as_str()));
        }
        Some(Event { kind: RecordKind::Loss, time: now, fields })
    }

    /// The one told by [`Losses::next`] is recorded.
    pub(super) fn settled(&mut self) {
        if self.removed.take().is_none() {
            self.unwritten = None;
        }
    }
}

impl Loss {
    /// Keeps the first time and the first cause.
    fn add(loss: &mut Option<Self>, records: u64, since: Timestamp, cause: impl FnOnce() -> String) {
        let loss = loss.get_or_insert_with(|| Self { records: 0, since, cause: cause() });
        loss.records = loss.records.saturating_add(records);
    }
}
