//! The policies of one action in a form that is decided without Cedar: what this form cannot say, and what it cannot answer,
//! is Cedar's.
//!
//! Cedar builds the condition of every policy anew for each decision and reads it over values of its own; that is a third of
//! what a cached request costs in all. Here a policy is read once from its JSON form into terms over the query itself. A
//! policy with an operator that is not here leaves its whole action to Cedar, as does a query at whose evaluation anything is
//! missing or of another form: errors are Cedar's to tell. The tests put random policies and queries to both.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::model::Value;
use crate::policy::answer::{Answer, Effect, PolicyInfo};
use crate::policy::domain::{ActionShape, FactShape, Field};
use crate::policy::engine::Query;

/// How deep terms may nest: they are evaluated by recursion, on the stack of whoever asks.
const DEEPEST: usize = 64;

/// The roles and permissions that policies name, numbered, so that a caller's are found by number.
#[derive(Debug, Default)]
pub(super) struct Names {
    roles: HashMap<String, u32>,
    permissions: HashMap<String, u32>,
}

impl Names {
    /// The numbers of those that a caller holds, sorted.
    pub(super) fn held<'a>(
        &self,
        roles: impl Iterator<Item = &'a str>,
        permissions: impl Iterator<Item = &'a str>,
    ) -> Box<[u32]> {
        let roles = roles.filter_map(|role| self.roles.get(role));
        let mut held: Vec<u32> =
            roles.chain(permissions.filter_map(|permission| self.permissions.get(permission))).copied().collect();
        held.sort_unstable();
        held.dedup();
        held.into()
    }

    fn role(&mut self, name: &str) -> Option<u32> {
        self.number(|names| &mut names.roles, name)
    }

    fn permission(&mut self, name: &str) -> Option<u32> {
        self.number(|names| &mut names.permissions, name)
    }

    fn number(&mut self, of: impl Fn(&mut Self) -> &mut HashMap<String, u32>, name: &str) -> Option<u32> {
        let next = u32::try_from(self.roles.len() + self.permissions.len()).ok()?;
        Some(*of(self).entry(name.to_owned()).or_insert(next))
    }
}

/// Every policy of an action, in the order of the files.
#[derive(Debug)]
pub(super) struct Compiled(Vec<Policy>);

#[derive(Debug)]
struct Policy {
    info: Arc<PolicyInfo>,
    /// All of them hold where it applies.
    terms: Vec<Term>,
}

/// An expression over a query.
#[derive(Debug)]
enum Term {
    Literal(Value),
    /// The value that stands in the context.
    Read(Place),
    /// Whether one stands there.
    Has(Place),
    /// Whether the fact of this name is known.
    Known(String),
    /// Whether one stands there in a fact of this name; to ask what is in a fact that is not known is an error.
    HasWithin(String, Place),
    /// Whether the caller has the role or permission of this number.
    Holds(u32),
    /// Whether the caller has this id.
    IsCaller(String),
    /// Whether the resource has this id.
    IsResource(String),
    Not(Box<Term>),
    /// Whether one of them holds.
    Any(Vec<Term>),
    And(Box<[Term; 2]>),
    Or(Box<[Term; 2]>),
    If(Box<[Term; 3]>),
    Compare(Comparison, Box<[Term; 2]>),
    /// Whether a text has this form.
    Like(Box<Term>, Pattern),
    /// Whether the set on the left holds the text on the right.
    Contains(Box<[Term; 2]>),
    /// Whether it holds every one on the right.
    ContainsAll(Box<[Term; 2]>),
    /// Whether it holds one on the right at least.
    ContainsAny(Box<[Term; 2]>),
}

/// The pieces of a text between which anything may stand.
#[derive(Debug)]
struct Pattern(Vec<String>);

#[derive(Debug, Clone, Copy)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A place in the context.
#[derive(Debug)]
enum Place {
    /// `context.self`.
    Own,
    /// `context.networks`.
    Networks,
    /// `context.params.NAME`.
    Param(String),
    /// `context.table.NAME`.
    Table(String),
    /// `context.FACT.NAME`.
    Fact(String, String),
}

/// A value while it is looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Seen<'a> {
    Boolean(bool),
    Integer(i64),
    Text(&'a str),
    Set(&'a [String]),
    Names(&'a [&'a str]),
}

impl Compiled {
    /// Reads the policies of the action with this `shape`, each with its JSON form (`Policy::to_json`); nothing when one of them
    /// has to be asked of Cedar.
    pub(super) fn of<'a>(
        namespace: &str,
        shape: &ActionShape,
        policies: impl Iterator<Item = (&'a Json, &'a Arc<PolicyInfo>)>,
        names: &mut Names,
    ) -> Option<Self> {
        let mut reader = Reader { namespace, shape, names };
        let policies = policies.map(|(json, info)| Some(Policy { info: Arc::clone(info), terms: reader.policy(json)? }));
        policies.collect::<Option<Vec<_>>>().map(Self)
    }

    /// What the policies say, or nothing when only Cedar can tell.
    pub(super) fn answer(&self, query: &Query<'_>) -> Option<Answer> {
        let (mut permits, mut forbids) = (Vec::new(), Vec::new());
        for policy in &self.0 {
            let mut applies = true;
            for term in &policy.terms {
                if !term.holds(query)? {
                    applies = false;
                    break;
                }
            }
            if applies {
                match policy.info.effect {
                    Effect::Permit => permits.push(Arc::clone(&policy.info)),
                    Effect::Forbid => forbids.push(Arc::clone(&policy.info)),
                }
            }
        }
        Some(if forbids.is_empty() && !permits.is_empty() { Answer::permitted(permits) } else { Answer::denied(forbids) })
    }
}

/// Reads JSON forms; nothing for what has no term.
struct Reader<'a> {
    namespace: &'a str,
    shape: &'a ActionShape,
    names: &'a mut Names,
}

impl Reader<'_> {
    fn policy(&mut self, json: &Json) -> Option<Vec<Term>> {
        // The action's scope has sorted the policy to this action.
        let mut terms = vec![self.scope("principal", json.get("principal")?)?, self.scope("resource", json.get("resource")?)?];
        for condition in json.get("conditions")?.as_array()? {
            let term = self.term(condition.get("body")?, 0)?;
            terms.push(match condition.get("kind")?.as_str()? {
                "when" => term,
                "unless" => Term::Not(Box::new(term)),
                _ => return None,
            });
        }
        Some(terms)
    }

    fn scope(&mut self, variable: &str, scope: &Json) -> Option<Term> {
        let op = scope.get("op")?.as_str()?;
        match op {
            "All" => Some(Term::Literal(Value::Boolean(true))),
            "==" => self.is(variable, scope.get("entity")?),
            "in" => self.within(variable, scope.get("entity")?),
            "is" => {
                let kind = self.is_a(variable, scope.get("entity_type")?.as_str()?)?;
                match scope.get("in") {
                    None => Some(kind),
                    Some(group) => Some(Term::And(Box::new([kind, self.within(variable, group.get("entity")?)?]))),
                }
            }
            _ => None,
        }
    }

    fn term(&mut self, json: &Json, depth: usize) -> Option<Term> {
        if depth > DEEPEST {
            return None;
        }
        let members = json.as_object()?;
        let (operator, operand) = members.iter().next().filter(|_| members.len() == 1)?;
        if let Some(place) = self.place(json) {
            return Some(Term::Read(place));
        }
        let both = |this: &mut Self| {
            let (left, right) = (operand.get("left")?, operand.get("right")?);
            Some(Box::new([this.term(left, depth + 1)?, this.term(right, depth + 1)?]))
        };
        let compared = |this: &mut Self, comparison| Some(Term::Compare(comparison, both(this)?));
        match operator.as_str() {
            "Value" => literal(operand).map(Term::Literal),
            "Set" => {
                let texts = operand.as_array()?.iter().map(|member| Some(member.get("Value")?.as_str()?.to_owned()));
                texts.collect::<Option<Vec<_>>>().map(|texts| Term::Literal(Value::Set(texts)))
            }
            "has" => self.has(operand),
            "!" => Some(Term::Not(Box::new(self.term(operand.get("arg")?, depth + 1)?))),
            "&&" => Some(Term::And(both(self)?)),
            "||" => Some(Term::Or(both(self)?)),
            "if-then-else" => {
                let parts = [operand.get("if")?, operand.get("then")?, operand.get("else")?];
                let [first, then, otherwise] = parts.map(|part| self.term(part, depth + 1));
                Some(Term::If(Box::new([first?, then?, otherwise?])))
            }
            "==" | "!=" if self.variable(operand.get("left")?).is_some() => {
                let is = self.is(self.variable(operand.get("left")?)?, entity(operand.get("right")?)?)?;
                Some(if operator == "==" { is } else { Term::Not(Box::new(is)) })
            }
            "==" => compared(self, Comparison::Equal),
            "!=" => compared(self, Comparison::Unequal),
            "<" => compared(self, Comparison::Less),
            "<=" => compared(self, Comparison::LessOrEqual),
            ">" => compared(self, Comparison::Greater),
            ">=" => compared(self, Comparison::GreaterOrEqual),
            "like" => {
                let text = self.term(operand.get("left")?, depth + 1)?;
                Some(Term::Like(Box::new(text), Pattern::of(operand.get("pattern")?)?))
            }
            "contains" => Some(Term::Contains(both(self)?)),
            "containsAll" => Some(Term::ContainsAll(both(self)?)),
            "containsAny" => Some(Term::ContainsAny(both(self)?)),
            "in" => {
                let variable = self.variable(operand.get("left")?)?;
                let right = operand.get("right")?;
                let groups: Vec<Option<&Json>> = match right.get("Set").or_else(|| right.get("Value")).and_then(Json::as_array) {
                    Some(groups) => groups.iter().map(|group| entity(group).or_else(|| group.get("__entity"))).collect(),
                    None => vec![entity(right)],
                };
                groups.into_iter().map(|group| self.within(variable, group?)).collect::<Option<_>>().map(Term::Any)
            }
            "is" if operand.get("in").is_none() => {
                self.is_a(self.variable(operand.get("left")?)?, operand.get("entity_type")?.as_str()?)
            }
            _ => None,
        }
    }

    /// The name of a variable that is an entity.
    fn variable(&self, json: &Json) -> Option<&'static str> {
        match json.get("Var")?.as_str()? {
            "principal" => Some("principal"),
            "resource" => Some("resource"),
            "action" => Some("action"),
            _ => None,
        }
    }

    /// Whether `variable` is this entity.
    fn is(&mut self, variable: &str, entity: &Json) -> Option<Term> {
        let (kind, id) = (entity.get("type")?.as_str()?, entity.get("id")?.as_str()?);
        let own = self.kind(kind);
        Some(match variable {
            "principal" if own == Some("User") => Term::IsCaller(id.to_owned()),
            "resource" if own == Some(self.shape.resource.as_str()) => Term::IsResource(id.to_owned()),
            "action" if own == Some("Action") => Term::Literal(Value::Boolean(id == self.shape.name)),
            "principal" | "resource" | "action" => Term::Literal(Value::Boolean(false)),
            _ => return None,
        })
    }

    /// Whether `variable` is this entity or belongs to it: only the caller belongs to others.
    fn within(&mut self, variable: &str, entity: &Json) -> Option<Term> {
        let (kind, id) = (entity.get("type")?.as_str()?, entity.get("id")?.as_str()?);
        match (variable, self.kind(kind)) {
            ("principal", Some("Role")) => self.names.role(id).map(Term::Holds),
            ("principal", Some("Permission")) => self.names.permission(id).map(Term::Holds),
            _ => self.is(variable, entity),
        }
    }

    fn is_a(&self, variable: &str, kind: &str) -> Option<Term> {
        let own = match variable {
            "principal" => "User",
            "resource" => &self.shape.resource,
            "action" => "Action",
            _ => return None,
        };
        Some(Term::Literal(Value::Boolean(self.kind(kind) == Some(own))))
    }

    /// An entity type without its namespace.
    fn kind<'k>(&self, kind: &'k str) -> Option<&'k str> {
        kind.strip_prefix(self.namespace)?.strip_prefix("::")
    }

    /// The place that `context.a` or `context.a.b` names, where a value of the four forms stands.
    fn place(&self, json: &Json) -> Option<Place> {
        let access = json.get(".")?;
        let (left, name) = (access.get("left")?, access.get("attr")?.as_str()?);
        if is_context(left) {
            return match name {
                "self" if self.shape.has_self => Some(Place::Own),
                "networks" => Some(Place::Networks),
                _ => None,
            };
        }
        let outer = left.get(".").filter(|outer| outer.get("left").is_some_and(is_context))?;
        self.below(outer.get("attr")?.as_str()?, name)
    }

    /// The place `context.KEY.NAME`, if the action declares it.
    fn below(&self, key: &str, name: &str) -> Option<Place> {
        self.fields(key)?.iter().find(|field| field.name == name)?;
        Some(match key {
            "params" => Place::Param(name.to_owned()),
            "table" => Place::Table(name.to_owned()),
            _ => Place::Fact(key.to_owned(), name.to_owned()),
        })
    }

    /// What the action declares below a key of the context; nothing for a key that holds no record.
    fn fields(&self, key: &str) -> Option<&[Field]> {
        match key {
            "params" => Some(&self.shape.params),
            "table" if !self.shape.table.is_empty() => Some(&self.shape.table),
            _ => self.fact(key).map(|fact| fact.fields.as_slice()),
        }
    }

    fn fact(&self, name: &str) -> Option<&FactShape> {
        self.shape.facts.iter().find(|fact| fact.name == name)
    }

    /// `context has key`, `context has key.name` and `context.key has name`.
    fn has(&self, operand: &Json) -> Option<Term> {
        let (left, attr) = (operand.get("left")?, operand.get("attr")?);
        let path: Vec<&str> = match attr {
            Json::String(name) => vec![name],
            Json::Array(path) => path.iter().map(Json::as_str).collect::<Option<_>>()?,
            _ => return None,
        };
        let (key, name) = match (path.as_slice(), left.get(".")) {
            ([key], None) if is_context(left) => {
                if self.fact(key).is_some_and(|fact| !fact.required) {
                    return Some(Term::Known((*key).to_owned()));
                }
                let known = matches!(*key, "params" | "networks")
                    || (*key == "self" && self.shape.has_self)
                    || self.fields(key).is_some();
                return Some(Term::Literal(Value::Boolean(known)));
            }
            ([key, name], None) if is_context(left) => (*key, *name),
            ([name], Some(outer)) if is_context(outer.get("left")?) => {
                let key = outer.get("attr")?.as_str()?;
                // To ask what is in nothing is an error.
                self.fields(key)?;
                if self.fact(key).is_some_and(|fact| !fact.required) {
                    let place = self.below(key, name)?;
                    return Some(Term::HasWithin(key.to_owned(), place));
                }
                (key, *name)
            }
            _ => return None,
        };
        // What the action does not declare is in no context.
        Some(self.below(key, name).map_or(Term::Literal(Value::Boolean(false)), Term::Has))
    }
}

fn is_context(json: &Json) -> bool {
    json.get("Var").is_some_and(|variable| variable == "context")
}

/// The entity of `{"Value": {"__entity": …}}`.
fn entity(json: &Json) -> Option<&Json> {
    json.get("Value")?.get("__entity")
}

fn literal(json: &Json) -> Option<Value> {
    match json {
        Json::Bool(value) => Some(Value::Boolean(*value)),
        Json::Number(value) => value.as_i64().map(Value::Integer),
        Json::String(value) => Some(Value::Text(value.clone())),
        Json::Array(values) => {
            values.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>().map(Value::Set)
        }
        _ => None,
    }
}

impl Term {
    fn holds(&self, query: &Query<'_>) -> Option<bool> {
        match self.seen(query)? {
            Seen::Boolean(value) => Some(value),
            _ => None,
        }
    }

    fn seen<'a>(&'a self, query: &Query<'a>) -> Option<Seen<'a>> {
        Some(Seen::Boolean(match self {
            Self::Literal(value) => return Some(Seen::of(value)),
            Self::Read(place) => return place.seen(query),
            Self::Has(place) => place.seen(query).is_some(),
            Self::Known(fact) => is_known(fact, query),
            Self::HasWithin(fact, place) => is_known(fact, query).then(|| place.seen(query).is_some())?,
            Self::Holds(number) => query.principal.holds(*number),
            Self::IsCaller(id) => query.principal.id() == id,
            Self::IsResource(id) => query.resource.id == *id,
            Self::Not(term) => !term.holds(query)?,
            Self::Any(terms) => {
                for term in terms {
                    if term.holds(query)? {
                        return Some(Seen::Boolean(true));
                    }
                }
                false
            }
            Self::And(terms) => {
                let [left, right] = &**terms;
                left.holds(query)? && right.holds(query)?
            }
            Self::Or(terms) => {
                let [left, right] = &**terms;
                left.holds(query)? || right.holds(query)?
            }
            Self::If(terms) => {
                let [first, then, otherwise] = &**terms;
                return if first.holds(query)? { then.seen(query) } else { otherwise.seen(query) };
            }
            Self::Compare(comparison, terms) => {
                let [left, right] = &**terms;
                comparison.of(left.seen(query)?, right.seen(query)?)?
            }
            Self::Like(text, pattern) => match text.seen(query)? {
                Seen::Text(text) => pattern.matches(text),
                _ => return None,
            },
            Self::Contains(terms) => {
                let [left, right] = &**terms;
                let (Some(Seen::Text(text)), set) = (right.seen(query), left.seen(query)?) else { return None };
                set.contains(text)?
            }
            Self::ContainsAll(terms) => {
                let [left, right] = &**terms;
                let (left, right) = (left.seen(query)?.set()?, right.seen(query)?);
                right.all(|text| left.contains(text))?
            }
            Self::ContainsAny(terms) => {
                let [left, right] = &**terms;
                let (left, right) = (left.seen(query)?.set()?, right.seen(query)?);
                !right.all(|text| Some(!left.contains(text)?))?
            }
        }))
    }
}

impl Pattern {
    fn of(json: &Json) -> Option<Self> {
        let mut pieces = vec![String::new()];
        for part in json.as_array()? {
            match part {
                Json::String(wildcard) if wildcard == "Wildcard" => pieces.push(String::new()),
                other => pieces.last_mut()?.push_str(other.get("Literal")?.as_str()?),
            }
        }
        Some(Self(pieces))
    }

    fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.0.split_first() else { return false };
        let Some((last, between)) = rest.split_last() else { return text == first };
        let Some(mut text) = text.strip_prefix(first.as_str()).and_then(|text| text.strip_suffix(last.as_str())) else {
            return false;
        };
        between.iter().all(|piece| match text.split_once(piece.as_str()) {
            Some((_, behind)) => {
                text = behind;
                true
            }
            None => false,
        })
    }
}

impl Comparison {
    /// Nothing where the two have different forms, or none that is compared here.
    fn of(self, left: Seen<'_>, right: Seen<'_>) -> Option<bool> {
        let order = match (left, right) {
            (Seen::Integer(left), Seen::Integer(right)) => left.cmp(&right),
            (Seen::Boolean(left), Seen::Boolean(right)) if self.is_equality() => left.cmp(&right),
            (Seen::Text(left), Seen::Text(right)) if self.is_equality() => left.cmp(right),
            _ => return None,
        };
        Some(match self {
            Self::Equal => order.is_eq(),
            Self::Unequal => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        })
    }

    fn is_equality(self) -> bool {
        matches!(self, Self::Equal | Self::Unequal)
    }
}

fn is_known(fact: &str, query: &Query<'_>) -> bool {
    query.facts.iter().any(|(known, _)| *known == fact)
}

impl Place {
    fn seen<'a>(&self, query: &Query<'a>) -> Option<Seen<'a>> {
        let value = match self {
            Self::Own => return query.is_self.map(Seen::Boolean),
            Self::Networks => return Some(Seen::Names(query.networks)),
            Self::Param(name) => query.params.value(name),
            Self::Table(name) => query.table.value(name),
            Self::Fact(fact, name) => query.facts.iter().find(|(known, _)| known == fact)?.1.value(name),
        };
        value.map(Seen::of)
    }
}

impl<'a> Seen<'a> {
    fn of(value: &'a Value) -> Self {
        match value {
            Value::Boolean(value) => Self::Boolean(*value),
            Value::Integer(value) => Self::Integer(*value),
            Value::Text(value) => Self::Text(value),
            Value::Set(values) => Self::Set(values),
        }
    }

    /// Itself, if it is a set.
    fn set(self) -> Option<Self> {
        matches!(self, Self::Set(_) | Self::Names(_)).then_some(self)
    }

    /// Whether `text` is in the set; nothing for what is none.
    fn contains(self, text: &str) -> Option<bool> {
        match self {
            Self::Set(values) => Some(values.iter().any(|value| value == text)),
            Self::Names(names) => Some(names.contains(&text)),
            Self::Boolean(_) | Self::Integer(_) | Self::Text(_) => None,
        }
    }

    /// Whether `holds` is true of every text in the set; nothing for what is none.
    fn all(self, holds: impl Fn(&str) -> Option<bool>) -> Option<bool> {
        let mut texts: Box<dyn Iterator<Item = &str>> = match self {
            Self::Set(values) => Box::new(values.iter().map(String::as_str)),
            Self::Names(names) => Box::new(names.iter().copied()),
            Self::Boolean(_) | Self::Integer(_) | Self::Text(_) => return None,
        };
        texts.try_fold(true, |all, text| Some(all && holds(text)?))
    }
}
