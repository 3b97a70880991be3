//! Correction of a layer's bias: the mean of what its weights' errors do to its output is taken out of it.
//!
//! ```text
//! d_o   = sum_k (W - W^)_ok E[x_k]                       per output channel o; no data: E[x] is of synthetic inputs
//! share = max(0, 1 - |d - d'|^2 / |d|^2)                 d' of synthetic inputs of another kind
//! bias_o <- bias_o + share * d_o
//! ```
//!
//! Synthetic inputs need not resemble what a model is used on. Where normalisation layers fix the means of activations, they do
//! so for any input, and two unlike kinds of inputs give one correction; where the means follow the input, the two disagree, and
//! little or nothing is corrected.

use crate::expand::layer::{ExpandedLayer, Settings, expand_layer};
use crate::{Error, Geometry, Layer, Weight};

/// Means of what enters a layer, by channel (convolutions) or place in a row (matrix products), for two kinds of inputs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Means {
    /// One mean a channel, by kind; a kind without means is unknown.
    pub kinds: [Vec<f64>; 2],
}

/// [`expand_layer`], and its bias corrected by the means of what enters it, if any are given.
///
/// # Errors
/// As [`expand_layer`].
pub fn expand_corrected(layer: &Layer, settings: &Settings, means: Option<&Means>) -> Result<ExpandedLayer, Error> {
    let mut expanded = expand_layer(layer, settings)?;
    if let (Weight::Float(floats), Some(means)) = (&layer.weight, means)
        && let Some(shift) = shift(floats, &expanded, means)?
    {
        let mut bias = expanded.bias.take().unwrap_or_else(|| vec![0.0; shift.len()]);
        for (bias, shift) in bias.iter_mut().zip(shift) {
            let corrected = (f64::from(*bias) + shift) as f32;
            *bias = if corrected.is_finite() { corrected } else { *bias };
        }
        expanded.bias = Some(bias);
    }
    Ok(expanded)
}

/// `share * d`, or `None` where nothing is to be corrected.
fn shift(floats: &[f32], expanded: &ExpandedLayer, means: &Means) -> Result<Option<Vec<f64>>, Error> {
    let inputs = Inputs::new(&expanded.geometry);
    let [first, other] = &means.kinds;
    if first.len() != inputs.count || other.len() != inputs.count {
        return Ok(None);
    }
    let series = &expanded.weight;
    let channels = series.channels();
    let mut shifts = vec![[0f64; 2]; channels.count];
    for (i, value) in series.values(&expanded.name, series.precision().order())?.enumerate() {
        let output = channels.of(i);
        let (error, input) = (f64::from(floats[i]) - value, inputs.of(i, output));
        shifts[output][0] += error * first[input];
        shifts[output][1] += error * other[input];
    }
    let power: f64 = shifts.iter().map(|[d, _]| d * d).sum();
    let apart: f64 = shifts.iter().map(|[d, other]| (d - other) * (d - other)).sum();
    let share = if power > 0.0 { (1.0 - apart / power).max(0.0) } else { 0.0 };
    let wanted = share > 0.0 && share.is_finite();
    Ok(wanted.then(|| shifts.into_iter().map(|[d, _]| share * d).collect()))
}

/// Which input channel a weight multiplies.
struct Inputs {
    /// Input channels.
    count: usize,
    /// Those of a group.
    of_group: usize,
    /// Output channels of a group.
    outputs: usize,
    /// Weights from one input channel to the next.
    stride: usize,
}

impl Inputs {
    fn new(geometry: &Geometry) -> Self {
        match geometry {
            Geometry::Conv(g) => Self {
                count: g.channels_in,
                of_group: g.channels_in / g.groups,
                outputs: g.channels_out / g.groups,
                stride: g.kernel[0] * g.kernel[1],
            },
            Geometry::MatMul(g) => {
                Self { count: g.k, of_group: g.k, outputs: g.n, stride: if g.transposed { 1 } else { g.n } }
            }
        }
    }

    /// Input channel of weight `i`, which belongs to `output`.
    fn of(&self, i: usize, output: usize) -> usize {
        output / self.outputs * self.of_group + i / self.stride % self.of_group
    }
}

#[cfg(test)]
mod tests;
