//! The annotations of a policy: its id, the operator's reason, and what it demands when it permits.

use cedar_policy::Policy;

use crate::model::{Fault, Faults, Obligation};
use crate::policy::closest::did_you_mean;
use crate::policy::domain::ActionShape;
use crate::policy::statements::Statement;

/// The keys that mean something, with their spelling in a policy.
const KEYS: [(&str, &str); 4] = [("id", "@id"), ("reason", "@reason"), ("redact", "@redact"), ("without", "@without")];

/// What a policy's annotations say.
#[derive(Debug)]
pub(super) struct Annotations {
    /// A well-formed `@id`; whether it is unique is not known here.
    pub(super) id: Option<String>,
    pub(super) reason: Option<String>,
    /// Sorted, without repeats.
    pub(super) obligations: Vec<Obligation>,
}

/// Reads the annotations of a policy that can apply to `actions`; what is wrong goes to `faults`.
pub(super) fn read(policy: &Policy, statement: &Statement<'_>, actions: &[&ActionShape], faults: &mut Faults) -> Annotations {
    let mut reader = Reader { statement, faults };
    for (key, _) in policy.annotations().filter(|(key, _)| KEYS.iter().all(|(known, _)| known != key)) {
        let hint = did_you_mean(&format!("@{key}"), KEYS.map(|(_, written)| written))
            .unwrap_or_else(|| "`@id`, `@reason`, `@redact` and `@without` are known".to_owned());
        reader.fault(key, format!("unknown annotation `@{key}`"), Some(hint));
    }
    let id = reader.id(policy.annotation("id"));
    let reason = policy.annotation("reason").map(str::to_owned);
    if reason.as_deref() == Some("") {
        reader.fault("reason", "`@reason` needs a text", Some("write `@reason(\"…\")`".to_owned()));
    }
    if policy.effect() == cedar_policy::Effect::Forbid {
        for key in ["redact", "without"].into_iter().filter(|key| policy.annotation(key).is_some()) {
            let hint = "what is forbidden is not forwarded: annotate the permits".to_owned();
            reader.fault(key, format!("`@{key}` means nothing on a forbid"), Some(hint));
        }
        return Annotations { id, reason, obligations: Vec::new() };
    }
    let mut obligations = reader.without(policy.annotation("without"), actions);
    obligations.extend(reader.redact(policy.annotation("redact")));
    obligations.sort();
    obligations.dedup();
    Annotations { id, reason, obligations }
}

struct Reader<'a, 'f> {
    statement: &'a Statement<'a>,
    faults: &'f mut Faults,
}

impl Reader<'_, '_> {
    fn fault(&mut self, key: &str, message: impl Into<String>, hint: Option<String>) {
        let fault = Fault::new(self.statement.annotation(key), message);
        self.faults.push(Fault { hint, ..fault });
    }

    fn id(&mut self, value: Option<&str>) -> Option<String> {
        let form = "write `@id(\"…\")` before the policy, of lower-case letters, digits and hyphens".to_owned();
        match value {
            None => self.fault("id", "the policy has no `@id`", Some(form)),
            Some(id) if is_id(id) => return Some(id.to_owned()),
            Some(id) => self.fault("id", format!("`{id}` is not an id"), Some(form)),
        }
        None
    }

    fn without(&mut self, value: Option<&str>, actions: &[&ActionShape]) -> Vec<Obligation> {
        let Some(value) = value else { return Vec::new() };
        let names: Vec<&str> = value.split(',').map(str::trim).collect();
        for name in &names {
            if name.is_empty() {
                self.fault("without", "`@without` needs the names of parameters", Some("separate them with commas".to_owned()));
                continue;
            }
            for action in actions {
                match action.params.iter().find(|param| param.name == *name) {
                    None => {
                        let hint = did_you_mean(name, action.params.iter().map(|param| param.name.as_str()));
                        self.fault("without", format!("action `{}` has no parameter `{name}`", action.name), hint);
                    }
                    Some(param) if param.required => {
                        let message =
                            format!("parameter `{name}` of action `{}` is required and cannot be left out", action.name);
                        self.fault("without", message, None);
                    }
                    Some(_) => {}
                }
            }
        }
        names.into_iter().map(|name| Obligation::Without(name.to_owned())).collect()
    }

    fn redact(&mut self, value: Option<&str>) -> Vec<Obligation> {
        let Some(value) = value else { return Vec::new() };
        let pointers: Vec<&str> = value.split(',').map(str::trim).collect();
        for pointer in pointers.iter().filter(|pointer| !is_pointer(pointer)) {
            let hint = "write `/user/services`; `~` is written `~0` and `/` within a name `~1` (RFC 6901)".to_owned();
            self.fault("redact", format!("`{pointer}` is not a JSON pointer to a part of the answer"), Some(hint));
        }
        let hint = "remove the annotation, or leave the parameter out with `@without`".to_owned();
        self.fault("redact", "this release does not carry out `@redact` yet, so it refuses the policy", Some(hint));
        pointers.into_iter().map(|pointer| Obligation::Redact(pointer.to_owned())).collect()
    }
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// Whether `text` is a JSON pointer (RFC 6901) to less than the whole document.
fn is_pointer(text: &str) -> bool {
    text.starts_with('/') && text.split('~').skip(1).all(|after| after.starts_with(['0', '1']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_names_a_part_and_escapes_its_tildes() {
        for good in ["/user/services", "/", "/a~0b/~1", "/0"] {
            assert!(is_pointer(good), "{good}");
        }
        for bad in ["", "user", "/a~", "/a~2", "/~01~"] {
            assert!(!is_pointer(bad), "{bad}");
        }
    }

    #[test]
    fn an_id_has_one_spelling() {
        assert!(is_id("rooms-roles-2"));
        for bad in ["", "Rooms", "a b", "a_b", "é"] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
