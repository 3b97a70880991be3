//! Pools over images whose channels are innermost: the largest value of every window, or the mean of every window.
//!
//! ```text
//! y[r, c, k] = max or mean over (i, j) of x[r * stride + i * dilation - top, c * stride + j * dilation - left, k]
//! ```
//!
//! where that element lies in the image; the padding around it holds no values. A mean is the f32 sum of the window's values
//! in row-major order, from the first on, divided by their number or by that of the elements in image and padding. The
//! largest value is the first of equals, and a NaN where the window holds one. A window without values has the largest value
//! `-inf` and the mean 0.
//!
//! Vectors lie along the channels, so no sum crosses lanes and all kernels make the same bits. The range of what is made is
//! measured while it is in the first-level cache.

use crate::{Kernel, Range, run};

mod bodies;

pub(crate) use bodies::{average, max, mean};

/// What is made of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Its largest value.
    Max,
    /// The sum of its values divided by their number, or by that of its elements in image and padding.
    Average {
        /// Whether elements in the padding count.
        count_padding: bool,
    },
}

/// Windows of a pool over images of height and width.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// What is made of each.
    pub pooling: Pooling,
    /// Elements of a window.
    pub kernel: [usize; 2],
    /// Distance from window to window.
    pub strides: [usize; 2],
    /// Distance from element to element.
    pub dilations: [usize; 2],
    /// Rows and columns of padding: top, left, bottom, right. A window may reach past it; what does never counts.
    pub pads: [usize; 4],
    /// Windows.
    pub output: [usize; 2],
}

/// Elements of a window along one axis that lie in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Coordinate of the first.
    first: usize,
    /// How many.
    len: usize,
    /// How many the mean is taken over.
    counted: usize,
}

/// The windows of one line of outputs, in one image.
#[derive(Debug)]
pub struct Line<'a> {
    /// From the first row of the windows on.
    image: &'a [f32],
    channels: usize,
    rows: Span,
    columns: &'a [Span],
    /// Values from row to row and from column to column of a window.
    steps: [usize; 2],
}

impl Pool {
    /// Pools images `x (n, h, w, c)`, `shape` their dimensions, into `y (n, output, c)`; returns the range of each image made.
    ///
    /// `finite` says that `x` holds no NaN and no infinity, which saves looking for NaN.
    ///
    /// # Panics
    /// If `x` or `y` has another length, or a kernel size, stride or dilation is 0 (a caller's mistake, not data).
    pub fn run(
        &self,
        kernel: &dyn Kernel,
        x: &[f32],
        shape: [usize; 4],
        finite: bool,
        y: &mut [f32],
        threads: usize,
    ) -> Vec<Range> {
        let ([n, h, w, c], [height, width]) = (shape, self.output);
        assert_eq!((x.len(), y.len()), (n * h * w * c, n * height * width * c), "images and outputs");
        assert!(
            !self.kernel.iter().chain(&self.strides).chain(&self.dilations).any(|&d| d == 0),
            "a pool without extent"
        );
        let columns: Vec<Span> = (0..width).map(|place| self.span(place, 1, w)).collect();
        let steps = [self.dilations[0].saturating_mul(w * c), self.dilations[1].saturating_mul(c)];
        let line_len = width * c;
        let lines = (n * height).div_ceil(4 * threads.max(1)).max(1);
        let parts = run::map_blocks(y, height * line_len, lines * line_len, threads, |image, start, block| {
            let image = &x[image * h * w * c..][..h * w * c];
            let mut range = Range::EMPTY;
            for (i, y) in block.chunks_exact_mut(line_len).enumerate() {
                let rows = self.span(start / line_len + i, 0, h);
                let image = &image[rows.first * w * c..];
                let line = Line { image, channels: c, rows, columns: &columns, steps };
                match self.pooling {
                    Pooling::Max => kernel.max_pool(&line, finite, y),
                    Pooling::Average { .. } => kernel.average_pool(&line, y),
                }
                range = range.union(kernel.range(y));
            }
            range
        });
        run::united(n, parts)
    }

    /// The elements along `axis` of the window at `place`, over an image of `size`.
    fn span(&self, place: usize, axis: usize, size: usize) -> Span {
        let (dilation, before) = (self.dilations[axis], self.pads[axis]);
        let start = place.saturating_mul(self.strides[axis]);
        // Elements whose coordinate, counted from the padding's start, lies below `end`.
        let below = |end: usize| end.saturating_sub(start).div_ceil(dilation).min(self.kernel[axis]);
        let outside = below(before);
        let inside = before.saturating_add(size);
        let len = below(inside) - outside;
        let first = if len == 0 { 0 } else { start + outside * dilation - before };
        let counted = match self.pooling {
            Pooling::Average { count_padding: true } => below(inside.saturating_add(self.pads[axis + 2])),
            _ => len,
        };
        Span { first, len, counted }
    }
}

/// The mean of every channel of images `x (n, pixels, c)` into `y (n, c)`, as [`Pool`] defines it; returns the range of each.
///
/// # Panics
/// If `x` or `y` has another length.
pub fn global_average(
    kernel: &dyn Kernel,
    x: &[f32],
    [n, pixels, c]: [usize; 3],
    y: &mut [f32],
    threads: usize,
) -> Vec<Range> {
    assert_eq!((x.len(), y.len()), (n * pixels * c, n * c), "images and means");
    let parts = run::map_blocks(y, c, c, threads, |image, _, y| {
        kernel.mean(&x[image * pixels * c..][..pixels * c], y);
        kernel.range(y)
    });
    run::united(n, parts)
}

#[cfg(test)]
mod tests;
