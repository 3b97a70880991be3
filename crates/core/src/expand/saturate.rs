//! The saturation part `M_sa` of activations: rows or images whose grid is finer than their largest value asks for.
//!
//! ```text
//! unit   = 32767 / max|x|                              f32
//! c      = alpha(b) * max|x| / 32767 * sum rne(|x| unit) / n, at least max|x| / 64      a sum of integers has no order
//! range  = [max(min(x, 0), -c), min(max(x, 0), c)]     with the grid of that range
//! u'     = rne(x / scale) + zp                         not clamped; |u' - zp| < 2^(b + 7)
//! u      = clamp(u', 0, 2^b - 1),   delta = u' - u     sparse
//! x      = scale (u - zp + delta) + error              nothing is lost beyond the clip
//! ```
//!
//! `c` is doubled until no more than one value in a hundred lies beyond; a range that saves less than a fifth of the
//! whole one is not clipped, and none of more than 16 bits. The mean magnitude is that of a Laplace distribution about zero,
//! which is on every grid.

use super::clip::alpha;
use crate::{Grid, Precision};

/// Rule by which activations are clipped, row by row or image by image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ActivationClip {
    /// The grid holds every value.
    #[default]
    None,
    /// As if the values were distributed after Laplace about zero.
    Laplace,
}

/// Widest activations that are clipped.
const MOST_BITS: u32 = 16;
/// One value in so many may lie beyond.
const SPARSENESS: usize = 100;
/// Largest magnitude on the grid that the mean is taken on.
const UNIT: f32 = 32767.0;
/// What the range must be less than, of the whole one.
const WORTH: f64 = 0.8;

/// What the clip of a row or image depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Magnitudes {
    /// Smallest value, at most 0.
    pub low: f32,
    /// Largest value, at least 0.
    pub high: f32,
    /// Sum of `rne(|x| unit)`, with [`ActivationClip::unit`].
    pub sum: u64,
    /// Number of values.
    pub count: usize,
}

impl ActivationClip {
    /// Bits that an integer `u' - zp` of a clipped row may have beyond those of a code.
    pub const REACH_BITS: u32 = 7;

    /// What the magnitude of no integer beyond a code of these activations exceeds.
    pub fn largest_beyond(self, activations: Precision) -> i64 {
        let integer = (activations.code_max() + 1) << Self::REACH_BITS;
        if self.of(activations) == ActivationClip::None { 0 } else { integer + activations.code_max() }
    }

    /// The rule of a name; `None` for a name of none.
    pub fn named(name: &str) -> Option<Self> {
        [Self::None, Self::Laplace].into_iter().find(|clip| clip.name() == name)
    }

    /// Its name: `none` or `laplace`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Laplace => "laplace",
        }
    }

    /// This rule for activations of a precision: the widest are not clipped.
    pub fn of(self, precision: Precision) -> Self {
        if precision.total_bits() <= MOST_BITS { self } else { Self::None }
    }

    /// Most values of a row or image of `count` that may lie beyond.
    pub fn most(count: usize) -> usize {
        count / SPARSENESS
    }

    /// The factor of magnitudes whose integers are summed; 0 where there is nothing to clip.
    pub fn unit(low: f32, high: f32) -> f32 {
        let unit = UNIT / high.max(-low);
        if unit.is_finite() { unit } else { 0.0 }
    }

    /// The grid to try after `attempt` others that left too many values beyond; `None` where it is that of the whole range.
    pub fn grid(self, of: &Magnitudes, precision: Precision, attempt: u32) -> Option<Grid> {
        /// A clip is at least the largest magnitude divided by so much.
        const REACH: f64 = 64.0;
        let Magnitudes { low, high, sum, count } = *of;
        let is_finite = low.is_finite() && high.is_finite();
        if self.of(precision) == Self::None || count == 0 || !is_finite || Self::unit(low, high) == 0.0 {
            return None;
        }
        let largest = f64::from(high.max(-low));
        let mean = largest / f64::from(UNIT) * (sum as f64 / count as f64);
        let clip = (alpha(precision) * mean).max(largest / REACH) * f64::from(1u32 << attempt.min(31));
        let c = clip as f32;
        let (clipped_low, clipped_high) = (low.max(-c), high.min(c));
        let width = |low: f32, high: f32| f64::from(high) - f64::from(low);
        let pays = width(clipped_low, clipped_high) < WORTH * width(low, high);
        let grid = pays.then(|| Grid::new(clipped_low, clipped_high, precision));
        grid.filter(|grid| grid.scale > 0.0)
    }
}

/// A row or image expanded: codes of a grid, and what lies beyond them.
#[derive(Debug, Clone, PartialEq)]
pub struct Saturated {
    /// The grid.
    pub grid: Grid,
    /// Codes `u`, one a value.
    pub codes: Vec<i32>,
    /// Places and integers `delta`, ascending, none of them 0.
    pub beyond: Vec<(usize, i32)>,
}

impl Saturated {
    /// Expands a row or image; what holds a non-finite value gets a grid without a scale, as [`Grid::new`] says.
    ///
    /// # Panics
    /// If `precision` has more than [`Grid::MAX_BITS`] effective bits.
    pub fn new(x: &[f32], precision: Precision, clip: ActivationClip) -> Self {
        let finite = x.iter().all(|v| v.is_finite());
        let bound = |pick: fn(f32, f32) -> f32| x.iter().fold(0.0, |a, &b| pick(a, b));
        let (low, high) = if finite { (bound(f32::min), bound(f32::max)) } else { (f32::NAN, f32::NAN) };
        let unit = ActivationClip::unit(low, high);
        let sum = x.iter().map(|v| (v.abs() * unit).round_ties_even() as u64).sum();
        let magnitudes = Magnitudes { low, high, sum, count: x.len() };
        for attempt in 0.. {
            let Some(grid) = clip.grid(&magnitudes, precision, attempt) else { break };
            let whole = |(i, &x): (usize, &f32)| (i, grid.unclamped(x) - grid.code(x));
            let beyond: Vec<_> = x.iter().enumerate().map(whole).filter(|&(_, delta)| delta != 0).collect();
            if beyond.len() <= ActivationClip::most(x.len()) {
                return Self { grid, codes: x.iter().map(|&x| grid.code(x)).collect(), beyond };
            }
        }
        let grid = Grid::new(low, high, precision);
        Self { grid, codes: x.iter().map(|&x| grid.code(x)).collect(), beyond: Vec::new() }
    }

    /// Integers `u - zp + delta`: the values in steps.
    pub fn integers(&self) -> Vec<i64> {
        let mut all: Vec<i64> = self.codes.iter().map(|&u| i64::from(u - self.grid.zero_point)).collect();
        for &(i, delta) in &self.beyond {
            all[i] += i64::from(delta);
        }
        all
    }

    /// Largest possible `|x - scale (u - zp + delta)|`: half a step, plus the rounding of `x * inv` far beyond the codes.
    pub fn bound(&self) -> f64 {
        let reach = f64::from(1u32 << ActivationClip::REACH_BITS);
        let slack = if self.grid.code_max < 1 << 12 { f64::from(self.grid.code_max) * 2f64.powi(-24) } else { 0.0 };
        self.grid.bound() + if self.beyond.is_empty() { 0.0 } else { f64::from(self.grid.scale) * slack * reach }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fpxint_reference::{quantise_symmetric, spread};
    use proptest::prelude::*;

    const PRECISIONS: [&str; 7] = ["int2x1", "int4x1", "int4x2", "int4x3", "int8x1", "int8x2", "int8x3"];

    /// Values of one size but for one in `rare`, which is `far` times as large.
    fn tailed(x: &[f32], rare: usize, far: f32) -> Vec<f32> {
        x.iter().enumerate().map(|(i, &v)| if i % rare == rare / 2 { v * far } else { v }).collect()
    }

    #[test]
    fn names_are_those_of_the_rules() {
        for clip in [ActivationClip::None, ActivationClip::Laplace] {
            assert_eq!(ActivationClip::named(clip.name()), Some(clip));
        }
        assert_eq!(ActivationClip::named("mse"), None);
    }

    #[test]
    fn outliers_leave_a_finer_grid_to_the_others() {
        let x: Vec<f32> = (0..384).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
        let p: Precision = "int4x2".parse().unwrap();
        let tail = tailed(&x, 300, 40.0);
        let (plain, clipped) =
            (Saturated::new(&x, p, ActivationClip::Laplace), Saturated::new(&tail, p, ActivationClip::Laplace));
        assert_eq!(plain, Saturated::new(&x, p, ActivationClip::None), "nothing lies far out");
        assert!(!clipped.beyond.is_empty() && clipped.beyond.len() <= ActivationClip::most(x.len()));
        let whole = Saturated::new(&tail, p, ActivationClip::None).grid;
        assert!(clipped.grid.scale < 0.5 * whole.scale, "{} of {}", clipped.grid.scale, whole.scale);
    }

    #[test]
    fn too_many_values_beyond_widen_the_clip() {
        // One value in ten is far out, so no clip below them is sparse.
        let x: Vec<f32> = (0..1000).map(|i| if i % 10 == 0 { 100.0 } else { 0.01 * (i % 7) as f32 }).collect();
        let saturated = Saturated::new(&x, "int4x2".parse().unwrap(), ActivationClip::Laplace);
        assert!(saturated.beyond.is_empty());
    }

    #[test]
    fn degenerate_rows_are_not_clipped() {
        let p: Precision = "int4x2".parse().unwrap();
        let rows: [&[f32]; 6] =
            [&[], &[0.0; 9], &[1e-30; 300], &[f32::NAN, 1.0], &[f32::INFINITY, 0.0], &[f32::MAX, -f32::MAX]];
        for x in rows {
            let (clipped, whole) =
                (Saturated::new(x, p, ActivationClip::Laplace), Saturated::new(x, p, ActivationClip::None));
            assert_eq!((clipped.codes, clipped.beyond), (whole.codes, vec![]), "{x:?}");
        }
        // The largest floats beside the smallest of a grid: the finer grid still has a scale.
        let mut x = vec![1e-25f32; 400];
        x[7] = f32::MAX;
        let saturated = Saturated::new(&x, p, ActivationClip::Laplace);
        assert_eq!(saturated.beyond.len(), 1);
        assert!(saturated.integers()[7] < 1 << (8 + ActivationClip::REACH_BITS));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_beyond_the_clip(
            which in 0..PRECISIONS.len(),
            x in prop::collection::vec(-1f32..1.0, 100..400),
            rare in 90usize..200,
            far in 1f32..2000.0,
            sizes in -60i32..60,
            positive: bool,
        ) {
            let p: Precision = PRECISIONS[which].parse().unwrap();
            let x: Vec<f32> = x.iter().map(|v| if positive { v.abs() } else { *v } * 2f32.powi(sizes)).collect();
            let x = tailed(&x, rare, far);
            let saturated = Saturated::new(&x, p, ActivationClip::Laplace);
            let Saturated { grid, codes, beyond } = &saturated;
            prop_assert!(beyond.len() <= ActivationClip::most(x.len()));
            prop_assert!(codes.iter().all(|u| (0..=grid.code_max).contains(u)));
            let limit = (i64::from(grid.code_max) + 1) << ActivationClip::REACH_BITS;
            let integers = saturated.integers();
            prop_assert!(integers.iter().all(|q| q.abs() < limit));
            for (&x, &q) in x.iter().zip(&integers) {
                let error = (f64::from(grid.scale) * q as f64 - f64::from(x)).abs();
                prop_assert!(error <= saturated.bound(), "{} of {} at {}", error, saturated.bound(), x);
            }
            // The whole integers are those of the oracle but where the product with the inverse rounds over a tie.
            let exact = quantise_symmetric(&x, grid.scale);
            prop_assert!(integers.iter().zip(&exact).all(|(&q, &e)| (q - i64::from(e)).abs() <= 1));
            prop_assert!(spread(&x) / f64::from(grid.scale) < limit as f64);
            let whole = Saturated::new(&x, p, ActivationClip::None);
            prop_assert!(beyond.is_empty() || grid.scale < whole.grid.scale);
        }
    }
}
