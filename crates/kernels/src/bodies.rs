//! Loops shared by all kernels: each kernel compiles them for its own instructions. They hold no reduction over floats but
//! minimum and maximum, so the result does not depend on how they are vectorised.

use crate::Range;
use crate::kernel::{Columns, Grids, MR, NR, Place, RowGrid, Tile, WideTile};
use crate::window::Strip;

/// Adding this to an f32 of magnitude below 2^22 rounds it to an integer, ties to even, in the low bits.
const ROUND: f32 = 12_582_912.0;
/// The same for an f64 of magnitude below 2^51.
const ROUND_WIDE: f64 = 6_755_399_441_055_744.0;

/// Running minimum and maximum of a panel's columns.
struct Lanes {
    low: [f32; NR],
    high: [f32; NR],
    magnitude: [u32; NR],
}

impl Lanes {
    #[inline(always)]
    fn new() -> Self {
        Self { low: [0.0; NR], high: [0.0; NR], magnitude: [0; NR] }
    }

    #[inline(always)]
    fn add(&mut self, y: &[f32; NR]) {
        for c in 0..NR {
            self.low[c] = if y[c] < self.low[c] { y[c] } else { self.low[c] };
            self.high[c] = if y[c] > self.high[c] { y[c] } else { self.high[c] };
            self.magnitude[c] = self.magnitude[c].max(y[c].to_bits() & 0x7fff_ffff);
        }
    }

    #[inline(always)]
    fn range(&self) -> Range {
        let mut range = Range::EMPTY;
        for c in 0..NR {
            range = range.union(Range { low: self.low[c], high: self.high[c], magnitude: self.magnitude[c] });
        }
        range
    }
}

/// One row of outputs from its sums as f32: scales, bias, residual, clamp, in this order.
#[inline(always)]
fn finish_row(sums: &[f32; NR], scale: f32, columns: &Columns<'_>, residual: Option<&[f32]>, y: &mut [f32; NR]) {
    for c in 0..NR {
        y[c] = (sums[c] * scale).mul_add(columns.scales[c], columns.bias[c]);
    }
    if let Some(residual) = residual {
        if let Ok(full) = <&[f32; NR]>::try_from(residual) {
            for c in 0..NR {
                y[c] += full[c];
            }
        } else {
            for (y, r) in y.iter_mut().zip(residual) {
                *y += r;
            }
        }
    }
    for y in y.iter_mut() {
        let raised = if *y < columns.low { columns.low } else { *y };
        *y = if raised > columns.high { columns.high } else { raised };
    }
}

/// Writes the rows of a tile and widens `range`; `sums(r)` gives row `r` as f32.
#[inline(always)]
fn finish_rows(
    sums: impl Fn(usize, &RowGrid) -> [f32; NR],
    grids: Grids<'_>,
    columns: &Columns<'_>,
    place: Place<'_>,
    range: &mut Range,
) {
    let Place { out, residual, stride, rows, width } = place;
    let mut lanes = Lanes::new();
    for r in 0..rows {
        let grid = grids.row(r);
        let residual = residual.map(|residual| &residual[r * stride..][..width]);
        let mut y = [0f32; NR];
        finish_row(&sums(r, grid), grid.scale, columns, residual, &mut y);
        let out = &mut out[r * stride..][..width];
        match <&mut [f32; NR]>::try_from(&mut *out) {
            Ok(full) => *full = y,
            Err(_) => {
                out.copy_from_slice(&y[..width]);
                // Columns beyond the layer's channels are no outputs.
                y[width..].fill(0.0);
            }
        }
        lanes.add(&y);
    }
    *range = range.union(lanes.range());
}

/// Epilogue of i32 sums, the zero point's part still in them: `sum - zp * column sum`, exact modulo 2^32.
#[inline(always)]
pub(crate) fn finish(tile: &Tile, grids: Grids<'_>, columns: &Columns<'_>, place: Place<'_>, range: &mut Range) {
    let sums = |r: usize, grid: &RowGrid| {
        let mut sums = [0f32; NR];
        for c in 0..NR {
            sums[c] = tile[r][c].wrapping_sub(grid.zero_point.wrapping_mul(columns.sums[c])) as f32;
        }
        sums
    };
    finish_rows(sums, grids, columns, place, range);
}

/// Epilogue of complete i64 sums.
#[inline(always)]
pub(crate) fn finish_wide(
    tile: &WideTile,
    grids: Grids<'_>,
    columns: &Columns<'_>,
    place: Place<'_>,
    range: &mut Range,
) {
    finish_rows(|r, _: &RowGrid| tile[r].map(|sum| sum as f32), grids, columns, place, range);
}

/// Depthwise tile: `sum_t u[r, t, c] * w[t][c]` in i32.
#[inline(always)]
pub(crate) fn depthwise(strip: &Strip<'_>, weights: &[[i16; NR]], tile: &mut Tile) {
    for (r, sums) in tile.iter_mut().enumerate().take(strip.rows().min(MR)) {
        let mut acc = [0i32; NR];
        for (t, weights) in weights.iter().enumerate() {
            let codes = strip.tap(r, t);
            for c in 0..NR {
                acc[c] += i32::from(codes[c]) * i32::from(weights[c]);
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
        _ => {
            for (i, &x) in x.iter().enumerate() {
                let code = wide(x);
                for (limb, plane) in planes.iter_mut().enumerate() {
                    plane[i] = (code >> (8 * limb)) as u8;
                }
            }
        }
    }
}

/// Range of `x`, widened to include zero.
#[inline(always)]
pub(crate) fn range(x: &[f32]) -> Range {
    let (rows, rest) = x.as_chunks::<NR>();
    let mut lanes = Lanes::new();
    for row in rows {
        lanes.add(row);
    }
    let mut last = [0f32; NR];
    last[..rest.len()].copy_from_slice(rest);
    lanes.add(&last);
    lanes.range()
}
