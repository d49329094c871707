//! What a provider declares, and the Cedar schema that follows from it.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::model::{Fault, Faults, Kind, Place};

/// The file that a fault of the declarations themselves is laid to.
pub(crate) const DECLARED_IN: &str = "provider.toml";
/// Context keys that no fact may be named after.
const RESERVED_KEYS: [&str; 4] = ["networks", "params", "self", "table"];
/// Entity types that have a meaning of their own in Cedar.
const RESERVED_TYPES: [&str; 8] = ["Action", "Bool", "Boolean", "Entity", "Long", "Record", "Set", "String"];
/// Entity types that every schema has.
const BUILT_IN_TYPES: [&str; 3] = ["Permission", "Role", "User"];
/// Words that Cedar does not take as a bare attribute name.
const KEYWORDS: [&str; 9] = ["else", "false", "has", "if", "in", "is", "like", "then", "true"];

/// What policies may speak of: everything that one provider declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domain {
    /// The namespace of every entity type, such as `RocketChat`.
    pub namespace: String,
    /// The permissions that a policy may name.
    pub permissions: Vec<String>,
    /// The global roles that a policy may name.
    pub roles: Vec<String>,
    /// The guarded actions.
    pub actions: Vec<ActionShape>,
    /// The names of networks that a policy may ask for; may be empty.
    pub networks: Vec<String>,
}

/// One guarded action and what is known when it is judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActionShape {
    /// Its name, such as `rooms.roles`.
    pub name: String,
    /// The entity type of its resource, such as `Room`.
    pub resource: String,
    /// Its parameters, as `context.params.<name>`.
    pub params: Vec<Field>,
    /// Whether it knows if the resource is the caller itself, as `context.self`.
    pub has_self: bool,
    /// What is looked up about the caller, as `context.<fact>.<attribute>`.
    pub facts: Vec<FactShape>,
    /// What is looked up once per upstream, as `context.table.<name>`; the key is there only when this is not empty.
    pub table: Vec<Field>,
}

impl ActionShape {
    /// The keys of the context and, below `key`, the attributes; nothing when there is no such key.
    pub(super) fn attributes(&self, key: Option<&str>) -> Vec<&str> {
        let facts = || self.facts.iter().map(|fact| (fact.name.as_str(), &fact.fields));
        let table = (!self.table.is_empty()).then_some(("table", &self.table));
        let mut records = facts().chain(table).chain([("params", &self.params)]);
        match key {
            None => records.map(|(key, _)| key).chain(["networks"]).chain(self.has_self.then_some("self")).collect(),
            Some(key) => {
                let record = records.find(|(known, _)| *known == key);
                record.into_iter().flat_map(|(_, fields)| fields).map(|field| field.name.as_str()).collect()
            }
        }
    }
}

/// What is looked up about the caller under one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FactShape {
    /// The key of the fact in the context.
    pub name: String,
    /// Its values.
    pub fields: Vec<Field>,
    /// Whether it is always looked up; a policy must test one that is not with `has` before it reads it.
    pub required: bool,
}

/// One named value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its form.
    pub kind: Kind,
    /// Whether it is always there; a policy must test one that is not with `has` before it reads it.
    pub required: bool,
}

impl Domain {
    /// The Cedar schema in its readable syntax; the same domain gives the same text.
    #[must_use]
    pub fn schema(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_schema(&mut text);
        text
    }

    fn write_schema(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "namespace {} {{", self.namespace)?;
        writeln!(text, "  entity Permission;\n  entity Role;\n  entity User in [Role, Permission];")?;
        let kinds: BTreeSet<&str> = self.actions.iter().map(|action| action.resource.as_str()).collect();
        for kind in kinds.iter().filter(|kind| !BUILT_IN_TYPES.contains(kind)) {
            writeln!(text, "  entity {kind};")?;
        }
        for action in &self.actions {
            writeln!(text, "\n  action {:?} appliesTo {{", action.name)?;
            writeln!(text, "    principal: [User],\n    resource: [{}],\n    context: {{", action.resource)?;
            writeln!(text, "      params: {},", record(&action.params))?;
            for FactShape { name, fields, required } in &action.facts {
                writeln!(text, "      {}{}: {},", attribute(name), optional(*required), record(fields))?;
            }
            if action.has_self {
                writeln!(text, "      self: Bool,")?;
            }
            writeln!(text, "      networks: Set<String>,")?;
            if !action.table.is_empty() {
                writeln!(text, "      table: {},", record(&action.table))?;
            }
            writeln!(text, "    }},\n  }};")?;
        }
        writeln!(text, "}}")
    }

    /// What is wrong with the declarations themselves, beyond what Cedar finds in the schema.
    pub(super) fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        let mut fault = |message: String| faults.push(declared(message));
        if !is_word(&self.namespace) {
            fault(format!("`{}` is not a namespace", self.namespace));
        }
        for action in &self.actions {
            let name = &action.name;
            if !is_word(&action.resource) || RESERVED_TYPES.contains(&action.resource.as_str()) {
                fault(format!("action `{name}`: `{}` is not a resource type", action.resource));
            }
            let mut keys = BTreeSet::from(RESERVED_KEYS);
            for fact in action.facts.iter().map(|fact| fact.name.as_str()) {
                if !keys.insert(fact) {
                    let why = if RESERVED_KEYS.contains(&fact) { "is reserved" } else { "is declared twice" };
                    fault(format!("action `{name}`: the fact name `{fact}` {why}"));
                }
            }
            for fields in action.facts.iter().map(|fact| &fact.fields).chain([&action.params, &action.table]) {
                let mut names = BTreeSet::new();
                for field in fields.iter().filter(|field| !names.insert(field.name.as_str())) {
                    fault(format!("action `{name}`: `{}` is declared twice", field.name));
                }
            }
        }
        faults
    }
}

/// A fault of the declarations.
pub(super) fn declared(message: String) -> Fault {
    Fault::new(Place::file(DECLARED_IN), message)
}

fn record(fields: &[Field]) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|field| format!("{}{}: {}", attribute(&field.name), optional(field.required), cedar_type(field.kind)))
        .collect();
    if fields.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", fields.join(", ")) }
}

/// What stands behind the name of an attribute that may be absent.
fn optional(required: bool) -> &'static str {
    if required { "" } else { "?" }
}

fn attribute(name: &str) -> String {
    if is_word(name) && !KEYWORDS.contains(&name) { name.to_owned() } else { format!("{name:?}") }
}

fn cedar_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Boolean => "Bool",
        Kind::Integer => "Long",
        Kind::Text => "String",
        Kind::Set => "Set<String>",
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, kind: Kind, required: bool) -> Field {
        Field { name: name.into(), kind, required }
    }

    fn fact(name: &str, fields: Vec<Field>, required: bool) -> FactShape {
        FactShape { name: name.into(), fields, required }
    }

    #[test]
    fn the_schema_of_a_small_domain_reads_like_this() {
        let domain = Domain {
            namespace: "RocketChat".into(),
            actions: vec![
                ActionShape {
                    name: "rooms.roles".into(),
                    resource: "Room".into(),
                    params: vec![field("rid", Kind::Text, true)],
                    facts: vec![
                        fact("room", vec![field("member", Kind::Boolean, true), field("roles", Kind::Set, true)], true),
                        fact("if", vec![field("member", Kind::Boolean, true)], false),
                    ],
                    ..ActionShape::default()
                },
                ActionShape {
                    name: "users.info".into(),
                    resource: "User".into(),
                    params: vec![field("count", Kind::Integer, false), field("in", Kind::Text, false)],
                    has_self: true,
                    table: vec![field("role-scope", Kind::Text, false)],
                    ..ActionShape::default()
                },
            ],
            ..Domain::default()
        };
        let expected = r#"namespace RocketChat {
  entity Permission;
  entity Role;
  entity User in [Role, Permission];
  entity Room;

  action "rooms.roles" appliesTo {
    principal: [User],
    resource: [Room],
    context: {
      params: { rid: String },
      room: { member: Bool, roles: Set<String> },
      "if"?: { member: Bool },
      networks: Set<String>,
    },
  };

  action "users.info" appliesTo {
    principal: [User],
    resource: [User],
    context: {
      params: { count?: Long, "in"?: String },
      self: Bool,
      networks: Set<String>,
      table: { "role-scope"?: String },
    },
  };
}
"#;
        assert_eq!(domain.schema(), expected);
        assert!(cedar_policy::Schema::from_cedarschema_str(expected).is_ok(), "Cedar reads it");
    }

    #[test]
    fn names_that_would_hide_one_another_are_faults() {
        let shape = ActionShape {
            name: "a".into(),
            resource: "String".into(),
            params: vec![field("p", Kind::Text, true), field("p", Kind::Text, false)],
            facts: ["room", "room", "self"].map(|name| fact(name, vec![], true)).to_vec(),
            ..ActionShape::default()
        };
        let domain = Domain { namespace: "N; entity X".into(), actions: vec![shape], ..Domain::default() };
        let told = domain.faults().or(()).unwrap_err().to_string();
        let expected = [
            "provider.toml: `N; entity X` is not a namespace",
            "provider.toml: action `a`: `String` is not a resource type",
            "provider.toml: action `a`: `p` is declared twice",
            "provider.toml: action `a`: the fact name `room` is declared twice",
            "provider.toml: action `a`: the fact name `self` is reserved",
        ];
        assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    }
}
