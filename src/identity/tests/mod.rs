//! An upstream that counts its questions and can hold its answers back, and the plans it is asked by.

mod callers;
mod dropping;
mod facts;
mod tables;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use tokio::sync::watch;

use super::*;
use crate::model::{Kind, Secret, Value};

pub(super) const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
pub(super) const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

type Responder = Arc<dyn Fn(&Question) -> Result<Reply, AskError> + Send + Sync>;

/// The upstream of a test; clones are the same one.
#[derive(Clone)]
pub(super) struct Upstream {
    responder: Arc<Mutex<Responder>>,
    asked: Arc<watch::Sender<Vec<Question>>>,
    /// How many questions may be answered, in the order they were put.
    open: Arc<watch::Sender<usize>>,
}

impl Upstream {
    pub(super) fn answering(responder: impl Fn(&Question) -> Result<Reply, AskError> + Send + Sync + 'static) -> Self {
        Self {
            responder: Arc::new(Mutex::new(Arc::new(responder))),
            asked: Arc::new(watch::Sender::new(Vec::new())),
            open: Arc::new(watch::Sender::new(usize::MAX)),
        }
    }

    pub(super) fn answers(&self, responder: impl Fn(&Question) -> Result<Reply, AskError> + Send + Sync + 'static) {
        *self.responder.lock() = Arc::new(responder);
    }

    /// From now on questions arrive, and none is answered.
    pub(super) fn hold(&self) {
        self.open.send_replace(self.asked());
    }

    pub(super) fn release(&self) {
        self.open.send_replace(usize::MAX);
    }

    /// Answers one more question.
    pub(super) fn release_one(&self) {
        self.open.send_modify(|open| *open += 1);
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.borrow().len()
    }

    pub(super) fn questions(&self) -> Vec<Question> {
        self.asked.borrow().clone()
    }

    pub(super) fn targets(&self) -> Vec<String> {
        self.questions().into_iter().map(|question| question.target).collect()
    }

    pub(super) async fn until_asked(&self, times: usize) {
        let mut asked = self.asked.subscribe();
        let enough = asked.wait_for(|questions| questions.len() >= times);
        tokio::time::timeout(Duration::from_secs(10), enough).await.expect("asked in time").unwrap();
    }
}

impl Ask for Upstream {
    async fn ask(&self, question: Question) -> Result<Reply, AskError> {
        let mut open = self.open.subscribe();
        let mut number = 0;
        self.asked.send_modify(|asked| {
            number = asked.len();
            asked.push(question.clone());
        });
        open.wait_for(|open| number < *open).await.unwrap();
        let responder = Arc::clone(&*self.responder.lock());
        responder(&question)
    }
}

pub(super) fn reply(status: u16, body: &Json) -> Result<Reply, AskError> {
    Ok(Reply { status, headers: Vec::new(), body: body.to_string().into_bytes() })
}

pub(super) fn ok(body: &Json) -> Result<Reply, AskError> {
    reply(200, body)
}

/// Whoever asks is `u1`, or the one whose id was sent.
pub(super) fn me(question: &Question) -> Result<Reply, AskError> {
    let sent = question.headers.iter().find(|(name, _)| **name == *"x-user-id").map(|(_, id)| id.reveal());
    let id = sent.unwrap_or("u1");
    ok(&json!({"_id": id, "username": format!("name of {id}"), "roles": ["user"], "emails": [{"address": "Alice@Example.org"}],
        "accounts": [{"account_id": "A-1"}, {"account_id": "A-2"}]}))
}

pub(super) fn login(user: &str, token: &str) -> Credential {
    let headers = [("x-user-id", user), ("x-auth-token", token)].map(|(name, value)| (name.into(), Secret::new(value)));
    Credential { headers: headers.into() }
}

pub(super) fn bearer(token: &str) -> Credential {
    Credential { headers: vec![("authorization".into(), Secret::new(format!("Bearer {token}")))] }
}

pub(super) fn settings() -> Settings {
    Settings {
        upstream: "http://127.0.0.1:3000".into(),
        host: None,
        ttl: Duration::from_secs(30),
        max_stale: Duration::ZERO,
        refused_ttl: Duration::from_secs(5),
        capacity: 1000,
        lookup_timeout: Duration::from_secs(3),
        lookup_address: LookupAddress::Caller,
        lookups: 256,
        lookups_per_address: 32,
        service: None,
    }
}

pub(super) struct World {
    pub(super) upstream: Upstream,
    pub(super) identity: Identity<Upstream>,
    pub(super) plan: Arc<Plan>,
    pub(super) metrics: Metrics,
}

impl World {
    pub(super) fn new(settings: Settings) -> Self {
        let upstream = Upstream::answering(me);
        let metrics = Metrics::new().unwrap();
        let identity = Identity::new(settings, upstream.clone(), metrics.clone()).unwrap();
        Self { upstream, identity, plan: rooms_plan(), metrics }
    }

    pub(super) async fn caller(&self, credential: &Credential) -> Result<Known<Caller>, Failure> {
        self.identity.caller(&self.plan, credential, HERE).await
    }

    /// How often a need for `fact` ended in `outcome`.
    pub(super) fn counted(&self, fact: &str, outcome: &str) -> u64 {
        let series =
            format!(r#"rolegate_fact_lookups_total{{fact="{fact}",outcome="{outcome}",provider="{}"}} "#, self.plan.provider);
        self.metric(&series)
    }

    /// The value of the series whose line begins with `series`, and 0 when there is none.
    pub(super) fn metric(&self, series: &str) -> u64 {
        let page = self.metrics.page().unwrap();
        page.lines().find_map(|line| line.strip_prefix(series)).map_or(0, |value| value.trim().parse().unwrap())
    }
}

pub(super) fn lookup(text: &str) -> Lookup {
    text.parse().unwrap()
}

pub(super) fn step(source: Source) -> Step {
    Step {
        source,
        when: Vec::new(),
        unless: Vec::new(),
        absent: Vec::new(),
        rows: None,
        matching: Vec::new(),
        next: None,
        outputs: Vec::new(),
    }
}

pub(super) fn at(name: &str, kind: Kind, pointer: &str, default: Option<Value>) -> Output {
    Output { name: name.into(), kind, origin: Origin::At(vec![pointer.parse().unwrap()]), default, levels: None }
}

pub(super) fn present(name: &str, pointer: &str) -> Output {
    Output {
        name: name.into(),
        kind: Kind::Boolean,
        origin: Origin::Present(pointer.parse().unwrap()),
        default: None,
        levels: None,
    }
}

/// A plan with every part that a plan can have.
pub(super) fn rooms_plan() -> Arc<Plan> {
    let contains = Output {
        name: "mine".into(),
        kind: Kind::Boolean,
        origin: Origin::Contains("{account}".parse().unwrap()),
        default: None,
        levels: None,
    };
    let power = Output {
        levels: Some(vec![("admin".into(), 100), ("moderator".into(), 50)]),
        ..at("roles", Kind::Set, "/users/{caller.id}", Some(Value::Integer(0)))
    };
    let fact = |name: &str, needs: &[&str], ttl: Option<u64>, steps: Vec<Step>| FactPlan {
        name: name.into(),
        needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        ttl: ttl.map(Duration::from_secs),
        steps,
    };
    let room = vec![
        Step {
            outputs: vec![
                present("member", "/subscription"),
                at("roles", Kind::Set, "/subscription/roles", Some(Value::Set(vec![]))),
            ],
            ..step(Source::Lookup(lookup("GET /api/v1/subscriptions.getOne?roomId={room}")))
        },
        Step {
            unless: vec!["member".into()],
            absent: vec![400, 403, 404],
            outputs: vec![at("kind", Kind::Text, "/room/t", Some(Value::from("none")))],
            ..step(Source::Lookup(lookup("GET /api/v1/rooms.info?roomId={room}")))
        },
    ];
    let roster = vec![
        Step {
            absent: vec![400, 401, 404],
            rows: Some("/users".parse().unwrap()),
            matching: vec![("/email".parse().unwrap(), "{caller.email}".parse().unwrap())],
            next: Some("/nextUri".parse().unwrap()),
            outputs: vec![present("member", ""), at("role", Kind::Text, "/roleId", None)],
            ..step(Source::Lookup(lookup("GET /v2/rooms/{room}/users?filter={caller.email}&count=100")))
        },
        Step {
            when: vec!["member".into()],
            outputs: vec![at("external", Kind::Boolean, "/isExternal", Some(Value::Boolean(true)))],
            ..step(Source::Lookup(lookup("GET /v2/roles/{role}")))
        },
    ];
    Arc::new(Plan {
        provider: "rooms".into(),
        digest: [1; 32],
        caller: CallerPlan {
            lookup: lookup("GET /api/v1/me"),
            id: "/_id".parse().unwrap(),
            name: Some("/username".parse().unwrap()),
            roles: Some("/roles".parse().unwrap()),
            attributes: vec![
                ("email".into(), "/emails/0/address".parse().unwrap()),
                ("accounts".into(), "/accounts/*/account_id".parse().unwrap()),
            ],
            claims: vec!["x-user-id".into()],
            refused: vec![401],
            ttl: None,
        },
        tables: vec![TablePlan {
            name: "permissions".into(),
            lookup: lookup("GET /api/v1/permissions.listAll"),
            since: Some("updatedSince".into()),
            rows: "/update".parse().unwrap(),
            removed: Some("/remove".parse().unwrap()),
            key: "/_id".parse().unwrap(),
            value: "/roles".parse().unwrap(),
            default: Some(Value::Set(Vec::new())),
            ttl: Some(Duration::from_secs(60)),
        }],
        facts: vec![
            fact("room", &["room"], Some(10), room),
            fact("roster", &["room"], None, roster),
            fact(
                "account",
                &["account"],
                None,
                vec![Step { outputs: vec![contains], ..step(Source::Caller("accounts".into())) }],
            ),
            fact(
                "power",
                &["room"],
                None,
                vec![Step {
                    absent: vec![403],
                    outputs: vec![power],
                    ..step(Source::Lookup(Lookup {
                        base: Some("account".into()),
                        ..lookup("GET /state/{room}/m.room.power_levels")
                    }))
                }],
            ),
        ],
        rate_limit_reset: Some(ResetHeader { name: "x-ratelimit-reset".into(), unit: ResetUnit::Seconds }),
        answers: Answers {
            success: Some("/success".parse().unwrap()),
            error: Some("/errorCode".parse().unwrap()),
            no_route: Some(("/error".parse().unwrap(), vec!["Invalid URL".into()])),
        },
        host_received: true,
    })
}
