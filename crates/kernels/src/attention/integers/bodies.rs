//! Integers of queries, keys and values, and the codes of their weights: loops that each kernel compiles for its instructions.
//!
//! A value `x` of a row with the inverse step `inv` becomes `rne(x * inv)`, found in the low bits of `x * inv + ROUND`.

use super::Weighed;
use crate::attention::Factor;
use crate::kernel::NR;
use crate::lanes::tree;
use crate::softmax::{LANES, Scores};

/// Adding this to an f32 of magnitude below 2^22 rounds it to an integer, ties to even, in the low bits.
pub(crate) const ROUND: f32 = 12_582_912.0;
/// A row of which no magnitude reaches this is taken for zeros.
const LEAST: f32 = f32::from_bits((127 - 90) << 23);

/// Largest magnitude of the finite values of some rows or columns, and 0 times the sum of all: NaN where one is not finite. Both
/// are floats, whose reductions compilers leave in these lanes.
#[derive(Clone, Copy)]
struct Magnitudes<const L: usize> {
    largest: [f32; L],
    odd: [f32; L],
}

impl<const L: usize> Magnitudes<L> {
    const NONE: Self = Self { largest: [0.0; L], odd: [0.0; L] };

    #[inline(always)]
    fn add(&mut self, x: &[f32; L]) {
        for (&x, (largest, odd)) in x.iter().zip(self.largest.iter_mut().zip(&mut self.odd)) {
            *largest = larger(*largest, x.abs());
            *odd = x.mul_add(0.0, *odd);
        }
    }

    /// Step and inverse step of the values of lane `c`.
    #[inline(always)]
    fn step(&self, c: usize, steps: u8) -> (f32, f32) {
        step_of(self.largest[c], self.odd[c], steps)
    }
}

/// Step and inverse step of a row.
#[inline(always)]
fn step_of_row(row: &[f32], steps: u8) -> (f32, f32) {
    let mut lanes = Magnitudes::<LANES>::NONE;
    let (runs, rest) = row.as_chunks();
    for run in runs {
        lanes.add(run);
    }
    if !rest.is_empty() {
        lanes.add(&padded(rest));
    }
    step_of(largest_of(lanes.largest), tree(lanes.odd), steps)
}

/// Step and inverse step of values of a largest magnitude, and 0 times their sum.
#[inline(always)]
pub(crate) fn step_of(largest: f32, odd: f32, steps: u8) -> (f32, f32) {
    let steps = f32::from(steps);
    let (scale, inv) = if largest < LEAST { (0.0, 0.0) } else { (largest / steps, steps / largest) };
    (scale + odd, inv)
}

/// A value's integer as a float.
#[inline(always)]
fn rounded(x: f32, inv: f32) -> f32 {
    (x * inv + ROUND) - ROUND
}

/// A value's integer modulo 256.
#[inline(always)]
fn byte(x: f32, inv: f32) -> u32 {
    (x * inv + ROUND).to_bits() & 255
}

/// The code of a query's value.
#[inline(always)]
pub(crate) fn query_code(x: f32, inv: f32) -> u8 {
    (byte(x, inv) ^ super::ZERO as u32) as u8
}

/// Keeps a step; its inverse.
#[inline(always)]
pub(crate) fn step_into(scale: &mut f32, (step, inv): (f32, f32)) -> f32 {
    *scale = step;
    inv
}

/// Codes `integer + 128` of every row, in whole steps of four with zeros behind; a scale a row.
#[inline(always)]
pub(crate) fn code_queries(x: &Factor<'_>, steps: u8, codes: &mut [u8], scales: &mut [f32]) {
    let codes = codes.chunks_exact_mut(x.depth().next_multiple_of(4));
    for (r, (codes, scale)) in codes.zip(scales).enumerate() {
        let (row, inv) = (x.row(r), step_into(scale, step_of_row(x.row(r), steps)));
        let (codes, rest) = codes.split_at_mut(row.len());
        for (code, &x) in codes.iter_mut().zip(row) {
            *code = query_code(x, inv);
        }
        // What is beyond meets keys of 0.
        rest.fill(0);
    }
}

/// Four integers of each column as a step of a panel.
#[inline(always)]
fn panel_step(rows: [&[f32; NR]; 4], inv: [&[f32; NR]; 4], panel: &mut [i8; 4 * NR]) {
    let mut words = [0u32; NR];
    for (i, (row, inv)) in rows.into_iter().zip(inv).enumerate() {
        for c in 0..NR {
            words[c] |= byte(row[c], inv[c]) << (8 * i);
        }
    }
    for (four, word) in panel.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *four = word.to_le_bytes().map(|byte| byte as i8);
    }
}

/// Up to `NR` keys as the columns of a panel, with the sum and the scale of each column; columns beyond are 0. `x` has them as
/// columns already.
#[inline(always)]
pub(crate) fn code_keys(x: &[f32], steps: u8, panel: &mut [i8], (sums, scales): (&mut [i32; NR], &mut [f32; NR])) {
    let rows = x.as_chunks::<NR>().0;
    let mut columns = Magnitudes::<NR>::NONE;
    for row in rows {
        columns.add(row);
    }
    let mut inverse = [0f32; NR];
    for c in 0..NR {
        (scales[c], inverse[c]) = columns.step(c, steps);
    }
    // Exact: integers below 2^24.
    let mut total = [0f32; NR];
    for row in rows {
        for c in 0..NR {
            total[c] += rounded(row[c], inverse[c]);
        }
    }
    *sums = total.map(|total| total as i32);
    let zeros = [0f32; NR];
    for (rows, panel) in rows.chunks(4).zip(panel.as_chunks_mut().0) {
        panel_step(std::array::from_fn(|i| rows.get(i).unwrap_or(&zeros)), [&inverse; 4], panel);
    }
}

/// Values, of which each row is a key's: panels of `NR` columns, a step for every four keys; zeros beyond. A scale a row.
#[inline(always)]
pub(crate) fn code_values(x: &Factor<'_>, steps: u8, packed: &mut [i8], scales: &mut [f32]) {
    let len = x.rows().next_multiple_of(4) * NR;
    for first in (0..x.rows()).step_by(4) {
        let mut inverse = [[0f32; NR]; 4];
        for (r, inverse) in inverse.iter_mut().enumerate().take(x.rows() - first) {
            *inverse = [step_into(&mut scales[first + r], step_of_row(x.row(first + r), steps)); NR];
        }
        for (i, packed) in packed.chunks_exact_mut(len).enumerate() {
            let mut own = [[0f32; NR]; 4];
            for (r, own) in own.iter_mut().enumerate().take(x.rows() - first) {
                let row = &x.row(first + r)[i * NR..];
                match row.first_chunk::<NR>() {
                    Some(row) => *own = *row,
                    None => own[..row.len()].copy_from_slice(row),
                }
            }
            let panel = packed[first * NR..].first_chunk_mut().expect("a step of a panel");
            panel_step(own.each_ref(), inverse.each_ref(), panel);
        }
    }
}

/// Coefficients of `q` of [`short_exp`], the highest first.
pub(crate) const EXP: [f32; 4] = [9.582_853e-3, 5.590_642_6e-2, 2.402_41e-1, 6.931_242e-1];

/// `exp(x)` for `x` from -87 to 0, with a relative error below `2^-16`; below, exactly 0.
///
/// `x log2 e = n + f` with `|f| <= 1/2`, and `2^f = 1 + f q(f)`.
#[inline(always)]
pub(crate) fn short_exp(x: f32) -> f32 {
    let t = x * std::f32::consts::LOG2_E;
    let rounded = t + ROUND;
    let f = t - (rounded - ROUND);
    let q = EXP[1..].iter().fold(EXP[0], |q, &c| q.mul_add(f, c));
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    let e = q.mul_add(f, 1.0) * power;
    if x < -87.0 { 0.0 } else { e }
}

/// Codes `u` of the weights that the rows of a block give to values, and the scales of the sums over them. What is left of the
/// scores is not specified.
#[inline(always)]
pub(crate) fn weigh(block: Weighed<'_>, scales: &mut [f32]) {
    let Weighed { scores, stride, count, codes, values, .. } = block;
    let codes = codes.chunks_exact_mut(count.next_multiple_of(4));
    for (r, ((scores, codes), scale)) in scores.chunks_exact_mut(stride).zip(codes).zip(scales).enumerate() {
        let mask = block.mask.map(|mask| mask.row(r, count));
        *scale = weigh_row(&mut scores[..count], Scores { scale: block.rows[r], mask }, values, codes);
    }
}

/// Codes `u` of the weights that scores `x` give to values of these scales, zeros behind them; returns the scale of the sum over
/// them. What is left of `x` is not specified.
#[inline(always)]
fn weigh_row(x: &mut [f32], scores: Scores<'_>, scales: &[f32], codes: &mut [u8]) -> f32 {
    let scale = scores.scale;
    let largest = match scores.mask {
        None => largest(x, &[], |x, _| x * scale),
        Some(&[mask]) => largest(x, &[], |x, _| x * scale + mask),
        Some(mask) => largest(x, mask, |x, mask| x * scale + mask),
    };
    let (mut sums, mut most) = ([0f32; LANES], [0f32; LANES]);
    let mut one = |x: &mut [f32; LANES], scales: &[f32; LANES]| {
        for c in 0..LANES {
            let p = short_exp(x[c] - largest);
            sums[c] += p;
            x[c] = p * scales[c];
            most[c] = larger(most[c], x[c]);
        }
    };
    let (runs, rest) = x.as_chunks_mut::<LANES>();
    let (whole, beyond) = scales.as_chunks::<LANES>();
    for (run, scales) in runs.iter_mut().zip(whole) {
        one(run, scales);
    }
    if !rest.is_empty() {
        let mut last = [f32::NEG_INFINITY; LANES];
        last[..rest.len()].copy_from_slice(rest);
        one(&mut last, &padded(beyond));
        rest.copy_from_slice(&last[..rest.len()]);
    }
    let (inv, scale) = ends(largest_of(most), tree(sums));
    let (own, beyond) = codes.split_at_mut(x.len());
    for (code, &w) in own.iter_mut().zip(&*x) {
        *code = byte(w, inv) as u8;
    }
    beyond.fill(0);
    scale
}

/// What weights are multiplied by to be codes, and the scale of sums over these, given the largest and the sum of `p`.
#[inline(always)]
pub(crate) fn ends(most: f32, sum: f32) -> (f32, f32) {
    (if most > 0.0 { 255.0 / most } else { 0.0 }, (most / 255.0) * (1.0 / sum))
}

/// The larger one; the first where the second is NaN.
#[inline(always)]
fn larger(largest: f32, x: f32) -> f32 {
    if x > largest { x } else { largest }
}

/// The largest lane.
#[inline(always)]
fn largest_of(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for j in 0..half {
            lanes[j] = larger(lanes[j], lanes[j + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Zeros behind fewer than a run of values.
#[inline(always)]
fn padded(x: &[f32]) -> [f32; LANES] {
    let mut run = [0f32; LANES];
    run[..x.len()].copy_from_slice(x);
    run
}

/// Replaces every `x` by `z(x, mask)` and returns the largest; an empty mask is zeros.
#[inline(always)]
fn largest(x: &mut [f32], mask: &[f32], z: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (runs, rest) = x.as_chunks_mut::<LANES>();
    let (masks, beyond) = mask.as_chunks::<LANES>();
    for (i, run) in runs.iter_mut().enumerate() {
        let mask = masks.get(i).unwrap_or(&[0.0; LANES]);
        for c in 0..LANES {
            run[c] = z(run[c], mask[c]);
            lanes[c] = larger(lanes[c], run[c]);
        }
    }
    for (i, x) in rest.iter_mut().enumerate() {
        *x = z(*x, beyond.get(i).copied().unwrap_or(0.0));
    }
    rest.iter().copied().fold(largest_of(lanes), larger)
}
