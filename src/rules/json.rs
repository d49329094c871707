//! JSON with one reading: a name that stands twice in an object is an error, at any depth.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
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

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_read_is_what_serde_reads(text in "[\\[\\]{}:,\"a-c0-9 ]{0,40}") {
            if let Ok(value) = read(text.as_bytes()) {
                prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
            }
        }
    }
}
