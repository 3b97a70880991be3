//! `avx512vnni`: tiles of 14 x 32 by `vpdpbusd`, which adds four u8 x s8 products to each i32 lane.
//!
//! Exact: each product fits 16 bits and the four are added in 32 bits without saturation (`vpdpbusd`, not `vpdpbusds`). A
//! tile holds 28 accumulators, two weight vectors and one broadcast in the 32 registers.

use std::arch::x86_64::*;

use crate::bodies;
use crate::kernel::{Ending, MR, NR, Partial, Tile};
use crate::window::Window;
use crate::x86::{block, x86_kernel};

mod depthwise;
mod epilogue;

use depthwise::{depthwise, fused_depthwise};
use epilogue::{Panel, VECTORS, by_steps, each_row, raise};

x86_kernel! {
    /// The AVX-512 VNNI kernel.
    Avx512Vnni, "avx512vnni", 32 columns, ["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "fma"]
}

/// Runs `$part::<rows, constants>(..)` for a number of rows.
macro_rules! of_rows {
    ($rows:expr, $part:ident, $constants:tt, $args:tt) => {
        of_rows!(@ $rows, $part, $constants, $args, 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    };
    (@ $rows:expr, $part:ident, $constants:tt, $args:tt, $($row:literal)*) => {
        match $rows {
            $($row => block!($part, $row, $constants, $args),)*
            rows => unreachable!("a window has 1 to {MR} rows, not {rows}"),
        }
    };
}

mod floats;
mod integers;
mod rotation;

use floats::{float_product, transpose};
use integers::{code_queries, code_values, weigh};
use rotation::turn;

/// Adds the products of a window's `ROWS` rows by a panel to `$acc`: a macro, so that they stay in the registers of the function
/// it stands in. Of a half panel only the first vector has outputs.
macro_rules! add {
    ($rows:ident, $half:expr, $window:expr, $panel:expr, $acc:ident) => {{
        let (window, panel): (&Window<'_>, &[i8]) = ($window, $panel);
        let (steps, stride) = (window.depth() / 4, window.row_stride());
        assert_eq!(panel.len(), window.taps().len() * window.depth() * NR, "panel and window differ in depth");
        assert_eq!(window.rows(), $rows);
        let mut weights = panel.as_ptr();
        for &tap in window.taps() {
            // SAFETY: a window checked that every tap lies within its data.
            let mut codes = unsafe { window.as_ptr().add(tap) };
            for _ in 0..steps {
                let w = [load(weights), load(weights.wrapping_add(64))];
                each_row!($rows, |R| {
                    let u = broadcast(codes.wrapping_add(R * stride));
                    $acc[R][0] = _mm512_dpbusd_epi32($acc[R][0], u, w[0]);
                    if !$half {
                        $acc[R][1] = _mm512_dpbusd_epi32($acc[R][1], u, w[1]);
                    }
                });
                weights = weights.wrapping_add(4 * NR);
                codes = codes.wrapping_add(4);
            }
        }
    }};
}

/// The rows of `window` against `panel`.
#[target_feature(enable = "avx512f,avx512vnni")]
fn tile(window: &Window<'_>, panel: &[i8], tile: &mut Tile) {
    of_rows!(window.rows(), tile_of, [], (window, panel, tile))
}

/// A tile of `ROWS` rows.
#[target_feature(enable = "avx512f,avx512vnni")]
fn tile_of<const ROWS: usize>(window: &Window<'_>, panel: &[i8], tile: &mut Tile) {
    let mut acc = [[_mm512_setzero_si512(); VECTORS]; ROWS];
    add!(ROWS, false, window, panel, acc);
    for (acc, sums) in acc.iter().zip(tile.iter_mut()) {
        for (&acc, sums) in acc.iter().zip(sums.as_chunks_mut::<16>().0) {
            store_512(sums, acc);
        }
    }
}

/// The partials of some lines, finished; where it can be, before they leave the registers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
fn fused(partials: &[Partial<'_, i8>], mut ending: Ending<'_>) {
    by_steps!(
        ending,
        |STEPS| {
            let half = ending.place.width <= NR / VECTORS;
            let mut out = Panel::new::<STEPS>(&mut ending);
            for (line, first, rows) in partials[0].lines.tiles() {
                if STEPS & MASKED != 0 && half {
                    of_rows!(rows, fused_of, [STEPS, true], (partials, [line, first], &mut out));
                } else {
                    of_rows!(rows, fused_of, [STEPS, false], (partials, [line, first], &mut out));
                }
            }
            out.end(ending.lanes);
        },
        {
            bodies::by_parts::<NR, _>(partials, ending, |lines, [line, first, rows], panel, sums| {
                tile(&lines.window(line, first, rows), panel, sums);
            });
        }
    )
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn fused_of<const ROWS: usize, const STEPS: u8, const HALF: bool>(
    partials: &[Partial<'_, i8>],
    [line, first]: [usize; 2],
    out: &mut Panel<'_>,
) {
    let row = line * partials[0].lines.rows() + first;
    out.prefetch::<STEPS>(row, ROWS);
    let rest = &partials[1..];
    let start = if rest.is_empty() { out.start::<STEPS>() } else { [_mm512_setzero_si512(); VECTORS] };
    let mut acc = [start; ROWS];
    add!(ROWS, HALF, &partials[0].lines.window(line, first, ROWS), partials[0].weights, acc);
    for (i, partial) in rest.iter().enumerate() {
        raise!(ROWS, partial.raise, acc, (i + 1 == rest.len()).then(|| out.start::<STEPS>()));
        add!(ROWS, HALF, &partial.lines.window(line, first, ROWS), partial.weights, acc);
    }
    if out.has_beyond() {
        each_row!(ROWS, |R| acc[R] = out.with_beyond::<STEPS>(row + R, acc[R]));
    }
    out.add_rank_one(row, &mut acc);
    let mut block = out.of_line(line);
    each_row!(ROWS, |R| block.finish::<STEPS>(row + R, acc[R]));
    out.seen(&block);
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

/// 16 sums.
#[inline]
#[target_feature(enable = "avx512f")]
fn store_512(sums: &mut [i32; 16], acc: __m512i) {
    // SAFETY: `sums` is 64 bytes.
    unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), acc) }
}
