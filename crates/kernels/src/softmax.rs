//! Softmax over the last axis, and sums over one axis.
//!
//! ```text
//! softmax   m = max x;  p = exp(x - m), exactly 0 below -87;  y = p * (1 / sum p)       the sum in 16 lanes (`lanes`)
//! sum       y[o, i] = ((0 + x[o, 0, i]) + x[o, 1, i]) + ..                              over (outer, n, inner), inner > 1
//!           y[o]    = sum of x[o, ..]                                                   inner = 1, in 16 lanes
//! ```
//!
//! A row of a softmax that holds NaN or infinity is NaN, but for values of `-inf` beside finite ones: these become 0.

use rayon::prelude::*;

use crate::Kernel;
use crate::activation::exp_or_zero;
use crate::lanes::{joined, tree};

/// Lanes of a sum.
pub(crate) const LANES: usize = 16;

/// The softmax of each row of `k` values of `x`, into `y`.
///
/// # Panics
/// If `x` and `y` differ in length, or the rows do not fill them.
pub fn softmax(kernel: &dyn Kernel, x: &[f32], k: usize, y: &mut [f32], threads: usize) {
    assert_eq!((x.len(), x.len() % k.max(1)), (y.len(), 0), "rows of {k} values");
    if x.is_empty() {
        return;
    }
    let some = (x.len() / k).div_ceil(4 * threads.max(1));
    let block = |(y, x): (&mut [f32], &[f32])| {
        for (y, x) in y.chunks_exact_mut(k).zip(x.chunks_exact(k)) {
            y.copy_from_slice(x);
            let sum = kernel.exponentials(y, None);
            kernel.scale(y, 1.0 / sum);
        }
    };
    if threads <= 1 {
        block((y, x));
    } else {
        y.par_chunks_mut(some * k).zip(x.par_chunks(some * k)).for_each(block);
    }
}

/// The sum of `x (outer, n, inner)` over its middle axis, into `y (outer, inner)`.
///
/// # Panics
/// If `x` or `y` has another length.
pub fn sum(kernel: &dyn Kernel, x: &[f32], [outer, n, inner]: [usize; 3], y: &mut [f32], threads: usize) {
    assert_eq!((x.len(), y.len()), (outer * n * inner, outer * inner), "values and sums");
    if n == 0 || y.is_empty() {
        return y.fill(0.0);
    }
    let some = outer.div_ceil(4 * threads.max(1));
    let block = |(y, x): (&mut [f32], &[f32])| {
        for (y, x) in y.chunks_exact_mut(inner).zip(x.chunks_exact(n * inner)) {
            kernel.sum(x, y);
        }
    };
    if threads <= 1 {
        block((y, x));
    } else {
        y.par_chunks_mut(some * inner).zip(x.par_chunks(some * n * inner)).for_each(block);
    }
}

/// `y = a + b`, where `b` repeats until it is as long as `a`.
///
/// # Panics
/// If `y` has another length than `a`, or `b` does not fill it.
pub fn add(a: &[f32], b: &[f32], y: &mut [f32], threads: usize) {
    assert!(a.len() == y.len() && a.len().is_multiple_of(b.len().max(1)), "values and their sums");
    let block = |(y, (a, b)): (&mut [f32], (&[f32], &[f32]))| {
        for (y, (a, b)) in y.iter_mut().zip(a.iter().zip(b)) {
            *y = a + b;
        }
    };
    let some = b.len().div_ceil(threads.max(1)).max(1);
    for (y, a) in y.chunks_exact_mut(b.len().max(1)).zip(a.chunks_exact(b.len().max(1))) {
        if threads <= 1 {
            block((y, (a, b)));
        } else {
            y.par_chunks_mut(some).zip(a.par_chunks(some).zip(b.par_chunks(some))).for_each(block);
        }
    }
}

/// What scores are made of before their exponentials: `score * scale + mask`, two roundings.
#[derive(Debug, Clone, Copy)]
pub struct Scores<'a> {
    /// What they are multiplied by.
    pub scale: f32,
    /// What is added then: nothing, one value a score, or one value for all.
    pub mask: Option<&'a [f32]>,
}

/// Replaces the scores `x` by `exp(x - max x)`, after what `scores` says; returns the sum.
#[inline(always)]
pub(crate) fn exponentials(x: &mut [f32], scores: Option<Scores<'_>>) -> f32 {
    if let Some(Scores { scale, mask }) = scores {
        match mask {
            None => x.iter_mut().for_each(|x| *x *= scale),
            Some(&[mask]) => x.iter_mut().for_each(|x| *x = *x * scale + mask),
            Some(mask) => x.iter_mut().zip(mask).for_each(|(x, mask)| *x = *x * scale + mask),
        }
    }
    // A maximum does not depend on the order; its zero may have either sign, of which no difference depends.
    let larger = |largest: f32, x: f32| if x > largest { x } else { largest };
    let mut largest = [f32::NEG_INFINITY; LANES];
    let (runs, rest) = x.as_chunks::<LANES>();
    for run in runs {
        for (largest, &x) in largest.iter_mut().zip(run) {
            *largest = larger(*largest, x);
        }
    }
    let largest = largest.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, larger);
    let mut lanes = [0f32; LANES];
    let (runs, rest) = x.as_chunks_mut::<LANES>();
    for run in runs {
        for (lane, x) in lanes.iter_mut().zip(run) {
            *x = exp_or_zero(*x - largest);
            *lane += *x;
        }
    }
    if !rest.is_empty() {
        let mut last = [f32::NEG_INFINITY; LANES];
        last[..rest.len()].copy_from_slice(rest);
        for (lane, x) in lanes.iter_mut().zip(&mut last) {
            *x = exp_or_zero(*x - largest);
            *lane += *x;
        }
        rest.copy_from_slice(&last[..rest.len()]);
    }
    tree(lanes)
}

/// `x = (x + 0) * by`; never -0 where `x` is 0 and `by` is not negative.
#[inline(always)]
pub(crate) fn scale(x: &mut [f32], by: f32) {
    x.iter_mut().for_each(|x| *x = (*x + 0.0) * by);
}

/// `y`: sums over the first axis of `x`, whose inner axis is as long as `y`.
#[inline(always)]
pub(crate) fn sum_rows<const L: usize>(x: &[f32], y: &mut [f32]) {
    let inner = y.len();
    if inner == 1 {
        y[0] = tree(joined::<LANES>(x, 0.0, |sum, x| sum + x));
        return;
    }
    let mut first = 0;
    while inner - first >= L {
        run_of::<L>(x, first, y);
        first += L;
    }
    while first < inner {
        run_of::<1>(x, first, y);
        first += 1;
    }
}

/// Sums of columns `first .. first + L`.
#[inline(always)]
fn run_of<const L: usize>(x: &[f32], first: usize, y: &mut [f32]) {
    let mut sums = [0f32; L];
    for row in x.chunks_exact(y.len()) {
        let row: &[f32; L] = row[first..].first_chunk().expect("columns of a row");
        for (sum, &x) in sums.iter_mut().zip(row) {
            *sum += x;
        }
    }
    y[first..first + L].copy_from_slice(&sums);
}

#[cfg(test)]
mod tests;
