//! Max pooling and concatenation of channels-last values, into buffers that are reused.
//!
//! Both only choose or move values, so they give the same bits on every CPU; a NaN in a window is kept.

use rayon::prelude::*;

/// Geometry of a pool over one image `(h, w, c)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    pub dilations: [usize; 2],
    /// Rows and columns of padding before the image.
    pub before: [usize; 2],
    /// Height and width of the output.
    pub output: [usize; 2],
}

/// `y (n, oh, ow, c)`: the largest value of each window of `x (n, h, w, c)`; padding never counts.
pub(crate) fn max_pool(x: &[f32], [h, w, c]: [usize; 3], window: &Window, y: &mut [f32], threads: usize) {
    let [oh, ow] = window.output;
    if y.is_empty() {
        return;
    }
    let line = |(index, y): (usize, &mut [f32])| {
        let (image, row) = (&x[index / oh * h * w * c..][..h * w * c], index % oh);
        y.fill(f32::NEG_INFINITY);
        for ky in 0..window.kernel[0] {
            let Some(top) = inside(row, ky, window, 0, h) else { continue };
            for (column, y) in y.chunks_exact_mut(c).enumerate() {
                for kx in 0..window.kernel[1] {
                    let Some(left) = inside(column, kx, window, 1, w) else { continue };
                    for (y, &x) in y.iter_mut().zip(&image[(top * w + left) * c..][..c]) {
                        *y = if x > *y || x.is_nan() { x } else { *y };
                    }
                }
            }
        }
    };
    if threads <= 1 {
        y.chunks_exact_mut(ow * c).enumerate().for_each(line);
    } else {
        y.par_chunks_exact_mut(ow * c).enumerate().for_each(line);
    }
}

/// Coordinate of a window's element along an axis, where it lies in the image.
fn inside(place: usize, element: usize, window: &Window, axis: usize, size: usize) -> Option<usize> {
    let at = place * window.strides[axis] + element * window.dilations[axis];
    at.checked_sub(window.before[axis]).filter(|&at| at < size)
}

/// `y (pixels, sum of channels)`: the channels of every part in turn; a part is its values and its channels.
pub(crate) fn concat_channels(parts: &[(&[f32], usize)], y: &mut [f32]) {
    let total: usize = parts.iter().map(|(_, channels)| channels).sum();
    let mut start = 0;
    for &(x, channels) in parts {
        for (y, x) in y.chunks_exact_mut(total.max(1)).zip(x.chunks_exact(channels.max(1))) {
            y[start..start + channels].copy_from_slice(x);
        }
        start += channels;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, one value at a time.
    fn oracle(x: &[f32], [h, w, c]: [usize; 3], g: &Window, image: usize, at: [usize; 3]) -> f32 {
        let mut best = f32::NEG_INFINITY;
        for ky in 0..g.kernel[0] {
            for kx in 0..g.kernel[1] {
                let row = (at[0] * g.strides[0] + ky * g.dilations[0]) as i64 - g.before[0] as i64;
                let column = (at[1] * g.strides[1] + kx * g.dilations[1]) as i64 - g.before[1] as i64;
                if (0..h as i64).contains(&row) && (0..w as i64).contains(&column) {
                    best = best.max(x[((image * h + row as usize) * w + column as usize) * c + at[2]]);
                }
            }
        }
        best
    }

    #[test]
    fn pools_equal_the_definition() {
        let base = Window { kernel: [3, 3], strides: [2, 2], dilations: [1, 1], before: [1, 1], output: [4, 3] };
        let windows = [
            base.clone(),
            Window { before: [0, 0], output: [3, 2], ..base.clone() },
            Window { dilations: [2, 1], before: [2, 0], output: [4, 2], ..base.clone() },
            Window { kernel: [1, 2], strides: [1, 3], before: [0, 0], output: [8, 2], ..base },
        ];
        let size = [8, 5, 6];
        let x: Vec<f32> = (0..2 * 8 * 5 * 6).map(|i| (i as f32 * 1.7).sin() - 0.5).collect();
        for g in windows {
            let [oh, ow] = g.output;
            let mut y = vec![f32::NAN; 2 * oh * ow * 6];
            for threads in [1, 2] {
                max_pool(&x, size, &g, &mut y, threads);
                for (i, &y) in y.iter().enumerate() {
                    let at = [i / 6 / ow % oh, i / 6 % ow, i % 6];
                    assert_eq!(y, oracle(&x, size, &g, i / 6 / ow / oh, at), "{g:?} {at:?}");
                }
            }
        }
    }

    #[test]
    fn a_nan_in_a_window_is_kept() {
        let g = Window { kernel: [1, 3], strides: [1, 3], dilations: [1, 1], before: [0, 0], output: [1, 2] };
        let mut y = [0.0; 2];
        max_pool(&[1.0, f32::NAN, 3.0, 4.0, 5.0, 6.0], [1, 6, 1], &g, &mut y, 1);
        assert!(y[0].is_nan() && y[1] == 6.0);
    }

    #[test]
    fn channels_follow_each_other() {
        let mut y = [0.0; 6];
        concat_channels(&[(&[1.0, 2.0], 1), (&[3.0, 4.0, 5.0, 6.0], 2)], &mut y);
        assert_eq!(y, [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
    }
}
