//! `rolegate demo`: sample servers, the proxy before them, and a tour of permitted, denied and invalid calls.

mod audience;
mod follow;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::Exit;
use super::output::{self, Format};
use crate::config::{Config, Flags, Origin, Upstream};
use crate::demo::Sample;
use crate::demo::tour::{self, Step};
use crate::model::Decision;
use crate::proxy::{Gate, Running, Server, StartError};
use audience::Audience;

/// The host names by which the gate knows its upstreams; all of them are this machine.
const ROCKETCHAT: &str = "127.0.0.1";
const DOCUSIGN: &str = "localhost";
const MATRIX: &str = "matrix.localhost";

/// Show what rolegate does, on sample servers of its own
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rolegate demo --once\n\nExit codes: 0 every verdict is the expected one, 1 one is not, 2 usage")]
pub(super) struct Args {
    /// End after the tour
    #[arg(long)]
    once: bool,
    /// Print each request, its answer and its audit record as well
    #[arg(long, short)]
    verbose: bool,
    /// For whom to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What runs while the demo does.
struct Stage {
    rocketchat: Arc<Sample>,
    docusign: Arc<Sample>,
    matrix: Arc<Sample>,
    running: Running,
    audit: PathBuf,
}

impl Stage {
    fn port(&self) -> u16 {
        self.running.addresses().first().map_or(0, SocketAddr::port)
    }

    fn gate(&self, provider: &str) -> String {
        let host = match provider {
            "docusign-rooms" => DOCUSIGN,
            "matrix" => MATRIX,
            _ => ROCKETCHAT,
        };
        format!("http://{host}:{}", self.port())
    }

    fn samples(&self) -> [(&'static str, &Arc<Sample>); 3] {
        [("rocketchat", &self.rocketchat), ("docusign-rooms", &self.docusign), ("matrix", &self.matrix)]
    }
}

/// A temporary folder, removed when dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to the system.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One call of the tour, and what came of it.
struct Played {
    step: Step,
    status: u16,
    body: String,
    /// The audit record of the decision, as it was written.
    line: String,
    record: Value,
}

impl Played {
    fn is_expected(&self) -> bool {
        let text = |key: &str| self.record.get(key).and_then(Value::as_str);
        let action = self.record.pointer("/action/name").and_then(Value::as_str).unwrap_or("none");
        text("decision") == Some(self.step.decision.as_str())
            && text("reason") == self.step.reason.map(crate::model::Reason::as_str)
            && action == self.step.action
            && (self.status == 200) == (self.step.decision == Decision::Permit)
    }
}

pub(super) fn run(args: &Args) -> Exit {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("the runtime could not start: {error}")),
    };
    let folder = Folder(std::env::temp_dir().join(format!("rolegate-demo-{}", std::process::id())));
    let exit = runtime.block_on(play(args, &folder)).unwrap_or_else(|why| failed(&why));
    // Whatever still holds the audit log ends first: a log that is taken away is made again, to say so.
    runtime.shutdown_timeout(Duration::from_secs(5));
    drop(folder);
    exit
}

fn failed(why: &str) -> Exit {
    output::error(why);
    Exit::Failed
}

async fn play(args: &Args, folder: &Folder) -> Result<Exit, String> {
    let stopped = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = stopped else { return Err("signals cannot be received".to_owned()) };
    let stage = open(folder).await?;
    let audience = Audience::new(args.format, args.verbose);
    let toured = tour(&stage, &audience).await?;
    if !args.once || args.format == Format::Json {
        audience.ready(&stage);
    }
    // Where nobody reads what it says (`| head`), it does not stay up.
    if !args.once && !output::lost() {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = follow::requests(&stage, &audience) => {}
        }
    }
    stage.running.drain().await;
    Ok(if toured { Exit::Good } else { Exit::Failed })
}

async fn open(folder: &Folder) -> Result<Stage, String> {
    let told = |error: std::io::Error| error.to_string();
    let rocketchat = Arc::new(Sample::rocketchat().await.map_err(told)?);
    let docusign = Arc::new(Sample::docusign().await.map_err(told)?);
    let matrix = Arc::new(Sample::matrix().await.map_err(told)?);
    let audit = folder.0.join("audit.jsonl");
    let flags = Flags { provider: Some("rocketchat".into()), upstream: Some(rocketchat.url().to_owned()), ..Flags::default() };
    let mut config = Config::load(None, &flags).map_err(|faults| faults.to_string())?;
    let upstream = |host: &str, provider: &str, sample: &Sample| -> Result<Upstream, String> {
        let origin: Origin = sample.url().parse()?;
        let account = (provider == "docusign-rooms").then(|| origin.clone());
        Ok(Upstream { name: host.into(), host: Some(host.into()), account, ..Upstream::new(provider, origin) })
    };
    config.upstreams = vec![
        upstream(ROCKETCHAT, "rocketchat", &rocketchat)?,
        upstream(DOCUSIGN, "docusign-rooms", &docusign)?,
        upstream(MATRIX, "matrix", &matrix)?,
    ];
    config.audit.sink = crate::audit::Sink::File(audit.clone());
    let running = serve(config).map_err(|error| error.to_string())?;
    Ok(Stage { rocketchat, docusign, matrix, running, audit })
}

/// Serves on the well-known ports when nobody has them, else on free ones.
fn serve(mut config: Config) -> Result<Running, StartError> {
    let mut at = |listen, admin| {
        config.listen.addresses = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, listen))];
        config.admin.address = SocketAddr::from((Ipv4Addr::LOCALHOST, admin));
        Server::bind(config.clone())
    };
    let server = match at(8080, 9901) {
        Err(StartError::Listen { .. }) => at(0, 0)?,
        bound => bound?,
    };
    server.serve()
}

/// Plays every step; whether each verdict was the expected one.
async fn tour(stage: &Stage, audience: &Audience) -> Result<bool, String> {
    // Not every resolver knows that names below `localhost` are this machine (RFC 6761 §6.3).
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let client = reqwest::Client::builder().resolve(MATRIX, here).build().map_err(|error| error.to_string())?;
    let (mut played, mut expected) = (0, 0);
    let mut provider = "";
    for step in tour::steps() {
        if step.provider != provider {
            provider = step.provider;
            audience.provider(stage, provider);
        }
        let mut request = client.get(format!("{}{}", stage.gate(step.provider), step.target));
        for (name, value) in &step.credential {
            request = request.header(*name, value);
        }
        let response = request.send().await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = response.text().await.map_err(|error| error.to_string())?;
        let line = last_decision(&stage.audit)?;
        let record = serde_json::from_str(&line).map_err(|error| error.to_string())?;
        let done = Played { step, status, body, line, record };
        played += 1;
        expected += usize::from(done.is_expected());
        audience.step(stage.running.gate(), &done);
    }
    audience.end_of_tour(played, expected);
    Ok(played == expected)
}

/// The newest decision in the log: the tour asks one call at a time, and a verdict is written before its answer.
fn last_decision(audit: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(audit).map_err(|error| format!("{}: {error}", audit.display()))?;
    let decision = text.lines().rev().find(|line| line.contains(r#""kind":"decision""#));
    decision.map(ToOwned::to_owned).ok_or_else(|| "the verdict left no record".to_owned())
}

/// Why a record says what it says, in a few words: the deciding policies' own reasons, or the refusal's detail.
fn why(gate: &Gate, record: &Value) -> String {
    let text = |key: &str| record.get(key).and_then(Value::as_str);
    if let Some(reason) = text("reason") {
        return text("detail").unwrap_or(reason).to_owned();
    }
    let live = gate.current.live();
    let reasons: BTreeMap<&str, &str> = live
        .sites
        .iter()
        .flat_map(|site| site.rules.engine.policies())
        .filter_map(|policy| Some((policy.id.as_str(), policy.reason.as_deref()?)))
        .collect();
    let policies = record.get("policies").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    policies.map(|id| reasons.get(id).copied().unwrap_or(id)).collect::<Vec<_>>().join("; ")
}

/// Where everything is, as JSON.
fn doors(stage: &Stage) -> Value {
    let mut ready: serde_json::Map<String, Value> = stage
        .samples()
        .into_iter()
        .map(|(provider, sample)| (provider.to_owned(), json!({ "gate": stage.gate(provider), "sample": sample.url() })))
        .collect();
    ready.insert("admin".to_owned(), json!(format!("http://{}", stage.running.admin())));
    json!({ "ready": ready, "audit": stage.audit.display().to_string() })
}
