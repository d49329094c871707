//! The walk without network and without record: what the rules would say to a request if this were known.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::matching::{self, Matched};
use super::trail::Trail;
use super::verdict::{Denial, Permit};
use super::{Moment, Open, Site};
use crate::config::{Origin, Upstream};
use crate::model::{Body, Fault, Faults, RawRequest, Reason};
use crate::rules::stated::{self, Wrong};
use crate::rules::{Case, Expect, Known, Rules, Ruleset};

/// What the rules say to a request.
#[derive(Debug)]
pub enum Evaluation {
    /// It is not judged.
    Open(Open),
    /// It is sent as the permit says.
    Permit(Box<Permit>),
    /// It is refused.
    Denial(Box<Denial>),
}

/// A case that did not come out as its author wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The case's name.
    pub case: String,
    /// Where it stands.
    pub place: crate::model::Place,
    /// Expected and found, or what it states and cannot have.
    pub why: String,
    /// What to do about it, when that is known.
    pub hint: Option<String>,
}

/// How the cases of a set of rules came out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rehearsal {
    /// How many cases were run.
    pub ran: usize,
    /// Those that came out otherwise.
    pub failures: Vec<Failure>,
    /// Policies that no case made decide, as `id (file:line)`.
    pub untried: Vec<String>,
}

/// Judges `method target` by `rules`, with `known` instead of lookups.
#[must_use]
pub fn evaluate(rules: &Arc<Rules>, method: &str, target: &str, known: &Known) -> Evaluation {
    evaluate_with(site_of(rules), method, target, &[], known)
}

/// An upstream with every default before which `rules` are in force.
#[must_use]
pub fn site_of(rules: &Arc<Rules>) -> Site {
    let origin = Origin { tls: false, host: "upstream".into(), port: 80 };
    Site::new(Arc::new(Upstream::new(&rules.provider.name, origin)), Arc::clone(rules), Arc::from([]))
}

/// Judges `method target` with further `fields`, their names in lower case, at `site`, with `known` instead of lookups. Where
/// the fields hold nothing of a credential, a caller who is known has one.
#[must_use]
pub fn evaluate_with(site: Site, method: &str, target: &str, fields: &[(String, String)], known: &Known) -> Evaluation {
    let rules = Arc::clone(&site.rules);
    let mut headers: Vec<(&str, &[u8])> = fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let given = |name: &str| fields.iter().any(|(field, _)| field == name);
    if known.subject.is_some() && !rules.provider.credentials.iter().flatten().any(|name| given(name)) {
        for name in rules.provider.credentials.first().into_iter().flatten() {
            headers.push((name, if **name == *"authorization" { b"Bearer given" } else { b"given" }));
        }
    }
    if known.content.is_some() && !given("content-type") {
        headers.push(("content-type", b"application/json"));
    }
    let raw = RawRequest {
        method,
        target: target.as_bytes(),
        host: fields.iter().find(|(field, _)| field == "host").map(|(_, value)| value.as_str()),
        headers,
        body: known.content.as_ref().map_or(Body::Absent, |content| Body::Sized(content.len() as u64)),
        content: known.content.as_deref().map(str::as_bytes),
        client: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        correlation: None,
    };
    evaluate_request(site, &raw, known)
}

/// Judges a request as it was received at `site`, with `known` instead of lookups.
#[must_use]
pub fn evaluate_request(site: Site, raw: &RawRequest<'_>, known: &Known) -> Evaluation {
    let trail = |action: Option<&_>| Trail::new(raw, site.clone(), Moment::now(), action);
    let walked = matching::match_request(raw, &site, trail).and_then(|matched| match matched {
        Matched::Open(open) => Ok(Evaluation::Open(open)),
        Matched::Guarded(matched) => {
            let permit = matched.validate()?.identify_from(known)?.decide()?;
            Ok(Evaluation::Permit(Box::new(permit)))
        }
    });
    walked.unwrap_or_else(Evaluation::Denial)
}

/// Runs every case of `rules` whose name contains `filter`.
#[must_use]
pub fn rehearse(rules: &Arc<Rules>, filter: &str) -> Rehearsal {
    let mut rehearsal = Rehearsal::default();
    let mut tried = std::collections::BTreeSet::new();
    for case in rules.cases.iter().filter(|case| case.name.contains(filter)) {
        rehearsal.ran += 1;
        let (method, target) = case.request.split_once(' ').unwrap_or(("GET", &case.request));
        let evaluation = evaluate(rules, method, target, &case.known);
        let policies = match &evaluation {
            Evaluation::Permit(permit) => permit.policies(),
            Evaluation::Denial(denial) => denial.policies(),
            Evaluation::Open(_) => &[],
        };
        tried.extend(policies.iter().map(|policy| policy.id.clone()));
        let failure =
            |fault: Fault| Failure { case: case.name.clone(), place: fault.place, why: fault.message, hint: fault.hint };
        let impossible = impossible(&evaluation, &case.known);
        // What comes of a statement that is never used says nothing.
        let differs = impossible.is_empty().then(|| differs(case, &evaluation)).flatten();
        let stated = impossible.into_iter().map(|wrong| wrong.fault(&case.places, &case.place));
        rehearsal.failures.extend(stated.chain(differs.map(|why| Fault::new(case.place.clone(), why))).map(failure));
    }
    let untried = rules.engine.policies().filter(|policy| !tried.contains(&policy.id));
    rehearsal.untried = untried.map(|policy| format!("{} ({}:{})", policy.id, policy.file, policy.line)).collect();
    rehearsal
}

/// What `known` states and the evaluated request cannot have, as far as it was read.
#[must_use]
pub fn impossible(evaluation: &Evaluation, known: &Known) -> Vec<Wrong> {
    let trail = match evaluation {
        Evaluation::Open(_) => return stated::unused(known, "the request is not judged"),
        Evaluation::Permit(permit) => permit.trail(),
        Evaluation::Denial(denial) => denial.trail(),
    };
    let Some(action) = &trail.action else {
        return stated::unused(known, "the request is refused before it is known for which action it is");
    };
    stated::impossible(&trail.site.rules.provider, action, trail.params.as_deref(), known)
}

/// Runs every case of every provider; the failures, as faults with their places.
#[must_use]
pub fn failing(ruleset: &Ruleset) -> Faults {
    let mut faults = Faults::default();
    for failure in ruleset.providers().flat_map(|rules| rehearse(rules, "").failures) {
        let message = format!("the case `{}` fails: {}", failure.case, failure.why);
        faults.push(Fault { hint: failure.hint, ..Fault::new(failure.place, message) });
    }
    faults
}

/// Refused before any policy is asked, for a fault of the request itself.
fn is_invalid(reason: Reason) -> bool {
    crate::rules::refusal::status(reason) == 400
        || matches!(reason, Reason::MethodNotDeclared | Reason::BodyTooLarge | Reason::HostUnknown)
}

fn differs(case: &Case, evaluation: &Evaluation) -> Option<String> {
    let found = match evaluation {
        Evaluation::Open(_) => return Some("expected a verdict, but the request is not judged".to_owned()),
        Evaluation::Permit(_) => Expect::Permit,
        Evaluation::Denial(denial) if is_invalid(denial.reason()) => Expect::Invalid,
        Evaluation::Denial(_) => Expect::Deny,
    };
    let word = |expect: Expect| match expect {
        Expect::Permit => "permit",
        Expect::Deny => "deny",
        Expect::Invalid => "invalid",
    };
    if found != case.expect {
        let told = match evaluation {
            Evaluation::Denial(denial) => format!(": {}, {}", denial.reason(), denial.detail()),
            Evaluation::Permit(permit) => format!(" by {}", listed(permit.policies().iter().map(|policy| policy.id.as_str()))),
            Evaluation::Open(_) => String::new(),
        };
        return Some(format!("expected {}, found {}{told}", word(case.expect), word(found)));
    }
    let (policies, sent) = match evaluation {
        Evaluation::Permit(permit) => {
            let content = permit.content().map(|content| format!(" {content}")).unwrap_or_default();
            (permit.policies(), Some(format!("{} {}{content}", permit.method(), permit.target())))
        }
        Evaluation::Denial(denial) => {
            if case.reason.is_some_and(|reason| reason != denial.reason()) {
                let expected = case.reason.map_or("", Reason::as_str);
                return Some(format!("expected the reason {expected}, found {}: {}", denial.reason(), denial.detail()));
            }
            (denial.policies(), None)
        }
        Evaluation::Open(_) => return None,
    };
    let mut by: Vec<&str> = policies.iter().map(|policy| policy.id.as_str()).collect();
    let mut expected: Vec<&str> = case.by.iter().map(String::as_str).collect();
    by.sort_unstable();
    expected.sort_unstable();
    if !expected.is_empty() && by != expected {
        return Some(format!("expected by {}, found by {}", listed(expected.into_iter()), listed(by.into_iter())));
    }
    match (&case.sends, sent) {
        (Some(expected), Some(sent)) if *expected != sent => Some(format!("expected to send `{expected}`, would send `{sent}`")),
        (Some(expected), None) => Some(format!("expected to send `{expected}`, would send nothing")),
        _ => None,
    }
}

fn listed<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let ids: Vec<String> = ids.map(|id| format!("`{id}`")).collect();
    if ids.is_empty() { "no policy".to_owned() } else { ids.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Sources;

    #[test]
    fn the_cases_of_the_built_in_rules_pass_and_try_every_policy() {
        let ruleset = Ruleset::load(&Sources::built_in(), &[]).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(failing(&ruleset).to_string(), "");
        for rules in ruleset.providers() {
            assert_eq!(rehearse(rules, "").untried, Vec::<String>::new(), "{}", rules.provider.name);
        }
    }
}
