//! The command line: one file a verb, each with its arguments and what it does.

mod actions;
mod audit;
mod check;
mod completions;
#[cfg(feature = "demo")]
mod demo;
mod explain;
mod given;
mod healthcheck;
mod init;
mod listener;
mod man;
mod manager;
mod online;
mod output;
mod run;
mod schema;
mod status;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{Config, Flags};
use crate::model::Faults;
use crate::rules::{Ruleset, Sources};
use output::Format;

/// A reverse proxy that decides who may see who is in a chat room and who holds which role.
#[derive(Debug, Parser)]
#[command(
    name = "rolegate",
    version = crate::VERSION,
    arg_required_else_help = true,
    after_help = "Each flag has an environment variable, such as ROLEGATE_CONFIG for --config. A flag beats its variable, and both beat \
        the configuration file; an empty variable is none."
)]
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
    Explain(Box<explain::Args>),
    Audit(audit::Args),
    Actions(actions::Args),
    Schema(schema::Args),
    Init(init::Args),
    Status(status::Args),
    Healthcheck(healthcheck::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// How a command ended; the numbers are part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// All is well.
    Good = 0,
    /// Something failed.
    Failed = 1,
    /// What was asked for cannot be meant: an unknown name, a file that is not there.
    Usage = 2,
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
    let verb = match command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(Cli { verb }) => verb,
        Err(error) => return given::refused(&error).into(),
    };
    let exit = match verb {
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
        Verb::Status(args) => status::run(&args),
        Verb::Healthcheck(args) => healthcheck::run(&args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
    };
    output::end(exit).into()
}

/// The whole command line, in which each flag has an environment variable.
fn command() -> Command {
    with_variables(Cli::command())
}

fn with_variables(command: Command) -> Command {
    command.mut_args(with_variable).mut_subcommands(with_variables)
}

/// Gives a flag the variable `ROLEGATE_` and its name. Of a switch it says whether it is on: `true`, `1`, `yes`, `on` or their
/// opposites.
fn with_variable(arg: clap::Arg) -> clap::Arg {
    let Some(name) = arg.get_long().map(variable) else { return arg };
    let switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let arg = if switch { arg.value_parser(BoolishValueParser::new()) } else { arg };
    // Files for Compose and systemd set an empty one where they mean none.
    if std::env::var_os(&name).is_some_and(|value| value.is_empty()) { arg } else { arg.env(name).hide_env_values(true) }
}

fn variable(flag: &str) -> String {
    format!("ROLEGATE_{}", flag.replace('-', "_").to_ascii_uppercase())
}

/// The rules of `--policies`, of the configuration, or the built-in ones.
#[derive(Debug, clap::Args)]
struct PolicyArgs {
    /// The configuration file, for its policy folder and the names of its networks
    #[arg(long, value_name = "FILE", value_parser = given::file())]
    config: Option<PathBuf>,
    /// A policy folder; the configuration's, or the built-in policies, without
    #[arg(long, value_name = "DIR", value_parser = given::folder())]
    policies: Option<PathBuf>,
}

impl PolicyArgs {
    /// The rules, and the configuration if one is named.
    fn load(&self) -> Result<(Ruleset, Option<Config>), Faults> {
        let Some(path) = &self.config else { return Ok((load(self.policies.as_deref(), &[])?, None)) };
        let config = Config::load(Some(path), &Flags { policies: self.policies.clone(), ..Flags::default() })?;
        Ok((load(config.policies.directory.as_deref(), &config.network_names())?, Some(config)))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command with the words that lead to it, and its own arguments.
    fn walk(command: &Command, words: &[String], seen: &mut Vec<(Vec<String>, clap::Arg)>) {
        for arg in command.get_arguments() {
            seen.push((words.to_vec(), arg.clone()));
        }
        for inner in command.get_subcommands() {
            walk(inner, &[words, &[inner.get_name().to_owned()]].concat(), seen);
        }
    }

    fn arguments() -> Vec<(Vec<String>, clap::Arg)> {
        let mut seen = Vec::new();
        walk(&command(), &["rolegate".to_owned()], &mut seen);
        seen
    }

    #[test]
    fn the_command_line_is_one_that_clap_takes() {
        command().debug_assert();
    }

    #[test]
    fn every_flag_of_every_verb_has_an_environment_variable_of_its_name() {
        let mut flags = 0;
        for (words, arg) in arguments() {
            let Some(long) = arg.get_long() else { continue };
            flags += 1;
            let expected = format!("ROLEGATE_{}", long.to_uppercase().replace('-', "_"));
            let told = arg.get_env().map(|name| name.to_string_lossy().into_owned());
            assert_eq!(told, Some(expected), "{} --{long}", words.join(" "));
        }
        assert!(flags > 25, "the walk saw {flags} flags only");
    }

    #[test]
    fn every_file_and_folder_that_a_flag_names_must_be_there() {
        let mut named = 0;
        for (words, arg) in arguments() {
            let Some(long) = arg.get_long() else { continue };
            let names: Vec<&str> = arg.get_value_names().into_iter().flatten().map(|name| name.as_str()).collect();
            if names != ["FILE"] && names != ["DIR"] {
                continue;
            }
            named += 1;
            let line = [words.clone(), vec![format!("--{long}"), "/nowhere/at/all".to_owned()]].concat();
            let error = command().try_get_matches_from(&line).unwrap_err();
            assert_eq!(error.kind(), clap::error::ErrorKind::ValueValidation, "{line:?}: {error}");
            assert_eq!(error.exit_code(), i32::from(Exit::Usage as u8));
        }
        assert!(named > 10, "the walk saw {named} such flags only");
    }
}
