//! `rolegate audit`: what can be asked of an audit log.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::listener::{Listener, ListenerArgs, TOKEN, TokenArgs};
use super::output::{self, Format};
use super::{Exit, invalid};
use crate::audit::{self, AuditLog, OpenError, Settings, Sink, Unverified};
use crate::metrics::Metrics;

/// Check an audit log, or begin a new file of it
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rolegate audit verify audit/audit.jsonl")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Verify(VerifyArgs),
    Rotate(RotateArgs),
}

/// Check the hash chain over the files
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rolegate audit verify audit/*.jsonl\n\n\
    Files are sorted by the number of their first record where they are given in another order.\n\
    Exit codes: 0 unbroken, 1 a file cannot be read, 2 usage or a file is not there, 7 broken (the first bad line is named)")]
struct VerifyArgs {
    /// The files of the log, in any order
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// For whom to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Begin a new file of the log now
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rolegate audit rotate --config rolegate.toml\n\n\
    Asks the running rolegate by its admin listener. With FILE, rotates the log of one that does not run.\n\
    Exit codes: 0 rotated or nothing to rotate, 1 failed, 2 usage or the file is not there, 3 configuration invalid,\n\
    74 the file cannot be written, or is being written")]
struct RotateArgs {
    /// The log of a rolegate that does not run; without, the running one is asked
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    listener: ListenerArgs,
    #[command(flatten)]
    token: TokenArgs,
    /// For whom to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &Args) -> Exit {
    match &args.verb {
        Verb::Verify(args) => verify(args),
        Verb::Rotate(args) => rotate(args),
    }
}

fn rotate(args: &RotateArgs) -> Exit {
    let rotated = match &args.file {
        Some(file) => rotate_file(file),
        None => match args.listener.listener() {
            Ok(mut listener) => match args.token.bring_to(&mut listener) {
                Ok(()) => ask_to_rotate(&listener),
                Err(why) => Err((Exit::Failed, why)),
            },
            Err(faults) => return invalid(&faults, args.format),
        },
    };
    let rotated = match rotated {
        Ok(rotated) => rotated,
        Err((exit, why)) => {
            match args.format {
                Format::Human => output::error(&why),
                Format::Json => output::json(&json!({ "error": why })),
            }
            return exit;
        }
    };
    match (args.format, &rotated) {
        (Format::Json, rotated) => output::json(&json!({ "rotated": rotated })),
        (Format::Human, Some(file)) => output::line(&format!("rotated to {file}")),
        (Format::Human, None) => output::line("nothing to rotate: the log holds no record"),
    }
    Exit::Good
}

/// Asks a running rolegate; where the old file lies now.
fn ask_to_rotate(listener: &Listener) -> Result<Option<String>, (Exit, String)> {
    let answer = listener.post("/audit/rotate").map_err(|why| (Exit::Failed, why))?;
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
    match answer.status {
        200 => Ok(text("rotated")),
        401 | 404 => Err((Exit::Failed, format!("{}: answers {}\n  hint: {TOKEN}", listener.address, answer.status))),
        status => Err((Exit::Failed, text("error").unwrap_or_else(|| format!("the admin listener answers {status}")))),
    }
}

/// Rotates the log of a rolegate that does not run; where the old file lies now.
fn rotate_file(file: &Path) -> Result<Option<String>, (Exit, String)> {
    if !file.exists() {
        return Err((Exit::Usage, format!("{}: there is no such file", file.display())));
    }
    let metrics = Metrics::new().map_err(|error| (Exit::Failed, error.to_string()))?;
    let log = AuditLog::open(Settings::new(Sink::File(file.to_owned())), metrics).map_err(|error| {
        let hint = match error {
            OpenError::InUse { .. } => "; without FILE the running rolegate is asked",
            _ => "",
        };
        (Exit::NotWritable, format!("{error}{hint}"))
    })?;
    let rotated = log.rotate().map_err(|error| (Exit::NotWritable, format!("{}: {error}", file.display())))?;
    Ok(rotated.map(|file| file.display().to_string()))
}

fn verify(args: &VerifyArgs) -> Exit {
    let sorted = match audit::sorted(&args.files) {
        Ok(sorted) => sorted,
        Err(unverified) => return refused(&unverified, false, args.format),
    };
    let is_sorted = sorted.is_some();
    let files = sorted.as_deref().unwrap_or(&args.files);
    if is_sorted && args.format == Format::Human {
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        output::error(&format!("sorted by their first record: {}", names.join(" ")));
    }
    match audit::verify(files) {
        Ok(verified) => {
            match args.format {
                Format::Human => output::line(&verified.to_string()),
                Format::Json => output::json(&json!({
                    "valid": true, "records": verified.records, "first": verified.first, "last": verified.last,
                    "last_hash": verified.last_hash, "before": verified.before, "sorted": is_sorted,
                })),
            }
            Exit::Good
        }
        Err(unverified) => refused(&unverified, is_sorted, args.format),
    }
}

/// Tells why files were not verified; a file that cannot be read says nothing about the chain.
fn refused(unverified: &Unverified, sorted: bool, format: Format) -> Exit {
    match (unverified, format) {
        (_, Format::Human) => output::error(&unverified.to_string()),
        (Unverified::Broken(broken), Format::Json) => output::json(&json!({
            "valid": false, "file": broken.file, "line": broken.line, "why": broken.why, "sorted": sorted,
        })),
        (_, Format::Json) => output::json(&json!({ "valid": null, "error": unverified.to_string() })),
    }
    match unverified {
        Unverified::Missing(_) => Exit::Usage,
        Unverified::Unreadable { .. } => Exit::Failed,
        Unverified::Broken(_) => Exit::Broken,
    }
}
