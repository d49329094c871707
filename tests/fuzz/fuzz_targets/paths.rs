//! Both paths' readings of whatever libFuzzer thinks of.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    rolegate::proxy::agreement::check(data);
});
