//! A checked provider: what is guarded, how callers are known, which actions there are, and in which words a refusal is told.

use std::sync::Arc;

use super::param::{Empty, Form, GREATEST_INTEGER, LONGEST_VALUE, Param, Place};
pub use super::raw::{HostHeader, Then};
use super::refusal::{Messages, Template, Words, status};
use super::router::{Pattern, Tree};
use super::vocabulary::Vocabulary;
use crate::identity::Plan;
use crate::metrics::Usual;
use crate::model::{Kind, Place as FilePlace, Reason};
use crate::policy::{ActionShape, Domain, FactShape, Field};

/// A kind of upstream.
#[derive(Debug)]
pub struct Provider {
    /// Its name: `rocketchat`, `docusign-rooms`.
    pub name: String,
    /// The namespace of its policies: `RocketChat`.
    pub namespace: String,
    /// One line for people.
    pub summary: String,
    /// The spaces in which a target must be canonical, each an absolute path.
    pub guarded: Vec<String>,
    /// Which `Host` the upstream is sent.
    pub host: HostHeader,
    /// Whether the paths of routes that no action declares may hold encoded slashes, percent signs and the like: the names
    /// of things in them may.
    pub encoded: bool,
    /// Every permission the upstream knows.
    pub permissions: Vec<String>,
    /// Every role the upstream knows, an operator's own included.
    pub roles: Vec<String>,
    /// Fields of a guarded request that are sent on beside the harmless ones.
    pub forward_headers: Vec<String>,
    /// Fields of every refusal.
    pub refusal_headers: Vec<(String, String)>,
    /// Fields of a 401.
    pub unauthorized_headers: Vec<(String, String)>,
    /// The words of its refusals.
    pub words: Words,
    /// The words of its validator.
    pub messages: Messages,
    /// The headers that prove a caller, as alternatives, in the order the server tries them.
    pub credentials: Vec<Vec<Arc<str>>>,
    /// The lengths at which letters and digits have the form of an id.
    pub id_lengths: Vec<usize>,
    /// Paths whose 401 says nothing about the credential.
    pub keep_on_401: Vec<String>,
    /// How callers, tables and facts are looked up.
    pub plan: Arc<Plan>,
    /// The actions.
    pub actions: Vec<Arc<Action>>,
    /// Routes by which a method is called that only the body names.
    pub tunnels: Vec<Arc<Tunnel>>,
    /// Known routes that are not judged.
    pub routes: Vec<Route>,
    /// Where the server takes sockets, and what stands in for them: an operator closes all of it at once.
    pub sockets: Vec<Pattern>,
    /// Whether the file says so, be it that there are none.
    pub tells_sockets: bool,
    /// The words of the file, which a record may show whoever writes them.
    pub vocabulary: Vocabulary,
    /// Their patterns, to be found by paths.
    pub tree: Tree,
}

/// One thing a caller may want to do.
#[derive(Debug)]
pub struct Action {
    /// Where it is declared.
    pub place: FilePlace,
    /// Its name in policies, records and metrics: `rooms.roles`.
    pub id: String,
    /// One line for people.
    pub summary: String,
    /// The type of what it is about: `Room`.
    pub resource: String,
    /// By what its resource is named.
    pub resource_id: ResourceId,
    /// The facts it may need, with the parameter for each input.
    pub facts: Vec<FactUse>,
    /// The table values it may need.
    pub tables: Vec<TableUse>,
    /// Its routes.
    pub doors: Vec<Arc<Pattern>>,
    /// Its name as an RPC method.
    pub method: Option<String>,
    /// The parameters of the method, in their order.
    pub method_params: Vec<String>,
    /// Of these parameters exactly one is given.
    pub one_of: Vec<String>,
    /// Names in the query that the server ignores: accepted once, recorded, and not sent on.
    pub ignored: Vec<String>,
    /// Parameters that may name the caller: by id, or by name.
    pub own: Vec<(String, Own)>,
    /// Its parameters by name, which is also the order in which they are sent on.
    pub params: Vec<Param>,
    /// Words of its own.
    pub words: Words,
    /// How its validator tells a fault.
    pub messages: Messages,
    /// The series in which most of its requests count.
    pub usual: Usual,
}

/// By what the resource of an action is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceId {
    /// By a parameter: the first of these that was given. What concerns the whole server has none.
    Params(Vec<String>),
    /// By the caller's id: what the caller asks about itself.
    Caller,
}

/// By what a parameter names the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// By id.
    Id,
    /// By login name.
    Name,
}

/// A fact an action may need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactUse {
    /// The fact.
    pub name: String,
    /// Input of the fact, and the parameter that fills it.
    pub inputs: Vec<(String, String)>,
}

/// A value of a table an action may need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableUse {
    /// The table.
    pub table: String,
    /// The parameter whose value is the key.
    pub key: String,
    /// The attribute of `context.table` it becomes.
    pub attribute: String,
}

/// A route by which a method is called that only the body names: `{"message":"{\"msg\":\"method\",…}"}`.
#[derive(Debug)]
pub struct Tunnel {
    /// Its routes.
    pub doors: Vec<Arc<Pattern>>,
    /// What it reveals, in plain words.
    pub reveals: String,
    /// The `error` object of a refused call, by reason.
    pub errors: Words,
}

/// A known route that is not judged.
#[derive(Debug)]
pub struct Route {
    /// Its routes.
    pub doors: Vec<Pattern>,
    /// The RPC methods that give the same: with the route they are closed.
    pub methods: Vec<String>,
    /// What it reveals, in plain words.
    pub reveals: String,
    /// What becomes of it.
    pub then: Then,
    /// Whether its named segments may be percent-encoded.
    pub encoded: bool,
}

impl Action {
    /// The parameter named `name`.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&Param> {
        self.params.iter().find(|param| param.name == name)
    }

    /// Whether every request for it gives the parameter named `name`.
    #[must_use]
    pub fn always_gives(&self, name: &str) -> bool {
        self.param(name).is_some_and(|param| param.required) && !self.one_of.iter().any(|one| one == name)
    }

    /// Whether it takes a body: a JSON object of its parameters.
    #[must_use]
    pub fn takes_body(&self) -> bool {
        self.params.iter().any(|param| param.place == Place::Body)
    }

    /// Whether one of its parameters is a credential.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        self.params.iter().any(|param| param.secret)
    }

    /// Whether the path parameter `name` may be percent-encoded.
    #[must_use]
    pub fn encoded(&self, name: &str) -> bool {
        self.param(name).is_some_and(|param| param.place == Place::Path { encoded: true })
    }
}

impl Provider {
    /// What the decision point needs to know; `networks` are the operator's names.
    #[must_use]
    pub fn domain(&self, networks: &[String]) -> Domain {
        let fact_fields = |name: &str| -> Vec<Field> {
            let fact = self.plan.facts.iter().find(|fact| fact.name == name);
            let outputs = fact.iter().flat_map(|fact| &fact.steps).flat_map(|step| &step.outputs);
            let mut fields: Vec<Field> = Vec::new();
            for output in outputs {
                if fields.iter().all(|field| field.name != output.name) {
                    fields.push(Field { name: output.name.clone(), kind: output.kind, required: true });
                }
            }
            fields
        };
        let shape = |action: &Action| ActionShape {
            name: action.id.clone(),
            resource: action.resource.clone(),
            params: action
                .params
                .iter()
                .map(|param| Field { name: param.name.clone(), kind: param.kind(), required: param.required })
                .collect(),
            has_self: !action.own.is_empty(),
            facts: action
                .facts
                .iter()
                .map(|fact| FactShape {
                    name: fact.name.clone(),
                    fields: fact_fields(&fact.name),
                    required: fact.inputs.iter().all(|(_, param)| action.always_gives(param)),
                })
                .collect(),
            table: action
                .tables
                .iter()
                // A table may have no row for the key.
                .map(|table| Field { name: table.attribute.clone(), kind: Kind::Text, required: false })
                .collect(),
        };
        Domain {
            namespace: self.namespace.clone(),
            permissions: self.permissions.clone(),
            roles: self.roles.clone(),
            actions: self.actions.iter().map(|action| shape(action)).collect(),
            networks: networks.to_vec(),
        }
    }

    /// The action that the method `name` belongs to.
    #[must_use]
    pub fn method(&self, name: &str) -> Option<&Arc<Action>> {
        self.actions.iter().find(|action| action.method.as_deref() == Some(name))
    }

    /// The closed route that gives the same as the method `name`.
    #[must_use]
    pub fn closes_method(&self, name: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.then == Then::Deny && route.methods.iter().any(|method| method == name))
    }

    /// What these settings of an upstream close and what is open all the same: a socket behind another transport, or a method
    /// behind a socket, which nobody reads.
    #[must_use]
    pub fn left_open(&self, websockets: Then, unlisted_methods: Then) -> Option<String> {
        if websockets == Then::Deny && !self.tells_sockets {
            let why =
                "closes handshakes only: `provider.toml` has no `[sockets]`, whose `paths` name what stands in for a socket";
            return Some(format!("`websockets = \"deny\"` {why}"));
        }
        let socket = self.sockets.first().filter(|_| websockets == Then::Forward)?.path(|name| format!("{{{name}}}"));
        let closes = |route: &&Route| route.then == Then::Deny && !route.methods.is_empty();
        let closed = match self.routes.iter().find(closes) {
            _ if unlisted_methods == Then::Deny => "`unlisted_methods = \"deny\"`".to_owned(),
            Some(route) => format!("the closed route `{}`", route.doors.first()?),
            None => return None,
        };
        Some(format!("{closed} closes methods that can still be called over `{socket}`: `websockets = \"deny\"` closes that too"))
    }

    /// Why these settings of an upstream do nothing.
    #[must_use]
    pub fn moot(&self, unlisted_methods: Then) -> Option<String> {
        let moot = unlisted_methods == Then::Deny && self.tunnels.is_empty();
        moot.then(|| format!("`unlisted_methods = \"deny\"` does nothing: `{}` has no methods in bodies", self.name))
    }

    /// The words for `reason`, an action's own before the provider's.
    #[must_use]
    pub fn words_for<'w>(&'w self, action: Option<&'w Action>, reason: Reason) -> Option<&'w Template> {
        action.and_then(|action| action.words.for_reason(reason)).or_else(|| self.words.for_reason(reason))
    }

    /// How many methods of known routes pass unjudged.
    #[must_use]
    pub fn open_routes(&self) -> usize {
        self.routes.iter().filter(|route| route.then == Then::Forward).map(|route| route.doors.len()).sum()
    }
}

/// Reads and checks the text of one `provider.toml`.
///
/// # Errors
/// Every fault, with its place.
pub fn read(file: &str, text: &str) -> Result<Provider, crate::model::Faults> {
    let (raw, faults) = super::typed::read::<super::raw::ProviderFile>(file, text);
    match (raw, faults.0.is_empty()) {
        (Some(raw), true) => super::check::Check::new(file, text).provider(raw),
        // What was left out would be missed elsewhere: these faults come first.
        _ => Err(faults.or(()).err().unwrap_or_default()),
    }
}

/// The message of a parser with the name that was probably meant.
pub(crate) fn with_suggestion(message: &str) -> String {
    match super::typed::suggestion(message) {
        Some(known) => format!("{message}; did you mean `{known}`?"),
        None => message.to_owned(),
    }
}

/// The one of `known` that `typed` was probably meant to be: the nearest in spelling, or the only one that it begins.
pub(crate) fn nearest<'k>(typed: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
    let known: Vec<&str> = known.collect();
    if let Some(near) = crate::policy::closest(typed, known.iter().copied()) {
        return Some(near.to_owned());
    }
    let mut begun = known.iter().filter(|known| typed.len() >= 3 && known.starts_with(typed));
    begun.next().filter(|_| begun.next().is_none()).map(|known| (*known).to_owned())
}

/// The reasons whose words a provider file must give: every one that a client can meet.
pub(super) fn reasons_with_words() -> impl Iterator<Item = Reason> {
    Reason::ALL.iter().copied().filter(|reason| status(*reason) >= 400)
}

pub(super) fn form(raw: &super::raw::Param) -> Form {
    use super::raw::ParamType;
    match raw.kind {
        ParamType::Id => Form::Id,
        ParamType::String => Form::Text { min: raw.min_length.unwrap_or(0), max: raw.max_length.unwrap_or(LONGEST_VALUE) },
        ParamType::Integer => {
            Form::Integer { min: raw.minimum.unwrap_or(-GREATEST_INTEGER), max: raw.maximum.unwrap_or(GREATEST_INTEGER) }
        }
        ParamType::Boolean => Form::Boolean,
        ParamType::Enum => Form::Enum { values: raw.values.clone(), any_case: raw.any_case },
        ParamType::JsonObject => Form::JsonObject,
        ParamType::Sort => Form::Sort,
        ParamType::Json => Form::Json,
    }
}

pub(super) fn empty(raw: super::raw::Empty) -> Empty {
    match raw {
        super::raw::Empty::Value => Empty::Value,
        super::raw::Empty::Missing => Empty::Missing,
        super::raw::Empty::Absent => Empty::Absent,
    }
}
