//! The command line: one file a verb, each with its arguments and what it does.

mod actions;
mod audit;
mod check;
#[cfg(feature = "demo")]
mod demo;
mod explain;
mod healthcheck;
mod init;
mod output;
mod run;
mod schema;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::model::Faults;
use crate::rules::{Ruleset, Sources};
use output::Format;

/// A reverse proxy that decides who may see who is in a chat room and who holds which role.
#[derive(Debug, Parser)]
#[command(name = "rolegate", version = crate::VERSION, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Args),
    #[cfg(feature = "demo")]
    Demo(demo::Args),
    Check(check::Args),
    Test(test::Args),
    Explain(explain::Args),
    Audit(audit::Args),
    Actions(actions::Args),
    Schema(schema::Args),
    Init(init::Args),
    Healthcheck(healthcheck::Args),
}

/// How a command ended; the numbers are part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// All is well.
    Good = 0,
    /// Something failed.
    Failed = 1,
    /// The configuration or the policies have faults.
    Invalid = 3,
    /// A case failed.
    CasesFailed = 4,
    /// The request is denied.
    Denied = 6,
    /// The audit log is broken.
    Broken = 7,
    /// The audit log cannot be written (`EX_IOERR`).
    NotWritable = 74,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs the command that the process was called with.
#[must_use]
pub fn main() -> ExitCode {
    let exit = match Cli::parse().verb {
        Verb::Run(args) => run::run(&args),
        #[cfg(feature = "demo")]
        Verb::Demo(args) => demo::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::Audit(args) => audit::run(&args),
        Verb::Actions(args) => actions::run(&args),
        Verb::Schema(args) => schema::run(&args),
        Verb::Init(args) => init::run(&args),
        Verb::Healthcheck(args) => healthcheck::run(&args),
    };
    exit.into()
}

/// The rules of `--policies`, or the built-in ones.
#[derive(Debug, clap::Args)]
struct PolicyArgs {
    /// A policy folder; the built-in policies without
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
}

impl PolicyArgs {
    fn load(&self) -> Result<Ruleset, Faults> {
        load(self.policies.as_deref(), &[])
    }
}

fn load(folder: Option<&Path>, networks: &[String]) -> Result<Ruleset, Faults> {
    let sources = folder.map_or_else(|| Ok(Sources::built_in()), Sources::folder)?;
    Ruleset::load(&sources, networks)
}

/// Prints every fault; the exit that goes with faults.
fn invalid(faults: &Faults, format: Format) -> Exit {
    match format {
        Format::Human => {
            let count = faults.0.len();
            output::error(&format!("{faults}\n{count} fault{}", if count == 1 { "" } else { "s" }));
        }
        Format::Json => output::json(&serde_json::json!({ "valid": false, "faults": output::faults(faults) })),
    }
    Exit::Invalid
}
