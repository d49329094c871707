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
pub mod vocabulary;

use std::sync::Arc;

pub use case::{Case, Expect, Known, KnownSubject};
pub use provider::{Action, Provider, Route, Then};
pub use source::Sources;

use crate::model::{Fault, Faults, Place};
use crate::policy::{Engine, Source};

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
    let Some(file) = files().find(|file| file.name == "provider.toml") else {
        return Err(Fault::new(Place::file(folder), "has no `provider.toml`").into());
    };
    let provider = provider::read(&file.path, &file.text)?;
    let mut faults = Faults::default();
    if provider.name != folder {
        let message = format!("`provider = \"{}\"` stands in the folder `{folder}`; the two must agree", provider.name);
        faults.push(Fault::new(Place::file(&file.path), message));
    }
    let policies: Vec<Source> = files()
        .filter(|file| file.name.ends_with(".cedar"))
        .map(|file| Source { file: file.path.clone(), text: file.text.clone() })
        .collect();
    let engine = Engine::compile(&provider.domain(networks), &policies).map_err(|found| faults.extend(found)).ok();
    let mut cases = Vec::new();
    if let Some(file) = files().find(|file| file.name == "cases.toml") {
        match case::read(&file.path, &file.text) {
            Ok(read) => {
                for case in &read {
                    for wrong in stated::unknown(&provider, networks, &case.known) {
                        faults.push(wrong.fault(&case.places, &case.place));
                    }
                    if let Some(engine) = &engine {
                        let policies: Vec<&str> = engine.policies().map(|policy| policy.id.as_str()).collect();
                        faults.extend(case.unknown_policies(&policies));
                    }
                }
                cases = read;
            }
            Err(found) => faults.extend(found),
        }
    }
    match engine {
        Some(engine) => {
            faults.or(Rules { provider, engine, cases, revision: sources.revision.clone(), networks: networks.to_vec() })
        }
        None => Err(faults.or(()).err().unwrap_or_default()),
    }
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
