//! A policy-enforcing reverse proxy that decides who may see who is in a chat room and who holds which role.

pub mod audit;
pub mod cli;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod identity;
pub mod metrics;
pub mod model;
pub mod pipeline;
pub mod policy;
pub mod proxy;
pub mod reload;
pub mod rules;

/// The version of this build, and the git revision it was made of.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ROLEGATE_REVISION"), ")");
