//! The families in which a Rocket.Chat server tells a fault, and the texts of its validator; measured with
//! `@rocket.chat/rest-typings` 8.8.1.

use serde_json::Value;

pub const UNKNOWN: &str = "must NOT have additional properties";
pub const STRING: &str = "must be string";
pub const NUMBER: &str = "must be number";
pub const WHOLE: &str = "must be integer";
pub const NOT_EMPTY: &str = "must NOT have fewer than 1 characters";
pub const NOT_NEGATIVE: &str = "must be >= 0";
pub const AT_MOST_100: &str = "must be <= 100";
pub const AT_MOST_ALL: &str = "must be <= 9007199254740991";

/// The text for a name that is not there.
pub fn missing(name: &str) -> String {
    format!("must have required property '{name}'")
}

/// The text for a value that is longer than `limit` bytes.
pub fn too_long(limit: usize) -> String {
    format!("must NOT have more than {limit} characters")
}

/// The text for a value that no bound describes.
pub fn malformed(name: &str) -> String {
    format!("must match format \"{name}\"")
}

/// The newer family.
pub fn typed(text: &str) -> String {
    format!(r#"{{"success":false,"errorType":"error-invalid-params","error":{}}}"#, Value::from(text))
}

/// The older family.
pub fn legacy(text: &str) -> String {
    let text = Value::from(format!("{text} [invalid-params]"));
    format!(r#"{{"success":false,"error":{text},"errorType":"invalid-params"}}"#)
}

/// What the query helper says of a parameter that is no JSON of the form it wants; `code` is `sort` or `fields`.
pub fn not_json(code: &str, value: &str) -> String {
    let text = Value::from(format!("Invalid {code} parameter provided: \"{value}\" [error-invalid-{code}]"));
    format!(
        r#"{{"success":false,"error":{text},"errorType":"error-invalid-{code}","details":{{"helperMethod":"parseJsonQuery"}}}}"#
    )
}
