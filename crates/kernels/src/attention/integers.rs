//! Attention on integers of eight bits: exact sums, with floats only between them.
//!
//! ```text
//! q8[i, c] = rne(q[i, c] * inv_q[i])                    scale_q[i] = max_c |q[i, c]| / L,  inv_q[i] = L / max_c |q[i, c]|
//! k8, v8                                                alike, one scale a key and head; |q8|, |k8|, |v8| <= L
//! s[i, j]  = sum_c q8[i, c] k8[j, c]                    exact
//! z[i, j]  = (s[i, j] scale_k[j]) * (scale_q[i] * scale) + mask[i, j]         four roundings
//! p[i, j]  = exp(z[i, j] - max_j z[i, j])               exactly 0 below -87
//! w[i, j]  = p[i, j] * scale_v[j],  W[i] = max_j w[i, j]
//! u[i, j]  = rne(w[i, j] * (255 / W[i]))                0 .. 255
//! y[i, c]  = (sum_j u[i, j] v8[j, c]) * ((W[i] / 255) * (1 / sum_j p[i, j]))  the sum exact; that of p in 16 lanes
//! ```
//!
//! Each scale belongs to one query or key, so what hidden keys hold changes nothing. The scale of a row of which all values are
//! below 2^-90 is 0. A query or key with a value that is not finite makes NaN of the queries that see it; a value, of all queries
//! of its head.
//!
//! Queries are kept as `q8 + 128`, which is what products take: what that adds goes away with the sums of the columns.

use rayon::prelude::*;

use super::{Call, Extent, Factor, Rows};
use crate::kernel::{Columns, Ending, Grids, MR, NR, Partial, Place, RowGrid, Sink};
use crate::range::Lanes;
use crate::window::{self, Lines, Taps};
use crate::{Activation, Buffer};

pub(crate) mod bodies;

/// Queries that go through scores and outputs together: two tiles, so that what passes between them stays in the first-level cache.
pub(crate) const RUN: usize = 2 * MR;
/// Code of zero among queries.
pub(crate) const ZERO: i32 = 128;

/// Heads and blocks of a call, kept for the next.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    heads: Vec<Head>,
    blocks: Vec<Block>,
}

/// Integers and scales of one head of one sequence.
#[derive(Debug, Default)]
struct Head {
    /// Keys that are not hidden.
    count: usize,
    /// Rows of whole steps of codes.
    queries: Buffer,
    query_scales: Vec<f32>,
    /// Some keys as columns.
    columns: Buffer,
    /// Panels of keys.
    keys: Buffer,
    key_sums: Vec<[i32; NR]>,
    key_scales: Vec<[f32; NR]>,
    /// Panels of values, a step for every four keys.
    values: Buffer,
    value_scales: Vec<f32>,
    /// 0, or NaN where a value is not finite.
    poison: f32,
}

/// What a run of queries passes through.
#[derive(Debug, Default)]
struct Block {
    scores: Buffer,
    codes: Buffer,
    grids: Vec<RowGrid>,
}

/// A block of scores whose weights are to become codes.
#[derive(Debug)]
pub struct Weighed<'a> {
    /// `s[i, j] * scale_k[j]`, rows `stride` values apart.
    pub(crate) scores: &'a mut [f32],
    pub(crate) stride: usize,
    /// Keys.
    pub(crate) count: usize,
    /// What the scores of each row are multiplied by, up to [`RUN`] rows.
    pub(crate) rows: &'a [f32],
    pub(crate) mask: Option<Masks<'a>>,
    /// `scale_v`.
    pub(crate) values: &'a [f32],
    /// Codes of each row, in whole steps of four.
    pub(crate) codes: &'a mut [u8],
}

/// Masks of consecutive queries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Masks<'a> {
    /// From the first query's on.
    values: &'a [f32],
    /// Values from query to query.
    stride: usize,
    /// Whether all keys of a query share one.
    one: bool,
}

impl<'a> Masks<'a> {
    /// The mask of a query: one value, or one a key.
    #[inline(always)]
    pub(crate) fn row(&self, r: usize, count: usize) -> &'a [f32] {
        &self.values[r * self.stride..][..if self.one { 1 } else { count }]
    }
}

/// A call whose integers are at most `steps`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Integers<'a> {
    call: Call<'a>,
    steps: u8,
}

/// Bytes of whole steps of four.
fn whole(len: usize) -> usize {
    len.next_multiple_of(4)
}

impl<'a> Call<'a> {
    /// The call on integers, unless its sums could leave 32 bits.
    pub(super) fn integers(self, steps: u8) -> Option<Integers<'a>> {
        let fits = |len: usize| len.checked_mul(255 * 128).is_some_and(|sum| sum <= i32::MAX as usize);
        let Extent { keys, depth, width, .. } = self.extent;
        (fits(keys) && fits(depth) && depth > 0 && width > 0).then_some(Integers { call: self, steps: steps.min(127) })
    }
}

impl Integers<'_> {
    /// Attention into `y`: head by head on one thread; otherwise all heads of as many sequences at once as there are threads.
    pub(super) fn run(&self, y: &mut [f32], space: &mut Workspace, threads: usize) {
        let (Extent { batch, queries, .. }, heads) = (self.call.extent, self.call.attention.heads);
        let Workspace { heads: packed, blocks } = space;
        let taps = Taps::new(vec![0]);
        let sequence = queries * self.call.row();
        if threads <= 1 {
            packed.resize_with(packed.len().max(1), Head::default);
            blocks.resize_with(blocks.len().max(1), Block::default);
            for (b, y) in y.chunks_exact_mut(sequence).enumerate() {
                for h in 0..heads {
                    self.pack([b, h], &mut packed[0]);
                    self.some_queries([b, h], 0, &packed[0], &taps, y, &mut blocks[0]);
                }
            }
            return;
        }
        let some = threads.min(batch);
        let share = queries.div_ceil((4 * threads).div_ceil(some)).next_multiple_of(RUN).min(queries);
        let per = queries.div_ceil(share);
        packed.resize_with(packed.len().max(some * heads), Head::default);
        blocks.resize_with(blocks.len().max(some * per), Block::default);
        for (round, y) in y.chunks_mut(some * sequence).enumerate() {
            let first = round * some;
            let count = y.len() / sequence;
            let pack = |(i, head): (usize, &mut Head)| self.pack([first + i / heads, i % heads], head);
            packed[..count * heads].par_iter_mut().enumerate().for_each(pack);
            let packed = &*packed;
            let sequences = y.par_chunks_exact_mut(sequence).enumerate().zip(blocks.par_chunks_mut(per));
            sequences.for_each(|((b, y), blocks)| {
                let parts = y.par_chunks_mut(share * self.call.row()).enumerate().zip(blocks);
                parts.for_each(|((i, y), block)| {
                    for h in 0..heads {
                        self.some_queries([first + b, h], i * share, &packed[b * heads + h], &taps, y, block);
                    }
                });
            });
        }
    }

    /// Makes integers of one head of a sequence.
    fn pack(&self, [b, h]: [usize; 2], head: &mut Head) {
        let Extent { queries, keys, depth, width, .. } = self.call.extent;
        let (operands, kernel) = (self.call.operands, self.call.kernel);
        let rows = |rows: Rows<'_>, first: usize, len: usize| first * rows.stride + h * len;
        head.count = self.call.keys(b);
        let x = operands.queries;
        let x = Factor::new(&x.values[rows(x, b * queries, depth)..], x.stride, [queries, depth]);
        head.queries.reserve(queries * whole(depth));
        head.query_scales.resize(queries, 0.0);
        kernel.code_queries(&x, self.steps, head.queries.bytes_mut(queries * whole(depth)), &mut head.query_scales);

        let panels = head.count.div_ceil(NR);
        let len = whole(depth) * NR;
        head.keys.reserve(panels * len);
        head.key_sums.resize(panels, [0; NR]);
        head.key_scales.resize(panels, [0.0; NR]);
        head.columns.reserve(depth * NR * size_of::<f32>());
        let columns = head.columns.floats_mut(depth * NR);
        let packed = head.keys.signed_mut(panels * len).chunks_exact_mut(len);
        for (i, panel) in packed.enumerate() {
            let x = operands.keys;
            let count = NR.min(head.count - i * NR);
            let x = Factor::new(&x.values[rows(x, b * keys + i * NR, depth)..], x.stride, [count, depth]);
            kernel.transpose(&x, columns);
            kernel.code_keys(columns, self.steps, panel, (&mut head.key_sums[i], &mut head.key_scales[i]));
        }

        let (x, len) = (operands.values, whole(head.count) * width.next_multiple_of(NR));
        let x = Factor::new(&x.values[rows(x, b * keys, width)..], x.stride, [head.count, width]);
        head.values.reserve(len);
        head.value_scales.resize(head.count, 0.0);
        kernel.code_values(&x, self.steps, head.values.signed_mut(len), &mut head.value_scales);
        head.poison = if head.value_scales.iter().any(|scale| scale.is_nan()) { f32::NAN } else { 0.0 };
    }

    /// Queries of a head from `first` on, as many as `y` has rows.
    fn some_queries(
        &self,
        [b, h]: [usize; 2],
        first: usize,
        head: &Head,
        taps: &Taps,
        y: &mut [f32],
        block: &mut Block,
    ) {
        let (width, row) = (self.call.extent.width, self.call.row());
        let panels = head.count.div_ceil(NR);
        block.scores.reserve(RUN * panels * NR * size_of::<f32>());
        block.codes.reserve(RUN * whole(head.count));
        for (i, y) in y.chunks_mut(RUN * row).enumerate() {
            let (first, rows) = (first + i * RUN, y.len() / row);
            self.scores(head, [first, rows], taps, block);
            self.weigh([b, h], head, [first, rows], block);
            self.outputs(head, rows, taps, block, (&mut y[h * width..], row));
        }
    }

    /// `s[i, j] * scale_k[j]` of `rows` queries from `first` on, in whole panels.
    fn scores(&self, head: &Head, [first, rows]: [usize; 2], taps: &Taps, block: &mut Block) {
        let depth = whole(self.call.extent.depth);
        let (panels, grid, mut lanes) = (head.count.div_ceil(NR), grid(1.0, ZERO), Lanes::EMPTY);
        let codes = &head.queries.bytes((first + rows) * depth)[first * depth..];
        let lines = lines(codes, taps, depth, rows);
        let scores = block.scores.floats_mut(rows * panels * NR);
        let keys = head.keys.signed(panels * depth * NR).chunks_exact(depth * NR);
        for (i, weights) in keys.enumerate() {
            let columns = columns(&head.key_sums[i], &head.key_scales[i]);
            let place = place(&mut scores[i * NR..], panels * NR, [rows, NR]);
            let ending =
                Ending { grids: Grids::Same(&grid), columns, place, lanes: &mut lanes, beyond: None, rank_one: None };
            self.call.kernel.fused(&[Partial { lines, weights, raise: 0 }], ending);
        }
    }

    /// The codes `u` of these scores, and the scales of their outputs.
    fn weigh(&self, [b, h]: [usize; 2], head: &Head, [first, rows]: [usize; 2], block: &mut Block) {
        let (count, stride, call) = (head.count, head.count.div_ceil(NR) * NR, &self.call);
        let Block { scores, codes, grids } = block;
        let mask = call.operands.mask.map(|mask| Masks {
            values: mask.from([b, h, first]),
            stride: mask.strides[2],
            one: mask.strides[3] == 0,
        });
        let (mut of_rows, mut scales) = ([0f32; RUN], [0f32; RUN]);
        for (scale, &own) in of_rows.iter_mut().zip(&head.query_scales[first..first + rows]) {
            *scale = own * call.attention.scale;
        }
        let weighed = Weighed {
            scores: scores.floats_mut(rows * stride),
            stride,
            count,
            rows: &of_rows[..rows],
            mask,
            values: &head.value_scales,
            codes: codes.bytes_mut(rows * whole(count)),
        };
        call.kernel.weigh(weighed, &mut scales[..rows]);
        grids.clear();
        grids.extend(scales[..rows].iter().map(|scale| grid(scale + head.poison, 0)));
    }

    /// Outputs of `rows` queries, `stride` values apart.
    fn outputs(&self, head: &Head, rows: usize, taps: &Taps, block: &mut Block, (y, stride): (&mut [f32], usize)) {
        let (width, depth, mut lanes) = (self.call.extent.width, whole(head.count), Lanes::EMPTY);
        let lines = lines(block.codes.bytes(rows * depth), taps, depth, rows);
        let values = head.values.signed(depth * width.next_multiple_of(NR)).chunks_exact(depth * NR);
        for (i, weights) in values.enumerate() {
            let columns = columns(&[0; NR], &[1.0; NR]);
            let place = place(&mut y[i * NR..], stride, [rows, NR.min(width - i * NR)]);
            let ending = Ending {
                grids: Grids::Each(&block.grids),
                columns,
                place,
                lanes: &mut lanes,
                beyond: None,
                rank_one: None,
            };
            self.call.kernel.fused(&[Partial { lines, weights, raise: 0 }], ending);
        }
    }
}

/// A grid of which products take scale and zero point only.
fn grid(scale: f32, zero_point: i32) -> RowGrid {
    RowGrid { scale, inv: 0.0, inv_wide: 0.0, zero_point, code_max: 255 }
}

/// Rows of `depth` codes, one behind the other.
fn lines<'a>(codes: &'a [u8], taps: &'a Taps, depth: usize, rows: usize) -> Lines<'a> {
    let extent = window::Extent { rows, row_stride: depth, lines: 1, line_stride: 0 };
    Lines::new(codes, taps, 0..1, depth, extent).expect("rows of codes")
}

/// Columns without a bias. What their outputs are is not asked, so they pass for finite.
fn columns<'a>(sums: &'a [i32; NR], scales: &'a [f32; NR]) -> Columns<'a> {
    Columns { sums, scales, bias: &[0.0; NR], activation: Activation::NONE, finite: true }
}

/// `rows` rows of `width` outputs, `stride` values apart.
fn place(out: &mut [f32], stride: usize, [rows, width]: [usize; 2]) -> Place<'_> {
    Place { out: Sink::Floats(out), residual: None, stride, line: rows, skip: 0, rows, width }
}

#[cfg(test)]
mod tests;
