//! The rules in force: provider files, policies and cases, checked together and never changed afterwards (the policy
//! administration point).

pub mod case;
mod check;
pub mod json;
pub mod param;
pub mod provider;
mod raw;
pub mod refusal;
pub mod router;
pub mod source;
pub mod stated;
pub mod target;
mod typed;
pub mod vocabulary;

use std::sync::Arc;

pub use case::{Case, Expect, Known, KnownSubject};
pub use provider::{Action, Provider, Route, Then};
pub use source::Sources;

use crate::model::{Fault, Faults, Place};
use crate::policy::{Engine, Source};
pub(crate) use typed::{places, read as typed_file};

/// Everything that a request is judged by. A request keeps the one it began with.
#[derive(Debug)]
pub struct Ruleset {
    /// Names the texts that it was made of.
    pub revision: String,
    providers: Vec<Arc<Rules>>,
}

/// The rules of one provider.
#[derive(Debug)]
pub struct Rules {
    /// What is guarded and how.
    pub provider: Provider,
    /// The policies.
    pub engine: Engine,
    /// The cases that hold them.
    pub cases: Vec<Case>,
    /// The revision of the set they belong to.
    pub revision: String,
    /// The operator's named networks, which policies and cases may name.
    pub networks: Vec<String>,
    /// What does nothing and is no fault: told to the author, and no more.
    pub notes: Vec<Fault>,
}

impl Ruleset {
    /// Reads, checks and compiles `sources`; `networks` are the names that the operator's configuration declares.
    ///
    /// # Errors
    /// Every fault of every file, with its place.
    pub fn load(sources: &Sources, networks: &[String]) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let mut providers = Vec::new();
        let mut folders: Vec<&str> = sources.files.iter().map(|file| file.provider.as_str()).collect();
        folders.dedup();
        for folder in folders {
            match rules(sources, folder, networks) {
                Ok(rules) => providers.push(Arc::new(rules)),
                Err(found) => faults.extend(found),
            }
        }
        faults.or(Self { revision: sources.revision.clone(), providers })
    }

    /// The rules of the provider `name`.
    #[must_use]
    pub fn provider(&self, name: &str) -> Option<&Arc<Rules>> {
        self.providers.iter().find(|rules| rules.provider.name == name)
    }

    /// The rules of every provider.
    pub fn providers(&self) -> impl Iterator<Item = &Arc<Rules>> {
        self.providers.iter()
    }
}

fn rules(sources: &Sources, folder: &str, networks: &[String]) -> Result<Rules, Faults> {
    let files = || sources.files.iter().filter(|file| file.provider == folder);
    let shown = files().next().map_or(folder, |file| file.path.strip_suffix(&file.name).unwrap_or(folder).trim_end_matches('/'));
    let Some(file) = files().find(|file| file.name == "provider.toml") else {
        let fault = Fault::new(Place::file(shown), "has no `provider.toml`");
        return Err(fault.hint("`rolegate init DIR` writes the built-in ones").into());
    };
    let provider = provider::read(&file.path, &file.text)?;
    let mut faults = Faults::default();
    if provider.name != folder {
        let place = typed::places(&file.path, &file.text).into_iter().find(|(key, _)| key == "provider");
        let place = place.map_or_else(|| Place::file(&file.path), |(_, place)| place);
        let message = format!("`provider = \"{}\"` stands in the folder `{folder}`; the two must agree", provider.name);
        faults.push(Fault::new(place, message).hint(format!("write `provider = \"{folder}\"`, or rename the folder")));
    }
    let policies: Vec<Source> = files()
        .filter(|file| file.name.ends_with(".cedar"))
        .map(|file| Source { file: file.path.clone(), text: file.text.clone() })
        .collect();
    let engine = Engine::compile(&provider.domain(networks), &policies)
        .map_err(|found| faults.extend(placed(found, &provider, file)))
        .ok();
    if !provider.actions.is_empty() && engine.as_ref().is_some_and(|engine| engine.policies().count() == 0) {
        // Without this each case that expects a permit would fail by itself.
        let fault = match policies.first() {
            None => Fault::new(Place::file(shown), "has no `policy.cedar`"),
            Some(first) if first.text.is_empty() => Fault::new(Place::file(&first.file), "is empty: nobody may do anything"),
            Some(first) => Fault::new(Place::at(&first.file, "", 0), "holds no policy: nobody may do anything"),
        };
        faults.push(fault.hint("`rolegate init DIR` writes the built-in policies"));
    }
    let mut notes = Vec::new();
    let mut cases = Vec::new();
    if let Some(file) = files().find(|file| file.name == "cases.toml") {
        match case::read(&file.path, &file.text) {
            Ok(read) => {
                for case in &read {
                    for wrong in stated::unknown(&provider, networks, &case.known) {
                        faults.push(wrong.fault(&case.places, &case.place));
                    }
                    // Without any policy that is the fault.
                    if let Some(engine) = engine.as_ref().filter(|engine| engine.policies().count() > 0) {
                        let policies: Vec<&str> = engine.policies().map(|policy| policy.id.as_str()).collect();
                        faults.extend(case.unknown_policies(&policies));
                    }
                }
                cases = read;
            }
            Err(found) => faults.extend(found),
        }
    } else {
        let note = Fault::new(Place::file(shown), "has no `cases.toml`: nothing holds what the policies permit and refuse");
        notes.push(note.hint("write a `[[case]]` for each policy; `rolegate init DIR` writes those of the built-in policies"));
    }
    match engine {
        Some(engine) => {
            notes.extend(idle(&provider, &engine));
            let (revision, networks) = (sources.revision.clone(), networks.to_vec());
            faults.or(Rules { provider, engine, cases, revision, networks, notes })
        }
        None => Err(faults.or(()).err().unwrap_or_default()),
    }
}

/// Gives faults of the declarations, which the policies' reader finds, the places that it does not know.
fn placed(mut faults: Faults, provider: &Provider, file: &source::SourceFile) -> Faults {
    for fault in faults.0.iter_mut().filter(|fault| fault.place == Place::file(crate::policy::DECLARED_IN)) {
        let of = |action: &&Arc<Action>| fault.message.starts_with(&format!("action `{}`", action.id));
        let action = provider.actions.iter().find(of);
        fault.place = action.map_or_else(|| Place::file(&file.path), |action| action.place.clone());
    }
    faults
}

/// Declarations that do nothing: an action that no policy permits, and one that is sent with a body and takes none.
fn idle(provider: &Provider, engine: &Engine) -> Vec<Fault> {
    let permitted: std::collections::BTreeSet<&str> = engine
        .policies()
        .filter(|policy| policy.effect == crate::policy::Effect::Permit)
        .flat_map(|policy| policy.actions.iter().map(String::as_str))
        .collect();
    let mut notes = Vec::new();
    for action in &provider.actions {
        let (id, namespace) = (&action.id, &provider.namespace);
        if !permitted.contains(id.as_str()) {
            let note = Fault::new(action.place.clone(), format!("no policy permits `{id}`: it is refused to everybody"));
            notes.push(note.hint(format!(
                "add `@id(\"…\") permit (principal, action == {namespace}::Action::\"{id}\", resource) when {{ … }};` to a policy file"
            )));
        }
        let with_body = |door: &&Arc<router::Pattern>| matches!(door.method.as_str(), "POST" | "PUT" | "PATCH");
        if let Some(door) = action.doors.iter().find(with_body).filter(|_| !action.takes_body()) {
            let note = Fault::new(action.place.clone(), format!("`{door}` takes no body: a request that has one is refused"));
            notes.push(note.hint("declare what the body holds: parameters with `in = \"body\"`"));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_rules_have_no_fault() {
        let ruleset = Ruleset::load(&Sources::built_in(), &[]).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(ruleset.providers().count(), 3);
        let actions: usize = ruleset.providers().map(|rules| rules.provider.actions.len()).sum();
        assert_eq!(actions, 31, "five routes and five methods of the sample servers, and Matrix's");
        for rules in ruleset.providers() {
            assert_eq!(rules.engine.left_to_cedar().count(), 0, "{} has a policy that is decided slowly", rules.provider.name);
        }
    }
}
