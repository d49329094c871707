//! What is looked up once per upstream, refreshed by its changes where the upstream tells them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::Failure;
use super::ask::Ask;
use super::errand::Errand;
use super::lookup::Trouble;
use super::plan::TablePlan;
use super::reading;
use crate::model::Value;

/// After this many lookups of changes the whole is asked for again.
const CHANGES_IN_A_ROW: u32 = 19;

/// How far back changes are asked for, so that clocks may differ and writes may be seen late.
const OVERLAP: SignedDuration = SignedDuration::from_mins(5);

/// A table as the upstream told it.
#[derive(Debug)]
pub struct Table {
    rows: BTreeMap<String, Vec<String>>,
    holders: HashMap<String, Vec<String>>,
    /// Changes when the content does: the beginning of its SHA-256.
    pub revision: u64,
    /// When the lookup that this comes from began.
    began: Timestamp,
    /// How many lookups of changes lie between this and the last of the whole.
    changes: u32,
    /// A lookup of changes failed: the next one asks for the whole.
    distrusted: AtomicBool,
}

impl Table {
    /// The texts under `key`; none when it is not there.
    #[must_use]
    pub fn values(&self, key: &str) -> &[String] {
        self.rows.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// The keys, in order, under which `value` stands.
    #[must_use]
    pub fn keys_holding(&self, value: &str) -> &[String] {
        self.holders.get(value).map(Vec::as_slice).unwrap_or_default()
    }

    /// Every key with its texts, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.rows.iter().map(|(key, values)| (key.as_str(), values.as_slice()))
    }

    /// A table with these rows.
    #[cfg(test)]
    pub(crate) fn of<'a>(rows: impl IntoIterator<Item = (&'a str, Vec<&'a str>)>) -> Self {
        let texts = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect();
        Self::new(rows.into_iter().map(|(key, values)| (key.to_owned(), texts(values))).collect(), Timestamp::now(), 0)
    }

    fn new(rows: BTreeMap<String, Vec<String>>, began: Timestamp, changes: u32) -> Self {
        let mut holders: HashMap<String, Vec<String>> = HashMap::new();
        let mut content = Sha256::new();
        let mut field = |text: &str| {
            content.update((text.len() as u64).to_be_bytes());
            content.update(text);
        };
        for (key, values) in &rows {
            field(key);
            field(&values.len().to_string());
            for value in values {
                field(value);
                let keys = holders.entry(value.clone()).or_default();
                if keys.last() != Some(key) {
                    keys.push(key.clone());
                }
            }
        }
        let revision = content.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
        Self { rows, holders, revision, began, changes, distrusted: AtomicBool::new(false) }
    }
}

/// Looks a table up: only what changed since `previous` where that is possible, else the whole.
pub(super) async fn look_up<A: Ask>(
    errand: &Errand<'_, A>,
    plan: &TablePlan,
    previous: Option<Arc<Table>>,
) -> Result<Table, Trouble> {
    let base = previous.filter(|previous| previous.changes < CHANGES_IN_A_ROW && !previous.distrusted.load(Ordering::Relaxed));
    if let (Some(previous), Some(since)) = (base, &plan.since) {
        // Until this has gone well it may be the asking for changes that fails; also when the time bound ends it.
        previous.distrusted.store(true, Ordering::Relaxed);
        let began = Timestamp::now();
        let floor = previous.began.checked_sub(OVERLAP).unwrap_or(previous.began);
        let answer = ask(errand, plan, Some((since, &format!("{floor:.3}")))).await?;
        if let Some(rows) = merged(plan, &previous.rows, &answer)? {
            return Ok(Table::new(rows, began, previous.changes + 1));
        }
    }
    let began = Timestamp::now();
    let answer = ask(errand, plan, None).await?;
    let rows = rows(plan, &answer)?.into_iter().filter_map(|(key, values)| Some((key, values?)));
    Ok(Table::new(rows.collect(), began, 0))
}

async fn ask<A: Ask>(errand: &Errand<'_, A>, plan: &TablePlan, since: Option<(&str, &str)>) -> Result<Json, Trouble> {
    // A table names nothing, so a placeholder in its lookup has no value.
    let target = plan.lookup.target.fill(|_| None).ok_or_else(|| Failure::unavailable("the lookup has placeholders"))?;
    let target = since.map_or(target.clone(), |(name, time)| target.with_parameter(name, time));
    let answer = errand.ask(&plan.lookup, &target).await?;
    if answer.status == 401 {
        return Err(Trouble::Unauthorized);
    }
    Ok(answer.document()?)
}

/// The rows by their keys; nothing stands at one whose value cannot be read. One odd row costs that row and no other.
fn rows(plan: &TablePlan, document: &Json) -> Result<BTreeMap<String, Option<Vec<String>>>, Failure> {
    let found = reading::at(&plan.rows, document);
    let found = found.as_deref().and_then(Json::as_array).ok_or_else(|| Failure::unavailable("the answer has no rows"))?;
    let mut unreadable = 0;
    let mut rows = BTreeMap::new();
    for row in found {
        let key = reading::at(&plan.key, row).and_then(|key| reading::text(&key));
        let values = value(plan, row);
        if key.is_none() || values.is_none() {
            unreadable += 1;
        }
        if let Some(key) = key {
            rows.insert(key, values);
        }
    }
    if unreadable > 0 {
        tracing::warn!(table = plan.name, rows = unreadable, "rows of a table cannot be read and count as not there");
    }
    Ok(rows)
}

/// The texts of one row, as the server reads them; nothing when they have another form.
fn value(plan: &TablePlan, row: &Json) -> Option<Vec<String>> {
    let stated = reading::at(&plan.value, row).filter(|value| value.as_str() != Some(""));
    match (stated, &plan.default) {
        (None, None) => Some(Vec::new()),
        (None, Some(Value::Set(texts))) => Some(texts.clone()),
        (None, Some(other)) => Some(vec![other.to_string()]),
        (Some(value), None) => reading::texts(&value),
        (Some(value), Some(Value::Set(_))) => reading::list(&value),
        (Some(value), Some(_)) => reading::text(&value).map(|text| vec![text]),
    }
}

/// The previous rows with the changes in `document`; nothing when these contradict themselves, because a key that was
/// both changed and removed may be in either state now, or cannot be read: a change that was passed over would stay undone.
fn merged(
    plan: &TablePlan,
    previous: &BTreeMap<String, Vec<String>>,
    document: &Json,
) -> Result<Option<BTreeMap<String, Vec<String>>>, Failure> {
    let changed = rows(plan, document)?;
    let removed = match plan.removed.as_ref().and_then(|removed| reading::at(removed, document)) {
        Some(removed) => removed_keys(plan, &removed),
        None => Some(Vec::new()),
    };
    let Some(removed) = removed.filter(|removed| !removed.iter().any(|key| changed.contains_key(key))) else {
        return Ok(None);
    };
    let mut rows = previous.clone();
    for (key, values) in changed {
        match values {
            Some(values) => rows.insert(key, values),
            None => rows.remove(&key),
        };
    }
    for key in &removed {
        rows.remove(key);
    }
    Ok(Some(rows))
}

fn removed_keys(plan: &TablePlan, removed: &Json) -> Option<Vec<String>> {
    let key = |element: &Json| reading::text(element).or_else(|| reading::text(&*reading::at(&plan.key, element)?));
    removed.as_array()?.iter().map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, &[&str])]) -> Table {
        let owned =
            rows.iter().map(|(key, values)| ((*key).to_owned(), values.iter().map(|value| (*value).to_owned()).collect()));
        Table::new(owned.collect(), Timestamp::UNIX_EPOCH, 0)
    }

    #[test]
    fn a_table_answers_in_both_directions() {
        let permissions = table(&[("view", &["admin", "user", "user"]), ("audit", &["admin"]), ("none", &[])]);
        assert_eq!(permissions.values("view"), ["admin", "user", "user"]);
        assert!(permissions.values("other").is_empty());
        assert_eq!(permissions.keys_holding("admin"), ["audit", "view"]);
        assert_eq!(permissions.keys_holding("user"), ["view"], "once, however often it stands there");
        assert!(permissions.keys_holding("guest").is_empty());
    }

    #[test]
    fn the_revision_changes_exactly_when_the_content_does() {
        let honest = table(&[("a", &["b", "c"])]).revision;
        assert_eq!(honest, table(&[("a", &["b", "c"])]).revision);
        assert_ne!(honest, table(&[("a", &["bc"])]).revision);
        assert_ne!(honest, table(&[("a", &["b"]), ("c", &[])]).revision);
        assert_ne!(honest, table(&[("a", &["b"])]).revision);
    }
}
