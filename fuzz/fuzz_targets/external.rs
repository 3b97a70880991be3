//! cargo-fuzz: `fpxint_fuzz::external`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fpxint_fuzz::external(data));
