//! Ranges of values, in one piece and by lanes.

use crate::kernel::NR;

/// Smallest and largest value, and whether every value is finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Smallest value, at most 0.
    pub low: f32,
    /// Largest value, at least 0.
    pub high: f32,
    /// Something is infinite or NaN.
    odd: bool,
}

impl Range {
    /// The range of no values: zero alone.
    pub const EMPTY: Range = Range { low: 0.0, high: 0.0, odd: false };

    /// The range of two finite values.
    pub fn of(low: f32, high: f32) -> Range {
        let (low, high) = (if low < 0.0 { low } else { 0.0 }, if high > 0.0 { high } else { 0.0 });
        Range { low, high, odd: !(low.is_finite() && high.is_finite()) }
    }

    /// The range of both.
    pub fn union(self, other: Range) -> Range {
        Range {
            low: if other.low < self.low { other.low } else { self.low },
            high: if other.high > self.high { other.high } else { self.high },
            odd: self.odd || other.odd,
        }
    }

    /// Whether every value is finite.
    pub fn is_finite(self) -> bool {
        !self.odd && self.low.is_finite() && self.high.is_finite()
    }
}

/// A range in `N` lanes, of which any lane may take any value: [`Lanes::range`] is the same.
#[derive(Debug, Clone, Copy)]
pub struct Lanes<const N: usize = NR> {
    low: [f32; N],
    high: [f32; N],
    magnitude: [u32; N],
}

impl<const N: usize> Lanes<N> {
    /// The range of no values.
    pub const EMPTY: Self = Self { low: [0.0; N], high: [0.0; N], magnitude: [0; N] };

    /// Widens lane `lane` to include `y`.
    #[inline(always)]
    pub fn add(&mut self, lane: usize, y: f32) {
        self.low[lane] = if y < self.low[lane] { y } else { self.low[lane] };
        self.high[lane] = if y > self.high[lane] { y } else { self.high[lane] };
        self.magnitude[lane] = self.magnitude[lane].max(y.to_bits() & 0x7fff_ffff);
    }

    /// Smallest and largest values.
    #[inline(always)]
    pub fn bounds(&self) -> (&[f32; N], &[f32; N]) {
        (&self.low, &self.high)
    }

    /// Smallest and largest values.
    #[inline(always)]
    pub fn bounds_mut(&mut self) -> (&mut [f32; N], &mut [f32; N]) {
        (&mut self.low, &mut self.high)
    }

    /// Lanes `first .. first + L`.
    #[inline(always)]
    pub fn part<const L: usize>(&self, first: usize) -> Lanes<L> {
        Lanes { low: part(&self.low, first), high: part(&self.high, first), magnitude: part(&self.magnitude, first) }
    }

    /// Replaces lanes `first .. first + L`.
    #[inline(always)]
    pub fn set_part<const L: usize>(&mut self, first: usize, part: &Lanes<L>) {
        self.low[first..first + L].copy_from_slice(&part.low);
        self.high[first..first + L].copy_from_slice(&part.high);
        self.magnitude[first..first + L].copy_from_slice(&part.magnitude);
    }

    /// The range of all lanes.
    #[inline(always)]
    pub fn range(&self) -> Range {
        let Self { mut low, mut high, mut magnitude } = *self;
        // One half against the other, which takes vectors where lane after lane would not.
        let mut half = N.next_power_of_two() / 2;
        while half > 0 {
            for (c, other) in (half..N).take(half).enumerate() {
                low[c] = if low[other] < low[c] { low[other] } else { low[c] };
                high[c] = if high[other] > high[c] { high[other] } else { high[c] };
                magnitude[c] = magnitude[c].max(magnitude[other]);
            }
            half /= 2;
        }
        Range { low: low[0], high: high[0], odd: magnitude[0] >= 0x7f80_0000 }
    }
}

/// Values `first .. first + L`.
#[inline(always)]
pub(crate) fn part<T: Copy, const L: usize>(values: &[T], first: usize) -> [T; L] {
    *values[first..].first_chunk().expect("lanes of a panel")
}
