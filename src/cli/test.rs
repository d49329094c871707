//! `rolegate test`: runs the case files of a policy folder.

use serde_json::json;

use super::output::{self, Format, Paint};
use super::{Exit, PolicyArgs, invalid};
use crate::pipeline::rehearse;

/// Run every case file
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rolegate test --policies policies --filter outsider\n\n\
    Exit codes: 0 every case passed, 2 usage, 3 policies invalid, 4 a case failed")]
pub(super) struct Args {
    #[command(flatten)]
    policies: PolicyArgs,
    /// Only the cases whose name contains this
    #[arg(long, value_name = "NAME", default_value = "")]
    filter: String,
    /// For whom to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &Args) -> Exit {
    let ruleset = match args.policies.load() {
        Ok(ruleset) => ruleset,
        Err(faults) => return invalid(&faults, args.format),
    };
    let paint = Paint::stdout();
    let (mut ran, mut failed) = (0, 0);
    let mut results = Vec::new();
    for rules in ruleset.providers() {
        let rehearsal = rehearse::rehearse(rules, &args.filter);
        ran += rehearsal.ran;
        failed += rehearsal.failures.len();
        for failure in &rehearsal.failures {
            match args.format {
                Format::Human => {
                    output::line(&format!("{} {}: {}\n  {}", paint.bad("failed"), failure.place, failure.case, failure.why))
                }
                Format::Json => {
                    results.push(json!({ "case": failure.case, "place": failure.place.to_string(), "why": failure.why }))
                }
            }
        }
        if args.format == Format::Human && args.filter.is_empty() {
            for policy in &rehearsal.untried {
                output::line(&format!("note: no case makes {policy} decide"));
            }
        }
    }
    let exit = if failed == 0 { Exit::Good } else { Exit::CasesFailed };
    match args.format {
        Format::Human if failed == 0 => output::line(&format!("{} {ran} cases passed", paint.good("ok:"))),
        Format::Human => output::line(&format!("{} {failed} of {ran} cases failed", paint.bad("failed:"))),
        Format::Json => output::json(&json!({ "ran": ran, "failed": failed, "failures": results })),
    }
    exit
}
