//! Scaled dot-product attention of several heads, on values whose heads lie side by side in each row.
//!
//! ```text
//! score[i, j] = (sum_c q[i, c] k[j, c]) * scale + mask[i, j]     the sum by mul_add over c, from 0 on; then two roundings
//! p[i, j]     = exp(score[i, j] - max_j score[i, j])             exactly 0 below -87
//! y[i, c]     = ((sum_j p[i, j] v[j, c]) + 0) * (1 / sum_j p)    by mul_add over j, from 0 on; the last sum in 16 lanes
//! ```
//!
//! Keys at the end of a sequence whose mask lies 1e4 or more below the largest of their query, for every query, are hidden: they
//! take no part, whatever they hold, and cost nothing. So padding changes no bit, whatever its length.
//!
//! Each sum belongs to one score or output, so vectors and tiles do not show in the bits. Keys that a mask takes below -87 under
//! the largest score add exact zeros. A row with a score that is NaN or `+inf`, or of which all are `-inf`, is NaN.
//!
//! Keys and values of a head are packed into panels of [`NR`] columns, keys transposed; then blocks of up to [`MR`] queries go
//! through scores, exponentials and outputs while these are in the cache. [`integers`] has the same on integers of eight bits.

use rayon::prelude::*;

use crate::kernel::{MR, NR};
use crate::softmax::Scores;
use crate::{Buffer, Kernel};

pub(crate) mod integers;

/// What a key's mask lies below the largest of its query where it is hidden, at least.
const HIDDEN: f32 = 1e4;

/// Rows in memory: row `r` begins at `r * stride`. They may lie side by side with other values, as in a joined projection.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// From the first row's first value on.
    pub values: &'a [f32],
    /// Values from row to row.
    pub stride: usize,
}

/// What is added to the scores: the element of `(batch, head, query, key)` lies at the sum of its indices times the strides,
/// which are 0 along axes that share one value; that of keys is 0 or 1.
#[derive(Debug, Clone, Copy)]
pub struct Mask<'a> {
    /// Elements.
    pub values: &'a [f32],
    /// Values from element to element along each axis.
    pub strides: [usize; 4],
}

/// Queries, keys and values: rows of `(batch, sequence)`, in each the heads side by side.
#[derive(Debug, Clone, Copy)]
pub struct Operands<'a> {
    /// `(batch, queries)` rows of `heads * depth` values.
    pub queries: Rows<'a>,
    /// `(batch, keys)` rows of `heads * depth` values.
    pub keys: Rows<'a>,
    /// `(batch, keys)` rows of `heads * width` values.
    pub values: Rows<'a>,
    /// What is added to the scores.
    pub mask: Option<Mask<'a>>,
}

/// Sizes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Sequences.
    pub batch: usize,
    /// Queries of each.
    pub queries: usize,
    /// Keys of each.
    pub keys: usize,
    /// Values of a query and of a key in one head.
    pub depth: usize,
    /// Values of a value in one head.
    pub width: usize,
}

/// Attention of `heads` heads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// Heads.
    pub heads: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// Largest magnitude of the integers that queries, keys and values become, at most 127; `None` where they stay floats.
    pub steps: Option<u8>,
}

/// Buffers of a call, kept for the next.
#[derive(Debug, Default)]
pub struct Workspace {
    /// Panels and scores of floats.
    floats: Buffer,
    /// Heads and blocks of integers.
    integers: integers::Workspace,
}

/// One factor of a product of floats: `rows` rows of `depth` values, `stride` apart.
#[derive(Debug, Clone, Copy)]
pub struct Factor<'a> {
    values: &'a [f32],
    stride: usize,
    rows: usize,
    depth: usize,
}

impl<'a> Factor<'a> {
    /// At least one row.
    ///
    /// # Panics
    /// If `values` does not hold them.
    pub(crate) fn new(values: &'a [f32], stride: usize, [rows, depth]: [usize; 2]) -> Self {
        assert!(rows > 0 && (rows - 1) * stride + depth <= values.len(), "rows of a factor");
        Self { values, stride, rows, depth }
    }

    /// Its values from the first on: row `r` begins at `r * stride`.
    pub(crate) fn as_ptr(&self) -> *const f32 {
        self.values.as_ptr()
    }

    /// Values of row `r`.
    pub(crate) fn row(&self, r: usize) -> &'a [f32] {
        &self.values[r * self.stride..][..self.depth]
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }
}

/// Where the rows of a product of floats go: [`NR`] values each, `stride` apart.
#[derive(Debug)]
pub struct Target<'a> {
    pub(crate) out: &'a mut [f32],
    pub(crate) stride: usize,
}

/// Sizes of a head's panels.
#[derive(Debug, Clone, Copy)]
struct Panels {
    /// Panels of transposed keys, `depth x NR` each.
    keys: usize,
    /// Panels of values, `keys x NR` each.
    values: usize,
    /// Floats of both.
    len: usize,
}

impl Extent {
    /// Of `count` keys.
    fn panels(&self, count: usize) -> Panels {
        let (keys, values) = (count.div_ceil(NR), self.width.div_ceil(NR));
        Panels { keys, values, len: (keys * self.depth + values * count) * NR }
    }

    /// Floats that one block of queries needs: scores and outputs, both in whole panels.
    fn workspace(&self) -> usize {
        MR * NR * (self.keys.div_ceil(NR) + self.width.div_ceil(NR))
    }
}

/// Consecutive sequences and consecutive heads that are packed at once.
#[derive(Debug, Clone, Copy)]
struct Round {
    first: [usize; 2],
    batch: usize,
    heads: usize,
}

/// What all parts of a call share.
#[derive(Debug, Clone, Copy)]
struct Call<'a> {
    attention: Attention,
    kernel: &'a dyn Kernel,
    operands: &'a Operands<'a>,
    extent: Extent,
}

impl Attention {
    /// Attention of `operands` into `y (batch, queries, heads * width)`; `scratch` holds panels and scores.
    ///
    /// # Panics
    /// If operands or `y` are shorter than `extent` says, or the mask's stride of keys is neither 0 nor 1.
    pub fn run(
        &self,
        kernel: &dyn Kernel,
        operands: &Operands<'_>,
        extent: Extent,
        y: &mut [f32],
        space: &mut Workspace,
        threads: usize,
    ) {
        self.check(operands, extent, y);
        if y.is_empty() {
            return;
        }
        if extent.keys == 0 {
            return y.fill(f32::NAN);
        }
        let call = Call { attention: *self, kernel, operands, extent };
        match (self.steps.and_then(|steps| call.integers(steps)), threads) {
            (Some(integers), _) => integers.run(y, &mut space.integers, threads),
            (None, ..=1) => call.run_alone(y, &mut space.floats),
            (None, _) => call.run_shared(y, &mut space.floats, threads),
        }
    }

    fn check(&self, operands: &Operands<'_>, extent: Extent, y: &[f32]) {
        let Extent { batch, queries, keys, depth, width } = extent;
        let holds = |rows: &Rows<'_>, count: usize, len: usize| {
            count == 0 || (count - 1) * rows.stride + len <= rows.values.len()
        };
        assert!(holds(&operands.queries, batch * queries, self.heads * depth), "queries");
        assert!(holds(&operands.keys, batch * keys, self.heads * depth), "keys");
        assert!(holds(&operands.values, batch * keys, self.heads * width), "values");
        assert_eq!(y.len(), batch * queries * self.heads * width, "outputs");
        if let Some(mask) = operands.mask {
            let sizes = [batch, self.heads, queries, keys];
            let last: usize =
                sizes.iter().zip(mask.strides).map(|(size, stride)| size.saturating_sub(1) * stride).sum();
            assert!(mask.strides[3] <= 1 && (last < mask.values.len() || sizes.contains(&0)), "mask");
        }
    }
}

impl Call<'_> {
    /// Head by head, so that its panels stay in the cache.
    fn run_alone(&self, y: &mut [f32], scratch: &mut Buffer) {
        let Extent { batch, queries, .. } = self.extent;
        let (panels, work) = (self.extent.panels(self.extent.keys).len, self.extent.workspace());
        scratch.reserve((panels + work) * size_of::<f32>());
        let (packed, work) = scratch.floats_mut(panels + work).split_at_mut(panels);
        for (b, y) in y.chunks_exact_mut(queries * self.row()).enumerate().take(batch) {
            let keys = self.keys(b);
            for head in 0..self.attention.heads {
                self.pack([b, head], keys, packed);
                self.some_queries(Round { first: [b, head], batch: 1, heads: 1 }, [0, 0], packed, y, work);
            }
        }
    }

    /// All heads of as many sequences at once as there are threads: heads are packed in parallel, then blocks of queries run.
    fn run_shared(&self, y: &mut [f32], scratch: &mut Buffer, threads: usize) {
        let (Extent { batch, queries, .. }, heads) = (self.extent, self.attention.heads);
        let some = threads.min(batch);
        let block = queries.div_ceil((4 * threads).div_ceil(some)).next_multiple_of(MR).min(queries);
        let (panels, work) = (self.extent.panels(self.extent.keys).len, self.extent.workspace());
        let (packed, space) = (some * heads * panels, some * queries.div_ceil(block) * work);
        scratch.reserve((packed + space) * size_of::<f32>());
        let (packed, space) = scratch.floats_mut(packed + space).split_at_mut(packed);
        for (i, y) in y.chunks_mut(some * queries * self.row()).enumerate() {
            let first = i * some;
            let round = Round { first: [first, 0], batch: some.min(batch - first), heads };
            let packed = &mut packed[..round.batch * heads * panels];
            let pack = |(i, packed): (usize, &mut [f32])| {
                let b = first + i / heads;
                self.pack([b, i % heads], self.keys(b), packed);
            };
            packed.par_chunks_exact_mut(panels.max(1)).enumerate().for_each(pack);
            let packed = &*packed;
            let sequences = y.par_chunks_exact_mut(queries * self.row()).enumerate();
            let space = space.par_chunks_exact_mut(work * queries.div_ceil(block));
            sequences.zip(space).for_each(|((b, y), space)| {
                let blocks = y.par_chunks_mut(block * self.row()).enumerate().zip(space.par_chunks_exact_mut(work));
                blocks.for_each(|((i, y), work)| self.some_queries(round, [b, i * block], packed, y, work));
            });
        }
    }

    /// Keys of sequence `b` that are not hidden.
    fn keys(&self, b: usize) -> usize {
        let Extent { queries, keys, .. } = self.extent;
        let Some(mask) = self.operands.mask.filter(|mask| mask.strides[3] != 0) else { return keys };
        let seen = |count: usize, stride: usize| if stride == 0 { 1 } else { count };
        let (heads, queries) = (seen(self.attention.heads, mask.strides[1]), seen(queries, mask.strides[2]));
        let mut most = 0;
        for row in (0..heads).flat_map(|h| (0..queries).map(move |i| mask.row([b, h, i], keys))) {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let hidden = row[most..].iter().rev().take_while(|&&x| x - largest <= -HIDDEN).count();
            most = keys - hidden;
            if most == keys {
                break;
            }
        }
        most
    }

    /// Values of an output row.
    fn row(&self) -> usize {
        self.attention.heads * self.extent.width
    }

    /// Queries of sequence `b` of a round from `query` on, as many as `y` has rows, in all heads of the round.
    fn some_queries(&self, round: Round, [b, query]: [usize; 2], packed: &[f32], y: &mut [f32], work: &mut [f32]) {
        let (Extent { queries, depth, width, .. }, row) = (self.extent, self.row());
        let count = y.len() / row;
        let height = count.div_ceil(count.div_ceil(MR));
        let keys = self.keys(round.first[0] + b);
        let (panels, space) = (self.extent.panels(keys), self.extent.panels(self.extent.keys).len);
        let Rows { values, stride } = self.operands.queries;
        for head in 0..round.heads {
            let packed = &packed[(b * round.heads + head) * space..][..panels.len];
            let [b, h] = [round.first[0] + b, round.first[1] + head];
            for first in (0..count).step_by(height) {
                let rows = height.min(count - first);
                let q = &values[(b * queries + query + first) * stride + h * depth..];
                let q = Factor::new(q, stride, [rows, depth]);
                let mask = |r: usize| self.operands.mask.map(|mask| mask.row([b, h, query + first + r], keys));
                let outputs = self.block(&q, keys, packed, mask, work);
                for (r, outputs) in outputs.chunks_exact(panels.values * NR).take(rows).enumerate() {
                    y[(first + r) * row + h * width..][..width].copy_from_slice(&outputs[..width]);
                }
            }
        }
    }

    /// Packs `count` keys and values of one head of one sequence.
    fn pack(&self, [b, h]: [usize; 2], count: usize, packed: &mut [f32]) {
        let (Extent { keys: all, depth, width, .. }, operands) = (self.extent, self.operands);
        let panels = self.extent.panels(count);
        let (keys, values) = packed[..panels.len].split_at_mut(panels.keys * depth * NR);
        let Rows { values: x, stride } = operands.keys;
        for (i, panel) in keys.chunks_exact_mut((depth * NR).max(1)).enumerate() {
            let x = &x[(b * all + i * NR) * stride + h * depth..];
            self.kernel.transpose(&Factor::new(x, stride, [NR.min(count - i * NR), depth]), panel);
        }
        let Rows { values: x, stride } = operands.values;
        for (i, panel) in values.chunks_exact_mut((count * NR).max(1)).enumerate() {
            let width = NR.min(width - i * NR);
            for (j, panel) in panel.as_chunks_mut::<NR>().0.iter_mut().enumerate() {
                let x = &x[(b * all + j) * stride + h * self.extent.width + i * NR..];
                match x.first_chunk::<NR>() {
                    Some(x) if width == NR => *panel = *x,
                    _ => {
                        panel[..width].copy_from_slice(&x[..width]);
                        panel[width..].fill(0.0);
                    }
                }
            }
        }
    }

    /// Outputs of a block of queries on `count` keys, in whole panels a row.
    fn block<'w, 'm>(
        &self,
        q: &Factor<'_>,
        count: usize,
        packed: &[f32],
        mask: impl Fn(usize) -> Option<&'m [f32]>,
        work: &'w mut [f32],
    ) -> &'w [f32] {
        let (Extent { depth, .. }, kernel, panels) = (self.extent, self.kernel, self.extent.panels(count));
        let (keys, values) = packed.split_at(panels.keys * depth * NR);
        let (p, out) = work.split_at_mut(MR * NR * panels.keys);
        let (stride, width) = (panels.keys * NR, panels.values * NR);
        for i in 0..panels.keys {
            let panel = &keys[i * depth * NR..][..depth * NR];
            kernel.float_product(q, panel, Target { out: &mut p[i * NR..], stride });
        }
        let mut inverse = [0f32; MR];
        for (r, inverse) in inverse.iter_mut().enumerate().take(q.rows()) {
            let scores = Scores { scale: self.attention.scale, mask: mask(r) };
            *inverse = 1.0 / kernel.exponentials(&mut p[r * stride..][..count], Some(scores));
        }
        let p = Factor::new(p, stride, [q.rows(), count]);
        for (i, panel) in values.chunks_exact(count * NR).enumerate() {
            kernel.float_product(&p, panel, Target { out: &mut out[i * NR..], stride: width });
        }
        for (out, &inverse) in out.chunks_exact_mut(width).zip(&inverse).take(q.rows()) {
            kernel.scale(out, inverse);
        }
        out
    }
}

impl<'a> Mask<'a> {
    /// Its elements of one query: one, or one a key.
    fn row(&self, index: [usize; 3], keys: usize) -> &'a [f32] {
        &self.from(index)[..if self.strides[3] == 0 { 1 } else { keys }]
    }

    /// Its elements from a query's first on.
    fn from(&self, index: [usize; 3]) -> &'a [f32] {
        let start: usize = index.iter().zip(self.strides).map(|(index, stride)| index * stride).sum();
        &self.values[start..]
    }
}

/// The rows of `x` as the columns of a panel; the columns beyond are 0.
#[inline(always)]
pub(crate) fn transpose(x: &Factor<'_>, panel: &mut [f32]) {
    let (panel, _) = panel.as_chunks_mut::<NR>();
    for r in 0..NR {
        if r < x.rows() {
            for (panel, &x) in panel.iter_mut().zip(x.row(r)) {
                panel[r] = x;
            }
        } else {
            panel.iter_mut().for_each(|panel| panel[r] = 0.0);
        }
    }
}

/// A product of floats: `out[r, c] = sum_i lhs[r, i] * panel[i, c]` by `mul_add`, from 0 on and in order.
#[inline(always)]
pub(crate) fn float_product(lhs: &Factor<'_>, panel: &[f32], target: Target<'_>) {
    let (panel, _) = panel.as_chunks::<NR>();
    for r in 0..lhs.rows() {
        let mut sums = [0f32; NR];
        for (&x, panel) in lhs.row(r).iter().zip(panel) {
            for (sum, &w) in sums.iter_mut().zip(panel) {
                *sum = x.mul_add(w, *sum);
            }
        }
        target.out[r * target.stride..][..NR].copy_from_slice(&sums);
    }
}

#[cfg(test)]
mod tests;
