//! The caller as the upstream knows it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::Value as Json;

use super::Failure;
use super::ask::Ask;
use super::errand::Errand;
use super::plan::CallerPlan;
use super::reading;
use crate::model::{Credential, Subject};

/// A proven caller. It lives as long as its cache entry, and every request of the same credential shares it.
#[derive(Debug)]
pub struct Caller {
    /// Who it is.
    pub subject: Subject,
    /// Tells it from every other caller of this process, one with the same subject too.
    pub number: u64,
}

impl Caller {
    /// A caller that is none of those before.
    #[must_use]
    pub fn new(subject: Subject) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Self { subject, number: NUMBERS.fetch_add(1, Ordering::Relaxed) }
    }
}

/// The sets of roles that callers have: few, however many callers there are.
#[derive(Debug, Default)]
pub(super) struct RoleSets(Mutex<HashSet<Arc<[Box<str>]>>>);

/// How many of them are shared; a server that gives each user a role of its own has no use of it.
const MOST_SETS: usize = 1000;

impl RoleSets {
    /// The one of `roles` that is shared.
    fn shared(&self, roles: Vec<String>) -> Arc<[Box<str>]> {
        let roles: Box<[Box<str>]> = roles.into_iter().map(String::into_boxed_str).collect();
        let mut sets = self.0.lock();
        if let Some(known) = sets.get(&*roles) {
            return Arc::clone(known);
        }
        let roles: Arc<[Box<str>]> = roles.into();
        if sets.len() < MOST_SETS {
            sets.insert(Arc::clone(&roles));
        }
        roles
    }
}

/// Asks who `errand`'s credential belongs to.
pub(super) async fn prove<A: Ask>(errand: &Errand<'_, A>, plan: &CallerPlan, sets: &RoleSets) -> Result<Subject, Failure> {
    // A caller lookup names nothing, so a placeholder in it has no value.
    let target = plan.lookup.target.fill(|_| None).ok_or_else(|| Failure::unavailable("the lookup has placeholders"))?;
    let answer = errand.ask(&plan.lookup, &target).await?;
    if plan.refused.contains(&answer.status) {
        return Err(Failure::Refused);
    }
    read(plan, errand.credential, &answer.document()?, sets)
}

fn read(plan: &CallerPlan, credential: &Credential, document: &Json, sets: &RoleSets) -> Result<Subject, Failure> {
    let id = reading::at(&plan.id, document).and_then(|id| reading::text(&id)).filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| Failure::unavailable("the answer has no caller id"))?;
    if plan.claims.iter().filter_map(|header| credential.header(header)).any(|claimed| claimed.reveal() != id) {
        return Err(Failure::Refused);
    }
    let name = match plan.name.as_ref().and_then(|name| reading::at(name, document)) {
        Some(name) => reading::text(&name).ok_or_else(|| Failure::unavailable("the caller's name is not a text"))?,
        None => String::new(),
    };
    // A caller whom another directory brought in may have none; anything but a list could be more or fewer than it seems.
    let roles = match plan.roles.as_ref().and_then(|roles| reading::at(roles, document)) {
        Some(roles) => reading::list(&roles).ok_or_else(|| Failure::unavailable("the caller's roles are not a list of texts"))?,
        None => Vec::new(),
    };
    let mut attributes = BTreeMap::new();
    for (attribute, pointer) in &plan.attributes {
        let texts = match reading::at(pointer, document) {
            Some(value) => reading::texts(&value).ok_or_else(|| {
                Failure::unavailable(format!("the caller's `{attribute}` is neither a text nor a list of texts"))
            })?,
            None => Vec::new(),
        };
        attributes.insert(attribute.clone(), texts);
    }
    Ok(Subject { id: id.into(), name: name.into(), roles: sets.shared(roles), attributes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_with_the_same_roles_share_them_until_there_are_too_many_sets() {
        let sets = RoleSets::default();
        let roles = |number: usize| sets.shared(vec!["user".to_owned(), format!("role {number}")]);
        let first = roles(0);
        assert!(Arc::ptr_eq(&first, &roles(0)));
        assert_eq!(first.iter().map(|role| &**role).collect::<Vec<_>>(), ["user", "role 0"]);
        assert!((1..=MOST_SETS).all(|number| roles(number) != first));
        assert_eq!(sets.0.lock().len(), MOST_SETS);
        assert_eq!(*roles(MOST_SETS), *roles(MOST_SETS), "known or not, they are the caller's");
    }
}
