//! Activation expansion at run time: asymmetric (`M_nsy`), one grid for a row or an image.
//!
//! ```text
//! scale = (max(x, 0) - min(x, 0)) / (2^b - 1), rounded up
//! u     = clamp(round_half_even(x / scale) + zp, 0, 2^b - 1)       0 <= zp <= 2^b - 1, so zero is exact
//! x     = scale (u - zp) + error = bias + scale (u - centre) + error,   bias = scale (centre - zp)
//! A_1 .. A_n = balanced digits of u - centre in base 2^X,   centre = 2^(X-1) (2^b - 1) / (2^X - 1)
//! ```
//!
//! The arithmetic is fixed, because kernels repeat it bit for bit: `q = rne(x * inv)` without FMA, in f32 up to 12 bits and
//! in f64 above; the zero point is added as an integer.

use crate::{Precision, limbs::balanced_digit, series::ZERO_SCALE};

/// The quantisation grid of one row or image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// Value of one integer step; 0 for an all-zero row, NaN for one that holds a non-finite value.
    pub scale: f32,
    /// `1 / scale` as f32, or 0 where `scale` is 0 or NaN.
    pub inv: f32,
    /// `1 / scale` as f64, for more than 12 bits.
    pub inv_wide: f64,
    /// Code of zero.
    pub zero_point: i32,
    /// Largest code, `2^b - 1`.
    pub code_max: i32,
}

impl Grid {
    /// Widest activations there are, in effective bits.
    pub const MAX_BITS: u32 = 24;

    /// The grid for values in `[low, high]`, widened to include zero.
    ///
    /// A range that is not finite gives a grid whose `scale` is NaN and whose codes are all the zero point, so that every
    /// output of that row or image becomes NaN.
    ///
    /// # Panics
    /// If `precision` has more than [`Grid::MAX_BITS`] effective bits.
    pub fn new(low: f32, high: f32, precision: Precision) -> Self {
        let bits = precision.total_bits();
        assert!(bits <= Self::MAX_BITS, "{precision}: activations have at most {} bits", Self::MAX_BITS);
        let code_max = precision.code_max() as i32;
        if !(low.is_finite() && high.is_finite()) {
            return Self { scale: f32::NAN, inv: 0.0, inv_wide: 0.0, zero_point: 0, code_max };
        }
        let (low, high) = (f64::from(low.min(0.0)), f64::from(high.max(0.0)));
        let wanted = (high - low) / f64::from(code_max);
        if wanted < ZERO_SCALE {
            return Self { scale: 0.0, inv: 0.0, inv_wide: 0.0, zero_point: 0, code_max };
        }
        let scale = round_up_f32(wanted);
        let (inv, inv_wide) = (1.0 / scale, 1.0 / f64::from(scale));
        let zero_point = rne(low as f32, inv, inv_wide, bits).wrapping_neg();
        Self { scale, inv, inv_wide, zero_point, code_max }
    }

    /// The code of `x`.
    pub fn code(&self, x: f32) -> i32 {
        self.unclamped(x).clamp(0, self.code_max)
    }

    /// The integer of `x` on the grid continued beyond its codes.
    pub fn unclamped(&self, x: f32) -> i32 {
        let bits = 32 - self.code_max.leading_zeros();
        rne(x, self.inv, self.inv_wide, bits).saturating_add(self.zero_point)
    }

    /// The value that code `u` stands for, in f64 (exact).
    pub fn value(&self, u: i32) -> f64 {
        f64::from(self.scale) * f64::from(u - self.zero_point)
    }

    /// Largest possible `|x - value(code(x))|` for `x` in the range: half a step, plus the rounding of `x * inv`.
    pub fn bound(&self) -> f64 {
        if self.scale == 0.0 {
            return ZERO_SCALE * f64::from(self.code_max);
        }
        let slack = if self.code_max < 1 << 12 { f64::from(self.code_max) * 2f64.powi(-22) } else { 2f64.powi(-20) };
        f64::from(self.scale) * (0.5 + slack)
    }

    /// Digits of the activation terms `A_1 .. A_n` of code `u`: those of `u - centre`.
    pub fn digits(u: i32, precision: Precision) -> Vec<i8> {
        let mut rest = i64::from(u) - precision.centre();
        let mut digits = vec![0i8; precision.order() as usize];
        for slot in digits.iter_mut().rev() {
            let digit = balanced_digit(rest, precision.bits());
            rest = (rest - digit) >> precision.bits();
            *slot = digit as i8;
        }
        debug_assert_eq!(rest, 0);
        digits
    }
}

/// `round_half_even(x / scale)`: in f32 up to 12 bits, in f64 above.
fn rne(x: f32, inv: f32, inv_wide: f64, bits: u32) -> i32 {
    if bits <= 12 { (x * inv).round_ties_even() as i32 } else { (f64::from(x) * inv_wide).round_ties_even() as i32 }
}

/// The smallest f32 that is not below the normal f64 `x > 0`.
fn round_up_f32(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) < x { near.next_up() } else { near }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PRECISIONS: [(u32, u32); 8] = [(2, 1), (2, 3), (4, 1), (4, 2), (4, 3), (8, 1), (8, 2), (8, 3)];

    #[test]
    fn edges_of_the_range() {
        for (bits, order) in PRECISIONS {
            let p = Precision::new(bits, order).unwrap();
            for (low, high) in
                [(0.0, 6.0), (-1.0, 1.0), (-3.0, 0.0), (1.0, 2.0), (-5.0, -4.0), (-f32::MAX, f32::MAX), (0.0, 1e-22)]
            {
                let grid = Grid::new(low, high, p);
                assert_eq!(grid.code(0.0), grid.zero_point, "zero is exact");
                assert!((0..=grid.code_max).contains(&grid.zero_point));
                for x in [low, high] {
                    assert!((grid.value(grid.code(x)) - f64::from(x)).abs() <= grid.bound(), "{p} {low} {high}");
                }
            }
        }
    }

    #[test]
    fn degenerate_ranges() {
        let p = Precision::new(4, 2).unwrap();
        for (low, high) in [(0.0, 0.0), (0.0, 1e-30), (-1e-30, 0.0)] {
            let grid = Grid::new(low, high, p);
            assert_eq!((grid.scale, grid.code(high), grid.zero_point), (0.0, 0, 0));
            assert!(f64::from(high).abs().max(f64::from(low).abs()) <= grid.bound());
        }
        for (low, high) in [(0.0, f32::INFINITY), (f32::NAN, 1.0), (f32::NEG_INFINITY, 0.0)] {
            let grid = Grid::new(low, high, p);
            assert!(grid.scale.is_nan());
            assert_eq!((grid.code(1.0), grid.code(f32::NAN), grid.zero_point), (0, 0, 0));
        }
    }

    proptest! {
        #[test]
        fn the_error_stays_within_its_bound(
            which in 0..PRECISIONS.len(),
            x in prop::collection::vec(-1e3f32..1e3, 1..40),
            shift in -1e3f32..1e3,
        ) {
            let p = Precision::new(PRECISIONS[which].0, PRECISIONS[which].1).unwrap();
            let x: Vec<f32> = x.iter().map(|v| v + shift).collect();
            let low = x.iter().copied().fold(f32::MAX, f32::min);
            let high = x.iter().copied().fold(f32::MIN, f32::max);
            let grid = Grid::new(low, high, p);
            for &x in &x {
                let u = grid.code(x);
                prop_assert!((0..=grid.code_max).contains(&u));
                prop_assert!((grid.value(u) - f64::from(x)).abs() <= grid.bound());
                let digits = Grid::digits(u, p);
                let half = 1i64 << (p.bits() - 1);
                prop_assert!(digits.iter().all(|&d| (-half..half).contains(&i64::from(d))));
                let sum = digits.iter().fold(0, |sum, &d| sum * 2 * half + i64::from(d));
                prop_assert_eq!(sum + p.centre(), i64::from(u));
            }
        }
    }
}
