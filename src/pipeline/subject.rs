//! The third stop: who asks, and what is known of them; from the upstream, or given for a rehearsal.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

use super::Site;
use super::params::ValidatedRequest;
use super::trail::{FactKnown, Trail};
use super::tunnel::Call;
use super::verdict::Denial;
use crate::identity::{Ask, At, Caller, Failure, Identity, Table};
use crate::model::{Credential, Reason, Record, Resource, Value};
use crate::policy::{Principal, Standing};
use crate::rules::provider::{FactUse, Own, ResourceId};
use crate::rules::router::Pattern;
use crate::rules::stated::PERMISSIONS;
use crate::rules::{Action, Known};

/// A request whose caller is known, with every fact that the action's policies read. Made from a [`ValidatedRequest`] only.
#[derive(Debug)]
pub struct IdentifiedRequest {
    pub(super) trail: Box<Trail>,
    pub(super) action: Arc<Action>,
    pub(super) door: Arc<Pattern>,
    pub(super) method: Cow<'static, str>,
    pub(super) params: Arc<Record>,
    pub(super) credential: Credential,
    pub(super) call: Option<Call>,
    pub(super) principal: Principal,
}

/// How many callers' preparations are kept, of some hundred bytes each. Each caller has one place, which it shares with every caller
/// whose number has the same rest; whom another one displaced costs its next request some microseconds.
const PREPARED: usize = 16 * 1024;

/// What the decision point prepared for a caller, good until rules or the permission table change.
struct Prepared {
    caller: u64,
    table: u64,
    principal: Principal,
}

/// The callers that were prepared last, for one set of rules: empty until the first one is.
#[derive(Default)]
pub(super) struct Recent(OnceLock<Box<[ArcSwapOption<Prepared>]>>);

impl Recent {
    fn place(&self, caller: &Caller) -> Option<&ArcSwapOption<Prepared>> {
        let places = self.0.get_or_init(|| (0..PREPARED).map(|_| ArcSwapOption::empty()).collect());
        let index = usize::try_from(caller.number).ok()?.checked_rem(places.len())?;
        places.get(index)
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recent")
    }
}

impl ValidatedRequest {
    /// Looks up the caller, the tables and the facts that the action's policies read.
    ///
    /// # Errors
    /// A denial when the credential is refused or something cannot be looked up.
    pub(super) async fn identify<A: Ask>(self, identity: &Identity<A>) -> Result<IdentifiedRequest, Box<Denial>> {
        let Self { mut trail, action, door, method, params, credential, call } = self;
        let rules = Arc::clone(&trail.site.rules);
        let plan = &rules.provider.plan;
        let client = trail.client;
        let host = trail.host.clone();
        let identity = identity.at(host.as_deref());
        let caller = match identity.caller(plan, &credential, client).await {
            Ok(caller) => caller,
            Err(failure) => return Err(trail.failed(&failure)),
        };
        trail.caller_age = Some((caller.age, caller.stale));
        trail.known(&action, Arc::clone(&caller.value));
        let permissions = match plan.table(PERMISSIONS) {
            None => None,
            Some(_) => match identity.table(plan, PERMISSIONS, &credential, client).await {
                Ok(table) => Some(trail.table(PERMISSIONS, table)),
                Err(failure) => return Err(trail.failed(&failure)),
            },
        };
        let principal = principal(&trail.site, &caller.value, permissions);
        let nothing = crate::policy::Reads::default();
        let reads = rules.engine.reads(&action.id).unwrap_or(&nothing);
        if reads.table {
            for table_use in &action.tables {
                let Some(key) = params.value(&table_use.key) else {
                    trail.unknown.push(table_use.table.clone());
                    continue;
                };
                let table = match identity.table(plan, &table_use.table, &credential, client).await {
                    Ok(table) => trail.table(&table_use.table, table),
                    Err(failure) => return Err(trail.failed(&failure)),
                };
                match table.values(&key.to_string()).first() {
                    Some(value) => trail.table.set(&table_use.attribute, Value::Text(value.clone())),
                    None => trail.unknown.push(table_use.table.clone()),
                }
            }
        }
        for fact in needed(&action, &reads.facts) {
            match look_up(&identity, &trail, fact, &caller.value, &credential, &params, client).await {
                Ok(Some(known)) => trail.facts.push(known),
                Ok(None) => trail.unknown.push(fact.name.clone()),
                Err(failure) => return Err(trail.failed(&failure)),
            }
        }
        trail.is_self = own(&action, &params, &caller.value.subject.id, &caller.value.subject.name, &rules.provider.id_lengths);
        trail.networks = trail.site.networks_of(client);
        Ok(IdentifiedRequest { trail, action, door, method, params, credential, call, principal })
    }

    /// Takes everything from `known`; a fact that is not given there and that the request could have is as if the server knew
    /// nothing.
    ///
    /// # Errors
    /// A denial when nobody is logged in.
    pub(super) fn identify_from(self, known: &Known) -> Result<IdentifiedRequest, Box<Denial>> {
        let Self { mut trail, action, door, method, params, credential, call } = self;
        let rules = Arc::clone(&trail.site.rules);
        let Some(given) = &known.subject else { return Err(trail.deny(Reason::CredentialMissing, "nobody is logged in")) };
        let subject = given.subject();
        let principal = rules.engine.principal_given(&subject, &given.permissions);
        trail.is_self = own(&action, &params, &subject.id, &subject.name, &rules.provider.id_lengths);
        trail.known(&action, Arc::new(Caller::new(subject)));
        let nothing = crate::policy::Reads::default();
        let reads = rules.engine.reads(&action.id).unwrap_or(&nothing);
        for fact in needed(&action, &reads.facts) {
            if fact.inputs.iter().any(|(_, param)| params.value(param).is_none()) {
                trail.unknown.push(fact.name.clone());
                continue;
            }
            let mut record = unknown(&trail, &fact.name);
            for (name, value) in known.facts.get(&fact.name).into_iter().flat_map(Record::iter) {
                record.set(name, value.clone());
            }
            trail.facts.push(FactKnown {
                name: fact.name.clone(),
                record: Arc::new(record),
                age: Default::default(),
                stale: false,
            });
        }
        if reads.table {
            for table_use in &action.tables {
                match known.table.value(&table_use.attribute).filter(|_| params.value(&table_use.key).is_some()) {
                    Some(value) => trail.table.set(&table_use.attribute, value.clone()),
                    None => trail.unknown.push(table_use.table.clone()),
                }
            }
        }
        trail.networks = known.networks.clone();
        Ok(IdentifiedRequest { trail, action, door, method, params, credential, call, principal })
    }
}

impl Trail {
    /// Who asks, which is also what `action` may be about.
    fn known(&mut self, action: &Action, caller: Arc<Caller>) {
        if action.resource_id == ResourceId::Caller {
            self.resource = Some(Resource { kind: action.resource.clone(), id: caller.subject.id.to_string() });
        }
        self.caller = Some(caller);
    }

    /// A denial for what a lookup ran into.
    fn failed(self: Box<Self>, failure: &Failure) -> Box<Denial> {
        let denial = match failure {
            Failure::Refused => return self.deny(Reason::CredentialRefused, "the upstream does not know the credential"),
            Failure::Limited { retry_after } => {
                let mut denial = self.deny(Reason::FactsLimited, "the upstream limits lookups");
                denial.retry_after(*retry_after);
                return denial;
            }
            Failure::Unavailable { detail } => self.deny(Reason::FactsUnavailable, detail.clone()),
            Failure::Overloaded => self.deny(Reason::Overloaded, "too many lookups are under way"),
        };
        let mut denial = denial;
        denial.retry_after(RETRY_AFTER);
        denial
    }
}

/// What a client is told to wait when nothing better is known, in seconds.
const RETRY_AFTER: u64 = 5;

/// The facts of `action` that its policies read; the others are not looked up.
fn needed<'a>(action: &'a Action, reads: &'a BTreeSet<String>) -> impl Iterator<Item = &'a FactUse> {
    action.facts.iter().filter(|fact| reads.contains(&fact.name))
}

/// The fact, unless one of its parameters was not given.
async fn look_up<A: Ask>(
    identity: &At<'_, A>,
    trail: &Trail,
    fact: &FactUse,
    caller: &Arc<Caller>,
    credential: &Credential,
    params: &Record,
    client: Option<IpAddr>,
) -> Result<Option<FactKnown>, Failure> {
    let mut inputs = Vec::new();
    for (input, param) in &fact.inputs {
        match params.value(param) {
            Some(value) => inputs.push((input.as_str(), value.to_string())),
            // An optional parameter that was not given: there is nothing to ask about.
            None => return Ok(None),
        }
    }
    let inputs: Vec<(&str, &str)> = inputs.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let plan = &trail.site.rules.provider.plan;
    let known = identity.fact(plan, &fact.name, caller, credential, &inputs, client).await?;
    Ok(Some(FactKnown { name: fact.name.clone(), record: known.value, age: known.age, stale: known.stale }))
}

/// A fact of which nothing is known: every output has its default.
fn unknown(trail: &Trail, fact: &str) -> Record {
    let mut record = Record::default();
    if let Some(plan) = trail.site.rules.provider.plan.fact(fact) {
        for output in plan.steps.iter().flat_map(|step| &step.outputs) {
            record.set(&output.name, plan.unset(&output.name).unwrap_or_else(|| output.unset()));
        }
    }
    record
}

/// The caller as this engine's policies see it, prepared once for each set of rules and state of the permission table.
fn principal(site: &Site, caller: &Arc<Caller>, permissions: Option<Arc<Table>>) -> Principal {
    let engine = &site.rules.engine;
    let revision = permissions.as_ref().map_or(0, |table| table.revision);
    let place = site.recent.place(caller);
    if let Some(place) = place
        && let Some(prepared) = &*place.load()
        && prepared.caller == caller.number
        && prepared.table == revision
        && engine.prepared(&prepared.principal)
    {
        return prepared.principal.clone();
    }
    let principal = engine.principal(Arc::new(Proven { caller: Arc::clone(caller), permissions }));
    if let Some(place) = place {
        place.store(Some(Arc::new(Prepared { caller: caller.number, table: revision, principal: principal.clone() })));
    }
    principal
}

/// What a proven caller holds.
struct Proven {
    caller: Arc<Caller>,
    permissions: Option<Arc<Table>>,
}

impl Standing for Proven {
    fn id(&self) -> &str {
        &self.caller.subject.id
    }

    fn roles(&self) -> Vec<&str> {
        self.caller.subject.roles.iter().map(|role| &**role).collect()
    }

    fn permissions(&self) -> Vec<&str> {
        let roles = self.roles();
        let held = self.permissions.iter().flat_map(|table| roles.iter().flat_map(|role| table.keys_holding(role)));
        held.map(String::as_str).collect::<BTreeSet<&str>>().into_iter().collect()
    }
}

/// Whether the request is about the caller: only when the server, which finds a user by id *or* name, could find nobody else.
fn own(action: &Action, params: &Record, id: &str, name: &str, id_lengths: &[usize]) -> Option<bool> {
    if action.own.is_empty() {
        return None;
    }
    let is_id = |text: &str| id_lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let own = action.own.iter().any(|(param, by)| match (params.value(param), by) {
        (Some(Value::Text(text)), Own::Id) => text == id && !id.is_empty(),
        (Some(Value::Text(text)), Own::Name) => text == name && !name.is_empty() && !is_id(text),
        _ => false,
    });
    Some(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Origin, Upstream};
    use crate::model::Subject;
    use crate::rules::{Ruleset, Sources};

    fn site() -> Site {
        let ruleset = Ruleset::load(&Sources::built_in(), &[]).unwrap();
        let rules = Arc::clone(ruleset.provider("rocketchat").unwrap());
        let origin = Origin { tls: false, host: "upstream".into(), port: 80 };
        Site::new(Arc::new(Upstream::new("rocketchat", origin)), rules, Arc::from([]))
    }

    #[test]
    fn a_caller_who_was_prepared_under_an_older_table_is_prepared_again() {
        let site = site();
        let caller = Arc::new(Caller { subject: Subject { id: "u1".into(), ..Subject::default() }, number: 7 });
        let tables = ["admin", "user"].map(|role| Arc::new(Table::of([("view-room", vec![role])])));
        for table in [&tables[0], &tables[1], &tables[0]] {
            principal(&site, &caller, Some(Arc::clone(table)));
            let prepared = site.recent.place(&caller).unwrap().load().as_ref().map(|prepared| prepared.table);
            assert_eq!(prepared, Some(table.revision));
        }
        assert_ne!(tables[0].revision, tables[1].revision);
    }

    #[test]
    fn callers_that_share_a_place_are_not_taken_for_one_another() {
        let site = site();
        let caller = |id: &str, number| Arc::new(Caller { subject: Subject { id: id.into(), ..Subject::default() }, number });
        let callers = [caller("u1", 7), caller("u2", 7 + PREPARED as u64), caller("u1", 7)];
        for caller in callers.iter().chain(&callers) {
            let prepared = format!("{:?}", principal(&site, caller, None));
            assert_eq!(prepared, format!("Principal({:?})", caller.subject.id));
        }
    }
}
