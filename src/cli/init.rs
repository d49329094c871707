//! `rolegate init`: writes a commented configuration and the built-in policies, for editing.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::Exit;
use super::output;
use crate::config::EXAMPLE;
use crate::rules::source::BUILT_IN;

/// Write a commented configuration and the built-in policies into a folder
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: rolegate init /etc/rolegate\n\nExit codes: 0 written, 1 not written (nothing is overwritten), 2 usage"
)]
pub(super) struct Args {
    /// The folder; it is made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn run(args: &Args) -> Exit {
    // Editing is what this is for, so the written configuration names the written policies.
    let config =
        EXAMPLE.replace("# directory = \"policies\"              # default: the built-in ones", "directory = \"policies\"");
    let policies = BUILT_IN.iter().map(|(path, text)| (format!("policies/{path}"), (*text).to_owned()));
    let files: Vec<(String, String)> = std::iter::once(("rolegate.toml".to_owned(), config)).chain(policies).collect();
    if let Some((name, _)) = files.iter().find(|(name, _)| args.folder.join(name).exists()) {
        output::error(&format!("{} is there already; nothing was written", args.folder.join(name).display()));
        return Exit::Failed;
    }
    for (name, text) in &files {
        let path = args.folder.join(name);
        if let Err(error) = write(&path, text) {
            output::error(&format!("{}: {error}", path.display()));
            return Exit::Failed;
        }
        output::line(&path.display().to_string());
    }
    Exit::Good
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}
