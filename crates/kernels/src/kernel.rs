//! What a kernel does, and the one list of kernels.

use std::fmt;

use crate::attention::integers::Weighed;
use crate::attention::{Factor, Target};
use crate::beyond::{Beyond, Hit, Windows};
use crate::pool::Line;
use crate::range::{Lanes, Range};
use crate::softmax::Scores;
use crate::window::{Lines, Strip, Window};
use crate::{Activation, Norm};

/// Rows of a tile: 14 divides 7, 14, 28, 56, 112 and 224, the widths that image networks have.
pub const MR: usize = 14;
/// Columns (output channels) of a tile and of a weight panel.
pub const NR: usize = 32;

/// Exact sums of a tile in i32.
pub type Tile = [[i32; NR]; MR];
/// Exact sums of a tile in i64.
pub type WideTile = [[i64; NR]; MR];

/// Depthwise weights of a strip: two consecutive taps of each channel.
pub type Pairs = [[i16; 2]; NR];

/// The activation grid of one row (matrix products) or one image (convolutions).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowGrid {
    /// Value of a step; NaN makes every output NaN.
    pub scale: f32,
    /// `1 / scale`, for codes of up to 12 bits.
    pub inv: f32,
    /// `1 / scale`, for wider codes.
    pub inv_wide: f64,
    /// Code of zero.
    pub zero_point: i32,
    /// Largest code, `2^b - 1` with `b <= 24`.
    pub code_max: i32,
}

/// Grids of consecutive rows.
#[derive(Debug, Clone, Copy)]
pub enum Grids<'a> {
    /// All rows belong to one image.
    Same(&'a RowGrid),
    /// One grid a row.
    Each(&'a [RowGrid]),
}

impl<'a> Grids<'a> {
    #[inline(always)]
    /// Grid of a row.
    pub fn row(&self, row: usize) -> &'a RowGrid {
        match self {
            Grids::Same(grid) => grid,
            Grids::Each(grids) => &grids[row],
        }
    }
}

/// Per-channel constants of a panel.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    /// `sum_k Q[k, c]`, modulo 2^32.
    pub sums: &'a [i32; NR],
    /// Weight scales.
    pub scales: &'a [f32; NR],
    /// Biases.
    pub bias: &'a [f32; NR],
    /// What ends the epilogue.
    pub activation: Activation,
    /// Whether every output is known to be finite.
    pub finite: bool,
}

/// What becomes of outputs, from a tile's first value on.
#[derive(Debug)]
pub enum Sink<'a> {
    /// They are kept.
    Floats(&'a mut [f32]),
    /// They become codes of one byte on a grid; there is no residual.
    Codes(&'a mut [u8], &'a RowGrid),
}

/// Where a tile's outputs go: `rows x width` values, `stride` apart, with the residual laid out alike.
#[derive(Debug)]
pub struct Place<'a> {
    /// What becomes of them.
    pub out: Sink<'a>,
    /// Residual from the tile's first value on.
    pub residual: Option<&'a [f32]>,
    /// Values from one row to the next.
    pub stride: usize,
    /// Rows of a line.
    pub line: usize,
    /// Values between the last row of a line and the first of the next, beyond `stride`.
    pub skip: usize,
    /// Rows.
    pub rows: usize,
    /// Channels, at most [`NR`].
    pub width: usize,
}

/// One of the products that add up to sums: a plane of codes by a digit of weights. All partials of sums have lines of one
/// extent, and there is at least one.
#[derive(Debug, Clone, Copy)]
pub struct Partial<'a, W> {
    /// Codes.
    pub lines: Lines<'a>,
    /// Weights: a panel, or pairs of taps.
    pub weights: &'a [W],
    /// Bits that the sums of the partials before are shifted left by, modulo 2^32, before this one is added.
    pub raise: u32,
}

/// What makes outputs of a tile's sums.
#[derive(Debug)]
pub struct Ending<'a> {
    /// Grids of the rows.
    pub grids: Grids<'a>,
    /// Constants of the columns.
    pub columns: Columns<'a>,
    /// Where outputs go.
    pub place: Place<'a>,
    /// Their range so far.
    pub lanes: &'a mut Lanes,
    /// What is added to the sums first, modulo 2^32: as many rows as there are outputs'.
    pub beyond: Option<&'a [[i32; NR]]>,
    /// A rank-one product that is added too: a factor an output row, and one a column.
    pub rank_one: Option<(&'a [i64], &'a [i32; NR])>,
}

impl Ending<'_> {
    /// The ending of `rows` rows of one line from row `first` on.
    #[inline(always)]
    pub fn part(&mut self, first: usize, rows: usize) -> Ending<'_> {
        let start = first * self.place.stride + first / self.place.line * self.place.skip;
        let grids = match self.grids {
            Grids::Same(grid) => Grids::Same(grid),
            Grids::Each(grids) => Grids::Each(&grids[first..first + rows]),
        };
        let out = match &mut self.place.out {
            Sink::Floats(out) => Sink::Floats(&mut out[start..]),
            Sink::Codes(out, grid) => Sink::Codes(&mut out[start..], grid),
        };
        let place = Place { out, residual: self.place.residual.map(|residual| &residual[start..]), rows, ..self.place };
        let beyond = self.beyond.map(|beyond| &beyond[first..first + rows]);
        let rank_one = self.rank_one.map(|(rows_of, columns)| (&rows_of[first..first + rows], columns));
        Ending { grids, columns: self.columns, place, lanes: self.lanes, beyond, rank_one }
    }
}

/// A set of routines for one instruction set. A value is the proof that this CPU has it.
pub trait Kernel: fmt::Debug + Send + Sync + sealed::Routines {
    /// Its name in `FPXINT_KERNEL`.
    fn name(&self) -> &'static str;
}

pub mod sealed {
    use super::*;

    /// The routines of a kernel; private, so that only this crate implements them.
    pub trait Routines {
        /// `tile[r][c] = sum_k u[r, k] * panel[k, c]`, exact: the caller keeps `255 * 128 * k` within i32.
        fn tile(&self, window: &Window<'_>, panel: &[i8], tile: &mut Tile);
        /// `tile[r][c] = sum_t u[r, t, c] * weights[t / 2][c][t % 2]`, exact: at most 257 taps.
        fn depthwise(&self, strip: &Strip<'_>, weights: &[Pairs], tile: &mut Tile);
        /// [`Routines::tile`] and the epilogue of the sums of all partials, for every tile of their lines.
        fn fused(&self, partials: &[Partial<'_, i8>], ending: Ending<'_>);
        /// [`Routines::depthwise`] and the epilogue of the sums of all partials, for every tile of their lines.
        fn fused_depthwise(&self, partials: &[Partial<'_, Pairs>], ending: Ending<'_>);
        /// Epilogue of complete i64 sums.
        fn finish_wide(
            &self,
            tile: &WideTile,
            grids: Grids<'_>,
            columns: &Columns<'_>,
            place: Place<'_>,
            lanes: &mut Lanes,
        );
        /// Codes of `x` as limbs, least significant plane first.
        fn quantise(&self, x: &[f32], grid: &RowGrid, planes: &mut [&mut [u8]]);
        /// Appends what lies beyond the codes of `x`, the first of which is at place `places.0`; may end where `beyond` holds more
        /// than `places.1`.
        fn beyond(&self, x: &[f32], grid: &RowGrid, places: (usize, usize), beyond: &mut Vec<Beyond>);
        /// `sum rne(|x| unit)`, of magnitudes of less than 2^22 units.
        fn magnitudes(&self, x: &[f32], unit: f32) -> u64;
        /// `tile[row][c] += (delta * panel[at, c]) << bits` for every hit, modulo 2^32.
        fn scatter(&self, hits: &[Hit], panel: &[i8], bits: u32, tile: &mut [[i32; NR]]);
        /// Adds the sum of the codes of every window, shifted left, to `totals`.
        fn totals(&self, windows: &Windows<'_>, plane: &[u8], bits: u32, totals: &mut [i64]);
        /// Range of `x`.
        fn range(&self, x: &[f32]) -> Range;
        /// Largest value of every window; `finite` says that there is no NaN to keep.
        fn max_pool(&self, line: &Line<'_>, finite: bool, y: &mut [f32]);
        /// Mean of every window.
        fn average_pool(&self, line: &Line<'_>, y: &mut [f32]);
        /// Mean of every channel over the pixels `x`.
        fn mean(&self, x: &[f32], y: &mut [f32]);
        /// `y = activation(x)`.
        fn activate(&self, activation: Activation, x: &[f32], y: &mut [f32]);
        /// One normalised row; its range.
        fn normalise(&self, norm: &Norm, x: &[f32], y: &mut [f32]) -> Range;
        /// `y = (x factors) H`, by blocks of as many values as there are factors: 16, 32, 64 or 128.
        fn turn(&self, factors: &[f32], x: &[f32], y: &mut [f32]);
        /// `exp(x - max x)` of what `scores` makes of `x`, in place; their sum.
        fn exponentials(&self, x: &mut [f32], scores: Option<Scores<'_>>) -> f32;
        /// `x = (x + 0) * by`.
        fn scale(&self, x: &mut [f32], by: f32);
        /// Sums of the columns of `x`, which has as many as `y`.
        fn sum(&self, x: &[f32], y: &mut [f32]);
        /// `out[r, c] = sum_i lhs[r, i] * panel[i, c]` by `mul_add`, from 0 on and in order, of up to [`MR`] rows.
        fn float_product(&self, lhs: &Factor<'_>, panel: &[f32], target: Target<'_>);
        /// Integers of queries as codes, and a scale each.
        fn code_queries(&self, x: &Factor<'_>, steps: u8, codes: &mut [u8], scales: &mut [f32]);
        /// Integers of [`NR`] keys, the columns of `x`, as a panel with its sums and scales.
        fn code_keys(&self, x: &[f32], steps: u8, panel: &mut [i8], of: (&mut [i32; NR], &mut [f32; NR]));
        /// Integers of values as panels, and a scale each.
        fn code_values(&self, x: &Factor<'_>, steps: u8, packed: &mut [i8], scales: &mut [f32]);
        /// Codes of the weights of a block of scores; the scales of the sums over them.
        fn weigh(&self, block: Weighed<'_>, scales: &mut [f32]);
        /// `panel[i, r] = x[r, i]`, and 0 beyond the rows of `x`, of which there are up to [`NR`].
        fn transpose(&self, x: &Factor<'_>, panel: &mut [f32]);
    }
}

/// Kernels that this CPU can run, fastest first; the last is `scalar`.
pub fn available() -> Vec<&'static dyn Kernel> {
    let mut list: Vec<&'static dyn Kernel> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        list.extend(crate::avx512vnni::Avx512Vnni::get().map(|kernel| kernel as &dyn Kernel));
        list.extend(crate::avxvnni::AvxVnni::get().map(|kernel| kernel as &dyn Kernel));
        list.extend(crate::avx2::Avx2::get().map(|kernel| kernel as &dyn Kernel));
    }
    list.push(&crate::scalar::Scalar);
    list
}

/// A kernel name that is not in [`available`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKernel {
    /// What was asked for.
    pub asked: String,
}

impl fmt::Display for UnknownKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = available().iter().map(|k| k.name()).collect();
        write!(f, "kernel `{}` (FPXINT_KERNEL) is not available; this CPU has {}", self.asked, names.join(", "))
    }
}

impl std::error::Error for UnknownKernel {}

/// The kernel named by the environment variable `FPXINT_KERNEL`, or the fastest one.
///
/// # Errors
/// [`UnknownKernel`] where the name is unknown or this CPU lacks it.
pub fn select() -> Result<&'static dyn Kernel, UnknownKernel> {
    match std::env::var("FPXINT_KERNEL") {
        Ok(asked) if !asked.is_empty() => named(&asked),
        _ => Ok(available()[0]),
    }
}

/// The kernel of this name.
///
/// # Errors
/// As [`select`].
pub fn named(name: &str) -> Result<&'static dyn Kernel, UnknownKernel> {
    let found = available().into_iter().find(|kernel| kernel.name() == name);
    found.ok_or_else(|| UnknownKernel { asked: name.to_owned() })
}
