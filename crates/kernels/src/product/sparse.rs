//! What is added to the products of a layer, run by run: those of sparse integers beyond the codes, and of the means of its weights.

use super::call::{Call, Rows};
use crate::beyond::{Beside, Hit, Run, Windows};
use crate::kernel::{MR, NR, WideTile};
use crate::panels::{Packed, panel_len};

/// Rows of what lies beyond the codes, and factors of rows and columns.
type Added<'a> = (Option<&'a [[i32; NR]]>, Option<(&'a [i64], &'a [i32; NR])>);

impl Call<'_> {
    /// The products of what lies beyond the codes of a run's windows, the sums over its windows, and the buffer of sums.
    fn run<'s>(&self, rows: Rows, panel: usize, beside: &'s mut Beside) -> Run<'s> {
        let (shape, base) = (&self.product.shape, rows.base + self.product.panels[panel].input);
        beside.of([base, rows.rows, rows.lines], |hits, totals| {
            let (len, depth) = match self.packed {
                Packed::Limbs(_) => (shape.tap_len(), shape.tap_depth()),
                Packed::Words(_) => (self.product.panels[panel].width, NR),
            };
            let windows = Windows {
                base,
                rows: rows.rows,
                row_stride: self.pixel_stride,
                lines: rows.lines,
                line_stride: self.line_stride,
                taps: self.taps.offsets(),
                len,
                depth,
            };
            let first = hits.len();
            windows.hits(self.codes.beyond(), hits);
            if !self.product.means.is_empty() {
                self.totals(rows, &windows, &hits[first..], totals);
            }
        })
    }

    /// Appends `sum_k (u[r, k] - zp)` over the window of every row, with what lies beyond the codes: the product with `M_nsy`.
    fn totals(&self, rows: Rows, windows: &Windows<'_>, hits: &[Hit], totals: &mut Vec<i64>) {
        let first = totals.len();
        let grids = self.codes.grids(rows.image, rows.first, windows.count());
        let depth = self.product.shape.depth() as i64;
        totals.extend((0..windows.count()).map(|r| -depth * self.share.zero(grids.row(r).zero_point)));
        let totals = &mut totals[first..];
        for (limb, plane) in self.codes.planes().enumerate().filter(|&(plane, _)| self.share.has(plane)) {
            self.kernel.totals(windows, plane, 8 * limb as u32, totals);
        }
        let hits = hits.iter().filter(|_| self.share.owns());
        hits.for_each(|hit| totals[hit.row] += i64::from(hit.delta));
    }

    /// What is added to the products, modulo 2^32: what lies beyond the codes, one row an output row of the run, and the factors
    /// of the rank-one product with the means.
    pub(super) fn added<'s>(&'s self, rows: Rows, panel: usize, beside: &'s mut Beside) -> Added<'s> {
        if self.codes.beyond().is_empty() && self.product.means.is_empty() {
            return (None, None);
        }
        let (hits, totals, tile) = self.run(rows, panel, beside);
        let rank_one = self.product.narrow_means.get(panel).map(|means| (totals, means));
        if hits.is_empty() {
            return (None, rank_one);
        }
        let shape = &self.product.shape;
        tile.clear();
        tile.resize(rows.rows * rows.lines, [0; NR]);
        match self.packed {
            Packed::Limbs(limbs) => {
                for (limb, panels) in limbs.iter().enumerate() {
                    let panel = &panels[panel * panel_len(shape)..][..panel_len(shape)];
                    self.kernel.scatter(hits, panel, 8 * limb as u32, tile);
                }
            }
            Packed::Words(_) => {
                for hit in hits {
                    let (column, weight) = self.word(panel, hit.at);
                    let sum = &mut tile[hit.row][column];
                    *sum = sum.wrapping_add((weight as i32).wrapping_mul(hit.delta));
                }
            }
        }
        (Some(tile), rank_one)
    }

    /// Adds what lies beyond the codes to complete sums; returns the sum over the window of every row, where weights have means.
    pub(super) fn add_sparse(&self, rows: Rows, panel: usize, wide: &mut WideTile, beside: &mut Beside) -> [i64; MR] {
        let mut sums = [0i64; MR];
        if self.codes.beyond().is_empty() && self.product.means.is_empty() {
            return sums;
        }
        let (hits, totals, _) = self.run(rows, panel, beside);
        sums[..totals.len()].copy_from_slice(totals);
        for &Hit { row, at, delta } in hits.iter().filter(|_| self.share.owns()) {
            let delta = i64::from(delta);
            match self.packed {
                Packed::Limbs(limbs) => {
                    let step = panel * panel_len(&self.product.shape) + at / 4 * 4 * NR + at % 4;
                    for (limb, panels) in limbs.iter().enumerate() {
                        let weights = panels[step..].iter().step_by(4);
                        for (sum, &weight) in wide[row].iter_mut().zip(weights) {
                            *sum += (delta * i64::from(weight)) << (8 * limb);
                        }
                    }
                }
                Packed::Words(_) => {
                    let (column, weight) = self.word(panel, at);
                    wide[row][column] += delta * weight;
                }
            }
        }
        sums
    }

    /// The channel in a depthwise panel of a depth, and its weight there.
    fn word(&self, panel: usize, at: usize) -> (usize, i64) {
        let Packed::Words(words) = self.packed else { unreachable!("limbs are not taken one by one") };
        let (tap, column) = (at / NR, at % NR);
        let pairs = self.taps.offsets().len().div_ceil(2);
        let digit = |(i, words): (usize, &Vec<_>)| -> i64 {
            let pair: &crate::kernel::Pairs = &words[panel * pairs + tap / 2];
            i64::from(pair[column][tap % 2]) << (16 * i)
        };
        (column, words.iter().enumerate().map(digit).sum())
    }
}
