//! Depthwise strips by `vpdpwssd` on 512 bits, in blocks of up to seven rows of 32 channels; see [`crate::x86`] for how taps are
//! paired and why sums are exact.

use std::arch::asm;
use std::arch::x86_64::*;

use super::epilogue::{CODES, DEPTHWISE, Panel, by_steps, each_row, quads, raise};
use super::store_512;
use crate::bodies;
use crate::kernel::{Ending, NR, Pairs, Partial, Tile};
use crate::window::Strip;
use crate::x86::by_rows;

/// Adds the products of two taps of a row.
macro_rules! multiply {
    ($acc:expr, $codes:expr, $w:ident) => {{
        let [a, b] = $codes;
        $acc = [dot($acc[0], _mm512_unpacklo_epi16(a, b), $w[0]), dot($acc[1], _mm512_unpackhi_epi16(a, b), $w[1])];
    }};
}

/// Adds the products of `$rows` rows of a strip from row `$first` on to `$acc`, whose vectors hold every other four channels: a
/// macro, so that they stay in the registers of the function it stands in.
macro_rules! add {
    ($rows:ident, $strip:expr, $weights:expr, $first:expr, $acc:ident) => {{
        let (strip, weights, first): (&Strip<'_>, &[Pairs], usize) = ($strip, $weights, $first);
        assert!(first + $rows <= strip.rows(), "rows of a strip");
        let start = strip.as_ptr().wrapping_add(first * strip.row_stride());
        assert_eq!(weights.len(), strip.taps().len().div_ceil(2), "pairs of taps");
        for (i, weights) in weights.iter().enumerate() {
            let [a, b] = strip.pair(i);
            let (halves, _) = weights.as_chunks();
            let [w0, w1] = [weights_512(&halves[0]), weights_512(&halves[1])];
            let w = quads([w0, w1]);
            let stride = strip.row_stride();
            let (a, b) = (start.wrapping_add(a), start.wrapping_add(b));
            // Neighbours in a line: what a row has at one tap the next has at the other.
            if b == a.wrapping_add(stride) {
                let mut next = codes_512(a);
                each_row!($rows, |R| {
                    let codes = [next, codes_512(b.wrapping_add(R * stride))];
                    next = codes[1];
                    multiply!($acc[R], codes, w);
                });
            } else {
                each_row!($rows, |R| {
                    let row = R * stride;
                    multiply!($acc[R], [codes_512(a.wrapping_add(row)), codes_512(b.wrapping_add(row))], w);
                });
            }
        }
    }};
}

/// Puts the channels of `$rows` rows in order.
macro_rules! in_order {
    ($rows:ident, $acc:ident) => {{
        let low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
        let high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
        each_row!($rows, |R| {
            let [even, odd] = $acc[R];
            $acc[R] = [_mm512_permutex2var_epi64(even, low, odd), _mm512_permutex2var_epi64(even, high, odd)];
        });
    }};
}

/// The sums of a strip.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn depthwise(strip: &Strip<'_>, weights: &[Pairs], tile: &mut Tile) {
    by_rows!(strip.rows(), 7, [1 2 3 4 5 6 7], |first| block_of(strip, weights, first, tile));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn block_of<const ROWS: usize>(strip: &Strip<'_>, weights: &[Pairs], first: usize, tile: &mut Tile) {
    let mut acc = [[_mm512_setzero_si512(); 2]; ROWS];
    add!(ROWS, strip, weights, first, acc);
    in_order!(ROWS, acc);
    for (acc, sums) in acc.iter().zip(&mut tile[first..]) {
        let (halves, _) = sums.as_chunks_mut();
        store_512(&mut halves[0], acc[0]);
        store_512(&mut halves[1], acc[1]);
    }
}

/// The partials of some lines, finished; where it can be, before they leave the registers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
pub(super) fn fused_depthwise(partials: &[Partial<'_, Pairs>], mut ending: Ending<'_>) {
    by_steps!(
        ending,
        |STEPS| {
            const ORDER: u8 = STEPS | DEPTHWISE;
            let mut out = Panel::new::<ORDER>(&mut ending);
            for (line, first, rows) in partials[0].lines.tiles() {
                let tile = [line, first, rows];
                by_rows!(rows, 7, [1 2 3 4 5 6 7], |block| strip_of<ORDER>(partials, tile, block, &mut out));
            }
            out.end(ending.lanes);
        },
        {
            bodies::by_parts::<NR, _>(partials, ending, |lines, [line, first, rows], weights, sums| {
                depthwise(&lines.strip(line, first, rows), weights, sums);
            });
        }
    )
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn strip_of<const ROWS: usize, const STEPS: u8>(
    partials: &[Partial<'_, Pairs>],
    [line, first, rows]: [usize; 3],
    block: usize,
    out: &mut Panel<'_>,
) {
    let rest = &partials[1..];
    let start = if rest.is_empty() { out.start::<STEPS>() } else { [_mm512_setzero_si512(); 2] };
    let mut acc = [start; ROWS];
    add!(ROWS, &partials[0].lines.strip(line, first, rows), partials[0].weights, block, acc);
    for (i, partial) in rest.iter().enumerate() {
        raise!(ROWS, partial.raise, acc, (i + 1 == rest.len()).then(|| out.start::<STEPS>()));
        add!(ROWS, &partial.lines.strip(line, first, rows), partial.weights, block, acc);
    }
    if STEPS & CODES == 0 {
        in_order!(ROWS, acc);
    }
    let row = line * partials[0].lines.rows() + first + block;
    if out.has_beyond() {
        each_row!(ROWS, |R| acc[R] = out.with_beyond::<STEPS>(row + R, acc[R]));
    }
    let mut rows = out.of_line(line);
    each_row!(ROWS, |R| rows.finish::<STEPS>(row + R, acc[R]));
    out.seen(&rows);
}

/// `acc + a0 b0 + a1 b1` by `vpdpwssd`, which the compiler takes apart into a product and a sum where it may.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot(mut acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: the instruction reads and writes these registers alone, and the features that it needs are enabled.
    unsafe {
        asm!("vpdpwssd {}, {}, {}", inout(zmm_reg) acc, in(zmm_reg) a, in(zmm_reg) b, options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// Pairs of 16 channels.
#[inline]
#[target_feature(enable = "avx512f")]
fn weights_512(pairs: &[[i16; 2]; 16]) -> __m512i {
    // SAFETY: `pairs` is 64 bytes.
    unsafe { _mm512_loadu_si512(pairs.as_ptr().cast()) }
}

/// Codes of 32 channels as u16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn codes_512(codes: *const u8) -> __m512i {
    // SAFETY: a strip checked `NR` bytes from every row of every tap, and blocks stay below its rows.
    let bytes = unsafe { _mm256_loadu_si256(codes.cast()) };
    _mm512_cvtepu8_epi16(bytes)
}
