//! What a case or `explain` states instead of a lookup: every name must exist, and the request must be able to have it.

use std::collections::BTreeMap;

use super::case::Known;
use super::provider::{Action, FactUse, Provider, TableUse, nearest};
use crate::identity::{FactPlan, Origin, Source};
use crate::model::{Fault, Kind, Place, Record, Value};

/// The table whose rows give permissions to roles.
pub const PERMISSIONS: &str = "permissions";

/// The value of a fact that holds roles.
const ROLES: &str = "roles";

/// Something that is stated by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stated {
    /// The subject, by its id.
    Subject,
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
        if subject.id.is_empty() {
            let hint = Some("write the caller's id; for somebody who is not logged in leave the `subject` out".to_owned());
            wrong.push(Wrong { stated: Stated::Subject, message: "the subject's `id` is empty".to_owned(), hint });
        }
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
            Some(fact) => {
                wrong.extend(record.iter().filter_map(|(field, value)| value_of(provider, fact, field, value)));
                wrong.extend(contradictions(fact, record));
            }
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

/// Every fact and value of a table that `known` states for a request of which no action is known, for this reason.
#[must_use]
pub fn unused(known: &Known, why: &str) -> Vec<Wrong> {
    let wrong = |stated, what: String| Wrong {
        stated,
        message: format!("{what} is not asked for: {why}"),
        hint: Some("leave it out, or state a request for an action (`rolegate actions` lists them)".to_owned()),
    };
    let facts = known.facts.keys().map(|name| wrong(Stated::Fact(name.clone()), format!("the fact `{name}`")));
    let tables = known.table.iter().map(|(name, _)| wrong(Stated::Table(name.to_owned()), format!("`context.table.{name}`")));
    facts.chain(tables).collect()
}

/// What the record states otherwise than the fact's steps would leave it: the last word on a value is a step without a
/// lookup that says what holds under its conditions.
fn contradictions(fact: &FactPlan, record: &Record) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    let holds = |name: &String| record.value(name).cloned().or_else(|| fact.unset(name)).is_some_and(|value| value.holds());
    for (at, step) in fact.steps.iter().enumerate().filter(|(_, step)| step.source == Source::Nothing) {
        let sets = |from: usize, name: &str| {
            fact.steps.iter().skip(from).flat_map(|step| &step.outputs).any(|output| output.name == name)
        };
        // What a step's conditions read must be what is known in the end.
        let settled = !step.when.iter().chain(&step.unless).any(|name| sets(at, name));
        if !settled || !step.when.iter().all(holds) || step.unless.iter().any(holds) {
            continue;
        }
        for output in step.outputs.iter().filter(|output| !sets(at + 1, &output.name)) {
            if let (Origin::Always(always), Some(value)) = (&output.origin, record.value(&output.name))
                && always != value
            {
                let conditions = step.when.iter().map(|name| format!("`{name}` holds"));
                let conditions = conditions.chain(step.unless.iter().map(|name| format!("`{name}` does not")));
                let conditions = conditions.collect::<Vec<_>>().join(" and ");
                let (name, is) = (format!("{}.{}", fact.name, output.name), told(always));
                wrong.push(Wrong {
                    stated: Stated::Field(fact.name.clone(), output.name.clone()),
                    message: format!("`{name}` is {is} where {conditions}, not {}", told(value)),
                    hint: Some(format!("leave `{}` out", output.name)),
                });
            }
        }
    }
    wrong
}

/// A value as a case would write it.
fn told(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_default()
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

/// A value that `fact` does not have, or has in another form, or that holds an unknown role.
fn value_of(provider: &Provider, fact: &FactPlan, name: &str, value: &Value) -> Option<Wrong> {
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
        Some(_) => {
            let Value::Set(texts) = value else { return None };
            // What is made of a number has the names of the levels; other roles are those that the provider file lists.
            let levels: Vec<&str> = outputs()
                .filter(|output| output.name == name)
                .flat_map(|output| output.levels.iter().flatten())
                .map(|(level, _)| level.as_str())
                .collect();
            let listed = || provider.roles.iter().map(String::as_str).filter(|_| name == ROLES).collect();
            let known: Vec<&str> = if levels.is_empty() { listed() } else { levels.clone() };
            let role = texts.iter().find(|text| !known.is_empty() && !known.contains(&text.as_str()))?;
            let wrong = misspelt(stated, format!("unknown role `{role}`"), role, known.iter().copied());
            let otherwise = || match levels.as_slice() {
                [] => "add it to `roles` in the provider file, if the server knows it".to_owned(),
                levels => format!("`{}.{name}` holds {}", fact.name, levels.join(", ")),
            };
            Some(Wrong { hint: wrong.hint.or_else(|| Some(otherwise())), ..wrong })
        }
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
