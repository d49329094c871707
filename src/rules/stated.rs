//! What a case or `explain` states instead of a lookup: every name must exist, and the request must be able to have it.

use std::collections::BTreeMap;

use super::case::Known;
use super::provider::{Action, FactUse, Provider, TableUse, nearest};
use crate::identity::FactPlan;
use crate::model::{Fault, Kind, Place, Record, Value};

/// The table whose rows give permissions to roles.
pub const PERMISSIONS: &str = "permissions";

/// Something that is stated by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stated {
    /// A role of the subject.
    Role(String),
    /// A permission of the subject.
    Permission(String),
    /// A fact.
    Fact(String),
    /// A value of a fact: the fact's name and its own.
    Field(String, String),
    /// A value of `context.table`.
    Table(String),
    /// A named network.
    Network(String),
}

/// Something stated that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// What was stated.
    pub stated: Stated,
    /// What is wrong with it.
    pub message: String,
    /// What to do about it, when that is known.
    pub hint: Option<String>,
}

/// Where each statement stands.
pub type Places = BTreeMap<Stated, Place>;

impl Wrong {
    /// As a fault at the statement's place, or else at `otherwise`.
    #[must_use]
    pub fn fault(self, places: &Places, otherwise: &Place) -> Fault {
        let place = places.get(&self.stated).unwrap_or(otherwise).clone();
        Fault { hint: self.hint, ..Fault::new(place, self.message) }
    }
}

/// Everything that `known` names and that does not exist for callers of `provider`, or has another form; `networks` are the
/// operator's names.
#[must_use]
pub fn unknown(provider: &Provider, networks: &[String], known: &Known) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    if let Some(subject) = &known.subject {
        let has_roles = provider.plan.caller.roles.is_some();
        let has_permissions = has_roles && provider.plan.table(PERMISSIONS).is_some();
        for role in &subject.roles {
            wrong.extend(held("role", has_roles, role, &provider.roles, &provider.name, Stated::Role));
        }
        for permission in &subject.permissions {
            let declared = &provider.permissions;
            wrong.extend(held("permission", has_permissions, permission, declared, &provider.name, Stated::Permission));
        }
    }
    for (name, record) in &known.facts {
        match provider.plan.fact(name) {
            Some(fact) => wrong.extend(record.iter().filter_map(|(field, value)| value_of(fact, field, value))),
            None => {
                let facts = provider.plan.facts.iter().map(|fact| fact.name.as_str());
                wrong.push(misspelt(Stated::Fact(name.clone()), format!("unknown fact `{name}`"), name, facts));
            }
        }
    }
    for (name, value) in known.table.iter() {
        let attributes = || provider.actions.iter().flat_map(|action| &action.tables).map(|table| table.attribute.as_str());
        let stated = Stated::Table(name.to_owned());
        if !attributes().any(|attribute| attribute == name) {
            wrong.push(misspelt(stated, format!("no action knows `context.table.{name}`"), name, attributes()));
        } else if value.kind() != Kind::Text {
            let message = format!("`context.table.{name}` is {}, not {}", of_kind(Kind::Text), of_kind(value.kind()));
            wrong.push(Wrong { stated, message, hint: None });
        }
    }
    for name in known.networks.iter().filter(|name| !networks.contains(name)) {
        let fault = misspelt(
            Stated::Network(name.clone()),
            format!("unknown network `{name}`"),
            name,
            networks.iter().map(String::as_str),
        );
        let hint = fault.hint.or_else(|| Some("name it under `[networks]` in the configuration".to_owned()));
        wrong.push(Wrong { hint, ..fault });
    }
    wrong
}

/// Everything that `known` states and that a request for `action` cannot have; `params` are those that the request gives,
/// where they could be read.
#[must_use]
pub fn impossible(provider: &Provider, action: &Action, params: Option<&Record>, known: &Known) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    for name in known.facts.keys().filter(|name| provider.plan.fact(name).is_some()) {
        let stated = Stated::Fact(name.clone());
        match action.facts.iter().find(|fact| fact.name == *name) {
            None => {
                let facts: Vec<&str> = action.facts.iter().map(|fact| fact.name.as_str()).collect();
                wrong.push(not_of(action, stated, &format!("fact `{name}`"), "facts", &facts));
            }
            Some(FactUse { inputs, .. }) => {
                let lacking = params.and_then(|params| inputs.iter().find(|(_, param)| params.value(param).is_none()));
                if let Some((_, param)) = lacking {
                    wrong.push(lacks(stated, &format!("the fact `{name}`"), param));
                }
            }
        }
    }
    for (name, _) in known.table.iter() {
        let stated = Stated::Table(name.to_owned());
        match action.tables.iter().find(|table| table.attribute == name) {
            None => {
                let attributes: Vec<&str> = action.tables.iter().map(|table| table.attribute.as_str()).collect();
                wrong.push(not_of(action, stated, &format!("`context.table.{name}`"), "tables", &attributes));
            }
            Some(TableUse { key, .. }) if params.is_some_and(|params| params.value(key).is_none()) => {
                wrong.push(lacks(stated, &format!("`context.table.{name}`"), key));
            }
            Some(_) => {}
        }
    }
    if known.subject.is_none() {
        for name in known.facts.keys() {
            let message = format!("the fact `{name}` is one about a caller, and no `subject` is stated");
            let hint = Some("state the `subject`, or leave the fact out".to_owned());
            wrong.push(Wrong { stated: Stated::Fact(name.clone()), message, hint });
        }
    }
    wrong
}

/// A role or permission that callers cannot hold.
fn held(
    what: &str,
    possible: bool,
    name: &str,
    declared: &[String],
    provider: &str,
    stated: impl Fn(String) -> Stated,
) -> Option<Wrong> {
    let stated = stated(name.to_owned());
    if !possible {
        let message = format!("callers of `{provider}` have no {what}s");
        return Some(Wrong { stated, message, hint: Some(format!("leave `{name}` out")) });
    }
    if declared.iter().any(|declared| declared == name) {
        return None;
    }
    let wrong = misspelt(stated, format!("unknown {what} `{name}`"), name, declared.iter().map(String::as_str));
    let add = || Some(format!("add it to `{what}s` in the provider file, if the server knows it"));
    Some(Wrong { hint: wrong.hint.or_else(add), ..wrong })
}

/// A value that `fact` does not have, or has in another form.
fn value_of(fact: &FactPlan, name: &str, value: &Value) -> Option<Wrong> {
    let outputs = || fact.steps.iter().flat_map(|step| &step.outputs);
    let stated = Stated::Field(fact.name.clone(), name.to_owned());
    match outputs().find(|output| output.name == name) {
        None => {
            let message = format!("the fact `{}` has no `{name}`", fact.name);
            Some(misspelt(stated, message, name, outputs().map(|output| output.name.as_str())))
        }
        Some(output) if output.kind != value.kind() => {
            let message = format!("`{}.{name}` is {}, not {}", fact.name, of_kind(output.kind), of_kind(value.kind()));
            Some(Wrong { stated, message, hint: None })
        }
        Some(_) => None,
    }
}

fn misspelt<'k>(stated: Stated, message: String, typed: &str, known: impl Iterator<Item = &'k str>) -> Wrong {
    Wrong { stated, message, hint: nearest(typed, known).map(|known| format!("did you mean `{known}`?")) }
}

fn not_of(action: &Action, stated: Stated, what: &str, plural: &str, known: &[&str]) -> Wrong {
    let message = format!("a request for `{}` has no {what}", action.id);
    let known = known.iter().map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ");
    let hint = if known.is_empty() { format!("it has no {plural}") } else { format!("its {plural} are {known}") };
    Wrong { stated, message, hint: Some(hint) }
}

fn lacks(stated: Stated, what: &str, param: &str) -> Wrong {
    let message = format!("{what} is known only when `{param}` is given, which this request does not");
    Wrong { stated, message, hint: Some(format!("leave it out, or give `{param}`")) }
}

/// A form in words.
fn of_kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Boolean => "true or false",
        Kind::Integer => "a whole number",
        Kind::Text => "a text",
        Kind::Set => "a list of texts",
    }
}
