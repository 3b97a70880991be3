//! Depthwise tiles for x86-64: a multiply-add instruction takes two taps of a channel, u8 codes widened to 16 bits against
//! 16-bit weights.
//!
//! Exact: a pair of products has a magnitude of at most `2 * 255 * 32,768`, and the instructions add in 32 bits without
//! saturation. Two vectors of widened codes, one a tap, are interleaved into pairs within their 128-bit lanes; so an accumulator
//! holds every other four channels, weights are put in this order when they are loaded and sums put back when they are stored.

use std::arch::x86_64::*;

use crate::kernel::{NR, Pairs, Tile};
use crate::window::Strip;

/// Tile by `vpmaddwd` on 256 bits: blocks of up to 5 rows, 16 channels.
#[target_feature(enable = "avx2")]
pub(crate) fn depthwise_256(strip: &Strip<'_>, weights: &[Pairs], tile: &mut Tile) {
    for column in [0, NR / 2] {
        by_rows!(strip.rows(), 5, [1 2 3 4 5], |first| block_256(strip, weights, [first, column], tile));
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn block_256<const R: usize>(strip: &Strip<'_>, weights: &[Pairs], [first, column]: [usize; 2], tile: &mut Tile) {
    let rows: &mut [_; R] = tile[first..].first_chunk_mut().expect("rows of a tile");
    let mut acc = [[_mm256_setzero_si256(); 2]; R];
    for ([a, b], weights) in strip.pairs().zip(weights) {
        let (halves, _) = weights[column..].as_chunks();
        let [w0, w1] = [weights_256(&halves[0]), weights_256(&halves[1])];
        let w = [_mm256_permute2x128_si256::<0x20>(w0, w1), _mm256_permute2x128_si256::<0x31>(w0, w1)];
        for (r, acc) in acc.iter_mut().enumerate() {
            let row = strip.as_ptr().wrapping_add((first + r) * strip.row_stride() + column);
            let (a, b) = (codes_256(row.wrapping_add(a)), codes_256(row.wrapping_add(b)));
            acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), w[0]));
            acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), w[1]));
        }
    }
    for (&[even, odd], sums) in acc.iter().zip(rows) {
        let (halves, _) = sums[column..].as_chunks_mut();
        store_256(&mut halves[0], _mm256_permute2x128_si256::<0x20>(even, odd));
        store_256(&mut halves[1], _mm256_permute2x128_si256::<0x31>(even, odd));
    }
}

/// Pairs of eight channels.
#[inline]
#[target_feature(enable = "avx2")]
fn weights_256(pairs: &[[i16; 2]; 8]) -> __m256i {
    // SAFETY: `pairs` is 32 bytes.
    unsafe { _mm256_loadu_si256(pairs.as_ptr().cast()) }
}

/// Codes of 16 channels as u16.
#[inline]
#[target_feature(enable = "avx2")]
fn codes_256(codes: *const u8) -> __m256i {
    // SAFETY: as for `codes_512`; the column is at most `NR / 2`.
    let bytes = unsafe { _mm_loadu_si128(codes.cast()) };
    _mm256_cvtepu8_epi16(bytes)
}

/// Eight sums.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn store_256(sums: &mut [i32; 8], acc: __m256i) {
    // SAFETY: `sums` is 32 bytes.
    unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), acc) }
}
