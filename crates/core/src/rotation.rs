//! Rotation of a matrix product: `x W = (x R)(R^-1 W)`, so that no single value decides the grid of a row or a column.
//!
//! ```text
//! R    = diag(s) H 2^-p      along every block of b inputs: s signs, H the Hadamard matrix of b in natural order
//! R^-1 = H diag(s) 2^p / b
//! ```
//!
//! A row's largest values are spread over their blocks, and a rotated row is close to normal whatever it was: its grid is finer by as
//! much as its range was wide. With `p = ceil(log2(b) / 2)` both factors are powers of two: they round nothing, and `R` is as close
//! to orthogonal as that allows. The signs keep a row of one sign from becoming a single large value.

use crate::MatMulGeometry;

/// Largest block: all of it fits the registers of a CPU, and larger ones gain little.
const MOST: usize = 128;
/// Smallest block: smaller ones spread a value over too few.
const LEAST: usize = 16;
/// Signs of a block, 1 for minus: the first bits of pi's fraction.
const SIGNS: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];

/// A rotation of rows, block by block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    block: usize,
}

impl Rotation {
    /// The rotation of rows of `depth` values; `None` where they are not made of blocks of at least 16.
    pub fn of(depth: usize) -> Option<Self> {
        let block = MOST.min(1 << depth.trailing_zeros().min(63));
        Self::with_block(block).filter(|_| depth > 0)
    }

    /// The rotation of blocks of this size; `None` unless it is 16, 32, 64 or 128.
    pub fn with_block(block: usize) -> Option<Self> {
        (block.is_power_of_two() && (LEAST..=MOST).contains(&block)).then_some(Self { block })
    }

    /// Values of a block.
    pub fn block(self) -> usize {
        self.block
    }

    /// What the values of a block are multiplied by before they are added: `s 2^-p`.
    pub fn factors(self) -> Vec<f32> {
        let scale = (-(self.log().div_ceil(2) as f32)).exp2();
        (0..self.block).map(|i| if minus(i) { -scale } else { scale }).collect()
    }

    /// `R` of a block, row by row: that of a row of ones and zeros is a row of it.
    pub fn matrix(self) -> Vec<f32> {
        let factors = self.factors();
        let entry = |at: usize| {
            let (i, j) = (at / self.block, at % self.block);
            if (i & j).count_ones() % 2 == 1 { -factors[i] } else { factors[i] }
        };
        (0..self.block * self.block).map(entry).collect()
    }

    /// `x R` of a row, in place: factors, then sums and differences of values `b / 2`, `b / 4`, .. and 1 apart, in f32.
    ///
    /// # Panics
    /// Unless the row is made of blocks.
    pub fn turn(self, x: &mut [f32]) {
        assert!(x.len().is_multiple_of(self.block), "rows of blocks of {}", self.block);
        let factors = self.factors();
        for block in x.chunks_exact_mut(self.block) {
            block.iter_mut().zip(&factors).for_each(|(x, factor)| *x *= factor);
            butterflies(block);
        }
    }

    /// `R^-1 W`, in f64 and rounded once to f32; as it is where a weight is not finite.
    ///
    /// # Panics
    /// Unless the values fill the geometry and its depth is made of blocks.
    pub fn weights(self, geometry: &MatMulGeometry, values: &[f32]) -> Vec<f32> {
        let scale = (-((self.log() / 2) as f64)).exp2();
        self.of_columns(geometry, values, |column| {
            column.iter_mut().enumerate().filter(|&(i, _)| minus(i)).for_each(|(_, w)| *w = -*w);
            butterflies(column);
            column.iter_mut().for_each(|w| *w *= scale);
        })
    }

    /// `R W`, which takes [`Rotation::weights`] back up to a rounding to f32.
    ///
    /// # Panics
    /// As [`Rotation::weights`].
    pub fn restored(self, geometry: &MatMulGeometry, values: &[f32]) -> Vec<f32> {
        let scale = (-(self.log().div_ceil(2) as f64)).exp2();
        self.of_columns(geometry, values, |column| {
            butterflies(column);
            column.iter_mut().enumerate().for_each(|(i, w)| *w *= if minus(i) { -scale } else { scale });
        })
    }

    fn log(self) -> u32 {
        self.block.trailing_zeros()
    }

    /// Weights whose columns are changed block by block.
    fn of_columns(self, geometry: &MatMulGeometry, values: &[f32], change: impl Fn(&mut [f64])) -> Vec<f32> {
        let MatMulGeometry { k, n, transposed } = *geometry;
        assert!(values.len() == k * n && k.is_multiple_of(self.block), "weights of blocks of {}", self.block);
        let mut changed = values.to_vec();
        if values.iter().any(|w| !w.is_finite()) {
            return changed;
        }
        let (to_next, to_column) = if transposed { (1, k) } else { (n, 1) };
        let mut block = vec![0f64; self.block];
        for first in (0..k).step_by(self.block) {
            for column in 0..n {
                let place = |i: usize| (first + i) * to_next + column * to_column;
                block.iter_mut().enumerate().for_each(|(i, w)| *w = f64::from(values[place(i)]));
                change(&mut block);
                block.iter().enumerate().for_each(|(i, &w)| changed[place(i)] = w as f32);
            }
        }
        changed
    }
}

/// Whether value `i` of a block changes its sign.
fn minus(i: usize) -> bool {
    SIGNS[i / 64] >> (63 - i % 64) & 1 == 1
}

/// The product with `H`: sums and differences of values half the block apart, then a quarter, down to neighbours.
fn butterflies<T: Copy + std::ops::Add<Output = T> + std::ops::Sub<Output = T>>(x: &mut [T]) {
    let mut half = x.len() / 2;
    while half > 0 {
        for pairs in x.chunks_exact_mut(2 * half) {
            let (low, high) = pairs.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half /= 2;
    }
}

#[cfg(test)]
mod tests;
