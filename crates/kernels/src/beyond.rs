//! What lies beyond the codes of clipped activations: sparse integers on the same grid, so that nothing is lost.
//!
//! ```text
//! u' = rne(x / scale) + zp,    u = clamp(u', 0, code_max),    delta = u' - u
//! sum(r, c) = sum_k (u[r, k] - zp) Q[k, c] + sum over the deltas in the window of row r of delta Q[k, c]
//! ```
//!
//! A delta lies at the place of its code, so the windows that read the code are those it is multiplied for, whatever the
//! geometry, and the weights are those that are packed for the codes.

use std::cell::Cell;
use std::ops::Range as Span;

use crate::kernel::{Kernel, NR, RowGrid};
use crate::{Codes, Range, run};

/// An integer beyond a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beyond {
    /// Place of the code in a plane.
    pub at: usize,
    /// What the code lacks.
    pub delta: i32,
}

/// A product of an integer beyond: with the weights at a place of a panel, for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Row among those that are made at once.
    pub row: usize,
    /// Depth in the panel, its taps one after the other; of depthwise panels tap times [`NR`] plus channel.
    pub at: usize,
    /// The integer.
    pub delta: i32,
}

/// The rule by which rows or images are clipped. Every method is a function of its arguments alone.
pub trait Clipping: Sync {
    /// The grid of a whole range.
    fn grid(&self, range: Range) -> RowGrid;
    /// The factor of magnitudes whose integers are summed, at most 2^22 times any of them; 0 where nothing is to be clipped.
    fn unit(&self, range: Range) -> f32;
    /// The grid to try after `attempt` others that left too many values beyond, given the sum of magnitudes and their number;
    /// `None` where only that of the whole range is left. On a grid of up to 12 bits no value is 2^22 steps or more.
    fn clipped(&self, range: Range, sum: u64, count: usize, attempt: u32) -> Option<RowGrid>;
    /// Most values of `count` that may lie beyond.
    fn most(&self, count: usize) -> usize;
}

/// A row or image that is clipped: its values in lines that lie one behind the other, and the places of their codes.
struct Source<'a> {
    kernel: &'a dyn Kernel,
    x: &'a [f32],
    /// Values of a line.
    line: usize,
    /// Place of the first code, and from the first of a line to that of the next.
    first: usize,
    stride: usize,
    threads: usize,
}

impl Source<'_> {
    /// Lines of each part that is worked on at once.
    fn part(&self) -> usize {
        let lines = self.x.len() / self.line.max(1);
        lines.div_ceil(if self.threads <= 1 { 1 } else { 4 * self.threads }).max(1)
    }

    /// The sum of the integers of all magnitudes.
    fn magnitudes(&self, unit: f32) -> u64 {
        let len = self.part() * self.line.max(1);
        let parts = self.x.len().div_ceil(len);
        let part = |i: usize| self.kernel.magnitudes(&self.x[i * len..self.x.len().min((i + 1) * len)], unit);
        run::map(parts, self.threads, part).into_iter().sum()
    }

    /// What lies beyond a grid, in order of place, behind what `beyond` holds.
    ///
    /// Where there is more than `most` of it, not all may be found.
    fn find(&self, grid: &RowGrid, most: usize, beyond: &mut Vec<Beyond>) {
        let lines = self.x.len() / self.line.max(1);
        let each = |lines: Span<usize>, beyond: &mut Vec<Beyond>| {
            let most = beyond.len() + most;
            for y in lines {
                let line = &self.x[y * self.line..][..self.line];
                self.kernel.beyond(line, grid, (self.first + y * self.stride, most), beyond);
                if beyond.len() > most {
                    break;
                }
            }
        };
        let part = self.part();
        if part >= lines {
            return each(0..lines, beyond);
        }
        let parts = run::map(lines.div_ceil(part), self.threads, |i| {
            let mut found = Vec::new();
            each(i * part..lines.min((i + 1) * part), &mut found);
            found
        });
        parts.into_iter().for_each(|part| beyond.extend(part));
    }

    /// The grid of a row or image of this range; what lies beyond it is put behind what `beyond` holds.
    fn settle(&self, range: Range, clipping: &dyn Clipping, beyond: &mut Vec<Beyond>) -> RowGrid {
        let unit = if range.is_finite() { clipping.unit(range) } else { 0.0 };
        if unit > 0.0 {
            let (sum, held, most) = (self.magnitudes(unit), beyond.len(), clipping.most(self.x.len()));
            for attempt in 0.. {
                let Some(grid) = clipping.clipped(range, sum, self.x.len(), attempt) else { break };
                self.find(&grid, most, beyond);
                if beyond.len() - held <= most {
                    return grid;
                }
                beyond.truncate(held);
            }
        }
        clipping.grid(range)
    }
}

impl Codes {
    /// Quantises images as [`Codes::fill_images`], each on the grid that `clipping` gives it; `ranges` are theirs.
    ///
    /// # Panics
    /// If `x` does not fill `shape` or `ranges` has not one range an image.
    #[allow(clippy::too_many_arguments, reason = "those of `fill_images`")]
    pub fn clip_images(
        &mut self,
        kernel: &dyn Kernel,
        x: &[f32],
        shape: [usize; 4],
        pads: [usize; 4],
        ranges: &[Range],
        clipping: &dyn Clipping,
        threads: usize,
    ) {
        let [n, h, w, c] = shape;
        assert_eq!((x.len(), ranges.len()), (n * h * w * c, n), "images and ranges");
        let [top, left, bottom, right] = pads;
        let stride = (left + w + right) * c;
        let (len, image_len) = (h * w * c, (top + h + bottom) * stride);
        let mut beyond = std::mem::take(&mut self.beyond);
        beyond.clear();
        let grid = |(image, &range): (usize, &Range)| {
            let x = &x[image * len..][..len];
            let first = image * image_len + top * stride + left * c;
            Source { kernel, x, line: w * c, first, stride, threads }.settle(range, clipping, &mut beyond)
        };
        let grids: Vec<RowGrid> = ranges.iter().enumerate().map(grid).collect();
        self.fill_images(kernel, x, shape, pads, &grids, threads);
        self.beyond = beyond;
    }

    /// Quantises rows as [`Codes::measure_rows`], each on the grid that `clipping` gives it; `ranges` are theirs, where known.
    ///
    /// # Panics
    /// If `x` is not made of rows of `k` values, or `ranges` has not one range a row.
    pub fn clip_rows(
        &mut self,
        kernel: &dyn Kernel,
        x: &[f32],
        k: usize,
        ranges: Option<&[Range]>,
        clipping: &dyn Clipping,
        threads: usize,
    ) {
        /// Bytes that are measured before they are quantised.
        const BLOCK: usize = 256 << 10;
        let m = x.len() / k.max(1);
        assert!(x.len() == m * k && ranges.is_none_or(|ranges| ranges.len() == m), "rows and ranges");
        self.prepare([1, 1, m, k], &[clipping.grid(Range::EMPTY)], true);
        self.grids.clear();
        let block = (BLOCK / size_of::<f32>() / k.max(1)).max(1);
        let part = block.div_ceil(if threads <= 1 { 1 } else { 4 * threads });
        for first in (0..m).step_by(block) {
            let rows = first..m.min(first + block);
            let parts = run::map(rows.len().div_ceil(part), threads, |i| {
                let (mut grids, mut beyond) = (Vec::with_capacity(part), Vec::new());
                for row in first + i * part..rows.end.min(first + (i + 1) * part) {
                    let x = &x[row * k..][..k];
                    let range = ranges.map_or_else(|| kernel.range(x), |ranges| ranges[row]);
                    let row = Source { kernel, x, line: k, first: row * k, stride: k, threads: 1 };
                    grids.push(row.settle(range, clipping, &mut beyond));
                }
                (grids, beyond)
            });
            for (grids, beyond) in parts {
                self.grids.extend(grids);
                self.beyond.extend(beyond);
            }
            if k > 0 {
                self.quantise_rows(kernel, x, k, rows, threads);
            }
        }
    }
}

/// Rows of windows: where the first reads, and what a window is made of.
#[derive(Debug, Clone, Copy)]
pub struct Windows<'a> {
    /// Place of the first byte of the first row of the first line.
    pub base: usize,
    /// Rows of a line, and bytes from one to the next.
    pub rows: usize,
    pub row_stride: usize,
    /// Lines, and bytes from one to the next.
    pub lines: usize,
    pub line_stride: usize,
    /// Offsets of the taps, bytes that count of each, and depths of each in a panel.
    pub taps: &'a [usize],
    pub len: usize,
    pub depth: usize,
}

impl Windows<'_> {
    /// Outputs.
    pub(crate) fn count(&self) -> usize {
        self.rows * self.lines
    }

    /// Appends to `hits` what `beyond`, in order of place, adds to these rows.
    pub(crate) fn hits(&self, beyond: &[Beyond], hits: &mut Vec<Hit>) {
        let last = self.taps.iter().copied().max().unwrap_or(0);
        let rows = self.rows.saturating_sub(1) * self.row_stride + self.len;
        let end = self.base + self.lines.saturating_sub(1) * self.line_stride + last + rows;
        let near = within(beyond, self.base..end);
        if near.is_empty() {
            return;
        }
        for line in 0..self.lines {
            for (tap, &offset) in self.taps.iter().enumerate() {
                let start = self.base + line * self.line_stride + offset;
                for one in within(near, start..start + rows) {
                    let place = one.at - start;
                    // Rows whose window begins no later than the place and ends behind it.
                    let first = if place < self.len { 0 } else { (place - self.len) / self.row_stride + 1 };
                    for row in first..self.rows.min(place / self.row_stride + 1) {
                        let at = tap * self.depth + place - row * self.row_stride;
                        hits.push(Hit { row: line * self.rows + row, at, delta: one.delta });
                    }
                }
            }
        }
    }
}

/// Those of `beyond`, in order of place, at some places.
fn within(beyond: &[Beyond], places: Span<usize>) -> &[Beyond] {
    let first = beyond.partition_point(|one| one.at < places.start);
    let rest = &beyond[first..];
    &rest[..rest.partition_point(|one| one.at < places.end)]
}

/// What is added to the products of a block of outputs, by runs of rows, which every panel passes in one order: that of sparse
/// integers, and of the means of weights.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    hits: Vec<Hit>,
    /// Sums over windows, where the weights have means.
    totals: Vec<i64>,
    /// Runs that were passed, and where their hits and totals are.
    runs: Vec<([usize; 3], [Span<usize>; 2])>,
    /// The run at hand.
    at: usize,
    /// Sums of a panel, as many as rows.
    tile: Vec<[i32; NR]>,
}

/// A run's hits and totals, and the buffer of sums.
pub(crate) type Run<'a> = (&'a [Hit], &'a [i64], &'a mut Vec<[i32; NR]>);

impl Beside {
    /// Calls `f` with an empty one in the memory of the thread's last.
    pub(crate) fn with<R>(f: impl FnOnce(&mut Beside) -> R) -> R {
        thread_local! {
            static LAST: Cell<Beside> = Cell::default();
        }
        let mut beside = LAST.take();
        beside.hits.clear();
        beside.totals.clear();
        beside.runs.clear();
        beside.at = 0;
        let made = f(&mut beside);
        LAST.set(beside);
        made
    }

    /// What belongs to a run, found by `find` where the run is new.
    pub(crate) fn of(&mut self, run: [usize; 3], find: impl FnOnce(&mut Vec<Hit>, &mut Vec<i64>)) -> Run<'_> {
        let is_there = |at: usize| self.runs.get(at).is_some_and(|known| known.0 == run);
        // The same again, the next, or the first of the next panel.
        self.at = match [self.at, self.at + 1, 0].into_iter().find(|&at| is_there(at)) {
            Some(at) => at,
            None => {
                let (hit, total) = (self.hits.len(), self.totals.len());
                find(&mut self.hits, &mut self.totals);
                self.runs.push((run, [hit..self.hits.len(), total..self.totals.len()]));
                self.runs.len() - 1
            }
        };
        let [hits, totals] = self.runs[self.at].1.clone();
        (&self.hits[hits], &self.totals[totals], &mut self.tile)
    }
}

#[cfg(test)]
mod tests;
