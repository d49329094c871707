//! A gate in this process, on a free port, before a sample server of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rolegate::audit::Sink;
use rolegate::config::{Config, Flags, Upstream};
use rolegate::demo::Sample;
use rolegate::proxy::{Running, Server};
use serde_json::Value;
use tempfile::TempDir;

use super::{Answer, Connection, until};

/// A gate that serves.
pub struct Gate {
    pub sample: Sample,
    pub folder: TempDir,
    pub running: Option<Running>,
}

/// A gate that is being set up.
pub struct GateBuilder {
    pub sample: Sample,
    pub folder: TempDir,
    pub config: Config,
}

/// The headers by which `name` of the Rocket.Chat sample logs in.
pub fn login(name: &str) -> Vec<(&'static str, String)> {
    use rolegate::demo::world::workspace::{ALICE, AUDREY, BOB, CAROL, EVE, GUS};
    let id = match name {
        "alice" => ALICE,
        "audrey" => AUDREY,
        "bob" => BOB,
        "carol" => CAROL,
        "eve" => EVE,
        "gus" => GUS,
        other => panic!("nobody is called {other}"),
    };
    vec![("X-User-Id", id.to_owned()), ("X-Auth-Token", format!("{name}-token"))]
}

/// The header by which `name` of the DocuSign sample logs in.
pub fn bearer(name: &str) -> Vec<(&'static str, String)> {
    vec![("Authorization", format!("Bearer {name}-ds-token"))]
}

impl GateBuilder {
    /// Before a Rocket.Chat workspace.
    pub async fn rocketchat() -> Self {
        Self::before("rocketchat", Sample::rocketchat().await.unwrap())
    }

    /// Before a DocuSign Rooms account.
    pub async fn docusign() -> Self {
        Self::before("docusign-rooms", Sample::docusign().await.unwrap())
    }

    /// Before a sample of something as if it were a server of `provider`.
    pub fn before(provider: &str, sample: Sample) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let flags = Flags { provider: Some(provider.into()), upstream: Some(sample.url().into()), ..Flags::default() };
        let mut config = Config::load(None, &flags).unwrap();
        let url = sample.url().parse().unwrap();
        let mut upstream = Upstream::new(provider, url);
        // A provider that asks an account server has a default for it.
        if upstream.account.is_some() {
            upstream.account = Some(upstream.url.clone());
        }
        config.upstreams = vec![upstream];
        config.listen.addresses = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        config.admin.address = SocketAddr::from(([127, 0, 0, 1], 0));
        config.audit.sink = Sink::File(folder.path().join("audit.jsonl"));
        // Stories look for the record of each refusal, however many they cause.
        config.audit.refusals_per_address = u32::MAX;
        Self { sample, folder, config }
    }

    /// Changes the configuration.
    pub fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Changes the only upstream.
    pub fn upstream(self, change: impl FnOnce(&mut Upstream)) -> Self {
        self.with(|config| change(&mut config.upstreams[0]))
    }

    /// Begins to serve.
    pub fn start(self) -> Gate {
        let running = Server::bind(self.config).and_then(Server::serve).unwrap_or_else(|error| panic!("{error}"));
        Gate { sample: self.sample, folder: self.folder, running: Some(running) }
    }
}

impl Gate {
    /// A gate before a Rocket.Chat workspace, with every default.
    pub async fn rocketchat() -> Self {
        GateBuilder::rocketchat().await.start()
    }

    /// A gate before a DocuSign Rooms account, with every default.
    pub async fn docusign() -> Self {
        GateBuilder::docusign().await.start()
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the gate was stopped")
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.running().addresses()[0]
    }

    /// Where operators connect to.
    pub fn admin(&self) -> SocketAddr {
        self.running().admin()
    }

    /// A connection to it.
    pub async fn connect(&self) -> Connection {
        Connection::open(self.address()).await
    }

    /// `GET target` with `headers` on a connection of its own.
    pub async fn get(&self, target: &str, headers: &[(&str, String)]) -> Answer {
        self.connect().await.get(target, headers).await
    }

    /// `GET path` of the admin listener.
    pub async fn admin_get(&self, path: &str) -> Answer {
        Connection::open(self.admin()).await.get(path, &[]).await
    }

    /// The value of a metric, by its name with labels as the page prints it; 0 when it is not there.
    pub async fn metric(&self, name: &str) -> f64 {
        let page = self.admin_get("/metrics").await.text();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a metric has `value`.
    pub async fn until_metric(&self, name: &str, value: f64) {
        let deadline = tokio::time::Instant::now() + super::PATIENCE;
        while self.metric(name).await != value {
            assert!(tokio::time::Instant::now() < deadline, "{name} is {} and not {value}", self.metric(name).await);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// The audit log.
    pub fn audit(&self) -> PathBuf {
        self.folder.path().join("audit.jsonl")
    }

    /// Every record so far.
    pub fn records(&self) -> Vec<Value> {
        records(&self.audit())
    }

    /// Every record of `kind` so far.
    pub fn records_of(&self, kind: &str) -> Vec<Value> {
        self.records().into_iter().filter(|record| record["kind"] == kind).collect()
    }

    /// The newest decision.
    pub fn last_decision(&self) -> Value {
        self.records_of("decision").pop().expect("no decision was recorded")
    }

    /// Waits for the outcome record of the decision `id`.
    pub async fn outcome(&self, id: &Value) -> Value {
        until("an outcome record", || self.records_of("outcome").into_iter().find(|record| record["id"] == *id)).await
    }

    /// What all its requests share.
    pub fn shared(&self) -> Arc<rolegate::proxy::Gate> {
        Arc::clone(self.running().gate())
    }

    /// Drains it; whether everything in flight was finished.
    pub async fn stop(&mut self) -> bool {
        self.running.take().expect("the gate was stopped").drain().await
    }
}

/// Every record of an audit file.
pub fn records(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}
