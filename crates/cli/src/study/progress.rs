//! The progress of a study: steps of all sections, and the time that is left.

use crate::args::Common;
use crate::progress::{self, Bar};

/// A bar over all steps.
pub(super) struct Progress(Bar);

impl Progress {
    /// A bar without steps.
    pub(super) fn new(common: &Common) -> Self {
        Self(progress::bar(common, "study", 0))
    }

    /// Steps that are still to come.
    pub(super) fn expect(&self, steps: usize) {
        self.0.expect(steps as u64);
    }

    /// What is being done.
    pub(super) fn begin(&self, letter: char) {
        self.0.describe(format!("study ({letter})"));
    }

    /// A step is done.
    pub(super) fn step(&self) {
        self.0.inc(1);
    }

    /// Everything is done.
    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
