//! A record's JSON, written straight into its line: a decision leaves two records, so that this is much of what it costs.

use std::io;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Map, Value};

/// A JSON object on its way into a line: every name with what stands behind it, in the order of the calls.
///
/// Names are not compared with one another: whoever writes a name that it did not choose itself sees to it that it is no
/// other one's.
#[derive(Debug)]
pub struct Object<'a> {
    line: &'a mut Vec<u8>,
    empty: bool,
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

    /// A text.
    pub fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        text(self.line, value);
    }

    /// A text, or null.
    pub fn optional(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.text(name, value),
            None => self.null(name),
        }
    }

    /// A list of texts.
    pub fn texts<'t>(&mut self, name: &str, values: impl IntoIterator<Item = &'t str>) {
        self.name(name);
        self.line.push(b'[');
        let mut first = true;
        for value in values {
            if !std::mem::take(&mut first) {
                self.line.push(b',');
            }
            text(self.line, value);
        }
        self.line.push(b']');
    }

    /// A whole number.
    pub fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        digits(self.line, value);
    }

    /// A whole number of either sign.
    pub fn integer(&mut self, name: &str, value: i64) {
        self.name(name);
        // Writing to memory cannot fail, and every number serialises.
        drop(serde_json::to_writer(&mut *self.line, &value));
    }

    /// An IP address.
    pub fn address(&mut self, name: &str, value: IpAddr) {
        self.name(name);
        // Writing to memory cannot fail, and every address serialises.
        drop(serde_json::to_writer(&mut *self.line, &value));
    }

    /// True or false.
    pub fn truth(&mut self, name: &str, value: bool) {
        self.name(name);
        self.line.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Null.
    pub fn null(&mut self, name: &str) {
        self.name(name);
        self.line.extend_from_slice(b"null");
    }

    /// An object within this one.
    pub fn object(&mut self, name: &str, fill: impl FnOnce(&mut Object<'_>)) {
        self.name(name);
        self.line.push(b'{');
        fill(&mut Object { line: self.line, empty: true });
        self.line.push(b'}');
    }

    /// Anything that has a form of its own.
    ///
    /// # Errors
    /// It does not serialise; the line is then of no use.
    pub fn value(&mut self, name: &str, value: &impl Serialize) -> io::Result<()> {
        self.name(name);
        Ok(serde_json::to_writer(&mut *self.line, value)?)
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.empty) {
            self.line.push(b',');
        }
        text(self.line, name);
        self.line.push(b':');
    }
}

/// A text in quotation marks. Nearly none holds a byte that must be escaped, and sixteen are looked at as quickly as one.
pub(super) fn text(line: &mut Vec<u8>, value: &str) {
    let escaped = |byte: u8| (byte < b' ') | (byte == b'"') | (byte == b'\\');
    if value.bytes().fold(false, |any, byte| any | escaped(byte)) {
        // Writing to memory cannot fail, and every text serialises.
        drop(serde_json::to_writer(line, value));
    } else {
        line.reserve(value.len() + 2);
        line.push(b'"');
        line.extend_from_slice(value.as_bytes());
        line.push(b'"');
    }
}

/// A whole number in decimal.
pub(super) fn digits(line: &mut Vec<u8>, value: u64) {
    // Writing to memory cannot fail, and every number serialises.
    drop(serde_json::to_writer(line, &value));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_in_its_order() {
        let written = Object::read(|object| {
            object.text("b", "x\"\\\n");
            object.optional("a", None);
            object.optional("c", Some(""));
            object.texts("d", ["1", "2"]);
            object.texts("e", []);
            object.number("f", u64::MAX);
            object.truth("g", true);
            object.object("h", |inner| {
                inner.truth("i", false);
                inner.object("j", |_| ());
            });
            object.value("k", &json!([1, null]))
        });
        let expected = json!({
            "b": "x\"\\\n", "a": null, "c": "", "d": ["1", "2"], "e": [], "f": u64::MAX, "g": true,
            "h": {"i": false, "j": {}}, "k": [1, null],
        });
        assert_eq!(serde_json::to_string(&written.unwrap()).unwrap(), expected.to_string());
    }

    proptest! {
        #[test]
        fn a_text_and_a_number_are_written_as_serde_json_writes_them(value in ".*", name in any::<String>(), number: u64) {
            let mut line = vec![b'{'];
            let mut object = Object { line: &mut line, empty: true };
            object.text(&name, &value);
            object.number("n", number);
            let quoted = |value: &str| serde_json::to_string(value).unwrap();
            prop_assert_eq!(String::from_utf8(line).unwrap(), format!("{{{}:{},\"n\":{number}", quoted(&name), quoted(&value)));
        }
    }
}
