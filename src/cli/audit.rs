//! `rolegate audit`: what can be asked of an audit log.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::Exit;
use super::output::{self, Format};

/// Check an audit log
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rolegate audit verify audit/audit.jsonl")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Verify(VerifyArgs),
}

/// Check the hash chain over the files, oldest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rolegate audit verify audit/audit.*.jsonl audit/audit.jsonl\n\n\
    Exit codes: 0 unbroken, 2 usage, 7 broken (the first bad line is named)")]
struct VerifyArgs {
    /// The files, in the order in which they were written
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// For whom to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &Args) -> Exit {
    let Verb::Verify(args) = &args.verb;
    match crate::audit::verify(&args.files) {
        Ok(verified) => {
            match args.format {
                Format::Human => output::line(&verified.to_string()),
                Format::Json => output::json(&json!({
                    "valid": true, "records": verified.records, "first": verified.first, "last": verified.last,
                    "last_hash": verified.last_hash,
                })),
            }
            Exit::Good
        }
        Err(broken) => {
            match args.format {
                Format::Human => output::error(&broken.to_string()),
                Format::Json => {
                    output::json(&json!({ "valid": false, "file": broken.file, "line": broken.line, "why": broken.why }))
                }
            }
            Exit::Broken
        }
    }
}
