//! cargo-fuzz: `fpxint_fuzz::npy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fpxint_fuzz::npy(data));
