//! `checks::call` on whatever libFuzzer thinks of.
#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code, reason = "each target uses its own part")]
mod checks;

use url::Url;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::call(data));
