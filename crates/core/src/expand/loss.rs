//! Members that are lost: what stands for them, and the bounds that then hold.
//!
//! A lost product `W_i A_J` is replaced by the product of the mean of `W_i` with `A_J`: an integer in units of `scale_n 2^-X`
//! for every output channel, as a prefix has one for the terms it drops. Where the lost members are whole last terms, the rest is
//! that prefix, bit for bit.
//!
//! ```text
//! mean_J   = rne(2^X / K * sum over lost i of 2^(X(n-i)) sum_k W_i[k])
//! |M - kept - mean|      <= last + sum over lost i of scale_i 2^(X-1) + |mean| unit              where whole terms are lost,
//!                           and with the first |M_sa| scale_1 + |bias|
//! |y - y of all members| <= step_a unit * sum_J (sum_i 2^(X(n-i)) sum_k |W_i[k]| 2^X + K |mean_J|) max |A_J|
//! ```

use crate::limbs::divide_half_even;
use crate::{ActivationClip, BasisCodes, Precision, Series};

/// What the bounds of a layer need once its weights are gone.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerFacts {
    /// Of the weights.
    pub precision: Precision,
    /// `scale_n`, one an output channel; with blocks, of the coarsest.
    pub steps: Vec<f64>,
    /// Value of one integer, one an output channel: `steps` without blocks.
    pub units: Vec<f64>,
    /// Error of the last term in steps.
    pub last: f64,
    /// Largest magnitude of the saturation part, which is lost with the first term.
    pub saturation: f64,
    /// Bias in steps, one an output channel, lost with it too; empty for a symmetric series.
    pub offsets: Vec<i64>,
    /// Weights that one output sums over.
    pub depth: usize,
}

/// Lost members with one range of activation terms.
#[derive(Debug, Clone, PartialEq)]
pub struct Lost {
    /// Which bits of the codes.
    pub codes: BasisCodes,
    /// Their weights' sum, one an output channel, in the unit of the whole series.
    pub sums: Vec<i64>,
    /// The sum of their weights' magnitudes, alike.
    pub magnitudes: Vec<i64>,
}

impl LayerFacts {
    /// Of a layer that sums over `depth` weights.
    pub fn of(series: &Series, depth: usize) -> Self {
        let (precision, count) = (series.precision(), series.channels().count);
        let down = |bits: u32| 2f64.powi(-(bits as i32));
        let scale = |channel: usize| f64::from(series.scale(channel)) * precision.last_step();
        let steps: Vec<f64> = (0..count).map(scale).collect();
        let units = steps.iter().map(|step| step * down(series.finest())).collect();
        let saturation = series.saturation().iter().map(|(_, s)| f64::from(s.abs())).fold(0.0, f64::max);
        let (last, offsets) = (series.rounding().steps(), series.channel_offsets());
        Self { precision, steps, units, last, saturation, offsets, depth }
    }

    /// The mean that stands for lost members, one an output channel, in units of `2^-X` of an integer.
    pub fn mean(&self, lost: &Lost) -> Vec<i64> {
        let mean =
            |&sum: &i64| divide_half_even(i128::from(sum) << self.precision.bits(), self.depth.max(1) as i128) as i64;
        lost.sums.iter().map(mean).collect()
    }

    /// Largest error of a weight where the weight terms of `terms` are lost whole, over all channels.
    pub fn weight_bound(&self, terms: &[u32], mean: &[i64]) -> f64 {
        let (bits, order) = (self.precision.bits() as i32, self.precision.order() as i32);
        let has_first = terms.contains(&1);
        let dropped: f64 = terms.iter().map(|&term| 2f64.powi(bits * (order - term as i32) + bits - 1)).sum();
        let saturation = if has_first { self.saturation * 2f64.powi(bits * (order - 1)) } else { 0.0 };
        let bound = |(channel, &mean): (usize, &i64)| {
            let mean = (mean as f64).abs() * self.units[channel] * 2f64.powi(-bits);
            let bias = self.offsets.get(channel).filter(|_| has_first).map_or(0.0, |&offset| offset as f64);
            (self.steps[channel] * (dropped + saturation + bias.abs() + self.last) + mean) * (1.0 + 1e-6)
        };
        mean.iter().enumerate().map(bound).fold(0.0, f64::max)
    }

    /// What no output differs by from that of all members, in steps of the activations, over all channels.
    pub fn output_bound(&self, lost: &[Lost], activations: Precision, clip: ActivationClip) -> f64 {
        let radix = 2f64.powi(self.precision.bits() as i32);
        let channel = |channel: usize| {
            let part = |lost: &Lost| {
                let mean = self.mean(lost)[channel].unsigned_abs() as f64 / radix;
                (lost.magnitudes[channel] as f64 + self.depth as f64 * mean)
                    * lost.codes.largest(activations, clip) as f64
            };
            self.units[channel] * lost.iter().map(part).sum::<f64>()
        };
        // The total is rounded to a float, its products with the two scales too.
        (0..self.units.len()).map(channel).fold(0.0, f64::max) * (1.0 + 1e-5)
    }
}

impl BasisCodes {
    /// What no activation of these terms exceeds, in steps; of the owner's with what lies beyond the codes where they are clipped.
    pub fn largest(self, activations: Precision, clip: ActivationClip) -> i64 {
        let most = i64::from(self.mask) & activations.code_max();
        let zero = if self.owner { activations.code_max() } else { 0 };
        (most - self.offset).abs().max((self.offset + zero).abs())
            + if self.owner { clip.largest_beyond(activations) } else { 0 }
    }
}
