//! The table of (action, parameter, fault): every one that the provider files make possible has a case, and every case is
//! refused before anything is looked up.

use rolegate::model::Reason;
use rolegate::rules::param::LONGEST_VALUE;
use rolegate::rules::param::{Empty, Form, Param, Place};
use rolegate::rules::{Action, Ruleset, Sources};

use super::{assert_denied, assert_no_secret_recorded, assert_refusal};
use crate::support::Gate;

/// What can be wrong with one parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Missing,
    OtherCase,
    Repeated,
    Empty,
    NotANumber,
    Fraction,
    BelowBound,
    AboveBound,
    Bracketed,
    Dotted,
    BrokenPercent,
    NotUtf8,
    TooLong,
    ControlCharacter,
    /// None of the listed values, no sort, or no JSON object.
    BadValue,
}

/// One refused request.
#[derive(Debug)]
pub struct Case {
    /// The parameter that is at fault; none when it is the request as a whole.
    pub param: Option<&'static str>,
    /// What is wrong with it; none where the fault is one of the whole query.
    pub fault: Option<Fault>,
    /// Path and query.
    pub target: String,
    /// Why it is refused.
    pub reason: Reason,
    /// What the client is told, the decision id as `{id}`.
    pub body: String,
}

/// A case of `param`.
pub fn case(param: &'static str, fault: Fault, target: impl Into<String>, reason: Reason, body: impl Into<String>) -> Case {
    Case { param: Some(param), fault: Some(fault), target: target.into(), reason, body: body.into() }
}

/// A case of the query as a whole.
pub fn whole(target: impl Into<String>, reason: Reason, body: impl Into<String>) -> Case {
    Case { param: None, fault: None, target: target.into(), reason, body: body.into() }
}

/// Puts every case to `gate` on one connection, and fails unless each is refused as it says and the sample heard of none.
pub async fn refuse_all(gate: &Gate, cases: &[Case], headers: &[(&str, String)]) {
    let mut connection = gate.connect().await;
    let mut wrong = Vec::new();
    for case in cases {
        let answer = connection.get(&case.target, headers).await;
        let id = answer.header("x-request-id").unwrap_or_default().to_owned();
        let told = format!("{:?} {:?} {}: {}", case.param, case.fault, case.target, String::from_utf8_lossy(&answer.body));
        let expected = case.body.replace("{id}", &id);
        if (answer.status, &answer.text()) != (400, &expected) || gate.last_decision()["reason"] != case.reason.as_str() {
            wrong.push(format!("{told}\n  expected {} {expected}", case.reason));
            continue;
        }
        assert_refusal(&answer, 400, &expected, &id);
        let record = assert_denied(gate, case.reason);
        assert_eq!(record["id"], id.as_str(), "{told}");
        assert_eq!(record["subject"], serde_json::Value::Null, "nobody was looked up: {told}");
        let target = record["target"].as_str().unwrap();
        assert!(target.len() <= 512 && target.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{target}");
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(gate.sample.seen().is_empty(), "{:?}", gate.sample.seen());
    let secrets: Vec<&str> = headers.iter().map(|(_, value)| value.trim_start_matches("Bearer ")).collect();
    assert_no_secret_recorded(gate, &secrets[secrets.len() - 1..]);
}

/// Every fault that a value of `param` can have, by its form.
fn possible(param: &Param) -> Vec<Fault> {
    let mut faults = match &param.form {
        Form::Id => vec![Fault::TooLong, Fault::ControlCharacter],
        // A longer one is a longer target, and refused as that.
        Form::Text { max, .. } if *max >= LONGEST_VALUE => vec![Fault::ControlCharacter],
        Form::Text { .. } => vec![Fault::TooLong, Fault::ControlCharacter],
        Form::Integer { .. } => vec![Fault::NotANumber, Fault::Fraction, Fault::BelowBound, Fault::AboveBound],
        Form::Boolean | Form::Enum { .. } => vec![Fault::BadValue],
        Form::JsonObject | Form::Sort | Form::Json => vec![Fault::BadValue, Fault::ControlCharacter],
    };
    let takes_empty = matches!(param.form, Form::Text { min: 0, .. }) || param.empty == Empty::Absent;
    if !takes_empty {
        faults.push(Fault::Empty);
    }
    faults.extend([Fault::BrokenPercent, Fault::NotUtf8]);
    if param.place == Place::Query {
        faults.extend([Fault::OtherCase, Fault::Bracketed, Fault::Dotted]);
        if !param.repeated {
            faults.push(Fault::Repeated);
        }
        if param.required {
            faults.push(Fault::Missing);
        }
    }
    faults
}

fn action(id: &str) -> std::sync::Arc<Action> {
    let rules = Ruleset::load(&Sources::built_in(), &[]).unwrap();
    let found = rules.providers().flat_map(|rules| rules.provider.actions.iter()).find(|action| action.id == id).cloned();
    found.unwrap()
}

/// Fails unless `cases` hold one for every parameter of the action and every fault that it can have.
pub fn assert_complete(id: &str, cases: &[Case]) {
    let mut absent = Vec::new();
    // A parameter of a method stands in a body; `tests/it/tunnel.rs` tells of those.
    for param in action(id).params.iter().filter(|param| param.place != Place::Method) {
        for fault in possible(param) {
            if !cases.iter().any(|case| case.param == Some(&param.name) && case.fault == Some(fault)) {
                absent.push(format!("{}: {fault:?}", param.name));
            }
        }
    }
    assert!(absent.is_empty(), "{id} has no case for {absent:?}");
}

#[test]
fn every_action_of_a_sample_server_has_a_table_of_its_own() {
    let rules = Ruleset::load(&Sources::built_in(), &[]).unwrap();
    // Matrix's are made of its provider file, in `matrix.rs`.
    let mut ids: Vec<&str> = rules
        .providers()
        .filter(|rules| rules.provider.name != "matrix")
        .flat_map(|rules| rules.provider.actions.iter())
        .filter(|action| !action.doors.is_empty())
        .map(|action| action.id.as_str())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, ["audit.rooms.members", "roles.getUsersInRole", "rooms.roles", "rooms.users", "users.info"]);
}
