//! `rolegate healthcheck`: asks a running rolegate whether it is ready, for containers without curl.

use super::listener::ListenerArgs;
use super::output::{self, Format};
use super::{Exit, invalid};

/// Ask a running rolegate whether it is ready
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rolegate healthcheck --admin localhost:9901\n\n\
    Exit codes: 0 ready, 1 not ready, 2 usage, 3 configuration invalid")]
pub(super) struct Args {
    #[command(flatten)]
    listener: ListenerArgs,
}

pub(super) fn run(args: &Args) -> Exit {
    let listener = match args.listener.listener() {
        Ok(listener) => listener,
        Err(faults) => return invalid(&faults, Format::Human),
    };
    match listener.get("/readyz") {
        Ok(answer) if answer.status == 200 => Exit::Good,
        Ok(answer) => {
            output::error(&format!("not ready: {}", answer.body.trim().replace('\n', ", ")));
            Exit::Failed
        }
        Err(why) => {
            output::error(&why);
            Exit::Failed
        }
    }
}
