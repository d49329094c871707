//! The context of one decision: only the keys that the action's policies read, each in the form the domain declares.

use std::collections::BTreeSet;

use cedar_policy::{Context, RestrictedExpression};

use crate::model::{Record, Value};
use crate::policy::condition::Looks;
use crate::policy::domain::{ActionShape, FactShape, Field};
use crate::policy::engine::Query;

/// Which parts of the context the policies of an action read; the rest need not be looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    /// The facts, by name.
    pub facts: BTreeSet<String>,
    /// Whether they read `context.params`.
    pub params: bool,
    /// Whether they read `context.networks`.
    pub networks: bool,
    /// Whether they read `context.table`.
    pub table: bool,
    /// Whether they read `context.self`.
    pub is_self: bool,
}

/// Why a query has no context.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ContextError {
    #[error("`context.{0}` is not known")]
    Absent(String),
    #[error("`context.{0}` has another form than the provider file declares")]
    Form(String),
    #[error("the context could not be built: {0}")]
    Build(String),
}

impl Reads {
    /// Adds what one more policy looks at, as far as the action has it.
    pub(super) fn add(&mut self, looks: &Looks, shape: &ActionShape) {
        let reads = |key: &str| looks.whole_context || looks.keys.contains(key);
        self.facts.extend(shape.facts.iter().map(|fact| &fact.name).filter(|fact| reads(fact)).cloned());
        self.params |= reads("params");
        self.networks |= reads("networks");
        self.table |= !shape.table.is_empty() && reads("table");
        self.is_self |= shape.has_self && reads("self");
    }
}

/// Builds the context that `reads` asks for.
///
/// A value of another form than declared is an error rather than an odd value: a comparison between forms is false in Cedar,
/// and a forbid would be lost without a word.
pub(super) fn build(query: &Query<'_>, shape: &ActionShape, reads: &Reads) -> Result<Context, ContextError> {
    let mut pairs = Vec::with_capacity(4 + reads.facts.len());
    if reads.params {
        pairs.push(("params".to_owned(), record("params", &shape.params, query.params)?));
    }
    for (fact, known) in known(query, shape, reads) {
        let known = known.ok_or_else(|| ContextError::Absent(fact.name.clone()))?;
        pairs.push((fact.name.clone(), record(&fact.name, &fact.fields, known)?));
    }
    if reads.is_self {
        let is_self = query.is_self.ok_or_else(|| ContextError::Absent("self".to_owned()))?;
        pairs.push(("self".to_owned(), RestrictedExpression::new_bool(is_self)));
    }
    if reads.networks {
        pairs.push(("networks".to_owned(), set(query.networks)));
    }
    if reads.table {
        pairs.push(("table".to_owned(), record("table", &shape.table, query.table)?));
    }
    Context::from_pairs(pairs).map_err(|error| ContextError::Build(error.to_string()))
}

/// Checks the context that [`build`] builds, without building it.
pub(super) fn check(query: &Query<'_>, shape: &ActionShape, reads: &Reads) -> Result<(), ContextError> {
    let record = |key, fields, values| declared(key, fields, values).try_for_each(|value| value.map(drop));
    if reads.params {
        record("params", &shape.params, query.params)?;
    }
    for (fact, known) in known(query, shape, reads) {
        let known = known.ok_or_else(|| ContextError::Absent(fact.name.clone()))?;
        record(&fact.name, &fact.fields, known)?;
    }
    if reads.is_self && query.is_self.is_none() {
        return Err(ContextError::Absent("self".to_owned()));
    }
    if reads.table {
        record("table", &shape.table, query.table)?;
    }
    Ok(())
}

/// The facts that `reads` names, each with what is known; one that need not be known and is not stays out.
fn known<'a>(
    query: &'a Query<'_>,
    shape: &'a ActionShape,
    reads: &'a Reads,
) -> impl Iterator<Item = (&'a FactShape, Option<&'a Record>)> {
    shape.facts.iter().filter(|fact| reads.facts.contains(&fact.name)).filter_map(|fact| {
        let known = query.facts.iter().find(|(name, _)| *name == fact.name).map(|(_, record)| *record);
        (fact.required || known.is_some()).then_some((fact, known))
    })
}

/// The declared values of a record; values that nobody declared stay out.
fn declared<'a>(
    key: &'a str,
    fields: &'a [Field],
    values: &'a Record,
) -> impl Iterator<Item = Result<(&'a Field, &'a Value), ContextError>> {
    fields.iter().filter_map(move |field| {
        let path = || format!("{key}.{}", field.name);
        match values.value(&field.name) {
            None if field.required => Some(Err(ContextError::Absent(path()))),
            None => None,
            Some(value) if value.kind() != field.kind => Some(Err(ContextError::Form(path()))),
            Some(value) => Some(Ok((field, value))),
        }
    })
}

fn record(key: &str, fields: &[Field], values: &Record) -> Result<RestrictedExpression, ContextError> {
    let pairs = declared(key, fields, values).map(|value| value.map(|(field, value)| (field.name.clone(), expression(value))));
    let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
    RestrictedExpression::new_record(pairs).map_err(|error| ContextError::Build(error.to_string()))
}

fn expression(value: &Value) -> RestrictedExpression {
    match value {
        Value::Boolean(value) => RestrictedExpression::new_bool(*value),
        Value::Integer(value) => RestrictedExpression::new_long(*value),
        Value::Text(value) => RestrictedExpression::new_string(value.clone()),
        Value::Set(values) => set(values),
    }
}

fn set(values: &[impl AsRef<str>]) -> RestrictedExpression {
    RestrictedExpression::new_set(values.iter().map(|value| RestrictedExpression::new_string(value.as_ref().to_owned())))
}
