//! Loops over what is added to the products of codes: what lies beyond them where they are clipped, and their sums.

use crate::beyond::{Beyond, Hit, Windows};
use crate::kernel::{NR, RowGrid};

use super::{ROUND, ROUND_WIDE};

/// Appends what lies beyond the codes of `x`, on a grid with a scale; the first code is at place `first`. Ends where `beyond` holds
/// more than `most`.
#[inline(always)]
pub(crate) fn beyond(x: &[f32], grid: &RowGrid, (first, most): (usize, usize), beyond: &mut Vec<Beyond>) {
    let RowGrid { inv, inv_wide, zero_point, code_max, .. } = *grid;
    let places = (first, most);
    if code_max < 1 << 12 {
        let code = |x: f32| (x * inv + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
        return outside(x, |x| code(x).wrapping_add(zero_point), code_max, places, beyond);
    }
    let code = |x: f32| (f64::from(x) * inv_wide + ROUND_WIDE).to_bits().wrapping_sub(ROUND_WIDE.to_bits()) as i32;
    outside(x, |x| code(x).wrapping_add(zero_point), code_max, places, beyond);
}

/// Appends what integers have beyond `0 ..= code_max`.
#[inline(always)]
fn outside(
    x: &[f32],
    integer: impl Fn(f32) -> i32,
    code_max: i32,
    (first, most): (usize, usize),
    beyond: &mut Vec<Beyond>,
) {
    let (rows, rest) = x.as_chunks::<NR>();
    for (i, row) in rows.iter().enumerate() {
        outside_row(row, &integer, code_max, first + i * NR, beyond);
        if beyond.len() > most {
            return;
        }
    }
    // Zeros have a code.
    let mut last = [0f32; NR];
    last[..rest.len()].copy_from_slice(rest);
    outside_row(&last, &integer, code_max, first + rows.len() * NR, beyond);
}

/// [`outside`] of a row from place `first` on.
#[inline(always)]
fn outside_row(x: &[f32; NR], integer: &impl Fn(f32) -> i32, code_max: i32, first: usize, beyond: &mut Vec<Beyond>) {
    let (mut integers, mut largest) = ([0i32; NR], 0);
    for (to, &x) in integers.iter_mut().zip(x) {
        *to = integer(x);
        // As u32 a negative integer is larger than any code.
        largest = largest.max(*to as u32);
    }
    if largest <= code_max as u32 {
        return;
    }
    for (c, &integer) in integers.iter().enumerate() {
        if integer as u32 > code_max as u32 {
            beyond.push(Beyond { at: first + c, delta: integer - integer.clamp(0, code_max) });
        }
    }
}

/// `sum rne(|x| unit)`, each less than 2^22.
#[inline(always)]
pub(crate) fn magnitudes(x: &[f32], unit: f32) -> u64 {
    /// Values whose sums fit the 32 bits of their lanes.
    const PART: usize = NR << 9;
    let integer = |x: f32| (x.abs() * unit + ROUND).to_bits().wrapping_sub(ROUND.to_bits());
    let mut total = 0u64;
    for x in x.chunks(PART) {
        let (rows, rest) = x.as_chunks::<NR>();
        let mut lanes = [0u32; NR];
        for row in rows {
            for (lane, &x) in lanes.iter_mut().zip(row) {
                *lane += integer(x);
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(rest) {
            *lane += integer(x);
        }
        total += lanes.iter().map(|&lane| u64::from(lane)).sum::<u64>();
    }
    total
}

/// `tile[row][c] += (delta * panel[at, c]) << bits` for every hit, modulo 2^32.
#[inline(always)]
pub(crate) fn scatter(hits: &[Hit], panel: &[i8], bits: u32, tile: &mut [[i32; NR]]) {
    let (steps, _) = panel.as_chunks::<{ 4 * NR }>();
    // The sums of a row stay in registers while its hits follow each other.
    for row in hits.chunk_by(|a, b| a.row == b.row) {
        let mut sums = tile[row[0].row];
        for &Hit { at, delta, .. } in row {
            let (quads, _) = steps[at / 4].as_chunks::<4>();
            // The depth's byte of every four to the top, and back with its sign.
            let (lift, delta) = (24 - 8 * (at % 4) as u32, delta << bits);
            for (sum, &quad) in sums.iter_mut().zip(quads) {
                let weight = i32::from_le_bytes(quad.map(|byte| byte as u8)) << lift >> 24;
                *sum = sum.wrapping_add(weight.wrapping_mul(delta));
            }
        }
        tile[row[0].row] = sums;
    }
}

/// Adds the sum of the codes of every window, shifted left by `bits`, to `totals`.
#[inline(always)]
pub(crate) fn totals(windows: &Windows<'_>, plane: &[u8], bits: u32, totals: &mut [i64]) {
    let Windows { base, rows, row_stride, line_stride, taps, len, .. } = *windows;
    let overlap = row_stride > 0 && row_stride < len && len.is_multiple_of(row_stride);
    for (line, totals) in totals.chunks_mut(rows).enumerate() {
        for tap in taps {
            let codes = &plane[base + line * line_stride + tap..];
            if !overlap {
                for (row, total) in totals.iter_mut().enumerate() {
                    *total += i64::from(sum_of_codes(&codes[row * row_stride..][..len])) << bits;
                }
                continue;
            }
            // Windows that overlap by whole strides are differences of the sums of these.
            let (strides, mut sum) = (len / row_stride, 0);
            for at in 0..rows + strides - 1 {
                if let Some(total) = totals.get_mut(at) {
                    *total -= sum << bits;
                }
                sum += i64::from(sum_of_codes(&codes[at * row_stride..][..row_stride]));
                if at + 1 >= strides {
                    totals[at + 1 - strides] += sum << bits;
                }
            }
        }
    }
}

/// The sum of bytes.
#[inline(always)]
fn sum_of_codes(codes: &[u8]) -> u32 {
    /// Pairs of bytes of a vector, and vectors whose sums fit 16 bits.
    const PAIRS: usize = 32;
    const VECTORS: usize = 128;
    /// The even bytes of a word.
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    let (vectors, rest) = codes.as_chunks::<{ 2 * PAIRS }>();
    let mut total = 0;
    for vectors in vectors.chunks(VECTORS) {
        let mut lanes = [0u16; PAIRS];
        for vector in vectors {
            let (pairs, _) = vector.as_chunks::<2>();
            for c in 0..PAIRS {
                let pair = u16::from_le_bytes(pairs[c]);
                lanes[c] += (pair & 0xff) + (pair >> 8);
            }
        }
        for lane in lanes {
            total += u32::from(lane);
        }
    }
    // Four sums of 16 bits in a word, and the sum of these in its highest.
    let (words, rest) = rest.as_chunks::<8>();
    let mut pairs = 0u64;
    for &word in words {
        let word = u64::from_le_bytes(word);
        pairs += (word & EVEN) + ((word >> 8) & EVEN);
    }
    total += (pairs.wrapping_mul(0x0001_0001_0001_0001) >> 48) as u32;
    for &code in rest {
        total += u32::from(code);
    }
    total
}
