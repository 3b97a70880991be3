//! Tensor expansion (theorem 1): a float tensor to its series.
//!
//! ```text
//! scale_1 >= c (2^X - 1) / ((2^(X-1) - 1) 2^X)         c = largest |value| of the group, rounded up to a short float
//! scale_n  = scale_1 2^(-X (n-1))
//! Q        = round_half_even(M / scale_n)              |Q| <= (2^(X-1) - 1)(2^b - 1)/(2^X - 1)
//! M_1 .. M_n = balanced digits of Q in base 2^X        |M - sum_i scale_i M_i| <= scale_n / 2
//! ```
//!
//! This is the paper's recursion (residual, rescale, requantise) and its closed form in one, with the same sum. Three
//! departures, each for a reason:
//!
//! 1. Balanced digits instead of rounded residuals: a residual digit reaches `+2^(X-1)`, which `INT-X` does not hold.
//! 2. `scale_1` is rounded up to `24 - b` significant bits while `b <= 16`: then `Q * scale_n` and every partial sum of
//!    terms are exact in f32, in any order and in any tool. Rounded to nearest, the top digit would overflow.
//! 3. Division in f64: in f32 the integers differ from 18 bits on, and from 21 bits on the top digit overflows.
//!
//! The smallest scale is not the best one for a group of few values: a grid up to a tenth wider may lie nearer to all of
//! them. A short group, such as a depthwise filter of nine weights, takes the scale with the least sum of squared errors.
//!
//! Asymmetric weights have a bias beside the terms ([`crate::Series::offsets`]). With a [`Clip`] `c` is below the largest value, and
//! what lies beyond is the saturation part ([`crate::Series::saturation`]);
//! with [`Rounding::Sum`] values next to a tie go to their other neighbour where that cancels errors.

use super::centre::{Grids, grids};
use super::clip::{Clip, clipped};
use super::sum::preserve_sum;
use crate::limbs::span;
use crate::saturation::room;
use crate::series::{Channels, ZERO_SCALE, element_count};
use crate::{Error, Precision, Rounding, Series, blocks::Blocks};

/// A group of at most this many values, such as a depthwise filter, takes the scale whose grid fits it best.
const SHORT_GROUP: usize = 32;
/// Scales tried for a short group.
const CANDIDATES: u32 = 128;

/// Values that share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Granularity {
    /// The whole tensor.
    Tensor,
    /// One output channel.
    #[default]
    Channel,
    /// This many consecutive inputs of an output channel. A group's scale is its channel's times a power of two, so that sums
    /// over the groups stay integer; they widen the integers of a product ([`Series::width`]).
    Group(usize),
}

/// How to expand a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// Bits per term and number of terms.
    pub precision: Precision,
    /// Which values share a scale.
    pub granularity: Granularity,
    /// How values become integers.
    pub rounding: Rounding,
    /// What the terms do not hold.
    pub clip: Clip,
    /// Whether a bias stands beside them, so that they need to hold half the range rather than the largest magnitude.
    pub asymmetric: bool,
}

/// Expands a tensor into `precision.order()` integer terms (tensor expansion, theorem 1), rounded to the nearest and unclipped.
///
/// `x[i] = sum_t scale[t] * term[t][i] + error`, `|error| <= scale[n] / 2`.
///
/// * `x`: f32, row-major of `shape`, finite; `axis` is the axis of its output channels.
///
/// # Errors
/// [`Error::NonFinite`] with the first index, [`Error::Shape`] where `x` does not fill `shape`; `name` names the tensor.
pub fn expand_tensor(
    name: &str,
    x: &[f32],
    shape: &[usize],
    axis: usize,
    precision: Precision,
    granularity: Granularity,
) -> Result<Series, Error> {
    let method = Method { precision, granularity, rounding: Rounding::Nearest, clip: Clip::None, asymmetric: false };
    expand_tensor_by(name, x, shape, axis, &method)
}

/// [`expand_tensor`] by any method: `x[i] = scale[1] * saturation[i] + sum_t scale[t] * term[t][i] + error`,
/// `|error| <= scale[n] / 2`, or `scale[n]` with [`Rounding::Sum`].
///
/// # Errors
/// As [`expand_tensor`].
pub fn expand_tensor_by(name: &str, x: &[f32], shape: &[usize], axis: usize, method: &Method) -> Result<Series, Error> {
    let Method { precision, granularity, rounding, .. } = *method;
    let len = element_count(name, shape, axis)?;
    if len != x.len() {
        let shape = shape.to_vec();
        return Err(Error::Shape { tensor: name.to_owned(), len: x.len(), shape, axis: Some(axis) });
    }
    if let Some(index) = x.iter().position(|v| !v.is_finite()) {
        return Err(Error::NonFinite { tensor: name.to_owned(), index, value: x[index] });
    }
    let channels = Channels { count: shape[axis], inner: shape[axis + 1..].iter().product() };
    let clip = if method.clip.obstacle(precision, granularity).is_some() { Clip::None } else { method.clip };
    let Grids { scales, offsets } = grids(x, channels, &Method { clip, ..*method });
    let offset = |channel: usize| {
        if offsets.len() < 2 { offsets.first() } else { offsets.get(channel) }.map_or(0.0, |&m| f64::from(m))
    };
    let blocks = match granularity {
        Granularity::Group(size) => Blocks::fit(x, shape, axis, size, &scales, precision),
        Granularity::Tensor | Granularity::Channel => None,
    };

    let step = |channel: usize| f64::from(scales[if scales.len() == 1 { 0 } else { channel }]) * precision.last_step();
    let in_steps = |i: usize, step: f64| {
        let finer = blocks.as_ref().map_or(0, |blocks| blocks.shift(i));
        f64::from(x[i]) / step * f64::from(1u32 << finer)
    };
    let mut q = vec![0i32; x.len()];
    channels.for_each_run(x.len(), |channel, run| {
        let (step, offset) = (step(channel), offset(channel));
        if step > 0.0 {
            run.for_each(|i| q[i] = (round_half_even(in_steps(i, step)) - offset) as i32);
        }
    });
    if rounding == Rounding::Sum {
        let kernel = if axis == 0 { shape.iter().skip(2).product() } else { 1 };
        for channel in 0..channels.count {
            let (step, offset) = (step(channel), offset(channel));
            for (group, kernel) in groups_of_sums(channels, channel, x.len(), kernel, blocks.as_ref()) {
                if step > 0.0 {
                    let values: Vec<f64> = group.iter().map(|&i| in_steps(i, step) - offset).collect();
                    let mut integers: Vec<i32> = group.iter().map(|&i| q[i]).collect();
                    preserve_sum(&values, &mut integers, kernel, precision.q_max());
                    group.iter().zip(integers).for_each(|(&i, integer)| q[i] = integer);
                }
            }
        }
    }
    let (low, high) = span(&q);
    let top = i64::from(high).max(-i64::from(low));
    let most = if clip == Clip::None { precision.q_max() } else { room(precision) };
    assert!(top <= most, "an integer of {top} is beyond {precision}");

    let shape = shape.to_vec();
    let mut series = Series { precision, shape, axis, scales, offsets, blocks, rounding, q, means: Vec::new() };
    series.means = series.dropped_means();
    Ok(series)
}

/// `scale_1` of every channel, or of the tensor; `rest` is what their terms are to hold, `x` less the biases where it has any.
pub(super) fn first_scales(x: &[f32], rest: Option<&[f32]>, channels: Channels, method: &Method) -> Vec<f32> {
    let Method { precision, granularity, clip, .. } = *method;
    let largest = |x: &[f32]| {
        let mut largest = vec![0f32; channels.count];
        channels.for_each_run(x.len(), |channel, run| largest[channel] = largest[channel].max(magnitude(&x[run])));
        let all = || vec![largest.iter().copied().fold(0.0, f32::max)];
        if granularity == Granularity::Tensor { all() } else { largest }
    };
    let reach = largest(x);
    let largest = rest.map_or_else(|| reach.clone(), largest);
    let is_short = !matches!(granularity, Granularity::Group(_)) && x.len() / largest.len() <= SHORT_GROUP;
    let steps = |held: &[f32]| -> Vec<Step> {
        held.iter().zip(&reach).map(|(&c, &reach)| Step::of(c, reach, precision)).collect()
    };
    if !is_short && clip == Clip::None {
        return steps(&largest).iter().map(|step| step.scale).collect();
    }
    let groups = |x: &[f32]| {
        let mut groups = vec![Vec::new(); largest.len()];
        channels.for_each_run(x.len(), |channel, run| {
            groups[if largest.len() == 1 { 0 } else { channel }].extend_from_slice(&x[run]);
        });
        groups
    };
    let held = if clip == Clip::None {
        largest.clone()
    } else {
        clipped(&groups(rest.unwrap_or(x)), &largest, precision, clip)
    };
    if !is_short {
        return steps(&held).iter().map(|step| step.scale).collect();
    }
    groups(x).iter().zip(steps(&held)).map(|(group, step)| best_fitting_scale(group, step, precision)).collect()
}

/// The indices of a channel whose errors are to cancel, and how many consecutive ones are a kernel: all of them, or a block's.
fn groups_of_sums(
    channels: Channels,
    channel: usize,
    len: usize,
    kernel: usize,
    blocks: Option<&Blocks>,
) -> Vec<(Vec<usize>, usize)> {
    let Channels { count, inner } = channels;
    let outer = (0..len).step_by(count * inner).map(|outer| outer + channel * inner);
    let mut indices: Vec<usize> = outer.flat_map(|first| first..first + inner).collect();
    let Some(blocks) = blocks else { return vec![(indices, kernel)] };
    indices.sort_by_key(|&i| blocks.of(i));
    indices.chunk_by(|&a, &b| blocks.of(a) == blocks.of(b)).map(|block| (block.to_vec(), 1)).collect()
}

/// Largest magnitude of finite values, whose bits without the sign are in the order of the magnitudes.
fn magnitude(x: &[f32]) -> f32 {
    f32::from_bits(x.iter().map(|x| x.abs().to_bits()).fold(0, u32::max))
}

/// The nearest integer, the even one of two, of a number below `2^51` in magnitude: floats of `2^52 ..= 2^53` are integers,
/// so that adding one and half again rounds.
pub(super) fn round_half_even(x: f64) -> f64 {
    const INTEGERS: f64 = 1.5 * (1u64 << 52) as f64;
    (x + INTEGERS) - INTEGERS
}

/// A `scale_1` for values up to a clip, and what it was made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    c: f32,
    /// Bits of the integers: those of the terms, or more where values lie beyond the clip.
    width: u32,
    /// 0 where the group's last terms would underflow.
    pub scale: f32,
}

impl Step {
    /// The smallest for values up to `c`, in a group of values up to `max`.
    pub fn of(c: f32, max: f32, precision: Precision) -> Self {
        let last = precision.last_step();
        let step = Self::wanted(f64::from(c), precision) * last;
        let width =
            if c < max && step > 0.0 { 65 - ((f64::from(max) / step).ceil() as u64).leading_zeros() } else { 0 };
        let width = width.max(precision.total_bits());
        Self { c, width, scale: scale_within(c, precision, width, 0) }
    }

    /// The exact `scale_1` for values up to `c`, before it is rounded up.
    pub fn wanted(c: f64, precision: Precision) -> f64 {
        let radix = f64::from(1u32 << precision.bits());
        c * (radix - 1.0) / ((radix / 2.0 - 1.0) * radix)
    }

    /// `scale_n`.
    pub fn last(self, precision: Precision) -> f64 {
        f64::from(self.scale) * precision.last_step()
    }
}

/// Among `scale_1` from the smallest to a tenth more, the one whose grid lies nearest to a group of few values, by the sum of
/// squared errors; of equal ones the smallest.
fn best_fitting_scale(group: &[f32], smallest: Step, precision: Precision) -> f32 {
    let last = precision.last_step();
    let misfit = |scale: f32| -> f64 {
        let step = f64::from(scale) * last;
        let error = |&x: &f32| f64::from(x) - round_half_even(f64::from(x) / step) * step;
        group.iter().map(error).map(|e| e * e).sum()
    };
    if smallest.scale == 0.0 {
        return 0.0;
    }
    let mut best = (misfit(smallest.scale), smallest.scale);
    for candidate in 1..CANDIDATES {
        let scale = scale_within(smallest.c, precision, smallest.width, candidate);
        let misfit = misfit(scale);
        if misfit < best.0 {
            best = (misfit, scale);
        }
    }
    best.1
}

/// Smallest representable `scale_1` for values up to `c`, or 0 where the group's last terms would underflow; `candidate` of
/// [`CANDIDATES`] widens it by up to a tenth. It is below `c`, so it never overflows. `width` is the bits of the integers.
fn scale_within(c: f32, precision: Precision, width: u32, candidate: u32) -> f32 {
    let smallest = Step::wanted(f64::from(c), precision);
    let wanted = smallest * (1.0 + 0.1 * f64::from(candidate) / f64::from(CANDIDATES));
    if wanted < ZERO_SCALE {
        return 0.0;
    }
    round_up(wanted, if precision.total_bits() <= 16 { 24 - width } else { 24 })
}

/// The smallest float with at most `bits` significant bits that is not below `x > 0`.
fn round_up(x: f64, bits: u32) -> f32 {
    let low = 1u64 << (53 - bits);
    f64::from_bits((x.to_bits() + (low - 1)) & !(low - 1)) as f32
}

#[cfg(test)]
mod tests;
