//! JSON with one reading: a name that stands twice in an object is an error, at any depth; and one field of an object, whatever
//! stands beside it.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::vocabulary::brief;

/// How deep arrays and objects may be nested.
const DEEPEST: usize = 32;

/// Reads `text` strictly.
///
/// # Errors
/// What is wrong: broken syntax, a repeated name, more nesting than 32.
pub fn read(text: &[u8]) -> Result<Value, String> {
    let Strict(value) = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if depth(&value) > DEEPEST { Err(format!("nested deeper than {DEEPEST}")) } else { Ok(value) }
}

/// The text of the field `name` of the object in `text`, in the bytes of its characters; nothing when there is no such field.
///
/// What stands beside it need only be JSON: it may be nested as deep as it likes, and hold halves of surrogate pairs, repeated
/// names and numbers of any size. The field itself has one reading: a parser that takes the first of two, one that takes the
/// last, and one that compares names before it reads their escapes find the same.
///
/// # Errors
/// What is wrong: broken syntax, no object, a `name` that stands twice or is written with an escape, or
/// something other than a text in it.
pub fn field(text: &[u8], name: &str) -> Result<Option<Vec<u8>>, String> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let found = Field(name).deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(found)
}

/// Looks for the field of this name.
struct Field<'n>(&'n str);

/// A name or a text in bytes, and whether it was written with an escape. As bytes halves of surrogate pairs are no error.
struct Bytes {
    text: Vec<u8>,
    escaped: bool,
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<Vec<u8>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<Vec<u8>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = fields.next_key::<Bytes>()? {
            if name.text != self.0.as_bytes() {
                fields.next_value::<IgnoredAny>()?;
            } else if name.escaped {
                return Err(A::Error::custom(format_args!("`{}` is written with an escape", self.0)));
            } else if found.is_some() {
                return Err(A::Error::custom(format_args!("`{}` stands twice in an object", self.0)));
            } else {
                found = Some(fields.next_value::<Bytes>()?.text);
            }
        }
        Ok(found)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Anything;

        impl<'de> Visitor<'de> for Anything {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            // What holds no escape is borrowed from the text itself.
            fn visit_borrowed_bytes<E>(self, text: &'de [u8]) -> Result<Bytes, E> {
                Ok(Bytes { text: text.to_vec(), escaped: false })
            }

            fn visit_bytes<E>(self, text: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes { text: text.to_vec(), escaped: true })
            }
        }

        deserializer.deserialize_bytes(Anything)
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Anything;

        impl<'de> Visitor<'de> for Anything {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Number(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::Number(value.into()))
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
                Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is out of range"))
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::String(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut array = Vec::new();
                while let Some(Strict(item)) = items.next_element()? {
                    array.push(item);
                }
                Ok(Value::Array(array))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
                let mut object = Map::new();
                while let Some((name, Strict(value))) = fields.next_entry::<String, Strict>()? {
                    if object.contains_key(&name) {
                        return Err(A::Error::custom(format_args!("`{}` stands twice in an object", brief(&name))));
                    }
                    object.insert(name, value);
                }
                Ok(Value::Object(object))
            }
        }

        deserializer.deserialize_any(Anything).map(Strict)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_that_stands_twice_is_refused_at_any_depth() {
        assert!(read(br#"{"a":1,"a":2}"#).unwrap_err().contains("`a` stands twice"));
        assert!(read(br#"[{"b":{"a":1,"a":1}}]"#).is_err());
        assert!(read(br#"{"a":1,"\u0061":2}"#).is_err(), "an escape hides no name");
        assert_eq!(
            read(br#"{"a":[1,-2,1.5,"x",null,true]}"#).unwrap(),
            serde_json::json!({ "a": [1, -2, 1.5, "x", null, true] })
        );
    }

    #[test]
    fn nesting_has_a_bound_and_nothing_may_follow() {
        assert!(read("[".repeat(100).as_bytes()).is_err());
        assert!(read(format!("{}{}", "[".repeat(40), "]".repeat(40)).as_bytes()).is_err());
        assert!(read(b"{} {}").is_err());
        assert!(read(b"\xef\xbb\xbf{}").is_err());
    }

    #[test]
    fn a_field_is_found_whatever_stands_beside_it() {
        let deep = format!(r#"{{"a":{}1{},"method":"m"}}"#, "[".repeat(5000), "]".repeat(5000));
        for text in [
            r#"{"method":"m"}"#,
            r#"{"x":"cut \ud83d","method":"m","\udc00":1}"#,
            r#"{"a":1,"a":2,"method":"m","b":{"method":"x","method":"y"}}"#,
            r#"{"n":1e999999,"method":"\u006d"}"#,
            r#"{"__proto__":{"method":"x"},"Method":"y","method ":"z","method":"m"}"#,
            deep.as_str(),
        ] {
            assert_eq!(field(text.as_bytes(), "method"), Ok(Some(b"m".to_vec())), "{text}");
        }
        assert_eq!(field(br#"{"Method":"m"}"#, "method"), Ok(None));
    }

    #[test]
    fn a_field_with_more_than_one_reading_is_refused() {
        for text in [
            &br#"{"method":"a","method":"a"}"#[..],
            br#"{"method":"a","\u006dethod":"b"}"#,
            br#"{"\u006dethod":"a"}"#,
            br#"{"method":["a"]}"#,
            br#"{"method":null}"#,
            br#"{"method":1}"#,
            br#"{"method":{"a":1}}"#,
            br#"{"method":"a"} x"#,
            br#"{"method":"a",}"#,
            br#"{"method":"a""#,
            b"\xef\xbb\xbf{\"method\":\"a\"}",
            b"[]",
            b"",
        ] {
            assert!(field(text, "method").is_err(), "{}", String::from_utf8_lossy(text));
        }
    }

    /// Text that is JSON or nearly so, with the name in many spellings and the ways in which parsers differ.
    fn nearly_json() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            4 => Just(r#""method""#), 1 => Just(r#""\u006dethod""#), 1 => Just(r#""Method""#), 1 => Just(r#""\ud83d""#), 2 => Just(r#""a""#),
        ];
        let value = prop_oneof![
            4 => Just(r#""m""#), 2 => Just(r#""n""#), 1 => Just(r#""\u006d""#), 1 => Just(r#""\ud83d""#), 1 => Just("1e400"), 1 => Just("null"),
            1 => Just(r#"{"method":"x","method":"y"}"#), 1 => Just(r#"["method"]"#), 1 => Just("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"),
        ];
        let fields = prop::collection::vec((name, value), 0..5);
        (fields, prop_oneof![9 => Just(""), 1 => Just("x"), 1 => Just(" ")]).prop_map(|(fields, tail)| {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}:{value}")).collect();
            format!("{{{}}}{tail}", fields.join(","))
        })
    }

    /// The field as readers find it that go by the characters: `last` of two that are alike, escapes read or not.
    fn by_hand(text: &str, last: bool, unescape: bool) -> Option<String> {
        let mut found = None;
        let mut depth = 0;
        let mut rest = text;
        let mut key: Option<String> = None;
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            match c {
                '{' | '[' => depth += 1,
                '}' | ']' => depth -= 1,
                ',' if depth == 1 => key = None,
                '"' => {
                    let end = after.find('"').unwrap();
                    let raw = &after[..end];
                    let read = if unescape { raw.replace("\\u006d", "m") } else { raw.to_owned() };
                    match &key {
                        None if depth == 1 => key = Some(read),
                        Some(key) if depth == 1 && key == "method" && (last || found.is_none()) => {
                            found = Some(raw.replace("\\u006d", "m"))
                        }
                        _ => {}
                    }
                    rest = &after[end + 1..];
                    continue;
                }
                _ => {}
            }
            rest = after;
        }
        found
    }

    proptest! {
        #[test]
        fn where_a_field_is_found_every_reader_finds_the_same(text in nearly_json()) {
            if let Ok(Some(found)) = field(text.as_bytes(), "method") {
                let found = String::from_utf8_lossy(&found).into_owned();
                if found.is_ascii() {
                    for (last, unescape) in [(false, false), (false, true), (true, false), (true, true)] {
                        prop_assert_eq!(by_hand(&text, last, unescape), Some(found.clone()), "{}", &text);
                    }
                }
            }
            if let Ok(strict) = read(text.as_bytes())
                && let Some(method) = strict.get("method").and_then(Value::as_str)
                && !text.contains(r#""\u006dethod""#)
            {
                prop_assert_eq!(field(text.as_bytes(), "method"), Ok(Some(method.as_bytes().to_vec())), "what a strict reader takes is taken");
            }
        }

        #[test]
        fn no_bytes_panic_and_what_is_read_is_what_serde_reads(text in "[\\[\\]{}:,\"a-c0-9 ]{0,40}") {
            if let Ok(value) = read(text.as_bytes()) {
                prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
            }
        }
    }
}
