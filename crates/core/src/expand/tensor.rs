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

use crate::limbs::span;
use crate::series::{Channels, ZERO_SCALE, element_count};
use crate::{Error, Precision, Series, blocks::Blocks};

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

/// Expands a tensor into `precision.order()` integer terms (tensor expansion, theorem 1).
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
    let len = element_count(name, shape, axis)?;
    if len != x.len() {
        let shape = shape.to_vec();
        return Err(Error::Shape { tensor: name.to_owned(), len: x.len(), shape, axis: Some(axis) });
    }
    if let Some(index) = x.iter().position(|v| !v.is_finite()) {
        return Err(Error::NonFinite { tensor: name.to_owned(), index, value: x[index] });
    }
    let channels = Channels { count: shape[axis], inner: shape[axis + 1..].iter().product() };
    let mut largest = vec![0f32; channels.count];
    channels.for_each_run(x.len(), |channel, run| largest[channel] = largest[channel].max(magnitude(&x[run])));
    if granularity == Granularity::Tensor {
        largest = vec![largest.iter().copied().fold(0.0, f32::max)];
    }
    let mut scales: Vec<f32> = largest.iter().map(|&c| first_scale(c, precision, 0)).collect();
    let blocks = match granularity {
        Granularity::Group(size) => Blocks::fit(x, shape, axis, size, &scales, precision),
        Granularity::Tensor | Granularity::Channel => None,
    };
    if blocks.is_none() && x.len() / scales.len() <= SHORT_GROUP {
        let mut groups = vec![Vec::new(); scales.len()];
        channels.for_each_run(x.len(), |channel, run| {
            groups[if scales.len() == 1 { 0 } else { channel }].extend_from_slice(&x[run]);
        });
        for (scale, (group, &c)) in scales.iter_mut().zip(groups.iter().zip(&largest)) {
            *scale = best_fitting_scale(group, c, precision);
        }
    }

    let below = (precision.bits() * (precision.order() - 1)) as i32;
    let mut q = vec![0i32; x.len()];
    channels.for_each_run(x.len(), |channel, run| {
        let scale = scales[if scales.len() == 1 { 0 } else { channel }];
        let step = f64::from(scale) * 2f64.powi(-below);
        if step > 0.0 {
            for i in run {
                let finer = blocks.as_ref().map_or(0, |blocks| blocks.shift(i));
                q[i] = round_half_even(f64::from(x[i]) / step * f64::from(1u32 << finer)) as i32;
            }
        }
    });
    let (low, high) = span(&q);
    let top = i64::from(high).max(-i64::from(low));
    assert!(top <= precision.q_max(), "an integer of {top} is beyond {precision}");

    let mut series = Series { precision, shape: shape.to_vec(), axis, scales, blocks, q, means: Vec::new() };
    series.means = series.dropped_means();
    Ok(series)
}

/// Largest magnitude of finite values, whose bits without the sign are in the order of the magnitudes.
fn magnitude(x: &[f32]) -> f32 {
    f32::from_bits(x.iter().map(|x| x.abs().to_bits()).fold(0, u32::max))
}

/// The nearest integer, the even one of two, of a number below `2^51` in magnitude: floats of `2^52 ..= 2^53` are integers,
/// so that adding one and half again rounds.
fn round_half_even(x: f64) -> f64 {
    const INTEGERS: f64 = 1.5 * (1u64 << 52) as f64;
    (x + INTEGERS) - INTEGERS
}

/// Among `scale_1` from the smallest to a tenth more, the one whose grid lies nearest to a group of few values, by the sum of
/// squared errors; of equal ones the smallest.
fn best_fitting_scale(group: &[f32], c: f32, precision: Precision) -> f32 {
    let last = 2f64.powi(-((precision.bits() * (precision.order() - 1)) as i32));
    let misfit = |scale: f32| -> f64 {
        let step = f64::from(scale) * last;
        let error = |&x: &f32| f64::from(x) - round_half_even(f64::from(x) / step) * step;
        group.iter().map(error).map(|e| e * e).sum()
    };
    let smallest = first_scale(c, precision, 0);
    if smallest == 0.0 {
        return smallest;
    }
    let mut best = (misfit(smallest), smallest);
    for candidate in 1..CANDIDATES {
        let scale = first_scale(c, precision, candidate);
        let misfit = misfit(scale);
        if misfit < best.0 {
            best = (misfit, scale);
        }
    }
    best.1
}

/// Smallest representable `scale_1` for values up to `c`, or 0 where the group's last terms would underflow; `candidate` of
/// [`CANDIDATES`] widens it by up to a tenth. It is below `c`, so it never overflows.
fn first_scale(c: f32, precision: Precision, candidate: u32) -> f32 {
    let (radix, total) = (f64::from(1u32 << precision.bits()), precision.total_bits());
    let smallest = f64::from(c) * (radix - 1.0) / ((radix / 2.0 - 1.0) * radix);
    let wanted = smallest * (1.0 + 0.1 * f64::from(candidate) / f64::from(CANDIDATES));
    if wanted < ZERO_SCALE {
        return 0.0;
    }
    round_up(wanted, if total <= 16 { 24 - total } else { 24 })
}

/// The smallest float with at most `bits` significant bits that is not below `x > 0`.
fn round_up(x: f64, bits: u32) -> f32 {
    let low = 1u64 << (53 - bits);
    f64::from_bits((x.to_bits() + (low - 1)) & !(low - 1)) as f32
}

#[cfg(test)]
mod tests;
