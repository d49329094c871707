//! What the command line promises of every verb: the configuration, variables, exit codes when output fails, and help for people.

mod configuration;
mod help;
mod online;
mod output;
mod status;

use std::path::Path;

use crate::support::Program;
use crate::support::program::Ended;

/// Runs the program in `folder`, and sees that it ends with `code`.
fn run(folder: &Path, arguments: &[&str], code: i32) -> Ended {
    ended(Program::new(arguments).within(folder), arguments, code)
}

/// Runs it with environment variables.
fn run_with(folder: &Path, variables: &[(&str, &str)], arguments: &[&str], code: i32) -> Ended {
    let mut program = Program::new(arguments).within(folder);
    program.0.envs(variables.iter().copied());
    ended(program, arguments, code)
}

fn ended(program: Program, arguments: &[&str], code: i32) -> Ended {
    let ended = program.run();
    assert_eq!(ended.code, code, "{arguments:?}\n{}\n{}", ended.out, ended.err);
    ended
}
