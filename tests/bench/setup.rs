//! A walk with everything warm: rules, a caller whose facts are known, a log in a temporary folder, and the requests to judge.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rolegate::audit::{self, AuditLog, Durability, Sink};
use rolegate::config::{Origin, Upstream};
use rolegate::identity::{Ask, AskError, Identity, LookupAddress, Question, Reply, Settings};
use rolegate::metrics::Metrics;
use rolegate::model::{Body, Credential, RawRequest, Secret};
use rolegate::pipeline::{Admission, Moment, Pipeline, Site};
use rolegate::rules::{Ruleset, Sources};
use rolegate::traces::Walked;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The token whose owner may do what the requests ask.
pub const ALLOWED: &str = "A00000000000000000000000000000000000000000";
/// The token whose owner may not.
pub const DENIED: &str = "U00000000000000000000000000000000000000000";

/// The rules that walks are measured over, each with a request that a fact or role of the caller decides.
pub const RIG: Rules = Rules { provider: "rig", permitted: "/api/v1/rooms.roles?rid=GENERAL7" };
/// The built-in rules: a permission table and a fact about the room as well.
pub const ROCKETCHAT: Rules = Rules { provider: "rocketchat", permitted: "/api/v1/rooms.roles?rid=GENERAL7" };

/// A provider and a target whose request is permitted to [`ALLOWED`].
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub provider: &'static str,
    pub permitted: &'static str,
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.provider)
    }
}

/// A chat server in a few constants.
#[derive(Debug)]
pub struct Server;

impl Ask for Server {
    async fn ask(&self, question: Question) -> Result<Reply, AskError> {
        let allowed = question.headers.iter().any(|(_, value)| value.reveal() == ALLOWED);
        let path = question.target.split('?').next().unwrap_or_default();
        let body = match path {
            "/api/v1/me" if allowed => r#"{"_id":"u1","username":"alice","roles":["user","admin"]}"#,
            "/api/v1/me" => r#"{"_id":"u1","username":"bob","roles":["user"]}"#,
            "/api/v1/permissions.listAll" => {
                r#"{"update":[{"_id":"view-c-room","roles":["admin"]},{"_id":"access-permissions","roles":["admin"]}],"remove":[]}"#
            }
            "/api/v1/roles.list" => r#"{"roles":[{"_id":"admin","scope":"Users"}]}"#,
            "/api/v1/subscriptions.getOne" if allowed => r#"{"subscription":{"rid":"GENERAL7","roles":["owner"]}}"#,
            "/api/v1/subscriptions.getOne" => r#"{"subscription":null}"#,
            // Whoever is not in the room is not shown it: 400 is Rocket.Chat's answer.
            "/api/v1/rooms.info" => return Ok(Reply { status: 400, body: b"{}".to_vec(), ..Reply::default() }),
            _ => return Ok(Reply { status: 404, body: b"{}".to_vec(), ..Reply::default() }),
        };
        Ok(Reply { status: 200, body: body.as_bytes().to_vec(), ..Reply::default() })
    }
}

/// A walk, and what it needs.
pub struct Bench {
    pub site: Site,
    pub identity: Identity<Server>,
    pub pipeline: Pipeline,
    pub audit: Arc<AuditLog>,
    pub metrics: Metrics,
    /// Lookups, where one is needed, run on it.
    pub runtime: Runtime,
    _folder: TempDir,
}

impl Bench {
    pub fn new(rules: Rules, durability: Durability) -> Self {
        let sources = match rules.provider {
            "rig" => Sources::folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/policies")).unwrap(),
            _ => Sources::built_in(),
        };
        Self::over(rules.provider, &sources, durability)
    }

    pub fn over(provider: &str, sources: &Sources, durability: Durability) -> Self {
        let ruleset = Ruleset::load(sources, &[]).unwrap();
        let rules = Arc::clone(ruleset.provider(provider).unwrap());
        let origin = Origin { tls: false, host: "upstream".into(), port: 80 };
        let site = Site::new(Arc::new(Upstream::new(provider, origin)), rules, Arc::from([]));
        let metrics = Metrics::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let sink = Sink::File(folder.path().join("audit.jsonl"));
        let settings = audit::Settings { durability, rotate_bytes: 64 << 20, ..audit::Settings::new(sink) };
        let audit = Arc::new(AuditLog::open(settings, metrics.clone()).unwrap());
        let identity = Identity::new(settings_of_lookups(), Server, metrics.clone()).unwrap();
        let pipeline = Pipeline::new(Arc::clone(&audit), metrics.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { site, identity, pipeline, audit, metrics, runtime, _folder: folder }
    }

    /// Judges `raw`, and waits for lookups if it must.
    pub fn warm(&self, raw: &RawRequest<'_>) -> Admission {
        self.runtime.block_on(self.pipeline.admit(raw, &self.site, &self.identity, Moment::now(), &mut Walked::default()))
    }

    /// Judges `raw`, whose facts are known: a walk that waits once, for other records to be written with its own.
    pub fn admit(&self, raw: &RawRequest<'_>) -> Admission {
        let mut walked = Walked::default();
        let mut walk = pin!(self.pipeline.admit(raw, &self.site, &self.identity, Moment::now(), &mut walked));
        walk.as_mut().now_or_never().or_else(|| walk.now_or_never()).unwrap()
    }
}

/// Every default, but facts that stay fresh for as long as a benchmark may take.
fn settings_of_lookups() -> Settings {
    Settings {
        upstream: "upstream".into(),
        host: None,
        ttl: Duration::from_secs(86_400),
        max_stale: Duration::from_secs(86_400),
        refused_ttl: Duration::from_secs(5),
        capacity: 100_000,
        lookup_timeout: Duration::from_secs(3),
        lookup_address: LookupAddress::Caller,
        lookups: 256,
        lookups_per_address: 256,
        service: None,
    }
}

/// A GET as the load generator sends it.
pub fn request<'a>(target: &'a str, token: &'a str) -> RawRequest<'a> {
    RawRequest {
        method: "GET",
        target: target.as_bytes(),
        host: Some("127.0.0.1:8080"),
        headers: vec![
            ("host", b"127.0.0.1:8080"),
            ("user-agent", b"bench/1"),
            ("x-user-id", b"u1"),
            ("x-auth-token", token.as_bytes()),
            ("accept", b"application/json"),
        ],
        body: Body::Absent,
        content: None,
        client: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        correlation: None,
    }
}

/// What `request` proves its caller by.
pub fn credential(token: &str) -> Credential {
    let header = |name: &str, value: &str| (name.into(), Secret::new(value));
    Credential { headers: vec![header("x-user-id", "u1"), header("x-auth-token", token)] }
}

/// Where lookups are told that they come from.
pub fn client() -> IpAddr {
    SocketAddr::from(([127, 0, 0, 1], 1)).ip()
}
