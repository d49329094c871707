//! What the placeholders of a fact may name: its inputs, the caller, and what earlier steps found.

use std::borrow::Cow;

use crate::model::{Record, Subject, Value};

/// The values within one lookup of a fact.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) subject: &'a Subject,
    inputs: &'a [(&'a str, &'a str)],
    /// What steps that ran have set; nothing stands here by default.
    pub(super) found: Record,
}

impl<'a> Scope<'a> {
    pub(super) fn new(subject: &'a Subject, inputs: &'a [(&'a str, &'a str)]) -> Self {
        Self { subject, inputs, found: Record::default() }
    }

    /// The input named `name`.
    pub(super) fn input(&self, name: &str) -> Option<&'a str> {
        self.inputs.iter().find(|(input, _)| *input == name).map(|(_, value)| *value)
    }

    /// All texts of the caller that are named `name`.
    pub(super) fn caller(&self, name: &str) -> Vec<&'a str> {
        match name {
            "id" => vec![&self.subject.id],
            "name" => vec![&self.subject.name],
            "roles" => self.subject.roles.iter().map(|role| &**role).collect(),
            attribute => self.subject.attributes.get(attribute).into_iter().flatten().map(String::as_str).collect(),
        }
    }

    /// What the placeholder `name` stands for: `caller.…`, an input, or an output that a step has set, in this order.
    pub(super) fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some(attribute) = name.strip_prefix("caller.") {
            return self.caller(attribute).first().map(|text| (*text).into());
        }
        if let Some(input) = self.input(name) {
            return Some(input.into());
        }
        match self.found.value(name)? {
            Value::Text(text) => Some(text.as_str().into()),
            Value::Set(texts) => texts.first().map(|text| text.as_str().into()),
            other => Some(other.to_string().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_names_the_caller_an_input_or_an_earlier_answer() {
        let attributes = [("email".to_owned(), vec!["a@b".to_owned(), "c@d".to_owned()])].into();
        let subject = Subject { id: "u1".into(), name: "alice".into(), attributes, ..Subject::default() };
        let inputs = [("room", "r1")];
        let mut scope = Scope::new(&subject, &inputs);
        scope.found.set("role", Value::Integer(7));
        scope.found.set("room", Value::from("another"));
        let known = |name| scope.text(name).map(Cow::into_owned);
        assert_eq!(known("caller.id").as_deref(), Some("u1"));
        assert_eq!(known("caller.name").as_deref(), Some("alice"));
        assert_eq!(known("caller.email").as_deref(), Some("a@b"), "the first of several");
        assert_eq!(known("caller.phone"), None);
        assert_eq!(known("room").as_deref(), Some("r1"), "what a key was made of comes before what was found");
        assert_eq!(known("role").as_deref(), Some("7"));
        assert_eq!(known("other"), None);
    }
}
