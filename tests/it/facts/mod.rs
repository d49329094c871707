//! Facts are never made up: what is not known is not there, and what is stated must be able to be.

mod absent;
mod access;
mod believed;
mod hosts;
mod routes;
mod stated;
