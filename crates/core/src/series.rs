//! The series of a weight tensor: `M ~ sum_i scale_i * M_i`, kept as its integers `Q` and its first scales.
//!
//! `Q = sum_i 2^(X (n - i)) * M_i` on the grid `scale_n`, so the terms are the balanced digits of `Q` in base `2^X`:
//!
//! ```text
//! d_n = ((Q + 2^(X-1)) mod 2^X) - 2^(X-1);   Q <- (Q - d_n) / 2^X;   and so on up to d_1
//! ```
//!
//! Any prefix of the terms is itself a series. What a prefix drops averages about -1/2 of a step, and after a ReLU that
//! is a bias; so a prefix adds, per channel, the mean of its dropped part as `bias * M_nsy`.

use std::mem::take;
use std::ops::Range;

use crate::asymmetry::folded;
use crate::blocks::Blocks;
use crate::limbs::{balanced_digit, divide_half_even, drop_digits, span};
use crate::pack::{Packed, pack};
use crate::saturation::{overflow, width};
use crate::{Error, Precision, Rounding};

/// Where output channels lie in a tensor of some shape: `outer x channels x inner`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    /// Number of channels.
    pub count: usize,
    /// Consecutive values of one channel.
    pub inner: usize,
}

impl Channels {
    /// Channel of the value at a row-major index.
    pub fn of(self, index: usize) -> usize {
        index / self.inner % self.count
    }

    /// Calls `f` with each maximal run of consecutive values of one channel, in a tensor of `len` values.
    pub(crate) fn for_each_run(self, len: usize, mut f: impl FnMut(usize, Range<usize>)) {
        for outer in (0..len).step_by(self.count * self.inner) {
            for channel in 0..self.count {
                let start = outer + channel * self.inner;
                f(channel, start..start + self.inner);
            }
        }
    }

    /// Adds up `part` of the integers of every channel: exact for fewer than `2^33` parts of at most 30 bits.
    fn sums(self, q: &[i32], part: impl Fn(i32) -> i64) -> Vec<i64> {
        let mut sums = vec![0i64; self.count];
        if self.inner == 1 {
            for row in q.chunks_exact(self.count) {
                sums.iter_mut().zip(row).for_each(|(sum, &q)| *sum += part(q));
            }
        } else {
            self.for_each_run(q.len(), |channel, run| {
                sums[channel] += q[run].iter().map(|&q| part(q)).sum::<i64>();
            });
        }
        sums
    }
}

/// A tensor expanded into `order` integer terms (theorem 1); with a saturation part where it was clipped, and with a bias a channel
/// where it is asymmetric.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub(crate) precision: Precision,
    pub(crate) shape: Vec<usize>,
    pub(crate) axis: usize,
    /// `scale_1`, one a channel or one in all; of the coarsest block of the channel.
    pub(crate) scales: Vec<f32>,
    /// `bias / scale_n`, integers, as many as scales; empty for a symmetric series.
    pub(crate) offsets: Vec<i32>,
    /// Blocks along the input with finer scales of their own.
    pub(crate) blocks: Option<Blocks>,
    /// Rule by which `q` was rounded.
    pub(crate) rounding: Rounding,
    /// Whole integers: the terms and the saturation part.
    pub(crate) q: Vec<i32>,
    /// `means[t - 1][channel]`: mean dropped part of the prefix of `t` terms, in units of the channel's finest `scale_n * 2^-X`.
    pub(crate) means: Vec<Vec<i64>>,
}

/// The stored scales of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Scales {
    /// `scale_1` of every channel, of the tensor or, with blocks, of every block: in the shape of the tensor, its input axis
    /// divided by their size.
    pub first: Vec<f32>,
    /// Values along the input axis that share a scale.
    pub block: Option<usize>,
}

/// What a product with the first `terms` terms needs: `W = unit[c] * (2^shift * q + mean[c])`, the bias part of the mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Prefix {
    /// Integers of the prefix in `width` bits; without blocks and saturation part `|q| <= q_max` of its precision.
    pub q: Vec<i32>,
    /// Bits that hold `q`: those of the precision, those that the blocks of the series shift by, and those of a saturation part.
    pub width: u32,
    /// Precision of the prefix.
    pub precision: Precision,
    /// f32, one an output channel.
    pub units: Vec<f32>,
    /// Bits that `q` is shifted left by to be in `units`; 0 for the whole series.
    pub shift: u32,
    /// Mean of the dropped part and bias in `units`, one an output channel; empty where all are 0 or part of `q`.
    pub means: Vec<i64>,
}

impl Series {
    /// A series from its terms, as read back from a file; `terms[i]` holds `M_(i+1)` in the shape of the tensor.
    ///
    /// `means` may be empty, which stands for means recomputed from the terms.
    ///
    /// # Errors
    /// [`Error::Shape`] where lengths disagree and [`Error::NotASeries`] where a digit, scale or mean is one that no
    /// expansion produces; `name` names the tensor in both.
    pub fn from_terms(
        name: &str,
        precision: Precision,
        shape: Vec<usize>,
        axis: usize,
        scales: Scales,
        terms: &[Vec<i8>],
        means: Vec<Vec<i64>>,
    ) -> Result<Self, Error> {
        let bytes: Vec<Vec<u8>> = terms.iter().map(|term| pack(term, 8)).collect();
        let packed: Vec<_> = bytes.iter().map(|bytes| Packed { bytes, bits: 8 }).collect();
        Self::from_packed(name, precision, shape, axis, scales, &packed, means)
    }

    /// [`Series::from_terms`] of terms as a file holds them, of which only a piece is unpacked at a time.
    ///
    /// # Errors
    /// As [`Series::from_terms`].
    pub fn from_packed(
        name: &str,
        precision: Precision,
        shape: Vec<usize>,
        axis: usize,
        scales: Scales,
        terms: &[Packed<'_>],
        means: Vec<Vec<i64>>,
    ) -> Result<Self, Error> {
        let fault = |reason: String| Error::NotASeries { tensor: name.to_owned(), reason };
        let len = element_count(name, &shape, axis)?;
        if terms.len() != precision.order() as usize || terms.iter().any(|t| !t.holds(len)) {
            return Err(fault(format!("{} terms of {len} values expected", precision.order())));
        }
        let q = joined(precision, len, terms).map_err(fault)?;
        let Scales { first: scales, block } = scales;
        if let Some(bad) = scales.iter().find(|s| !(s.is_finite() && **s >= 0.0)) {
            return Err(fault(format!("scale {bad} is not a step")));
        }
        let (scales, blocks) = match block {
            Some(size) => Blocks::from_scales(&shape, axis, size, &scales, precision).map_err(fault)?,
            None => (scales, None),
        };
        let channels = shape[axis];
        if scales.len() != channels && scales.len() != 1 {
            return Err(fault(format!("{} scales for {channels} channels", scales.len())));
        }
        let rounding = Rounding::Nearest;
        let (offsets, none) = (Vec::new(), Vec::new());
        let mut series = Self { precision, shape, axis, scales, offsets, blocks, rounding, q, means: none };
        let channels = series.channels();
        let of_zero = |&i: &usize| series.q[i] != 0 && series.scale(channels.of(i)) == 0.0;
        if series.scales.contains(&0.0)
            && let Some(i) = (0..len).find(of_zero)
        {
            return Err(fault(format!("element {i} is {} steps of a scale of zero", series.q[i])));
        }
        let own = series.dropped_means();
        // A mean is a property of the terms; a file that says otherwise was altered.
        if !means.is_empty() && means != own {
            return Err(fault("the stored prefix means are not those of its terms".to_owned()));
        }
        series.means = own;
        Ok(series)
    }

    /// Bits per term and number of terms.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Dimensions of the tensor.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Axis along which channels lie.
    pub fn axis(&self) -> usize {
        self.axis
    }

    /// `scale_1`: one value a channel, or a single one for the whole tensor; with blocks, that of a channel's coarsest.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Size of the blocks along the input axis that have scales of their own.
    pub fn block(&self) -> Option<usize> {
        self.blocks.as_ref().map(Blocks::size)
    }

    /// Bits that hold the integers of the first `terms` terms and of the saturation part on a channel's finest grid.
    pub fn width(&self, terms: u32) -> u32 {
        width(self.precision, terms, span(&self.q)) + self.finest()
    }

    /// Rule by which the integers were rounded; the bounds follow from it.
    pub fn rounding(&self) -> Rounding {
        self.rounding
    }

    /// The series, whose integers were rounded by this rule.
    pub fn with_rounding(self, rounding: Rounding) -> Self {
        Self { rounding, ..self }
    }

    /// Largest shift of a block.
    pub(crate) fn finest(&self) -> u32 {
        self.blocks.as_ref().map_or(0, Blocks::finest)
    }

    /// Bits by which the integers of the value at a row-major index lie above its channel's finest grid.
    fn above_finest(&self, index: usize) -> u32 {
        self.blocks.as_ref().map_or(0, |blocks| blocks.finest() - blocks.shift(index))
    }

    /// Lifts integers in the shape of the tensor to their channels' finest grids.
    pub(crate) fn lift(&self, q: &mut [i32]) {
        if let Some(blocks) = &self.blocks {
            blocks.lift(q);
        }
    }

    /// The integers `Q`, saturation part included, in the shape of the tensor.
    pub fn q(&self) -> &[i32] {
        &self.q
    }

    /// Mean dropped part of every proper prefix: `[t - 1][channel]`, in units of `scale_n * 2^-X`.
    pub fn means(&self) -> &[Vec<i64>] {
        &self.means
    }

    /// Where channels lie.
    pub fn channels(&self) -> Channels {
        Channels { count: self.shape[self.axis], inner: self.shape[self.axis + 1..].iter().product() }
    }

    /// `scale_i` of every channel, of the tensor, or of every block, `1 <= i <= n`; each exactly `scale_1 * 2^(-X (i - 1))`.
    pub fn term_scales(&self, term: u32) -> Vec<f32> {
        let down = self.precision.bits() * (term - 1);
        match &self.blocks {
            Some(blocks) => {
                let scale =
                    |(channel, shift): (usize, u32)| self.scale(channel) * power_of_two(-((down + shift) as i32));
                blocks.shifts(self.channels()).map(scale).collect()
            }
            None => self.scales.iter().map(|&s| s * power_of_two(-(down as i32))).collect(),
        }
    }

    /// `scale_i` of every value, in the order of the tensor.
    pub fn value_scales(&self, term: u32) -> impl Iterator<Item = f32> {
        let (channels, down) = (self.channels(), self.precision.bits() * (term - 1));
        (0..self.q.len()).map(move |i| {
            let shift = self.blocks.as_ref().map_or(0, |blocks| blocks.shift(i));
            self.scale(channels.of(i)) * power_of_two(-((down + shift) as i32))
        })
    }

    /// Digits of term `M_i`, `1 <= i <= n`, in the shape of the tensor.
    pub fn term(&self, term: u32) -> Vec<i8> {
        let bits = self.precision.bits();
        let rest = drop_digits(bits, self.precision.order() - term);
        if term > 1 {
            return self.q.iter().map(|&q| balanced_digit(rest(i64::from(q)), bits) as i8).collect();
        }
        // The first digit is what the rest is, less the saturation part.
        self.q.iter().map(|&q| (rest(i64::from(q)) - i64::from(overflow(self.precision, q))) as i8).collect()
    }

    /// The first `terms` terms with the mean of what they drop.
    ///
    /// # Errors
    /// [`Error::Order`] unless `1 <= terms <= n`; `name` names the layer in it.
    pub fn prefix(&self, name: &str, terms: u32) -> Result<Prefix, Error> {
        self.clone().into_prefix(name, terms)
    }

    /// [`Series::prefix`] in the memory of the series.
    ///
    /// # Errors
    /// As [`Series::prefix`].
    pub fn into_prefix(mut self, name: &str, terms: u32) -> Result<Prefix, Error> {
        let (below, width) = (self.below(name, terms)?, self.width(terms));
        let (bits, channels) = (self.precision.bits(), self.channels());
        let mut q = take(&mut self.q);
        if below > 0 {
            let kept = drop_digits(bits, below);
            q.iter_mut().for_each(|q| *q = kept(i64::from(*q)) as i32);
        }
        self.lift(&mut q);
        let shift = if below == 0 { 0 } else { bits * (below + 1) };
        let last = power_of_two(-((bits * (terms - 1) + shift + self.finest()) as i32));
        let unit = |channel: usize| self.scale(channel) * last;
        let units = (0..channels.count).map(unit).collect();
        let mut means = if below == 0 { Vec::new() } else { self.means.swap_remove(terms as usize - 1) };
        let offsets = self.channel_offsets();
        means.resize(means.len().max(offsets.len()), 0);
        let lift = if below == 0 { 0 } else { bits };
        means.iter_mut().zip(offsets).for_each(|(mean, offset)| *mean += offset << lift);
        if shift == 0 && folded(&mut q, &means, channels, width) {
            means.clear();
        }
        Ok(Prefix { q, width, precision: self.precision.with_order(terms)?, units, shift, means })
    }

    /// Number of terms that a prefix of `terms` drops.
    fn below(&self, name: &str, terms: u32) -> Result<u32, Error> {
        let order = self.precision.order();
        if terms == 0 || terms > order {
            return Err(Error::Order { tensor: name.to_owned(), asked: terms, order });
        }
        Ok(order - terms)
    }

    /// The values that the first `terms` terms and their mean stand for, in f64 (exact), in the order of the tensor.
    ///
    /// # Errors
    /// As [`Series::prefix`].
    pub fn values(&self, name: &str, terms: u32) -> Result<impl Iterator<Item = f64>, Error> {
        let (channels, value) = (self.channels(), self.value(self.below(name, terms)?));
        Ok(self.q.iter().enumerate().map(move |(i, &q)| value(channels.of(i), q, self.above_finest(i))))
    }

    /// The value that an integer of a channel, some bits above its finest grid, stands for without its last `below` terms.
    fn value(&self, below: u32) -> impl Fn(usize, i32, u32) -> f64 {
        let (bits, order) = (self.precision.bits(), self.precision.order());
        let unit = 2f64.powi(-((bits * order + self.finest()) as i32));
        let means = if below == 0 { &[][..] } else { &self.means[(order - below) as usize - 1] };
        let kept = drop_digits(bits, below);
        move |channel, q, above| {
            let mean = means.get(channel).copied().unwrap_or(0) + (self.offset(channel) << bits);
            let kept = kept(i64::from(q)) << (bits * (below + 1) + above);
            f64::from(self.scale(channel)) * unit * (kept + mean) as f64
        }
    }

    /// Largest possible `|M - sum_(i <= t) scale_i M_i - mean|` in a channel:
    /// `scale_t / 2 * (1 + 2^-X + .. + 2^(-X (n - t)))`, with all of `scale_n` for its last part where the rounding is
    /// [`Rounding::Sum`], plus `|mean|`, plus a millionth for the division in f64. A prefix includes the saturation part.
    pub fn bound(&self, terms: u32, channel: usize) -> f64 {
        let (bits, order) = (self.precision.bits() as i32, self.precision.order());
        let scale = f64::from(self.scale(channel));
        if scale == 0.0 {
            return ZERO_SCALE * f64::from(2u32.pow(self.precision.bits() - 1));
        }
        let step = scale * 2f64.powi(-bits * (terms as i32 - 1));
        let last = (order - terms) as i32;
        let dropped: f64 = (0..last).map(|k| 2f64.powi(-bits * k)).sum();
        let parts = dropped / 2.0 + 2f64.powi(-bits * last) * self.rounding.steps();
        let mean = if terms < order { self.means[terms as usize - 1][channel] } else { 0 };
        let unit = scale * 2f64.powi(-bits * order as i32 - self.finest() as i32);
        (step * parts + (mean as f64).abs() * unit) * (1.0 + 1e-6)
    }

    /// Largest [`Series::bound`] over the channels.
    pub fn worst_bound(&self, terms: u32) -> f64 {
        (0..self.channels().count).map(|c| self.bound(terms, c)).fold(0.0, f64::max)
    }

    /// Largest `|x - prefix|` in f64 and the largest `error / bound` over the channels (at most 1).
    ///
    /// # Errors
    /// As [`Series::prefix`].
    pub fn measured_error(&self, name: &str, x: &[f32], terms: u32) -> Result<(f64, f64), Error> {
        let channels = self.channels();
        let mut worst = vec![0f64; channels.count];
        let value = self.value(self.below(name, terms)?);
        channels.for_each_run(x.len(), |channel, run| {
            let error = |i: usize| (value(channel, self.q[i], self.above_finest(i)) - f64::from(x[i])).abs();
            worst[channel] = run.map(error).fold(worst[channel], f64::max);
        });
        let ratio = |(c, &error): (usize, &f64)| if error == 0.0 { 0.0 } else { error / self.bound(terms, c) };
        let largest = worst.iter().copied().fold(0.0, f64::max);
        Ok((largest, worst.iter().enumerate().map(ratio).fold(0.0, f64::max)))
    }

    /// `scale_1` of a channel.
    pub(crate) fn scale(&self, channel: usize) -> f32 {
        self.scales[if self.scales.len() == 1 { 0 } else { channel }]
    }

    /// Means of the dropped parts, rounded half to even, for prefixes of `1 .. n - 1` terms.
    pub(crate) fn dropped_means(&self) -> Vec<Vec<i64>> {
        let (bits, order) = (self.precision.bits(), self.precision.order());
        let channels = self.channels();
        let count = (self.q.len() / channels.count.max(1)) as i128;
        let mean = |terms: u32| {
            let (low, kept) = (bits * (order - terms), drop_digits(bits, order - terms));
            let dropped = |q: i32| i64::from(q) - (kept(i64::from(q)) << low);
            let sums = match &self.blocks {
                None => channels.sums(&self.q, dropped),
                Some(blocks) => {
                    let mut all: Vec<i32> = self.q.iter().map(|&q| dropped(q) as i32).collect();
                    blocks.lift(&mut all);
                    channels.sums(&all, i64::from)
                }
            };
            sums.iter().map(|&sum| divide_half_even(i128::from(sum) << bits, count) as i64).collect()
        };
        (1..order).map(mean).collect()
    }
}

/// Scales below this make a group zero: their last terms would leave the f32 range.
pub(crate) const ZERO_SCALE: f64 = 1.0 / (1u128 << 90) as f64;

/// Digits that are unpacked at a time.
const PIECE: usize = 1 << 13;

/// The integers that terms are the digits of; says which digit or integer is one that no expansion produces.
fn joined(precision: Precision, len: usize, terms: &[Packed<'_>]) -> Result<Vec<i32>, String> {
    let bits = precision.bits();
    let half = 1i32 << (bits - 1);
    let is_digit = |digit: i8| (-half..half).contains(&i32::from(digit));
    let mut q = Vec::with_capacity(len);
    for first in (0..len).step_by(PIECE) {
        let mut piece = vec![0i32; PIECE.min(len - first)];
        for term in terms {
            let digits = term.digits(first, piece.len());
            let (low, high) = span(&digits);
            if !(is_digit(low) && is_digit(high)) {
                let mut all = terms.iter().flat_map(|term| term.digits(0, len));
                let bad = all.find(|&digit| !is_digit(digit)).unwrap_or(low);
                return Err(format!("digit {bad} is not of {bits} bits"));
            }
            let values = piece.iter_mut().zip(&digits);
            if precision.total_bits() < 32 {
                values.for_each(|(q, &digit)| *q = (*q << bits) + i32::from(digit));
            } else {
                // Digits that no expansion produces may leave i32; the least of it stands for them.
                let whole = |q: i32, digit: i8| (i64::from(q) << bits) + i64::from(digit);
                values.for_each(|(q, &digit)| *q = whole(*q, digit).max(i64::from(i32::MIN)) as i32);
            }
        }
        q.extend_from_slice(&piece);
    }
    let is_beyond = |q: i32| i64::from(q).abs() > precision.q_max();
    let (low, high) = span(&q);
    if (is_beyond(low) || is_beyond(high))
        && let Some(bad) = q.iter().find(|q| is_beyond(**q))
    {
        return Err(format!("an integer of {bad} is beyond {precision}"));
    }
    Ok(q)
}

/// Number of elements of `shape`, which must have `axis` and no zero dimension.
pub(crate) fn element_count(name: &str, shape: &[usize], axis: usize) -> Result<usize, Error> {
    let product = shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
    match product {
        Some(len) if axis < shape.len() && len > 0 => Ok(len),
        other => Err(Error::Shape {
            tensor: name.to_owned(),
            len: other.unwrap_or(usize::MAX),
            shape: shape.to_vec(),
            axis: Some(axis),
        }),
    }
}

/// `2^exponent` for exponents of normal f32 numbers.
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((127 + exponent) as u32) << 23)
}

#[cfg(test)]
mod tests;
