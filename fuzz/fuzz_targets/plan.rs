//! cargo-fuzz: `fpxint_fuzz::plan`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fpxint_fuzz::plan(data));
