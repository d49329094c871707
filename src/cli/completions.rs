//! `rolegate completions`: what a shell needs to complete verbs, flags and their values.

use clap_complete::Shell;

use super::output;
use super::{Exit, command};

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: rolegate completions bash > /etc/bash_completion.d/rolegate\n\nExit codes: 0 good, 1 not written, 2 usage"
)]
pub(super) struct Args {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &Args) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "rolegate", &mut script);
    output::document(String::from_utf8_lossy(&script).trim_end());
    Exit::Good
}
