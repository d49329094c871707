//! The `rolegate` program itself, as an operator runs it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The program with its arguments.
pub struct Program(pub Command);

/// How it ended.
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Program {
    pub fn new(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rolegate"));
        command.args(args).env("NO_COLOR", "1").env_remove("RUST_LOG").stdin(Stdio::null());
        // What the machine sets for a rolegate of its own is nothing to a story.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ROLEGATE_")) {
            command.env_remove(name);
        }
        Self(command)
    }

    pub fn within(mut self, folder: &Path) -> Self {
        self.0.current_dir(folder);
        self
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Ended {
        let Output { status, stdout, stderr } = self.0.output().unwrap();
        Ended {
            code: status.code().unwrap_or(-1),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }
}

impl Ended {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}
