//! How results are printed: for people, or as JSON.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::Exit;
use crate::model::Faults;
use crate::model::escape::{escape_but, escape_onto, is_unseen};

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

/// Prints a line to stdout, whatever strangers wrote in it. A failure is kept for [`end`]; the verb goes on, so that its exit
/// code is the one it has earned.
pub(super) fn line(text: &str) {
    document(&one_line(text, || Paint::stdout().0));
}

/// Prints a text of our own with all its lines to stdout.
pub(super) fn document(text: &str) {
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

/// Prints lines to stderr.
pub(super) fn error(text: &str) {
    // Nobody is left to tell when stderr itself is gone.
    let _ = writeln!(io::stderr().lock(), "{}", escape_but(text, |c| c == '\n'));
}

/// `text` with what would end a line, move a cursor or not be seen escaped, but for our own colours where there are any.
fn one_line(text: &str, coloured: impl FnOnce() -> bool) -> Cow<'_, str> {
    if !text.contains(is_unseen) {
        return text.into();
    }
    let codes = if coloured() { &["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m"][..] } else { &[] };
    let mut written = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let code = codes.iter().find(|code| rest.starts_with(**code));
        let (piece, after) = rest.split_at(code.map_or(c.len_utf8(), |code| code.len()));
        match code {
            None if is_unseen(c) => escape_onto(&mut written, c),
            _ => written.push_str(piece),
        }
        rest = after;
    }
    written.into()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_is_in_it_and_only_our_colours_are_left() {
        let text = format!("{} a\nb\u{1b}[2J\u{9b}1A\u{202e}c", Paint(true).bad("deny"));
        assert_eq!(one_line(&text, || true), "\u{1b}[31mdeny\u{1b}[0m a\\u000ab\\u001b[2J\\u009b1A\\u202ec");
        assert_eq!(one_line(&text, || false), "\\u001b[31mdeny\\u001b[0m a\\u000ab\\u001b[2J\\u009b1A\\u202ec");
        assert_eq!(one_line("Zoë", || true), "Zoë");
    }
}
