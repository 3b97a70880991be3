//! Geometry of a product over one image or matrix: which bytes of the quantised input feed an output.
//!
//! The input is NHWC with its border in place, so a filter row of an ungrouped, undilated convolution is one contiguous run:
//! such rows are merged into one tap of `kernel_w * channels` bytes. A matrix product is a 1x1 convolution of `m` pixels.

use std::ops::Range;

/// Deepest sum of u8 x s8 products that i32 holds: `255 * 128 * 65,793 <= 2^31 - 1`; here a multiple of four.
const DEEPEST: usize = 65_792;
/// Most taps of u8 x s16 products that i32 holds: `255 * 32,768 * 257 <= 2^31 - 1`.
const MOST_WORD_TAPS: usize = 257;

/// A convolution without its input size, or a matrix product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Channels of the input; depth of a matrix product.
    pub channels_in: usize,
    /// Channels of the output; columns of a matrix product.
    pub channels_out: usize,
    /// Groups; divides both.
    pub groups: usize,
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub strides: [usize; 2],
    /// Vertical and horizontal dilation.
    pub dilations: [usize; 2],
}

/// A part of the depth that i32 holds: some taps whole, or a run of one tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Taps.
    pub taps: Range<usize>,
    /// First byte of each.
    pub from: usize,
    /// Bytes of each, a multiple of four.
    pub depth: usize,
}

impl Shape {
    /// A matrix product of depth `k` with `n` columns.
    pub fn matmul(k: usize, n: usize) -> Self {
        let one = [1, 1];
        Self { channels_in: k, channels_out: n, groups: 1, kernel: one, strides: one, dilations: one }
    }

    /// Whether weights are given as 16-bit words rather than 8-bit limbs: one filter a channel.
    pub fn is_depthwise(&self) -> bool {
        let per_channel = self.groups > 1 && self.groups == self.channels_in && self.groups == self.channels_out;
        per_channel && self.kernel[0] * self.kernel[1] <= MOST_WORD_TAPS
    }

    /// Values that one output sums over.
    pub fn depth(&self) -> usize {
        self.channels_in / self.groups * self.kernel[0] * self.kernel[1]
    }

    /// Height and width of the output of a padded `height` x `width` input.
    pub fn output(&self, padded: [usize; 2]) -> [usize; 2] {
        [0, 1].map(|axis| {
            let extent = (self.kernel[axis] - 1) * self.dilations[axis] + 1;
            padded[axis].checked_sub(extent).map_or(0, |rest| rest / self.strides[axis] + 1)
        })
    }

    /// A filter row is one contiguous tap.
    fn merged(&self) -> bool {
        self.groups == 1 && (self.dilations[1] == 1 || self.kernel[1] == 1)
    }

    /// Number of taps of a filter.
    pub(crate) fn taps(&self) -> usize {
        if self.merged() { self.kernel[0] } else { self.kernel[0] * self.kernel[1] }
    }

    /// Bytes that count of each tap.
    pub(crate) fn tap_len(&self) -> usize {
        self.channels_in / self.groups * if self.merged() { self.kernel[1] } else { 1 }
    }

    /// Bytes read of each tap: the next multiple of four, the rest against zero weights.
    pub(crate) fn tap_depth(&self) -> usize {
        self.tap_len().next_multiple_of(4)
    }

    /// Offsets of the taps, in bytes from the first of the window, in rows of `width` pixels.
    pub(crate) fn tap_offsets(&self, width: usize) -> Vec<usize> {
        let columns = if self.merged() { 1 } else { self.kernel[1] };
        let offset = |tap: usize| {
            let (ky, kx) = (tap / columns, tap % columns);
            (ky * self.dilations[0] * width + kx * self.dilations[1]) * self.channels_in
        };
        (0..self.taps()).map(offset).collect()
    }

    /// Kernel row, kernel column and channel within the group of byte `k` of tap `tap`, or `None` in the tap's padding.
    pub(crate) fn position(&self, tap: usize, k: usize) -> Option<[usize; 3]> {
        let channels = self.channels_in / self.groups;
        match () {
            () if k >= self.tap_len() => None,
            () if self.merged() => Some([tap, k / channels, k % channels]),
            () => Some([tap / self.kernel[1], tap % self.kernel[1], k]),
        }
    }

    /// The depth in parts that i32 holds.
    pub(crate) fn chunks(&self) -> Vec<Chunk> {
        let (taps, depth) = (self.taps(), self.tap_depth());
        if depth <= DEEPEST {
            let step = (DEEPEST / depth.max(1)).max(1);
            let chunk = |start: usize| Chunk { taps: start..(start + step).min(taps), from: 0, depth };
            return (0..taps).step_by(step).map(chunk).collect();
        }
        let piece = |tap: usize| {
            let part = move |from: usize| Chunk { taps: tap..tap + 1, from, depth: DEEPEST.min(depth - from) };
            (0..depth).step_by(DEEPEST).map(part)
        };
        (0..taps).flat_map(piece).collect()
    }

    /// Every output is a pixel of its own run: pixels of the whole image follow each other like those of a line.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.strides == [1, 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_depth_once_and_fit_i32() {
        for (k, taps) in [(1, 1), (65_792, 1), (65_793, 1), (200_001, 1), (30_000, 5), (64, 9), (70_000, 3)] {
            let shape = Shape { kernel: [taps, 1], ..Shape::matmul(k, 1) };
            let mut seen = vec![0u32; shape.taps() * shape.tap_depth()];
            for chunk in shape.chunks() {
                assert!(chunk.taps.len() * chunk.depth <= DEEPEST && chunk.depth % 4 == 0);
                for tap in chunk.taps {
                    seen[tap * shape.tap_depth() + chunk.from..][..chunk.depth].iter_mut().for_each(|s| *s += 1);
                }
            }
            assert!(seen.iter().all(|&s| s == 1), "{k} x {taps}");
        }
        let deepest: i64 = 255 * 128 * DEEPEST as i64;
        assert!(deepest <= i64::from(i32::MAX) && 255 * 32_768 * MOST_WORD_TAPS as i64 <= i64::from(i32::MAX));
    }
}
