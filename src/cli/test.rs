//! `rolegate test`: runs the case files of a policy folder.

use serde_json::json;

use super::output::{self, Format, Paint};
use super::{Exit, PolicyArgs, invalid};
use crate::pipeline::rehearse;

/// Run every case file
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rolegate test --policies policies --filter outsider\n\n\
    Exit codes: 0 every case passed, 1 there is no case, or none of that name, 2 usage, 3 policies invalid, 4 a case failed")]
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
        Ok((ruleset, _)) => ruleset,
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
                    output::line(&format!("{} {}: {}", paint.bad("failed"), failure.place, failure.case));
                    output::line(&format!("  {}", failure.why));
                    failure.hint.iter().for_each(|hint| output::line(&format!("  hint: {hint}")));
                }
                Format::Json => results.push(json!({
                    "case": failure.case,
                    "place": failure.place.to_string(),
                    "why": failure.why,
                    "hint": failure.hint,
                })),
            }
        }
        if args.format == Format::Human && args.filter.is_empty() {
            for policy in &rehearsal.untried {
                output::line(&format!("note: no case makes {policy} decide"));
            }
        }
    }
    let exit = match (ran, failed) {
        (0, _) => Exit::Failed,
        (_, 0) => Exit::Good,
        (_, _) => Exit::CasesFailed,
    };
    if ran == 0 {
        let names = ruleset.providers().flat_map(|rules| &rules.cases).map(|case| case.name.as_str());
        output::error(&untested(&args.filter, &names.collect::<Vec<_>>()));
    }
    match args.format {
        Format::Human if ran == 0 => {}
        Format::Human if failed == 0 => output::line(&format!("{} {ran} cases passed", paint.good("ok:"))),
        Format::Human => output::line(&format!("{} {failed} of {ran} cases failed", paint.bad("failed:"))),
        Format::Json => output::json(&json!({ "ran": ran, "failed": failed, "failures": results })),
    }
    exit
}

/// Why no case was run: a test that tests nothing must not pass.
fn untested(filter: &str, names: &[&str]) -> String {
    if names.is_empty() {
        return "there is no case to run: no provider's folder holds a `cases.toml`".to_owned();
    }
    let close = close(filter, names);
    let hint = if close.is_empty() { String::new() } else { format!("\n  hint: did you mean {}?", close.join(", or ")) };
    format!("none of {} cases has a name that contains `{filter}`{hint}", names.len())
}

/// Up to three names in which as many words as `filter` has are nearly the filter.
fn close(filter: &str, names: &[&str]) -> Vec<String> {
    let folded = filter.to_lowercase();
    let count = folded.split_whitespace().count().max(1);
    let mut found: Vec<(usize, &str)> = names
        .iter()
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let words: Vec<&str> = lower.split_whitespace().collect();
            let parts = words.windows(count.min(words.len().max(1))).map(|part| part.join(" "));
            let nearest = parts.map(|part| strsim::damerau_levenshtein(&folded, &part)).min()?;
            (nearest * 3 <= folded.chars().count()).then_some((nearest, *name))
        })
        .collect();
    found.sort_by_key(|(distance, _)| *distance);
    found.into_iter().take(3).map(|(_, name)| format!("`{name}`")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_matches_nothing_is_told_with_the_names_that_are_close() {
        let names = ["an outsider sees nothing", "a member sees who owns the room", "The Outsiders too"];
        assert_eq!(close("outsidr", &names), ["`an outsider sees nothing`", "`The Outsiders too`"]);
        assert_eq!(close("who ownes", &names), ["`a member sees who owns the room`"]);
        assert_eq!(close("Member", &names), ["`a member sees who owns the room`"], "capitals are only another spelling");
        assert_eq!(close("zzz", &names), Vec::<String>::new());
        assert!(untested("zzz", &[]).contains("cases.toml"));
        assert_eq!(untested("zzz", &names), "none of 3 cases has a name that contains `zzz`");
    }
}
