//! Products of floats by 256-bit vectors: blocks of up to 6 x 16, whose 12 accumulators, two vectors of the panel and one
//! broadcast fill the 16 registers.

use std::arch::x86_64::*;

use crate::attention::{Factor, Target};
use crate::kernel::NR;

/// Columns of a block.
const COLUMNS: usize = 16;
/// Vectors across a block.
const VECTORS: usize = COLUMNS / 8;

/// As `float_product` of [`crate::kernel::sealed::Routines`].
#[target_feature(enable = "avx2,fma")]
pub(crate) fn float_product_256(lhs: &Factor<'_>, panel: &[f32], target: Target<'_>) {
    assert_eq!(panel.len(), lhs.depth() * NR, "panel and factor differ in depth");
    let Target { out, stride } = target;
    for column in (0..NR).step_by(COLUMNS) {
        by_rows!(lhs.rows(), 6, [1 2 3 4 5 6], |first| block(lhs, panel, [first, column], out, stride));
    }
}

/// The block of `R` rows from `first` on, and of [`COLUMNS`] columns from `column` on.
#[target_feature(enable = "avx2,fma")]
fn block<const R: usize>(
    lhs: &Factor<'_>,
    panel: &[f32],
    [first, column]: [usize; 2],
    out: &mut [f32],
    out_stride: usize,
) {
    assert!(first + R <= lhs.rows(), "rows of a factor");
    let mut acc = [[_mm256_setzero_ps(); VECTORS]; R];
    let (mut x, stride) = (lhs.as_ptr().wrapping_add(first * lhs.stride()), lhs.stride());
    for panel in panel.as_chunks::<NR>().0 {
        let w: [__m256; VECTORS] = std::array::from_fn(|v| load(&panel[column + 8 * v..]));
        for (r, acc) in acc.iter_mut().enumerate() {
            let x = broadcast(x.wrapping_add(r * stride));
            for (acc, &w) in acc.iter_mut().zip(&w) {
                *acc = _mm256_fmadd_ps(x, w, *acc);
            }
        }
        x = x.wrapping_add(1);
    }
    for (r, acc) in acc.iter().enumerate() {
        for (&acc, out) in acc.iter().zip(out[(first + r) * out_stride + column..].as_chunks_mut().0) {
            store(out, acc);
        }
    }
}

/// Eight values.
#[inline]
#[target_feature(enable = "avx2")]
fn load(values: &[f32]) -> __m256 {
    let values: &[f32; 8] = values.first_chunk().expect("columns of a panel");
    // SAFETY: `values` is 8 f32.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

/// One value in every lane.
#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(x: *const f32) -> __m256 {
    // SAFETY: a factor checked `row * stride + depth` against its values, and `block` stays below `rows` and `depth`.
    let x = unsafe { x.read() };
    _mm256_set1_ps(x)
}

/// Replaces eight values.
#[inline]
#[target_feature(enable = "avx2")]
fn store(out: &mut [f32; 8], acc: __m256) {
    // SAFETY: `out` is 8 f32.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), acc) }
}
