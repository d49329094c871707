//! This crate is zlib under the name of zlib-ng, so that rolegate is built without cmake.
#![no_std]

pub use libz_sys::*;
