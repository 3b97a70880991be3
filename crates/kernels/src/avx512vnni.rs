//! `avx512vnni`: tiles of 14 x 32 by `vpdpbusd`, which adds four u8 x s8 products to each i32 lane.
//!
//! Exact: each product fits 16 bits and the four are added in 32 bits without saturation (`vpdpbusd`, not `vpdpbusds`). A
//! tile holds 28 accumulators, two weight vectors and one broadcast in the 32 registers.

use std::arch::x86_64::*;

use crate::kernel::{MR, NR, Tile};
use crate::window::Window;
use crate::x86::{depthwise_512 as depthwise, x86_kernel};

/// Vectors across a panel.
const VECTORS: usize = NR / 16;

x86_kernel! {
    /// The AVX-512 VNNI kernel.
    Avx512Vnni, "avx512vnni", 32 columns, ["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "fma"]
}

/// The rows of `window` against `panel`.
#[target_feature(enable = "avx512f,avx512vnni")]
fn tile(window: &Window<'_>, panel: &[i8], tile: &mut Tile) {
    macro_rules! by_rows {
        ($($rows:literal)*) => {
            match window.rows() {
                $($rows => tile_of::<$rows>(window, panel, tile),)*
                rows => unreachable!("a window has 1 to {MR} rows, not {rows}"),
            }
        };
    }
    by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
}

/// A tile of `ROWS` rows.
#[target_feature(enable = "avx512f,avx512vnni")]
fn tile_of<const ROWS: usize>(window: &Window<'_>, panel: &[i8], tile: &mut Tile) {
    let (steps, stride) = (window.depth() / 4, window.row_stride());
    assert_eq!(panel.len(), window.taps().len() * window.depth() * NR, "panel and window differ in depth");
    assert_eq!(window.rows(), ROWS);
    let mut acc = [[_mm512_setzero_si512(); VECTORS]; ROWS];
    let mut weights = panel.as_ptr();
    for &tap in window.taps() {
        // SAFETY: a window checked that every tap lies within its data.
        let mut codes = unsafe { window.as_ptr().add(tap) };
        for _ in 0..steps {
            let mut w = [_mm512_setzero_si512(); VECTORS];
            for (v, w) in w.iter_mut().enumerate() {
                *w = load(weights.wrapping_add(64 * v));
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let u = broadcast(codes.wrapping_add(r * stride));
                for (acc, &w) in acc.iter_mut().zip(&w) {
                    *acc = _mm512_dpbusd_epi32(*acc, u, w);
                }
            }
            weights = weights.wrapping_add(4 * NR);
            codes = codes.wrapping_add(4);
        }
    }
    for (acc, sums) in acc.iter().zip(tile.iter_mut()) {
        for (&acc, sums) in acc.iter().zip(sums.as_chunks_mut::<16>().0) {
            // SAFETY: `sums` is 16 i32, 64 bytes.
            unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), acc) }
        }
    }
}

/// 64 weights.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(weights: *const i8) -> __m512i {
    // SAFETY: `tile_of` asserted that the panel holds `taps * steps` steps of `4 * NR` bytes and walks no further.
    unsafe { _mm512_loadu_si512(weights.cast()) }
}

/// Four codes in every lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(codes: *const u8) -> __m512i {
    // SAFETY: the window checked `tap + row * stride + depth` against its data, and `tile_of` stays below `depth`.
    let four = unsafe { codes.cast::<i32>().read_unaligned() };
    _mm512_set1_epi32(four)
}
