//! `rolegate run`: the proxy.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::manager::{Manager, News};
use super::output::{self, Format};
use super::{Exit, given, invalid};
use crate::config::{Config, Flags};
use crate::log::Log;
use crate::proxy::{Gate, Server, StartError, tell_of_restart};

/// Run the proxy
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rolegate run --provider rocketchat --upstream http://127.0.0.1:3000\n\n\
    SIGTERM drains and ends, SIGHUP reads the policies again and opens the audit log again where it was moved; a changed\n\
    configuration takes a restart. A service manager may hand over listening sockets (LISTEN_FDS) and is told of readiness,\n\
    reloads and the end (NOTIFY_SOCKET).\n\
    RUST_LOG sets what is logged: a level, or `rolegate::reload=debug` and others with commas between. Nothing in it makes a line\n\
    hold a credential.\n\
    Exit codes: 0 drained, 1 failed, 2 usage, 3 configuration or policies invalid, 74 audit log not writable")]
pub(super) struct Args {
    /// The configuration file (`rolegate init` writes a commented one)
    #[arg(long, value_name = "FILE", value_parser = given::file())]
    config: Option<PathBuf>,
    /// The kind of upstream
    #[arg(long, value_name = "P")]
    provider: Option<String>,
    /// The upstream's URL, without a path
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// The address for clients [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// The address for metrics, health and status [default: 127.0.0.1:9901]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// A policy folder; the built-in policies without
    #[arg(long, value_name = "DIR", value_parser = given::folder())]
    policies: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Exit {
    let flags = Flags {
        provider: args.provider.clone(),
        upstream: args.upstream.clone(),
        listen: args.listen.clone(),
        admin: args.admin.clone(),
        policies: args.policies.clone(),
    };
    let config = match Config::load(args.config.as_deref(), &flags) {
        Ok(config) => config,
        Err(faults) => return invalid(&faults, Format::Human),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(config.listen.threads).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error(&format!("the runtime could not start: {error}"));
            return Exit::Failed;
        }
    };
    let exit = runtime.block_on(async {
        let bounded = bound_is_an_error();
        // The end waits for its lines.
        let _log = Log::begin();
        if let Err(error) = bounded {
            tracing::warn!(%error, "a file that reaches its bound (`ulimit -f`) ends the process");
        }
        config.notes.iter().for_each(|note| tracing::warn!("{note}"));
        match Server::bind(config) {
            Ok(server) => serve(server).await,
            Err(error) => refused(&error),
        }
    });
    // What is still running was cut by the drain's deadline.
    runtime.shutdown_background();
    exit
}

/// Lets a write fail, like any other, that would take a file beyond its bound (`ulimit -f`): unless somebody takes the signal for
/// it, the process ends there. Must be called within a runtime.
fn bound_is_an_error() -> std::io::Result<()> {
    // It stays taken, whether or not somebody listens.
    signal(SignalKind::from_raw(libc::SIGXFSZ)).map(drop)
}

async fn serve(server: Server) -> Exit {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
        output::error("signals cannot be received");
        return Exit::Failed;
    };
    let running = match server.serve() {
        Ok(running) => running,
        Err(error) => return refused(&error),
    };
    // A route that is not there is told before somebody misses it.
    drop(tokio::spawn(Arc::clone(running.gate()).probe()));
    let mut noted = running.gate().current.noted();
    let manager = Manager::by_environment();
    manager.tell(News::Ready(status(running.gate())));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => drop(tokio::spawn(reload(Arc::clone(running.gate()), manager.clone()))),
            Ok(()) = noted.changed() => drop(manager.tell(News::Status(status(running.gate())))),
        }
    }
    let stopping = manager.tell(News::Stopping);
    running.drain().await;
    // A drain may take no time, and the process must not be gone before its end was told.
    stopping.wait(Duration::from_secs(1));
    Exit::Good
}

/// Begins a new audit log where the old one was moved away, and reads the policies again. To the service manager the reload
/// lasts until they run or are refused.
async fn reload(gate: Arc<Gate>, manager: Manager) {
    manager.tell(News::Reloading);
    let audit = Arc::clone(&gate.audit);
    // A failure is counted and told by the log, which tries again with the next record.
    drop(tokio::task::spawn_blocking(move || audit.reopen()).await);
    gate.current.ask_and_wait().await;
    let compared = Arc::clone(&gate);
    // Somebody who edited the configuration and sent the signal must not believe that it is in force.
    if let Ok(compared) = tokio::task::spawn_blocking(move || compared.compare_config()).await {
        tell_of_restart(&compared);
    }
    manager.tell(News::Ready(status(&gate)));
}

/// One line for `systemctl status`.
fn status(gate: &Gate) -> String {
    let revision = &gate.current.live().revision;
    match gate.current.status().error {
        None => format!("guarding by policy revision {revision}"),
        Some(_) => format!("guarding by policy revision {revision}; THE LAST RELOAD FAILED, see the log"),
    }
}

fn refused(error: &StartError) -> Exit {
    match error {
        StartError::Policies(faults) | StartError::Tls(faults) => invalid(faults, Format::Human),
        StartError::Audit(_) => {
            output::error(&error.to_string());
            Exit::NotWritable
        }
        StartError::Socket(_) | StartError::Traces(_) => {
            output::error(&error.to_string());
            Exit::Invalid
        }
        StartError::Listen { .. } | StartError::Metrics(_) => {
            output::error(&error.to_string());
            Exit::Failed
        }
    }
}
