//! Rotation of rows by 256-bit vectors: steps between vectors, then within them.

use std::arch::x86_64::*;

/// Values of a vector.
const LANES: usize = 8;

/// As `turn` of [`crate::kernel::sealed::Routines`].
#[target_feature(enable = "avx2,fma")]
pub(crate) fn turn_256(factors: &[f32], x: &[f32], y: &mut [f32]) {
    match factors.len() / LANES {
        2 => blocks::<2>(factors, x, y),
        4 => blocks::<4>(factors, x, y),
        8 => blocks::<8>(factors, x, y),
        16 => blocks::<16>(factors, x, y),
        vectors => unreachable!("a block of {vectors} vectors"),
    }
}

/// Blocks of `V` vectors.
#[target_feature(enable = "avx2,fma")]
fn blocks<const V: usize>(factors: &[f32], x: &[f32], y: &mut [f32]) {
    let factors = &factors.as_chunks().0[..V];
    let signs = [4, 2, 1].map(|distance| {
        let sign = |i: usize| if i & distance == 0 { 1.0 } else { -1.0 };
        load(&std::array::from_fn(sign))
    });
    for (y, x) in y.as_chunks_mut().0.chunks_exact_mut(V).zip(x.as_chunks().0.chunks_exact(V)) {
        let mut v: [__m256; V] = std::array::from_fn(|r| _mm256_mul_ps(load(&x[r]), load(&factors[r])));
        let mut half = V / 2;
        while half > 0 {
            for r in (0..V).filter(|r| r & half == 0) {
                (v[r], v[r + half]) = (_mm256_add_ps(v[r], v[r + half]), _mm256_sub_ps(v[r], v[r + half]));
            }
            half /= 2;
        }
        for (y, v) in y.iter_mut().zip(v) {
            store(y, within(v, &signs));
        }
    }
}

/// The steps of distances 4, 2 and 1: each value times its sign, which rounds nothing, plus the other of its pair.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn within(v: __m256, signs: &[__m256; 3]) -> __m256 {
    let v = _mm256_fmadd_ps(v, signs[0], _mm256_permute2f128_ps::<1>(v, v));
    let v = _mm256_fmadd_ps(v, signs[1], _mm256_permute_ps::<0b01_00_11_10>(v));
    _mm256_fmadd_ps(v, signs[2], _mm256_permute_ps::<0b10_11_00_01>(v))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(values: &[f32; LANES]) -> __m256 {
    // SAFETY: `values` is 8 f32.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(out: &mut [f32; LANES], v: __m256) {
    // SAFETY: `out` is 8 f32.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) }
}
