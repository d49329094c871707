//! Case files: a request, who asks, what is known of them, and the verdict that the policies must reach.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::provider::toml_fault;
use crate::model::{Fault, Faults, Place, Reason, Record, Subject};

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
    /// The verdict.
    pub expect: Expect,
    /// The reason of a denial.
    pub reason: Option<Reason>,
    /// The policies that decide, in any order; empty = not checked.
    pub by: Vec<String>,
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
    /// Facts by name; what is not given has its default, as if nothing were known.
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
    name: String,
    request: Spanned<String>,
    #[serde(default)]
    subject: Option<KnownSubject>,
    #[serde(default)]
    facts: BTreeMap<String, Record>,
    #[serde(default)]
    table: Record,
    #[serde(default)]
    networks: Vec<String>,
    #[serde(default)]
    content: Option<String>,
    expect: Expect,
    #[serde(default)]
    reason: Option<Reason>,
    #[serde(default)]
    by: Vec<String>,
    #[serde(default)]
    sends: Option<String>,
}

/// Reads one case file.
///
/// # Errors
/// Every fault, with its place.
pub fn read(file: &str, text: &str) -> Result<Vec<Case>, Faults> {
    let raw: CaseFile = toml::from_str(text).map_err(|error| Faults::from(toml_fault(file, text, &error)))?;
    let mut faults = Faults::default();
    let mut cases = Vec::new();
    for spanned in raw.cases {
        let place = Place::at(file, text, spanned.span().start);
        let case = spanned.into_inner();
        if !case.request.get_ref().contains(' ') {
            let place = Place::at(file, text, case.request.span().start);
            faults.push(Fault::new(place, "a request is written as `METHOD target`"));
        }
        if case.reason.is_some() && case.expect == Expect::Permit {
            faults.push(Fault::new(place.clone(), "a permit has no `reason`"));
        }
        cases.push(Case {
            name: case.name,
            place,
            request: case.request.into_inner(),
            known: Known {
                subject: case.subject,
                facts: case.facts,
                table: case.table,
                networks: case.networks,
                content: case.content,
            },
            expect: case.expect,
            reason: case.reason,
            by: case.by,
            sends: case.sends,
        });
    }
    faults.or(cases)
}
