//! `rolegate demo`: sample servers, the proxy before them, and a tour of permitted, denied and invalid calls.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::Exit;
use super::output::{self, Format, Paint};
use crate::config::{Config, Flags, Origin, Upstream};
use crate::demo::Sample;
use crate::demo::tour::{self, Step};
use crate::model::Decision;
use crate::proxy::{Running, Server, StartError};

/// Show what rolegate does, on sample servers of its own
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rolegate demo --once\n\nExit codes: 0 every verdict is the expected one, 1 one is not, 2 usage")]
pub(super) struct Args {
    /// End after the tour
    #[arg(long)]
    once: bool,
    /// For whom to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What runs while the demo does.
struct Stage {
    rocketchat: Sample,
    docusign: Sample,
    running: Running,
    gates: BTreeMap<&'static str, String>,
    audit: PathBuf,
    folder: PathBuf,
}

pub(super) fn run(args: &Args) -> Exit {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("the runtime could not start: {error}")),
    };
    runtime.block_on(play(args)).unwrap_or_else(|why| failed(&why))
}

fn failed(why: &str) -> Exit {
    output::error(why);
    Exit::Failed
}

async fn play(args: &Args) -> Result<Exit, String> {
    let stopped = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = stopped else { return Err("signals cannot be received".to_owned()) };
    let stage = open().await?;
    let toured = tour(&stage, args.format).await?;
    ready(&stage, args);
    // Where nobody reads what it says (`| head`), it does not stay up.
    if !args.once && !output::lost() {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
    let Stage { running, folder, .. } = stage;
    running.drain().await;
    if args.once {
        // The folder is ours alone; what cannot be removed is left to the system.
        let _ = std::fs::remove_dir_all(folder);
    }
    Ok(if toured { Exit::Good } else { Exit::Failed })
}

async fn open() -> Result<Stage, String> {
    let told = |error: std::io::Error| error.to_string();
    let rocketchat = Sample::rocketchat().await.map_err(told)?;
    let docusign = Sample::docusign().await.map_err(told)?;
    let folder = std::env::temp_dir().join(format!("rolegate-demo-{}", std::process::id()));
    let audit = folder.join("audit.jsonl");
    let at = |sample: &Sample| -> Result<Origin, String> { sample.url().parse().map_err(ToOwned::to_owned) };
    let flags = Flags { provider: Some("rocketchat".into()), upstream: Some(rocketchat.url().to_owned()), ..Flags::default() };
    let mut config = Config::load(None, &flags).map_err(|faults| faults.to_string())?;
    config.upstreams = vec![
        Upstream { name: "127.0.0.1".into(), host: Some("127.0.0.1".into()), ..Upstream::new("rocketchat", at(&rocketchat)?) },
        Upstream {
            name: "localhost".into(),
            host: Some("localhost".into()),
            account: Some(at(&docusign)?),
            ..Upstream::new("docusign-rooms", at(&docusign)?)
        },
    ];
    config.audit.sink = crate::audit::Sink::File(audit.clone());
    let running = serve(config).map_err(|error| error.to_string())?;
    let port = running.addresses().first().map_or(0, SocketAddr::port);
    let gates = BTreeMap::from([
        ("rocketchat", format!("http://127.0.0.1:{port}")),
        ("docusign-rooms", format!("http://localhost:{port}")),
    ]);
    Ok(Stage { rocketchat, docusign, running, gates, audit, folder })
}

/// Serves on the well-known ports when nobody has them, else on free ones.
fn serve(mut config: Config) -> Result<Running, StartError> {
    let mut at = |listen, admin| {
        config.listen.addresses = vec![SocketAddr::from(([127, 0, 0, 1], listen))];
        config.admin.address = SocketAddr::from(([127, 0, 0, 1], admin));
        Server::bind(config.clone())
    };
    let server = match at(8080, 9901) {
        Err(StartError::Listen { .. }) => at(0, 0)?,
        bound => bound?,
    };
    server.serve()
}

/// Plays every step; whether each verdict was the expected one.
async fn tour(stage: &Stage, format: Format) -> Result<bool, String> {
    let paint = Paint::stdout();
    let client = reqwest::Client::new();
    let mut all_expected = true;
    let mut rows = vec![["", "ACTION", "VERDICT", "REASON", "STATUS", "WHO AND WHY"].map(ToOwned::to_owned).to_vec()];
    for step in tour::steps() {
        let gate = stage.gates.get(step.provider).ok_or("no such gate")?;
        let mut request = client.get(format!("{gate}{}", step.target));
        for (name, value) in &step.credential {
            request = request.header(*name, value);
        }
        let response = request.send().await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = response.text().await.map_err(|error| error.to_string())?;
        let line = last_decision(&stage.audit)?;
        let record: Value = serde_json::from_str(&line).map_err(|error| error.to_string())?;
        let expected = is_expected(&step, &record, status);
        all_expected &= expected;
        match format {
            Format::Human => show(&step, &record, status, &body, &line, expected, paint),
            Format::Json => output::json(&json!({
                "step": { "story": step.story, "provider": step.provider, "target": step.target, "status": status, "expected": expected, "record": record },
            })),
        }
        rows.push(row(&step, &record, status, expected));
    }
    if format == Format::Human {
        output::line("");
        for (index, line) in output::columns(&rows).iter().enumerate() {
            output::line(&if index == 0 { paint.strong(line) } else { line.clone() });
        }
        output::line("");
    }
    Ok(all_expected)
}

fn is_expected(step: &Step, record: &Value, status: u16) -> bool {
    let text = |key: &str| record.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
    let action = record.pointer("/action/name").and_then(Value::as_str).unwrap_or("none");
    let permitted = step.decision == Decision::Permit;
    text("decision").as_deref() == Some(step.decision.as_str())
        && text("reason").as_deref() == step.reason.map(crate::model::Reason::as_str)
        && action == step.action
        && (status == 200) == permitted
}

fn row(step: &Step, record: &Value, status: u16, expected: bool) -> Vec<String> {
    let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
    let mark = if expected { "ok" } else { "UNEXPECTED" };
    vec![mark.into(), step.action.into(), text("decision"), text("reason"), status.to_string(), step.story.into()]
}

fn show(step: &Step, record: &Value, status: u16, body: &str, line: &str, expected: bool, paint: Paint) {
    let decision = record.get("decision").and_then(Value::as_str).unwrap_or("no verdict");
    let painted = if decision == "permit" { paint.good(decision) } else { paint.bad(decision) };
    let why = match record.get("detail").and_then(Value::as_str) {
        Some(detail) => format!("{}: {detail}", record.get("reason").and_then(Value::as_str).unwrap_or_default()),
        None => format!("by {}", record.get("policies").map(ToString::to_string).unwrap_or_default()),
    };
    output::line("");
    output::line(&paint.strong(&format!("# {}", step.story)));
    output::line(&format!("  GET {}", step.target));
    output::line(&format!("  {painted} {why}"));
    output::line(&format!("  {status} {}", body.chars().take(160).collect::<String>()));
    output::line(&paint.faint(&format!("  {line}")));
    if !expected {
        output::line(&paint.bad(&format!(
            "  expected {} {}",
            step.decision,
            step.reason.map_or("", crate::model::Reason::as_str)
        )));
    }
}

/// The newest decision in the log: the tour asks one call at a time, and a verdict is written before its answer.
fn last_decision(audit: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(audit).map_err(|error| format!("{}: {error}", audit.display()))?;
    let decision = text.lines().rev().find(|line| line.contains(r#""kind":"decision""#));
    decision.map(ToOwned::to_owned).ok_or_else(|| "the verdict left no record".to_owned())
}

fn ready(stage: &Stage, args: &Args) {
    let gate = |provider: &str| stage.gates.get(provider).cloned().unwrap_or_default();
    let admin = format!("http://{}", stage.running.admin());
    match args.format {
        Format::Json => output::json(&json!({
            "ready": {
                "rocketchat": { "gate": gate("rocketchat"), "sample": stage.rocketchat.url() },
                "docusign-rooms": { "gate": gate("docusign-rooms"), "sample": stage.docusign.url() },
                "admin": admin,
            },
            "audit": stage.audit.display().to_string(),
        })),
        Format::Human if args.once => {}
        Format::Human => {
            let paint = Paint::stdout();
            let rocketchat = gate("rocketchat");
            output::line(&paint.strong("Rolegate stays up. Try:"));
            for (name, id, target) in [
                ("carol", crate::demo::world::workspace::CAROL, "/api/v1/rooms.roles?rid=658282732dd9f928ad989e98"),
                ("eve", crate::demo::world::workspace::EVE, "/api/v1/rooms.roles?rid=658282732dd9f928ad989e98"),
            ] {
                output::line(&format!("  curl -i -H 'X-User-Id: {id}' -H 'X-Auth-Token: {name}-token' '{rocketchat}{target}'"));
            }
            output::line(&format!("  curl {admin}/metrics"));
            output::line(&format!("  curl {admin}/status"));
            output::line(&format!("  tail -f {}", stage.audit.display()));
            output::line(&format!("DocuSign Rooms is behind {}. End with Ctrl-C.", gate("docusign-rooms")));
        }
    }
}
