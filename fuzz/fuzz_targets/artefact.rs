//! cargo-fuzz: `fpxint_fuzz::artefact`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fpxint_fuzz::artefact(data));
