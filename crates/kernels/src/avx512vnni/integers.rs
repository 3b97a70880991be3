//! The loops of attention on integers by vectors of 16: the operations of [`crate::attention::integers::bodies`], in the same order.
//!
//! `max(x, largest)` gives its second operand where one is NaN or both are zero, as `if x > largest {x} else {largest}` does. Bytes
//! are the lowest of 32 bits, which is what `vpmovdb` keeps.

use std::arch::x86_64::*;

use crate::attention::Factor;
use crate::attention::integers::{RUN, Weighed, ZERO, bodies};
use crate::kernel::NR;
use crate::lanes::tree;
use crate::softmax::Scores;

/// Values of a vector.
const LANES: usize = 16;

/// As `weigh` of [`crate::kernel::sealed::Routines`]: step by step over all rows, as each step of a row waits for the one before.
#[target_feature(enable = "avx512f")]
pub(super) fn weigh(block: Weighed<'_>, scales: &mut [f32]) {
    let Weighed { scores, stride, count, codes, values, .. } = block;
    let (rows, depth) = (block.rows.len(), count.next_multiple_of(4));
    assert!(
        rows <= RUN && scales.len() == rows && values.len() >= count && codes.len() >= rows * depth,
        "rows of a block"
    );
    let (mut largest, mut ends) = ([0f32; RUN], [0f32; RUN]);
    for (r, x) in scores.chunks_exact_mut(stride).enumerate().take(rows) {
        let mask = block.mask.map(|mask| mask.row(r, count));
        largest[r] = add_masks(&mut x[..count], Scores { scale: block.rows[r], mask });
    }
    for (r, x) in scores.chunks_exact_mut(stride).enumerate().take(rows) {
        let (most, sum) = exponentials(&mut x[..count], largest[r], values);
        (ends[r], scales[r]) = bodies::ends(most, sum);
    }
    for (r, (x, codes)) in scores.chunks_exact(stride).zip(codes.chunks_exact_mut(depth)).enumerate().take(rows) {
        let ((own, beyond), inv) = (codes.split_at_mut(count), _mm512_set1_ps(ends[r]));
        for (first, own) in own.chunks_mut(LANES).enumerate() {
            store_bytes(own, 0, rounded(load(&x[..count], first * LANES), inv));
        }
        beyond.fill(0);
    }
}

/// Replaces scores by `x * scale + mask`; the largest.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_masks(x: &mut [f32], scores: Scores<'_>) -> f32 {
    let scale = _mm512_set1_ps(scores.scale);
    let one = if let Some(&[mask]) = scores.mask { Some(mask) } else { None };
    let same = _mm512_set1_ps(one.unwrap_or(0.0));
    let masks = if one.is_some() { None } else { scores.mask };
    let (mut largest, whole) = (_mm512_set1_ps(f32::NEG_INFINITY), x.len() / LANES * LANES);
    let (runs, rest) = x.as_chunks_mut::<LANES>();
    for (i, x) in runs.iter_mut().enumerate() {
        let mask = masks.map_or(same, |mask| load(mask, i * LANES));
        let z = _mm512_add_ps(_mm512_mul_ps(load(x, 0), scale), mask);
        store(x, 0, z);
        largest = _mm512_max_ps(z, largest);
    }
    if !rest.is_empty() {
        let mask = masks.map_or(same, |mask| load(mask, whole));
        store(rest, 0, _mm512_add_ps(_mm512_mul_ps(load(rest, 0), scale), mask));
        largest = _mm512_max_ps(or_least(rest), largest);
    }
    _mm512_reduce_max_ps(largest)
}

/// Replaces `z` by `exp(z - largest)` times the scale of its value; the largest of them, and the sum of the exponentials.
#[inline]
#[target_feature(enable = "avx512f")]
fn exponentials(x: &mut [f32], largest: f32, values: &[f32]) -> (f32, f32) {
    let largest = _mm512_set1_ps(largest);
    let (mut sums, mut most) = (_mm512_setzero_ps(), _mm512_setzero_ps());
    let (runs, rest) = x.as_chunks_mut::<LANES>();
    let (whole, beyond) = values.as_chunks::<LANES>();
    for (x, values) in runs.iter_mut().zip(whole) {
        let p = short_exp(_mm512_sub_ps(load(x, 0), largest));
        let w = _mm512_mul_ps(p, load(values, 0));
        store(x, 0, w);
        (sums, most) = (_mm512_add_ps(sums, p), _mm512_max_ps(w, most));
    }
    if !rest.is_empty() {
        let p = short_exp(_mm512_sub_ps(or_least(rest), largest));
        let w = _mm512_mul_ps(p, load(beyond, 0));
        store(rest, 0, w);
        (sums, most) = (_mm512_add_ps(sums, p), _mm512_max_ps(w, most));
    }
    let mut lanes = [0f32; LANES];
    store(&mut lanes, 0, sums);
    (_mm512_reduce_max_ps(most), tree(lanes))
}

/// As [`bodies::short_exp`].
#[inline]
#[target_feature(enable = "avx512f")]
fn short_exp(x: __m512) -> __m512 {
    let round = _mm512_set1_ps(bodies::ROUND);
    let t = _mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E));
    let rounded = _mm512_add_ps(t, round);
    let f = _mm512_sub_ps(t, _mm512_sub_ps(rounded, round));
    let [a, b, c, d] = bodies::EXP.map(|c| _mm512_set1_ps(c));
    let q = _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_fmadd_ps(a, f, b), f, c), f, d);
    let power = _mm512_slli_epi32::<23>(_mm512_add_epi32(_mm512_castps_si512(rounded), _mm512_set1_epi32(127)));
    let e = _mm512_mul_ps(_mm512_fmadd_ps(q, f, _mm512_set1_ps(1.0)), _mm512_castsi512_ps(power));
    let near = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(-87.0));
    _mm512_maskz_mov_ps(near, e)
}

/// As `code_queries` of [`crate::kernel::sealed::Routines`].
#[target_feature(enable = "avx512f")]
pub(super) fn code_queries(x: &Factor<'_>, steps: u8, codes: &mut [u8], scales: &mut [f32]) {
    let (depth, zero) = (x.depth().next_multiple_of(4), _mm512_set1_epi32(ZERO));
    let mut inverse = [0f32; RUN];
    for (part, (scales, codes)) in scales.chunks_mut(RUN).zip(codes.chunks_mut(RUN * depth)).enumerate() {
        let first = part * RUN;
        for (r, scale) in scales.iter_mut().enumerate() {
            inverse[r] = bodies::step_into(scale, step_of_row(x.row(first + r), steps));
        }
        for (r, codes) in codes.chunks_exact_mut(depth).enumerate() {
            let (row, inv) = (x.row(first + r), _mm512_set1_ps(inverse[r]));
            let (own, rest) = codes.split_at_mut(row.len());
            for (i, own) in own.chunks_mut(LANES).enumerate() {
                store_bytes(own, 0, _mm512_xor_si512(rounded(load(row, i * LANES), inv), zero));
            }
            rest.fill(0);
        }
    }
}

/// As `code_values` of [`crate::kernel::sealed::Routines`].
#[target_feature(enable = "avx512f")]
pub(super) fn code_values(x: &Factor<'_>, steps: u8, packed: &mut [i8], scales: &mut [f32]) {
    let (rows, low) = (x.rows(), _mm512_set1_epi32(255));
    let len = rows.next_multiple_of(4) * NR;
    for first in (0..rows).step_by(4) {
        let mut inv = [_mm512_setzero_ps(); 4];
        for (r, inv) in inv.iter_mut().enumerate().take(rows - first) {
            *inv = _mm512_set1_ps(bodies::step_into(&mut scales[first + r], step_of_row(x.row(first + r), steps)));
        }
        for (i, panel) in packed.chunks_exact_mut(len).enumerate() {
            let panel = &mut panel[first * NR..][..4 * NR];
            for (half, panel) in panel.as_chunks_mut::<64>().0.iter_mut().enumerate() {
                let column = i * NR + half * LANES;
                let byte = |r: usize| {
                    let values = if first + r < rows { load(x.row(first + r), column) } else { _mm512_setzero_ps() };
                    _mm512_and_si512(rounded(values, inv[r]), low)
                };
                let even = _mm512_or_si512(byte(0), _mm512_slli_epi32::<16>(byte(2)));
                let odd = _mm512_or_si512(byte(1), _mm512_slli_epi32::<16>(byte(3)));
                store_words(panel, _mm512_or_si512(even, _mm512_slli_epi32::<8>(odd)));
            }
        }
    }
}

/// As [`bodies::step_of_row`].
#[inline]
#[target_feature(enable = "avx512f")]
fn step_of_row(row: &[f32], steps: u8) -> (f32, f32) {
    let none = _mm512_setzero_ps();
    let (mut largest, mut odd) = (none, none);
    let (runs, rest) = row.as_chunks::<LANES>();
    for run in runs {
        let x = load(run, 0);
        (largest, odd) = (_mm512_max_ps(_mm512_abs_ps(x), largest), _mm512_fmadd_ps(x, none, odd));
    }
    if !rest.is_empty() {
        let x = load(rest, 0);
        (largest, odd) = (_mm512_max_ps(_mm512_abs_ps(x), largest), _mm512_fmadd_ps(x, none, odd));
    }
    // Zeros and NaN add up to the same in every order.
    let odd = if _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(odd, odd) == 0 { 0.0 } else { f32::NAN };
    bodies::step_of(_mm512_reduce_max_ps(largest), odd, steps)
}

/// Bits whose lowest byte is that of the integers of values.
#[inline]
#[target_feature(enable = "avx512f")]
fn rounded(x: __m512, inv: __m512) -> __m512i {
    _mm512_castps_si512(_mm512_add_ps(_mm512_mul_ps(x, inv), _mm512_set1_ps(bodies::ROUND)))
}

/// The lanes of which `len` values have one.
#[inline]
fn lanes(len: usize) -> __mmask16 {
    ((1u32 << len.min(LANES)) - 1) as __mmask16
}

/// Values `first ..`, and 0 beyond.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(x: &[f32], first: usize) -> __m512 {
    let x = x.get(first..).unwrap_or_default();
    match x.first_chunk::<LANES>() {
        // SAFETY: `x` is 16 f32.
        Some(x) => unsafe { _mm512_loadu_ps(x.as_ptr()) },
        // SAFETY: the mask keeps to `x`.
        None => unsafe { _mm512_maskz_loadu_ps(lanes(x.len()), x.as_ptr()) },
    }
}

/// Up to 16 values, and `-inf` beyond.
#[inline]
#[target_feature(enable = "avx512f")]
fn or_least(x: &[f32]) -> __m512 {
    _mm512_mask_mov_ps(_mm512_set1_ps(f32::NEG_INFINITY), lanes(x.len()), load(x, 0))
}

/// Replaces values `first ..`, as many as there are up to 16.
#[inline]
#[target_feature(enable = "avx512f")]
fn store(x: &mut [f32], first: usize, values: __m512) {
    let x = &mut x[first..];
    match x.first_chunk_mut::<LANES>() {
        // SAFETY: `x` is 16 f32.
        Some(x) => unsafe { _mm512_storeu_ps(x.as_mut_ptr(), values) },
        // SAFETY: the mask keeps to `x`.
        None => unsafe { _mm512_mask_storeu_ps(x.as_mut_ptr(), lanes(x.len()), values) },
    }
}

/// Replaces codes `first ..`, as many as there are up to 16, by the lowest bytes of values.
#[inline]
#[target_feature(enable = "avx512f")]
fn store_bytes(codes: &mut [u8], first: usize, values: __m512i) {
    let (codes, bytes) = (&mut codes[first..], _mm512_cvtepi32_epi8(values));
    match codes.first_chunk_mut::<LANES>() {
        // SAFETY: `codes` is 16 bytes.
        Some(codes) => unsafe { _mm_storeu_si128(codes.as_mut_ptr().cast(), bytes) },
        None => {
            let mut own = [0u8; LANES];
            // SAFETY: `own` is 16 bytes.
            unsafe { _mm_storeu_si128(own.as_mut_ptr().cast(), bytes) };
            codes.copy_from_slice(&own[..codes.len()]);
        }
    }
}

/// Replaces 64 integers.
#[inline]
#[target_feature(enable = "avx512f")]
fn store_words(panel: &mut [i8; 64], words: __m512i) {
    // SAFETY: `panel` is 64 bytes.
    unsafe { _mm512_storeu_si512(panel.as_mut_ptr().cast(), words) }
}
