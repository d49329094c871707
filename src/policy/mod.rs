//! The policy decision point: compiles Cedar policies against what a provider declares, and answers who may do what.
//!
//! [`Domain`] says what exists, [`Engine::compile`] checks every policy against it, [`Engine::principal`] prepares a caller and
//! [`Engine::authorize`] answers one [`Query`]. Whatever cannot be answered is a denial.

mod annotations;
mod answer;
mod closest;
mod compile;
mod compiled;
mod condition;
mod context;
mod domain;
mod engine;
mod literals;
mod principal;
mod statements;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Effect, PolicyInfo};
pub(crate) use closest::closest;
pub use compile::Source;
pub use context::Reads;
pub(crate) use domain::DECLARED_IN;
pub use domain::{ActionShape, Domain, FactShape, Field};
pub use engine::{Engine, Query};
pub use principal::{Given, Principal, Standing};
