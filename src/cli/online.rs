//! What `check --online` prints of the upstreams that it asked.

use std::path::Path;

use serde_json::{Value, json};

use super::output;
use crate::config::Config;
use crate::proxy::{Report, ask_upstreams};
use crate::rules::Ruleset;

/// Asks each upstream once.
///
/// # Errors
/// Nothing can be asked on this machine.
pub(super) fn ask(config: &Config, ruleset: &Ruleset) -> Result<Vec<Report>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the runtime could not start: {error}"))?;
    Ok(runtime.block_on(ask_upstreams(config, ruleset)))
}

/// Whether each answered as it should.
pub(super) fn all_good(reports: &[Report]) -> bool {
    reports.iter().all(|report| report.outcome.is_ok())
}

/// Prints good answers to stdout, the others as faults of the configuration in `file`.
pub(super) fn human(reports: &[Report], file: &Path) {
    for Report { upstream, url, outcome } in reports {
        match outcome {
            Ok(said) => output::line(&format!("upstream `{upstream}`, {url}: {said}")),
            Err(complaint) => {
                let hint = complaint.hint.as_ref().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
                output::error(&format!("{}: upstream `{upstream}`, {url}: {}{hint}", file.display(), complaint.message));
            }
        }
    }
}

/// The same as JSON.
pub(super) fn as_json(reports: &[Report]) -> Vec<Value> {
    let one = |Report { upstream, url, outcome }: &Report| {
        let (message, hint) = match outcome {
            Ok(said) => (said, None),
            Err(complaint) => (&complaint.message, complaint.hint.as_ref()),
        };
        json!({ "upstream": upstream, "url": url, "good": outcome.is_ok(), "message": message, "hint": hint })
    };
    reports.iter().map(one).collect()
}
