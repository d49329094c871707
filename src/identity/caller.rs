//! The caller as the upstream knows it, and a place to keep what was prepared for it.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
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
    pub subject: Arc<Subject>,
    /// What the decision point prepared for it.
    pub memo: Memo,
}

/// One slot for a value of any type, which lives only as long as somebody else has it: a million callers are remembered, but
/// what was prepared for each of them is several times as large as all that is known of it.
#[derive(Default)]
pub struct Memo(ArcSwapOption<Weak<dyn Any + Send + Sync>>);

impl Memo {
    /// What was kept last, if it is a `T` and lives.
    #[must_use]
    pub fn read<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let kept = self.0.load();
        let value: &Weak<dyn Any + Send + Sync> = kept.as_ref()?;
        value.upgrade()?.downcast().ok()
    }

    /// Keeps `value` instead of what was kept before, whatever that was.
    pub fn keep<T: Any + Send + Sync>(&self, value: &Arc<T>) {
        let value: Weak<T> = Arc::downgrade(value);
        self.0.store(Some(Arc::new(value)));
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.load().is_some() { "Memo(kept)" } else { "Memo(empty)" })
    }
}

/// Asks who `errand`'s credential belongs to.
pub(super) async fn prove<A: Ask>(errand: &Errand<'_, A>, plan: &CallerPlan) -> Result<Subject, Failure> {
    // A caller lookup names nothing, so a placeholder in it has no value.
    let target = plan.lookup.target.fill(|_| None).ok_or_else(|| Failure::unavailable("the lookup has placeholders"))?;
    let answer = errand.ask(plan.lookup.base.as_deref(), &target).await?;
    if plan.refused.contains(&answer.status) {
        return Err(Failure::Refused);
    }
    read(plan, errand.credential, &answer.document()?)
}

fn read(plan: &CallerPlan, credential: &Credential, document: &Json) -> Result<Subject, Failure> {
    let id = reading::at(&plan.id, document).and_then(|id| reading::text(&id)).filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| Failure::unavailable("the answer has no caller id"))?;
    if plan.claims.iter().filter_map(|header| credential.header(header)).any(|claimed| claimed.reveal() != id) {
        return Err(Failure::Refused);
    }
    let name = match plan.name.as_ref().and_then(|name| reading::at(name, document)) {
        Some(name) => reading::text(&name).ok_or_else(|| Failure::unavailable("the caller's name is not a text"))?,
        None => String::new(),
    };
    let roles = match &plan.roles {
        Some(roles) => reading::at(roles, document)
            .and_then(|roles| reading::texts(&roles))
            .ok_or_else(|| Failure::unavailable("the answer has no list of roles"))?,
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
    Ok(Subject { id, name, roles, attributes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_keeps_one_value_while_it_lives_and_knows_its_type() {
        let memo = Memo::default();
        assert_eq!(memo.read::<u8>(), None);
        let (seven, text) = (Arc::new(7_u8), Arc::new("text"));
        memo.keep(&seven);
        assert_eq!(memo.read::<u8>().as_deref(), Some(&7));
        assert_eq!(memo.read::<u16>(), None, "another type is not it");
        memo.keep(&text);
        assert_eq!(memo.read::<u8>(), None);
        assert_eq!(memo.read::<&str>().as_deref(), Some(&"text"));
        drop(text);
        assert_eq!(memo.read::<&str>(), None);
    }
}
