//! Normalisation of rows: LayerNorm and RMSNorm.
//!
//! ```text
//! LayerNorm   mean = sum x / k;  d = x - mean;  y = mul_add(d * (1 / sqrt(sum d^2 / k + epsilon)), scale, bias)
//! RMSNorm                        d = x;         y = mul_add(d * (1 / sqrt(sum d^2 / k + epsilon)), scale, bias)
//! ```
//!
//! Sums run in 64 lanes (`lanes`), squares enter by `mul_add`; division and square root are IEEE's. Where the sum of squares is
//! not finite, as where the row holds what is not finite, the row is NaN.

use crate::lanes::{joined, tree};
use crate::{Kernel, Range, bodies, run};

/// Lanes of a sum.
const LANES: usize = 64;

/// A normalisation of rows of `scale.len()` values.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// What a column is multiplied by.
    pub scale: Vec<f32>,
    /// What is added to it then; as many.
    pub bias: Vec<f32>,
    /// What is added to the mean of the squares.
    pub epsilon: f32,
    /// Whether the mean stays in (RMSNorm).
    pub rms: bool,
}

impl Norm {
    /// Normalises the rows of `x` into `y`; `ranges` becomes the range of each row made.
    ///
    /// # Panics
    /// If scale and bias differ in length, `x` and `y` do, or the rows do not fill them.
    pub fn run(&self, kernel: &dyn Kernel, x: &[f32], y: &mut [f32], ranges: &mut Vec<Range>, threads: usize) {
        assert_eq!(self.bias.len(), self.scale.len(), "one bias a column");
        run::rows((x, y), self.scale.len(), ranges, threads, |x, y| kernel.normalise(self, x, y));
    }
}

/// One row; returns its range.
#[inline(always)]
pub(crate) fn normalise(norm: &Norm, x: &[f32], y: &mut [f32]) -> Range {
    let count = x.len() as f32;
    let mean = if norm.rms { 0.0 } else { tree(joined::<LANES>(x, 0.0, |sum, x| sum + x)) / count };
    let square = |sum: f32, x: f32| {
        let d = x - mean;
        d.mul_add(d, sum)
    };
    // What lies past the end is the mean, and so adds nothing.
    let squares = tree(joined::<LANES>(x, mean, square));
    let inverse = 1.0 / (squares / count + norm.epsilon).sqrt();
    let inverse = if squares.is_finite() { inverse } else { f32::NAN };
    for (((y, &x), &scale), &bias) in y.iter_mut().zip(x).zip(&norm.scale).zip(&norm.bias) {
        *y = ((x - mean) * inverse).mul_add(scale, bias);
    }
    bodies::range(y)
}

#[cfg(test)]
mod tests;
