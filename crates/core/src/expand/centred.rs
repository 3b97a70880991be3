//! Theorem 1 in full: `M ~ bias M_nsy + sum_i scale_i M_i`, with `M_nsy` all ones and a bias per group of values.
//!
//! ```text
//! bias  = (min + max) / 2 of the group, rounded to f32         0 for a symmetric expansion
//! terms = those of fl(M - bias)                                half the range, so a grid up to twice as fine
//! |M - bias - sum_(i <= t) scale_i M_i|  <=  bound of the series + largest error of fl(M - bias)
//! ```

use super::tensor::{Granularity, Method, expand_tensor_by};
use crate::series::{Channels, element_count};
use crate::{Error, Series};

/// A tensor expanded around a bias.
#[derive(Debug, Clone, PartialEq)]
pub struct Centred {
    /// The bias of every channel, or of the tensor where it has one scale.
    bias: Vec<f32>,
    /// By channel, the largest error that subtracting the bias made.
    slack: Vec<f64>,
    series: Series,
}

/// Expands a tensor by a method around zero or, `asymmetric`, around the middle of the range of every channel or of the tensor.
///
/// * `x`: f32, row-major of `shape`, finite; `axis` is the axis of its channels.
///
/// # Errors
/// As [`expand_tensor_by`].
pub fn expand_centred(
    name: &str,
    x: &[f32],
    shape: &[usize],
    axis: usize,
    method: &Method,
    asymmetric: bool,
) -> Result<Centred, Error> {
    if !asymmetric {
        let series = expand_tensor_by(name, x, shape, axis, method)?;
        return Ok(Centred { bias: vec![0.0], slack: vec![0.0], series });
    }
    let len = element_count(name, shape, axis)?;
    if len != x.len() {
        return Err(Error::Shape { tensor: name.to_owned(), len: x.len(), shape: shape.to_vec(), axis: Some(axis) });
    }
    let channels = Channels { count: shape[axis], inner: shape[axis + 1..].iter().product() };
    let bias = middles(x, channels, method.granularity == Granularity::Tensor);
    let of = |channel: usize| bias[if bias.len() == 1 { 0 } else { channel }];
    let mut slack = vec![0f64; channels.count];
    let mut rest = vec![0f32; len];
    channels.for_each_run(len, |channel, run| {
        for i in run {
            let exact = f64::from(x[i]) - f64::from(of(channel));
            rest[i] = exact as f32;
            // The subtraction in f64 rounds too, by less than the second part.
            let error = (exact - f64::from(rest[i])).abs() + exact.abs() * f64::EPSILON;
            slack[channel] = slack[channel].max(error);
        }
    });
    if let Some(index) = x.iter().position(|v| !v.is_finite()) {
        return Err(Error::NonFinite { tensor: name.to_owned(), index, value: x[index] });
    }
    let series = expand_tensor_by(name, &rest, shape, axis, method)?;
    Ok(Centred { bias, slack, series })
}

/// The middle of the range of every channel, or of all of them.
fn middles(x: &[f32], channels: Channels, together: bool) -> Vec<f32> {
    let mut ranges = vec![(f32::INFINITY, f32::NEG_INFINITY); channels.count];
    channels.for_each_run(x.len(), |channel, run| {
        let (low, high) = &mut ranges[channel];
        x[run].iter().for_each(|&v| (*low, *high) = (low.min(v), high.max(v)));
    });
    if together {
        let all = ranges.iter().fold(ranges[0], |(low, high), range| (low.min(range.0), high.max(range.1)));
        ranges = vec![all];
    }
    ranges.iter().map(|&(low, high)| ((f64::from(low) + f64::from(high)) / 2.0) as f32).collect()
}

impl Centred {
    /// The bias: one value a channel, or a single one for the tensor.
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// The terms of what is left.
    pub fn series(&self) -> &Series {
        &self.series
    }

    fn bias_of(&self, channel: usize) -> f64 {
        f64::from(self.bias[if self.bias.len() == 1 { 0 } else { channel }])
    }

    /// The values that the bias, the first `terms` terms and the mean of what they drop stand for, in the order of the tensor.
    ///
    /// # Errors
    /// [`Error::Order`] unless `1 <= terms <= n`; `name` names the tensor in it.
    pub fn values(&self, name: &str, terms: u32) -> Result<impl Iterator<Item = f64>, Error> {
        let channels = self.series.channels();
        let values = self.series.values(name, terms)?.enumerate();
        Ok(values.map(move |(i, value)| value + self.bias_of(channels.of(i))))
    }

    /// Largest possible error of the first `terms` terms in a channel: that of the series, and that of the bias.
    pub fn bound(&self, terms: u32, channel: usize) -> f64 {
        let slack = self.slack[if self.slack.len() == 1 { 0 } else { channel }];
        self.series.bound(terms, channel) + slack + self.bias_of(channel).abs() * f64::EPSILON
    }

    /// Largest [`Centred::bound`] over the channels.
    pub fn worst_bound(&self, terms: u32) -> f64 {
        (0..self.series.channels().count).map(|channel| self.bound(terms, channel)).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Clip, Rounding};

    fn method(precision: &str, granularity: Granularity) -> Method {
        let precision = precision.parse().unwrap();
        Method { precision, granularity, rounding: Rounding::Nearest, clip: Clip::None }
    }

    /// Values of channels that lie far from zero, one of them in a narrow range.
    fn shifted() -> (Vec<f32>, [usize; 2]) {
        let value =
            |i: usize| [5.0, -300.0, 1e-3, 1e7][i / 16] + [1.0, 20.0, 1e-3, 3.0][i / 16] * (i as f32 * 1.7).sin();
        ((0..64).map(value).collect(), [4, 16])
    }

    #[test]
    fn errors_are_within_the_bounds_of_every_prefix() {
        let (x, shape) = shifted();
        for text in ["int2x1", "int4x2", "int4x4", "int8x3"] {
            for granularity in [Granularity::Channel, Granularity::Tensor] {
                for asymmetric in [false, true] {
                    let made = expand_centred("w", &x, &shape, 0, &method(text, granularity), asymmetric).unwrap();
                    for terms in 1..=made.series().precision().order() {
                        for (i, value) in made.values("w", terms).unwrap().enumerate() {
                            let (error, bound) = ((value - f64::from(x[i])).abs(), made.bound(terms, i / 16));
                            assert!(error <= bound, "{text} {granularity:?} {asymmetric} {i}: {error} beyond {bound}");
                            assert!(bound <= made.worst_bound(terms));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_bias_makes_the_grid_as_fine_as_the_range_is_narrow() {
        let (x, shape) = shifted();
        let method = method("int4x2", Granularity::Channel);
        let [plain, centred] = [false, true].map(|a| expand_centred("w", &x, &shape, 0, &method, a).unwrap());
        assert_eq!(plain.bias(), [0.0]);
        assert!(centred.bound(2, 1) < plain.bound(2, 1) / 10.0, "{} {}", centred.bound(2, 1), plain.bound(2, 1));
        assert_eq!(plain.series(), &expand_tensor_by("w", &x, &shape, 0, &method).unwrap());
    }

    #[test]
    fn the_ends_of_the_float_range_are_held() {
        let x = [f32::MAX, f32::MIN, 0.0, f32::MIN_POSITIVE];
        let made = expand_centred("w", &x, &[1, 4], 0, &method("int4x2", Granularity::Channel), true).unwrap();
        let worst = made.values("w", 2).unwrap().zip(x).map(|(v, x)| (v - f64::from(x)).abs()).fold(0.0, f64::max);
        assert!(worst <= made.bound(2, 0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let method = method("int4x2", Granularity::Tensor);
        let bad = expand_centred("w", &[1.0, f32::NAN], &[2], 0, &method, true);
        assert!(matches!(bad, Err(Error::NonFinite { index: 1, .. })), "{bad:?}");
        let short = expand_centred("w", &[1.0], &[2], 0, &method, true);
        assert!(matches!(short, Err(Error::Shape { len: 1, .. })), "{short:?}");
    }
}
