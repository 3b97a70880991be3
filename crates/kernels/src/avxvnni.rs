//! `avxvnni`: blocks of up to 6 x 16 by the 256-bit `vpdpbusd`, which adds four u8 x s8 products to each i32 lane.
//!
//! Exact: each product fits 16 bits and the four are added in 32 bits without saturation (`vpdpbusd`, not `vpdpbusds`). A
//! block holds 12 accumulators, two weight vectors and one broadcast in the 16 registers; a tile is its rows in blocks of
//! nearly equal height, each for both halves of the panel.

use std::arch::x86_64::*;

use crate::attention::integers::bodies::{code_queries, code_values, weigh};
use crate::attention::transpose;
use crate::kernel::{NR, Tile};
use crate::window::Window;
use crate::x86::{
    by_rows, depthwise_256 as depthwise, float_product_256 as float_product, store_256 as store, turn_256 as turn,
    x86_by_parts, x86_kernel,
};

/// Columns of a block.
const COLUMNS: usize = 16;
/// Vectors across a block.
const VECTORS: usize = COLUMNS / 8;

x86_kernel! {
    /// The AVX-VNNI kernel.
    AvxVnni, "avxvnni", 16 columns, ["avx2", "fma", "avxvnni"]
}

x86_by_parts!(16 columns, "avx2,fma,avxvnni");

/// The rows of `window` against `panel`.
#[target_feature(enable = "avx2,avxvnni")]
fn tile(window: &Window<'_>, panel: &[i8], tile: &mut Tile) {
    assert_eq!(panel.len(), window.taps().len() * window.depth() * NR, "panel and window differ in depth");
    for column in (0..NR).step_by(COLUMNS) {
        by_rows!(window.rows(), 6, [1 2 3 4 5 6], |first| block(window, panel, [first, column], tile));
    }
}

/// The block of `R` rows from `first` on, and of [`COLUMNS`] columns from `column` on.
#[target_feature(enable = "avx2,avxvnni")]
fn block<const R: usize>(window: &Window<'_>, panel: &[i8], [first, column]: [usize; 2], tile: &mut Tile) {
    let (steps, stride) = (window.depth() / 4, window.row_stride());
    let mut acc = [[_mm256_setzero_si256(); VECTORS]; R];
    let mut weights = panel.as_ptr().wrapping_add(4 * column);
    for &tap in window.taps() {
        let mut codes = window.as_ptr().wrapping_add(tap + first * stride);
        for _ in 0..steps {
            let w: [__m256i; VECTORS] = std::array::from_fn(|v| load(weights.wrapping_add(32 * v)));
            for (r, acc) in acc.iter_mut().enumerate() {
                let u = broadcast(codes.wrapping_add(r * stride));
                for (acc, &w) in acc.iter_mut().zip(&w) {
                    *acc = _mm256_dpbusd_avx_epi32(*acc, u, w);
                }
            }
            weights = weights.wrapping_add(4 * NR);
            codes = codes.wrapping_add(4);
        }
    }
    for (acc, sums) in acc.iter().zip(&mut tile[first..]) {
        for (&acc, sums) in acc.iter().zip(sums[column..].as_chunks_mut().0) {
            store(sums, acc);
        }
    }
}

/// 32 weights.
#[inline]
#[target_feature(enable = "avx2")]
fn load(weights: *const i8) -> __m256i {
    // SAFETY: `tile` asserted that the panel holds `taps * steps` steps of `4 * NR` bytes and `block` walks no further.
    unsafe { _mm256_loadu_si256(weights.cast()) }
}

/// Four codes in every lane.
#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(codes: *const u8) -> __m256i {
    // SAFETY: the window checked `tap + row * stride + depth` against its data, and `block` stays below `rows` and `depth`.
    let four = unsafe { codes.cast::<i32>().read_unaligned() };
    _mm256_set1_epi32(four)
}
