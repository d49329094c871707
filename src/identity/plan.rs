//! What to ask an upstream and how to read its answers: the checked form of a provider file's caller, tables and facts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::pointer::{Pointer, PointerTemplate};
use super::template::{Target, Template, TemplateError};
use crate::model::{Kind, Value};

/// How one kind of upstream is asked about its callers; made once per provider file and shared.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The provider's name, as in metric labels.
    pub provider: String,
    /// A digest of the provider file's caller, table and fact part: facts found by another plan are never used.
    pub digest: [u8; 32],
    /// How a credential becomes a subject.
    pub caller: CallerPlan,
    /// What is looked up once per upstream; names are distinct.
    pub tables: Vec<TablePlan>,
    /// What is looked up about a caller; names are distinct, and none is `caller`.
    pub facts: Vec<FactPlan>,
    /// The header that says when a limit ends.
    pub rate_limit_reset: Option<ResetHeader>,
    /// What an answer says of itself.
    pub answers: Answers,
    /// Whether the server is reached by the host that clients send, and not by its own.
    pub host_received: bool,
}

/// How a server's answers say of themselves whether they are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// The pointer at which a successful answer holds `true`; an answer with any other value there is a failure.
    pub success: Option<Pointer>,
    /// The pointer at which a failure names itself; an answer with any value there is a failure, whatever its status.
    pub error: Option<Pointer>,
    /// Where an answer says, and with which of these texts, that the server has no such route.
    pub no_route: Option<(Pointer, Vec<String>)>,
}

/// The lookup that proves a credential.
#[derive(Debug, Clone, PartialEq)]
pub struct CallerPlan {
    /// What is asked, without placeholders.
    pub lookup: Lookup,
    /// Where the caller's id stands: a text that is not empty, or a number.
    pub id: Pointer,
    /// Where the login name stands; a caller may have none.
    pub name: Option<Pointer>,
    /// Where the list of the global roles stands; a caller without one has none, and anything but a list of texts is a failure.
    pub roles: Option<Pointer>,
    /// Further texts by name; one that is not there is an empty list.
    pub attributes: Vec<(String, Pointer)>,
    /// Credential headers (lower case) whose value must equal the answered id byte for byte, when they were sent.
    pub claims: Vec<String>,
    /// Statuses that refuse the credential; by default 401.
    pub refused: Vec<u16>,
    /// The age at which it is looked up again, when it is not the common one.
    pub ttl: Option<Duration>,
}

/// One GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// Which server is asked: the upstream itself, or another URL of its configuration by name (`account`).
    pub base: Option<String>,
    /// Path and query.
    pub target: Target,
}

/// Something looked up once per upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct TablePlan {
    /// Its name, as in metric labels.
    pub name: String,
    /// What is asked, without placeholders.
    pub lookup: Lookup,
    /// The query parameter that asks only for what changed since a time.
    pub since: Option<String>,
    /// Where the list of rows stands.
    pub rows: Pointer,
    /// Where the list of removed rows stands: keys, or rows that have one.
    pub removed: Option<Pointer>,
    /// Where in a row its key stands.
    pub key: Pointer,
    /// Where in a row its value stands: a text or a list of texts.
    pub value: Pointer,
    /// What the server takes for the value of a row that has none, or an empty one; it also says which form the value has: a
    /// text or a list. Without it a row has a value of either form, or else none.
    pub default: Option<Value>,
    /// The age at which it is looked up again, when it is not the common one.
    pub ttl: Option<Duration>,
}

/// Something looked up about one caller and some inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct FactPlan {
    /// Its name, as in metric labels.
    pub name: String,
    /// The inputs that an action binds to its parameters.
    pub needs: Vec<String>,
    /// The age at which it is looked up again, when it is not the common one.
    pub ttl: Option<Duration>,
    /// What is done, in order.
    pub steps: Vec<Step>,
}

/// One part of a fact.
///
/// A step is *absent* (it sets nothing, and the walk goes on) when a placeholder of it has no value, when the answer's
/// status says that nothing is known, or when not exactly one row matches.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Where the document comes from.
    pub source: Source,
    /// Skipped unless each of these outputs of earlier steps is true, not empty and not 0.
    pub when: Vec<String>,
    /// Skipped if one of these outputs of earlier steps is true, not empty and not 0.
    pub unless: Vec<String>,
    /// Statuses that mean that nothing is known.
    pub absent: Vec<u16>,
    /// Where the list of rows stands, of which one is read instead of the whole document.
    pub rows: Option<Pointer>,
    /// What a row must hold, ASCII case aside; only used with `rows`.
    pub matching: Vec<(Pointer, Template)>,
    /// Where the URI of the next page stands, of which only the query is used; only used with `rows`.
    pub next: Option<Pointer>,
    /// What is read from it.
    pub outputs: Vec<Output>,
}

/// Where a step's document comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A question to the upstream.
    Lookup(Lookup),
    /// No question: the list of the caller's texts of this name (`id`, `name`, `roles` or an attribute).
    Caller(String),
    /// No question: what an earlier step found under this name.
    Found(String),
    /// No document: the step only states what holds under its conditions.
    Nothing,
}

/// One named value of a fact.
///
/// When no step set it, it is `default`, or else false, 0, the empty text or the empty set. When two steps set it, the
/// later one counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Its form.
    pub kind: Kind,
    /// How it is read.
    pub origin: Origin,
    /// What it is when it cannot be found; without one, a document that lacks it is a failure.
    pub default: Option<Value>,
    /// For a set made of a number: which names the number reaches, each with the least number that does.
    pub levels: Option<Vec<(String, i64)>>,
}

/// How an output is read from a step's document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The value that stands at the first of these where there is one; null counts as nothing.
    At(Vec<PointerTemplate>),
    /// Whether the text there, or one of the texts of the list there, is one of these, byte for byte.
    Is(PointerTemplate, Vec<Template>),
    /// Always this.
    Always(Value),
    /// Whether anything but null stands there.
    Present(Pointer),
    /// Whether the document, a list of texts, holds this one, ASCII case aside.
    Contains(Template),
}

/// The header of a limited answer that says when asking makes sense again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetHeader {
    /// Its name in lower case.
    pub name: String,
    /// How its number is meant.
    pub unit: ResetUnit,
}

/// How a reset header's number is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetUnit {
    /// A time in milliseconds since 1970.
    EpochMilliseconds,
    /// A time in seconds since 1970.
    EpochSeconds,
    /// Seconds from now.
    Seconds,
}

impl Plan {
    /// What the caller lookup asks, path and query; nothing when it names what only a request has.
    #[must_use]
    pub fn caller_target(&self) -> Option<String> {
        self.caller.lookup.target.fill(|_| None).map(|target| target.to_string())
    }

    /// The fact named `name`.
    #[must_use]
    pub fn fact(&self, name: &str) -> Option<&FactPlan> {
        self.facts.iter().find(|fact| fact.name == name)
    }

    /// Everything that is asked, in order.
    pub fn lookups(&self) -> impl Iterator<Item = &Lookup> {
        let steps = self.facts.iter().flat_map(|fact| &fact.steps).filter_map(|step| match &step.source {
            Source::Lookup(lookup) => Some(lookup),
            Source::Caller(_) | Source::Found(_) | Source::Nothing => None,
        });
        std::iter::once(&self.caller.lookup).chain(self.tables.iter().map(|table| &table.lookup)).chain(steps)
    }

    /// The table named `name`.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&TablePlan> {
        self.tables.iter().find(|table| table.name == name)
    }
}

impl FactPlan {
    /// What the output named `name` is when no step set it: the first stated default, or else the empty one of its kind.
    #[must_use]
    pub fn unset(&self, name: &str) -> Option<Value> {
        let mut outputs = self.steps.iter().flat_map(|step| &step.outputs).filter(|output| output.name == name);
        let first = outputs.next()?;
        let stated = std::iter::once(first).chain(outputs).find(|output| output.default.is_some());
        Some(stated.unwrap_or(first).unset())
    }
}

impl Step {
    /// The names of the placeholders that need a value before the step can run, in order, repeats included.
    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        let target = match &self.source {
            Source::Lookup(lookup) => Some(lookup.target.placeholders()),
            Source::Caller(_) | Source::Found(_) | Source::Nothing => None,
        };
        let matching = self.matching.iter().flat_map(|(_, template)| template.placeholders());
        let outputs = self.outputs.iter().flat_map(|output| match &output.origin {
            Origin::At(pointers) => pointers.iter().flat_map(PointerTemplate::placeholders).collect::<Vec<_>>(),
            Origin::Is(pointer, wanted) => pointer.placeholders().chain(wanted.iter().flat_map(Template::placeholders)).collect(),
            Origin::Contains(template) => template.placeholders().collect(),
            Origin::Present(_) | Origin::Always(_) => Vec::new(),
        });
        target.into_iter().flatten().chain(matching).chain(outputs)
    }
}

impl Output {
    /// What it is when nothing is known.
    #[must_use]
    pub fn unset(&self) -> Value {
        match (&self.default, self.kind) {
            (Some(Value::Integer(number)), Kind::Set) => Value::Set(self.reached(*number)),
            (Some(default), _) => default.clone(),
            (None, Kind::Boolean) => Value::Boolean(false),
            (None, Kind::Integer) => Value::Integer(0),
            (None, Kind::Text) => Value::Text(String::new()),
            (None, Kind::Set) => Value::Set(Vec::new()),
        }
    }

    /// The names of the levels that `number` reaches, in their stated order.
    pub(super) fn reached(&self, number: i64) -> Vec<String> {
        let levels = self.levels.iter().flatten().filter(|(_, least)| number >= *least);
        levels.map(|(name, _)| name.clone()).collect()
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GET {}", self.target)?;
        self.base.iter().try_for_each(|base| write!(f, " ({base})"))
    }
}

/// `GET /path?query`, asked of the upstream itself.
impl FromStr for Lookup {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let target = text.strip_prefix("GET ").ok_or(TemplateError::Method)?;
        Ok(Self { base: None, target: target.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookup_is_a_get_and_nothing_else() {
        assert_eq!("GET /a?b={c}".parse::<Lookup>().unwrap().target.to_string(), "/a?b={c}");
        assert_eq!("POST /a".parse::<Lookup>(), Err(TemplateError::Method));
        assert_eq!("/a".parse::<Lookup>(), Err(TemplateError::Method));
    }

    #[test]
    fn a_number_reaches_every_level_that_is_not_above_it() {
        let levels = Some(vec![("admin".to_owned(), 100), ("moderator".to_owned(), 50)]);
        let origin = Origin::Present("".parse().unwrap());
        let output = Output { name: "roles".into(), kind: Kind::Set, origin, default: Some(Value::Integer(60)), levels };
        assert_eq!(output.unset(), Value::Set(vec!["moderator".into()]));
        assert_eq!(output.reached(100), ["admin", "moderator"]);
        assert!(output.reached(49).is_empty());
    }
}
