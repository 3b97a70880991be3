//! A layer packed for running: partial sums, epilogue, or both at once.

use std::fmt;

use crate::kernel::{Kernel, MR, NR};
use crate::panels::Packed;
use crate::shape::Chunk;
use crate::{Activation, Codes, Range, Shape, Weights};

mod call;
mod share;
mod sparse;

use call::Call;
use share::Stored;
pub use share::{Room, Share};

/// Integers too large for exact 64-bit sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error {
    /// Bits that the largest possible sum needs.
    pub bits: u32,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its sums need {} bits, but 63 is the most; use fewer bits or terms", self.bits)
    }
}

impl std::error::Error for Error {}

/// What happens to a complete sum, in this order: weight scale, bias, residual, activation.
#[derive(Debug, Clone, PartialEq)]
pub struct Epilogue {
    /// Value of one unit of the sums, one an output channel.
    pub scales: Vec<f32>,
    /// One an output channel.
    pub bias: Vec<f32>,
    /// What is added to every weight (`bias * M_nsy`), one an output channel or none: adds `means[c] * sum_k (u - zp)`.
    pub means: Vec<i64>,
    /// Bits that sums are shifted left by to be in the unit of `scales` and `means`.
    pub shift: u32,
    /// What ends it.
    pub activation: Activation,
}

/// Values that an epilogue adds, laid out as the output is.
#[derive(Debug, Clone, Copy)]
pub struct Residual<'a> {
    /// The values.
    pub values: &'a [f32],
    /// What no magnitude among them exceeds; infinity where that is not known.
    pub largest: f32,
}

/// Weights packed for a [`Shape`], with their epilogue.
#[derive(Debug)]
pub struct Product {
    shape: Shape,
    packed: Packed,
    /// The digits of `packed`, which is then empty, in few bits.
    stored: Option<Stored>,
    chunks: Vec<Chunk>,
    panels: Vec<Panel>,
    sums: Vec<i64>,
    /// What no channel's sum of weights' magnitudes exceeds, means included; the largest number where it was not looked for.
    largest: i64,
    /// What no weight's magnitude exceeds with its mean; likewise.
    largest_weight: i64,
    narrow_sums: Vec<[i32; NR]>,
    scales: Vec<[f32; NR]>,
    bias: Vec<[f32; NR]>,
    means: Vec<i64>,
    /// [`Product::means`] by panel; none where they are in another unit than the sums, or do not fit.
    narrow_means: Vec<[i32; NR]>,
    shift: u32,
    activation: Activation,
}

/// Which channels a panel takes and makes.
#[derive(Debug)]
struct Panel {
    /// First input channel of its group; of the panel itself where it is depthwise.
    input: usize,
    /// First output channel.
    channel: usize,
    /// Output channels, at most [`NR`].
    width: usize,
}

impl Product {
    /// Packs a layer.
    ///
    /// # Errors
    /// [`Error`] where sums of `activation_bits`-bit codes could leave 63 bits.
    ///
    /// # Panics
    /// If weights or epilogue do not match `shape` (a caller's mistake, not data).
    pub fn new(shape: Shape, weights: Weights<'_>, epilogue: &Epilogue, activation_bits: u32) -> Result<Self, Error> {
        assert_eq!(shape.is_depthwise(), matches!(weights, Weights::Depthwise(_)), "words are for depthwise shapes");
        assert_eq!(epilogue.scales.len(), shape.channels_out, "one scale a channel");
        assert_eq!(epilogue.bias.len(), shape.channels_out, "one bias a channel");
        assert!(epilogue.means.is_empty() || epilogue.means.len() == shape.channels_out, "one mean a channel");
        let weight_bits = match weights {
            Weights::OutputFirst(limbs) | Weights::InputFirst(limbs) => 8 * limbs.len() as u32,
            Weights::Depthwise(words) => 16 * words.len() as u32,
        };
        let mean_bits = epilogue.means.iter().map(|m| 64 - m.unsigned_abs().leading_zeros()).max().unwrap_or(0);
        Self::check(&shape, weight_bits.saturating_sub(1) + epilogue.shift, mean_bits, activation_bits)?;
        let (packed, sums) = Packed::new(&shape, weights);
        // Of single limbs without means it is not asked for.
        let asked = activation_bits > 8 || packed.digits().0 > 1 || !epilogue.means.is_empty();
        let mean = epilogue.means.iter().fold(0, |most, mean| mean.abs().max(most));
        let narrow_means = if epilogue.shift == 0 && mean <= i64::from(i32::MAX) { &epilogue.means[..] } else { &[] };
        let (group_out, groups) = match packed {
            Packed::Words(_) => (shape.channels_out, 1),
            Packed::Limbs(_) => (shape.channels_out / shape.groups, shape.groups),
        };
        let panel = |(group, first): (usize, usize)| Panel {
            input: if shape.is_depthwise() { first } else { group * (shape.channels_in / shape.groups) },
            channel: group * group_out + first,
            width: NR.min(group_out - first),
        };
        let firsts = (0..groups).flat_map(|group| (0..group_out).step_by(NR).map(move |first| (group, first)));
        let lanes = |values: &[f32]| panelled(values, groups, group_out);
        let narrow_means: Vec<i32> = narrow_means.iter().map(|&mean| mean as i32).collect();
        Ok(Self {
            scales: lanes(&epilogue.scales),
            bias: lanes(&epilogue.bias),
            narrow_sums: sums.chunks_exact(NR).map(|s| std::array::from_fn(|c| s[c] as i32)).collect(),
            means: epilogue.means.clone(),
            narrow_means: if narrow_means.is_empty() { Vec::new() } else { panelled(&narrow_means, groups, group_out) },
            chunks: shape.chunks(),
            shift: epilogue.shift,
            activation: epilogue.activation,
            panels: firsts.map(panel).collect(),
            largest: if asked { packed.largest(&shape) + mean * shape.depth() as i64 } else { i64::MAX },
            largest_weight: if asked { packed.largest_weight() + mean } else { i64::MAX },
            packed,
            stored: None,
            sums,
            shape,
        })
    }

    /// Whether sums of codes of `activation_bits` bits by weights of `weight_bits` bits beside their sign, plus those by means of
    /// `mean_bits`, stay within 63 bits.
    ///
    /// # Errors
    /// [`Error`] where they may not.
    pub fn check(shape: &Shape, weight_bits: u32, mean_bits: u32, activation_bits: u32) -> Result<(), Error> {
        let depth_bits = usize::BITS - shape.depth().leading_zeros();
        // One bit for the sum of product and mean, one for the sign.
        let bits = activation_bits + depth_bits + weight_bits.max(mean_bits) + 2;
        if bits > 64 { Err(Error { bits: bits - 1 }) } else { Ok(()) }
    }

    /// Geometry.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Bytes of packed weights.
    pub fn bytes(&self) -> usize {
        self.stored.as_ref().map_or_else(|| self.packed.bytes(), Stored::bytes)
    }

    /// The activation of the epilogue.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Sets the activation of the epilogue.
    pub fn set_activation(&mut self, activation: Activation) {
        self.activation = activation;
    }

    /// Adds this product's sums to `sums`, modulo 2^64 (AbelianAdd): `(images, height, width, channels_out)` or `(m, n)`.
    ///
    /// # Panics
    /// If `sums` has another length.
    pub fn partial(&self, kernel: &dyn Kernel, codes: &Codes, sums: &mut [i64], threads: usize) {
        assert!(self.stored.is_none(), "digits in few bits are for members of a group");
        Call::new(kernel, self, codes).by_tiles().add_to(sums, threads);
    }

    /// Epilogue of complete sums; returns one range an image (one in all for a matrix).
    ///
    /// # Panics
    /// If `sums`, `residual` or `out` has the wrong length.
    pub fn finish(
        &self,
        kernel: &dyn Kernel,
        codes: &Codes,
        sums: &[i64],
        residual: Option<Residual<'_>>,
        out: &mut [f32],
        threads: usize,
    ) -> Vec<Range> {
        assert_eq!(sums.len(), out.len(), "one sum an output");
        let stride = self.shape.channels_out;
        let call = Call::new(kernel, self, codes).by_tiles();
        call.drive(residual, out, threads, |call, [panel, absolute], rows, place, (lanes, _)| {
            let mut wide = [[0; NR]; MR];
            for (r, row) in wide.iter_mut().enumerate().take(rows.rows) {
                let width = self.panels[panel].width;
                row[..width].copy_from_slice(&sums[absolute + r * stride..][..width]);
            }
            call.finish(rows, panel, &wide, place, lanes);
        })
    }

    /// [`Product::partial`] and [`Product::finish`] at once, the same bits without the sums in memory.
    ///
    /// # Panics
    /// If `residual` or `out` has the wrong length.
    pub fn fused(
        &self,
        kernel: &dyn Kernel,
        codes: &Codes,
        residual: Option<Residual<'_>>,
        out: &mut [f32],
        threads: usize,
    ) -> Vec<Range> {
        let call = Call::new(kernel, self, codes);
        if call.narrow {
            return call.drive(residual, out, threads, |call, [panel, _], rows, place, buffers| {
                call.fused(rows, panel, place, buffers);
            });
        }
        call.by_tiles().drive(residual, out, threads, |call, [panel, _], rows, place, (lanes, beside)| {
            let mut wide = [[0; NR]; MR];
            call.wide(rows, panel, &mut wide, beside);
            call.finish(rows, panel, &wide, place, lanes);
        })
    }

    /// Whether outputs on these codes can become codes at once: whether the sums fit i32.
    pub fn makes_codes(&self, kernel: &dyn Kernel, codes: &Codes) -> bool {
        Call::new(kernel, self, codes).narrow
    }

    /// The outputs as codes of `next`, which was prepared for them with a border of `pads`, on grids that its caller believes to
    /// be theirs; returns their ranges, which show whether they are. Where an image's range exceeds that of its grid, its codes
    /// mean nothing.
    ///
    /// # Panics
    /// If `next` has another shape, or unless [`Product::makes_codes`].
    pub fn coded(
        &self,
        kernel: &dyn Kernel,
        codes: &Codes,
        (next, pads): (&mut Codes, [usize; 4]),
        threads: usize,
    ) -> Vec<Range> {
        let call = Call::new(kernel, self, codes);
        assert!(call.narrow, "sums of 64 bits");
        let [height, width] = codes.output(&self.shape);
        let size = [pads[0] + height + pads[2], pads[1] + width + pads[3]];
        let fits = (next.images(), next.size(), next.channels()) == (codes.images(), size, self.shape.channels_out);
        assert!(fits, "codes prepared for other outputs");
        call.drive_codes(next, pads, threads)
    }
}

/// Values by channel laid out by panel, zero beyond each group's channels.
fn panelled<T: Copy + Default>(values: &[T], groups: usize, group_out: usize) -> Vec<[T; NR]> {
    let mut panels = Vec::new();
    for group in 0..groups {
        for chunk in values[group * group_out..][..group_out].chunks(NR) {
            let mut lanes = [T::default(); NR];
            lanes[..chunk.len()].copy_from_slice(chunk);
            panels.push(lanes);
        }
    }
    panels
}

#[cfg(test)]
mod tests;
