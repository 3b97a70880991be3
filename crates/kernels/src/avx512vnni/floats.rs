//! Products of floats, 14 x 32 by `vfmadd231ps`, and the transposition that makes their panels, by blocks of 16 x 16.

use std::arch::x86_64::*;

use super::epilogue::each_row;
use crate::attention::{Factor, Target};
use crate::kernel::{MR, NR};
use crate::x86::block;

/// Values of a vector.
const LANES: usize = 16;

/// As `float_product` of [`crate::kernel::sealed::Routines`].
#[target_feature(enable = "avx512f")]
pub(super) fn float_product(lhs: &Factor<'_>, panel: &[f32], target: Target<'_>) {
    of_rows!(lhs.rows(), product_of, [], (lhs, panel, target))
}

/// A product of `ROWS` rows.
#[target_feature(enable = "avx512f")]
fn product_of<const ROWS: usize>(lhs: &Factor<'_>, panel: &[f32], target: Target<'_>) {
    assert_eq!((lhs.rows(), panel.len()), (ROWS, lhs.depth() * NR), "panel and factor differ in depth");
    let mut acc = [[_mm512_setzero_ps(); NR / LANES]; ROWS];
    let (mut x, stride) = (lhs.as_ptr(), lhs.stride());
    for panel in panel.as_chunks::<NR>().0 {
        let w = [load(panel, 0), load(panel, 1)];
        each_row!(ROWS, |R| {
            let x = broadcast(x.wrapping_add(R * stride));
            acc[R] = [_mm512_fmadd_ps(x, w[0], acc[R][0]), _mm512_fmadd_ps(x, w[1], acc[R][1])];
        });
        x = x.wrapping_add(1);
    }
    for (r, acc) in acc.iter().enumerate() {
        for (&acc, out) in acc.iter().zip(target.out[r * target.stride..].as_chunks_mut().0) {
            store(out, acc);
        }
    }
}

/// As `transpose` of [`crate::kernel::sealed::Routines`].
#[target_feature(enable = "avx512f")]
pub(super) fn transpose(x: &Factor<'_>, panel: &mut [f32]) {
    assert!(x.rows() <= NR && panel.len() == x.depth() * NR, "columns of a panel");
    for half in 0..NR / LANES {
        for first in (0..x.depth()).step_by(LANES) {
            let block = std::array::from_fn(|r| values(x, half * LANES + r, first));
            let columns = panel.as_chunks_mut::<LANES>().0.iter_mut().skip(first * (NR / LANES) + half);
            for (column, values) in columns.step_by(NR / LANES).zip(transposed(block)) {
                store(column, values);
            }
        }
    }
}

/// Values `first ..` of row `r`, 0 beyond the row and beyond the last row.
#[inline]
#[target_feature(enable = "avx512f")]
fn values(x: &Factor<'_>, r: usize, first: usize) -> __m512 {
    if r >= x.rows() {
        return _mm512_setzero_ps();
    }
    let row = &x.row(r)[first..];
    let mask = ((1u32 << row.len().min(LANES)) - 1) as __mmask16;
    // SAFETY: the mask keeps to the row.
    unsafe { _mm512_maskz_loadu_ps(mask, row.as_ptr()) }
}

/// Columns as rows: the 256 values in order are a pack of cards, shuffled perfectly four times.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(mut x: [__m512; LANES]) -> [__m512; LANES] {
    let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    for _ in 0..4 {
        x = std::array::from_fn(|i| {
            let order = if i % 2 == 0 { low } else { high };
            _mm512_permutex2var_ps(x[i / 2], order, x[i / 2 + LANES / 2])
        });
    }
    x
}

/// 16 of a panel's values.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(values: &[f32; NR], v: usize) -> __m512 {
    let values = &values[LANES * v..][..LANES];
    // SAFETY: `values` is 16 f32.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

/// One value in every lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(x: *const f32) -> __m512 {
    // SAFETY: a factor checked `row * stride + depth` against its values, and `product_of` stays below `rows` and `depth`.
    let x = unsafe { x.read() };
    _mm512_set1_ps(x)
}

/// Replaces 16 values.
#[inline]
#[target_feature(enable = "avx512f")]
fn store(out: &mut [f32; LANES], acc: __m512) {
    // SAFETY: `out` is 16 f32.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), acc) }
}
