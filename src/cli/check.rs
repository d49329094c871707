//! `rolegate check`: validates configuration and policies and tells every fault.

use std::path::PathBuf;

use serde_json::json;

use super::output::{self, Format};
use super::{Exit, given, invalid, online};
use crate::config::{Config, Flags};
use crate::model::{Fault, Faults, Place};
use crate::pipeline::rehearse;

/// Validate the configuration and the policies
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rolegate check --config rolegate.toml --online\n\n\
    Exit codes: 0 no fault, 1 no fault, but an upstream does not answer as it should (`--online`), 2 usage, 3 faults (each with file:line:column and, where it is known, a hint)")]
pub(super) struct Args {
    /// The configuration file; only the policies are checked without
    #[arg(long, value_name = "FILE", value_parser = given::file())]
    config: Option<PathBuf>,
    /// A policy folder; the configuration's, or the built-in policies, without
    #[arg(long, value_name = "DIR", value_parser = given::folder())]
    policies: Option<PathBuf>,
    /// Also ask each upstream of the configuration once, without a credential, whether it is the right one
    #[arg(long, requires = "config")]
    online: bool,
    /// For whom to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &Args) -> Exit {
    let mut faults = Faults::default();
    let mut networks = Vec::new();
    let mut folder = args.policies.clone();
    let mut upstreams = Vec::new();
    let mut loaded = None;
    if let Some(path) = &args.config {
        match Config::load(Some(path), &Flags { policies: args.policies.clone(), ..Flags::default() }) {
            Ok(config) => {
                networks = config.network_names();
                folder.clone_from(&config.policies.directory);
                for why in crate::proxy::unusable_files(&config) {
                    faults.push(Fault::new(Place::file(path.display().to_string()), why));
                }
                upstreams.clone_from(&config.upstreams);
                loaded = Some(config);
            }
            Err(found) => {
                faults.extend(found);
                let (directory, named) = Config::glimpse(path);
                networks = named;
                folder = folder.or(directory);
            }
        }
    }
    let ruleset = match super::load(folder.as_deref(), &networks) {
        Ok(ruleset) => Some(ruleset),
        Err(found) => {
            faults.extend(found);
            None
        }
    };
    let mut untried = Vec::new();
    if let Some(ruleset) = &ruleset {
        faults.extend(rehearse::failing(ruleset));
        for upstream in upstreams.iter().filter(|upstream| ruleset.provider(&upstream.provider).is_none()) {
            let message = format!("no provider `{}`, which the upstream `{}` is of", upstream.provider, upstream.name);
            let file = args.config.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
            faults.push(Fault::new(Place::file(file), message));
        }
        untried = ruleset.providers().flat_map(|rules| rehearse::rehearse(rules, "").untried).collect();
    }
    let ruleset = match faults.or(ruleset) {
        Ok(Some(ruleset)) => ruleset,
        Ok(None) => return Exit::Failed,
        Err(faults) => return invalid(&faults, args.format),
    };
    let actions: usize = ruleset.providers().map(|rules| rules.provider.actions.len()).sum();
    let policies: usize = ruleset.providers().map(|rules| rules.engine.policies().count()).sum();
    let cases: usize = ruleset.providers().map(|rules| rules.cases.len()).sum();
    let reports = match loaded.filter(|_| args.online).map(|config| online::ask(&config, &ruleset)) {
        None => None,
        Some(Ok(reports)) => Some(reports),
        Some(Err(why)) => {
            output::error(&why);
            return Exit::Failed;
        }
    };
    match args.format {
        Format::Human => {
            output::line(&format!(
                "no faults: {actions} actions, {policies} policies, {cases} cases; revision {}",
                ruleset.revision
            ));
            for policy in untried {
                output::line(&format!("note: no case makes {policy} decide"));
            }
            if let (Some(reports), Some(file)) = (&reports, &args.config) {
                online::human(reports, file);
            }
        }
        Format::Json => output::json(&json!({
            "valid": true, "faults": [], "actions": actions, "policies": policies, "cases": cases,
            "untried": untried, "revision": ruleset.revision, "online": reports.as_deref().map(online::as_json),
        })),
    }
    if reports.is_none_or(|reports| online::all_good(&reports)) { Exit::Good } else { Exit::Failed }
}
