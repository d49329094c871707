//! Stories of the whole product: a gate before the sample servers, asked as clients ask.
#![expect(unreachable_pub, reason = "nothing is outside of a test binary")]

mod architecture;
mod commands;
mod connections;
mod lookups;
mod operation;
mod readme;
mod records;
mod refusals;
mod reload;
mod streaming;
mod support;
mod walk;
