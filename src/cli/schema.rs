//! `rolegate schema`: the Cedar schema that policies are checked against.

use super::output::{self, Format};
use super::{Exit, PolicyArgs, invalid};

/// Print the Cedar schema derived from the provider files
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rolegate schema > rolegate.cedarschema\n\nExit codes: 0 good, 2 usage, 3 policies invalid")]
pub(super) struct Args {
    #[command(flatten)]
    policies: PolicyArgs,
}

pub(super) fn run(args: &Args) -> Exit {
    match args.policies.load() {
        Ok((ruleset, _)) => {
            for rules in ruleset.providers() {
                output::line(&format!("// {}", rules.provider.summary));
                output::document(&rules.provider.domain(&[]).schema());
            }
            Exit::Good
        }
        Err(faults) => invalid(&faults, Format::Human),
    }
}
