//! Names in policies that Cedar's own check passes over: roles, permissions, networks, and what `has` asks for.

use std::collections::BTreeSet;

use cedar_policy::{EntityUid, Policy, ResourceConstraint};

use crate::model::{Fault, Faults};
use crate::policy::closest::did_you_mean;
use crate::policy::condition::Looks;
use crate::policy::domain::{ActionShape, Domain};
use crate::policy::statements::Statement;

/// Reports every role, permission and network that the domain does not declare, and every question for memberships that are not known.
pub(super) fn check(domain: &Domain, policy: &Policy, looks: &Looks, statement: &Statement<'_>, faults: &mut Faults) {
    let role = format!("{}::Role", domain.namespace);
    let permission = format!("{}::Permission", domain.namespace);
    for entity in policy.entity_literals().into_iter().collect::<BTreeSet<EntityUid>>() {
        let kind = entity.type_name().to_string();
        let (what, known) = match kind {
            _ if kind == role => ("role", &domain.roles),
            _ if kind == permission => ("permission", &domain.permissions),
            _ => continue,
        };
        let name = entity.id().unescaped();
        if known.iter().any(|known| known == name) {
            continue;
        }
        let hint = did_you_mean(name, known.iter().map(String::as_str))
            .unwrap_or_else(|| format!("add it to `{what}s` in the provider file, if the server knows it"));
        let message = format!("unknown {what} `{name}`");
        let mut places = statement.entity(&entity.to_string());
        if places.is_empty() {
            places.push(statement.place());
        }
        for place in places {
            faults.push(Fault::new(place, message.clone()).hint(hint.clone()));
        }
    }
    for name in looks.networks.iter().filter(|name| !domain.networks.contains(name)) {
        let hint = did_you_mean(name, domain.networks.iter().map(String::as_str))
            .unwrap_or_else(|| "name it under `[networks]` in the configuration".to_owned());
        let place = statement.string(name).unwrap_or_else(|| statement.place());
        faults.push(Fault::new(place, format!("unknown network `{name}`")).hint(hint));
    }
    let scope = match policy.resource_constraint() {
        ResourceConstraint::In(group) | ResourceConstraint::IsIn(_, group) => Some(group.type_name().to_string()),
        _ => None,
    };
    if looks.others_in.iter().chain(&scope).any(|kind| *kind == role || *kind == permission) {
        // Nobody's roles but the caller's are in the store: the condition would be false without an error, and a forbid be lost.
        let fault = Fault::new(statement.place(), "only the caller's own roles and permissions are known to a policy");
        faults.push(fault.hint("ask with `principal in`, or compare with `==`"));
    }
}

/// Reports every attribute of the context that a policy tests with `has` and that none of its actions knows.
///
/// To Cedar such a test is simply false. In an `unless` a misspelt name would then permit what it was written to refuse.
pub(super) fn tested(actions: &[&ActionShape], looks: &Looks, statement: &Statement<'_>, faults: &mut Faults) {
    for path in looks.tested.iter().filter(|_| !actions.is_empty()) {
        let (key, name) = match path.as_slice() {
            [name] => (None, name),
            [key, name] => (Some(key.as_str()), name),
            // Nothing in the context is deeper; Cedar refuses what is tested below a text or a number.
            _ => continue,
        };
        let known: BTreeSet<&str> = actions.iter().flat_map(|action| action.attributes(key)).collect();
        if known.contains(name.as_str()) {
            continue;
        }
        let fault = Fault::new(statement.tested(name), format!("no action of this policy has `context.{}`", path.join(".")));
        faults.push(match did_you_mean(name, known) {
            Some(hint) => fault.hint(hint),
            None => fault,
        });
    }
}
