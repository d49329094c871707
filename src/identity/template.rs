//! Texts with placeholders: what a lookup asks for, with `{room}`, `{caller.id}` and earlier answers filled in safely.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but the unreserved characters of RFC 3986 §2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text with placeholders such as `{room}`; names are `[A-Za-z0-9_.-]+`, and a literal brace cannot be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// What a lookup asks for in origin form: a path of templates and perhaps a query, both checked when they are read.
///
/// Placeholders stand in path segments and in the values of query parameters; they are percent-encoded when filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    segments: Vec<Template>,
    query: Option<Template>,
}

/// A target with every placeholder filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filled {
    /// From the first `/` up to the `?`.
    pub(super) path: String,
    /// What follows the `?`.
    pub(super) query: Option<String>,
}

/// Why a text is no template or no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace without its counterpart.
    #[error("`{{` and `}}` stand only around the name of a placeholder")]
    Brace,
    /// A placeholder whose name is empty or has other characters.
    #[error("`{{{0}}}` is not a placeholder: its name is made of letters, digits, `_`, `-` and `.`")]
    Name(String),
    /// A target that does not begin with one `/`, or holds an empty or dot segment.
    #[error("a lookup's path begins with `/` and has no empty, `.` or `..` segment")]
    Path,
    /// A target with a character that RFC 3986 does not allow there.
    #[error("`{0}` must be percent-encoded in a lookup's target")]
    Character(char),
    /// A placeholder in a parameter's name.
    #[error("a placeholder stands in the value of a query parameter, not in its name")]
    ParameterName,
    /// A lookup by another method.
    #[error("a lookup is written `GET /path`")]
    Method,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Placeholder(String),
}

impl Template {
    /// The names of the placeholders, in order, repeats included.
    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Placeholder(name) => Some(name.as_str()),
            Piece::Literal(_) => None,
        })
    }

    /// The text with every placeholder filled from `value_of`; nothing when one has no value or an empty one.
    #[must_use]
    pub fn fill<'v>(&self, value_of: impl Fn(&str) -> Option<Cow<'v, str>>) -> Option<String> {
        self.filled_through(value_of, |value| value)
    }

    fn fill_encoded<'v>(&self, value_of: impl Fn(&str) -> Option<Cow<'v, str>>) -> Option<String> {
        self.filled_through(value_of, |value| Cow::Owned(utf8_percent_encode(&value, RESERVED).to_string()))
    }

    fn filled_through<'v>(
        &self,
        value_of: impl Fn(&str) -> Option<Cow<'v, str>>,
        written: impl Fn(Cow<'v, str>) -> Cow<'v, str>,
    ) -> Option<String> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Placeholder(name) => {
                    text.push_str(&written(value_of(name).filter(|value| !value.is_empty())?));
                }
            }
        }
        Some(text)
    }

    fn literals(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Literal(text) => Some(text.as_str()),
            Piece::Placeholder(_) => None,
        })
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((literal, opened)) = rest.split_once('{') {
            let (name, after) = opened.split_once('}').ok_or(TemplateError::Brace)?;
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
                return Err(TemplateError::Name(name.to_owned()));
            }
            pieces.push(Piece::Literal(literal.to_owned()));
            pieces.push(Piece::Placeholder(name.to_owned()));
            rest = after;
        }
        pieces.push(Piece::Literal(rest.to_owned()));
        if pieces.iter().any(|piece| matches!(piece, Piece::Literal(text) if text.contains('}'))) {
            return Err(TemplateError::Brace);
        }
        pieces.retain(|piece| !matches!(piece, Piece::Literal(text) if text.is_empty()));
        Ok(Self { pieces })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Literal(text) => f.write_str(text),
            Piece::Placeholder(name) => write!(f, "{{{name}}}"),
        })
    }
}

impl Target {
    /// The names of the placeholders, in order, repeats included.
    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().chain(&self.query).flat_map(Template::placeholders)
    }

    /// The target with every placeholder filled from `value_of`.
    ///
    /// Nothing when one has no value or an empty one, and nothing when a value would make a segment `.` or `..`: the
    /// upstream would resolve those (even percent-encoded) and answer about something else.
    pub(super) fn fill<'v>(&self, value_of: impl Fn(&str) -> Option<Cow<'v, str>>) -> Option<Filled> {
        let mut path = String::new();
        for segment in &self.segments {
            let filled = segment.fill_encoded(&value_of)?;
            if is_dots(&filled) {
                return None;
            }
            path.push('/');
            path.push_str(&filled);
        }
        let query = match &self.query {
            Some(query) => Some(query.fill_encoded(&value_of)?),
            None => None,
        };
        Some(Filled { path, query })
    }
}

impl FromStr for Target {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (text, None),
        };
        let path = path.strip_prefix('/').ok_or(TemplateError::Path)?;
        let segments = path.split('/').map(str::parse).collect::<Result<Vec<Template>, _>>()?;
        if segments.iter().any(|segment| segment.pieces.is_empty() || is_dots(&segment.to_string())) {
            return Err(TemplateError::Path);
        }
        let query = query.map(str::parse::<Template>).transpose()?;
        let written = segments.iter().flat_map(|segment| segment.literals().map(|text| (text, "")));
        for (text, more) in written.chain(query.iter().flat_map(|query| query.literals().map(|text| (text, "/?")))) {
            if let Some(character) = text.chars().find(|character| !is_allowed(*character) && !more.contains(*character)) {
                return Err(TemplateError::Character(character));
            }
        }
        for pair in query.iter().flat_map(|query| query.to_string().split('&').map(str::to_owned).collect::<Vec<_>>()) {
            if pair.split('=').next().is_some_and(|name| name.contains('{')) {
                return Err(TemplateError::ParameterName);
            }
        }
        Ok(Self { segments, query })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.segments.iter().try_for_each(|segment| write!(f, "/{segment}"))?;
        self.query.iter().try_for_each(|query| write!(f, "?{query}"))
    }
}

impl Filled {
    /// The same path with another query.
    pub(super) fn with_query(&self, query: String) -> Self {
        Self { path: self.path.clone(), query: Some(query) }
    }

    /// The same target with one more query parameter, whose name is written as it stands.
    pub(super) fn with_parameter(&self, name: &str, value: &str) -> Self {
        let pair = format!("{}={}", utf8_percent_encode(name, RESERVED), utf8_percent_encode(value, RESERVED));
        self.with_query(match &self.query {
            Some(query) if !query.is_empty() => format!("{query}&{pair}"),
            _ => pair,
        })
    }
}

impl fmt::Display for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        self.query.iter().try_for_each(|query| write!(f, "?{query}"))
    }
}

/// Whether a segment is one that resolvers remove, in any spelling of its dots.
fn is_dots(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

/// pchar of RFC 3986 §3.3, an escape's `%` included.
fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@%".contains(character)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(target: &str, value: &str) -> Option<String> {
        target.parse::<Target>().unwrap().fill(|_| Some(value.to_owned().into())).map(|filled| filled.to_string())
    }

    #[test]
    fn a_value_is_percent_encoded_in_a_segment_and_in_a_parameter() {
        assert_eq!(
            filled("/a/{x}/b?q={x}&n=1", "a b/ü&=?#").as_deref(),
            Some("/a/a%20b%2F%C3%BC%26%3D%3F%23/b?q=a%20b%2F%C3%BC%26%3D%3F%23&n=1")
        );
        assert_eq!(filled("/a?q={x}", "A-z_0.9~").as_deref(), Some("/a?q=A-z_0.9~"));
    }

    #[test]
    fn a_value_that_would_lead_elsewhere_fills_nothing() {
        assert_eq!(filled("/a/{x}/b", ".."), None);
        assert_eq!(filled("/a/{x}/b", "."), None);
        assert_eq!(filled("/a/.{x}", "."), None, "the segment as a whole counts");
        assert_eq!(filled("/a?q={x}", "..").as_deref(), Some("/a?q=.."), "dots mean nothing in a query");
        assert_eq!(filled("/a?q={x}", ""), None);
        assert_eq!("/a?q={x}".parse::<Target>().unwrap().fill(|_| None), None);
    }

    #[test]
    fn what_is_no_template_is_refused_when_it_is_read() {
        assert_eq!("{a".parse::<Template>(), Err(TemplateError::Brace));
        assert_eq!("a}".parse::<Template>(), Err(TemplateError::Brace));
        assert_eq!("{}".parse::<Template>(), Err(TemplateError::Name(String::new())));
        assert_eq!("{a b}".parse::<Template>(), Err(TemplateError::Name("a b".into())));
        let template: Template = "x{a}{caller.id}y".parse().unwrap();
        assert_eq!(template.placeholders().collect::<Vec<_>>(), ["a", "caller.id"]);
        assert_eq!(template.to_string(), "x{a}{caller.id}y");
    }

    #[test]
    fn what_is_no_target_is_refused_when_it_is_read() {
        for path in ["", "a", "//a", "/a/../b", "/a/%2E%2e", "/a/", "http://other/a"] {
            assert_eq!(path.parse::<Target>(), Err(TemplateError::Path), "{path}");
        }
        for (target, character) in [("/a b", ' '), ("/a#b", '#'), ("/a?b=\"", '"'), ("/a\\b", '\\'), ("/a?b=\n", '\n')] {
            assert_eq!(target.parse::<Target>(), Err(TemplateError::Character(character)));
        }
        assert_eq!("/a?{x}=1".parse::<Target>(), Err(TemplateError::ParameterName));
        assert_eq!("/a?b=1&c{x}".parse::<Target>(), Err(TemplateError::ParameterName));
        let target: Target = "/a/{x}?b={y}&c=/?".parse().unwrap();
        assert_eq!(target.placeholders().collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(target.to_string(), "/a/{x}?b={y}&c=/?");
    }

    #[test]
    fn a_parameter_is_added_to_a_query_or_begins_one() {
        let plain = Filled { path: "/a".into(), query: None };
        assert_eq!(plain.with_parameter("since", "a:b").to_string(), "/a?since=a%3Ab");
        assert_eq!(plain.with_query("x=1".into()).with_parameter("since", "y").to_string(), "/a?x=1&since=y");
    }

    proptest! {
        #[test]
        fn no_value_changes_the_shape_of_a_target(value in ".{1,20}") {
            if let Some(target) = filled("/one/{x}/two?a={x}&b=1", &value) {
                let (path, query) = target.split_once('?').unwrap();
                prop_assert_eq!(path.split('/').count(), 4);
                prop_assert_eq!(query.split('&').count(), 2);
                prop_assert!(target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'));
                let decoded = percent_encoding::percent_decode_str(path.split('/').nth(2).unwrap()).decode_utf8().unwrap();
                prop_assert_eq!(decoded, value);
            } else {
                prop_assert!(value == "." || value == "..");
            }
        }
    }
}
