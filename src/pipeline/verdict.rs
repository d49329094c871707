//! The last stops: the verdict, and what it becomes: a permit that says what is sent, or a denial that says what is told.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::params::path;
use super::subject::IdentifiedRequest;
use super::trail::{Told, Trail};
use super::tunnel::Call;
use crate::audit::{Entry, Object, Recorded};
use crate::metrics::RecordKind;
use crate::model::{Credential, Decision, Obligation, Reason, Record, Resource, Value};
use crate::policy::{Effect, PolicyInfo, Query};
use crate::rules::param::Place;
use crate::rules::refusal::{Filling, Refusal, Template, status};
use crate::rules::target;

/// A permitted request: what is sent is made from what was judged, and from nothing else.
///
/// Only [`IdentifiedRequest::decide`] makes one, and it cannot be forwarded before it is recorded:
///
/// ```
/// use rolegate::audit::Recorded;
/// use rolegate::pipeline::Permit;
/// use rolegate::proxy::Destination;
///
/// fn forward(permit: &Recorded<Permit>) -> Destination<'_> {
///     Destination::of(permit)
/// }
/// ```
///
/// ```compile_fail
/// use rolegate::audit::Recorded;
/// use rolegate::pipeline::Permit;
/// use rolegate::proxy::Destination;
///
/// fn forward(permit: &Permit) -> Destination<'_> {
///     Destination::of(permit)
/// }
/// ```
///
/// Nor can it be made by hand:
///
/// ```
/// use rolegate::pipeline::{IdentifiedRequest, Permit};
///
/// fn permit(request: IdentifiedRequest) -> Option<Permit> {
///     request.decide().ok()
/// }
/// ```
///
/// ```compile_fail
/// use rolegate::pipeline::{IdentifiedRequest, Permit};
///
/// fn permit(request: IdentifiedRequest) -> Option<Permit> {
///     Some(Permit { method: "GET".into(), target: "/".into(), ..request })
/// }
/// ```
#[derive(Debug)]
pub struct Permit {
    trail: Box<Trail>,
    method: Cow<'static, str>,
    target: String,
    content: Option<String>,
    credential: Credential,
    policies: Vec<Arc<PolicyInfo>>,
    obligations: Vec<Obligation>,
}

/// A refused request, at whichever stop.
#[derive(Debug)]
pub struct Denial {
    trail: Box<Trail>,
    reason: Reason,
    detail: String,
    message: String,
    param: String,
    own_words: Option<Template>,
    retry_after: Option<u64>,
    allow: Option<String>,
    policies: Vec<Arc<PolicyInfo>>,
}

/// What became of a permitted request.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// What was permitted.
    pub permit: &'a Recorded<Permit>,
    /// When the answer ended.
    pub ended: Instant,
    /// From the request's head to then.
    pub duration: Duration,
    /// The status that the client was sent; nothing when it left before.
    pub status: Option<u16>,
    /// Bytes of content that the client was sent.
    pub bytes: u64,
}

impl IdentifiedRequest {
    /// Asks the policies.
    ///
    /// # Errors
    /// A denial that names the policies that forbid, or says that none permits.
    pub fn decide(self) -> Result<Permit, Box<Denial>> {
        let Self { trail, action, door, method, mut params, credential, call, principal } = self;
        let nothing = Resource { kind: action.resource.clone(), id: String::new() };
        let facts: Vec<(&str, &Record)> = trail.facts.iter().map(|fact| (fact.name.as_str(), &*fact.record)).collect();
        let networks: Vec<&str> = trail.networks.iter().map(String::as_str).collect();
        let answer = trail.site.rules.engine.authorize(&Query {
            action: &action.id,
            principal: &principal,
            resource: trail.resource.as_ref().unwrap_or(&nothing),
            params: &params,
            is_self: trail.is_self,
            facts: &facts,
            networks: &networks,
            table: &trail.table,
        });
        if let Some(reason) = answer.reason() {
            let detail = match reason {
                Reason::PolicyError => answer.errors.join("; "),
                Reason::PolicyForbidden => told(&answer.determining),
                _ => "no policy permits it".to_owned(),
            };
            let mut denial = trail.deny(reason, detail);
            denial.policies = answer.determining;
            return Err(denial);
        }
        for obligation in &answer.obligations {
            if let Obligation::Without(name) = obligation {
                Arc::make_mut(&mut params).remove(name);
            }
        }
        if let Some(call) = call {
            let target = format!("{}{}", trail.site.upstream.path_prefix, door.path(|_| target::encode(&call.method)));
            let content = Call { params: positional(&action, &params), ..call }.content();
            let (policies, obligations) = (answer.determining, answer.obligations);
            return Ok(Permit { trail, method, target, content: Some(content), credential, policies, obligations });
        }
        let mut sent = String::with_capacity(128);
        sent.push_str(&trail.site.upstream.path_prefix);
        path(&mut sent, &door, &params);
        let mut separator = '?';
        for param in action.params.iter().filter(|param| param.place == Place::Query) {
            if let Some(value) = params.value(&param.name) {
                let mut pair = |text: &str| {
                    sent.push(separator);
                    target::encode_onto(&mut sent, &param.name);
                    sent.push('=');
                    target::encode_onto(&mut sent, text);
                    separator = '&';
                };
                match value {
                    Value::Text(text) => pair(text),
                    Value::Set(texts) => texts.iter().for_each(|text| pair(text)),
                    other => pair(&other.to_string()),
                }
            }
        }
        let content = action.takes_body().then(|| body(&action, &params));
        Ok(Permit {
            trail,
            method,
            target: sent,
            content,
            credential,
            policies: answer.determining,
            obligations: answer.obligations,
        })
    }
}

/// The body's object: its parameters in their order, and nothing that was not read.
fn body(action: &crate::rules::Action, params: &Record) -> String {
    let fields = action.params.iter().filter(|param| param.place == Place::Body);
    let fields = fields.filter_map(|param| Some((param.name.clone(), param.to_json(params.value(&param.name)?))));
    serde_json::Value::Object(fields.collect()).to_string()
}

/// The parameters of a method in their places; what is not given is null, and nothing stands behind the last given one.
fn positional(action: &crate::rules::Action, params: &Record) -> Vec<serde_json::Value> {
    let place = |name: &String| match (action.param(name), params.value(name)) {
        (Some(param), Some(value)) => param.to_json(value),
        _ => serde_json::Value::Null,
    };
    let mut places: Vec<serde_json::Value> = action.method_params.iter().map(place).collect();
    while places.last().is_some_and(serde_json::Value::is_null) {
        places.pop();
    }
    places
}

/// The policies with what their authors say of them.
fn told(policies: &[Arc<PolicyInfo>]) -> String {
    let one = |policy: &Arc<PolicyInfo>| match &policy.reason {
        Some(reason) => format!("`{}` ({}:{}): {reason}", policy.id, policy.file, policy.line),
        None => format!("`{}` ({}:{})", policy.id, policy.file, policy.line),
    };
    policies.iter().map(one).collect::<Vec<_>>().join("; ")
}

impl Permit {
    /// What was known when it was decided.
    #[must_use]
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// The method to send.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The target to send: written from the validated parameters.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The content to send, as `application/json`: written from the validated parameters of a method call or of a body.
    #[must_use]
    pub fn content(&self) -> Option<&str> {
        self.content.as_deref()
    }

    /// The credential to send: the one that was judged.
    #[must_use]
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// The policies that permit.
    #[must_use]
    pub fn policies(&self) -> &[Arc<PolicyInfo>] {
        &self.policies
    }

    /// What must be done along with it.
    #[must_use]
    pub fn obligations(&self) -> &[Obligation] {
        &self.obligations
    }
}

impl Trail {
    /// Ends the walk here; what is known so far goes into the record. `detail` is for the operator.
    #[must_use]
    pub(crate) fn deny(self: Box<Self>, reason: Reason, detail: impl Into<String>) -> Box<Denial> {
        Box::new(Denial {
            trail: self,
            reason,
            detail: detail.into(),
            message: String::new(),
            param: String::new(),
            own_words: None,
            retry_after: None,
            allow: None,
            policies: Vec::new(),
        })
    }
}

impl Denial {
    /// What was known when it was refused.
    #[must_use]
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// Why, in one word.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Why, in full, for the operator.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The policies that forbid.
    #[must_use]
    pub fn policies(&self) -> &[Arc<PolicyInfo>] {
        &self.policies
    }

    /// What the client is told: the provider's words.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let provider = &self.trail.site.rules.provider;
        let filling = Filling { message: &self.message, param: &self.param, id: &self.trail.id };
        let status = status(self.reason);
        let body = match &self.trail.tunnel {
            Some((tunnel, call)) if let Some(error) = tunnel.errors.for_reason(self.reason) => {
                Call::failure(call.as_ref(), &error.fill(filling))
            }
            _ => {
                let words = self.own_words.as_ref().or_else(|| provider.words_for(self.trail.action.as_deref(), self.reason));
                words.map_or_else(|| "{}".to_owned(), |words| words.fill(filling))
            }
        };
        let mut headers = provider.refusal_headers.clone();
        if status == 401 {
            headers.extend(provider.unauthorized_headers.iter().cloned());
        }
        if let Some(allow) = &self.allow {
            headers.push(("allow".to_owned(), allow.clone()));
        }
        let unavailable = (status == 503).then_some(5);
        if let Some(seconds) = self.retry_after.or(unavailable) {
            headers.push(("retry-after".to_owned(), seconds.to_string()));
        }
        Refusal { status, body, headers }
    }

    /// Which policies could have permitted it: the rules may be others by the time that the record is read.
    fn could_have(&self) -> String {
        let action = self.trail.action();
        let permits = |policy: &&PolicyInfo| policy.effect == Effect::Permit && policy.actions.iter().any(|name| name == action);
        let named = |policy: &PolicyInfo| format!("`{}` ({}:{})", policy.id, policy.file, policy.line);
        let could: Vec<String> = self.trail.site.rules.engine.policies().filter(permits).map(named).collect();
        match could.is_empty() {
            true => "none is about this action".to_owned(),
            false => format!("these could have: {}", could.join(", ")),
        }
    }

    pub(super) fn into_trail(self) -> Box<Trail> {
        self.trail
    }

    pub(super) fn tell(&mut self, message: String, param: String, own_words: Option<Template>) {
        self.message = message;
        self.param = param;
        self.own_words = own_words;
    }

    pub(super) fn retry_after(&mut self, seconds: u64) {
        self.retry_after = Some(seconds);
    }

    /// The methods to name in `Allow` (RFC 9110 §10.2.1); HEAD goes with GET.
    pub(super) fn allow(&mut self, methods: &[&str]) {
        let mut allowed: Vec<&str> = Vec::new();
        for method in methods {
            for method in if *method == "GET" { &["GET", "HEAD"][..] } else { std::slice::from_ref(method) } {
                if !allowed.contains(method) {
                    allowed.push(method);
                }
            }
        }
        self.allow = Some(allowed.join(", "));
    }
}

impl Permit {
    pub(super) fn into_trail(self) -> Box<Trail> {
        self.trail
    }
}

impl Entry for Permit {
    fn kind(&self) -> RecordKind {
        RecordKind::Decision
    }

    fn time(&self) -> Timestamp {
        self.trail.began.time
    }

    fn id(&self) -> Option<&str> {
        Some(&self.trail.id)
    }

    fn fields(&self, fields: &mut Object<'_>) -> io::Result<()> {
        let (policies, obligations) = (self.policies.as_slice(), self.obligations.as_slice());
        let told = Told { decision: Decision::Permit, reason: None, detail: None, policies, obligations };
        self.trail.write(&told, fields);
        Ok(())
    }
}

impl Entry for Denial {
    fn kind(&self) -> RecordKind {
        RecordKind::Decision
    }

    fn time(&self) -> Timestamp {
        self.trail.began.time
    }

    fn id(&self) -> Option<&str> {
        Some(&self.trail.id)
    }

    fn fields(&self, fields: &mut Object<'_>) -> io::Result<()> {
        let detail = match self.reason {
            Reason::PolicyDenied => Cow::Owned(format!("{}; {}", self.detail, self.could_have())),
            _ => Cow::Borrowed(self.detail.as_str()),
        };
        let (reason, detail, policies) = (Some(self.reason), Some(&*detail), self.policies.as_slice());
        let told = Told { decision: Decision::Deny, reason, detail, policies, obligations: &[] };
        self.trail.write(&told, fields);
        Ok(())
    }
}

impl Entry for Outcome<'_> {
    fn kind(&self) -> RecordKind {
        RecordKind::Outcome
    }

    fn time(&self) -> Timestamp {
        self.permit.trail.began.time_at(self.ended)
    }

    fn id(&self) -> Option<&str> {
        Some(&self.permit.trail.id)
    }

    fn fields(&self, fields: &mut Object<'_>) -> io::Result<()> {
        match self.status {
            Some(status) => fields.field("status").number(status),
            None => fields.field("status").null(),
        }
        fields.field("bytes").number(self.bytes);
        fields.field("duration_us").number(u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX));
        Ok(())
    }
}
