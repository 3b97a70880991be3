//! cargo-fuzz: `fpxint_fuzz::onnx`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fpxint_fuzz::onnx(data));
