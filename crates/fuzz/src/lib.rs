//! Fuzz targets as plain functions: each takes any bytes, and asserts a round trip or an error of one short line.
//!
//! `cargo test -p fpxint-fuzz` runs them on the corpus in `fuzz/corpus` and on seeded mutations of it, for as many seconds a
//! target as `FPXINT_FUZZ_SECONDS` says, and asserts limits of time and memory besides; `fuzz/fuzz_targets` hands the same
//! functions to cargo-fuzz.
//!
//! * [`TARGETS`]: their names and functions.
//! * [`Mutator`]: one input out of others.

#![forbid(unsafe_code)]

mod arrays;
mod models;
mod mutate;
mod texts;

pub use arrays::npy;
pub use models::{artefact, external, onnx};
pub use mutate::Mutator;
pub use texts::{plan, precision};

/// A target: the name of its corpus, and what is done with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("onnx", onnx),
    ("artefact", artefact),
    ("external", external),
    ("npy", npy),
    ("plan", plan),
    ("precision", precision),
];

/// Longest message that an error may have, in bytes.
const LONGEST: usize = 2000;

/// Asserts that an error is told on one short line.
fn told(message: &str) {
    assert!(!message.is_empty() && message.len() <= LONGEST, "{} bytes: {message:?}", message.len());
    assert!(!message.chars().any(char::is_control), "{message:?}");
}
