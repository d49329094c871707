//! A policy-enforcing reverse proxy that decides who may see who is in a chat room and who holds which role.

pub mod audit;
pub mod identity;
pub mod metrics;
pub mod model;
pub mod policy;

/// The version of this build; the git revision stands behind it when it is known.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
