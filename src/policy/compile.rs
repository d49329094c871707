//! From policy files to an engine: parse, check everything, index by action; all faults at once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{
    ActionConstraint, Authorizer, Entities, EntityTypeName, Policy, PolicyId, PolicySet, ResourceConstraint, Schema,
    ValidationMode, Validator,
};

use crate::model::{Fault, Faults, Place};
use crate::policy::annotations;
use crate::policy::answer::{Effect, PolicyInfo};
use crate::policy::compiled::{Compiled, Names};
use crate::policy::condition::Looks;
use crate::policy::context::Reads;
use crate::policy::domain::{ActionShape, Domain, declared};
use crate::policy::engine::{Engine, Indexed};
use crate::policy::literals;
use crate::policy::principal::{Types, entity};
use crate::policy::statements::{Statement, statements};

/// The words that one policy may have, far above what people write. Cedar reads and checks conditions by recursion, and a policy
/// that nests deeper than the stack would end the process.
const MAX_WORDS: usize = 2000;
/// A stack for the deepest nesting that [`MAX_WORDS`] allow; only what is used is ever taken from memory.
const STACK_BYTES: usize = 256 * 1024 * 1024;
/// Up to how many actions a policy is first validated against these alone.
const FEW_ACTIONS: usize = 8;
/// Where a fault is laid that belongs to no file.
const NO_FILE: &str = "policies";

/// One policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file as the operator would open it.
    pub file: String,
    /// Its content.
    pub text: String,
}

impl Engine {
    /// Checks every policy of `sources` against `domain` and indexes them by action.
    ///
    /// # Errors
    /// Every fault found in any file: syntax, names, types, annotations, and policies that can never match.
    pub fn compile(domain: &Domain, sources: &[Source]) -> Result<Self, Faults> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("policies".to_owned()).stack_size(STACK_BYTES);
            let unfinished =
                |why: String| Faults::from(Fault::new(Place::file(NO_FILE), format!("the policies were not checked: {why}")));
            let compiling = thread.spawn_scoped(scope, || Self::compile_here(domain, sources));
            let compiling = compiling.map_err(|error| unfinished(error.to_string()))?;
            compiling.join().unwrap_or_else(|_| Err(unfinished("a fault of the checker itself".to_owned())))
        })
    }

    fn compile_here(domain: &Domain, sources: &[Source]) -> Result<Self, Faults> {
        let mut faults = domain.faults();
        let vocabulary = Vocabulary::of(domain).map_err(|found| faults.extend(found)).ok();
        let mut loaded = Loaded::new(domain);
        for source in sources {
            let statements = statements(source);
            match parse(source, &statements) {
                Ok(set) => loaded.take(source, &set, &statements, &mut faults),
                Err(found) => faults.extend(found),
            }
        }
        let Some(vocabulary) = vocabulary else {
            return Err(faults.or(()).err().unwrap_or_default());
        };
        loaded.validate(&vocabulary.schema, &mut faults);
        let engine = loaded.index(vocabulary, &mut faults);
        faults.or(engine)
    }
}

/// The schema of a domain and what is derived from it once.
struct Vocabulary {
    schema: Schema,
    types: Types,
    action_type: EntityTypeName,
    action_entities: Arc<Entities>,
}

impl Vocabulary {
    fn of(domain: &Domain) -> Result<Self, Faults> {
        let name = |kind: &str| -> Result<EntityTypeName, Faults> {
            format!("{}::{kind}", domain.namespace).parse().map_err(|error| declared(format!("{error}")).into())
        };
        let types = Types { user: name("User")?, role: name("Role")?, permission: name("Permission")? };
        let (schema, warnings) =
            Schema::from_cedarschema_str(&domain.schema()).map_err(|error| declared(DetailedError::from(&error).message))?;
        let mut faults = Faults::default();
        for warning in warnings {
            faults.push(declared(warning.to_string()));
        }
        let action_entities = schema.action_entities().map_err(|error| declared(error.to_string()))?;
        faults.or(Self { schema, types, action_type: name("Action")?, action_entities: Arc::new(action_entities) })
    }
}

/// The policies of one file as Cedar reads them, numbered `policy0`, `policy1`, ….
fn parse(source: &Source, statements: &[Statement<'_>]) -> Result<PolicySet, Faults> {
    let mut faults = Faults::default();
    for statement in statements.iter().filter(|statement| statement.length() > MAX_WORDS) {
        let message = format!("the policy has more than {MAX_WORDS} words");
        faults.push(Fault::new(statement.place(), message).hint("split it: several policies permit what one with `||` does"));
    }
    faults.or(())?;
    source.text.parse::<PolicySet>().map_err(|errors| {
        let mut faults = Faults::default();
        for error in errors.iter() {
            let whole = Place::at(&source.file, &source.text, source.text.len());
            faults.push(cedar_fault(&DetailedError::from(error), |offset| Place::at(&source.file, &source.text, offset), whole));
        }
        faults
    })
}

/// What Cedar says about a place, in this house's form: its help, else the label of the place, becomes the hint.
fn cedar_fault(error: &DetailedError, at: impl Fn(usize) -> Place, otherwise: Place) -> Fault {
    let label = error.source_locations.first();
    let place = label.map_or(otherwise, |label| at(label.loc.start));
    let hint = error.help.clone().or_else(|| label.and_then(|label| label.label.clone()));
    Fault { hint, ..Fault::new(place, error.message.clone()) }
}

/// The policies that have been read, each under an id of its own.
struct Loaded<'a> {
    domain: &'a Domain,
    /// Where each action stands in the domain.
    positions: HashMap<&'a str, usize>,
    policies: Vec<Read<'a>>,
    /// Which policy used each `@id` first.
    ids: HashMap<String, usize>,
}

struct Read<'a> {
    policy: Policy,
    statement: Statement<'a>,
    looks: Looks,
    /// Its form in JSON.
    json: serde_json::Value,
    info: Arc<PolicyInfo>,
}

impl<'a> Loaded<'a> {
    fn new(domain: &'a Domain) -> Self {
        let positions = domain.actions.iter().enumerate().map(|(position, action)| (action.name.as_str(), position)).collect();
        Self { domain, positions, policies: Vec::new(), ids: HashMap::new() }
    }

    /// Takes over the policies of one file.
    fn take(&mut self, source: &Source, set: &PolicySet, statements: &[Statement<'a>], faults: &mut Faults) {
        for template in set.templates() {
            let place = numbered(template.id(), statements).map_or_else(|| Place::file(&source.file), Statement::slot);
            let fault = Fault::new(place, "templates are not supported: nothing would fill their slots");
            faults.push(fault.hint("write the entity itself, or leave the scope open"));
        }
        for policy in set.policies() {
            let Some(statement) = numbered(policy.id(), statements) else {
                faults.push(Fault::new(Place::file(&source.file), format!("the place of `{}` is not known", policy.id())));
                continue;
            };
            self.take_one(policy, statement, faults);
        }
    }

    fn take_one(&mut self, policy: &Policy, statement: &Statement<'a>, faults: &mut Faults) {
        let json = match policy.to_json() {
            Ok(json) => json,
            Err(error) => return faults.push(Fault::new(statement.place(), error.to_string())),
        };
        let looks = Looks::of(&json);
        let actions = self.applicable(policy);
        let notes = annotations::read(policy, statement, &actions, faults);
        literals::check(self.domain, policy, &looks, statement, faults);
        literals::tested(&actions, &looks, statement, faults);
        let id = notes.id.filter(|id| self.is_first(id, statement, faults));
        // A name that no `@id` can have lets the rest of the policy be checked.
        let id = id.unwrap_or_else(|| format!("#{}", self.policies.len()));
        let info = PolicyInfo {
            id: id.clone(),
            file: statement.file().to_owned(),
            line: statement.line,
            effect: match policy.effect() {
                cedar_policy::Effect::Permit => Effect::Permit,
                cedar_policy::Effect::Forbid => Effect::Forbid,
            },
            reason: notes.reason,
            obligations: notes.obligations,
            actions: actions.iter().map(|action| action.name.clone()).collect(),
        };
        let policy = policy.new_id(PolicyId::new(id));
        self.policies.push(Read { policy, statement: statement.clone(), looks, json, info: Arc::new(info) });
    }

    fn is_first(&mut self, id: &str, statement: &Statement<'_>, faults: &mut Faults) -> bool {
        if let Some(first) = self.ids.get(id).and_then(|position| self.policies.get(*position)) {
            let fault = Fault::new(statement.annotation("id"), format!("`@id(\"{id}\")` is used twice"));
            faults.push(fault.hint(format!("it is first used at {}", first.statement.annotation("id"))));
            return false;
        }
        self.ids.insert(id.to_owned(), self.policies.len());
        true
    }

    /// Has Cedar check the types; what it only warns of is a fault here, since such a policy does not do what it says.
    ///
    /// Cedar tries every policy on every action. A policy for a few actions is therefore first tried on these alone, which says
    /// the same when nothing is wrong; only the rest, and whatever looks wrong, is tried on all.
    fn validate(&self, schema: &Schema, faults: &mut Faults) {
        let mut groups: BTreeMap<&[String], Vec<&Read<'a>>> = BTreeMap::new();
        for read in &self.policies {
            groups.entry(&read.info.actions).or_default().push(read);
        }
        groups.retain(|actions, group| actions.len() > FEW_ACTIONS || !self.is_clean(actions, group));
        self.validate_all(&groups.into_values().flatten().collect::<Vec<_>>(), schema, faults);
    }

    fn is_clean(&self, actions: &[String], group: &[&Read<'a>]) -> bool {
        let shapes = actions.iter().filter_map(|name| self.domain.actions.get(*self.positions.get(name.as_str())?));
        let part = Domain { namespace: self.domain.namespace.clone(), actions: shapes.cloned().collect(), ..Domain::default() };
        let (Ok(schema), Ok(set)) = (part.schema().parse::<Schema>(), set(group.iter().copied())) else { return false };
        Validator::new(schema).validate(&set, ValidationMode::Strict).validation_passed_without_warnings()
    }

    fn validate_all(&self, policies: &[&Read<'a>], schema: &Schema, faults: &mut Faults) {
        let set = match set(policies.iter().copied()) {
            Ok(set) => set,
            Err(fault) => return faults.push(fault),
        };
        let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
        let read: HashMap<&PolicyId, &Read<'_>> = policies.iter().map(|read| (read.policy.id(), *read)).collect();
        let mut report = |id: &PolicyId, error: DetailedError| {
            let about = format!("for policy `{id}`, ");
            let message = error.message.strip_prefix(&about).unwrap_or(&error.message).to_owned();
            let help = error.help.as_ref().map(|help| help.strip_prefix(&about).unwrap_or(help).to_owned());
            let error = DetailedError { message, help, ..error };
            faults.push(match read.get(id) {
                Some(read) => cedar_fault(&error, |offset| read.statement.at(offset), read.statement.place()),
                None => Fault::new(Place::file(NO_FILE), error.message),
            });
        };
        let mut wrong = HashSet::new();
        for error in result.validation_errors() {
            wrong.insert(error.policy_id());
            report(error.policy_id(), DetailedError::from(error));
        }
        // A policy with an error is often called impossible as well: that would send its author the wrong way.
        for warning in result.validation_warnings().filter(|warning| !wrong.contains(warning.policy_id())) {
            report(warning.policy_id(), DetailedError::from(warning));
        }
    }

    /// Sorts the policies by the actions they can apply to.
    fn index(self, vocabulary: Vocabulary, faults: &mut Faults) -> Engine {
        let mut by_action: HashMap<&str, Vec<(usize, &Read<'_>)>> = HashMap::new();
        for (position, read) in self.policies.iter().enumerate() {
            for action in &read.info.actions {
                by_action.entry(action).or_default().push((position, read));
            }
        }
        let mut actions = HashMap::new();
        let mut names = Names::default();
        for shape in &self.domain.actions {
            let policies = by_action.remove(shape.name.as_str()).unwrap_or_default();
            let resource = match format!("{}::{}", self.domain.namespace, shape.resource).parse() {
                Ok(resource) => resource,
                Err(error) => {
                    faults.push(declared(format!("{error}")));
                    continue;
                }
            };
            let set = match set(policies.iter().map(|(_, read)| *read)) {
                Ok(set) => set,
                Err(fault) => {
                    faults.push(fault);
                    continue;
                }
            };
            let mut reads = Reads::default();
            for (_, read) in &policies {
                reads.add(&read.looks, shape);
            }
            let forms = policies.iter().map(|(_, read)| (&read.json, &read.info));
            let compiled = Compiled::of(&self.domain.namespace, shape, forms, &mut names);
            let infos =
                policies.iter().map(|(position, read)| (read.policy.id().clone(), (*position, Arc::clone(&read.info)))).collect();
            let uid = entity(&vocabulary.action_type, &shape.name);
            actions.insert(
                shape.name.clone(),
                Indexed { shape: shape.clone(), uid, resource, reads, policies: set, compiled, infos },
            );
        }
        Engine {
            authorizer: Authorizer::new(),
            types: Arc::new(vocabulary.types),
            action_entities: vocabulary.action_entities,
            names,
            actions,
            policies: self.policies.into_iter().map(|read| read.info).collect(),
        }
    }

    /// The actions that the scope of `policy` can apply to, in the order of the domain.
    fn applicable(&self, policy: &Policy) -> Vec<&'a ActionShape> {
        let domain = self.domain;
        // The schema has no groups of actions, so `in` is `==` with one of the list.
        let named = match policy.action_constraint() {
            ActionConstraint::Any => None,
            ActionConstraint::In(actions) => Some(actions),
            ActionConstraint::Eq(action) => Some(vec![action]),
        };
        let mut actions: Vec<&ActionShape> = match named {
            None => domain.actions.iter().collect(),
            Some(named) => {
                let action_type = format!("{}::Action", domain.namespace);
                let declared = named.iter().filter(|action| action.type_name().to_string() == action_type);
                let positions = declared.filter_map(|action| self.positions.get(action.id().unescaped()));
                let positions: BTreeSet<usize> = positions.copied().collect();
                positions.into_iter().filter_map(|position| domain.actions.get(position)).collect()
            }
        };
        // No type but the caller's has parents, so `in` another resource is `==`, which needs the same type.
        let kind = match policy.resource_constraint() {
            ResourceConstraint::Any => return actions,
            ResourceConstraint::Is(kind) | ResourceConstraint::IsIn(kind, _) => kind.to_string(),
            ResourceConstraint::Eq(resource) | ResourceConstraint::In(resource) => resource.type_name().to_string(),
        };
        let kind = kind.strip_prefix(&domain.namespace).and_then(|kind| kind.strip_prefix("::"));
        actions.retain(|action| kind == Some(&action.resource));
        actions
    }
}

fn set<'r, 'a: 'r>(policies: impl Iterator<Item = &'r Read<'a>>) -> Result<PolicySet, Fault> {
    PolicySet::from_policies(policies.map(|read| read.policy.clone()))
        .map_err(|error| Fault::new(Place::file(NO_FILE), error.to_string()))
}

/// The statement that Cedar numbers `id` ("policy7").
fn numbered<'s, 'a>(id: &PolicyId, statements: &'s [Statement<'a>]) -> Option<&'s Statement<'a>> {
    let id: &str = id.as_ref();
    statements.get(id.strip_prefix("policy")?.parse::<usize>().ok()?)
}
