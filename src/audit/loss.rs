//! What the log owes its reader: that it goes on in another file, that old files made room, that records could not be written,
//! that files were taken away.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Event, OnFailure};
use crate::metrics::RecordKind;

/// What no record tells of yet.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// New files that were not begun for the size of the old ones.
    begun: VecDeque<Begun>,
    /// The records of old files that were removed because there was no room for a record.
    expired: VecDeque<Event>,
    /// Records that were refused or given up.
    unwritten: Option<Loss>,
    /// Records that are not where they were written.
    removed: Option<Loss>,
}

/// Why a new file was begun before the old one had its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The old one was moved away.
    Moved,
    /// An administrator asked for it.
    Asked,
}

/// A new file that was begun.
#[derive(Debug)]
struct Begun {
    cause: Cause,
    /// The name of the file before it, where that is known.
    before: Option<String>,
    /// How many records that one holds.
    records: u64,
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
        self.begun.is_empty() && self.expired.is_empty() && self.unwritten.is_none() && self.removed.is_none()
    }

    /// A new file was begun; the one `before` it holds `records` records.
    pub(super) fn begun(&mut self, cause: Cause, before: Option<&Path>, records: u64) {
        let before = before.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        self.begun.push_back(Begun { cause, before, records });
    }

    /// An old file was removed before this record of it was made.
    pub(super) fn expired(&mut self, record: Event) {
        self.expired.push_back(record);
    }

    /// A record of the same file was made; whether this one was owed.
    pub(super) fn is_told(&mut self, record: &Event) -> bool {
        let before = self.expired.len();
        self.expired.retain(|owed| owed.fields.get("file") != record.fields.get("file"));
        self.expired.len() < before
    }

    /// So many records, of things that happened from `since` on, could not be written.
    pub(super) fn unwritten(&mut self, records: u64, since: Timestamp, cause: &io::Error) {
        Loss::add(&mut self.unwritten, records, since, || cause.to_string());
    }

    /// A file with `records` records is gone since some time after `since`.
    pub(super) fn removed(&mut self, records: u64, since: Timestamp, cause: &str) {
        Loss::add(&mut self.removed, records, since, || cause.to_owned());
    }

    /// What to record next; [`Losses::settled`] strikes it off.
    pub(super) fn next(&self, now: Timestamp, on_failure: OnFailure) -> Option<Event> {
        if let Some(Begun { cause, before, records }) = self.begun.front() {
            let cause = match cause {
                Cause::Moved => "moved",
                Cause::Asked => "asked",
            };
            let fields = [("cause", json!(cause)), ("before", json!(before)), ("records", json!(records))];
            let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            return Some(Event { kind: RecordKind::Rotated, time: now, fields });
        }
        if let Some(record) = self.expired.front() {
            return Some(record.clone());
        }
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

    /// The record that [`Losses::next`] gave is made. Others may be owed since, before it in their order.
    pub(super) fn settled(&mut self, made: &Event) {
        match made.kind {
            RecordKind::Rotated => drop(self.begun.pop_front()),
            RecordKind::Expired => drop(self.expired.pop_front()),
            _ if made.fields.get("removed") == Some(&Value::Bool(true)) => self.removed = None,
            _ => self.unwritten = None,
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
