//! A policy-enforcing reverse proxy that decides who may see who is in a chat room and who holds which role.
//!
//! Start reading at [`pipeline`]: one request's walk, a type per stop.
//!
//! # The house
//! A module names only modules on lower floors; `tests/it/architecture.rs` holds that.
//!
//! | floor | module | what lives there |
//! |---|---|---|
//! | 1 | [`model`] | the vocabulary: plain values, no input or output, no clock |
//! | 2 | [`files`] | how files that people named are read |
//! | 2 | [`log`] | which lines the process log has, and the thread that writes them |
//! | 2 | [`metrics`] | every metric, one typed method each |
//! | 2 | [`traces`] | a span for each judged request and each stop of its walk |
//! | 3 | [`policy`] | the policy decision point: Cedar behind one door |
//! | 3 | [`identity`] | the policy information point: credential to subject, tables, facts; cache and single flight |
//! | 3 | [`audit`] | the record, its chain, and the proof that one was written |
//! | 4 | [`rules`], [`config`] | the policy administration point: what people write, checked |
//! | 5 | [`pipeline`] | the walk |
//! | 6 | [`reload`] | rules that take each other's place |
//! | 7 | [`proxy`] | the policy enforcement point: connections in, verdicts carried out, connections out |
//! | 8 | `demo` | the sample chat servers and the tour |
//! | 9 | [`cli`] | the verbs |
//!
//! # How comparable products were walked around, and what here rules it out
//! - *The target that was judged was not the one that was forwarded* (CVE-2026-33494, CVE-2021-29492, CVE-2025-32431 and their
//!   kin): [`rules::target`] reads a target for routing and forwarding alike, one with a second reading has none, and a
//!   [`pipeline::Permit`] holds the target to send, written from validated values.
//! - *A cached verdict outlived what it was based on, or was found under a key that lacked an input* (CVE-2026-33496,
//!   oathkeeper#743): facts are cached, verdicts are not, and [`identity`] hashes every input of a lookup into its key.
//! - *A lookup was made of the client's own headers* (CVE-2024-32638): a question is built from scratch and carries the
//!   credential and nothing else of the client's.
//! - *A policy that could not be evaluated was passed over* (Cedar skips an erring `forbid`): any evaluation error is a denial.
//! - *A path that matched no rule was free* (CVE-2026-63177): known open routes are listed by `actions`, the rest can be closed.
//! - *The denial or the error left no record*: a [`pipeline::Denial`] is recorded like a permit, and a request that panics is too.

pub mod audit;
pub mod cli;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod files;
pub mod identity;
pub mod log;
pub mod metrics;
pub mod model;
pub mod pipeline;
pub mod policy;
pub mod proxy;
pub mod reload;
pub mod rules;
pub mod traces;

/// The version of this build, and the git revision it was made of.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ROLEGATE_REVISION"), ")");
