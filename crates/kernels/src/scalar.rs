//! `scalar`: plain Rust for any CPU, and the oracle of the vector kernels.

use crate::attention::integers::{Weighed, bodies as integers};
use crate::attention::{self, Factor, Target};
use crate::beyond::{Beyond, Hit, Windows};
use crate::kernel::{
    Columns, Ending, Grids, Kernel, NR, Pairs, Partial, Place, RowGrid, Tile, WideTile, sealed::Routines,
};
use crate::pool::{self, Line};
use crate::range::Lanes;
use crate::softmax::{self, Scores};
use crate::window::{Strip, Window};
use crate::{Activation, Norm, Range, activation, bodies, normalise, rotation};

/// The scalar kernel; every CPU has it.
#[derive(Debug)]
pub(crate) struct Scalar;

impl Kernel for Scalar {
    fn name(&self) -> &'static str {
        "scalar"
    }
}

impl Routines for Scalar {
    fn tile(&self, window: &Window<'_>, panel: &[i8], tile: &mut Tile) {
        assert_eq!(panel.len(), window.taps().len() * window.depth() * NR, "panel and window differ in depth");
        for (r, sums) in tile.iter_mut().enumerate().take(window.rows()) {
            let mut acc = [0i32; NR];
            let mut steps = panel.chunks_exact(4 * NR);
            for tap in 0..window.taps().len() {
                for (codes, step) in window.tap(r, tap).chunks_exact(4).zip(&mut steps) {
                    for (acc, weights) in acc.iter_mut().zip(step.chunks_exact(4)) {
                        let products = codes.iter().zip(weights).map(|(&u, &w)| i32::from(u) * i32::from(w));
                        *acc += products.sum::<i32>();
                    }
                }
            }
            *sums = acc;
        }
    }

    fn depthwise(&self, strip: &Strip<'_>, weights: &[Pairs], tile: &mut Tile) {
        bodies::depthwise(strip, weights, tile);
    }

    fn fused(&self, partials: &[Partial<'_, i8>], ending: Ending<'_>) {
        bodies::by_parts::<16, _>(partials, ending, |lines, [line, first, rows], panel, sums| {
            self.tile(&lines.window(line, first, rows), panel, sums);
        });
    }

    fn fused_depthwise(&self, partials: &[Partial<'_, Pairs>], ending: Ending<'_>) {
        bodies::by_parts::<16, _>(partials, ending, |lines, [line, first, rows], weights, sums| {
            self.depthwise(&lines.strip(line, first, rows), weights, sums);
        });
    }

    fn finish_wide(
        &self,
        tile: &WideTile,
        grids: Grids<'_>,
        columns: &Columns<'_>,
        place: Place<'_>,
        lanes: &mut Lanes,
    ) {
        bodies::finish_wide::<16>(tile, grids, columns, place, lanes);
    }

    fn quantise(&self, x: &[f32], grid: &RowGrid, planes: &mut [&mut [u8]]) {
        bodies::quantise(x, grid, planes);
    }

    fn beyond(&self, x: &[f32], grid: &RowGrid, places: (usize, usize), beyond: &mut Vec<Beyond>) {
        bodies::sparse::beyond(x, grid, places, beyond);
    }

    fn magnitudes(&self, x: &[f32], unit: f32) -> u64 {
        bodies::sparse::magnitudes(x, unit)
    }

    fn scatter(&self, hits: &[Hit], panel: &[i8], bits: u32, tile: &mut [[i32; NR]]) {
        bodies::sparse::scatter(hits, panel, bits, tile);
    }

    fn totals(&self, windows: &Windows<'_>, plane: &[u8], bits: u32, totals: &mut [i64]) {
        bodies::sparse::totals(windows, plane, bits, totals);
    }

    fn range(&self, x: &[f32]) -> Range {
        bodies::range(x)
    }

    fn max_pool(&self, line: &Line<'_>, finite: bool, y: &mut [f32]) {
        pool::max::<16>(line, finite, y);
    }

    fn average_pool(&self, line: &Line<'_>, y: &mut [f32]) {
        pool::average::<16>(line, y);
    }

    fn mean(&self, x: &[f32], y: &mut [f32]) {
        pool::mean(x, y);
    }

    fn activate(&self, activation: Activation, x: &[f32], y: &mut [f32]) {
        activation::activate(activation, x, y);
    }

    fn normalise(&self, norm: &Norm, x: &[f32], y: &mut [f32]) -> Range {
        normalise::normalise(norm, x, y)
    }

    fn turn(&self, factors: &[f32], x: &[f32], y: &mut [f32]) {
        rotation::turn(factors, x, y);
    }

    fn exponentials(&self, x: &mut [f32], scores: Option<Scores<'_>>) -> f32 {
        softmax::exponentials(x, scores)
    }

    fn scale(&self, x: &mut [f32], by: f32) {
        softmax::scale(x, by);
    }

    fn sum(&self, x: &[f32], y: &mut [f32]) {
        softmax::sum_rows::<16>(x, y);
    }

    fn float_product(&self, lhs: &Factor<'_>, panel: &[f32], target: Target<'_>) {
        attention::float_product(lhs, panel, target);
    }

    fn code_queries(&self, x: &Factor<'_>, steps: u8, codes: &mut [u8], scales: &mut [f32]) {
        integers::code_queries(x, steps, codes, scales);
    }

    fn code_keys(&self, x: &[f32], steps: u8, panel: &mut [i8], of: (&mut [i32; NR], &mut [f32; NR])) {
        integers::code_keys(x, steps, panel, of);
    }

    fn code_values(&self, x: &Factor<'_>, steps: u8, packed: &mut [i8], scales: &mut [f32]) {
        integers::code_values(x, steps, packed, scales);
    }

    fn weigh(&self, block: Weighed<'_>, scales: &mut [f32]) {
        integers::weigh(block, scales);
    }

    fn transpose(&self, x: &Factor<'_>, panel: &mut [f32]) {
        attention::transpose(x, panel);
    }
}
