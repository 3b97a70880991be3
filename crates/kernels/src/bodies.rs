//! Loops shared by all kernels: each kernel compiles them for its own instructions. They hold no reduction over floats but
//! minimum and maximum, so the result does not depend on how they are vectorised.

use crate::activation::by_activation;
use crate::kernel::{Columns, Ending, Grids, MR, NR, Pairs, Partial, Place, RowGrid, Sink, Tile, WideTile};
use crate::range::{Lanes, Range, part};
use crate::window::{Lines, Strip};

pub(crate) mod sparse;

/// Adding this to an f32 of magnitude below 2^22 rounds it to an integer, ties to even, in the low bits.
const ROUND: f32 = 12_582_912.0;
/// The same for an f64 of magnitude below 2^51.
const ROUND_WIDE: f64 = 6_755_399_441_055_744.0;

/// A sum of a tile.
trait Sum: Copy {
    /// Its value as f32, less `zero` where the zero point's part is still in it.
    fn value(self, zero: i32) -> f32;
}

impl Sum for i32 {
    #[inline(always)]
    fn value(self, zero: i32) -> f32 {
        // Exact: the difference fits, so it is right modulo 2^32.
        self.wrapping_sub(zero) as f32
    }
}

impl Sum for i64 {
    #[inline(always)]
    fn value(self, _: i32) -> f32 {
        self as f32
    }
}

/// Outputs of a tile and its residual: rows `stride` values apart.
struct Kept<'a> {
    values: &'a mut [f32],
    residual: Option<&'a [f32]>,
    stride: usize,
    rows: usize,
}

/// Finishes columns `first .. first + L` of a tile's rows: scales, bias, residual, activation, in this order. `width` of them are
/// outputs, the rest is left alone.
#[inline(always)]
fn finish_columns<const L: usize>(
    tile: &[[impl Sum; NR]],
    grids: Grids<'_>,
    columns: &Columns<'_>,
    out: &mut Kept<'_>,
    [first, width]: [usize; 2],
    lanes: &mut Lanes,
    activate: impl Fn(f32) -> f32,
) {
    let (sums, scales, bias) =
        (part::<_, L>(columns.sums, first), part::<_, L>(columns.scales, first), part::<_, L>(columns.bias, first));
    let mut seen = lanes.part::<L>(first);
    for (r, tile) in tile[..out.rows].iter().enumerate() {
        let (grid, tile) = (grids.row(r), part::<_, L>(tile, first));
        let start = r * out.stride + first;
        let mut added = [0f32; L];
        if let Some(residual) = out.residual {
            added[..width].copy_from_slice(&residual[start..][..width]);
        }
        let mut y = [0f32; L];
        for c in 0..L {
            let sum = tile[c].value(grid.zero_point.wrapping_mul(sums[c]));
            let mut value = (sum * grid.scale).mul_add(scales[c], bias[c]);
            if out.residual.is_some() {
                value += added[c];
            }
            y[c] = activate(value);
        }
        out.values[start..][..width].copy_from_slice(&y[..width]);
        for (c, &y) in y[..width].iter().enumerate() {
            seen.add(c, y);
        }
    }
    lanes.set_part(first, &seen);
}

/// Finishes a tile's rows: their columns in runs of `L`, then of 16 and of 8, then what is left.
#[inline(always)]
fn finish_rows<const L: usize>(
    tile: &[[impl Sum; NR]],
    grids: Grids<'_>,
    columns: &Columns<'_>,
    (mut out, width): (Kept<'_>, usize),
    lanes: &mut Lanes,
    activate: impl Fn(f32) -> f32 + Copy,
) {
    let mut first = 0;
    if L == NR && width == L {
        return finish_columns::<L>(tile, grids, columns, &mut out, [0, L], lanes, activate);
    }
    while width - first >= 16 {
        finish_columns::<16>(tile, grids, columns, &mut out, [first, 16], lanes, activate);
        first += 16;
    }
    if width - first >= 8 {
        finish_columns::<8>(tile, grids, columns, &mut out, [first, 8], lanes, activate);
        first += 8;
    }
    if first < width {
        finish_columns::<8>(tile, grids, columns, &mut out, [first, width - first], lanes, activate);
    }
}

/// Finishes a tile, and does with its outputs what their place says.
#[inline(always)]
fn finish_tile<const L: usize>(
    tile: &[[impl Sum; NR]],
    grids: Grids<'_>,
    columns: &Columns<'_>,
    place: Place<'_>,
    lanes: &mut Lanes,
    activate: impl Fn(f32) -> f32 + Copy,
) {
    let Place { out, residual, stride, rows, width, .. } = place;
    match out {
        Sink::Floats(values) => {
            let kept = Kept { values, residual, stride, rows };
            finish_rows::<L>(tile, grids, columns, (kept, width), lanes, activate);
        }
        Sink::Codes(codes, grid) => {
            assert!(residual.is_none(), "a residual goes with values that are kept");
            let mut values = [0f32; MR * NR];
            let kept = Kept { values: &mut values, residual, stride: NR, rows };
            finish_rows::<L>(tile, grids, columns, (kept, width), lanes, activate);
            for (r, values) in values.chunks_exact(NR).enumerate().take(rows) {
                quantise(&values[..width], grid, &mut [&mut codes[r * stride..][..width]]);
            }
        }
    }
}

/// For every tile of the partials' lines their sums, made one after the other by `tile(lines, [line, first, rows], weights, sums)`,
/// then the epilogue.
#[inline(always)]
pub(crate) fn by_parts<const L: usize, W>(
    partials: &[Partial<'_, W>],
    mut ending: Ending<'_>,
    tile: impl Fn(&Lines<'_>, [usize; 3], &[W], &mut Tile),
) {
    let (mut sums, mut part) = ([[0; NR]; MR], [[0; NR]; MR]);
    let Some((first_partial, rest)) = partials.split_first() else { return };
    let lines = &first_partial.lines;
    for (line, first, rows) in lines.tiles() {
        tile(lines, [line, first, rows], first_partial.weights, &mut sums);
        for partial in rest {
            tile(&partial.lines, [line, first, rows], partial.weights, &mut part);
            for (sums, part) in sums.iter_mut().zip(&part).take(rows) {
                for (sum, &part) in sums.iter_mut().zip(part) {
                    *sum = (*sum << partial.raise).wrapping_add(part);
                }
            }
        }
        let ending = ending.part(line * lines.rows() + first, rows);
        for (sums, beyond) in sums.iter_mut().zip(ending.beyond.unwrap_or_default()) {
            for (sum, &beyond) in sums.iter_mut().zip(beyond) {
                *sum = sum.wrapping_add(beyond);
            }
        }
        if let Some((rows, columns)) = ending.rank_one {
            for (sums, &row) in sums.iter_mut().zip(rows) {
                for (sum, &column) in sums.iter_mut().zip(columns) {
                    *sum = sum.wrapping_add(column.wrapping_mul(row as i32));
                }
            }
        }
        end::<L>(&sums, ending);
    }
}

/// Epilogue of i32 sums, the zero point's part still in them: `sum - zp * column sum`, exact modulo 2^32. `L` columns at once
/// fill the registers.
#[inline(always)]
pub(crate) fn end<const L: usize>(tile: &Tile, ending: Ending<'_>) {
    let Ending { grids, columns, place, lanes, .. } = ending;
    by_activation!(columns.activation, |f| finish_tile::<L>(tile, grids, &columns, place, lanes, f));
}

/// Epilogue of complete i64 sums.
#[inline(always)]
pub(crate) fn finish_wide<const L: usize>(
    tile: &WideTile,
    grids: Grids<'_>,
    columns: &Columns<'_>,
    place: Place<'_>,
    lanes: &mut Lanes,
) {
    by_activation!(columns.activation, |f| finish_tile::<L>(tile, grids, columns, place, lanes, f));
}

/// Depthwise tile: `sum_t u[r, t, c] * w[t / 2][c][t % 2]` in i32.
#[inline(always)]
pub(crate) fn depthwise(strip: &Strip<'_>, weights: &[Pairs], tile: &mut Tile) {
    for (r, sums) in tile.iter_mut().enumerate().take(strip.rows()) {
        let mut acc = [0i32; NR];
        for ([a, b], weights) in strip.pairs().zip(weights) {
            let (a, b) = (strip.at(r, a), strip.at(r, b));
            for c in 0..NR {
                acc[c] += i32::from(a[c]) * i32::from(weights[c][0]) + i32::from(b[c]) * i32::from(weights[c][1]);
            }
        }
        *sums = acc;
    }
}

/// Codes of `x`: `clamp(rne(x / scale) + zp, 0, code_max)`, split into 8-bit limbs.
#[inline(always)]
pub(crate) fn quantise(x: &[f32], grid: &RowGrid, planes: &mut [&mut [u8]]) {
    let RowGrid { inv, inv_wide, zero_point, code_max, .. } = *grid;
    let finite = !grid.scale.is_nan();
    let narrow = |x: f32| {
        let rounded = (x * inv + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
        rounded.wrapping_add(zero_point).clamp(0, code_max)
    };
    let wide = |x: f32| {
        let rounded = (f64::from(x) * inv_wide + ROUND_WIDE).to_bits().wrapping_sub(ROUND_WIDE.to_bits()) as i64;
        (rounded as i32).wrapping_add(zero_point).clamp(0, code_max)
    };
    if !finite {
        for plane in planes {
            plane.fill(0);
        }
        return;
    }
    match planes {
        [low] => {
            for (code, &x) in low.iter_mut().zip(x) {
                *code = narrow(x) as u8;
            }
        }
        [low, high] if code_max < 1 << 12 => {
            for ((low, high), &x) in low.iter_mut().zip(high.iter_mut()).zip(x) {
                let code = narrow(x);
                (*low, *high) = (code as u8, (code >> 8) as u8);
            }
        }
        [low, high] => {
            for ((low, high), &x) in low.iter_mut().zip(high.iter_mut()).zip(x) {
                let code = wide(x);
                (*low, *high) = (code as u8, (code >> 8) as u8);
            }
        }
        [low, middle, high] => {
            for (((low, middle), high), &x) in low.iter_mut().zip(middle.iter_mut()).zip(high.iter_mut()).zip(x) {
                let code = wide(x);
                (*low, *middle, *high) = (code as u8, (code >> 8) as u8, (code >> 16) as u8);
            }
        }
        _ => unreachable!("codes have one to three limbs"),
    }
}

/// Range of `x`, widened to include zero.
#[inline(always)]
pub(crate) fn range(x: &[f32]) -> Range {
    let (rows, rest) = x.as_chunks::<NR>();
    let mut lanes: Lanes = Lanes::EMPTY;
    for row in rows {
        for (c, &x) in row.iter().enumerate() {
            lanes.add(c, x);
        }
    }
    for (c, &x) in rest.iter().enumerate() {
        lanes.add(c, x);
    }
    lanes.range()
}
