//! One call of a product: which outputs are made at once, and from which codes and weights.

use super::{Product, Residual, Share};
use crate::beyond::Beside;
use crate::kernel::{Columns, Ending, Kernel, MR, NR, Pairs, Partial, Place, Sink, Tile, WideTile};
use crate::panels::{Packed, panel_len};
use crate::range::Lanes;
use crate::shape::Chunk;
use crate::window::{Extent, Lines, Taps};
use crate::{Codes, Range, run};

/// Bytes of codes that a block of outputs may need before it is split, so that they stay in the second-level cache.
const BLOCK_BYTES: usize = 192 << 10;
/// Packed weights up to this size are walked once per tile of rows rather than once per block.
const RESIDENT_BYTES: usize = 384 << 10;
/// Rows that a kernel makes at once of a panel: enough to outweigh the call, few enough to leave the codes in the first-level
/// cache for the next panel.
const RUN: usize = 4 * MR;

/// What a product of a tile multiplies: codes and weights.
enum Part<'a> {
    Panel(Lines<'a>, &'a [i8]),
    Pairs(Lines<'a>, &'a [Pairs]),
}

/// A digit of the weights by a plane of the codes, and the bits that the sums of those before are shifted left by.
#[derive(Debug, Clone, Copy)]
struct Pair {
    digit: usize,
    plane: usize,
    raise: u32,
}

/// All pairs, from the most significant on; of a value of `2^(bits digit + 8 plane)`.
fn pairs(digits: usize, planes: usize, bits: u32) -> Vec<Pair> {
    let power = |digit: usize, plane: usize| bits * digit as u32 + 8 * plane as u32;
    let mut all: Vec<_> = (0..digits).flat_map(|digit| (0..planes).map(move |plane| (digit, plane))).collect();
    all.sort_by_key(|&(digit, plane)| std::cmp::Reverse(power(digit, plane)));
    let before = std::iter::once(None).chain(all.iter().map(|&(digit, plane)| Some(power(digit, plane))));
    let pair = |(&(digit, plane), before): (&(usize, usize), Option<u32>)| {
        let power = power(digit, plane);
        Pair { digit, plane, raise: before.map_or(0, |before| before - power) }
    };
    all.iter().zip(before).map(pair).collect()
}

/// The range of a block's outputs so far, aligned so that no vector of it crosses a cache line.
#[repr(align(64))]
struct Aligned(Lanes);

/// One call: codes and where their windows lie.
pub(super) struct Call<'a> {
    pub(super) kernel: &'a dyn Kernel,
    pub(super) product: &'a Product,
    pub(super) packed: &'a Packed,
    pub(super) codes: &'a Codes,
    /// What of the codes is multiplied.
    pub(super) share: Share,
    pub(super) taps: Taps,
    /// Pixels of a line, bytes from pixel to pixel and from line to line.
    line: usize,
    pub(super) pixel_stride: usize,
    pub(super) line_stride: usize,
    /// Complete sums fit i32, and are made of `pairs`.
    pub narrow: bool,
    pairs: Vec<Pair>,
    /// Every output is finite.
    finite: bool,
    /// Most rows, and most lines, of a part of the output that is made at once.
    run: usize,
    lines: usize,
}

/// Outputs of an image from pixel `first` on: `rows` of a line, or several whole lines of them.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub image: usize,
    pub first: usize,
    pub rows: usize,
    pub lines: usize,
    /// Offset in a plane of the first byte that the first of them reads.
    pub base: usize,
}

impl<'a> Call<'a> {
    /// Runs `part(call, [panel, absolute offset], rows, place, (range, buffers))` for every part of the output.
    pub(super) fn drive(
        mut self,
        residual: Option<Residual<'_>>,
        out: &mut [f32],
        threads: usize,
        part: impl Fn(&Self, [usize; 2], Rows, Place<'_>, (&mut Lanes, &mut Beside)) + Sync,
    ) -> Vec<Range> {
        assert!(residual.is_none_or(|r| r.values.len() == out.len()), "a residual has the shape of the output");
        self.finite = self.outputs_are_finite(residual.map_or(0.0, |residual| residual.largest));
        let (image_len, block_len) = self.blocks(out.len(), threads);
        let parts = run::map_blocks(out, image_len, block_len, threads, |image, start, block| {
            let mut lanes = Aligned(Lanes::EMPTY);
            Beside::with(|beside| {
                self.for_runs(image, start, block.len(), |rows, panel, offset| {
                    let absolute = image * image_len + start + offset;
                    let residual = residual.map(|residual| &residual.values[absolute..]);
                    let place = self.place(rows, panel, Sink::Floats(&mut block[offset..]), residual);
                    part(&self, [panel, absolute], rows, place, (&mut lanes.0, beside));
                });
            });
            lanes.0.range()
        });
        run::united(self.codes.images(), parts)
    }

    /// Where outputs go that lie close together.
    fn place<'b>(&self, rows: Rows, panel: usize, out: Sink<'b>, residual: Option<&'b [f32]>) -> Place<'b> {
        Place {
            out,
            residual,
            stride: self.product.shape.channels_out,
            line: rows.rows,
            skip: 0,
            rows: rows.rows * rows.lines,
            width: self.product.panels[panel].width,
        }
    }

    /// Makes the outputs as codes, which lie in `next` with `pads` around them; returns their ranges.
    pub(super) fn drive_codes(mut self, next: &mut Codes, pads: [usize; 4], threads: usize) -> Vec<Range> {
        let [height, width] = self.codes.output(&self.product.shape);
        let [top, left, _, right] = pads;
        let channels = self.product.shape.channels_out;
        // Pixels of a line of the codes are one after the other; beyond it they may not be.
        (self.line, self.finite) = (if pads == [0; 4] { self.line } else { width }, self.outputs_are_finite(0.0));
        let (line, skip) = ((left + width + right) * channels, (left + right) * channels);
        let (_, block) = self.blocks(self.codes.images() * height * width * channels, threads);
        let block = (block / (width * channels)).max(1) * line;
        let one = |image: usize| {
            let (codes, grid) = next.image_mut(image);
            let inner = &mut codes[top * line..(top + height) * line];
            let len = inner.len();
            let parts = run::map_blocks(inner, len, block, threads, |_, start, codes| {
                let mut lanes = Aligned(Lanes::EMPTY);
                let (first, lines) = (start / line, codes.len() / line);
                Beside::with(|beside| {
                    self.for_runs(image, first * width * channels, lines * width * channels, |rows, panel, offset| {
                        let start = offset + offset / (width * channels) * skip + left * channels;
                        let place = self.place(rows, panel, Sink::Codes(&mut codes[start..], &grid), None);
                        self.fused(rows, panel, Place { skip, ..place }, (&mut lanes.0, beside));
                    });
                });
                lanes.0.range()
            });
            parts.iter().fold(Range::EMPTY, |all, part| all.union(part.1))
        };
        (0..self.codes.images()).map(one).collect()
    }

    pub(super) fn new(kernel: &'a dyn Kernel, product: &'a Product, codes: &'a Codes) -> Self {
        Self::of(kernel, product, &product.packed, codes)
    }

    /// A call with the product's digits where they were unpacked to.
    pub(super) fn of(kernel: &'a dyn Kernel, product: &'a Product, packed: &'a Packed, codes: &'a Codes) -> Self {
        let shape = &product.shape;
        assert_eq!(codes.channels(), shape.channels_in, "codes of another layer");
        let width = codes.size()[1];
        let [height, line] = codes.output(shape);
        let flat = shape.is_pointwise();
        let (digits, bits) = packed.digits();
        let planes = codes.planes().len();
        let (single, beyond) = ((digits, planes) == (1, 1), codes.largest_beyond());
        // The sums of what lies beyond are bounded by the weights of a column, or by the largest weight.
        let sparse = codes.most_beyond().saturating_mul(product.largest_weight);
        let sparse = sparse.min(beyond.saturating_mul(product.largest));
        let largest = codes.code_max().saturating_mul(product.largest).saturating_add(sparse);
        let no_means = product.means.is_empty();
        let fits = (single && beyond == 0 && no_means) || largest <= i64::from(i32::MAX);
        Self {
            kernel,
            product,
            packed,
            codes,
            share: Share::WHOLE,
            taps: Taps::new(shape.tap_offsets(width)),
            line: if flat { height * line } else { line },
            pixel_stride: shape.strides[1] * shape.channels_in,
            line_stride: shape.strides[0] * width * shape.channels_in,
            narrow: fits
                && (1..=3).contains(&digits)
                && product.chunks.len() == 1
                && product.shift == 0
                && (no_means || !product.narrow_means.is_empty()),
            pairs: pairs(digits, planes, bits),
            finite: false,
            // What is added to many rows would leave the first-level cache.
            run: if shape.is_depthwise() && beyond == 0 { usize::MAX } else { RUN },
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
    pub(super) fn blocks(&self, total: usize, threads: usize) -> (usize, usize) {
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

    /// The same call of a part of the codes, whose other bits are zero.
    pub(super) fn with(self, share: Share) -> Self {
        Self { share, ..self }
    }

    /// Adds the sums to `sums`, modulo 2^64.
    pub(super) fn add_to(&self, sums: &mut [i64], threads: usize) {
        let (image_len, block_len) = self.blocks(sums.len(), threads);
        run::map_blocks(sums, image_len, block_len, threads, |image, start, block| {
            self.add_to_block(image, start, block);
        });
    }

    /// Adds the sums of consecutive outputs of an image, from value `start` of it on, to `block`, modulo 2^64.
    pub(super) fn add_to_block(&self, image: usize, start: usize, block: &mut [i64]) {
        let stride = self.product.shape.channels_out;
        Beside::with(|beside| {
            self.for_runs(image, start, block.len(), |rows, panel, offset| {
                let mut wide = [[0; NR]; MR];
                self.wide(rows, panel, &mut wide, beside);
                let width = self.product.panels[panel].width;
                for (r, row) in wide.iter().enumerate().take(rows.rows) {
                    for (sum, &part) in block[offset + r * stride..][..width].iter_mut().zip(row) {
                        *sum = sum.wrapping_add(part);
                    }
                }
            });
        });
    }

    /// The same call one tile at a time.
    pub(super) fn by_tiles(mut self) -> Self {
        (self.run, self.lines) = (MR, 1);
        self
    }

    /// Calls `f(rows, panel, offset in the block)` for the parts of a block that starts at value `start` of its image.
    pub(super) fn for_runs(&self, image: usize, start: usize, len: usize, mut f: impl FnMut(Rows, usize, usize)) {
        let product = self.product;
        let stride = product.shape.channels_out;
        let (first, end) = (start / stride, (start + len) / stride);
        let panels = product.panels.len();
        let weights_stay = self.packed.bytes() <= RESIDENT_BYTES && self.run != usize::MAX;
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

    /// The products of a layer, added up in i32, and their epilogue.
    pub(super) fn fused(&self, rows: Rows, panel: usize, place: Place<'_>, (lanes, beside): (&mut Lanes, &mut Beside)) {
        let grids = self.codes.grids(rows.image, rows.first, rows.rows * rows.lines);
        let (beyond, rank_one) = self.added(rows, panel, beside);
        let ending = Ending { grids, columns: self.columns(panel), place, lanes, beyond, rank_one };
        // Arrays by the number of pairs, which is that of limbs by limbs: nothing is allocated here.
        macro_rules! by_count {
            ($fused:ident, $part:path, [$($count:literal)*]) => {
                match self.pairs.len() {
                    $($count => self.kernel.$fused(
                        &<[_; $count]>::map(std::array::from_fn(|i| self.pairs[i]), |Pair { digit, plane, raise }| {
                            let part = self.part(rows, panel, [digit, plane], &self.product.chunks[0]);
                            let $part(lines, weights) = part else { unreachable!("one kind of weights a layer") };
                            Partial { lines, weights, raise }
                        }),
                        ending,
                    ),)*
                    count => unreachable!("{count} pairs of limbs of at most 24 bits"),
                }
            };
        }
        match self.packed {
            Packed::Limbs(_) => by_count!(fused, Part::Panel, [1 2 3 4 6 9]),
            Packed::Words(_) => by_count!(fused_depthwise, Part::Pairs, [1 2 3 4 6 9]),
        }
    }

    /// What a product of a tile multiplies.
    fn part(&self, rows: Rows, panel: usize, [digit, plane]: [usize; 2], chunk: &Chunk) -> Part<'_> {
        let (product, shape) = (self.product, &self.product.shape);
        let base = rows.base + product.panels[panel].input;
        let data = &self.codes.plane(plane)[base..];
        let (row_stride, line_stride) = (self.pixel_stride, self.line_stride);
        let extent = Extent { rows: rows.rows, row_stride, lines: rows.lines, line_stride };
        match self.packed {
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

    /// Complete sums: all digits, planes and chunks, less the zero point's part, plus that of what lies beyond the codes, shifted,
    /// plus the means' part.
    pub(super) fn wide(&self, rows: Rows, panel: usize, wide: &mut WideTile, beside: &mut Beside) {
        let product = self.product;
        let (digits, digit_bits) = self.packed.digits();
        let whole = [Chunk { taps: 0..self.taps.offsets().len(), from: 0, depth: 0 }];
        let chunks = if digit_bits == 8 { &product.chunks[..] } else { &whole };
        for digit in 0..digits {
            for plane in (0..self.codes.planes().len()).filter(|&plane| self.share.has(plane)) {
                for chunk in chunks {
                    let mut tile = [[0; NR]; MR];
                    self.tile(rows, panel, [digit, plane], chunk, &mut tile);
                    for (wide, tile) in wide.iter_mut().zip(&tile).take(rows.rows) {
                        for (wide, &sum) in wide.iter_mut().zip(tile) {
                            *wide += i64::from(sum) << (digit_bits * digit as u32 + 8 * plane as u32);
                        }
                    }
                }
            }
        }
        let totals = self.add_sparse(rows, panel, wide, beside);
        let grids = self.codes.grids(rows.image, rows.first, rows.rows);
        let sums = &product.sums[panel * NR..][..NR];
        for (r, wide) in wide.iter_mut().enumerate().take(rows.rows) {
            let zero_point = self.share.zero(grids.row(r).zero_point);
            for (c, (wide, &column)) in wide.iter_mut().zip(sums).enumerate().take(product.panels[panel].width) {
                let mean = product.means.get(product.panels[panel].channel + c).copied().unwrap_or(0);
                *wide = ((*wide - zero_point * column) << product.shift) + mean * totals[r];
            }
        }
    }

    /// Epilogue of complete sums.
    pub(super) fn finish(&self, rows: Rows, panel: usize, sums: &WideTile, place: Place<'_>, lanes: &mut Lanes) {
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
            activation: product.activation,
            finite: self.finite,
        }
    }
}
