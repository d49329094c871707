//! What a refused client is told: the upstream's own words, filled in.

use std::collections::BTreeMap;

use super::param::{FaultKind, ParamFault};
use crate::model::Reason;
use crate::model::escape;

/// A refusal ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// The body: JSON in UTF-8.
    pub body: String,
    /// Further fields beside `content-type`, `content-length`, `cache-control` and `x-request-id`.
    pub headers: Vec<(String, String)>,
}

/// A JSON body with the placeholders `{message}`, `{param}` and `{id}`; each is escaped as JSON when filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Plain(String),
    Message,
    Param,
    Id,
}

/// The texts for the placeholders.
#[derive(Debug, Clone, Copy)]
pub struct Filling<'a> {
    /// What the validator says.
    pub message: &'a str,
    /// The parameter at fault, or nothing.
    pub param: &'a str,
    /// The decision id.
    pub id: &'a str,
}

impl std::str::FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((start, name, end)) = placeholder(rest) {
            pieces.push(Piece::Plain(rest.get(..start).unwrap_or_default().to_owned()));
            pieces.push(match name {
                "message" => Piece::Message,
                "param" => Piece::Param,
                "id" => Piece::Id,
                other => {
                    return Err(format!("unknown placeholder `{{{other}}}`; there are `{{message}}`, `{{param}}` and `{{id}}`"));
                }
            });
            rest = rest.get(end..).unwrap_or_default();
        }
        pieces.push(Piece::Plain(rest.to_owned()));
        let template = Self(pieces);
        let sample = template.fill(Filling { message: "a \"quoted\" text", param: "p", id: "i" });
        match serde_json::from_str::<serde_json::Value>(&sample) {
            Ok(serde_json::Value::Object(_)) => Ok(template),
            Ok(_) => Err("a refusal's body must be a JSON object".to_owned()),
            Err(error) => Err(format!("a refusal's body must be a JSON object: {error}")),
        }
    }
}

impl Template {
    /// The body with its placeholders filled in.
    #[must_use]
    pub fn fill(&self, filling: Filling<'_>) -> String {
        let mut body = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Plain(text) => body.push_str(text),
                Piece::Message => escape(&mut body, filling.message),
                Piece::Param => escape(&mut body, filling.param),
                Piece::Id => escape(&mut body, filling.id),
            }
        }
        body
    }
}

/// The first `{lower_case}` of `text`: its start, its name, its end. A brace of the JSON itself is followed by a quote.
fn placeholder(text: &str) -> Option<(usize, &str, usize)> {
    let mut from = 0;
    while let Some(open) = text.get(from..)?.find('{').map(|at| at + from) {
        let inner = text.get(open + 1..)?;
        let length = inner.bytes().take_while(|byte| byte.is_ascii_lowercase() || *byte == b'_').count();
        if length > 0 && inner.as_bytes().get(length) == Some(&b'}') {
            return Some((open, inner.get(..length)?, open + length + 2));
        }
        from = open + 1;
    }
    None
}

/// Appends `text` as the inside of a JSON string.
fn escape(body: &mut String, text: &str) {
    let quoted = serde_json::Value::from(text).to_string();
    body.push_str(&escape::escape(quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default()));
}

/// The words of one provider (or of one action of it) for each reason.
#[derive(Debug, Clone, Default)]
pub struct Words(BTreeMap<Reason, Template>);

impl Words {
    /// Sets the words for `reason`.
    pub fn set(&mut self, reason: Reason, template: Template) {
        self.0.insert(reason, template);
    }

    /// The words for `reason`.
    #[must_use]
    pub fn for_reason(&self, reason: Reason) -> Option<&Template> {
        self.0.get(&reason)
    }
}

/// The status that goes with a reason, by the contract's order of checks.
#[must_use]
pub fn status(reason: Reason) -> u16 {
    match reason {
        Reason::FramingInvalid
        | Reason::HeaderAmbiguous
        | Reason::TargetAmbiguous
        | Reason::CredentialAmbiguous
        | Reason::ParamMissing
        | Reason::ParamInvalid
        | Reason::ParamUnknown
        | Reason::ParamRepeated => 400,
        Reason::CredentialMissing | Reason::CredentialRefused => 401,
        Reason::RouteUnlisted | Reason::PolicyDenied | Reason::PolicyForbidden | Reason::PolicyError => 403,
        Reason::MethodNotDeclared => 405,
        Reason::BodyTooLarge => 413,
        Reason::HostUnknown => 421,
        Reason::Internal => 500,
        Reason::FactsLimited | Reason::FactsUnavailable | Reason::AuditUnavailable | Reason::Overloaded => 503,
    }
}

/// How the server's own validator tells each fault; `{param}` and `{limit}` are filled in.
#[derive(Debug, Clone)]
pub struct Messages {
    words: super::raw::Messages,
    any_of: Option<super::raw::AnyOf>,
}

impl Messages {
    pub(super) fn new(words: super::raw::Messages) -> Self {
        Self { words, any_of: None }
    }

    pub(super) fn with(&self, any_of: Option<super::raw::AnyOf>) -> Self {
        Self { words: self.words.clone(), any_of }
    }

    /// The text for `fault` of a request that gave parameters of the names `given`; `others` are the declared names that
    /// go with every branch.
    ///
    /// A validator that knows an alternative (`anyOf`) tells one text a branch: the branch's own name is missing, or a
    /// name is there that the branch does not take, or a value is wrong; measured with `@rocket.chat/rest-typings` 8.8.1.
    #[must_use]
    pub fn text(&self, fault: &ParamFault, given: &[&str], others: &[&str]) -> String {
        let Some(any_of) = &self.any_of else { return self.alone(fault) };
        let mut texts = Vec::new();
        for branch in &any_of.branches {
            let foreign = |name: &&str| *name != branch && !others.contains(name);
            texts.push(if !given.contains(&branch.as_str()) {
                self.alone(&ParamFault { param: branch.clone(), kind: FaultKind::Missing })
            } else if fault.kind == FaultKind::NoneOf || given.iter().any(foreign) {
                // The server knows this branch and rolegate does not, or it knows both and takes only one.
                self.alone(&ParamFault { param: fault.param.clone(), kind: FaultKind::Unknown })
            } else {
                self.alone(fault)
            });
        }
        texts.push(any_of.last.clone());
        texts.join("\n ")
    }

    /// Whether the server reads `name[]` and `name[x]` as something in `name`.
    #[must_use]
    pub fn nest(&self) -> bool {
        self.words.nested.is_some()
    }

    /// The text for `fault` itself, whatever else the request gave.
    #[must_use]
    pub fn alone(&self, fault: &ParamFault) -> String {
        let words = &self.words;
        let (words, limit) = match &fault.kind {
            FaultKind::Missing => (&words.missing, String::new()),
            FaultKind::NoneOf | FaultKind::SeveralOf => (&words.one_of, String::new()),
            FaultKind::Unknown => (&words.unknown, String::new()),
            FaultKind::Repeated => (&words.repeated, String::new()),
            FaultKind::RepeatedNumber => (&words.repeated_number, String::new()),
            FaultKind::Nested => (words.nested.as_ref().unwrap_or(&words.unknown), String::new()),
            FaultKind::NestedNumber => (words.nested_number.as_ref().unwrap_or(&words.unknown), String::new()),
            FaultKind::TooShort(limit) => (&words.too_short, limit.to_string()),
            FaultKind::TooLong(limit) => (&words.too_long, limit.to_string()),
            FaultKind::NotANumber => (&words.not_a_number, String::new()),
            FaultKind::NotWhole => (&words.not_whole, String::new()),
            FaultKind::TooSmall(limit) => (&words.too_small, limit.to_string()),
            FaultKind::TooLarge(limit) => (&words.too_large, limit.to_string()),
            FaultKind::NotABoolean => (&words.not_a_boolean, String::new()),
            FaultKind::NotListed(values) => (&words.not_listed, values.clone()),
            FaultKind::NotAnObject(value) => (&words.not_an_object, value.clone()),
            FaultKind::Malformed => (&words.malformed, String::new()),
        };
        // What is filled in came from the client and is no template itself.
        words.split("{limit}").map(|piece| piece.replace("{param}", &fault.param)).collect::<Vec<_>>().join(&limit)
    }
}

/// The reason that a fault of a parameter is.
#[must_use]
pub fn reason(fault: &FaultKind) -> Reason {
    match fault {
        FaultKind::Missing | FaultKind::NoneOf => Reason::ParamMissing,
        FaultKind::SeveralOf | FaultKind::Repeated | FaultKind::RepeatedNumber => Reason::ParamRepeated,
        FaultKind::Unknown => Reason::ParamUnknown,
        FaultKind::Nested
        | FaultKind::NestedNumber
        | FaultKind::TooShort(_)
        | FaultKind::TooLong(_)
        | FaultKind::NotANumber
        | FaultKind::NotWhole
        | FaultKind::TooSmall(_)
        | FaultKind::TooLarge(_)
        | FaultKind::NotABoolean
        | FaultKind::NotListed(_)
        | FaultKind::NotAnObject(_)
        | FaultKind::Malformed => Reason::ParamInvalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_in_as_json() {
        let template: Template = r#"{"success":false,"error":"{message} [invalid-params]"}"#.parse().unwrap();
        let body = template.fill(Filling { message: "a \"b\"\n c", param: "", id: "" });
        assert_eq!(body, r#"{"success":false,"error":"a \"b\"\n c [invalid-params]"}"#);
        let body = template.fill(Filling { message: "a\u{9b}b\u{202e}é", param: "", id: "" });
        assert_eq!(body, r#"{"success":false,"error":"a\u009bb\u202eé [invalid-params]"}"#);
    }

    #[test]
    fn a_body_that_is_no_json_object_or_names_an_unknown_placeholder_is_refused() {
        assert!("oops".parse::<Template>().is_err());
        assert!(r#"["{message}"]"#.parse::<Template>().is_err());
        assert!(r#"{"a":"{reason}"}"#.parse::<Template>().unwrap_err().contains("`{reason}`"));
    }
}
