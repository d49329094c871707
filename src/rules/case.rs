//! Case files: a request, who asks, what is known of them, and the verdict that the policies must reach.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::provider::nearest;
use super::stated::{Places, Stated};
use crate::model::{Fault, Faults, Place, Reason, Record, Subject, Value};

/// One case.
#[derive(Debug, Clone)]
pub struct Case {
    /// A sentence.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// `METHOD target`.
    pub request: String,
    /// What is known when it is asked.
    pub known: Known,
    /// Where each name of it stands.
    pub places: Places,
    /// The verdict.
    pub expect: Expect,
    /// The reason of a denial.
    pub reason: Option<Reason>,
    /// The policies that decide, in any order; empty = not checked.
    pub by: Vec<String>,
    /// Where each of them stands.
    pub by_places: Vec<Place>,
    /// What is sent to the upstream, as `METHOD target`, and the content behind another space where there is one.
    pub sends: Option<String>,
}

/// What a decision without lookups starts from: the subject and the facts are given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// The caller; nobody is logged in without.
    #[serde(default)]
    pub subject: Option<KnownSubject>,
    /// Facts by name; what the request could have and is not given has its default, as if the server knew nothing.
    #[serde(default)]
    pub facts: BTreeMap<String, Record>,
    /// Values of `context.table`.
    #[serde(default)]
    pub table: Record,
    /// The named networks the client is in.
    #[serde(default)]
    pub networks: Vec<String>,
    /// The request's content, as `application/json`.
    #[serde(default)]
    pub content: Option<String>,
}

/// A caller with the permissions that the upstream's table would give.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KnownSubject {
    /// The upstream's id.
    pub id: String,
    /// The login name.
    #[serde(default)]
    pub name: String,
    /// Global roles.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Permissions.
    #[serde(default)]
    pub permissions: Vec<String>,
}

impl KnownSubject {
    /// The subject that the decision reads.
    #[must_use]
    pub fn subject(&self) -> Subject {
        let roles = self.roles.iter().map(|role| role.as_str().into()).collect();
        Subject { id: self.id.as_str().into(), name: self.name.as_str().into(), roles, attributes: BTreeMap::new() }
    }
}

/// What a case expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// The request goes on.
    Permit,
    /// A policy (or the want of one) stops it, or the caller is not known.
    Deny,
    /// It is refused before any policy is asked.
    Invalid,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    #[serde(default, rename = "case")]
    cases: Vec<Spanned<RawCase>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    name: Spanned<String>,
    request: Spanned<String>,
    #[serde(default)]
    subject: Option<RawSubject>,
    #[serde(default)]
    facts: BTreeMap<Spanned<String>, BTreeMap<Spanned<String>, Value>>,
    #[serde(default)]
    table: BTreeMap<Spanned<String>, Value>,
    #[serde(default)]
    networks: Vec<Spanned<String>>,
    #[serde(default)]
    content: Option<String>,
    expect: Expect,
    #[serde(default)]
    reason: Option<Reason>,
    #[serde(default)]
    by: Vec<Spanned<String>>,
    #[serde(default)]
    sends: Option<String>,
}

/// A [`KnownSubject`] with the places of its names.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSubject {
    id: Spanned<String>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    roles: Vec<Spanned<String>>,
    #[serde(default)]
    permissions: Vec<Spanned<String>>,
}

impl Case {
    /// Its `by` names that are not among `policies`.
    pub(super) fn unknown_policies(&self, policies: &[&str]) -> Faults {
        let mut faults = Faults::default();
        for (name, place) in self.by.iter().zip(&self.by_places) {
            if !policies.contains(&name.as_str()) {
                let fault = Fault::new(place.clone(), format!("unknown policy `{name}`"));
                faults.push(match nearest(name, policies.iter().copied()) {
                    Some(known) => fault.hint(format!("did you mean `{known}`?")),
                    None => fault,
                });
            }
        }
        faults
    }
}

/// Reads one case file.
///
/// # Errors
/// Every fault, with its place.
pub fn read(file: &str, text: &str) -> Result<Vec<Case>, Faults> {
    let (raw, mut faults) = super::typed::read::<CaseFile>(file, text);
    let Some(raw) = raw else { return Err(faults.or(()).err().unwrap_or_default()) };
    let mut cases: Vec<Case> = Vec::new();
    let mut names: BTreeMap<String, Place> = BTreeMap::new();
    for spanned in raw.cases {
        let place = Place::at(file, text, spanned.span().start);
        let case = spanned.into_inner();
        let name = Place::at(file, text, case.name.span().start);
        if let Some(first) = names.get(case.name.get_ref()) {
            let fault = Fault::new(name, format!("two cases are named `{}`", case.name.get_ref()));
            faults.push(fault.hint(format!("the first is at {first}")));
        } else {
            names.insert(case.name.get_ref().clone(), name);
        }
        let mut noted = Noted { file, text, places: Places::new() };
        if !case.request.get_ref().contains(' ') {
            let place = Place::at(file, text, case.request.span().start);
            faults.push(Fault::new(place, "a request is written as `METHOD target`"));
        }
        if case.reason.is_some() && case.expect == Expect::Permit {
            faults.push(Fault::new(place.clone(), "a permit has no `reason`"));
        }
        cases.push(Case {
            name: case.name.into_inner(),
            place,
            request: case.request.into_inner(),
            known: Known {
                subject: case.subject.map(|subject| noted.subject(subject)),
                facts: case.facts.into_iter().map(|(name, values)| noted.fact(name, values)).collect(),
                table: case.table.into_iter().map(|(name, value)| (noted.name(name, Stated::Table), value)).collect(),
                networks: case.networks.into_iter().map(|name| noted.name(name, Stated::Network)).collect(),
                content: case.content,
            },
            places: noted.places,
            by_places: case.by.iter().map(|name| Place::at(file, text, name.span().start)).collect(),
            expect: case.expect,
            reason: case.reason,
            by: case.by.into_iter().map(Spanned::into_inner).collect(),
            sends: case.sends,
        });
    }
    faults.or(cases)
}

/// Notes where the names of one case stand.
struct Noted<'a> {
    file: &'a str,
    text: &'a str,
    places: Places,
}

impl Noted<'_> {
    fn name(&mut self, name: Spanned<String>, stated: impl Fn(String) -> Stated) -> String {
        let place = Place::at(self.file, self.text, name.span().start);
        self.places.insert(stated(name.get_ref().clone()), place);
        name.into_inner()
    }

    fn subject(&mut self, raw: RawSubject) -> KnownSubject {
        let roles = raw.roles.into_iter().map(|role| self.name(role, Stated::Role)).collect();
        let permissions = raw.permissions.into_iter().map(|permission| self.name(permission, Stated::Permission)).collect();
        let id = self.name(raw.id, |_| Stated::Subject);
        KnownSubject { id, name: raw.name, roles, permissions }
    }

    fn fact(&mut self, name: Spanned<String>, values: BTreeMap<Spanned<String>, Value>) -> (String, Record) {
        let fact = self.name(name, Stated::Fact);
        let field = |field| Stated::Field(fact.clone(), field);
        let record = values.into_iter().map(|(name, value)| (self.name(name, field), value)).collect();
        (fact, record)
    }
}
