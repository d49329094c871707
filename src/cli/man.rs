//! `rolegate man`: writes the manual pages.

use std::path::PathBuf;

use super::output;
use super::{Exit, command};

/// Write the manual pages into a folder, one for each verb
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rolegate man /usr/local/share/man/man1\n\nExit codes: 0 written, 1 not written, 2 usage")]
pub(super) struct Args {
    /// The folder; it is made if it is not there, and older pages in it are replaced
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn run(args: &Args) -> Exit {
    let written = std::fs::create_dir_all(&args.folder).and_then(|()| clap_mangen::generate_to(command(), &args.folder));
    match written {
        Ok(()) => {
            output::line(&args.folder.join("rolegate.1").display().to_string());
            Exit::Good
        }
        Err(error) => {
            output::error(&format!("{}: {error}", args.folder.display()));
            Exit::Failed
        }
    }
}
