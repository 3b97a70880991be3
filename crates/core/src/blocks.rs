//! Blocks: consecutive inputs of an output channel with a scale of their own.
//!
//! A block's scale is its channel's times `2^-shift`, so that on the channel's finest grid every integer is
//! `Q << (finest - shift)` and sums over blocks stay integer. A shift widens the integers that a product multiplies; it is
//! at most [`most`], which never takes more than the bits up to the end of a limb.
//!
//! Blocks lie as in ONNX's blocked quantisation: a tensor's input axis is divided by the block size, rounded up, and the
//! other axes are kept, so that every kernel position of a convolution has blocks of its own.

use std::ops::Range;

use crate::{Precision, series::Channels};

/// Widest integers of a series with blocks.
const MOST_WIDTH: u32 = 24;

/// Scales finer than their channel's.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Blocks {
    /// Values along the input axis that share a scale.
    size: usize,
    /// Length of the input axis.
    length: usize,
    /// Consecutive values of one index of the input axis.
    inner: usize,
    /// By block, in the row-major order of the divided shape.
    shifts: Vec<u8>,
    finest: u32,
}

/// Largest shift beside `precision`: what its last limb has left, or one more limb where it is full.
fn most(precision: Precision) -> u32 {
    let bits = precision.total_bits();
    (8 - bits % 8).min(MOST_WIDTH.saturating_sub(bits))
}

impl Blocks {
    /// Blocks without shifts; `None` for a shape without an input axis or for blocks of no values.
    fn new(shape: &[usize], axis: usize, size: usize) -> Option<Self> {
        let input = input_axis(axis);
        let length = *shape.get(input)?;
        let outer: usize = shape[..input].iter().product();
        let inner: usize = shape[input + 1..].iter().product();
        if size == 0 {
            return None;
        }
        // A block beyond the axis is the axis.
        let size = size.min(length);
        Some(Self { size, length, inner, shifts: vec![0; outer * length.div_ceil(size) * inner], finest: 0 })
    }

    /// The finest blocks that hold the values of `x`, which fits `shape`; `scales` are the channels' `scale_1`.
    pub fn fit(
        x: &[f32],
        shape: &[usize],
        axis: usize,
        size: usize,
        scales: &[f32],
        precision: Precision,
    ) -> Option<Self> {
        let mut blocks = Self::new(shape, axis, size)?;
        let mut largest = vec![0f32; blocks.shifts.len()];
        for (run, blocks) in x.chunks_exact(blocks.inner).zip(blocks.runs()) {
            for (x, largest) in run.iter().zip(&mut largest[blocks]) {
                *largest = largest.max(x.abs());
            }
        }
        let radix = f64::from(1u32 << precision.bits());
        let needed = |c: f32| f64::from(c) * (radix - 1.0) / ((radix / 2.0 - 1.0) * radix);
        let channels = Channels { count: shape[axis], inner: shape[axis + 1..].iter().product() };
        let channel: Vec<usize> = blocks.channels(channels).collect();
        for ((shift, c), channel) in blocks.shifts.iter_mut().zip(largest).zip(channel) {
            let mut scale = f64::from(scales[channel]);
            while scale > 0.0 && u32::from(*shift) < most(precision) && scale / 2.0 >= needed(c) {
                scale /= 2.0;
                *shift += 1;
            }
        }
        blocks.finest = blocks.shifts.iter().copied().max().map_or(0, u32::from);
        Some(blocks)
    }

    /// The channels' scales, and the blocks whose `scale_1` are `scales`; says what is wrong with scales that are none.
    pub fn from_scales(
        shape: &[usize],
        axis: usize,
        size: usize,
        scales: &[f32],
        precision: Precision,
    ) -> Result<(Vec<f32>, Option<Self>), String> {
        let mut blocks = Self::new(shape, axis, size).ok_or_else(|| format!("blocks of {size} for shape {shape:?}"))?;
        if scales.len() != blocks.shifts.len() {
            return Err(format!("{} scales for {} blocks", scales.len(), blocks.shifts.len()));
        }
        let channels = Channels { count: shape[axis], inner: shape[axis + 1..].iter().product() };
        let channel: Vec<usize> = blocks.channels(channels).collect();
        let mut coarsest = vec![0f32; channels.count];
        for (&scale, &channel) in scales.iter().zip(&channel) {
            coarsest[channel] = coarsest[channel].max(scale);
        }
        for ((shift, &scale), &channel) in blocks.shifts.iter_mut().zip(scales).zip(&channel) {
            let found = (0..=most(precision)).find(|&s| coarsest[channel] / (1u32 << s) as f32 == scale);
            let found =
                found.ok_or_else(|| format!("block scale {scale} is not {} over a power of two", coarsest[channel]))?;
            *shift = found as u8;
        }
        blocks.finest = blocks.shifts.iter().copied().max().map_or(0, u32::from);
        Ok((coarsest, Some(blocks)))
    }

    /// Values along the input axis in a block.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Largest shift.
    pub fn finest(&self) -> u32 {
        self.finest
    }

    /// Shift of the value at a row-major index of the tensor.
    pub fn shift(&self, index: usize) -> u32 {
        u32::from(self.shifts[self.of(index)])
    }

    /// Lifts integers of the whole tensor, each in the unit of its block, to the channel's finest unit.
    pub fn lift(&self, q: &mut [i32]) {
        for (run, blocks) in q.chunks_exact_mut(self.inner).zip(self.runs()) {
            for (q, &shift) in run.iter_mut().zip(&self.shifts[blocks]) {
                *q <<= self.finest - u32::from(shift);
            }
        }
    }

    /// The blocks of each run of `inner` consecutive values, in the order of the tensor.
    fn runs(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (length, size, inner) = (self.length, self.size, self.inner);
        let row = length.div_ceil(size) * inner;
        (0..self.shifts.len()).step_by(row).flat_map(move |first| {
            (0..length).map(move |along| first + along / size * inner..first + (along / size + 1) * inner)
        })
    }

    /// Channel and shift of every block.
    pub fn shifts(&self, channels: Channels) -> impl Iterator<Item = (usize, u32)> {
        self.channels(channels).zip(self.shifts.iter().map(|&shift| u32::from(shift)))
    }

    /// Block of the value at a row-major index.
    pub fn of(&self, index: usize) -> usize {
        let (outer, input) = (index / (self.length * self.inner), index / self.inner % self.length);
        (outer * self.length.div_ceil(self.size) + input / self.size) * self.inner + index % self.inner
    }

    /// Channel of every block.
    fn channels(&self, channels: Channels) -> impl Iterator<Item = usize> + use<> {
        let (count, inner, row) = (self.length.div_ceil(self.size), self.inner, self.length * self.inner);
        let size = self.size;
        (0..self.shifts.len()).map(move |block| {
            let (outer, along) = (block / (count * inner), block / inner % count);
            channels.of(outer * row + along * size * inner + block % inner)
        })
    }
}

/// The axis of a weight tensor along which an output channel's inputs lie; see [`crate::Geometry::weight_shape`].
pub(crate) fn input_axis(channel_axis: usize) -> usize {
    usize::from(channel_axis == 0)
}

#[cfg(test)]
mod tests {
    use crate::{Granularity, Scales, Series, expand_tensor};

    fn values(len: usize) -> Vec<f32> {
        // Falls along the input, so that later blocks are finer.
        (0..len).map(|i| ((i * 7919 % 101) as f32 - 50.0) / 50.0 / (1 + i % 12) as f32).collect()
    }

    fn grouped(shape: &[usize], axis: usize, size: usize, precision: &str) -> (Vec<f32>, Series) {
        let x = values(shape.iter().product());
        let p = precision.parse().unwrap();
        let series = expand_tensor("w", &x, shape, axis, p, Granularity::Group(size)).unwrap();
        (x, series)
    }

    #[test]
    fn every_prefix_stays_within_its_bound_and_reads_back() {
        for (shape, axis) in [(&[3, 12][..], 0), (&[12, 3], 1), (&[4, 6, 2, 2], 0), (&[5, 1, 3, 3], 0)] {
            for size in [1, 4, 5, 100] {
                for precision in ["int4x1", "int4x2", "int2x3", "int8x3", "int8x2"] {
                    let (x, series) = grouped(shape, axis, size, precision);
                    let order = series.precision().order();
                    let terms: Vec<_> = (1..=order).map(|t| series.term(t)).collect();
                    let (p, means) = (series.precision(), series.means().to_vec());
                    let scales = Scales { first: series.term_scales(1), block: series.block() };
                    let again = Series::from_terms("w", p, shape.to_vec(), axis, scales, &terms, means);
                    assert_eq!(again.unwrap(), series, "{shape:?} {size} {precision}");
                    for t in 1..=order {
                        let (_, ratio) = series.measured_error("w", &x, t).unwrap();
                        assert!(ratio <= 1.0, "{shape:?} {size} {precision}: prefix {t} at {ratio} of its bound");
                        prefix_is_its_values(&series, t);
                    }
                }
            }
        }
    }

    /// `W = unit (2^shift q + mean)`, and `q` fits its width.
    fn prefix_is_its_values(series: &Series, terms: u32) {
        let prefix = series.prefix("w", terms).unwrap();
        let channels = series.channels();
        for (i, value) in series.values("w", terms).unwrap().enumerate() {
            let c = channels.of(i);
            let mean = prefix.means.get(c).copied().unwrap_or(0);
            let whole = (i64::from(prefix.q[i]) << prefix.shift) + mean;
            assert_eq!(f64::from(prefix.units[c]) * whole as f64, value);
            assert!(i64::from(prefix.q[i]).abs() < 1 << (prefix.width - 1), "{} in {}", prefix.q[i], prefix.width);
        }
    }

    #[test]
    fn blocks_are_finer_than_their_channel_where_their_values_are_small() {
        let p = "int4x1".parse().unwrap();
        let x = [1.0, -0.9, 0.1, 0.05, 0.0, 0.0];
        let fine = expand_tensor("w", &x, &[1, 6], 0, p, Granularity::Group(2)).unwrap();
        let coarse = expand_tensor("w", &x, &[1, 6], 0, p, Granularity::Channel).unwrap();
        let scales = fine.term_scales(1);
        assert_eq!(scales[0] / scales[1], 8.0);
        assert_eq!((scales[0] / scales[2], fine.width(1)), (16.0, 8));
        let error = |series: &Series| series.values("w", 1).unwrap().nth(3).map(|v| (v - 0.05).abs()).unwrap();
        assert!(error(&fine) < error(&coarse) / 4.0, "{} {}", error(&fine), error(&coarse));
    }

    #[test]
    fn scales_that_are_no_blocks_are_refused() {
        let (_, series) = grouped(&[3, 12], 0, 4, "int4x1");
        let read = |scales: Vec<f32>, size| {
            let terms = [series.term(1)];
            Series::from_terms(
                "w",
                series.precision(),
                vec![3, 12],
                0,
                Scales { first: scales, block: Some(size) },
                &terms,
                vec![],
            )
        };
        let mut scales = series.term_scales(1);
        assert!(read(scales.clone(), 4).is_ok());
        assert!(read(scales.clone(), 0).unwrap_err().to_string().contains("blocks of 0"));
        assert!(read(scales.clone(), 3).unwrap_err().to_string().contains("9 scales for 12 blocks"));
        scales[1] *= 0.75;
        assert!(read(scales.clone(), 4).unwrap_err().to_string().contains("over a power of two"));
        scales[1] = 0.0;
        assert!(read(scales, 4).is_err());
    }
}
