//! Asymmetric weights, theorem 1 in full: `M ~ bias M_nsy + sum_i scale_i M_i` with `M_nsy` all ones and a bias a channel.
//!
//! ```text
//! c      = (max - min) / 2, at least max|M| / 2^far       half the range in the place of the largest magnitude
//! bias   = offset scale_n, offset an integer              so that M is integers on one grid and all sums stay integer
//! Q      = rne(M / scale_n) - offset                      |Q| <= Qmax, or what a saturation part leaves room for
//! W A    = scale_wn scale_an (Q A + offset M_nsy A)       M_nsy A is the sum of a row or window: rank one, no product
//! ```
//!
//! A channel stays symmetric where its squared error would not fall.

use super::clip::{Clip, SPARSENESS};
use super::tensor::{Granularity, Method, Step, first_scales, round_half_even};
use crate::Precision;
use crate::saturation::room;
use crate::series::Channels;

/// Bits that an integer with its offset may have beyond those of the terms; together they are at most [`MOST_BITS`].
const FAR: u32 = 4;
const MOST_BITS: u32 = 16;

/// Scales and offsets of channels or of the tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grids {
    /// `scale_1`.
    pub scales: Vec<f32>,
    /// `bias / scale_n`; empty where all are 0.
    pub offsets: Vec<i32>,
}

/// The grids of a tensor by a method, of finite values.
pub(super) fn grids(x: &[f32], channels: Channels, method: &Method) -> Grids {
    let symmetric = first_scales(x, None, channels, method);
    // A block's scale follows its channel's range about zero.
    if !method.asymmetric || matches!(method.granularity, Granularity::Group(_)) {
        return Grids { scales: symmetric, offsets: Vec::new() };
    }
    let precision = method.precision;
    let middles: Vec<f64> = ranges(x, channels, symmetric.len()).into_iter().map(|r| middle(r, precision)).collect();
    let place = |channel: usize| if middles.len() == 1 { 0 } else { channel };
    let mut groups = vec![Vec::new(); middles.len()];
    channels.for_each_run(x.len(), |channel, run| groups[place(channel)].extend_from_slice(&x[run]));
    let about_zero = groups.iter().zip(symmetric).map(|(group, scale)| Candidate::new(group, scale, 0, precision));
    let mut best: Vec<Candidate> = about_zero.collect();
    // What lies beyond the terms stays within the share that a clip leaves there.
    let mut beyond: usize = best.iter().map(|candidate| candidate.beyond).sum();
    let most = (x.len() / SPARSENESS).max(beyond);
    let mut rest = vec![0f32; x.len()];
    // The terms hold values up to a part of a step beyond `Qmax`, which both ends of a range need not find.
    let part = 1.0 / (Step::wanted(1.0, precision) * precision.last_step() * precision.q_max() as f64);
    for wider in [1.0, part] {
        channels.for_each_run(x.len(), |channel, run| {
            run.for_each(|i| rest[i] = ((f64::from(x[i]) - middles[place(channel)]) * wider) as f32);
        });
        for (at, scale) in first_scales(x, Some(&rest), channels, method).into_iter().enumerate() {
            let offset = offset(&groups[at], middles[at], scale, method).filter(|&offset| offset != 0);
            let Some(offset) = offset else { continue };
            let made = Candidate::new(&groups[at], scale, offset, precision);
            let then = beyond - best[at].beyond + made.beyond;
            if made.misfit < best[at].misfit && then <= most {
                (beyond, best[at]) = (then, made);
            }
        }
    }
    let (scales, offsets): (_, Vec<i32>) = best.iter().map(|best| (best.scale, best.offset)).unzip();
    let offsets = if offsets.iter().all(|&offset| offset == 0) { Vec::new() } else { offsets };
    Grids { scales, offsets }
}

/// A grid of a group.
struct Candidate {
    scale: f32,
    offset: i32,
    /// Sum of squared errors; with no scale, that of zeros.
    misfit: f64,
    /// Values beyond the terms.
    beyond: usize,
}

impl Candidate {
    fn new(group: &[f32], scale: f32, offset: i32, precision: Precision) -> Self {
        let step = f64::from(scale) * precision.last_step();
        let (mut misfit, mut beyond) = (0.0, 0);
        for x in group.iter().map(|&x| f64::from(x)) {
            let integer = if step > 0.0 { round_half_even(x / step) } else { 0.0 };
            misfit += (x - integer * step) * (x - integer * step);
            beyond += usize::from((integer as i64 - i64::from(offset)).abs() > precision.q_max());
        }
        Self { scale, offset, misfit, beyond }
    }
}

/// Smallest and largest value of every channel, or of all of them.
fn ranges(x: &[f32], channels: Channels, count: usize) -> Vec<(f64, f64)> {
    let mut ranges = vec![(f64::INFINITY, f64::NEG_INFINITY); count];
    channels.for_each_run(x.len(), |channel, run| {
        let (low, high) = &mut ranges[if count == 1 { 0 } else { channel }];
        x[run].iter().for_each(|&v| (*low, *high) = (low.min(f64::from(v)), high.max(f64::from(v))));
    });
    ranges
}

/// The middle of a range, or the value nearest zero whose distance from both ends is not too small for the offset.
fn middle((low, high): (f64, f64), precision: Precision) -> f64 {
    let far = FAR.min(MOST_BITS.saturating_sub(precision.total_bits()));
    let half = ((high - low) / 2.0).max(high.max(-low) / f64::from(1u32 << far));
    (high - half).max(0.0) + (low + half).min(0.0)
}

/// The offset nearest to the middle with which the integers of a group fit their bits, if there is one.
fn offset(group: &[f32], middle: f64, scale: f32, method: &Method) -> Option<i32> {
    let step = f64::from(scale) * method.precision.last_step();
    if step == 0.0 {
        return None;
    }
    let most = if method.clip == Clip::None { method.precision.q_max() } else { room(method.precision) };
    let integers = group.iter().map(|&x| round_half_even(f64::from(x) / step) as i64);
    let (low, high) = integers.fold((i64::MAX, i64::MIN), |(low, high), q| (low.min(q), high.max(q)));
    let (from, to) = (high - most, low + most);
    (from <= to).then(|| (round_half_even(middle / step) as i64).clamp(from, to) as i32)
}

#[cfg(test)]
mod tests;
