//! Weights packed for the tiles: panels of [`NR`] output channels, four consecutive depths a channel.
//!
//! A panel is `[tap][depth / 4][channel][4]`. Depthwise weights are `[channel / NR][tap / 2][channel % NR]`
//! pairs of words, the taps `t` and `t + 1`; an odd last tap has a zero beside it.

use crate::Shape;
use crate::kernel::{NR, Pairs};

/// The integers of a layer's weights, as balanced digits, least significant first.
///
/// Index order is `(channels_out, channels_in / groups, kernel_h, kernel_w)`, or `(channels_in, channels_out)` for
/// [`Weights::InputFirst`].
#[derive(Debug, Clone, Copy)]
pub enum Weights<'a> {
    /// 8-bit limbs, output channels outermost.
    OutputFirst(&'a [Vec<i8>]),
    /// 8-bit limbs of a matrix product, output channels innermost.
    InputFirst(&'a [Vec<i8>]),
    /// 16-bit words of a depthwise convolution.
    Depthwise(&'a [Vec<i16>]),
}

/// Packed digits.
#[derive(Debug)]
pub(crate) enum Packed {
    /// One buffer a limb: panels of group 0, then of group 1, and so on.
    Limbs(Vec<Vec<i8>>),
    /// One buffer a word.
    Words(Vec<Vec<Pairs>>),
}

impl Packed {
    /// Packs the digits and sums each channel's integers; channels are padded to whole panels in every group.
    pub(crate) fn new(shape: &Shape, weights: Weights<'_>) -> (Self, Vec<i64>) {
        let (out, depth) = (shape.channels_out / shape.groups, shape.channels_in / shape.groups);
        let [kh, kw] = shape.kernel;
        let output_first = |o: usize, [ky, kx, c]: [usize; 3]| ((o * depth + c) * kh + ky) * kw + kx;
        match weights {
            Weights::OutputFirst(limbs) => limb_panels(shape, out, limbs, output_first),
            Weights::InputFirst(limbs) => limb_panels(shape, out, limbs, |o, [_, _, c]| c * shape.channels_out + o),
            Weights::Depthwise(words) => word_panels(shape, words),
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Packed::Limbs(limbs) => limbs.iter().map(Vec::len).sum(),
            Packed::Words(words) => words.iter().map(|w| w.len() * size_of::<Pairs>()).sum(),
        }
    }
}

/// Length in bytes of one panel of one limb.
pub(crate) fn panel_len(shape: &Shape) -> usize {
    shape.taps() * shape.tap_depth() * NR
}

fn limb_panels(
    shape: &Shape,
    out: usize,
    limbs: &[Vec<i8>],
    index: impl Fn(usize, [usize; 3]) -> usize,
) -> (Packed, Vec<i64>) {
    let panels = out.div_ceil(NR);
    let mut sums = vec![0i64; shape.groups * panels * NR];
    let (taps, depth, len) = (shape.taps(), shape.tap_depth(), panel_len(shape));
    let pack = |limb: usize, digits: &Vec<i8>, sums: &mut [i64]| {
        let mut packed = vec![0i8; shape.groups * panels * len];
        for (panel_index, panel) in packed.chunks_exact_mut(len.max(1)).enumerate() {
            let (group, first) = (panel_index / panels, panel_index % panels * NR);
            for column in 0..NR.min(out - first) {
                let channel = group * out + first + column;
                let mut sum = 0i64;
                for tap in 0..taps {
                    for k in 0..depth {
                        let Some(position) = shape.position(tap, k) else { break };
                        let digit = digits[index(channel, position)];
                        panel[(tap * depth + k / 4 * 4) * NR + column * 4 + k % 4] = digit;
                        sum += i64::from(digit);
                    }
                }
                sums[panel_index * NR + column] += sum << (8 * limb);
            }
        }
        packed
    };
    let packed = limbs.iter().enumerate().map(|(limb, digits)| pack(limb, digits, &mut sums)).collect();
    (Packed::Limbs(packed), sums)
}

fn word_panels(shape: &Shape, words: &[Vec<i16>]) -> (Packed, Vec<i64>) {
    let (channels, taps) = (shape.channels_out, shape.kernel[0] * shape.kernel[1]);
    let (strips, pairs) = (channels.div_ceil(NR), taps.div_ceil(2));
    let mut sums = vec![0i64; strips * NR];
    let mut packed = vec![vec![[[0; 2]; NR]; strips * pairs]; words.len()];
    for (word, (packed, digits)) in packed.iter_mut().zip(words).enumerate() {
        for channel in 0..channels {
            for tap in 0..taps {
                let digit = digits[channel * taps + tap];
                packed[channel / NR * pairs + tap / 2][channel % NR][tap % 2] = digit;
                sums[channel] += i64::from(digit) << (16 * word);
            }
        }
    }
    (Packed::Words(packed), sums)
}
