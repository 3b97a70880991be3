//! How attention computes: in floats, or on integers of eight bits.

use std::{fmt, str::FromStr};

use crate::{Error, Precision};

/// What the factors of attention's two products become, scores and weights among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AttentionPrecision {
    /// They stay floats.
    #[default]
    Fp32,
    /// Integers of a precision of eight bits in all.
    Int(Precision),
}

impl AttentionPrecision {
    /// Integers of `precision`.
    ///
    /// # Errors
    /// [`Error::Precision`] unless it has eight bits in all.
    pub fn int(precision: Precision) -> Result<Self, Error> {
        let (bits, order) = (precision.bits(), precision.order());
        match precision.total_bits() {
            8 => Ok(Self::Int(precision)),
            _ => Err(Error::Precision { bits, order, reason: "attention takes eight bits in all" }),
        }
    }

    /// Largest magnitude of the integers; `None` for floats.
    pub fn steps(self) -> Option<u8> {
        match self {
            Self::Fp32 => None,
            Self::Int(precision) => u8::try_from(precision.q_max()).ok(),
        }
    }
}

impl fmt::Display for AttentionPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fp32 => f.write_str("fp32"),
            Self::Int(precision) => precision.fmt(f),
        }
    }
}

impl FromStr for AttentionPrecision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "fp32" { Ok(Self::Fp32) } else { Self::int(text.parse()?) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_steps_are_those_of_the_precision() {
        for (text, steps) in [("fp32", None), ("int8x1", Some(127)), ("int4x2", Some(119)), ("int2x4", Some(85))] {
            let precision: AttentionPrecision = text.parse().unwrap();
            assert_eq!((precision.to_string().as_str(), precision.steps()), (text, steps));
        }
        for text in ["int8x2", "int4x1", "int4", "fp16", ""] {
            assert!(text.parse::<AttentionPrecision>().is_err(), "{text}");
        }
    }
}
