//! How values become integers of their grid.

use std::fmt;

/// Rule by which the values of a tensor are rounded to integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Rounding {
    /// To the nearest integer: an error of at most half a step.
    #[default]
    Nearest,
    /// To the nearest, then the values next to a tie are moved to their other neighbour until the errors of an output channel
    /// sum to at most half a step: an error of at most one step.
    Sum,
}

impl Rounding {
    /// The rule of a name; `None` for a name of none.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Nearest, Self::Sum].into_iter().find(|rounding| rounding.name() == name)
    }

    /// Its name: `nearest` or `sum`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Sum => "sum",
        }
    }

    /// Largest error of the integers, in steps of the last term.
    pub fn steps(self) -> f64 {
        match self {
            Self::Nearest => 0.5,
            Self::Sum => 1.0,
        }
    }
}

impl fmt::Display for Rounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
