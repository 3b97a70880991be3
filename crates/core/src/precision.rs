//! Bits per term and number of terms: `int<X>x<n>`.

use std::{fmt, str::FromStr};

use crate::Error;

/// `X` bits per term and `n` terms; `b = n * X` effective bits, at most 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Precision {
    bits: u32,
    order: u32,
}

impl Precision {
    /// A precision of `order` terms of `bits` bits.
    ///
    /// # Errors
    /// [`Error::Precision`] unless `2 <= bits <= 8`, `order >= 1` and `bits * order <= 32`.
    pub fn new(bits: u32, order: u32) -> Result<Self, Error> {
        let fault = |reason| Err(Error::Precision { bits, order, reason });
        match (bits, order) {
            (..2, _) | (9.., _) => fault("a term has 2 to 8 bits"),
            (_, 0) => fault("a series has at least one term"),
            (_, 33..) => fault("bits x terms is at most 32"),
            _ if bits * order > 32 => fault("bits x terms is at most 32"),
            _ => Ok(Self { bits, order }),
        }
    }

    /// Bits per term, the paper's X.
    pub fn bits(self) -> u32 {
        self.bits
    }

    /// Number of terms, the paper's n.
    pub fn order(self) -> u32 {
        self.order
    }

    /// Effective bits `b = n * X`.
    pub fn total_bits(self) -> u32 {
        self.bits * self.order
    }

    /// `scale_n / scale_1`.
    pub(crate) fn last_step(self) -> f64 {
        2f64.powi(-((self.bits * (self.order - 1)) as i32))
    }

    /// The same bits per term with another number of terms.
    ///
    /// # Errors
    /// As [`Precision::new`].
    pub fn with_order(self, order: u32) -> Result<Self, Error> {
        Self::new(self.bits, order)
    }

    /// Largest `|Q|` of a symmetric series: `(2^(X-1) - 1) * (2^b - 1) / (2^X - 1)`, which repeats the largest positive
    /// digit `n` times.
    pub fn q_max(self) -> i64 {
        let radix = 1i64 << self.bits;
        (0..self.order).fold(0, |q, _| q * radix + (radix / 2 - 1))
    }

    /// Centre of the asymmetric code range `[0, 2^b - 1]`: subtracting it leaves a number whose balanced digits fit
    /// `INT-X`: `2^(X-1) * (2^b - 1) / (2^X - 1)`.
    pub fn centre(self) -> i64 {
        let radix = 1i64 << self.bits;
        (0..self.order).fold(0, |c, _| c * radix + radix / 2)
    }

    /// Largest asymmetric code, `2^b - 1`.
    pub fn code_max(self) -> i64 {
        (1i64 << self.total_bits()) - 1
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "int{}x{}", self.bits, self.order)
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = |part: &str| {
            let digits = !part.is_empty() && part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse::<u32>().ok()).flatten()
        };
        text.strip_prefix("int")
            .and_then(|rest| rest.split_once('x'))
            .and_then(|(bits, order)| Some((parse(bits)?, parse(order)?)))
            .ok_or_else(|| Error::Syntax(text.to_owned()))
            .and_then(|(bits, order)| Self::new(bits, order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in ["int2x1", "int4x2", "int8x4", "int3x10"] {
            assert_eq!(text.parse::<Precision>().unwrap().to_string(), text);
        }
        for text in ["", "int", "int4", "int4x", "intx2", "int-4x2", "4x2", "int4x2 ", "int4x+2", "int4x1000", "fp32"] {
            assert!(matches!(text.parse::<Precision>(), Err(Error::Syntax(_))), "{text}");
        }
        for text in ["int1x1", "int9x1", "int4x0", "int8x5", "int4x999", "int0x0"] {
            assert!(matches!(text.parse::<Precision>(), Err(Error::Precision { .. })), "{text}");
        }
    }

    #[test]
    fn ranges_follow_the_closed_forms() {
        for bits in 2..=8u32 {
            for order in 1..=32 / bits {
                let p = Precision::new(bits, order).unwrap();
                let ones = p.code_max() / ((1i64 << bits) - 1);
                assert_eq!(p.q_max(), ((1i64 << (bits - 1)) - 1) * ones);
                assert_eq!(p.centre(), (1i64 << (bits - 1)) * ones);
            }
        }
        assert_eq!(Precision::new(4, 2).unwrap().q_max(), 119);
    }
}
