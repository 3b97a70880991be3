//! Loops of the pools, compiled by each kernel for its own instructions. A window's values are joined in row-major order, a
//! run of channels at a time in registers.

use super::Line;

/// Runs of channels beyond the widest.
const SHORT: usize = 8;

/// Elements of one window that lie in the image: `rows x columns` runs of channels.
struct Window<'a> {
    x: &'a [f32],
    size: [usize; 2],
    steps: [usize; 2],
}

/// Largest values, the first of equals. `finite` says that there is no NaN to keep.
#[inline(always)]
pub(crate) fn max<const L: usize>(line: &Line<'_>, finite: bool, y: &mut [f32]) {
    let keep = |best, _| best;
    if finite {
        each_window::<L>(line, y, f32::NEG_INFINITY, |best, x| if x > best { x } else { best }, keep);
    } else {
        let larger = |best: f32, x: f32| if x > best || x.is_nan() { x } else { best };
        each_window::<L>(line, y, f32::NEG_INFINITY, larger, keep);
    }
}

/// Means. A sum starts at -0, which added to the first value is that value.
#[inline(always)]
pub(crate) fn average<const L: usize>(line: &Line<'_>, y: &mut [f32]) {
    let mean = |sum: f32, count: usize| if count > 0 { sum / count as f32 } else { 0.0 };
    each_window::<L>(line, y, -0.0, |sum, x| sum + x, mean);
}

/// `y`: for every window of a line and every channel `end(values joined from start on, elements counted)`; a window without
/// values counts none.
#[inline(always)]
fn each_window<const L: usize>(
    line: &Line<'_>,
    y: &mut [f32],
    start: f32,
    join: impl Fn(f32, f32) -> f32 + Copy,
    end: impl Fn(f32, usize) -> f32 + Copy,
) {
    let channels = line.channels;
    for (column, y) in line.columns.iter().zip(y.chunks_exact_mut(channels)) {
        let size = if column.len == 0 { [0, 0] } else { [line.rows.len, column.len] };
        let x = line.image.get(column.first * channels..).unwrap_or_default();
        let window = Window { x, size, steps: line.steps };
        let count = if size[0] == 0 { 0 } else { line.rows.counted.saturating_mul(column.counted) };
        let end = |value| end(value, count);
        let mut first = 0;
        while channels - first >= L {
            run_of::<L>(&window, first, start, join, end, y);
            first += L;
        }
        while channels - first >= SHORT {
            run_of::<SHORT>(&window, first, start, join, end, y);
            first += SHORT;
        }
        while first < channels {
            run_of::<1>(&window, first, start, join, end, y);
            first += 1;
        }
    }
}

/// Channels `first .. first + L` of one window.
#[inline(always)]
fn run_of<const L: usize>(
    window: &Window<'_>,
    first: usize,
    start: f32,
    join: impl Fn(f32, f32) -> f32,
    end: impl Fn(f32) -> f32,
    y: &mut [f32],
) {
    let mut values = [start; L];
    for row in 0..window.size[0] {
        let row = &window.x[row * window.steps[0] + first..];
        let mut take = |column: usize| {
            let x: &[f32; L] = row[column * window.steps[1]..].first_chunk().expect("channels of a pixel");
            for (value, &x) in values.iter_mut().zip(x) {
                *value = join(*value, x);
            }
        };
        // The width of nearly all pools, without a loop.
        if window.size[1] == 3 {
            take(0);
            take(1);
            take(2);
        } else {
            (0..window.size[1]).for_each(take);
        }
    }
    let y: &mut [f32; L] = y[first..].first_chunk_mut().expect("channels of a pixel");
    for (y, value) in y.iter_mut().zip(values) {
        *y = end(value);
    }
}

/// `y`: the mean of each channel over the pixels of `x`, whose channels are as many as `y`. The sums stay in `y`; each takes
/// four pixels a pass, one after the other.
#[inline(always)]
pub(crate) fn mean(x: &[f32], y: &mut [f32]) {
    let channels = y.len();
    if channels == 0 {
        return;
    }
    let pixels = x.len() / channels;
    y.fill(-0.0);
    let mut fours = x.chunks_exact(4 * channels);
    for four in &mut fours {
        let (a, rest) = four.split_at(channels);
        let (b, rest) = rest.split_at(channels);
        let (c, d) = rest.split_at(channels);
        for ((((y, a), b), c), d) in y.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *y = *y + a + b + c + d;
        }
    }
    for pixel in fours.remainder().chunks_exact(channels) {
        for (y, x) in y.iter_mut().zip(pixel) {
            *y += x;
        }
    }
    let count = pixels as f32;
    for y in y.iter_mut() {
        *y = if pixels > 0 { *y / count } else { 0.0 };
    }
}
