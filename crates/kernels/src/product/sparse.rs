//! What sparse integers beyond the codes add to the sums of a layer, run by run.

use super::call::{Call, Rows};
use crate::beyond::{Hit, Sparse, Windows};
use crate::kernel::{MR, NR, WideTile};
use crate::panels::{Packed, panel_len};

impl Call<'_> {
    /// The products of what lies beyond the codes of a run's windows, and the buffer of their sums.
    fn hits<'s>(&self, rows: Rows, panel: usize, sparse: &'s mut Sparse) -> (&'s [Hit], &'s mut Vec<[i32; NR]>) {
        let (shape, base) = (&self.product.shape, rows.base + self.product.panels[panel].input);
        sparse.of([base, rows.rows, rows.lines], |hits| {
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
            windows.hits(self.codes.beyond(), hits);
        })
    }

    /// The sums of what lies beyond the codes, modulo 2^32, one row an output row of the run; `None` where all are 0.
    pub(super) fn sparse_sums<'s>(&self, rows: Rows, panel: usize, sparse: &'s mut Sparse) -> Option<&'s [[i32; NR]]> {
        if self.codes.beyond().is_empty() {
            return None;
        }
        let (hits, tile) = self.hits(rows, panel, sparse);
        if hits.is_empty() {
            return None;
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
        Some(tile)
    }

    /// Adds what lies beyond the codes to complete sums; returns the sum of it in the window of every row.
    pub(super) fn add_sparse(&self, rows: Rows, panel: usize, wide: &mut WideTile, sparse: &mut Sparse) -> [i64; MR] {
        let mut totals = [0i64; MR];
        if self.codes.beyond().is_empty() || !self.share.owns() {
            return totals;
        }
        for &Hit { row, at, delta } in self.hits(rows, panel, sparse).0 {
            let delta = i64::from(delta);
            totals[row] += delta;
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
        totals
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
