//! Carrying out the steps of one fact.

use serde_json::Value as Json;

use super::Failure;
use super::ask::Ask;
use super::errand::Errand;
use super::plan::{FactPlan, Lookup, Source, Step};
use super::pointer::Pointer;
use super::reading;
use super::scope::Scope;
use super::template::Filled;
use crate::model::{Record, Value};

/// How many questions one fact may take, all its pages counted.
const QUESTIONS: usize = 50;

/// Why a fact was not found.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The answer was 401 where that does not mean that nothing is known: is the credential still good?
    Unauthorized,
    /// Anything else.
    Failed(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Carries out every step of `fact` and gives all its outputs.
pub(super) async fn fact<A: Ask>(errand: &Errand<'_, A>, fact: &FactPlan, mut scope: Scope<'_>) -> Result<Record, Trouble> {
    let mut walk = Walk { errand, questions_left: QUESTIONS };
    for step in &fact.steps {
        let holds =
            |name: &String| scope.found.value(name).cloned().or_else(|| fact.unset(name)).is_some_and(|value| value.holds());
        if !step.when.iter().all(holds) || step.unless.iter().any(holds) {
            continue;
        }
        let found = match &step.source {
            Source::Found(name) => {
                let value = scope.found.value(name).cloned().or_else(|| fact.unset(name));
                step.read(&value.map_or(Json::Null, json), &scope)?
            }
            Source::Nothing => step.read(&Json::Null, &scope)?,
            Source::Caller(_) | Source::Lookup(_) => walk.step(step, &scope).await?,
        };
        if let Some(found) = found {
            for (name, value) in found {
                scope.found.set(name, value);
            }
        }
    }
    let outputs = fact.steps.iter().flat_map(|step| &step.outputs).map(|output| output.name.as_str());
    let known = outputs.filter_map(|name| {
        let value = scope.found.value(name).cloned().or_else(|| fact.unset(name))?;
        Some((name, value))
    });
    Ok(known.collect())
}

/// A value as the document of a step.
fn json(value: Value) -> Json {
    match value {
        Value::Boolean(value) => value.into(),
        Value::Integer(number) => number.into(),
        Value::Text(text) => text.into(),
        Value::Set(texts) => texts.into(),
    }
}

impl Step {
    /// Every output of the step in `document`; nothing when one lacks what it needs.
    fn read(&self, document: &Json, scope: &Scope<'_>) -> Result<Option<Vec<(String, Value)>>, Failure> {
        let found = self.outputs.iter().map(|output| {
            let value = reading::output(output, document, scope)?;
            Ok(value.map(|value| (output.name.clone(), value)))
        });
        found.collect()
    }
}

struct Walk<'a, A> {
    errand: &'a Errand<'a, A>,
    questions_left: usize,
}

impl<A: Ask> Walk<'_, A> {
    /// What the step found; nothing when it is absent.
    async fn step(&mut self, step: &Step, scope: &Scope<'_>) -> Result<Option<Vec<(String, Value)>>, Trouble> {
        // Before any question: a step that lacks a value must not ask about something else, or for nothing.
        if step.placeholders().any(|name| scope.text(name).is_none_or(|value| value.is_empty())) {
            return Ok(None);
        }
        let document = match &step.source {
            Source::Caller(attribute) => Some(Json::from(scope.caller(attribute).to_vec())),
            Source::Lookup(lookup) => self.document(step, lookup, scope).await?,
            Source::Found(_) | Source::Nothing => None,
        };
        let Some(document) = document else { return Ok(None) };
        Ok(step.read(&document, scope)?)
    }

    /// The document that the step's outputs are read from: an answer, or the one row that matches.
    async fn document(&mut self, step: &Step, lookup: &Lookup, scope: &Scope<'_>) -> Result<Option<Json>, Trouble> {
        let Some(first) = lookup.target.fill(|name| scope.text(name)) else { return Ok(None) };
        let Some(rows) = &step.rows else { return self.question(step, lookup, &first).await };
        let mut wanted = Vec::with_capacity(step.matching.len());
        for (field, template) in &step.matching {
            let Some(value) = template.fill(|name| scope.text(name)) else { return Ok(None) };
            wanted.push((field, value));
        }
        let mut only = None;
        let mut page = first.clone();
        loop {
            let Some(document) = self.question(step, lookup, &page).await? else { return Ok(None) };
            let rows = reading::at(rows, &document);
            let rows = rows.as_deref().and_then(Json::as_array).ok_or_else(|| Failure::unavailable("the answer has no rows"))?;
            for row in rows.iter().filter(|row| matches(row, &wanted)) {
                if only.replace(row.clone()).is_some() {
                    // Two answer to the description: which one is the caller is not known.
                    return Ok(None);
                }
            }
            match next_query(step.next.as_ref(), &document)? {
                Some(query) => page = first.with_query(query),
                None => return Ok(only),
            }
        }
    }

    /// The document that answers `target`; nothing when the status says that nothing is known.
    async fn question(&mut self, step: &Step, lookup: &Lookup, target: &Filled) -> Result<Option<Json>, Trouble> {
        self.questions_left = self
            .questions_left
            .checked_sub(1)
            .ok_or_else(|| Failure::unavailable(format!("it takes more than {QUESTIONS} questions")))?;
        let answer = self.errand.ask(lookup, target).await?;
        match answer.status {
            status if step.absent.contains(&status) => Ok(None),
            401 => Err(Trouble::Unauthorized),
            _ => Ok(Some(answer.document()?)),
        }
    }
}

fn matches(row: &Json, wanted: &[(&Pointer, String)]) -> bool {
    wanted.iter().all(|(field, value)| {
        let held = reading::at(field, row).and_then(|held| reading::text(&held));
        held.is_some_and(|held| held.eq_ignore_ascii_case(value))
    })
}

/// The query of the next page's URI, the one part of it that is believed: a URI of another place would carry the
/// credential there.
fn next_query(next: Option<&Pointer>, document: &Json) -> Result<Option<String>, Failure> {
    let Some(value) = next.and_then(|next| reading::at(next, document)) else { return Ok(None) };
    let uri = value.as_str().ok_or_else(|| Failure::unavailable("the next page is not named by a text"))?;
    if uri.is_empty() {
        return Ok(None);
    }
    let query = uri.split('#').next().and_then(|uri| uri.split_once('?')).map(|(_, query)| query);
    match query {
        Some(query) if !query.is_empty() && query.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(query.to_owned())),
        _ => Err(Failure::unavailable("the next page's URI has no readable query")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_query_of_the_next_page_is_believed() {
        let next: Pointer = "/next".parse().unwrap();
        let query = |uri: Json| next_query(Some(&next), &json!({"next": uri}));
        assert_eq!(query(json!("https://evil.example/x?page=2#y")), Ok(Some("page=2".into())));
        assert_eq!(query(json!("/other?page=2")), Ok(Some("page=2".into())));
        assert_eq!(query(json!(null)), Ok(None));
        assert_eq!(query(json!("")), Ok(None));
        for unreadable in [json!("/no-query"), json!("/empty?"), json!("/a?b c"), json!("/a?b\r\nx: y"), json!("/a?ü"), json!(2)]
        {
            assert!(query(unreadable.clone()).is_err(), "{unreadable}");
        }
    }
}
