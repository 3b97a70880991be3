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
        match weights {
            Weights::OutputFirst(limbs) => {
                let order = filter_order(shape);
                limb_panels(shape, limbs, |filters, panel| fill_by_filters(filters, panel, &order))
            }
            Weights::InputFirst(limbs) => limb_panels(shape, limbs, |inputs, panel| {
                fill_by_inputs(&inputs.values[inputs.first..], shape.channels_out, inputs.width, panel);
            }),
            Weights::Depthwise(words) => word_panels(shape, words),
        }
    }

    /// Number of digits of a weight, and bits of one.
    pub(crate) fn digits(&self) -> (usize, u32) {
        match self {
            Packed::Limbs(limbs) => (limbs.len(), 8),
            Packed::Words(words) => (words.len(), 16),
        }
    }

    /// What no channel's `sum_k |Q[k, c]|` exceeds: its digits' magnitudes, each at its place.
    pub(crate) fn largest(&self, shape: &Shape) -> i64 {
        let mut sums = Vec::new();
        let mut add = |channel: usize, magnitude: u64, shift: usize| {
            if channel >= sums.len() {
                sums.resize(channel + 1, 0u64);
            }
            sums[channel] = sums[channel].saturating_add(magnitude << shift);
        };
        match self {
            Packed::Limbs(limbs) => {
                for (limb, panels) in limbs.iter().enumerate() {
                    for (i, panel) in panels.chunks_exact(panel_len(shape).max(1)).enumerate() {
                        let mut columns = [0u64; NR];
                        for step in panel.chunks_exact(4 * NR) {
                            for (sum, digits) in columns.iter_mut().zip(step.chunks_exact(4)) {
                                *sum += digits.iter().map(|d| u64::from(d.unsigned_abs())).sum::<u64>();
                            }
                        }
                        columns.iter().enumerate().for_each(|(c, &sum)| add(i * NR + c, sum, 8 * limb));
                    }
                }
            }
            Packed::Words(words) => {
                let pairs = (shape.kernel[0] * shape.kernel[1]).div_ceil(2);
                for (word, strips) in words.iter().enumerate() {
                    for (i, strip) in strips.iter().enumerate() {
                        for (c, pair) in strip.iter().enumerate() {
                            let sum = pair.iter().map(|w| u64::from(w.unsigned_abs())).sum();
                            add(i / pairs * NR + c, sum, 16 * word);
                        }
                    }
                }
            }
        }
        sums.into_iter().max().map_or(0, |largest| i64::try_from(largest).unwrap_or(i64::MAX))
    }

    /// What no `|Q[k, c]|` exceeds: the largest magnitudes of its digits, each at its place.
    pub(crate) fn largest_weight(&self) -> i64 {
        let digit =
            |place: usize, bits: u32, most: u64| i64::try_from(most << (bits * place as u32)).unwrap_or(i64::MAX);
        let digits: Vec<i64> = match self {
            Packed::Limbs(limbs) => {
                let most = |limb: &Vec<i8>| limb.iter().map(|d| u64::from(d.unsigned_abs())).max().unwrap_or(0);
                limbs.iter().enumerate().map(|(i, limb)| digit(i, 8, most(limb))).collect()
            }
            Packed::Words(words) => {
                let most =
                    |w: &Vec<Pairs>| w.as_flattened().as_flattened().iter().map(|w| u64::from(w.unsigned_abs())).max();
                words.iter().enumerate().map(|(i, word)| digit(i, 16, most(word).unwrap_or(0))).collect()
            }
        };
        digits.into_iter().fold(0, i64::saturating_add)
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

/// The digits that a panel takes of a limb.
struct Source<'a> {
    /// All digits of the limb.
    values: &'a [i8],
    /// First output channel.
    first: usize,
    /// Output channels, at most [`NR`].
    width: usize,
}

/// Packs every limb, panel by panel, as `fill` does; a panel is given zeroed, as the four depths of channel after channel.
fn limb_panels(shape: &Shape, limbs: &[Vec<i8>], fill: impl Fn(Source<'_>, &mut [[i8; 4]])) -> (Packed, Vec<i64>) {
    let out = shape.channels_out / shape.groups;
    let (panels, len) = (out.div_ceil(NR), panel_len(shape));
    let mut sums = vec![0i64; shape.groups * panels * NR];
    let mut pack = |limb: usize, values: &[i8]| {
        let mut packed = vec![0i8; shape.groups * panels * len];
        let filled = packed.chunks_exact_mut(len.max(1)).zip(sums.chunks_exact_mut(NR));
        for (index, (panel, sums)) in filled.enumerate() {
            let (group, first) = (index / panels, index % panels * NR);
            let (quads, _) = panel.as_chunks_mut();
            fill(Source { values, first: group * out + first, width: NR.min(out - first) }, quads);
            add_columns(quads, sums, 8 * limb);
        }
        packed
    };
    let packed = limbs.iter().enumerate().map(|(limb, digits)| pack(limb, digits)).collect();
    (Packed::Limbs(packed), sums)
}

/// Adds the digits of every column of a panel, shifted left.
fn add_columns(quads: &[[i8; 4]], sums: &mut [i64], shift: usize) {
    for quads in quads.chunks_exact(NR) {
        for (sum, &[a, b, c, d]) in sums.iter_mut().zip(quads) {
            let four = i32::from(a) + i32::from(b) + i32::from(c) + i32::from(d);
            *sum += i64::from(four) << shift;
        }
    }
}

/// Where the depths of a panel lie in the filter of an output channel; `usize::MAX` for padding.
fn filter_order(shape: &Shape) -> Vec<usize> {
    let [kh, kw] = shape.kernel;
    let place = |tap: usize, k: usize| match shape.position(tap, k) {
        Some([ky, kx, c]) => (c * kh + ky) * kw + kx,
        None => usize::MAX,
    };
    (0..shape.taps()).flat_map(|tap| (0..shape.tap_depth()).map(move |k| place(tap, k))).collect()
}

/// Fills a panel from filters, one an output channel, each in another order.
fn fill_by_filters(source: Source<'_>, panel: &mut [[i8; 4]], order: &[usize]) {
    let len = order.iter().filter(|&&place| place != usize::MAX).count();
    for column in 0..source.width {
        let filter = &source.values[(source.first + column) * len..][..len];
        for (quads, places) in panel.chunks_exact_mut(NR).zip(order.as_chunks::<4>().0) {
            quads[column] = places.map(|place| filter.get(place).copied().unwrap_or(0));
        }
    }
}

/// Fills a panel from digits that have `stride` output channels after each other.
fn fill_by_inputs(digits: &[i8], stride: usize, width: usize, panel: &mut [[i8; 4]]) {
    for (four, quads) in digits.chunks(4 * stride).zip(panel.chunks_exact_mut(NR)) {
        for (lane, row) in four.chunks(stride).enumerate() {
            for (quad, &digit) in quads.iter_mut().zip(&row[..width]) {
                quad[lane] = digit;
            }
        }
    }
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
