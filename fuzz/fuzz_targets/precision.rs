//! cargo-fuzz: `fpxint_fuzz::precision`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fpxint_fuzz::precision(data));
