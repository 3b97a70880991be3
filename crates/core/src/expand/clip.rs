//! Where to clip: a scale smaller than the largest value asks for; what lies beyond becomes the saturation part.
//!
//! ```text
//! laplace   c = alpha(b) mean|x - mean(x)|           alpha e^alpha = 3 4^b: least error for a Laplace distribution
//! mse       c = the one of 29 shares of the largest value with the least sum of squared errors, clipped values clipped
//! c >= max Qmax / room                               the whole integers then fit the limbs of the terms
//! c <- c f, one f >= 1 for the tensor                so that no more than one value in a hundred lies beyond
//! ```
//!
//! A channel stays unclipped where its error would not fall.

use super::tensor::{Step, round_half_even};
use std::fmt;

use crate::saturation::room;
use crate::{Granularity, Precision};

/// Rule by which weights are clipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Clip {
    /// No value lies beyond the terms.
    #[default]
    None,
    /// As if the values of a channel were distributed after Laplace.
    Laplace,
    /// Least squared error of the terms alone.
    Mse,
}

impl Clip {
    /// The rule of a name; `None` for a name of none.
    pub fn named(name: &str) -> Option<Self> {
        [Self::None, Self::Laplace, Self::Mse].into_iter().find(|clip| clip.name() == name)
    }

    /// Its name: `none`, `laplace` or `mse`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Laplace => "laplace",
            Self::Mse => "mse",
        }
    }

    /// Why no tensor of this precision is clipped, if none is.
    pub fn obstacle(self, precision: Precision, granularity: Granularity) -> Option<&'static str> {
        if self == Self::None {
            None
        } else if matches!(granularity, Granularity::Group(_)) {
            Some("scales of groups are not clipped")
        } else if room(precision) == precision.q_max() {
            Some("its terms fill the bytes that hold them, so that larger integers would cost another product")
        } else {
            None
        }
    }
}

impl fmt::Display for Clip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One value in so many may lie beyond.
pub(super) const SPARSENESS: usize = 100;
/// Shares of the largest value that are tried: `FIRST / SHARES` to 1.
const SHARES: u32 = 40;
const FIRST: u32 = 12;
/// `alpha(b)` of ACIQ for 2 to 16 bits.
const ALPHA: [f64; 15] =
    [2.83, 3.9, 5.03, 6.2, 7.41, 8.65, 9.9, 11.16, 12.44, 13.73, 15.02, 16.33, 17.64, 18.95, 20.27];

/// `alpha(b)` of a precision; that of 16 bits for wider ones.
pub(super) fn alpha(precision: Precision) -> f64 {
    ALPHA[(precision.total_bits() as usize - 2).min(ALPHA.len() - 1)]
}

/// Largest values of groups that their terms are to hold, from their values and the largest of those.
pub(super) fn clipped(groups: &[Vec<f32>], largest: &[f32], precision: Precision, clip: Clip) -> Vec<f32> {
    let (radix, fits) = (f64::from(1u32 << precision.bits()), precision.q_max() as f64);
    // A clip lies this far beyond the step of `Qmax`.
    let beyond = (radix / 2.0 - 1.0) / (radix - 1.0);
    let least = (fits + beyond) / (room(precision) as f64 + beyond);
    let wanted = |(group, &max): (&Vec<f32>, &f32)| {
        let share = match clip {
            Clip::None => 1.0,
            Clip::Laplace => laplace(group, max, precision),
            Clip::Mse => fitting(group, max, precision, least),
        };
        f64::from(max) * share.clamp(least, 1.0)
    };
    let mut c: Vec<f64> = groups.iter().zip(largest).map(wanted).collect();
    let factor = sparing(groups, &c);
    for (c, (group, &max)) in c.iter_mut().zip(groups.iter().zip(largest)) {
        let max = f64::from(max);
        *c = (*c * factor).min(max);
        if *c < max && error(group, *c, max, precision) >= error(group, max, max, precision) {
            *c = max;
        }
    }
    c.iter().map(|&c| c as f32).collect()
}

/// The least factor of at least 1 on all clips that leaves no more than one value in [`SPARSENESS`] beyond them.
fn sparing(groups: &[Vec<f32>], c: &[f64]) -> f64 {
    let ratios = |(group, &c): (&Vec<f32>, &f64)| {
        let beyond = group.iter().map(move |x| f64::from(x.abs())).filter(move |&x| x > c);
        beyond.map(|x| x / c).filter(|ratio| ratio.is_finite()).collect::<Vec<_>>()
    };
    let mut beyond: Vec<f64> = groups.iter().zip(c).flat_map(ratios).collect();
    let most = groups.iter().map(Vec::len).sum::<usize>() / SPARSENESS;
    if beyond.len() <= most {
        return 1.0;
    }
    beyond.sort_by(|a, b| b.total_cmp(a));
    beyond[most]
}

/// Sum of squared errors with the steps of a clip `c` and nothing lost beyond it.
fn error(group: &[f32], c: f64, max: f64, precision: Precision) -> f64 {
    let step = Step::of(c as f32, max as f32, precision).last(precision);
    let error = |&x: &f32| f64::from(x) - round_half_even(f64::from(x) / step) * step;
    if step == 0.0 { f64::INFINITY } else { group.iter().map(error).map(|e| e * e).sum() }
}

/// Share of the largest value that clips a Laplace distribution best. Means are taken over integers: a sum of them has no order.
fn laplace(group: &[f32], max: f32, precision: Precision) -> f64 {
    const GRID: f64 = 32767.0;
    if max == 0.0 {
        return 1.0;
    }
    let on_grid = |&x: &f32| round_half_even(f64::from(x) / f64::from(max) * GRID) as i128;
    let count = group.len() as i128;
    let sum: i128 = group.iter().map(on_grid).sum();
    let deviation: i128 = group.iter().map(|x| (count * on_grid(x) - sum).abs()).sum();
    alpha(precision) * (deviation as f64 / (count * count) as f64) / GRID
}

/// Share of the largest value, at least about `least`, with the least sum of squared errors if what lies beyond is lost; of
/// equal ones the largest.
fn fitting(group: &[f32], max: f32, precision: Precision, least: f64) -> f64 {
    let q_max = precision.q_max() as f64;
    let last = precision.last_step();
    let misfit = |share: f64| -> f64 {
        let step = Step::wanted(f64::from(max) * share, precision) * last;
        let inv = 1.0 / step;
        let error = |&x: &f32| {
            let x = f64::from(x);
            x - round_half_even(x * inv).clamp(-q_max, q_max) * step
        };
        group.iter().map(error).map(|e| e * e).sum()
    };
    let mut best = (f64::INFINITY, 1.0);
    if max == 0.0 {
        return 1.0;
    }
    for k in (FIRST..=SHARES).rev() {
        let share = f64::from(k) / f64::from(SHARES);
        if share < least && k < SHARES {
            break;
        }
        let misfit = misfit(share);
        if misfit < best.0 {
            best = (misfit, share);
        }
    }
    best.1
}

#[cfg(test)]
mod tests;
