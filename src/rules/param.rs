//! A parameter's declared form: what a value must look like, and the one text in which it is sent on.

use crate::model::{Kind, Value};

/// The longest value of a parameter that states no bound of its own, in bytes: longer than any target, so that one in the query
/// is bounded by the head, and one in a body by what a record may hold.
pub const LONGEST_VALUE: usize = 64 * 1024;
/// The greatest whole number of a parameter that states no bound of its own: a server that computes with doubles reads a
/// greater one as its neighbour.
pub(super) const GREATEST_INTEGER: i64 = (1 << 53) - 1;
/// The longest id, in bytes.
const LONGEST_ID: usize = 255;

/// One declared parameter of an action.
#[derive(Debug, Clone)]
pub struct Param {
    /// Its name, byte for byte.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// What a value looks like.
    pub form: Form,
    /// Whether a request without it is refused.
    pub required: bool,
    /// What an empty value means.
    pub empty: Empty,
    /// Whether it may be given more than once in a query: then its values are a set to policies, sent on in their order.
    pub repeated: bool,
    /// A refusal of its own for a bad value: the body's template.
    pub refusal: Option<super::refusal::Template>,
    /// Whether its value is a credential, which no record and no trace shows.
    pub secret: bool,
}

/// Where a parameter stands in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A segment of the path; `encoded` says whether it may be percent-encoded there.
    Path {
        /// Whether percent-encoded spellings are legal.
        encoded: bool,
    },
    /// A name in the query.
    Query,
    /// A name in the JSON object of the body.
    Body,
    /// A place in the list of a method's parameters, and nowhere else.
    Method,
}

/// What an empty value of a query parameter means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Empty {
    /// A value like any other; its form decides.
    Value,
    /// As if a required parameter were missing.
    Missing,
    /// As if it were not there; it is not sent on.
    Absent,
}

/// The form of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// 1 to 255 bytes without control characters, neither `.` nor `..`: what else an id may be only the server knows. It is
    /// encoded wherever it is sent.
    Id,
    /// A text without control characters, bounds in bytes.
    Text {
        /// Least length in bytes.
        min: usize,
        /// Greatest length in bytes.
        max: usize,
    },
    /// A whole number in plain decimal.
    Integer {
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
    },
    /// `true` or `false`.
    Boolean,
    /// One of these.
    Enum {
        /// The values as they are sent on.
        values: Vec<String>,
        /// Whether any mixture of ASCII case is read as the listed value; sent on as received.
        any_case: bool,
    },
    /// A JSON object; sent on in one spelling, so that an escape can hide nothing from a policy.
    JsonObject,
    /// A JSON object whose values are 1 or -1, in the order of its keys.
    Sort,
    /// Any JSON value, of a method's parameter; sent on in one spelling.
    Json,
}

/// What is wrong with one parameter of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamFault {
    /// The parameter's name as sent (or as declared, when it is missing).
    pub param: String,
    /// What is wrong.
    pub kind: FaultKind,
}

/// The kinds of fault that a validator tells apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// A required parameter is absent.
    Missing,
    /// None of several, of which exactly one is needed, is there.
    NoneOf,
    /// More than one of several, of which exactly one is needed, is there.
    SeveralOf,
    /// The action has no parameter of this name.
    Unknown,
    /// A text was given more than once.
    Repeated,
    /// A number was given more than once.
    RepeatedNumber,
    /// A text was given as `name[]` or `name[x]`, which the server reads as a list or an object in `name`.
    Nested,
    /// A number was given so.
    NestedNumber,
    /// Shorter than this many bytes.
    TooShort(usize),
    /// Longer than this many bytes.
    TooLong(usize),
    /// Not a number.
    NotANumber,
    /// A number, but not a whole one.
    NotWhole,
    /// Less than this.
    TooSmall(i64),
    /// More than this.
    TooLarge(i64),
    /// Neither `true` nor `false`.
    NotABoolean,
    /// None of the listed values; they are named.
    NotListed(String),
    /// Not a JSON object.
    NotAnObject(String),
    /// Characters that the form does not allow, or broken encoding.
    Malformed,
}

impl Param {
    /// The form of the value that policies read.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.form {
            _ if self.repeated => Kind::Set,
            Form::Integer { .. } => Kind::Integer,
            Form::Boolean => Kind::Boolean,
            Form::Id | Form::Text { .. } | Form::Enum { .. } | Form::JsonObject | Form::Sort | Form::Json => Kind::Text,
        }
    }

    /// Reads a decoded value; nothing when it counts as not given.
    ///
    /// # Errors
    /// What the value's form does not allow.
    pub fn read(&self, text: &str) -> Result<Option<Value>, ParamFault> {
        if text.is_empty() {
            match self.empty {
                Empty::Value => {}
                Empty::Missing => return Err(self.fault(FaultKind::Missing)),
                Empty::Absent => return Ok(None),
            }
        }
        self.form.read(text).map(Some).map_err(|kind| self.fault(kind))
    }

    /// Reads the decoded values of a parameter that may be given more than once; nothing when none counts as given.
    ///
    /// # Errors
    /// What the form of one of them does not allow.
    pub fn read_all<'t>(&self, texts: impl Iterator<Item = &'t str>) -> Result<Option<Value>, ParamFault> {
        let mut values = Vec::new();
        for text in texts {
            values.extend(self.read(text)?.map(|value| value.to_string()));
        }
        Ok((!values.is_empty()).then_some(Value::Set(values)))
    }

    /// Reads one of a method's parameters; nothing when it counts as not given.
    ///
    /// # Errors
    /// What the value's form does not allow.
    pub fn read_json(&self, value: &serde_json::Value) -> Result<Option<Value>, ParamFault> {
        use serde_json::Value as Json;
        match (&self.form, value) {
            (_, Json::Null) => Ok(None),
            (Form::Json | Form::JsonObject | Form::Sort, value) => self.read(&value.to_string()),
            (Form::Boolean, Json::Bool(value)) => Ok(Some(Value::Boolean(*value))),
            (Form::Integer { .. }, Json::Number(number)) => self.read(&number.to_string()),
            (Form::Id | Form::Text { .. } | Form::Enum { .. }, Json::String(text)) => self.read(text),
            (Form::Boolean, _) => Err(self.fault(FaultKind::NotABoolean)),
            (Form::Integer { .. }, _) => Err(self.fault(FaultKind::NotANumber)),
            (Form::Id | Form::Text { .. } | Form::Enum { .. }, _) => Err(self.repeated()),
        }
    }

    /// A value of this parameter as one of a method's.
    #[must_use]
    pub fn to_json(&self, value: &Value) -> serde_json::Value {
        match (&self.form, value) {
            (Form::Json | Form::JsonObject | Form::Sort, Value::Text(text)) => serde_json::from_str(text).unwrap_or_default(),
            (_, Value::Text(text)) => text.as_str().into(),
            (_, Value::Integer(number)) => (*number).into(),
            (_, Value::Boolean(value)) => (*value).into(),
            (_, Value::Set(values)) => values.clone().into(),
        }
    }

    /// The fault of having been given more than once.
    #[must_use]
    pub fn repeated(&self) -> ParamFault {
        self.fault(if self.kind() == Kind::Integer { FaultKind::RepeatedNumber } else { FaultKind::Repeated })
    }

    /// The fault of having been given as a list or an object.
    #[must_use]
    pub fn nested(&self) -> ParamFault {
        self.fault(if self.kind() == Kind::Integer { FaultKind::NestedNumber } else { FaultKind::Nested })
    }

    fn fault(&self, kind: FaultKind) -> ParamFault {
        ParamFault { param: self.name.clone(), kind }
    }
}

impl Form {
    fn read(&self, text: &str) -> Result<Value, FaultKind> {
        match self {
            Self::Id => id(text),
            Self::Text { min, max } => bounded(text, *min, *max),
            Self::Integer { min, max } => integer(text, *min, *max),
            Self::Boolean => match text {
                "true" => Ok(Value::Boolean(true)),
                "false" => Ok(Value::Boolean(false)),
                _ => Err(FaultKind::NotABoolean),
            },
            Self::Enum { values, any_case } => {
                let listed = |value: &&String| if *any_case { value.eq_ignore_ascii_case(text) } else { *value == text };
                if values.iter().any(|value| listed(&value)) {
                    Ok(Value::Text(text.to_owned()))
                } else {
                    Err(FaultKind::NotListed(values.join(", ")))
                }
            }
            Self::JsonObject => json_object(text, |_| true),
            Self::Json => json(text),
            Self::Sort => json_object(text, |value| matches!(value.as_i64(), Some(1 | -1))),
        }
    }
}

impl Default for Form {
    fn default() -> Self {
        Self::Text { min: 0, max: LONGEST_VALUE }
    }
}

fn id(text: &str) -> Result<Value, FaultKind> {
    if text.is_empty() {
        return Err(FaultKind::TooShort(1));
    }
    if text.len() > LONGEST_ID {
        return Err(FaultKind::TooLong(LONGEST_ID));
    }
    // Where it stands in a path, a server would resolve a dot segment even when it is encoded.
    let dots = matches!(text, "." | "..");
    if dots || text.chars().any(char::is_control) { Err(FaultKind::Malformed) } else { Ok(Value::Text(text.to_owned())) }
}

fn bounded(text: &str, min: usize, max: usize) -> Result<Value, FaultKind> {
    if text.len() < min {
        return Err(FaultKind::TooShort(min));
    }
    if text.len() > max {
        return Err(FaultKind::TooLong(max));
    }
    if text.chars().any(char::is_control) { Err(FaultKind::Malformed) } else { Ok(Value::Text(text.to_owned())) }
}

/// Plain decimal only: `1e3`, `0x10`, `+5` and `007` are numbers to one server and not to the next.
fn integer(text: &str, min: i64, max: i64) -> Result<Value, FaultKind> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain =
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if !plain || text == "-0" {
        let fractional = text.parse::<f64>().is_ok_and(|number| number.is_finite() && number.fract() != 0.0);
        return Err(if fractional { FaultKind::NotWhole } else { FaultKind::NotANumber });
    }
    match text.parse::<i64>() {
        Ok(number) if number < min => Err(FaultKind::TooSmall(min)),
        Ok(number) if number > max => Err(FaultKind::TooLarge(max)),
        Ok(number) => Ok(Value::Integer(number)),
        Err(_) if text.starts_with('-') => Err(FaultKind::TooSmall(min)),
        Err(_) => Err(FaultKind::TooLarge(max)),
    }
}

fn json(text: &str) -> Result<Value, FaultKind> {
    if text.len() > LONGEST_VALUE {
        return Err(FaultKind::TooLong(LONGEST_VALUE));
    }
    let value = serde_json::from_str::<serde_json::Value>(text).map_err(|_| FaultKind::Malformed)?;
    Ok(Value::Text(value.to_string()))
}

fn json_object(text: &str, allowed: impl Fn(&serde_json::Value) -> bool) -> Result<Value, FaultKind> {
    let refused = || FaultKind::NotAnObject(text.to_owned());
    if text.len() > LONGEST_VALUE {
        return Err(FaultKind::TooLong(LONGEST_VALUE));
    }
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Object(object)) if object.values().all(allowed) => {
            Ok(Value::Text(serde_json::Value::Object(object).to_string()))
        }
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(form: &Form, text: &str) -> Result<Value, FaultKind> {
        form.read(text)
    }

    #[test]
    fn only_plain_decimals_are_whole_numbers() {
        let form = Form::Integer { min: 0, max: 100 };
        assert_eq!(read(&form, "0"), Ok(Value::Integer(0)));
        assert_eq!(read(&form, "100"), Ok(Value::Integer(100)));
        for text in ["", "+5", "007", "1e3", "0x10", " 5", "5 ", "Infinity", "-0", "٣", "1_000", "NaN"] {
            assert_eq!(read(&form, text), Err(FaultKind::NotANumber), "{text}");
        }
        assert_eq!(read(&form, "1.5"), Err(FaultKind::NotWhole));
        assert_eq!(read(&form, "-1"), Err(FaultKind::TooSmall(0)));
        assert_eq!(read(&form, "101"), Err(FaultKind::TooLarge(100)));
        assert_eq!(read(&form, "99999999999999999999"), Err(FaultKind::TooLarge(100)));
    }

    #[test]
    fn an_escape_in_json_hides_nothing() {
        let read = read(&Form::JsonObject, r#"{"user\u0052ooms": 1}"#);
        assert_eq!(read, Ok(Value::Text(r#"{"userRooms":1}"#.into())));
    }

    #[test]
    fn a_sort_names_directions_only() {
        assert_eq!(read(&Form::Sort, r#"{"username": 1,"b":-1}"#), Ok(Value::Text(r#"{"username":1,"b":-1}"#.into())));
        for text in ["", "abc", "{", "null", "5", "[]", r#"{"username":2}"#, r#"{"username":"1"}"#, r#"{"username":1.5}"#] {
            assert_eq!(read(&Form::Sort, text), Err(FaultKind::NotAnObject(text.into())), "{text}");
        }
    }

    #[test]
    fn an_enum_in_any_case_is_sent_on_as_received() {
        let form = Form::Enum { values: vec!["LastNameDesc".into()], any_case: true };
        assert_eq!(read(&form, "lastNameDesc"), Ok(Value::Text("lastNameDesc".into())));
        assert_eq!(read(&form, "lastName"), Err(FaultKind::NotListed("LastNameDesc".into())));
    }

    #[test]
    fn an_id_is_whatever_a_server_can_hold() {
        for text in [
            "Helpdesk Team",
            "R&D",
            "50% Teilzeit",
            "Owner's club",
            "Betriebsrat/BR",
            "Team #1",
            "!test/v6 🐈\u{fe0f}:hs",
            "a\\b",
            "<x>",
            "...",
            "a?b",
        ] {
            assert_eq!(read(&Form::Id, text), Ok(Value::Text(text.into())), "{text}");
        }
        for text in [".", "..", "a\nb", "\0", "\u{7f}", "\u{85}"] {
            assert_eq!(read(&Form::Id, text), Err(FaultKind::Malformed), "{text:?}");
        }
        assert_eq!(read(&Form::Id, ""), Err(FaultKind::TooShort(1)));
        assert_eq!(read(&Form::Id, &"a".repeat(256)), Err(FaultKind::TooLong(255)));
    }

    proptest! {
        #[test]
        fn what_is_read_reads_the_same_again(text in ".{0,40}") {
            for form in [Form::Id, Form::default(), Form::Integer { min: -5, max: 5 }, Form::Boolean, Form::JsonObject, Form::Sort] {
                if let Ok(value) = form.read(&text) {
                    prop_assert_eq!(form.read(&value.to_string()), Ok(value));
                }
            }
        }
    }
}
