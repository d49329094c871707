//! `rolegate check`: validates configuration and policies and tells every fault.

use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::json;

use super::output::{self, Format};
use super::{Exit, given, invalid, online};
use crate::config::{Config, Flags, unfit_upstreams};
use crate::model::{Fault, Faults, Place};
use crate::pipeline::rehearse;
use crate::rules::{Ruleset, Sources, Then};

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
    let mut notes = Vec::new();
    let mut networks = Vec::new();
    let mut folder = args.policies.clone().map(|folder| (folder, Place::file("--policies")));
    let mut checked = None;
    if let Some(path) = &args.config {
        match Config::load(Some(path), &Flags { policies: args.policies.clone(), ..Flags::default() }) {
            Ok(config) => {
                networks = config.network_names();
                folder = config.policies.directory.clone().map(|folder| (folder, config.places.of_key("policies.directory")));
                let (unusable, ending) = crate::proxy::look_at_files(&config, SystemTime::now());
                faults.extend(unusable);
                faults.0.extend(config.unwritable_log());
                notes.extend(config.notes.iter().cloned().chain(ending));
                checked = Some(config);
            }
            Err(found) => {
                faults.extend(found);
                let (directory, named) = Config::glimpse(path);
                networks = named;
                folder = folder.or(directory);
            }
        }
    }
    let sources = folder.map_or_else(|| Ok(Sources::built_in()), |(folder, place)| Sources::named(&folder, &place));
    let ruleset = match sources.and_then(|sources| Ruleset::load(&sources, &networks)) {
        Ok(ruleset) => Some(ruleset),
        Err(found) => {
            faults.extend(found);
            None
        }
    };
    let mut untried = Vec::new();
    if let Some(ruleset) = &ruleset {
        faults.extend(rehearse::failing(ruleset));
        if let Some(config) = &checked {
            faults.extend(unfit_upstreams(config.upstreams.iter(), &config.places, ruleset));
            notes.extend(prefixed_spaces(config, ruleset).into_iter().chain(left_open(config, ruleset)));
            notes.extend(moot(config, ruleset));
        }
        notes.extend(ruleset.providers().flat_map(|rules| rules.notes.iter().cloned()));
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
    let reports = match checked.filter(|_| args.online).map(|config| online::ask(&config, &ruleset)) {
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
            for note in notes {
                format!("note: {note}").lines().for_each(output::line);
            }
            for policy in untried {
                output::line(&format!("note: no case makes {policy} decide"));
            }
            if let (Some(reports), Some(file)) = (&reports, &args.config) {
                online::human(reports, file);
            }
        }
        Format::Json => output::json(&json!({
            "valid": true, "faults": [], "actions": actions, "policies": policies, "cases": cases,
            "untried": untried, "notes": output::faults(&Faults(notes)), "revision": ruleset.revision,
            "online": reports.as_deref().map(online::as_json),
        })),
    }
    if reports.is_none_or(|reports| online::all_good(&reports)) { Exit::Good } else { Exit::Failed }
}

/// What upstreams close and leave open in another way; the start warns of it, too.
fn left_open(config: &Config, ruleset: &Ruleset) -> Vec<Fault> {
    let open = config.upstreams.iter().enumerate().filter_map(|(index, upstream)| {
        let rules = ruleset.provider(&upstream.provider)?;
        let why = rules.provider.left_open(upstream.websockets, upstream.unlisted_methods)?;
        let key = if upstream.unlisted_methods == Then::Deny { "unlisted_methods" } else { "websockets" };
        Some(Fault::new(config.places.of_key(&format!("upstream.{index}.{key}")), why))
    });
    open.collect()
}

/// What upstreams set that their provider makes nothing of; the start warns of it, too.
fn moot(config: &Config, ruleset: &Ruleset) -> Vec<Fault> {
    let moot = config.upstreams.iter().enumerate().filter_map(|(index, upstream)| {
        let why = ruleset.provider(&upstream.provider)?.provider.moot(upstream.unlisted_methods)?;
        Some(Fault::new(config.places.of_key(&format!("upstream.{index}.unlisted_methods")), why).hint("remove it"))
    });
    moot.collect()
}

/// Upstreams whose path prefix ends in what their provider guards: nothing would be found below it.
fn prefixed_spaces(config: &Config, ruleset: &Ruleset) -> Vec<Fault> {
    let mut notes = Vec::new();
    for (index, upstream) in config.upstreams.iter().enumerate() {
        let guarded = ruleset.provider(&upstream.provider).into_iter().flat_map(|rules| &rules.provider.guarded);
        if let Some((space, rest)) =
            guarded.filter_map(|space| Some((space, upstream.path_prefix.strip_suffix(space.as_str())?))).next()
        {
            let place = config.places.of_key(&format!("upstream.{index}.path_prefix"));
            let message = format!(
                "`upstream.path_prefix`: only `{}{space}` is guarded, not `{}`",
                upstream.path_prefix, upstream.path_prefix
            );
            notes.push(
                Fault::new(place, message)
                    .hint(format!("the provider adds `{space}` itself: did you mean `path_prefix = \"{rest}\"`?")),
            );
        }
    }
    notes
}
