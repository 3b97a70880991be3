//! A layer packed for running: partial sums, epilogue, or both at once.

use std::fmt;

use crate::kernel::{Columns, Ending, Kernel, MR, NR, Pairs, Place, Tile, WideTile};
use crate::panels::{Packed, panel_len};
use crate::range::Lanes;
use crate::shape::Chunk;
use crate::window::{Extent, Lines, Taps};
use crate::{Codes, Range, Shape, Weights, run};

/// Bytes of codes that a block of outputs may need before it is split, so that they stay in the second-level cache.
const BLOCK_BYTES: usize = 192 << 10;
/// Packed weights up to this size are walked once per tile of rows rather than once per block.
const RESIDENT_BYTES: usize = 384 << 10;

/// Rows that a kernel makes at once of a panel: enough to outweigh the call, few enough to leave the codes in the first-level
/// cache for the next panel.
const RUN: usize = 4 * MR;

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

/// What a product of a tile multiplies: codes and weights.
enum Part<'a> {
    Panel(Lines<'a>, &'a [i8]),
    Pairs(Lines<'a>, &'a [Pairs]),
}

/// The range of a block's outputs so far, aligned so that no vector of it crosses a cache line.
#[repr(align(64))]
struct Aligned(Lanes);

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
    /// Every output is finite.
    finite: bool,
    /// Most rows, and most lines, of a part of the output that is made at once.
    run: usize,
    lines: usize,
}

/// Outputs of an image from pixel `first` on: `rows` of a line, or several whole lines of them.
#[derive(Clone, Copy)]
struct Rows {
    image: usize,
    first: usize,
    rows: usize,
    lines: usize,
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
        let call = Call { narrow: false, ..Call::new(kernel, self, codes) }.by_tiles();
        let (image_len, block_len) = call.blocks(sums.len(), threads);
        run::map_blocks(sums, image_len, block_len, threads, |image, start, block| {
            call.for_runs(image, start, block.len(), |rows, panel, offset| {
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
        residual: Option<Residual<'_>>,
        out: &mut [f32],
        threads: usize,
    ) -> Vec<Range> {
        assert_eq!(sums.len(), out.len(), "one sum an output");
        let stride = self.shape.channels_out;
        let call = Call::new(kernel, self, codes).by_tiles();
        call.drive(residual, out, threads, |call, rows, panel, absolute, place, lanes| {
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
            return call.drive(residual, out, threads, |call, rows, panel, _, place, lanes| {
                call.fused(rows, panel, place, lanes);
            });
        }
        call.by_tiles().drive(residual, out, threads, |call, rows, panel, _, place, lanes| {
            let mut wide = [[0; NR]; MR];
            call.wide(rows, panel, &mut wide);
            call.finish(rows, panel, &wide, place, lanes);
        })
    }
}

impl<'a> Call<'a> {
    /// Runs `part(call, rows, panel, absolute offset, place, lanes)` for every part of the output.
    fn drive(
        mut self,
        residual: Option<Residual<'_>>,
        out: &mut [f32],
        threads: usize,
        part: impl Fn(&Self, Rows, usize, usize, Place<'_>, &mut Lanes) + Sync,
    ) -> Vec<Range> {
        assert!(residual.is_none_or(|r| r.values.len() == out.len()), "a residual has the shape of the output");
        self.finite = self.outputs_are_finite(residual.map_or(0.0, |residual| residual.largest));
        let (image_len, block_len) = self.blocks(out.len(), threads);
        let parts = run::map_blocks(out, image_len, block_len, threads, |image, start, block| {
            let mut lanes = Aligned(Lanes::EMPTY);
            self.for_runs(image, start, block.len(), |rows, panel, offset| {
                let absolute = image * image_len + start + offset;
                let place = Place {
                    out: &mut block[offset..],
                    residual: residual.map(|residual| &residual.values[absolute..]),
                    stride: self.product.shape.channels_out,
                    rows: rows.rows * rows.lines,
                    width: self.product.panels[panel].width,
                };
                part(&self, rows, panel, absolute, place, &mut lanes.0);
            });
            lanes.0.range()
        });
        let mut ranges = vec![Range::EMPTY; self.codes.images()];
        for (image, range) in parts {
            ranges[image] = ranges[image].union(range);
        }
        ranges
    }

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
            finite: false,
            run: if shape.is_depthwise() { usize::MAX } else { RUN },
            lines: usize::MAX,
        }
    }

    /// Whether no output can be infinite or NaN, given the largest magnitude of the residual: what the largest sum stays below
    /// in f32 throughout.
    fn outputs_are_finite(&self, residual: f32) -> bool {
        let sum = if self.narrow { 2f64.powi(31) } else { 2f64.powi(63) };
        let largest = |values: &[[f32; NR]]| {
            f64::from(values.as_flattened().iter().fold(0f32, |largest, v| largest.max(v.abs())))
        };
        let scaled = sum * f64::from(self.codes.largest_scale());
        let value = scaled * largest(&self.product.scales) + largest(&self.product.bias) + f64::from(residual);
        // Half of the largest float leaves room for every rounding; a NaN is not below it.
        scaled.max(value) < f64::from(f32::MAX) / 2.0
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

    /// The same call one tile at a time.
    fn by_tiles(mut self) -> Self {
        (self.run, self.lines) = (MR, 1);
        self
    }

    /// Calls `f(rows, panel, offset in the block)` for the parts of a block that starts at value `start` of its image.
    fn for_runs(&self, image: usize, start: usize, len: usize, mut f: impl FnMut(Rows, usize, usize)) {
        let product = self.product;
        let stride = product.shape.channels_out;
        let (first, end) = (start / stride, (start + len) / stride);
        let panels = product.panels.len();
        let weights_stay = product.bytes() <= RESIDENT_BYTES && self.run != usize::MAX;
        let passes = if weights_stay { 1 } else { panels };
        for pass in 0..passes {
            let mut pixel = first;
            while pixel < end {
                let rows = self.next_run(image, pixel, end);
                let all = if weights_stay { 0..panels } else { pass..pass + 1 };
                for panel in all {
                    f(rows, panel, (pixel - first) * stride + product.panels[panel].channel);
                }
                pixel += rows.rows * rows.lines;
            }
        }
    }

    /// The outputs from `pixel` on, below `end`, that are made at once: some of a line, or several whole lines.
    fn next_run(&self, image: usize, pixel: usize, end: usize) -> Rows {
        let (y, x) = (pixel / self.line, pixel % self.line);
        let base = image * self.codes.image_len() + y * self.line_stride + x * self.pixel_stride;
        let left = (self.line - x).min(end - pixel);
        let (rows, lines) = match left {
            // Of a line a whole number of tiles of nearly the same height, which the kernel cuts.
            _ if left > self.run => (left.div_ceil(left.div_ceil(self.run)), 1),
            _ if left == self.line => (left, ((end - pixel) / left).min((self.run / left).max(1)).min(self.lines)),
            _ => (left, 1),
        };
        let rows = if lines == 1 && rows < left { rows.next_multiple_of(MR).min(self.run) } else { rows };
        Rows { image, first: pixel, rows, lines, base }
    }

    /// One integer product: a digit of the weights with a plane of the codes, over a part of the depth.
    fn tile(&self, rows: Rows, panel: usize, [digit, plane]: [usize; 2], chunk: &Chunk, tile: &mut Tile) {
        match self.part(rows, panel, [digit, plane], chunk) {
            Part::Panel(lines, weights) => self.kernel.tile(&lines.window(0, 0, rows.rows), weights, tile),
            Part::Pairs(lines, weights) => self.kernel.depthwise(&lines.strip(0, 0, rows.rows), weights, tile),
        }
    }

    /// The only product of a layer, and its epilogue.
    fn fused(&self, rows: Rows, panel: usize, place: Place<'_>, lanes: &mut Lanes) {
        let grids = self.codes.grids(rows.image, rows.first, rows.rows * rows.lines);
        let ending = Ending { grids, columns: self.columns(panel), place, lanes };
        match self.part(rows, panel, [0, 0], &self.product.chunks[0]) {
            Part::Panel(lines, weights) => self.kernel.fused(&lines, weights, ending),
            Part::Pairs(lines, weights) => self.kernel.fused_depthwise(&lines, weights, ending),
        }
    }

    /// What a product of a tile multiplies.
    fn part(&self, rows: Rows, panel: usize, [digit, plane]: [usize; 2], chunk: &Chunk) -> Part<'_> {
        let (product, shape) = (self.product, &self.product.shape);
        let base = rows.base + product.panels[panel].input;
        let data = &self.codes.plane(plane)[base..];
        let (row_stride, line_stride) = (self.pixel_stride, self.line_stride);
        let extent = Extent { rows: rows.rows, row_stride, lines: rows.lines, line_stride };
        match &product.packed {
            Packed::Limbs(limbs) => {
                let lines = Lines::new(&data[chunk.from..], &self.taps, chunk.taps.clone(), chunk.depth, extent);
                let lines = lines.expect("codes hold every window of their layer");
                let from = (chunk.taps.start * shape.tap_depth() + chunk.from) * NR;
                let panel = &limbs[digit][panel * panel_len(shape) + from..][..chunk.taps.len() * chunk.depth * NR];
                Part::Panel(lines, panel)
            }
            Packed::Words(words) => {
                let taps = self.taps.offsets().len();
                let lines = Lines::new(data, &self.taps, 0..taps, NR, extent);
                let lines = lines.expect("codes hold every window of their layer");
                Part::Pairs(lines, &words[digit][panel * taps.div_ceil(2)..][..taps.div_ceil(2)])
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
        for (limb, plane) in self.codes.planes().enumerate() {
            for &tap in self.taps.offsets() {
                let codes = &plane[base + tap..][..shape.tap_len()];
                total += codes.iter().map(|&u| i64::from(u)).sum::<i64>() << (8 * limb);
            }
        }
        total
    }

    /// Epilogue of complete sums.
    fn finish(&self, rows: Rows, panel: usize, sums: &WideTile, place: Place<'_>, lanes: &mut Lanes) {
        let grids = self.codes.grids(rows.image, rows.first, rows.rows);
        self.kernel.finish_wide(sums, grids, &self.columns(panel), place, lanes);
    }

    /// Constants of a panel.
    fn columns(&self, panel: usize) -> Columns<'_> {
        let product = self.product;
        Columns {
            sums: &product.narrow_sums[panel],
            scales: &product.scales[panel],
            bias: &product.bias[panel],
            low: product.low,
            high: product.high,
            finite: self.finite,
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
