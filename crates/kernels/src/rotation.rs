//! Rotation of rows: block by block the product with signs and a Hadamard matrix, in the order of a fast transform.
//!
//! ```text
//! y = (x factors) H:  y = x * factors, then for d = b / 2, b / 4, .. 1:  (y[i], y[i + d]) = (y[i] + y[i + d], y[i] - y[i + d])
//! ```
//!
//! Every value takes part in one sum or difference a step, so that vectors change no bit.

use crate::{Kernel, Range, run};

/// Largest block.
const MOST: usize = 128;
/// Smallest block: a vector of any kernel.
const LEAST: usize = 16;

/// A rotation of rows that are made of blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotation {
    factors: Vec<f32>,
}

impl Rotation {
    /// The rotation that multiplies the values of a block by `factors` first; `None` unless there are 16, 32, 64 or 128.
    pub fn new(factors: Vec<f32>) -> Option<Self> {
        let block = factors.len();
        (block.is_power_of_two() && (LEAST..=MOST).contains(&block)).then_some(Self { factors })
    }

    /// Values of a block.
    pub fn block(&self) -> usize {
        self.factors.len()
    }

    /// Turns the rows of `k` values of `x` into `y`; `ranges` becomes the range of each row made.
    ///
    /// # Panics
    /// If `x` and `y` differ in length, are not made of rows, or rows are not made of blocks.
    pub fn run(
        &self,
        kernel: &dyn Kernel,
        (x, k): (&[f32], usize),
        y: &mut [f32],
        ranges: &mut Vec<Range>,
        threads: usize,
    ) {
        assert!(k > 0 && k.is_multiple_of(self.block()), "rows of blocks of {}", self.block());
        run::rows((x, y), k, ranges, threads, |x, y| {
            kernel.turn(&self.factors, x, y);
            kernel.range(y)
        });
    }
}

/// As `turn` of [`crate::kernel::sealed::Routines`], one step after the other.
pub(crate) fn turn(factors: &[f32], x: &[f32], y: &mut [f32]) {
    let block = factors.len();
    for (y, x) in y.chunks_exact_mut(block).zip(x.chunks_exact(block)) {
        y.iter_mut().zip(x).zip(factors).for_each(|((y, x), factor)| *y = x * factor);
        let mut half = block / 2;
        while half > 0 {
            for pairs in y.chunks_exact_mut(2 * half) {
                let (low, high) = pairs.split_at_mut(half);
                low.iter_mut().zip(high).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
            }
            half /= 2;
        }
    }
}

#[cfg(test)]
mod tests;
