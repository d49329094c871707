//! The embedded sample chat servers: an independent upstream for `rolegate demo` and for the integration tests.
//!
//! They are written from what the real servers were found to do, never by calling rolegate's own validators, so that a request
//! which the gate and the server read differently shows up as a difference. Where a real server reads leniently, so do they.

mod answer;
mod behaviour;
mod connection;
mod docusign;
mod journal;
mod matrix;
mod rocketchat;
mod server;
#[cfg(test)]
mod tests;
pub mod tour;
pub mod world;

pub use behaviour::{Behaviour, Hold};
pub use journal::Seen;
pub use server::Sample;
pub use world::World;
