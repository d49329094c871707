//! What can be recorded, and its bytes between the two ends that the chain adds.

use std::io::{self, Write};

use jiff::Timestamp;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::metrics::RecordKind;

/// The names that the log itself writes, in the order `v`, `seq`, `time`, `id`, `kind`, …, `prev`.
const RESERVED: [&str; 6] = ["v", "seq", "time", "id", "kind", "prev"];

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

    /// Everything else: something that serialises to a JSON object, in the order of its keys.
    ///
    /// None of the keys may be `v`, `seq`, `time`, `id`, `kind` or `prev`: a name that stands twice in a line is what
    /// [`verify`](super::verify()) calls broken. With those, the object may take 1 MiB.
    fn fields(&self) -> impl Serialize;
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

    fn fields(&self) -> impl Serialize {
        Unreserved(&self.fields)
    }
}

/// Serialises like its map unless one of the names is taken.
struct Unreserved<'a>(&'a Map<String, Value>);

impl Serialize for Unreserved<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.keys().find(|name| RESERVED.contains(&name.as_str())) {
            Some(name) => Err(S::Error::custom(format_args!("`{name}` is a name that every record has"))),
            None => self.0.serialize(serializer),
        }
    }
}

/// A line's middle: `,"time":"…","id":"…","kind":"…"` and the fields, without braces.
///
/// # Errors
/// The fields do not serialise, or not to one line holding an object.
pub(super) fn body(entry: &impl Entry) -> io::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(1024);
    write!(body, r#","time":"{:.6}""#, entry.time())?;
    if let Some(id) = entry.id() {
        body.extend_from_slice(br#","id":"#);
        serde_json::to_writer(&mut body, id)?;
    }
    write!(body, r#","kind":"{}""#, entry.kind().as_str())?;
    let start = body.len();
    serde_json::to_writer(&mut body, &entry.fields())?;
    let is_object = body.get(start) == Some(&b'{') && body.pop() == Some(b'}');
    match body.get_mut(start) {
        Some(brace) if is_object => *brace = b',',
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the record's fields are not an object")),
    }
    if body.len() == start + 1 {
        body.pop();
    }
    if body.contains(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the record does not fit in one line"));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Fields<S>(S);

    impl<S: Serialize> Entry for Fields<S> {
        fn kind(&self) -> RecordKind {
            RecordKind::Outcome
        }
        fn time(&self) -> Timestamp {
            "2026-01-02T03:04:05.6789017Z".parse().unwrap()
        }
        fn id(&self) -> Option<&str> {
            Some("01\"J")
        }
        fn fields(&self) -> impl Serialize {
            &self.0
        }
    }

    fn text(entry: &impl Entry) -> io::Result<String> {
        body(entry).map(|body| String::from_utf8(body).unwrap())
    }

    #[test]
    fn the_kind_stands_behind_the_id_and_time_has_six_digits() {
        let expected = r#","time":"2026-01-02T03:04:05.678901Z","id":"01\"J","kind":"outcome","status":200,"line":"a\nb""#;
        assert_eq!(text(&Fields(json!({"status": 200, "line": "a\nb"}))).unwrap(), expected);
    }

    #[test]
    fn an_entry_without_fields_ends_with_its_kind() {
        let event = Event { kind: RecordKind::Stop, time: Timestamp::UNIX_EPOCH, fields: Map::new() };
        assert_eq!(text(&event).unwrap(), r#","time":"1970-01-01T00:00:00.000000Z","kind":"stop""#);
    }

    #[test]
    fn fields_that_are_no_object_are_refused() {
        for fields in [json!([1]), json!("{}"), json!(null), json!(7)] {
            assert!(text(&Fields(fields)).is_err());
        }
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
