//! A layer packed for running: partial sums, epilogue, or both at once.

use std::fmt;

use crate::kernel::{Columns, Grids, Kernel, MR, NR, Place, Tile, WideTile};
use crate::panels::{Packed, panel_len};
use crate::range::Lanes;
use crate::shape::Chunk;
use crate::window::{Strip, Taps, Window};
use crate::{Codes, Range, Shape, Weights, run};

/// Bytes of codes that a block of outputs may need before it is split, so that they stay in the second-level cache.
const BLOCK_BYTES: usize = 192 << 10;
/// Packed weights up to this size are walked once per tile of rows rather than once per block.
const RESIDENT_BYTES: usize = 384 << 10;

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

/// What happens to a complete sum, in this order: weight scale, bias, residual, clamp.
#[derive(Debug, Clone, PartialEq)]
pub struct Epilogue {
    /// Value of one unit of the sums, one an output channel.
    pub scales: Vec<f32>,
    /// One an output channel.
    pub bias: Vec<f32>,
    /// Mean of dropped terms (`bias * M_nsy`), one an output channel or none: adds `means[c] * sum_k (u - zp)`.
    pub means: Vec<i64>,
    /// Bits that sums are shifted left by to be in the unit of `scales` and `means`.
    pub shift: u32,
    /// Smallest output; `-inf` for none, 0 for a ReLU.
    pub low: f32,
    /// Largest output.
    pub high: f32,
}

/// Weights packed for a [`Shape`], with their epilogue.
#[derive(Debug)]
pub struct Product {
    shape: Shape,
    packed: Packed,
    chunks: Vec<Chunk>,
    panels: Vec<Panel>,
    sums: Vec<i64>,
    narrow_sums: Vec<[i32; NR]>,
    scales: Vec<[f32; NR]>,
    bias: Vec<[f32; NR]>,
    means: Vec<i64>,
    shift: u32,
    low: f32,
    high: f32,
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

/// Sums of a tile.
enum Sums<'a> {
    /// One product, the zero point still in it.
    Narrow(&'a Tile),
    /// Complete.
    Wide(&'a WideTile),
}

/// What the tiles of a block share, aligned so that no vector of it crosses a cache line.
#[repr(align(64))]
struct Scratch {
    tile: Tile,
    /// Range of the outputs so far.
    lanes: Lanes,
}

/// One call: codes and where their windows lie.
struct Call<'a> {
    kernel: &'a dyn Kernel,
    product: &'a Product,
    codes: &'a Codes,
    taps: Taps,
    /// Pixels of a line, bytes from pixel to pixel and from line to line.
    line: usize,
    pixel_stride: usize,
    line_stride: usize,
    narrow: bool,
}

/// Rows `first .. first + rows` of an image's outputs, all of one line.
#[derive(Clone, Copy)]
struct Rows {
    image: usize,
    first: usize,
    rows: usize,
    /// Offset in a plane of the first byte that the first of them reads.
    base: usize,
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
        let depth_bits = usize::BITS - shape.depth().leading_zeros();
        let mean_bits = epilogue.means.iter().map(|m| 64 - m.unsigned_abs().leading_zeros()).max().unwrap_or(0);
        // One bit for the sum of product and mean, one for the sign.
        let bits = activation_bits + depth_bits + (weight_bits - 1 + epilogue.shift).max(mean_bits) + 2;
        if bits > 64 {
            return Err(Error { bits: bits - 1 });
        }
        let (packed, sums) = Packed::new(&shape, weights);
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
        Ok(Self {
            scales: lanes(&epilogue.scales),
            bias: lanes(&epilogue.bias),
            narrow_sums: sums.chunks_exact(NR).map(|s| std::array::from_fn(|c| s[c] as i32)).collect(),
            means: epilogue.means.clone(),
            chunks: shape.chunks(),
            shift: epilogue.shift,
            low: epilogue.low,
            high: epilogue.high,
            panels: firsts.map(panel).collect(),
            packed,
            sums,
            shape,
        })
    }

    /// Geometry.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Bytes of packed weights.
    pub fn bytes(&self) -> usize {
        self.packed.bytes()
    }

    /// Sets the clamp of the epilogue.
    pub fn set_clamp(&mut self, low: f32, high: f32) {
        (self.low, self.high) = (low, high);
    }

    /// Adds this product's sums to `sums`, modulo 2^64 (AbelianAdd): `(images, height, width, channels_out)` or `(m, n)`.
    ///
    /// # Panics
    /// If `sums` has another length.
    pub fn partial(&self, kernel: &dyn Kernel, codes: &Codes, sums: &mut [i64], threads: usize) {
        let call = Call { narrow: false, ..Call::new(kernel, self, codes) };
        let (image_len, block_len) = call.blocks(sums.len(), threads);
        run::map_blocks(sums, image_len, block_len, threads, |image, start, block| {
            call.for_tiles(image, start, block.len(), |rows, panel, offset| {
                let mut wide = [[0; NR]; MR];
                call.wide(rows, panel, &mut wide);
                let stride = self.shape.channels_out;
                for (r, row) in wide.iter().enumerate().take(rows.rows) {
                    let width = self.panels[panel].width;
                    for (sum, &part) in block[offset + r * stride..][..width].iter_mut().zip(row) {
                        *sum = sum.wrapping_add(part);
                    }
                }
            });
        });
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
        residual: Option<&[f32]>,
        out: &mut [f32],
        threads: usize,
    ) -> Vec<Range> {
        assert_eq!(sums.len(), out.len(), "one sum an output");
        let stride = self.shape.channels_out;
        self.drive(kernel, codes, residual, out, threads, |call, rows, panel, absolute, place, scratch| {
            let mut wide = [[0; NR]; MR];
            for (r, row) in wide.iter_mut().enumerate().take(rows.rows) {
                let width = self.panels[panel].width;
                row[..width].copy_from_slice(&sums[absolute + r * stride..][..width]);
            }
            call.finish(rows, panel, Sums::Wide(&wide), place, &mut scratch.lanes);
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
        residual: Option<&[f32]>,
        out: &mut [f32],
        threads: usize,
    ) -> Vec<Range> {
        self.drive(kernel, codes, residual, out, threads, |call, rows, panel, _, place, scratch| {
            if call.narrow {
                call.tile(rows, panel, [0, 0], &self.chunks[0], &mut scratch.tile);
                call.finish(rows, panel, Sums::Narrow(&scratch.tile), place, &mut scratch.lanes);
            } else {
                let mut wide = [[0; NR]; MR];
                call.wide(rows, panel, &mut wide);
                call.finish(rows, panel, Sums::Wide(&wide), place, &mut scratch.lanes);
            }
        })
    }

    /// Runs `tile(call, rows, panel, absolute offset, place, scratch)` for every tile of the output.
    fn drive(
        &self,
        kernel: &dyn Kernel,
        codes: &Codes,
        residual: Option<&[f32]>,
        out: &mut [f32],
        threads: usize,
        tile: impl Fn(&Call<'_>, Rows, usize, usize, Place<'_>, &mut Scratch) + Sync,
    ) -> Vec<Range> {
        assert!(residual.is_none_or(|r| r.len() == out.len()), "a residual has the shape of the output");
        let call = Call::new(kernel, self, codes);
        let (image_len, block_len) = call.blocks(out.len(), threads);
        let parts = run::map_blocks(out, image_len, block_len, threads, |image, start, block| {
            let mut scratch = Scratch { tile: [[0; NR]; MR], lanes: Lanes::EMPTY };
            call.for_tiles(image, start, block.len(), |rows, panel, offset| {
                let absolute = image * image_len + start + offset;
                let place = Place {
                    out: &mut block[offset..],
                    residual: residual.map(|residual| &residual[absolute..]),
                    stride: self.shape.channels_out,
                    rows: rows.rows,
                    width: self.panels[panel].width,
                };
                tile(&call, rows, panel, absolute, place, &mut scratch);
            });
            scratch.lanes.range()
        });
        let mut ranges = vec![Range::EMPTY; codes.images()];
        for (image, range) in parts {
            ranges[image] = ranges[image].union(range);
        }
        ranges
    }
}

impl<'a> Call<'a> {
    fn new(kernel: &'a dyn Kernel, product: &'a Product, codes: &'a Codes) -> Self {
        let shape = &product.shape;
        assert_eq!(codes.channels(), shape.channels_in, "codes of another layer");
        let width = codes.size()[1];
        let [height, line] = codes.output(shape);
        let flat = shape.is_pointwise();
        let digits = match &product.packed {
            Packed::Limbs(limbs) => limbs.len(),
            Packed::Words(words) => words.len(),
        };
        let single = digits == 1 && codes.planes().len() == 1 && product.chunks.len() == 1;
        Self {
            kernel,
            product,
            codes,
            taps: Taps::new(shape.tap_offsets(width)),
            line: if flat { height * line } else { line },
            pixel_stride: shape.strides[1] * shape.channels_in,
            line_stride: shape.strides[0] * width * shape.channels_in,
            narrow: single && product.shift == 0 && product.means.is_empty(),
        }
    }

    /// Values of an image and of a block, given those of the whole output.
    fn blocks(&self, total: usize, threads: usize) -> (usize, usize) {
        let [height, width] = self.codes.output(&self.product.shape);
        let (channels, images) = (self.product.shape.channels_out, self.codes.images());
        let pixels = height * width;
        assert_eq!(total, images * pixels * channels, "output of another shape");
        let unit = if self.product.shape.is_pointwise() { MR } else { width.max(1) };
        let bytes_per_pixel = self.pixel_stride * if unit == MR { 1 } else { self.product.shape.strides[0] };
        let resident = (BLOCK_BYTES / bytes_per_pixel.max(1)).max(4 * MR);
        let share = (images * pixels).div_ceil(threads.max(1));
        let block = resident.min(share).max(1).next_multiple_of(unit);
        (pixels * channels, block * channels)
    }

    /// Calls `f(rows, panel, offset in the block)` for the tiles of a block that starts at value `start` of its image.
    fn for_tiles(&self, image: usize, start: usize, len: usize, mut f: impl FnMut(Rows, usize, usize)) {
        let product = self.product;
        let stride = product.shape.channels_out;
        let (first, end) = (start / stride, (start + len) / stride);
        let panels = product.panels.len();
        let weights_stay = product.bytes() <= RESIDENT_BYTES;
        let passes = if weights_stay { 1 } else { panels };
        for pass in 0..passes {
            let mut pixel = first;
            while pixel < end {
                let (y, x) = (pixel / self.line, pixel % self.line);
                let left = (self.line - x).min(end - pixel);
                let rows = left.div_ceil(left.div_ceil(MR));
                let base = image * self.codes.image_len() + y * self.line_stride + x * self.pixel_stride;
                let tile = Rows { image, first: pixel, rows, base };
                let all = if weights_stay { 0..panels } else { pass..pass + 1 };
                for panel in all {
                    f(tile, panel, (pixel - first) * stride + product.panels[panel].channel);
                }
                pixel += rows;
            }
        }
    }

    /// One integer product: a digit of the weights with a plane of the codes, over a part of the depth.
    fn tile(&self, rows: Rows, panel: usize, [digit, plane]: [usize; 2], chunk: &Chunk, tile: &mut Tile) {
        let (product, shape) = (self.product, &self.product.shape);
        let base = rows.base + product.panels[panel].input;
        let data = &self.codes.planes()[plane][base..];
        match &product.packed {
            Packed::Limbs(limbs) => {
                let (data, part) = (&data[chunk.from..], chunk.taps.clone());
                let window = Window::new(data, &self.taps, part, chunk.depth, rows.rows, self.pixel_stride);
                let window = window.expect("codes hold every window of their layer");
                let from = (chunk.taps.start * shape.tap_depth() + chunk.from) * NR;
                let panel = &limbs[digit][panel * panel_len(shape) + from..][..chunk.taps.len() * chunk.depth * NR];
                self.kernel.tile(&window, panel, tile);
            }
            Packed::Words(words) => {
                let strip = Strip::new(data, &self.taps, rows.rows, self.pixel_stride);
                let strip = strip.expect("codes hold every window of their layer");
                let pairs = self.taps.offsets().len().div_ceil(2);
                let weights = &words[digit][panel * pairs..][..pairs];
                self.kernel.depthwise(&strip, weights, tile);
            }
        }
    }

    /// Complete sums: all digits, planes and chunks, less the zero point's part, shifted, plus the means' part.
    fn wide(&self, rows: Rows, panel: usize, wide: &mut WideTile) {
        let product = self.product;
        let (digits, digit_bits) = match &product.packed {
            Packed::Limbs(limbs) => (limbs.len(), 8),
            Packed::Words(words) => (words.len(), 16),
        };
        let whole = [Chunk { taps: 0..self.taps.offsets().len(), from: 0, depth: 0 }];
        let chunks = if digit_bits == 8 { &product.chunks[..] } else { &whole };
        for digit in 0..digits {
            for plane in 0..self.codes.planes().len() {
                for chunk in chunks {
                    let mut tile = [[0; NR]; MR];
                    self.tile(rows, panel, [digit, plane], chunk, &mut tile);
                    for (wide, tile) in wide.iter_mut().zip(&tile).take(rows.rows) {
                        for (wide, &sum) in wide.iter_mut().zip(tile) {
                            *wide += i64::from(sum) << (digit_bits * digit + 8 * plane);
                        }
                    }
                }
            }
        }
        let grids = self.codes.grids(rows.image, rows.first, rows.rows);
        let sums = &product.sums[panel * NR..][..NR];
        for (r, wide) in wide.iter_mut().enumerate().take(rows.rows) {
            let zero_point = i64::from(grids.row(r).zero_point);
            let total = if product.means.is_empty() { 0 } else { self.window_sum(rows, r, panel, zero_point) };
            for (c, (wide, &column)) in wide.iter_mut().zip(sums).enumerate().take(product.panels[panel].width) {
                let mean = product.means.get(product.panels[panel].channel + c).copied().unwrap_or(0);
                *wide = ((*wide - zero_point * column) << product.shift) + mean * total;
            }
        }
    }

    /// `sum_k (u[r, k] - zp)` over the window of a row: the rank-one product with `M_nsy`.
    fn window_sum(&self, rows: Rows, row: usize, panel: usize, zero_point: i64) -> i64 {
        let shape = &self.product.shape;
        let base = rows.base + self.product.panels[panel].input + row * self.pixel_stride;
        let mut total = -zero_point * shape.depth() as i64;
        for (limb, plane) in self.codes.planes().iter().enumerate() {
            for &tap in self.taps.offsets() {
                let codes = &plane[base + tap..][..shape.tap_len()];
                total += codes.iter().map(|&u| i64::from(u)).sum::<i64>() << (8 * limb);
            }
        }
        total
    }

    fn finish(&self, rows: Rows, panel: usize, sums: Sums<'_>, place: Place<'_>, lanes: &mut Lanes) {
        let product = self.product;
        let columns = Columns {
            sums: &product.narrow_sums[panel],
            scales: &product.scales[panel],
            bias: &product.bias[panel],
            low: product.low,
            high: product.high,
        };
        let grids: Grids<'_> = self.codes.grids(rows.image, rows.first, rows.rows);
        match sums {
            Sums::Narrow(tile) => self.kernel.finish(tile, grids, &columns, place, lanes),
            Sums::Wide(tile) => self.kernel.finish_wide(tile, grids, &columns, place, lanes),
        }
    }
}

/// Values by channel laid out by panel, zero beyond each group's channels.
fn panelled(values: &[f32], groups: usize, group_out: usize) -> Vec<[f32; NR]> {
    let mut panels = Vec::new();
    for group in 0..groups {
        for chunk in values[group * group_out..][..group_out].chunks(NR) {
            let mut lanes = [0f32; NR];
            lanes[..chunk.len()].copy_from_slice(chunk);
            panels.push(lanes);
        }
    }
    panels
}

#[cfg(test)]
mod tests;
