//! Holds a query against a route's schema with the coercions and the texts of the server's validator.

use super::query::{Given, Query};

/// What a route accepts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Schema {
    /// Anything; texts are taken as they are.
    Open,
    /// One set of names.
    One(&'static Shape),
    /// Any of several.
    AnyOf(&'static [Shape]),
}

/// Names and their types; a name beyond them is refused.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) required: &'static [&'static str],
    pub(super) properties: &'static [(&'static str, Kind)],
}

/// The type of a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A string; a list of one counts.
    Text,
    /// The same, not empty.
    FilledText,
    /// A string or null; a list of one does not count.
    NullableText,
    /// A number.
    Number,
    /// A number or null, which is what an empty text becomes.
    NullableNumber,
}

/// One checked value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Argument {
    Text(String),
    Number(f64),
    Null,
}

/// What a route's handler sees.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Arguments(Vec<(String, Argument)>);

impl Arguments {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.argument(name)? {
            Argument::Text(text) => Some(text),
            Argument::Number(_) | Argument::Null => None,
        }
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        match self.argument(name)? {
            Argument::Number(number) => Some(*number),
            Argument::Text(text) => Some(javascript_number(text).unwrap_or(f64::NAN)),
            Argument::Null => None,
        }
    }

    fn argument(&self, name: &str) -> Option<&Argument> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, argument)| argument)
    }
}

impl Schema {
    /// The arguments, or the validator's messages.
    pub(super) fn check(self, query: &Query) -> Result<Arguments, String> {
        match self {
            Self::Open => Ok(Arguments(
                query
                    .names()
                    .filter_map(|name| match query.given(name)? {
                        Given::Text(text) => Some((name.to_owned(), Argument::Text(text.clone()))),
                        Given::List(_) | Given::Object => None,
                    })
                    .collect(),
            )),
            Self::One(shape) => shape.check(query),
            Self::AnyOf(shapes) => {
                let mut messages = Vec::new();
                for shape in shapes {
                    match shape.check(query) {
                        Ok(arguments) => return Ok(arguments),
                        Err(message) => messages.push(message),
                    }
                }
                messages.push("must match a schema in anyOf".to_owned());
                Err(messages.join("\n "))
            }
        }
    }
}

impl Shape {
    /// The first fault only, in the validator's order: what is missing, what is too much, what has the wrong type.
    fn check(&self, query: &Query) -> Result<Arguments, String> {
        if let Some(name) = self.required.iter().find(|name| query.given(name).is_none()) {
            return Err(format!("must have required property '{name}'"));
        }
        if query.names().any(|name| !self.properties.iter().any(|(known, _)| *known == name)) {
            return Err("must NOT have additional properties".to_owned());
        }
        let mut arguments = Arguments::default();
        for (name, kind) in self.properties {
            if let Some(given) = query.given(name) {
                arguments.0.push(((*name).to_owned(), kind.coerce(given)?));
            }
        }
        Ok(arguments)
    }
}

impl Kind {
    fn coerce(self, given: &Given) -> Result<Argument, String> {
        let single = match given {
            Given::Text(text) => Some(text),
            Given::List(items) if !matches!(self, Self::NullableText) => match items.as_slice() {
                [item] => Some(item),
                _ => None,
            },
            Given::List(_) | Given::Object => None,
        };
        match self {
            Self::Text | Self::FilledText | Self::NullableText => match single {
                Some(text) if text.is_empty() && matches!(self, Self::FilledText) => {
                    Err("must NOT have fewer than 1 characters".to_owned())
                }
                Some(text) => Ok(Argument::Text(text.clone())),
                None => Err("must be string".to_owned()),
            },
            Self::Number | Self::NullableNumber => match single {
                Some(text) if text.is_empty() && matches!(self, Self::NullableNumber) => Ok(Argument::Null),
                Some(text) => match javascript_number(text).filter(|_| !text.is_empty()) {
                    Some(number) => Ok(Argument::Number(number)),
                    None => Err("must be number".to_owned()),
                },
                None => Err("must be number".to_owned()),
            },
        }
    }
}

/// JavaScript's unary plus: blanks around do not count and alone are 0; `0x10`, `1e3` and `Infinity` are numbers.
fn javascript_number(text: &str) -> Option<f64> {
    let text = text.trim();
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if unsigned == "Infinity" {
        return Some(if negative { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    let radix = |prefix: &str| text.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    for (prefix, base) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if radix(prefix) {
            let digits = text.get(2..).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_alphanumeric()))?;
            return u32::from_str_radix(digits, base).ok().map(f64::from);
        }
    }
    match text {
        "" => Some(0.0),
        _ if text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUDIT: Shape = Shape {
        required: &["roomId"],
        properties: &[("roomId", Kind::FilledText), ("filter", Kind::Text), ("count", Kind::Number), ("offset", Kind::Number)],
    };

    fn audit(raw: &str) -> Result<Arguments, String> {
        Schema::One(&AUDIT).check(&Query::read(Some(raw)).unwrap())
    }

    #[test]
    fn numbers_are_read_as_javascript_reads_them() {
        for (text, expected) in [
            ("5", Some(5.0)),
            ("-1", Some(-1.0)),
            ("1e3", Some(1000.0)),
            ("0x10", Some(16.0)),
            ("1.5", Some(1.5)),
            (" ", Some(0.0)),
            ("Infinity", Some(f64::INFINITY)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("NaN", None),
            ("inf", None),
            ("nan", None),
            ("abc", None),
            ("1_0", None),
            ("true", None),
        ] {
            assert_eq!(javascript_number(text), expected, "{text:?}");
        }
    }

    #[test]
    fn faults_are_told_in_the_validators_order_and_words() {
        for (raw, message) in [
            ("", "must have required property 'roomId'"),
            ("x=1", "must have required property 'roomId'"),
            ("RoomId=r1", "must have required property 'roomId'"),
            ("roomId=&x=1", "must NOT have additional properties"),
            ("roomId=", "must NOT have fewer than 1 characters"),
            ("roomId", "must NOT have fewer than 1 characters"),
            ("roomId=a&roomId=b", "must be string"),
            ("roomId[$ne]=a", "must be string"),
            ("roomId=r1&filter[$regex]=.", "must be string"),
            ("roomId=r1&count=", "must be number"),
            ("roomId=r1&count=abc", "must be number"),
            ("roomId=r1&count=5&count=6", "must be number"),
        ] {
            assert_eq!(audit(raw), Err(message.to_owned()), "{raw}");
        }
    }

    #[test]
    fn a_list_of_one_and_odd_numbers_pass_as_in_the_real_server() {
        for raw in ["roomId[]=r1", "roomId%5B0%5D=r1", "roomId=r1&__proto__=x", "roomId=r1?roomId=b"] {
            assert_eq!(audit(raw).unwrap().text("roomId"), Some("r1"), "{raw}");
        }
        for (raw, count) in [("-1", -1.0), ("1.5", 1.5), ("0x10", 16.0), ("%20", 0.0)] {
            assert_eq!(audit(&format!("roomId=r1&count={raw}")).unwrap().number("count"), Some(count));
        }
    }

    #[test]
    fn nullable_values_differ_for_lists_and_empty_texts() {
        const SHAPE: Shape =
            Shape { required: &[], properties: &[("roomId", Kind::NullableText), ("count", Kind::NullableNumber)] };
        let check = |raw: &str| Schema::One(&SHAPE).check(&Query::read(Some(raw)).unwrap());
        assert_eq!(check("roomId[]=r1"), Err("must be string".into()));
        assert_eq!(check("roomId=").unwrap().text("roomId"), Some(""));
        assert_eq!(check("count=").unwrap().number("count"), None);
        assert_eq!(check("count[]=5").unwrap().number("count"), Some(5.0));
    }
}
