//! What people name on the command line: files and folders that must be there, and tips for what they may have meant.

use std::ffi::OsStr;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::output;
use super::{Exit, command};
use crate::model::escape::is_unseen;
use crate::rules::provider::nearest;

/// What `init` calls the configuration that it writes.
const USUAL_NAME: &str = "rolegate.toml";

/// Reads a flag that names a file, or something that can be read like one.
pub(super) fn file() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => Err(match path.join(USUAL_NAME) {
            inside if inside.is_file() => format!("is a folder; did you mean `{}`?", inside.display()),
            _ => "is a folder".to_owned(),
        }),
        Ok(_) => Ok(path),
        Err(error) => Err(missing(&path, &error)),
    })
}

/// Reads a flag that names a folder.
pub(super) fn folder() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => Ok(path),
        Ok(_) => Err("is no folder".to_owned()),
        Err(error) => Err(missing(&path, &error)),
    })
}

/// Why `path` cannot be used, with the nearest name beside it.
fn missing(path: &Path, error: &impl Display) -> String {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = std::fs::read_dir(above).into_iter().flatten().flatten();
    let names: Vec<String> = beside.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let typed = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    match nearest(&typed, names.iter().map(String::as_str)) {
        Some(near) => format!("{error}; did you mean `{}`?", path.with_file_name(near).display()),
        None => error.to_string(),
    }
}

/// Tells what is wrong with the command line, or prints the help or the version that was asked for.
pub(super) fn refused(error: &clap::Error) -> Exit {
    // An argument may be somebody else's text, too. What it would do to a terminal is told without colours.
    let odd = std::env::args_os().skip(1).any(|given| given.to_string_lossy().contains(is_unseen));
    let printed = if error.use_stderr() && odd {
        output::error(error.render().to_string().trim_end());
        Ok(())
    } else {
        error.print()
    };
    if !error.use_stderr() {
        output::printed(printed);
        return output::end(Exit::Good);
    }
    if let Some(tip) = tip(error) {
        output::error(&format!("\n  tip: {tip}"));
    }
    Exit::Usage
}

/// A path where a flag with one was meant.
fn tip(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else { return None };
    let path = Path::new(word);
    if error.kind() != ErrorKind::UnknownArgument || word.starts_with('-') || !path.exists() {
        return None;
    }
    let flag = if path.is_dir() { "policies" } else { "config" };
    let verb = std::env::args().nth(1)?;
    let known = command().find_subcommand(verb)?.get_arguments().any(|arg| arg.get_long() == Some(flag));
    known.then(|| format!("write `--{flag} {word}`"))
}
