//! Stories of the whole product: a gate before the sample servers, asked as clients ask.
#![expect(unreachable_pub, reason = "nothing is outside of a test binary")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a story stops at the first surprise"
)]

mod architecture;
mod audit_log;
mod command_line;
mod commands;
mod configuration;
mod connections;
mod corpus;
mod declared;
mod demo;
mod differential;
mod entrance;
mod facts;
mod fast_path;
mod fuzz_seeds;
mod health;
mod judging;
mod lookups;
mod operation;
mod process;
mod readme;
mod records;
mod refusals;
mod reload;
mod streaming;
mod support;
mod traces;
mod tunnel;
mod walk;
mod wire;
