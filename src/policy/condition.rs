//! What a policy's conditions look at, read from the policy's JSON form.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// What the conditions of one policy look at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Looks {
    /// The context keys that they read or test.
    pub(super) keys: BTreeSet<String>,
    /// The attributes of the context that they test with `has`, each as its path.
    pub(super) tested: BTreeSet<Vec<String>>,
    /// Whether they use the context as a whole, so that every key may matter.
    pub(super) whole_context: bool,
    /// The texts that they compare with `context.networks`.
    pub(super) networks: BTreeSet<String>,
    /// The types of the entities in which they seek something else than the caller or the action.
    pub(super) others_in: BTreeSet<String>,
}

impl Looks {
    /// Reads the JSON form of a policy (`Policy::to_json`).
    pub(super) fn of(policy: &Value) -> Self {
        let mut looks = Self::default();
        // A stack of its own: how deep the conditions nest is the author's choice.
        let mut pending: Vec<&Value> = policy.get("conditions").into_iter().collect();
        while let Some(value) = pending.pop() {
            match value {
                Value::Array(values) => pending.extend(values),
                Value::Object(members) => looks.object(members, &mut pending),
                _ => {}
            }
        }
        looks
    }

    fn object<'a>(&mut self, members: &'a Map<String, Value>, pending: &mut Vec<&'a Value>) {
        for (operator, operand) in members {
            if operator == "Var" && operand == "context" {
                self.whole_context = true;
            }
            if operator == "has" {
                self.tested.extend(tested_path(operand));
            }
            if let Some(key) = context_key(operator, operand) {
                self.keys.insert(key.to_owned());
                continue;
            }
            let (left, right) = (operand.get("left"), operand.get("right"));
            for (networks, other) in [(left, right), (right, left)] {
                if networks.is_some_and(is_networks) {
                    self.networks.extend(other.into_iter().flat_map(texts));
                }
            }
            let group = match operator.as_str() {
                "in" => right,
                "is" => operand.get("in"),
                _ => None,
            };
            if let (Some(left), Some(group)) = (left, group)
                && !is_variable(left, "principal")
                && !is_variable(left, "action")
            {
                self.others_in.extend(entity_types(group));
            }
            pending.push(operand);
        }
    }
}

/// The key of `context` that an attribute access or test begins with.
fn context_key<'a>(operator: &str, operand: &'a Value) -> Option<&'a str> {
    if !matches!(operator, "." | "has") || !operand.get("left").is_some_and(|left| is_variable(left, "context")) {
        return None;
    }
    match operand.get("attr")? {
        Value::String(key) => Some(key),
        // `context has room.member` is one test with a path.
        Value::Array(path) => path.first()?.as_str(),
        _ => None,
    }
}

/// The path below `context` of the attribute that a `has` tests.
fn tested_path(operand: &Value) -> Option<Vec<String>> {
    let mut path: Vec<String> = match operand.get("attr")? {
        Value::Array(names) => names.iter().rev().filter_map(Value::as_str).map(str::to_owned).collect(),
        name => vec![name.as_str()?.to_owned()],
    };
    let mut left = operand.get("left")?;
    while let Some(access) = left.get(".") {
        path.push(access.get("attr")?.as_str()?.to_owned());
        left = access.get("left")?;
    }
    path.reverse();
    is_variable(left, "context").then_some(path)
}

fn is_variable(value: &Value, name: &str) -> bool {
    value.get("Var").is_some_and(|variable| variable == name)
}

fn is_networks(value: &Value) -> bool {
    value.get(".").is_some_and(|access| context_key(".", access) == Some("networks"))
}

/// Every text literal in an expression.
fn texts(expression: &Value) -> Vec<String> {
    let mut found = Vec::new();
    descend(expression, |key, value| {
        if key == "Value" {
            match value {
                Value::String(text) => found.push(text.clone()),
                Value::Array(values) => found.extend(values.iter().filter_map(Value::as_str).map(str::to_owned)),
                _ => {}
            }
        }
    });
    found
}

/// The type of every entity literal in an expression.
fn entity_types(expression: &Value) -> Vec<String> {
    let mut found = Vec::new();
    descend(expression, |key, value| {
        if key == "__entity" {
            found.extend(value.get("type").and_then(Value::as_str).map(str::to_owned));
        }
    });
    found
}

/// Shows every member of every object in `value` to `visit`.
fn descend<'a>(value: &'a Value, mut visit: impl FnMut(&'a str, &'a Value)) {
    let mut pending = vec![value];
    while let Some(value) = pending.pop() {
        match value {
            Value::Array(values) => pending.extend(values),
            Value::Object(members) => {
                for (key, value) in members {
                    visit(key, value);
                    pending.push(value);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(condition: &str) -> Looks {
        let policy: cedar_policy::Policy =
            format!("permit (principal, action, resource) when {{ {condition} }};").parse().unwrap();
        Looks::of(&policy.to_json().unwrap())
    }

    fn keys(condition: &str) -> Vec<String> {
        let looks = looks(condition);
        assert!(!looks.whole_context, "{condition}");
        looks.keys.into_iter().collect()
    }

    #[test]
    fn the_keys_that_a_condition_reads_are_found_in_every_spelling() {
        assert_eq!(keys("context.room.member"), ["room"]);
        assert_eq!(keys("context[\"room\"][\"member\"]"), ["room"]);
        assert_eq!(keys("context has room"), ["room"]);
        assert_eq!(keys("context has params.count && 1 < context.params.count"), ["params"]);
        assert_eq!(keys("context has \"self\""), ["self"]);
        assert_eq!(
            keys("if context.self then {a: context.room.member}.a else [context.params.b].contains(1)"),
            ["params", "room", "self"]
        );
        assert_eq!(
            keys("{context: \"context\", \"Var\": 1}.context == \"context\""),
            [""; 0],
            "words and record keys are no variables"
        );
        assert_eq!(keys("resource.context"), [""; 0]);
        assert_eq!(keys("context.context.networks.contains(1)"), ["context"]);
    }

    #[test]
    fn the_attributes_that_a_condition_tests_are_found_with_their_paths() {
        let found = looks(
            "context has room && context.params has count && context has a.b.c && context[\"x\"] has \"y-z\" && resource has owner \
             && {a: 1} has a && (if true then context else context) has unseen",
        );
        let paths: Vec<String> = found.tested.iter().map(|path| path.join(".")).filter(|path| !path.starts_with('a')).collect();
        assert_eq!(paths, ["params.count", "room", "x.y-z"]);
        assert!(found.tested.iter().any(|path| path.join(".") == "a.b.c"), "{:?}", found.tested);
    }

    #[test]
    fn the_context_as_a_whole_is_every_key() {
        for condition in
            ["context == {a: 1}", "(if true then context else context).room", "[context].contains(context)", "{a: context}.a.b"]
        {
            assert!(looks(condition).whole_context, "{condition}");
        }
    }

    #[test]
    fn networks_are_found_on_either_side() {
        let found = looks(
            "context.networks.contains(\"a\") && context[\"networks\"].containsAll([\"b\", \"c\"]) && [\"d\"].containsAny(context.networks) \
             && context.networks == [\"e\"] && context.params.networks.contains(\"no\") && \"no\" == context.params.x",
        );
        assert_eq!(found.networks.iter().map(String::as_str).collect::<Vec<_>>(), ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn memberships_of_others_are_told_apart_from_the_callers() {
        assert!(looks("principal in N::Role::\"a\" && action in [N::Action::\"b\"]").others_in.is_empty());
        for condition in [
            "resource in N::Role::\"a\"",
            "resource is N::User in N::Role::\"a\"",
            "(if true then principal else resource) in [N::Role::\"a\"]",
            "N::User::\"u\" in (if true then N::Role::\"a\" else N::Role::\"b\")",
        ] {
            assert_eq!(looks(condition).others_in.into_iter().collect::<Vec<_>>(), ["N::Role"], "{condition}");
        }
    }
}
