//! How results are printed: for people, or as JSON.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::Exit;
use crate::model::Faults;

/// Why stdout takes no more; what was printed since then went nowhere.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// For whom results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON object a result.
    Json,
}

/// Prints a line to stdout. A failure is kept for [`end`]; the verb goes on, so that its exit code is the one it has earned.
pub(super) fn line(text: &str) {
    if !lost() {
        printed(writeln!(io::stdout().lock(), "{text}"));
    }
}

/// Takes note of how printing to stdout went.
pub(super) fn printed(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        // The first failure says why; the others follow from it.
        let _ = LOST.set(error);
    }
}

/// Whether stdout takes no more.
pub(super) fn lost() -> bool {
    LOST.get().is_some()
}

/// The exit of a verb that ended with `exit`, once all its output is written. A reader that has seen enough (`| head`) changes
/// nothing; output that could not be written is a failure, and said so.
pub(super) fn end(exit: Exit) -> Exit {
    if !lost() {
        printed(io::stdout().flush());
    }
    match LOST.get() {
        Some(cause) if cause.kind() != io::ErrorKind::BrokenPipe => {
            error(&format!("the output could not be written: {cause}"));
            if exit == Exit::Good { Exit::Failed } else { exit }
        }
        Some(_) | None => exit,
    }
}

/// Prints a result as one line of JSON.
pub(super) fn json(value: &Value) {
    line(&value.to_string());
}

/// Prints to stderr.
pub(super) fn error(text: &str) {
    // Nobody is left to tell when stderr itself is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Faults as JSON.
pub(super) fn faults(faults: &Faults) -> Vec<Value> {
    let one = |fault: &crate::model::Fault| {
        json!({
            "file": fault.place.file, "line": fault.place.line, "column": fault.place.column,
            "message": fault.message, "hint": fault.hint,
        })
    };
    faults.0.iter().map(one).collect()
}

/// Colours for a terminal, none for a file or where `NO_COLOR` is set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    pub(super) fn stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self(wanted && io::stdout().is_terminal())
    }

    pub(super) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    pub(super) fn strong(self, text: &str) -> String {
        self.with("1", text)
    }

    /// Only the demo has something to say aside.
    #[cfg(feature = "demo")]
    pub(super) fn faint(self, text: &str) -> String {
        self.with("2", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Rows as columns, each as wide as its widest cell but the last.
pub(super) fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}
