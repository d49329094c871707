//! A provider file as it is typed: nothing here is believed until `provider.rs` has checked it.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use crate::model::Value;

/// `provider.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderFile {
    pub(super) provider: Spanned<String>,
    pub(super) namespace: Spanned<String>,
    pub(super) summary: String,
    pub(super) guarded: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) host: HostHeader,
    #[serde(default)]
    pub(super) encoded: bool,
    #[serde(default)]
    pub(super) permissions: Vec<String>,
    #[serde(default)]
    pub(super) roles: Vec<String>,
    #[serde(default)]
    pub(super) custom: Vec<String>,
    #[serde(default)]
    pub(super) forward_headers: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) refusal_headers: BTreeMap<String, Spanned<String>>,
    pub(super) refusals: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    pub(super) unauthorized_headers: BTreeMap<String, Spanned<String>>,
    pub(super) messages: Messages,
    pub(super) rate_limit_reset: Option<RateLimitReset>,
    #[serde(default)]
    pub(super) answers: Answers,
    pub(super) caller: Caller,
    #[serde(default)]
    pub(super) table: Vec<Table>,
    #[serde(default)]
    pub(super) fact: Vec<Fact>,
    #[serde(default)]
    pub(super) action: Vec<Action>,
    #[serde(default)]
    pub(super) tunnel: Vec<Tunnel>,
    #[serde(default)]
    pub(super) route: Vec<Route>,
    pub(super) sockets: Option<Sockets>,
    #[serde(default)]
    pub(super) secrets: Vec<Spanned<String>>,
}

/// Where the server takes sockets, and what stands in for them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sockets {
    pub(super) paths: Vec<Spanned<String>>,
}

/// Which `Host` the upstream is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostHeader {
    /// The one the client sent: a server that makes links of it goes on making the right ones.
    #[default]
    Received,
    /// The upstream's own: a server on the internet that is chosen by it.
    Upstream,
}

/// The words of the server's own validator.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Messages {
    pub(super) missing: String,
    pub(super) one_of: String,
    pub(super) unknown: String,
    pub(super) repeated: String,
    pub(super) repeated_number: String,
    /// Only of a server that reads `name[]` and `name[x]` as something in `name`; to others those are names like any other.
    pub(super) nested: Option<String>,
    pub(super) nested_number: Option<String>,
    pub(super) too_short: String,
    pub(super) too_long: String,
    pub(super) not_a_number: String,
    pub(super) not_whole: String,
    pub(super) too_small: String,
    pub(super) too_large: String,
    pub(super) not_a_boolean: String,
    pub(super) not_listed: String,
    pub(super) not_an_object: String,
    pub(super) malformed: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateLimitReset {
    pub(super) header: String,
    pub(super) unit: ResetUnit,
}

/// How answers to lookups say of themselves whether they are believed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answers {
    pub(super) success: Option<Spanned<String>>,
    pub(super) error: Option<Spanned<String>>,
    pub(super) no_route: Option<NoRoute>,
}

/// Where, and with which texts, an answer says that the server has no such route.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoRoute {
    pub(super) at: Spanned<String>,
    pub(super) is: OneOrMany,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ResetUnit {
    EpochMilliseconds,
    EpochSeconds,
    Seconds,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Caller {
    pub(super) credential: Vec<Vec<Spanned<String>>>,
    pub(super) lookup: Spanned<String>,
    pub(super) base: Option<Spanned<String>>,
    pub(super) id: Spanned<String>,
    pub(super) name: Option<Spanned<String>>,
    pub(super) roles: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    pub(super) claims: BTreeMap<String, Spanned<String>>,
    pub(super) refused: Option<Vec<u16>>,
    #[serde(default)]
    pub(super) id_lengths: Vec<usize>,
    pub(super) ttl: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) keep_on_401: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    pub(super) name: Spanned<String>,
    pub(super) lookup: Spanned<String>,
    pub(super) base: Option<Spanned<String>>,
    pub(super) since: Option<String>,
    pub(super) rows: Spanned<String>,
    pub(super) removed: Option<Spanned<String>>,
    pub(super) key: Spanned<String>,
    pub(super) value: Spanned<String>,
    pub(super) default: Option<Spanned<Value>>,
    pub(super) ttl: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fact {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) needs: Vec<Spanned<String>>,
    pub(super) ttl: Option<Spanned<String>>,
    pub(super) step: Vec<Step>,
}

/// One step of a fact: its own keys, and every other key is an output.
#[derive(Debug, Deserialize)]
pub(super) struct Step {
    pub(super) lookup: Option<Spanned<String>>,
    pub(super) from: Option<Spanned<String>>,
    pub(super) base: Option<Spanned<String>>,
    pub(super) when: Option<Spanned<OneOrMany>>,
    pub(super) unless: Option<Spanned<OneOrMany>>,
    #[serde(default)]
    pub(super) absent: Vec<u16>,
    pub(super) rows: Option<Spanned<String>>,
    #[serde(default, rename = "where")]
    pub(super) matching: BTreeMap<String, String>,
    pub(super) next: Option<Spanned<String>>,
    #[serde(flatten)]
    pub(super) outputs: BTreeMap<String, Output>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Output {
    pub(super) at: Option<OneOrMany>,
    pub(super) present: Option<bool>,
    pub(super) is: Option<OneOrMany>,
    pub(super) contains: Option<String>,
    pub(super) value: Option<Value>,
    pub(super) default: Option<Value>,
    pub(super) kind: Option<OutputKind>,
    pub(super) levels: Option<BTreeMap<String, i64>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OutputKind {
    Boolean,
    Integer,
    Text,
    Set,
}

/// One or several.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn iter(&self) -> std::slice::Iter<'_, String> {
        match self {
            Self::One(one) => std::slice::from_ref(one).iter(),
            Self::Many(many) => many.iter(),
        }
    }

    pub(super) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Action {
    pub(super) id: Spanned<String>,
    pub(super) summary: String,
    pub(super) resource: Spanned<ActionResource>,
    #[serde(default)]
    pub(super) facts: Vec<Spanned<BTreeMap<String, Spanned<OneOrMany>>>>,
    #[serde(default)]
    pub(super) tables: Vec<Spanned<TableUse>>,
    pub(super) rest: Option<Spanned<OneOrMany>>,
    pub(super) method: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) method_params: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) one_of: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) ignored: Vec<Spanned<String>>,
    #[serde(default, rename = "self")]
    pub(super) own: BTreeMap<String, Spanned<Identity>>,
    #[serde(default)]
    pub(super) params: BTreeMap<String, Spanned<Param>>,
    #[serde(default)]
    pub(super) refusals: BTreeMap<Spanned<String>, Spanned<String>>,
    pub(super) any_of: Option<AnyOf>,
}

/// How a validator tells a fault of an action that takes one of several names: one text a branch, and a last one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnyOf {
    pub(super) branches: Vec<String>,
    pub(super) last: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Identity {
    Id,
    Name,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActionResource {
    #[serde(rename = "type")]
    pub(super) kind: Spanned<String>,
    pub(super) param: Option<OneOrMany>,
    #[serde(default)]
    pub(super) caller: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableUse {
    pub(super) name: String,
    pub(super) key: String,
    #[serde(rename = "as")]
    pub(super) attribute: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Param {
    #[serde(rename = "in")]
    pub(super) place: ParamPlace,
    #[serde(rename = "type")]
    pub(super) kind: ParamType,
    #[serde(default)]
    pub(super) required: bool,
    pub(super) minimum: Option<i64>,
    pub(super) maximum: Option<i64>,
    pub(super) min_length: Option<usize>,
    pub(super) max_length: Option<usize>,
    #[serde(default)]
    pub(super) values: Vec<String>,
    #[serde(default)]
    pub(super) any_case: bool,
    #[serde(default)]
    pub(super) empty: Empty,
    #[serde(default)]
    pub(super) encoded: bool,
    #[serde(default)]
    pub(super) repeated: bool,
    pub(super) refusal: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) secret: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ParamPlace {
    Path,
    Query,
    Body,
    Method,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ParamType {
    Id,
    String,
    Integer,
    Boolean,
    Enum,
    JsonObject,
    Sort,
    Json,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Empty {
    #[default]
    Value,
    Missing,
    Absent,
}

/// A route by which a method is called that only the body names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tunnel {
    pub(super) rest: Spanned<OneOrMany>,
    pub(super) reveals: String,
    #[serde(default)]
    pub(super) errors: BTreeMap<Spanned<String>, Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    pub(super) rest: Spanned<OneOrMany>,
    /// The RPC methods that give the same.
    #[serde(default)]
    pub(super) method: Vec<Spanned<String>>,
    pub(super) reveals: String,
    pub(super) then: Then,
    #[serde(default)]
    pub(super) encoded: bool,
}

/// What becomes of a route that is known and not judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// It passes.
    Forward,
    /// It is refused.
    Deny,
}
