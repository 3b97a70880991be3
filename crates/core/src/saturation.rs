//! The saturation part `M_sa`: what a tensor clipped at `c < max` holds beyond the range of its terms.
//!
//! ```text
//! M = S scale_1 + sum_i scale_i M_i + error            S sparse and integer, so that nothing is lost
//! S = sign(Q) ceil((|Q| - Qmax) / 2^(X (n-1)))         where |Q| > Qmax, else 0;   terms = digits of Q - 2^(X (n-1)) S
//! ```
//!
//! `S` is on the grid of the first term, so that every prefix of the terms keeps it: it is what the first balanced digit of
//! `Q` has beyond `INT-X`, and all other digits are those of `Q`. The whole integers stay within the limbs that the terms
//! alone take, for every prefix, so that a product with them costs what one with the terms costs.

use crate::limbs::{drop_digits, limb_count, limb_max, span};
use crate::{Error, Precision, Series};

/// Largest whole integer of a series of this precision: with it every prefix of the terms still fits its own limbs.
pub(crate) fn room(precision: Precision) -> i64 {
    let (bits, order) = (precision.bits(), precision.order());
    let held = |terms: u32| {
        let low = bits * (order - terms);
        let halves = (0..order - terms).fold(0i64, |sum, _| (sum << bits) + (1 << (bits - 1)));
        (limb_max(limb_count(bits * terms)) << low) + (1 << low) - 1 - halves
    };
    (1..=order).map(held).min().unwrap_or(0)
}

/// The saturation part of a whole integer.
pub(crate) fn overflow(precision: Precision, q: i32) -> i32 {
    let low = precision.bits() * (precision.order() - 1);
    let over = i64::from(q).abs() - precision.q_max();
    if over <= 0 {
        return 0;
    }
    let s = (over + (1 << low) - 1) >> low;
    (s * i64::from(q.signum())) as i32
}

/// Bits that hold the first `terms` terms of integers in `low ..= high` with their saturation part, as balanced limbs.
pub(crate) fn width(precision: Precision, terms: u32, (low, high): (i32, i32)) -> u32 {
    let bits = precision.bits();
    let kept = drop_digits(bits, precision.order() - terms);
    let top = kept(i64::from(low)).abs().max(kept(i64::from(high)).abs());
    let plain = bits * terms;
    if i64::from(high).max(-i64::from(low)) <= precision.q_max() {
        return plain;
    }
    let needed = plain.max(65 - top.leading_zeros());
    if top > limb_max(limb_count(needed)) { 8 * limb_count(needed) as u32 + 1 } else { needed }
}

/// Bits of an entry of the saturation part as artefacts store it: its index of 64 bits and its integer of 8.
const ENTRY_BITS: f64 = 72.0;

impl Series {
    /// Bits of a weight in the mean: those of its terms, and its share of those of the saturation part.
    pub fn mean_bits(&self) -> f64 {
        let share = self.saturation().len() as f64 / self.q.len().max(1) as f64;
        f64::from(self.precision.total_bits()) + ENTRY_BITS * share
    }

    /// The saturation part: row-major index and integer in units of `scale_1`, ascending by index, none of them 0.
    pub fn saturation(&self) -> Vec<(usize, i32)> {
        let (low, high) = span(&self.q);
        if i64::from(high).max(-i64::from(low)) <= self.precision.q_max() {
            return Vec::new();
        }
        let part = |(i, &q): (usize, &i32)| Some((i, overflow(self.precision, q))).filter(|&(_, s)| s != 0);
        self.q.iter().enumerate().filter_map(part).collect()
    }

    /// The series with a saturation part, as [`Series::saturation`] gives it.
    ///
    /// # Errors
    /// [`Error::NotASeries`] for a part that no expansion produces; `name` names the tensor.
    pub fn with_saturation(mut self, name: &str, part: &[(usize, i32)]) -> Result<Self, Error> {
        let fault = |reason: String| Error::NotASeries { tensor: name.to_owned(), reason };
        if !part.is_empty() && self.blocks.is_some() {
            return Err(fault("a saturation part beside scales of groups".to_owned()));
        }
        let (low, room) = (self.precision.bits() * (self.precision.order() - 1), room(self.precision));
        let channels = self.channels();
        let mut next = 0;
        for &(i, s) in part {
            if i < next || i >= self.q.len() {
                return Err(fault(format!("element {i} of its saturation part is out of order or of range")));
            }
            next = i + 1;
            let whole = i64::from(self.q[i]) + (i64::from(s) << low);
            let is_whole = whole.abs() <= room && overflow(self.precision, whole as i32) == s && s != 0;
            if !is_whole || self.scale(channels.of(i)) == 0.0 {
                return Err(fault(format!("element {i} of its saturation part is {s} beside {}", self.q[i])));
            }
            self.q[i] = whole as i32;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balanced_limbs;

    #[test]
    fn whole_integers_fit_the_limbs_of_their_terms() {
        for (text, want) in [("int4x1", 127), ("int4x2", 127), ("int8x1", 127), ("int2x1", 127), ("int4x3", 2039)] {
            assert_eq!(room(text.parse().unwrap()), want, "{text}");
        }
        for bits in 2..=8u32 {
            for order in 1..=32 / bits {
                let p = Precision::new(bits, order).unwrap();
                assert!(room(p) >= p.q_max(), "{p}");
                let top = room(p) as i32;
                for terms in 1..=order {
                    let kept = drop_digits(bits, order - terms);
                    let q = [-top, top, 1 - top, 0].map(|q| kept(i64::from(q)) as i32);
                    balanced_limbs(&q, limb_count(bits * terms));
                    let width = width(p, terms, (-top, top));
                    assert_eq!(limb_count(width), limb_count(bits * terms), "{p} at {terms}");
                }
            }
        }
    }

    #[test]
    fn the_saturation_part_is_the_least_that_brings_an_integer_back() {
        for text in ["int4x1", "int2x3", "int4x2", "int3x2", "int2x1"] {
            let p: Precision = text.parse().unwrap();
            let low = p.bits() * (p.order() - 1);
            for q in -(room(p) as i32)..=room(p) as i32 {
                let s = overflow(p, q);
                let rest = i64::from(q) - (i64::from(s) << low);
                assert!(rest.abs() <= p.q_max(), "{text}: {q} less {s}");
                assert_eq!(s == 0, i64::from(q).abs() <= p.q_max(), "{text}: {q}");
                let nearer = i64::from(q) - (i64::from(s - s.signum()) << low);
                assert!(s == 0 || nearer.abs() > p.q_max(), "{text}: {q} less {s}");
            }
        }
    }

    #[test]
    fn wider_integers_say_so() {
        let p: Precision = "int4x1".parse().unwrap();
        assert_eq!(width(p, 1, (-7, 7)), 4);
        assert_eq!(width(p, 1, (-7, 8)), 5);
        assert_eq!(width(p, 1, (-128, 0)), 9);
    }
}
