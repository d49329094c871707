//! What is known of a request so far: every stop of the walk adds to it, and the audit record is made of it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Site;
use super::shown::{self, LONGEST_SHOWN, shown};
use super::tunnel::CallId;
use crate::audit::Object;
use crate::identity::{Caller, Known, Table};
use crate::metrics::Labels;
use crate::model::{Decision, Door, Mode, Obligation, RawRequest, Reason, Record, Resource, Value};
use crate::policy::PolicyInfo;
use crate::rules::Action;
use crate::rules::provider::Tunnel;
use crate::rules::vocabulary::{CUT, brief};

/// A moment by both clocks: the one on the wall, for people, and the one that only goes forward, for durations.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// By the clock on the wall.
    pub time: Timestamp,
    /// By the other one.
    pub at: Instant,
}

impl Moment {
    /// This one.
    #[must_use]
    pub fn now() -> Self {
        Self { time: Timestamp::now(), at: Instant::now() }
    }

    /// The time on the wall at a `later` moment, whatever was done to that clock meanwhile.
    #[must_use]
    pub fn time_at(self, later: Instant) -> Timestamp {
        self.time.checked_add(later.saturating_duration_since(self.at)).unwrap_or(Timestamp::MAX)
    }
}

/// The part of a record that is known before the verdict.
#[derive(Debug)]
pub struct Trail {
    pub(super) id: String,
    pub(super) began: Moment,
    pub(super) site: Site,
    pub(super) door: Door,
    pub(super) method: Cow<'static, str>,
    pub(super) target: String,
    pub(super) correlation: Option<String>,
    pub(super) client: Option<IpAddr>,
    /// The host that lookups for it go to, where the configuration names none.
    pub(super) host: Option<Arc<str>>,
    pub(super) action: Option<Arc<Action>>,
    /// The tunnel it came by, and the caller's id of the call: a refusal has the form of a call's answer.
    pub(super) tunnel: Option<(Arc<Tunnel>, Option<CallId>)>,
    pub(super) resource: Option<Resource>,
    pub(super) params: Option<Arc<Record>>,
    pub(super) caller: Option<Arc<Caller>>,
    pub(super) caller_age: Option<(Duration, bool)>,
    /// Tables past their time that stood in for a failed lookup, with their age.
    pub(super) stale_tables: Vec<(String, Duration)>,
    pub(super) facts: Vec<FactKnown>,
    /// Facts and tables of which nothing is known: the parameter was not given, or the table has no such row.
    pub(super) unknown: Vec<String>,
    pub(super) networks: Vec<String>,
    pub(super) is_self: Option<bool>,
    pub(super) table: Record,
}

/// A fact with its age.
#[derive(Debug)]
pub(super) struct FactKnown {
    pub(super) name: String,
    pub(super) record: Arc<Record>,
    pub(super) age: Duration,
    pub(super) stale: bool,
}

impl Trail {
    /// Of a request for `action`, if that is known, whose walk began then.
    pub(super) fn new(raw: &RawRequest<'_>, site: Site, began: Moment, action: Option<&Action>) -> Box<Self> {
        Box::new(Self {
            id: ulid::Ulid::from_datetime(began.time.into()).to_string(),
            began,
            host: site.host(raw.host).map(Arc::from),
            door: Door::None,
            method: method(raw.method).unwrap_or_else(|| shown(brief(raw.method).as_bytes(), LONGEST_SHOWN).into()),
            target: shown::target(raw.target, &site, action),
            site,
            correlation: raw.correlation.clone(),
            client: raw.client,
            action: None,
            tunnel: None,
            resource: None,
            params: None,
            caller: None,
            caller_age: None,
            stale_tables: Vec::new(),
            facts: Vec::new(),
            unknown: Vec::new(),
            networks: Vec::new(),
            is_self: None,
            table: Record::default(),
        })
    }

    /// The action was found.
    pub(super) fn found(&mut self, action: &Arc<Action>, door: Door) {
        self.action = Some(Arc::clone(action));
        self.door = door;
    }

    /// The content of a table; one that is stale is marked in the record.
    pub(super) fn table(&mut self, name: &str, known: Known<Table>) -> Arc<Table> {
        if known.stale && !self.stale_tables.iter().any(|(marked, _)| marked == name) {
            self.stale_tables.push((name.to_owned(), known.age));
        }
        known.value
    }

    /// The decision id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The upstream it is for, with the rules it is judged by.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The host that lookups for it go to, where the configuration names none.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The door by which it came.
    #[must_use]
    pub fn door(&self) -> Door {
        self.door
    }

    /// The action's name, or `none`.
    #[must_use]
    pub fn action(&self) -> &str {
        self.action.as_ref().map_or("none", |action| action.id.as_str())
    }

    /// What the request counts under.
    #[must_use]
    pub fn labels(&self) -> Labels<'_> {
        let usual = self.action.as_ref().map(|action| &action.usual);
        Labels { provider: &self.site.rules.provider.name, door: self.door, action: self.action(), usual }
    }

    /// Everything that the policies could read, and the client's address, as it stands in the record.
    #[must_use]
    pub fn context(&self) -> serde_json::Value {
        let known = Object::read(|fields| {
            self.write_context(fields);
            Ok(())
        });
        // What was written as JSON can be read as such.
        known.map(serde_json::Value::Object).unwrap_or_default()
    }

    /// The facts and tables that the policies read and of which nothing was known.
    pub fn unknown(&self) -> impl Iterator<Item = &str> {
        self.unknown.iter().map(String::as_str)
    }

    /// When its walk began.
    #[must_use]
    pub fn began(&self) -> Moment {
        self.began
    }
}

/// What a `decision` record says beside what was known.
pub(super) struct Told<'a> {
    pub(super) decision: Decision,
    pub(super) reason: Option<Reason>,
    pub(super) detail: Option<&'a str>,
    pub(super) policies: &'a [Arc<PolicyInfo>],
    pub(super) obligations: &'a [Obligation],
}

impl Trail {
    /// Writes the fields of its `decision` record.
    pub(super) fn write(&self, told: &Told<'_>, fields: &mut Object<'_>) {
        let enforced = self.site.upstream.mode == Mode::Enforce || told.reason.is_some_and(super::always_enforced);
        fields.again(&self.site.names);
        fields.field("door").text(self.door.as_str());
        fields.field("method").text(&self.method);
        fields.field("target").text(&self.target);
        fields.field("correlation").optional(self.correlation.as_deref());
        match self.caller.as_ref().map(|caller| &caller.subject) {
            Some(subject) => fields.field("subject").object(|fields| {
                fields.field("type").text("User");
                fields.field("id").text(&subject.id);
                fields.field("name").text(&subject.name);
                fields.field("roles").texts(subject.roles.iter().map(|role| &**role));
            }),
            None => fields.field("subject").null(),
        }
        match &self.action {
            Some(action) => fields.field("action").object(|fields| fields.field("name").text(&action.id)),
            None => fields.field("action").null(),
        }
        match &self.resource {
            Some(resource) => fields.field("resource").object(|fields| {
                fields.field("type").text(&resource.kind);
                fields.field("id").text(&resource.id);
            }),
            None => fields.field("resource").null(),
        }
        fields.field("context").object(|fields| self.write_context(fields));
        fields.field("decision").text(told.decision.as_str());
        fields.field("enforced").truth(enforced);
        fields.field("reason").optional(told.reason.map(Reason::as_str));
        if let Some(detail) = told.detail {
            fields.field("detail").text(&shown(detail.as_bytes(), LONGEST_SHOWN));
        }
        fields.field("policies").texts(told.policies.iter().map(|policy| policy.id.as_str()));
        if !told.obligations.is_empty() {
            fields.field("obligations").object(|fields| obligations(told.obligations, fields));
        }
        fields.again(&self.site.revision);
        fields.field("facts").object(|fields| self.write_ages(fields));
    }

    /// Everything that the policies could read, and the client's address.
    fn write_context(&self, fields: &mut Object<'_>) {
        match &self.params {
            Some(params) => fields.field("params").object(|fields| {
                let action = self.action.as_ref().filter(|action| action.has_secret());
                params.write(fields, |name| action.and_then(|action| action.param(name)).is_some_and(|param| param.secret));
            }),
            None => fields.field("params").null(),
        }
        match self.client {
            Some(client) => fields.field("client").address(client),
            None => fields.field("client").null(),
        }
        if let Some(is_self) = self.is_self {
            fields.field("self").truth(is_self);
        }
        if !self.networks.is_empty() {
            fields.field("networks").texts(self.networks.iter().map(String::as_str));
        }
        if !self.table.is_empty() {
            fields.field("table").object(|fields| self.table.write(fields, |_| false));
        }
        for fact in &self.facts {
            fields.entry(&fact.name).object(|fields| fact.record.write(fields, |_| false));
        }
    }

    /// How old each fact was; null where nothing was known.
    fn write_ages(&self, fields: &mut Object<'_>) {
        let mut write = |name: &str, age: Duration, stale: Option<bool>| {
            fields.entry(name).object(|fields| {
                fields.field("age_ms").number(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
                if let Some(stale) = stale {
                    fields.field("stale").truth(stale);
                }
            });
        };
        if let Some((age, stale)) = self.caller_age {
            write("caller", age, stale.then_some(true));
        }
        for (name, age) in &self.stale_tables {
            write(name, *age, Some(true));
        }
        for fact in &self.facts {
            write(&fact.name, fact.age, Some(fact.stale));
        }
        for name in &self.unknown {
            fields.entry(name).null();
        }
    }
}

impl Record {
    /// Writes every value but those that are `secret`.
    fn write(&self, fields: &mut Object<'_>, secret: impl Fn(&str) -> bool) {
        for (name, value) in self.iter() {
            match value {
                _ if secret(name) => fields.entry(name).text(CUT),
                Value::Boolean(value) => fields.entry(name).truth(*value),
                Value::Integer(value) => fields.entry(name).number(*value),
                Value::Text(value) => fields.entry(name).text(value),
                Value::Set(values) => fields.entry(name).texts(values.iter().map(String::as_str)),
            }
        }
    }
}

fn obligations(obligations: &[Obligation], fields: &mut Object<'_>) {
    let without = |obligation: &'_ Obligation| matches!(obligation, Obligation::Without(_));
    for (name, wanted) in [("without", true), ("redact", false)] {
        let mut values = obligations
            .iter()
            .filter(|obligation| without(obligation) == wanted)
            .map(|obligation| match obligation {
                Obligation::Without(name) | Obligation::Redact(name) => name.as_str(),
            })
            .peekable();
        if values.peek().is_some() {
            fields.entry(name).texts(values);
        }
    }
}

/// The methods that guarded requests nearly always have.
pub(super) fn method(name: &str) -> Option<Cow<'static, str>> {
    ["GET", "POST", "HEAD"].into_iter().find(|usual| *usual == name).map(Cow::Borrowed)
}
