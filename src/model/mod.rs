//! The vocabulary of the gate: plain values without input, output or a clock, named as NIST SP 800-162 and AuthZEN 1.0 name them.

pub mod escape;
pub mod fault;
pub mod request;
pub mod subject;
pub mod value;
pub mod verdict;

pub use fault::{Fault, Faults, Place};
pub use request::{Body, RawRequest};
pub use subject::{Credential, Resource, Secret, Subject};
pub use value::{Kind, Record, Value};
pub use verdict::{Decision, Door, Mode, Obligation, Reason};
