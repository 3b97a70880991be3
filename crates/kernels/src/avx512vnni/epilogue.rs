//! The epilogue of accumulators that are still in registers: the operations of [`crate::bodies::end`], in the same
//! order, by vectors of 16 channels. What it does besides scale and bias is known when it is compiled.
//!
//! `max(low, y)` and `min(high, y)` give their second operand where one is NaN or both are zero, which is what
//! `if y < low {low} else {y}` gives; so do the minima and maxima of the range.

use std::arch::x86_64::*;

use crate::Activation;
use crate::activation::functions;
use crate::kernel::{Columns, Ending, Grids, NR, RowGrid, Sink};
use crate::range::Lanes;

/// Vectors across a panel.
pub(super) const VECTORS: usize = NR / 16;

/// Bits of `STEPS`: a residual is added, outputs are raised to the smallest, which is not negative, and lowered to the largest; a
/// panel of fewer than `NR` channels; a grid a row; outputs that become codes.
pub(super) const RESIDUAL: u8 = 1;
pub(super) const LOW: u8 = 2;
pub(super) const HIGH: u8 = 4;
pub(super) const MASKED: u8 = 8;
pub(super) const EACH: u8 = 16;
pub(super) const CODES: u8 = 32;
/// Sums come in vectors of every other four channels.
pub(super) const DEPTHWISE: u8 = 64;
/// Outputs end in a GELU.
pub(super) const GELU: u8 = 128;

/// The bits of an ending that this epilogue does: a clamp, a GELU or neither, outputs that are all finite before it, and codes of values
/// from 0 on.
pub(super) fn steps(ending: &Ending<'_>) -> Option<u8> {
    let (columns, place) = (&ending.columns, &ending.place);
    let bit = |holds: bool, bit: u8| if holds { bit } else { 0 };
    let rows = bit(place.width < NR, MASKED) | bit(matches!(ending.grids, Grids::Each(_)), EACH);
    let (bounds, bounded) = match columns.activation {
        Activation::Clamp { low, high } => {
            let bounds = bit(low > f32::NEG_INFINITY, LOW) | bit(high < f32::INFINITY, HIGH);
            (bounds, low >= 0.0 || bounds & LOW == 0)
        }
        Activation::Gelu => (GELU, true),
        _ => return None,
    };
    let (sink, plain) = match place.out {
        Sink::Floats(_) => (0, true),
        Sink::Codes(_, grid) => {
            let low = matches!(columns.activation, Activation::Clamp { low: 0.0, .. });
            (CODES, low && bounds & HIGH != 0 && grid.zero_point == 0)
        }
    };
    let admitted = columns.finite && plain && bounded;
    admitted.then_some(bounds | rows | sink | bit(place.residual.is_some(), RESIDUAL))
}

/// Runs `$one(row)` for every row below `$rows`, which is known at compile time: the code of each row stands for itself, so that
/// arrays over rows stay in registers.
macro_rules! each_row {
    ($rows:ident, |$r:ident| $one:expr) => {
        each_row!(@ $rows, |$r| $one, 0 1 2 3 4 5 6 7 8 9 10 11 12 13)
    };
    (@ $rows:ident, |$r:ident| $one:expr, $($row:literal)*) => {
        $(if $rows > $row {
            #[allow(non_upper_case_globals)]
            const $r: usize = $row;
            $one;
        })*
    };
}

/// Runs `$one` for the steps of an ending that have code of their own, as the constant `STEPS`, and otherwise `$other`.
macro_rules! by_steps {
    ($ending:expr, |$steps:ident| $one:block, $other:block) => {{
        use $crate::avx512vnni::epilogue::{CODES, EACH, GELU, HIGH, LOW, MASKED, RESIDUAL};
        const BOUNDED: u8 = LOW | HIGH;
        by_steps!(@ $ending, $steps, $one, $other, [
            (0) (LOW) (BOUNDED) (RESIDUAL) (RESIDUAL | LOW)
            (MASKED) (LOW | MASKED) (BOUNDED | MASKED) (RESIDUAL | MASKED) (EACH) (LOW | EACH) (GELU | EACH) (RESIDUAL | EACH)
            (BOUNDED | CODES) (BOUNDED | CODES | MASKED)
        ])
    }};
    (@ $ending:expr, $steps:ident, $one:block, $other:block, [$(($bits:expr))*]) => {
        match $crate::avx512vnni::epilogue::steps(&$ending) {
            $(Some(bits) if bits == $bits => {
                const $steps: u8 = $bits;
                $one
            })*
            _ => $other,
        }
    };
}

/// Shifts the sums of `$rows` rows left, and then adds `$start` where there is one.
macro_rules! raise {
    ($rows:ident, $bits:expr, $acc:ident, $start:expr) => {{
        let bits = _mm_cvtsi32_si128($bits as i32);
        let start = $start.unwrap_or([_mm512_setzero_si512(); 2]);
        each_row!($rows, |R| for v in 0..2 {
            $acc[R][v] = _mm512_add_epi32(_mm512_sll_epi32($acc[R][v], bits), start[v]);
        });
    }};
}

/// Constants of a panel, and where its rows go.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    /// Sums of the columns; times the zero point, where all rows have one.
    zero: [__m512i; VECTORS],
    grids: Grids<'a>,
    masks: [__mmask16; VECTORS],
    scales: [__m512; VECTORS],
    bias: [__m512; VECTORS],
    scale: __m512,
    low: __m512,
    high: __m512,
    out: *mut f32,
    codes: *mut u8,
    /// Inverse of the step of the codes' grid.
    inv: __m512,
    residual: *const f32,
    stride: usize,
    /// Rows of a line, values beyond `stride` from one line to the next, and these before the line at hand.
    line: usize,
    skip: usize,
    skipped: usize,
    rows: usize,
    /// What is added to the sums first, of [`NR`] channels a row; null where nothing is.
    beyond: *const i32,
    /// Factors of a rank-one product that is added too, if any.
    rank_one: Option<(&'a [i64], &'a [i32; NR])>,
    /// Range so far.
    smallest: [__m512; VECTORS],
    largest: [__m512; VECTORS],
}

impl<'a> Panel<'a> {
    /// Of an ending that [`steps`] admits.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new<const STEPS: u8>(ending: &mut Ending<'a>) -> Self {
        let Ending { grids, columns, place, lanes, beyond, rank_one } = ending;
        let (rows, width) = (place.rows, place.width);
        let last = rows.saturating_sub(1);
        let end = last * place.stride + last / place.line * place.skip + width;
        let (out, codes, coded, len) = match &mut place.out {
            Sink::Floats(out) => (out.as_mut_ptr(), std::ptr::null_mut(), None, out.len()),
            Sink::Codes(codes, grid) => (std::ptr::null_mut(), codes.as_mut_ptr(), Some(*grid), codes.len()),
        };
        assert!(rows > 0 && (1..=NR).contains(&width) && end <= len, "rows of an output");
        assert!(place.residual.is_none_or(|residual| end <= residual.len()), "rows of a residual");
        assert!(beyond.is_none_or(|beyond| rows <= beyond.len()), "rows of sparse sums");
        let grid = match grids {
            Grids::Same(grid) => **grid,
            Grids::Each(_) => RowGrid { scale: 0.0, inv: 0.0, inv_wide: 0.0, zero_point: 1, code_max: 0 },
        };
        let mask = ((1u64 << width) - 1) as u32;
        let (smallest, largest) = lanes.bounds();
        let (low, high) = match columns.activation {
            Activation::Clamp { low, high } => (low, high),
            _ => (f32::NEG_INFINITY, f32::INFINITY),
        };
        // Depthwise outputs that are kept are put in order first.
        let ordered = STEPS & DEPTHWISE == 0 || STEPS & CODES == 0;
        let values = |values: &[f32; NR]| {
            let values = [load(values, 0), load(values, 1)];
            if ordered { values } else { in_quads(values) }
        };
        let zero = [zero(columns, &grid, 0), zero(columns, &grid, 1)];
        Self {
            zero: if STEPS & DEPTHWISE == 0 { zero } else { quads(zero) },
            grids: *grids,
            masks: [mask as __mmask16, (mask >> 16) as __mmask16],
            scales: values(columns.scales),
            bias: values(columns.bias),
            scale: _mm512_set1_ps(grid.scale),
            low: _mm512_set1_ps(low),
            high: _mm512_set1_ps(high),
            rows,
            out,
            codes,
            inv: _mm512_set1_ps(coded.map_or(0.0, |grid| grid.inv)),
            residual: place.residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
            beyond: beyond.map_or(std::ptr::null(), |beyond| beyond.as_ptr().cast()),
            rank_one: *rank_one,
            stride: place.stride,
            line: place.line,
            skip: place.skip,
            skipped: 0,
            smallest: [load(smallest, 0), load(smallest, 1)],
            largest: [load(largest, 0), load(largest, 1)],
        }
    }

    /// What sums begin with, the zero point's part, unless every row has its own; before the last of several partials.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn start<const STEPS: u8>(&self) -> [__m512i; VECTORS] {
        let none = _mm512_setzero_si512();
        let [a, b] = self.zero;
        if STEPS & EACH != 0 { [none; VECTORS] } else { [_mm512_sub_epi32(none, a), _mm512_sub_epi32(none, b)] }
    }

    /// Asks for the residual of `rows` rows from row `first` on, which is read once their sums are there.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn prefetch<const STEPS: u8>(&self, first: usize, rows: usize) {
        if STEPS & RESIDUAL != 0 {
            for row in first..first + rows {
                let line = self.residual.wrapping_add(row * self.stride).cast::<i8>();
                _mm_prefetch::<_MM_HINT_T0>(line);
                _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(64));
            }
        }
    }

    /// A copy for rows of line `line`, which stays in registers.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn of_line(&self, line: usize) -> Self {
        assert!(line == 0 || line * self.line < self.rows, "a line of the panel");
        Self { skipped: line * self.skip, ..*self }
    }

    /// Finishes the sums of a row of the line at hand.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) fn finish<const STEPS: u8>(&mut self, row: usize, sums: [__m512i; VECTORS]) {
        assert!(row < self.rows, "a row of the panel");
        let start = row * self.stride + self.skipped;
        if STEPS & CODES != 0 {
            let y = [self.output::<STEPS>(row, 0, sums[0]), self.output::<STEPS>(row, 1, sums[1])];
            self.code::<STEPS>(start, y);
        } else {
            for (v, sums) in sums.into_iter().enumerate() {
                if STEPS & MASKED != 0 && self.masks[v] == 0 {
                    break;
                }
                let y = self.output::<STEPS>(row, v, sums);
                self.keep::<STEPS>(start, v, y);
            }
        }
    }

    /// Whether something lies beyond the codes of these rows.
    #[inline]
    pub(super) fn has_beyond(&self) -> bool {
        !self.beyond.is_null()
    }

    /// Sums of a row with what lies beyond the codes; there must be something.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn with_beyond<const STEPS: u8>(&self, row: usize, [a, b]: [__m512i; VECTORS]) -> [__m512i; VECTORS] {
        assert!(row < self.rows && self.has_beyond(), "a row of sparse sums");
        let beyond = self.beyond.wrapping_add(row * NR);
        // SAFETY: `new` checked `rows` rows of `NR` sums, and the assertion above that this is one of them.
        let low = unsafe { _mm512_loadu_si512(beyond.cast()) };
        // SAFETY: as above, for the other half of the row.
        let high = unsafe { _mm512_loadu_si512(beyond.wrapping_add(16).cast()) };
        // Depthwise sums that become codes are not put in order.
        let ordered = STEPS & DEPTHWISE == 0 || STEPS & CODES == 0;
        let [low, high] = if ordered { [low, high] } else { quads([low, high]) };
        [_mm512_add_epi32(a, low), _mm512_add_epi32(b, high)]
    }

    /// Adds a rank-one product to the sums of `rows` rows from `first` on, where there is one.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn add_rank_one(&self, first: usize, sums: &mut [[__m512i; VECTORS]]) {
        let Some((rows, columns)) = self.rank_one else { return };
        let columns = [integers(columns, 0), integers(columns, 1)];
        for (sums, &row) in sums.iter_mut().zip(&rows[first..]) {
            let row = _mm512_set1_epi32(row as i32);
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = _mm512_add_epi32(*sum, _mm512_mullo_epi32(column, row));
            }
        }
    }

    /// 16 outputs, which the range then includes. Those beyond the width are 0, or the least there is.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn output<const STEPS: u8>(&mut self, row: usize, v: usize, sums: __m512i) -> __m512 {
        let (mut sums, mut scale) = (sums, self.scale);
        if let (true, Grids::Each(grids)) = (STEPS & EACH != 0, self.grids) {
            sums = _mm512_sub_epi32(sums, _mm512_mullo_epi32(self.zero[v], _mm512_set1_epi32(grids[row].zero_point)));
            scale = _mm512_set1_ps(grids[row].scale);
        }
        let mut y = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), scale), self.scales[v], self.bias[v]);
        if STEPS & RESIDUAL != 0 {
            let residual = self.residual.wrapping_add(row * self.stride + self.skipped + 16 * v);
            // SAFETY: `new` checked `width` values of every row against the residual; the mask keeps to them.
            y = _mm512_add_ps(y, unsafe { _mm512_maskz_loadu_ps(self.masks[v], residual) });
        }
        if STEPS & GELU != 0 {
            y = gelu(y);
        }
        if STEPS & LOW != 0 {
            // Negative codes become 0 anyway.
            if STEPS & CODES == 0 {
                y = _mm512_max_ps(self.low, y);
            }
        } else {
            self.smallest[v] = _mm512_min_ps(y, self.smallest[v]);
        }
        if STEPS & HIGH != 0 {
            y = _mm512_min_ps(self.high, y);
        }
        self.largest[v] = _mm512_max_ps(y, self.largest[v]);
        y
    }

    /// Writes 16 outputs of a row that starts at `start`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn keep<const STEPS: u8>(&self, start: usize, v: usize, y: __m512) {
        let (out, mask) = (self.out.wrapping_add(start + 16 * v), self.masks[v]);
        if STEPS & MASKED == 0 || mask == 0xffff {
            // Whole lines, which masked stores would be slower to write.
            // SAFETY: `new` checked `width` values of every row against the output, and these are 16 of them.
            unsafe { _mm512_storeu_ps(out, y) }
        } else {
            // SAFETY: as above; the mask keeps to `width`.
            unsafe { _mm512_mask_storeu_ps(out, mask, y) }
        }
    }

    /// Writes the codes of a row's outputs, none above the largest of the grid's range: those of [`crate::bodies::quantise`], as
    /// `cvtps` rounds ties to even too and negative steps saturate at 0.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn code<const STEPS: u8>(&self, start: usize, y: [__m512; VECTORS]) {
        let low = _mm512_cvtps_epi32(_mm512_mul_ps(y[0], self.inv));
        let high = _mm512_cvtps_epi32(_mm512_mul_ps(y[1], self.inv));
        let words = _mm512_packus_epi32(low, high);
        // Eight bytes of every quarter, twice; then these quarters, whose quads take turns unless they are those of depthwise.
        let bytes = _mm512_packus_epi16(words, words);
        let order = if STEPS & DEPTHWISE == 0 {
            _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0)
        } else {
            _mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 0, 0, 0, 0, 0, 0, 0, 0)
        };
        let codes = _mm512_castsi512_si256(_mm512_permutexvar_epi32(order, bytes));
        let out = self.codes.wrapping_add(start);
        let mask = u32::from(self.masks[0]) | u32::from(self.masks[1]) << 16;
        if STEPS & MASKED == 0 {
            // SAFETY: `new` checked `width` codes of every row against the plane, and these are as many.
            unsafe { _mm256_storeu_si256(out.cast(), codes) }
        } else if mask == 0xffff {
            let codes = _mm256_castsi256_si128(codes);
            // SAFETY: as above, for half of them.
            unsafe { _mm_storeu_si128(out.cast(), codes) }
        } else {
            // SAFETY: as above; the mask keeps to `width`.
            unsafe { _mm256_mask_storeu_epi8(out.cast(), mask, codes) }
        }
    }

    /// Takes over the range that a copy has seen.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn seen(&mut self, block: &Self) {
        (self.smallest, self.largest) = (block.smallest, block.largest);
    }

    /// Puts the range back.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn end(&self, lanes: &mut Lanes) {
        let (smallest, largest) = lanes.bounds_mut();
        for v in 0..VECTORS {
            store(smallest, v, self.smallest[v]);
            store(largest, v, self.largest[v]);
        }
    }
}

/// The operations of [`functions::gelu`].
#[inline]
#[target_feature(enable = "avx512f")]
fn gelu(x: __m512) -> __m512 {
    let one = _mm512_set1_ps(1.0);
    let t = _mm512_mul_ps(x, _mm512_set1_ps(functions::GELU_SCALE));
    let t = _mm512_min_ps(one, _mm512_max_ps(_mm512_sub_ps(_mm512_setzero_ps(), one), t));
    let u = _mm512_fmsub_ps(_mm512_add_ps(t, t), t, one);
    let [first, rest @ ..] = functions::GELU;
    let mut p = _mm512_set1_ps(first);
    for c in rest {
        p = _mm512_fmadd_ps(p, u, _mm512_set1_ps(c));
    }
    _mm512_mul_ps(x, _mm512_fmadd_ps(t, p, _mm512_set1_ps(0.5)))
}

/// Vectors of 16 channels each as vectors of every other four.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn quads([a, b]: [__m512i; 2]) -> [__m512i; 2] {
    [_mm512_shuffle_i32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b)]
}

/// [`quads`] of floats.
#[inline]
#[target_feature(enable = "avx512f")]
fn in_quads([a, b]: [__m512; 2]) -> [__m512; 2] {
    let [a, b] = quads([_mm512_castps_si512(a), _mm512_castps_si512(b)]);
    [_mm512_castsi512_ps(a), _mm512_castsi512_ps(b)]
}

/// What the zero point adds to the sums of 16 columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn zero(columns: &Columns<'_>, grid: &RowGrid, v: usize) -> __m512i {
    _mm512_mullo_epi32(integers(columns.sums, v), _mm512_set1_epi32(grid.zero_point))
}

/// 16 of a panel's integers.
#[inline]
#[target_feature(enable = "avx512f")]
fn integers(of: &[i32; NR], v: usize) -> __m512i {
    let of = &of[16 * v..][..16];
    // SAFETY: `of` is 16 i32.
    unsafe { _mm512_loadu_si512(of.as_ptr().cast()) }
}

/// 16 of a panel's values.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(values: &[f32; NR], v: usize) -> __m512 {
    let values = &values[16 * v..][..16];
    // SAFETY: `values` is 16 f32.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

/// Replaces 16 of a panel's values.
#[inline]
#[target_feature(enable = "avx512f")]
fn store(values: &mut [f32; NR], v: usize, of: __m512) {
    let values = &mut values[16 * v..][..16];
    // SAFETY: `values` is 16 f32.
    unsafe { _mm512_storeu_ps(values.as_mut_ptr(), of) }
}

pub(super) use {by_steps, each_row, raise};
