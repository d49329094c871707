//! From a typed provider file to a checked one: every fault is found in one reading.

mod beside;
mod clash;
mod facts;
mod params;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use toml::Spanned;

use super::param::Place as ParamPlace;
use super::provider::{Action, FactUse, Own, Provider, ResourceId, Route, TableUse, Tunnel, nearest, reasons_with_words};
use super::raw;
use super::refusal::{Messages, Template as Body, Words};
use super::router::{Pattern, Tree};
use crate::identity::{Answers, CallerPlan, FactPlan, Lookup, Plan, Pointer, ResetHeader, ResetUnit, TablePlan};
use crate::metrics::Usual;
use crate::model::{Fault, Faults, Place, Reason, Value};
use beside::words as words_of;

/// The greatest age at which something is looked up again.
const LONGEST_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// One reading of one file.
pub(super) struct Check<'a> {
    file: &'a str,
    text: &'a str,
    faults: Faults,
}

impl<'a> Check<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, faults: Faults::default() }
    }

    pub(super) fn provider(mut self, raw: raw::ProviderFile) -> Result<Provider, Faults> {
        let digest = self.lookup_digest();
        self.unique("fact", raw.fact.iter().map(|fact| &fact.name));
        self.unique("table", raw.table.iter().map(|table| &table.name));
        self.unique("action", raw.action.iter().map(|action| &action.id));
        self.unique("method", raw.action.iter().filter_map(|action| action.method.as_ref()));
        self.overlaps(&raw);
        for space in &raw.guarded {
            if !space.get_ref().starts_with('/')
                || space.get_ref().ends_with('/')
                || space.get_ref().contains(['%', '?', '#', ';'])
            {
                self.fault(space, "a guarded space is an absolute path without a slash at its end");
            }
        }
        let mut roles = raw.roles;
        roles.extend(raw.custom);
        let messages = Messages::new(raw.messages);
        let words = self.words(raw.refusals);
        for reason in reasons_with_words() {
            if words.for_reason(reason).is_none() {
                let message = format!("`[refusals]` has no words for `{reason}`");
                self.whole("refusals", message, format!("add `{reason} = '…'`, the body that the server itself would send"));
            }
        }
        let facts: Vec<FactPlan> = raw.fact.into_iter().filter_map(|fact| self.fact(fact, &raw.caller)).collect();
        let tables: Vec<TablePlan> = raw.table.into_iter().filter_map(|table| self.table(table)).collect();
        let actions: Vec<Arc<Action>> =
            raw.action.into_iter().map(|action| Arc::new(self.action(action, &facts, &tables, &messages))).collect();
        let tunnels: Vec<Arc<Tunnel>> = raw
            .tunnel
            .into_iter()
            .map(|tunnel| {
                let doors = self.closed_patterns(tunnel.rest).into_iter().map(Arc::new).collect();
                Arc::new(Tunnel { doors, reveals: tunnel.reveals, errors: self.words(tunnel.errors) })
            })
            .collect();
        let routes: Vec<Route> = raw.route.into_iter().map(|route| self.route(route, &actions)).collect();
        let tells_sockets = raw.sockets.is_some();
        let sockets = raw.sockets.map(|sockets| self.sockets(sockets)).unwrap_or_default();
        let secrets = self.secrets(raw.secrets);
        let guarded: Vec<String> = raw.guarded.into_iter().map(Spanned::into_inner).collect();
        let credentials: Vec<Vec<Arc<str>>> =
            raw.caller.credential.iter().map(|all| all.iter().map(|header| self.header(header).into()).collect()).collect();
        if credentials.is_empty() || credentials.iter().any(Vec::is_empty) {
            let message = "`caller.credential` needs at least one alternative with at least one header";
            self.whole("caller", message, "write `credential = [[\"authorization\"]]`".to_owned());
        }
        let id_lengths = raw.caller.id_lengths.clone();
        let keep_on_401 = raw.caller.keep_on_401.clone();
        let caller = self.caller(raw.caller);
        let forward_headers = raw.forward_headers.iter().map(|header| self.header(header)).collect();
        let refusal_headers = self.header_values(&raw.refusal_headers);
        let unauthorized_headers = self.header_values(&raw.unauthorized_headers);
        let rate_limit_reset = raw.rate_limit_reset.map(|reset| ResetHeader {
            name: reset.header.to_ascii_lowercase(),
            unit: match reset.unit {
                raw::ResetUnit::EpochMilliseconds => ResetUnit::EpochMilliseconds,
                raw::ResetUnit::EpochSeconds => ResetUnit::EpochSeconds,
                raw::ResetUnit::Seconds => ResetUnit::Seconds,
            },
        });
        let answers = self.answers(raw.answers);
        let Some(caller) = caller else { return Err(self.faults.or(()).err().unwrap_or_default()) };
        let name = raw.provider.into_inner();
        self.faults.or(Provider {
            plan: Arc::new(Plan {
                provider: name.clone(),
                digest,
                caller,
                tables,
                facts,
                rate_limit_reset,
                answers,
                host_received: raw.host == raw::HostHeader::Received,
            }),
            name,
            namespace: raw.namespace.into_inner(),
            summary: raw.summary,
            host: raw.host,
            encoded: raw.encoded,
            permissions: raw.permissions,
            roles,
            forward_headers,
            refusal_headers,
            unauthorized_headers,
            words,
            messages,
            credentials,
            id_lengths,
            keep_on_401,
            tree: Tree::of(&actions, &tunnels, &routes, &sockets, &guarded),
            vocabulary: words_of(&actions, &tunnels, &routes, &sockets, &secrets, &guarded),
            guarded,
            sockets,
            tells_sockets,
            actions,
            tunnels,
            routes,
        })
    }

    fn fault<T>(&mut self, spanned: &Spanned<T>, message: impl Into<String>) {
        let place = Place::at(self.file, self.text, spanned.span().start);
        self.faults.push(Fault::new(place, message));
    }

    /// A fault of the table `name` as a whole.
    fn whole(&mut self, name: &str, message: impl Into<String>, hint: String) {
        let header = self.text.find(&format!("[{name}]"));
        let place = header.map_or_else(|| Place::file(self.file), |at| self.place(at));
        self.faults.push(Fault::new(place, message).hint(hint));
    }

    fn hinted<'k, T>(&mut self, spanned: &Spanned<T>, message: String, typed: &str, known: impl Iterator<Item = &'k str>) {
        let fault = Fault::new(Place::at(self.file, self.text, spanned.span().start), message);
        self.faults.push(match nearest(typed, known) {
            Some(known) => fault.hint(format!("did you mean `{known}`?")),
            None => fault,
        });
    }

    fn parsed<T: FromStr>(&mut self, spanned: &Spanned<String>) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        spanned.get_ref().parse().map_err(|error: T::Err| self.fault(spanned, format!("`{}`: {error}", spanned.get_ref()))).ok()
    }

    fn header(&mut self, spanned: &Spanned<String>) -> String {
        let name = spanned.get_ref().to_ascii_lowercase();
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            self.fault(spanned, format!("`{name}` is no header name"));
        }
        name
    }

    fn header_values(&mut self, raw: &BTreeMap<String, Spanned<String>>) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        for (name, value) in raw {
            if http::HeaderName::from_bytes(name.as_bytes()).is_err() || http::HeaderValue::from_str(value.get_ref()).is_err() {
                self.fault(value, format!("`{name}: {}` is no header", value.get_ref()));
            }
            headers.push((name.to_ascii_lowercase(), value.get_ref().clone()));
        }
        headers
    }

    /// Keys name one reason, or several with commas between them.
    fn words(&mut self, raw: BTreeMap<Spanned<String>, Spanned<String>>) -> Words {
        let mut words = Words::default();
        for (reasons, body) in raw {
            let template: Option<Body> = self.parsed(&body);
            for name in reasons.get_ref().split(',').map(str::trim) {
                match Reason::ALL.iter().find(|reason| reason.as_str() == name) {
                    Some(reason) => {
                        if let Some(template) = &template {
                            words.set(*reason, template.clone());
                        }
                    }
                    None => {
                        self.hinted(&reasons, format!("unknown reason `{name}`"), name, Reason::ALL.iter().map(|r| r.as_str()))
                    }
                }
            }
        }
        words
    }

    fn duration(&mut self, raw: Option<&Spanned<String>>) -> Option<Duration> {
        let raw = raw?;
        let duration = humantime::parse_duration(raw.get_ref()).ok();
        if duration.is_none_or(|duration| duration > LONGEST_TTL) {
            let fault =
                Fault::new(self.place(raw.span().start), format!("`{}` is not a duration of at most a day", raw.get_ref()));
            self.faults.push(fault.hint("write it as \"30s\", \"500ms\" or \"5m\""));
        }
        duration
    }

    fn lookup(&mut self, target: &Spanned<String>, base: Option<&Spanned<String>>) -> Option<Lookup> {
        if let Some(base) = base
            && base.get_ref() != "account"
        {
            self.fault(base, format!("unknown base `{}`; there is `account`", base.get_ref()));
        }
        let lookup: Lookup = self.parsed(target)?;
        Some(Lookup { base: base.map(|base| base.get_ref().clone()), ..lookup })
    }

    fn caller(&mut self, raw: raw::Caller) -> Option<CallerPlan> {
        let lookup = self.lookup(&raw.lookup, raw.base.as_ref());
        let id = self.parsed::<Pointer>(&raw.id);
        let name = raw.name.as_ref().and_then(|pointer| self.parsed(pointer));
        let roles = raw.roles.as_ref().and_then(|pointer| self.parsed(pointer));
        let attributes =
            raw.attributes.iter().filter_map(|(name, pointer)| Some((name.clone(), self.parsed(pointer)?))).collect();
        let mut claims = Vec::new();
        for (header, what) in &raw.claims {
            if what.get_ref() == "id" {
                claims.push(header.to_ascii_lowercase());
            } else {
                self.fault(what, "a header can claim the caller's `id` only");
            }
        }
        let ttl = self.duration(raw.ttl.as_ref());
        let refused = raw.refused.unwrap_or_else(|| vec![401]);
        Some(CallerPlan { lookup: lookup?, id: id?, name, roles, attributes, claims, refused, ttl })
    }

    fn answers(&mut self, raw: raw::Answers) -> Answers {
        let mut pointer = |at: &Spanned<String>| self.parsed::<Pointer>(at);
        let no_route = raw.no_route.and_then(|no_route| Some((pointer(&no_route.at)?, no_route.is.into_vec())));
        Answers {
            success: raw.success.as_ref().and_then(&mut pointer),
            error: raw.error.as_ref().and_then(&mut pointer),
            no_route,
        }
    }

    fn table(&mut self, raw: raw::Table) -> Option<TablePlan> {
        let lookup = self.lookup(&raw.lookup, raw.base.as_ref());
        let rows = self.parsed(&raw.rows);
        let key = self.parsed(&raw.key);
        let value = self.parsed(&raw.value);
        let removed = raw.removed.as_ref().and_then(|pointer| self.parsed(pointer));
        let ttl = self.duration(raw.ttl.as_ref());
        if let Some(default) = raw.default.as_ref().filter(|default| !matches!(default.get_ref(), Value::Text(_) | Value::Set(_)))
        {
            self.fault(default, "the value of a row is a text or a list of texts, and so is its `default`");
        }
        Some(TablePlan {
            name: raw.name.into_inner(),
            lookup: lookup?,
            since: raw.since,
            rows: rows?,
            removed,
            key: key?,
            value: value?,
            default: raw.default.map(Spanned::into_inner),
            ttl,
        })
    }

    fn patterns(&mut self, raw: Spanned<raw::OneOrMany>) -> Vec<Pattern> {
        let span = raw.span();
        let mut patterns = Vec::new();
        for text in raw.into_inner().into_vec() {
            match text.parse() {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => {
                    let place = self.place(self.within(span.clone(), &text));
                    let fault = Fault::new(place, format!("`{text}`: {error}"));
                    self.faults
                        .push(fault.hint("write `GET /api/v1/rooms/{roomId}`: a method, and a path with names for what varies"));
                }
            }
        }
        patterns
    }

    fn action(&mut self, raw: raw::Action, facts: &[FactPlan], tables: &[TablePlan], messages: &Messages) -> Action {
        if raw.rest.is_none() && raw.method.is_none() {
            self.fault(&raw.id, format!("`{}` has no door: neither `rest` nor `method`", raw.id.get_ref()));
        }
        let doors = raw.rest.map(|rest| self.closed_patterns(rest)).unwrap_or_default();
        let names: Vec<String> = raw.params.keys().cloned().collect();
        let known = |name: &str| names.iter().any(|known| known == name);
        for pattern in &doors {
            for name in pattern.names().filter(|name| !known(name)) {
                self.fault(&raw.id, format!("the path segment `{{{name}}}` of `{}` is no parameter", raw.id.get_ref()));
            }
        }
        let mut params = Vec::new();
        for (name, param) in &raw.params {
            params.push(self.param(name, param, &doors));
        }
        let in_body = || params.iter().filter(|param| param.place == ParamPlace::Body);
        if in_body().next().is_some() && !in_body().any(|param| param.required) {
            self.fault(
                &raw.id,
                format!("the body of `{}` could be empty: one of its parameters must be required", raw.id.get_ref()),
            );
        }
        let span = raw.resource.span();
        let resource = raw.resource.into_inner();
        let resource_id = match (resource.param, resource.caller) {
            (Some(params), false) => ResourceId::Params(params.into_vec()),
            (None, true) => ResourceId::Caller,
            (Some(_), true) | (None, false) => {
                self.fault(
                    &Spanned::new(span.clone(), ()),
                    "a resource is named by its `param` or is the `caller`: one of the two",
                );
                ResourceId::Caller
            }
        };
        let resource_params = match &resource_id {
            ResourceId::Params(params) => params.as_slice(),
            ResourceId::Caller => &[],
        };
        for name in resource_params.iter().filter(|name| params.iter().any(|param| param.secret && param.name == **name)) {
            self.fault(&Spanned::new(span.clone(), ()), format!("`{name}` is secret, and a resource stands in every record"));
        }
        let mut single: Vec<&String> = resource_params.iter().chain(raw.one_of.iter().map(Spanned::get_ref)).collect();
        single.extend(raw.own.keys());
        for name in single.iter().copied() {
            if !known(name) {
                let at = Spanned::new(span.clone(), ());
                self.hinted(&at, format!("`{name}` is no parameter"), name, names.iter().map(String::as_str));
            }
        }
        for name in raw.method_params.iter().filter(|name| !known(name.get_ref())) {
            self.hinted(name, format!("`{}` is no parameter", name.get_ref()), name.get_ref(), names.iter().map(String::as_str));
        }
        let mut fact_uses = Vec::new();
        for fact_use in raw.facts {
            let mut inputs = self.fact_inputs(&fact_use);
            let name = inputs.remove(facts::FACT_KEY).unwrap_or_default();
            let Some(fact) = facts.iter().find(|fact| fact.name == name) else {
                self.hinted(&fact_use, format!("unknown fact `{name}`"), &name, facts.iter().map(|fact| fact.name.as_str()));
                continue;
            };
            let bound: Vec<&String> = inputs.keys().collect();
            let mut needed: Vec<&String> = fact.needs.iter().collect();
            needed.sort();
            if bound != needed {
                self.fault(&fact_use, format!("the fact `{name}` needs {needed:?} and is given {bound:?}"));
            }
            if let Some(unknown) = inputs.values().find(|param| !known(param)) {
                self.hinted(&fact_use, format!("`{unknown}` is no parameter"), unknown, names.iter().map(String::as_str));
            }
            fact_uses.push(FactUse { name, inputs: inputs.into_iter().collect() });
        }
        let mut table_uses = Vec::new();
        for table_use in raw.tables {
            let raw::TableUse { name, key, attribute } = table_use.get_ref();
            if !tables.iter().any(|table| table.name == *name) {
                self.hinted(&table_use, format!("unknown table `{name}`"), name, tables.iter().map(|table| table.name.as_str()));
            }
            if !known(key) {
                self.hinted(&table_use, format!("`{key}` is no parameter"), key, names.iter().map(String::as_str));
            }
            let attribute = attribute.clone().unwrap_or_else(|| name.clone());
            table_uses.push(TableUse { table: name.clone(), key: key.clone(), attribute });
        }
        single.extend(fact_uses.iter().flat_map(|fact| fact.inputs.iter().map(|(_, param)| param)));
        single.extend(table_uses.iter().map(|table| &table.key));
        self.counted(&raw.params, &raw.ignored, &single);
        Action {
            place: self.place(raw.id.span().start),
            id: raw.id.into_inner(),
            summary: raw.summary,
            resource: resource.kind.into_inner(),
            resource_id,
            facts: fact_uses,
            tables: table_uses,
            doors: doors.into_iter().map(Arc::new).collect(),
            method: raw.method.map(Spanned::into_inner),
            method_params: raw.method_params.into_iter().map(Spanned::into_inner).collect(),
            one_of: raw.one_of.into_iter().map(Spanned::into_inner).collect(),
            ignored: raw.ignored.into_iter().map(Spanned::into_inner).collect(),
            own: raw
                .own
                .into_iter()
                .map(|(param, by)| {
                    let own = match by.into_inner() {
                        raw::Identity::Id => Own::Id,
                        raw::Identity::Name => Own::Name,
                    };
                    (param, own)
                })
                .collect(),
            params,
            words: self.words(raw.refusals),
            messages: messages.with(raw.any_of),
            usual: Usual::default(),
        }
    }

    /// The digest of what decides how facts are looked up: `caller`, `table`, `fact`, `answers`, `host`.
    fn lookup_digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        if let Ok(toml::Value::Table(table)) = toml::from_str::<toml::Value>(self.text) {
            for key in ["provider", "caller", "table", "fact", "answers", "host"] {
                let part = table.get(key).map(ToString::to_string).unwrap_or_default();
                hash.update(part.len().to_be_bytes());
                hash.update(part);
            }
        }
        hash.finalize().into()
    }
}
