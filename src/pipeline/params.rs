//! The second stop: every parameter is declared, there once, and within its bounds.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::matching::{Given, MatchedRequest};
use super::trail::Trail;
use super::tunnel::Call;
use super::verdict::Denial;

use crate::model::{Credential, Kind, Reason, Record, Resource};
use crate::rules::Action;
use crate::rules::param::{FaultKind, Form, ParamFault, Place};
use crate::rules::provider::ResourceId;
use crate::rules::refusal::{self, Template};
use crate::rules::router::{self, Found, Pattern};
use crate::rules::target::{self, QueryFault};
use crate::rules::vocabulary::Vocabulary;

/// A request whose parameters are what the action declares. Made from a [`MatchedRequest`] only.
#[derive(Debug)]
pub struct ValidatedRequest {
    pub(super) trail: Box<Trail>,
    pub(super) action: Arc<Action>,
    pub(super) door: Arc<Pattern>,
    pub(super) method: Cow<'static, str>,
    pub(super) params: Arc<Record>,
    pub(super) credential: Credential,
    pub(super) call: Option<Call>,
}

impl MatchedRequest {
    /// Reads the path segments, the query and the fields of the body.
    ///
    /// # Errors
    /// A denial that tells the first fault in the words of the server's validator.
    pub fn validate(self) -> Result<ValidatedRequest, Box<Denial>> {
        let Self { trail, action, door, method, given, credential } = self;
        let (segments, query, fields) = match given {
            Given::Request { segments, query, fields } => (segments, query.unwrap_or_default(), fields.unwrap_or_default()),
            Given::Call(call) => {
                let params = match positional(&action, &call.params) {
                    Ok(params) => params,
                    Err(fault) => return Err(refused(trail, &action, &fault, &[])),
                };
                return Ok(ValidatedRequest::new(trail, action, door, method, params, credential, Some(call)));
            }
        };
        let unread = |fault: &ParamFault, trail| {
            let names = target::names(&query);
            refused(trail, &action, fault, &names.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let given: Vec<Pair> = match target::pairs(&query) {
            Ok(pairs) => pairs.into_iter().map(|(name, value)| Pair::new(&action, name, value)).collect(),
            Err(QueryFault::SecondMark) => {
                return Err(trail.deny(Reason::TargetAmbiguous, "the query holds a second question mark"));
            }
            Err(QueryFault::Unencoded) => {
                return Err(trail.deny(Reason::TargetAmbiguous, "the query holds a character that must be encoded"));
            }
            Err(QueryFault::TooMany) => {
                return Err(unread(&ParamFault { param: "query".into(), kind: FaultKind::Unknown }, trail));
            }
            Err(QueryFault::Broken(name)) => {
                let is_number = action.param(&name).is_some_and(|param| param.kind() == Kind::Integer);
                let kind = if is_number { FaultKind::NotANumber } else { FaultKind::Malformed };
                return Err(unread(&ParamFault { param: name, kind }, trail));
            }
        };
        let names: Vec<&str> = given.iter().map(|given| given.name.as_str()).collect();
        let params = match read(&action, &segments, &given).and_then(|params| with_fields(&action, params, &fields)) {
            Ok(params) => params,
            Err(fault) => return Err(refused(trail, &action, &fault, &names)),
        };
        // A segment that was encoded may turn out to be a word of another door, which the server would go through; and an id
        // with a slash may be two segments to a server that decodes more than it should.
        if segments.iter().any(|(_, raw)| raw.contains('%')) {
            let mut written = String::new();
            path(&mut written, &door, &params);
            let provider = &trail.site.rules.provider;
            let found = router::find(provider, &method, &written);
            let stays = matches!(found, Found::Action { pattern, .. } if *pattern == door);
            if !stays || (parts_itself(&action, &params) && router::hides(provider, &written)) {
                return Err(trail.deny(Reason::TargetAmbiguous, "the path is another action's once it is decoded"));
            }
        }
        Ok(ValidatedRequest::new(trail, action, door, method, params, credential, None))
    }
}

impl ValidatedRequest {
    fn new(
        mut trail: Box<Trail>,
        action: Arc<Action>,
        door: Arc<Pattern>,
        method: Cow<'static, str>,
        params: Record,
        credential: Credential,
        call: Option<Call>,
    ) -> Self {
        let params = Arc::new(params);
        trail.params = Some(Arc::clone(&params));
        let resource = match &action.resource_id {
            ResourceId::Params(names) => {
                let id = names.iter().find_map(|name| params.value(name)).map(ToString::to_string).unwrap_or_default();
                Some(Resource { kind: action.resource.clone(), id })
            }
            ResourceId::Caller => None,
        };
        trail.resource = resource;
        Self { trail, action, door, method, params, credential, call }
    }
}

/// Whether an id in the path holds what parts a path, or what would once it is decoded again.
fn parts_itself(action: &Action, params: &Record) -> bool {
    let ids = action.params.iter().filter(|param| matches!(param.place, Place::Path { .. }) && param.form == Form::Id);
    ids.filter_map(|param| params.value(&param.name)).any(|id| id.to_string().contains(['/', '\\', '%', '?', '#', ';']))
}

/// The path of `door` with the values of its segments, each in its one spelling, behind what `onto` holds.
pub(super) fn path(onto: &mut String, door: &Pattern, params: &Record) {
    door.path_onto(onto, |name| target::encode(&params.value(name).map(ToString::to_string).unwrap_or_default()));
}

/// `params` with those that the fields of the body give.
fn with_fields(action: &Action, mut params: Record, fields: &Map<String, Value>) -> Result<Record, ParamFault> {
    let declared = || action.params.iter().filter(|param| param.place == Place::Body);
    if let Some(missing) = declared().find(|param| param.required && !fields.contains_key(&param.name)) {
        return Err(ParamFault { param: missing.name.clone(), kind: FaultKind::Missing });
    }
    if let Some(unknown) = fields.keys().find(|name| !declared().any(|param| param.name == **name)) {
        return Err(ParamFault { param: unknown.clone(), kind: FaultKind::Unknown });
    }
    for param in declared() {
        if let Some(value) = fields.get(&param.name).map(|value| param.read_json(value)).transpose()?.flatten() {
            params.set(&param.name, value);
        } else if param.required {
            return Err(ParamFault { param: param.name.clone(), kind: FaultKind::Missing });
        }
    }
    Ok(params)
}

/// The parameters of a method, by their place.
fn positional(action: &Action, given: &[serde_json::Value]) -> Result<Record, ParamFault> {
    if let Some(place) = (given.len() > action.method_params.len()).then_some(action.method_params.len()) {
        return Err(ParamFault { param: format!("params[{place}]"), kind: FaultKind::Unknown });
    }
    let mut params = Record::default();
    for (index, name) in action.method_params.iter().enumerate() {
        let Some(param) = action.param(name) else { continue };
        let value = given.get(index).map(|value| param.read_json(value)).transpose()?.flatten();
        match value {
            Some(value) => params.set(name, value),
            None if param.required => return Err(ParamFault { param: name.clone(), kind: FaultKind::Missing }),
            None => {}
        }
    }
    Ok(params)
}

/// One `name=value` of a query.
struct Pair {
    /// The parameter that the server would fill with it.
    name: String,
    /// Whether it would be filled with a list or an object.
    nested: bool,
    value: String,
}

impl Pair {
    fn new(action: &Action, name: String, value: String) -> Self {
        let declared =
            |name: &str| is_ignored(action, name) || action.param(name).is_some_and(|param| param.place == Place::Query);
        match name.split_once('[') {
            Some((outer, _)) if action.messages.nest() && declared(outer) => Self { name: outer.to_owned(), nested: true, value },
            _ => Self { name, nested: false, value },
        }
    }
}

/// Whether the server ignores `name` in a query of the action.
fn is_ignored(action: &Action, name: &str) -> bool {
    action.ignored.iter().any(|ignored| ignored == name)
}

/// Missing names first, then unknown ones, then values: the order in which the server's validator looks.
fn read(action: &Action, segments: &[(String, String)], given: &[Pair]) -> Result<Record, ParamFault> {
    let fault = |param: &str, kind| Err(ParamFault { param: param.to_owned(), kind });
    let query = || action.params.iter().filter(|param| param.place == Place::Query);
    let is_given = |name: &str| given.iter().any(|given| given.name == name);
    if let Some(missing) = query().find(|param| param.required && !is_given(&param.name)) {
        return fault(&missing.name, FaultKind::Missing);
    }
    let chosen = action.one_of.iter().filter(|name| is_given(name)).count();
    if !action.one_of.is_empty() && chosen == 0 {
        return fault(&action.one_of.join(", "), FaultKind::NoneOf);
    }
    let (ignored, taken): (Vec<&Pair>, Vec<&Pair>) = given.iter().partition(|given| is_ignored(action, &given.name));
    if let Some(unknown) = taken.iter().find(|given| !query().any(|param| param.name == given.name)) {
        return fault(&unknown.name, FaultKind::Unknown);
    }
    if chosen > 1 {
        return fault(&action.one_of.join(", "), FaultKind::SeveralOf);
    }
    for (index, given) in ignored.iter().enumerate() {
        if given.nested {
            return fault(&given.name, FaultKind::Nested);
        }
        if ignored.iter().skip(index + 1).any(|other| other.name == given.name) {
            return fault(&given.name, FaultKind::Repeated);
        }
        if given.value.chars().any(char::is_control) {
            return fault(&given.name, FaultKind::Malformed);
        }
    }
    let mut params = Record::default();
    for param in &action.params {
        let text = match param.place {
            Place::Path { encoded } => {
                let raw = segments.iter().find(|(name, _)| *name == param.name).map(|(_, raw)| raw.as_str()).unwrap_or_default();
                let decoded = if encoded || raw.contains('%') { target::segment(raw) } else { Some(raw.to_owned()) };
                match decoded {
                    Some(text) if encoded || text == raw => Some(text),
                    _ => return fault(&param.name, FaultKind::Malformed),
                }
            }
            Place::Body | Place::Method => None,
            Place::Query => {
                let mut values = taken.iter().filter(|given| given.name == param.name);
                if values.clone().any(|given| given.nested) {
                    return Err(param.nested());
                }
                if param.repeated {
                    if let Some(values) = param.read_all(values.map(|given| given.value.as_str()))? {
                        params.set(&param.name, values);
                    }
                    continue;
                }
                let first = values.next();
                if values.next().is_some() {
                    return Err(param.repeated());
                }
                first.map(|given| given.value.clone())
            }
        };
        if let Some(text) = text
            && let Some(value) = param.read(&text)?
        {
            // Where nothing may be encoded, what is sent is what was received.
            if param.place == (Place::Path { encoded: false }) && target::encode(&text) != text {
                return fault(&param.name, FaultKind::Malformed);
            }
            params.set(&param.name, value);
        }
    }
    Ok(params)
}

fn refused(trail: Box<Trail>, action: &Action, fault: &ParamFault, given: &[&str]) -> Box<Denial> {
    let others: Vec<&str> = action
        .params
        .iter()
        .map(|param| param.name.as_str())
        .filter(|name| !action.one_of.iter().any(|one| one == name))
        .collect();
    let own = own_words(action, fault);
    let message = if own.is_some() { action.messages.alone(fault) } else { action.messages.text(fault, given, &others) };
    let detail = detail(action, fault, &trail.site.rules.provider.vocabulary);
    let mut denial = trail.deny(refusal::reason(&fault.kind), detail);
    denial.tell(message, fault.param.clone(), own);
    denial
}

/// The words in which a parameter's own check tells a bad value; the bounds that only rolegate sets are told in the family's.
fn own_words(action: &Action, fault: &ParamFault) -> Option<Template> {
    match fault.kind {
        FaultKind::TooLong(_) | FaultKind::Malformed | FaultKind::Nested | FaultKind::NestedNumber => None,
        _ if refusal::reason(&fault.kind) != Reason::ParamInvalid => None,
        _ => action.param(&fault.param)?.refusal.clone(),
    }
}

/// The fault as the operator is told of it. A name that nobody declares may be a secret itself, and is cut as in the target.
fn detail(action: &Action, fault: &ParamFault, vocabulary: &Vocabulary) -> String {
    let mut fault = fault.clone();
    match action.param(&fault.param) {
        None if matches!(fault.kind, FaultKind::Unknown | FaultKind::Malformed) => {
            fault.param = match fault.param.split_once('=') {
                Some((name, _)) => format!("{}=...", vocabulary.told(name)),
                None => vocabulary.told(&fault.param).into_owned(),
            };
        }
        // This kind quotes the value.
        Some(param) if param.secret && matches!(fault.kind, FaultKind::NotAnObject(_)) => fault.kind = FaultKind::Malformed,
        _ => {}
    }
    format!("`{}`: {}", fault.param, action.messages.alone(&fault))
}
