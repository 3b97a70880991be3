//! `avx2`: blocks of up to 6 x 8 by `vpmaddwd`, on codes and weights widened to 16 bits.
//!
//! Exact: `vpmaddwd` adds two products of magnitude at most `255 * 128` to a 32-bit lane. (`vpmaddubsw` would multiply bytes
//! directly, but it saturates its sums at 16 bits.) The four depths of a channel become two such lanes, added when a block is
//! stored.
//!
//! A tile runs over its depth in pieces: the codes of a piece are widened once, then each block of it multiplies them by
//! weights widened as they are loaded. A block holds 12 accumulators of four channels, two weight vectors and one broadcast
//! in the 16 registers.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use crate::attention::integers::bodies::{code_queries, code_values, weigh};
use crate::attention::transpose;
use crate::kernel::{MR, NR, Tile};
use crate::window::Window;
use crate::x86::{
    by_rows, depthwise_256 as depthwise, float_product_256 as float_product, turn_256 as turn, x86_by_parts, x86_kernel,
};

/// Columns of a block.
const COLUMNS: usize = 8;
/// Vectors across a block, of four channels by four depths.
const VECTORS: usize = COLUMNS / 4;
/// Depth of a piece.
const DEPTH: usize = 256;

/// Widened codes of a piece: the rows of a window from the first on, each from its start on.
type Piece = [[MaybeUninit<u16>; DEPTH]; MR];

x86_kernel! {
    /// The AVX2 kernel.
    Avx2, "avx2", 16 columns, ["avx2", "fma"]
}

x86_by_parts!(16 columns, "avx2,fma");

/// The rows of `window` against `panel`.
#[target_feature(enable = "avx2")]
fn tile(window: &Window<'_>, panel: &[i8], tile: &mut Tile) {
    assert_eq!(panel.len(), window.taps().len() * window.depth() * NR, "panel and window differ in depth");
    let mut codes = [[MaybeUninit::uninit(); DEPTH]; MR];
    let (mut filled, mut weights) = (0, panel);
    tile[..window.rows()].fill([0; NR]);
    for tap in 0..window.taps().len() {
        let mut from = 0;
        while from < window.depth() {
            let len = (window.depth() - from).min(DEPTH - filled);
            for (r, row) in codes.iter_mut().enumerate().take(window.rows()) {
                for (wide, &code) in row[filled..][..len].iter_mut().zip(&window.tap(r, tap)[from..]) {
                    wide.write(u16::from(code));
                }
            }
            (from, filled) = (from + len, filled + len);
            if filled == DEPTH {
                piece(window.rows(), &codes, weights.split_off(..DEPTH * NR).expect("a piece"), tile);
                filled = 0;
            }
        }
    }
    piece(window.rows(), &codes, weights, tile);
}

/// Adds `rows` rows of a piece against its weights.
#[target_feature(enable = "avx2")]
fn piece(rows: usize, codes: &Piece, weights: &[i8], tile: &mut Tile) {
    for column in (0..NR).step_by(COLUMNS) {
        by_rows!(rows, 6, [1 2 3 4 5 6], |first| block(codes, weights, [first, column], tile));
    }
}

/// Adds the block of `R` rows from `first` on, and of [`COLUMNS`] columns from `column` on.
#[target_feature(enable = "avx2")]
fn block<const R: usize>(codes: &Piece, weights: &[i8], [first, column]: [usize; 2], tile: &mut Tile) {
    let codes: &[_; R] = codes[first..].first_chunk().expect("rows of a tile");
    let mut acc = [[_mm256_setzero_si256(); VECTORS]; R];
    for (k, weights) in (0..DEPTH).step_by(4).zip(weights.as_chunks::<{ 4 * NR }>().0) {
        let (groups, _) = weights[4 * column..].as_chunks();
        let w = [widened(&groups[0]), widened(&groups[1])];
        for (codes, acc) in codes.iter().zip(&mut acc) {
            let u = broadcast(&codes[k..]);
            for (acc, &w) in acc.iter_mut().zip(&w) {
                *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(u, w));
            }
        }
    }
    for (&[low, high], sums) in acc.iter().zip(&mut tile[first..]) {
        // Channels 0 1 4 5 2 3 6 7, then in order.
        let added = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(low, high));
        add(sums[column..].first_chunk_mut().expect("columns of a tile"), added);
    }
}

/// 16 weights as i16.
#[inline]
#[target_feature(enable = "avx2")]
fn widened(weights: &[i8; 16]) -> __m256i {
    // SAFETY: `weights` is 16 bytes.
    let bytes = unsafe { _mm_loadu_si128(weights.as_ptr().cast()) };
    _mm256_cvtepi8_epi16(bytes)
}

/// The first four of these codes in every 64-bit lane.
#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(codes: &[MaybeUninit<u16>]) -> __m256i {
    let four: &[_; 4] = codes.first_chunk().expect("four codes");
    // SAFETY: `piece` is called with weights as deep as `tile` has widened codes for the window's rows.
    let four = unsafe { four.as_ptr().cast::<i64>().read_unaligned() };
    _mm256_set1_epi64x(four)
}

/// Adds eight sums.
#[inline]
#[target_feature(enable = "avx2")]
fn add(sums: &mut [i32; 8], more: __m256i) {
    let sums = sums.as_mut_ptr().cast();
    // SAFETY: `sums` is 8 i32, 32 bytes.
    let old = unsafe { _mm256_loadu_si256(sums) };
    let sum = _mm256_add_epi32(old, more);
    // SAFETY: as above.
    unsafe { _mm256_storeu_si256(sums, sum) }
}
