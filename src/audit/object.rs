//! A record's JSON, written straight into its line: a decision leaves two records, so that this is much of what it costs.

use std::io;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Map, Number, Value};

use crate::model::escape::{escape_onto, is_unseen};

/// A JSON object on its way into a line: every name with what stands behind it, in the order of the calls.
///
/// Names are not compared with one another: whoever writes a name that it did not choose itself sees to it that it is no
/// other one's.
#[derive(Debug)]
pub struct Object<'a> {
    line: &'a mut Vec<u8>,
    empty: bool,
}

/// Where the value behind a name goes.
#[derive(Debug)]
#[must_use = "a name without a value is no JSON"]
pub struct Slot<'a>(&'a mut Vec<u8>);

/// Fields that are the same in many records, written beforehand.
#[derive(Debug, Clone)]
pub struct Written(Box<[u8]>);

impl Written {
    /// What `fill` writes.
    #[must_use]
    pub fn new(fill: impl FnOnce(&mut Object<'_>)) -> Self {
        let mut line = Vec::new();
        fill(&mut Object { line: &mut line, empty: true });
        Self(line.into())
    }
}

impl<'a> Object<'a> {
    /// Goes on with an object that already holds something.
    pub(super) fn within(line: &'a mut Vec<u8>) -> Self {
        Self { line, empty: false }
    }

    /// What `fill` writes, as a value.
    ///
    /// # Errors
    /// `fill` failed.
    pub fn read(fill: impl FnOnce(&mut Object<'_>) -> io::Result<()>) -> io::Result<Map<String, Value>> {
        let mut line = vec![b'{'];
        fill(&mut Object { line: &mut line, empty: true })?;
        line.push(b'}');
        Ok(serde_json::from_slice(&line)?)
    }

    /// The value of `name`, one that stands in the code and holds nothing that must be escaped.
    // A hint is not followed, and a name whose length is known is copied without a call: a record has thirty.
    #[inline(always)]
    pub fn field(&mut self, name: &'static str) -> Slot<'_> {
        debug_assert!(is_plain(name), "`{name}`");
        self.separate();
        for part in [b"\"", name.as_bytes(), b"\":"] {
            self.line.extend_from_slice(part);
        }
        Slot(self.line)
    }

    /// The value of any `name`.
    pub fn entry(&mut self, name: &str) -> Slot<'_> {
        self.separate();
        text(self.line, name);
        self.line.push(b':');
        Slot(self.line)
    }

    /// Fields that were written beforehand.
    pub fn again(&mut self, Written(fields): &Written) {
        if !fields.is_empty() {
            self.separate();
            self.line.extend_from_slice(fields);
        }
    }

    fn separate(&mut self) {
        if !std::mem::take(&mut self.empty) {
            self.line.push(b',');
        }
    }
}

impl Slot<'_> {
    /// A text.
    pub fn text(self, value: &str) {
        text(self.0, value);
    }

    /// A text, or null.
    pub fn optional(self, value: Option<&str>) {
        match value {
            Some(value) => self.text(value),
            None => self.null(),
        }
    }

    /// A list of texts.
    pub fn texts<'t>(self, values: impl IntoIterator<Item = &'t str>) {
        let Self(line) = self;
        line.push(b'[');
        let mut first = true;
        for value in values {
            if !std::mem::take(&mut first) {
                line.push(b',');
            }
            text(line, value);
        }
        line.push(b']');
    }

    /// A whole number.
    pub fn number(self, value: impl Into<Number> + Serialize) {
        digits(self.0, value);
    }

    /// True or false.
    pub fn truth(self, value: bool) {
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Null.
    pub fn null(self) {
        self.0.extend_from_slice(b"null");
    }

    /// An IP address.
    pub fn address(self, value: IpAddr) {
        // Writing to memory cannot fail, and every address serialises.
        drop(serde_json::to_writer(self.0, &value));
    }

    /// An object of its own.
    pub fn object(self, fill: impl FnOnce(&mut Object<'_>)) {
        let Self(line) = self;
        line.push(b'{');
        fill(&mut Object { line, empty: true });
        line.push(b'}');
    }

    /// Anything that has a form of its own.
    ///
    /// # Errors
    /// It does not serialise; the line is then of no use.
    pub fn value(self, value: &impl Serialize) -> io::Result<()> {
        let Self(line) = self;
        let begins = line.len();
        serde_json::to_writer(&mut *line, value)?;
        // Whatever is unseen can only stand in a text there, in which it may be escaped.
        if let Some(escaped) = line.get(begins..).and_then(|written| escaped(str::from_utf8(written).ok()?)) {
            line.truncate(begins);
            line.extend_from_slice(escaped.as_bytes());
        }
        Ok(())
    }
}

/// JSON with every unseen character escaped; nothing when there is none.
fn escaped(json: &str) -> Option<String> {
    if json.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !json.contains(is_unseen) {
        return None;
    }
    let mut written = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_unseen(c) { escape_onto(&mut written, c) } else { written.push(c) }
    }
    Some(written)
}

/// A text in quotation marks.
fn text(line: &mut Vec<u8>, value: &str) {
    if is_plain(value) {
        line.reserve(value.len() + 2);
        line.push(b'"');
        line.extend_from_slice(value.as_bytes());
        line.push(b'"');
    } else {
        // Every text serialises.
        drop(Slot(line).value(&value));
    }
}

/// A whole number in decimal.
pub(super) fn digits(line: &mut Vec<u8>, value: impl Into<Number> + Serialize) {
    // Writing to memory cannot fail, and every number serialises.
    drop(serde_json::to_writer(line, &value));
}

/// Whether `value` is ASCII in which nothing must be escaped (RFC 8259 §7, and DEL), as nearly every text is: eight bytes are
/// looked at in one go.
fn is_plain(value: &str) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    /// Sets the top bit of some byte if one of `word` is below `bound`, which is at most 128.
    const fn below(word: u64, bound: u64) -> u64 {
        word.wrapping_sub(ONES * bound) & !word & TOPS
    }
    let escaped = |bytes: [u8; 8]| {
        let word = u64::from_ne_bytes(bytes);
        // A byte that one more makes 128 or more is DEL or no ASCII; only a byte that is none can carry into the next one.
        let far = (word | word.wrapping_add(ONES)) & TOPS;
        far | below(word, b' ' as u64) | below(word ^ (ONES * b'"' as u64), 1) | below(word ^ (ONES * b'\\' as u64), 1)
    };
    let (words, rest) = value.as_bytes().as_chunks::<8>();
    let mut last = [b' '; 8];
    last.iter_mut().zip(rest).for_each(|(byte, given)| *byte = *given);
    words.iter().fold(escaped(last), |any, word| any | escaped(*word)) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// `c` as the standard writes what a text may not hold.
    fn serde_json_escape(c: char) -> String {
        c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
    }

    #[test]
    fn what_is_written_is_read_in_its_order() {
        let always = Written::new(|object| {
            object.field("d").texts(["1", "2"]);
            object.field("e").texts([]);
        });
        let written = Object::read(|object| {
            object.field("b").text("x\"\\\n");
            object.field("a").optional(None);
            object.field("c").optional(Some(""));
            object.again(&always);
            object.again(&Written::new(|_| ()));
            object.field("f").number(u64::MAX);
            object.field("g").truth(true);
            object.field("h").object(|inner| {
                inner.again(&always);
                inner.entry("\"i").truth(false);
                inner.field("j").object(|_| ());
            });
            object.field("l").address([127, 0, 0, 1].into());
            object.field("k").value(&json!([1, null]))
        });
        let expected = json!({
            "b": "x\"\\\n", "a": null, "c": "", "d": ["1", "2"], "e": [], "f": u64::MAX, "g": true,
            "h": {"d": ["1", "2"], "e": [], "\"i": false, "j": {}}, "l": "127.0.0.1", "k": [1, null],
        });
        assert_eq!(serde_json::to_string(&written.unwrap()).unwrap(), expected.to_string());
    }

    proptest! {
        #[test]
        fn a_text_and_a_number_are_written_as_serde_json_writes_them_but_for_what_is_not_seen(
            value in prop_oneof![
                any::<String>(),
                "[ -~]{0,40}[\u{0}-\u{ff}]?[ !#-\\[\\]-~]{0,20}",
                "[ -~é\u{7f}-\u{a0}\u{200b}-\u{2069}\u{feff}\u{e0020}-\u{e007f}]{0,20}",
            ],
            name in any::<String>(),
            number: i64,
        ) {
            let mut line = vec![b'{'];
            let mut object = Object { line: &mut line, empty: true };
            object.entry(&name).text(&value);
            object.field("n").number(number);
            let quoted = |value: &str| -> String {
                let quoted = serde_json::to_string(value).unwrap();
                quoted.chars().map(|c| if is_unseen(c) { serde_json_escape(c) } else { c.to_string() }).collect()
            };
            let line = String::from_utf8(line).unwrap();
            prop_assert_eq!(&line, &format!("{{{}:{},\"n\":{number}", quoted(&name), quoted(&value)));
            prop_assert!(!line.contains(is_unseen));
            let read: Value = serde_json::from_str(&format!("{line}}}")).unwrap();
            prop_assert!(name == "n" || read[&name] == value.as_str());
        }

        #[test]
        fn a_value_of_any_form_is_read_back_and_holds_nothing_unseen(
            texts in prop::collection::vec("[ -~\u{7f}-\u{a0}\u{2000}-\u{2070}\u{feff}]{0,8}", 0..4),
        ) {
            let value = json!({ "a": texts, "b": { (texts.concat()): null } });
            let mut line = Vec::new();
            Slot(&mut line).value(&value).unwrap();
            let line = String::from_utf8(line).unwrap();
            prop_assert!(!line.contains(is_unseen), "{}", line);
            prop_assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
        }

        #[test]
        fn only_ascii_in_which_nothing_is_escaped_is_plain(value in "[\u{0}-\u{ff}\"\\\\ -~]{0,24}") {
            let escaped = |c: char| !(' '..='~').contains(&c) || c == '"' || c == '\\';
            prop_assert_eq!(is_plain(&value), !value.chars().any(escaped));
        }
    }
}
