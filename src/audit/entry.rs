//! What can be recorded, and its bytes between the two ends that the chain adds.

use std::io;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde_json::{Map, Value};

use super::object::Object;
use crate::metrics::RecordKind;

/// The names that the log itself writes, in the order `v`, `seq`, `time`, `id`, `kind`, …, `prev`.
const RESERVED: [&str; 6] = ["v", "seq", "time", "id", "kind", "prev"];

/// How times are written: in UTC with microseconds.
const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

/// Something of which there can be a record.
pub trait Entry {
    /// What kind of record it is.
    fn kind(&self) -> RecordKind;

    /// When it happened; written in UTC with microseconds.
    fn time(&self) -> Timestamp;

    /// The decision's id; none for records of the process itself.
    fn id(&self) -> Option<&str> {
        None
    }

    /// Everything else, in the order of its keys.
    ///
    /// None of the keys may be `v`, `seq`, `time`, `id`, `kind` or `prev`: a name that stands twice in a line is what
    /// [`verify`](super::verify()) calls broken. With those, the object may take 1 MiB.
    ///
    /// # Errors
    /// There can be no such record.
    fn fields(&self, fields: &mut Object<'_>) -> io::Result<()>;
}

/// An entry made on the spot: `start`, `stop`, `reload`, `invalidate`.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What kind of record it is.
    pub kind: RecordKind,
    /// When it happened.
    pub time: Timestamp,
    /// What there is to say; a name that the log itself writes makes the record fail.
    pub fields: Map<String, Value>,
}

impl Entry for Event {
    fn kind(&self) -> RecordKind {
        self.kind
    }

    fn time(&self) -> Timestamp {
        self.time
    }

    fn fields(&self, fields: &mut Object<'_>) -> io::Result<()> {
        for (name, value) in &self.fields {
            if RESERVED.contains(&name.as_str()) {
                return Err(refused(&format!("`{name}` is a name that every record has")));
            }
            fields.entry(name).value(value)?;
        }
        Ok(())
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Puts a line's middle into `body`: `,"time":"…","id":"…","kind":"…"` and the fields, without braces.
///
/// # Errors
/// The entry has no fields that fit in one line.
pub(super) fn body(entry: &impl Entry, body: &mut Vec<u8>) -> io::Result<()> {
    body.clear();
    body.extend_from_slice(br#","time":""#);
    PRINTER.print_timestamp(&entry.time(), &mut *body).map_err(|error| refused(&error.to_string()))?;
    body.push(b'"');
    let mut fields = Object::within(body);
    if let Some(id) = entry.id() {
        fields.field("id").text(id);
    }
    fields.field("kind").text(entry.kind().as_str());
    entry.fields(&mut fields)?;
    if memchr::memchr(b'\n', body).is_some() {
        return Err(refused("the record does not fit in one line"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Outcome;

    impl Entry for Outcome {
        fn kind(&self) -> RecordKind {
            RecordKind::Outcome
        }
        fn time(&self) -> Timestamp {
            "2026-01-02T03:04:05.6789017Z".parse().unwrap()
        }
        fn id(&self) -> Option<&str> {
            Some("01\"J")
        }
        fn fields(&self, fields: &mut Object<'_>) -> io::Result<()> {
            fields.field("status").number(200);
            fields.field("line").text("a\nb");
            Ok(())
        }
    }

    fn text(entry: &impl Entry) -> io::Result<String> {
        let mut text = b"what stood there".to_vec();
        body(entry, &mut text).map(|()| String::from_utf8(text).unwrap())
    }

    #[test]
    fn the_kind_stands_behind_the_id_and_time_has_six_digits() {
        let expected = r#","time":"2026-01-02T03:04:05.678901Z","id":"01\"J","kind":"outcome","status":200,"line":"a\nb""#;
        assert_eq!(text(&Outcome).unwrap(), expected);
    }

    #[test]
    fn an_entry_without_fields_ends_with_its_kind() {
        let event = Event { kind: RecordKind::Stop, time: Timestamp::UNIX_EPOCH, fields: Map::new() };
        assert_eq!(text(&event).unwrap(), r#","time":"1970-01-01T00:00:00.000000Z","kind":"stop""#);
    }

    #[test]
    fn an_event_cannot_claim_a_name_of_the_record_itself() {
        for name in RESERVED {
            let fields = Map::from_iter([(name.to_owned(), json!(1))]);
            let refused = text(&Event { kind: RecordKind::Start, time: Timestamp::UNIX_EPOCH, fields }).unwrap_err();
            assert!(refused.to_string().contains(&format!("`{name}`")), "{refused}");
        }
    }
}
