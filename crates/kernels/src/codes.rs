//! Activations quantised for a product: NHWC codes with their border in place, one plane a limb, one grid an image or a row.

use crate::kernel::{Grids, Kernel, NR, RowGrid};
use crate::{Beyond, Buffer, Range, Shape, run};

/// Bytes that tiles may read, and ignore, past the last pixel.
const SLACK: usize = NR;

/// Quantised activations; the buffers are reused from call to call.
#[derive(Debug, Default)]
pub struct Codes {
    planes: Vec<Buffer>,
    /// Bytes of a plane, what tiles may read beyond it included.
    bytes: usize,
    limbs: usize,
    pub(crate) grids: Vec<RowGrid>,
    /// What lies beyond the codes, in order of place.
    pub(crate) beyond: Vec<Beyond>,
    per_row: bool,
    images: usize,
    size: [usize; 2],
    channels: usize,
}

impl Codes {
    /// Range of each run of `len` values of `x`.
    pub fn ranges(kernel: &dyn Kernel, x: &[f32], len: usize, threads: usize) -> Vec<Range> {
        // Ranges of parts are united, which is exact: where they are cut does not matter.
        let part = len.div_ceil(threads.max(1)).max(4096).min(len.max(1));
        let (runs, per) = (x.len() / len.max(1), len.div_ceil(part).max(1));
        let parts = run::map(runs * per, threads, |index| {
            let (run, piece) = (index / per, index % per);
            kernel.range(&x[run * len + piece * part..run * len + len.min((piece + 1) * part)])
        });
        parts.chunks(per).map(|parts| parts.iter().fold(Range::EMPTY, |all, &part| all.union(part))).collect()
    }

    /// Quantises images `(n, h, w, c)`, one grid an image, with a border of `pads` (top, left, bottom, right) zeros.
    ///
    /// # Panics
    /// If `x` does not fill `shape` or `grids` has not one grid an image.
    pub fn fill_images(
        &mut self,
        kernel: &dyn Kernel,
        x: &[f32],
        shape: [usize; 4],
        pads: [usize; 4],
        grids: &[RowGrid],
        threads: usize,
    ) {
        let [n, h, w, c] = shape;
        assert_eq!((x.len(), grids.len()), (n * h * w * c, n), "images and grids");
        let [top, left, bottom, right] = pads;
        let size = [top + h + bottom, left + w + right];
        self.prepare([n, size[0], size[1], c], grids, false);
        if x.is_empty() {
            return;
        }
        let line = size[1] * c;
        let fill = |index: usize, planes: &mut [&mut [u8]]| {
            let (image, y) = (index / size[0], index % size[0]);
            let grid = &grids[image];
            let zero = |planes: &mut [&mut [u8]], range: std::ops::Range<usize>| {
                for (limb, plane) in planes.iter_mut().enumerate() {
                    plane[range.clone()].fill((grid.zero_point >> (8 * limb)) as u8);
                }
            };
            if y < top || y >= top + h {
                return zero(planes, 0..line);
            }
            zero(planes, 0..left * c);
            zero(planes, (left + w) * c..line);
            for plane in planes.iter_mut() {
                *plane = &mut std::mem::take(plane)[left * c..(left + w) * c];
            }
            kernel.quantise(&x[(image * h + y - top) * w * c..][..w * c], grid, planes);
        };
        run::for_lines(&mut self.planes[..self.limbs], 0..n * size[0], line, threads, fill);
    }

    /// Makes room for images `(n, h, w, c)` whose codes [`crate::Product::coded`] makes, with a border of `pads` zeros.
    ///
    /// # Panics
    /// If `grids` has not one grid an image, or of more than eight bits.
    pub fn prepare_images(&mut self, shape: [usize; 4], pads: [usize; 4], grids: &[RowGrid]) {
        let [n, h, w, c] = shape;
        assert_eq!(grids.len(), n, "one grid an image");
        let [top, left, bottom, right] = pads;
        let size = [top + h + bottom, left + w + right];
        self.prepare([n, size[0], size[1], c], grids, false);
        assert_eq!(self.limbs, 1, "codes of one byte");
        if pads == [0; 4] || n * h * w * c == 0 {
            return;
        }
        let line = size[1] * c;
        let images = self.planes[0].bytes_mut(n * size[0] * line).chunks_exact_mut(size[0] * line);
        for (image, grid) in images.zip(grids) {
            let zero = grid.zero_point as u8;
            image[..top * line + left * c].fill(zero);
            // From the end of a line to the first pixel of the next.
            for y in top..top + h {
                let end = (y * size[1] + left + w) * c;
                let next = if y + 1 == top + h { (y + 1) * line } else { end + (left + right) * c };
                image[end..next].fill(zero);
            }
            image[(top + h) * line..].fill(zero);
        }
    }

    /// Codes of an image, for outputs to be written to, and their grid.
    pub(crate) fn image_mut(&mut self, image: usize) -> (&mut [u8], RowGrid) {
        let (len, grid) = (self.image_len(), self.grids[image]);
        (&mut self.planes[0].bytes_mut(self.bytes)[image * len..][..len], grid)
    }

    /// Quantises the rows of a matrix `(m, k)`, one grid a row.
    ///
    /// # Panics
    /// If `x` does not fill the matrix or `grids` has not one grid a row.
    pub fn fill_rows(&mut self, kernel: &dyn Kernel, x: &[f32], k: usize, grids: &[RowGrid], threads: usize) {
        let m = grids.len();
        assert_eq!(x.len(), m * k, "rows and grids");
        self.prepare([1, 1, m, k], grids, true);
        if k > 0 {
            self.quantise_rows(kernel, x, k, 0..m, threads);
        }
    }

    /// Quantises the rows of a matrix `(m, k)` on the grids of their ranges, which it measures: some rows at a time, so that they
    /// are still in the second-level cache when they are quantised. `grid` makes grids of one precision.
    ///
    /// # Panics
    /// If `x` is not made of rows of `k` values.
    pub fn measure_rows(
        &mut self,
        kernel: &dyn Kernel,
        x: &[f32],
        k: usize,
        grid: impl Fn(Range) -> RowGrid,
        threads: usize,
    ) {
        /// Bytes that are measured before they are quantised.
        const BLOCK: usize = 256 << 10;
        let (m, block) = (x.len() / k.max(1), (BLOCK / size_of::<f32>() / k.max(1)).max(1));
        assert_eq!(x.len(), m * k, "rows");
        self.prepare([1, 1, m, k], &[grid(Range::EMPTY)], true);
        self.grids.clear();
        for first in (0..m).step_by(block) {
            let rows = first..m.min(first + block);
            let values = &x[rows.start * k..rows.end * k];
            self.grids.extend(Self::ranges(kernel, values, k, threads).into_iter().map(&grid));
            self.quantise_rows(kernel, x, k, rows, threads);
        }
    }

    /// Quantises some rows of a matrix on the grids that are there.
    pub(crate) fn quantise_rows(
        &mut self,
        kernel: &dyn Kernel,
        x: &[f32],
        k: usize,
        rows: std::ops::Range<usize>,
        threads: usize,
    ) {
        let (first, grids) = (rows.start, &self.grids);
        let fill = |row: usize, planes: &mut [&mut [u8]]| {
            let row = first + row;
            kernel.quantise(&x[row * k..][..k], &grids[row], planes);
        };
        run::for_lines(&mut self.planes[..self.limbs], rows, k, threads, fill);
    }

    pub(crate) fn prepare(&mut self, [n, h, w, c]: [usize; 4], grids: &[RowGrid], per_row: bool) {
        let code_max = grids.first().map_or(255, |grid| grid.code_max);
        assert!(grids.iter().all(|grid| grid.code_max == code_max), "one precision a layer");
        self.limbs = (32 - code_max.leading_zeros()).div_ceil(8) as usize;
        self.planes.resize_with(self.limbs.max(self.planes.len()), Buffer::default);
        self.bytes = n * h * w * c + SLACK;
        for plane in &mut self.planes[..self.limbs] {
            plane.reserve(self.bytes);
        }
        self.grids.clear();
        self.grids.extend_from_slice(grids);
        self.beyond.clear();
        (self.per_row, self.images, self.size, self.channels) = (per_row, n, [h, w], c);
    }

    /// Makes `to` these codes with all bits outside `mask` zero; planes without bits of it are left as they are.
    pub(crate) fn mask(&self, mask: u32, to: &mut Codes) {
        to.planes.resize_with(self.limbs.max(to.planes.len()), Buffer::default);
        for (limb, plane) in self.planes().enumerate() {
            let bits = (mask >> (8 * limb)) as u8;
            to.planes[limb].reserve(self.bytes);
            if bits != 0 {
                let masked = to.planes[limb].bytes_mut(self.bytes).iter_mut().zip(plane);
                masked.for_each(|(to, &code)| *to = code & bits);
            }
        }
        to.grids.clone_from(&self.grids);
        to.beyond.clone_from(&self.beyond);
        (to.bytes, to.limbs, to.per_row) = (self.bytes, self.limbs, self.per_row);
        (to.images, to.size, to.channels) = (self.images, self.size, self.channels);
    }

    /// Planes, least significant first.
    pub(crate) fn planes(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.planes[..self.limbs].iter().map(|plane| plane.bytes(self.bytes))
    }

    /// Plane `limb`, the least significant first.
    pub(crate) fn plane(&self, limb: usize) -> &[u8] {
        self.planes[..self.limbs][limb].bytes(self.bytes)
    }

    /// Grids of `rows` consecutive outputs of an image from pixel `first` on.
    pub(crate) fn grids(&self, image: usize, first: usize, rows: usize) -> Grids<'_> {
        if self.per_row { Grids::Each(&self.grids[first..first + rows]) } else { Grids::Same(&self.grids[image]) }
    }

    /// Largest step of all grids; NaN where one is.
    pub(crate) fn largest_scale(&self) -> f32 {
        let larger = |largest: f32, grid: &RowGrid| if grid.scale <= largest { largest } else { grid.scale };
        self.grids.iter().fold(0.0, |largest, grid| if largest.is_nan() { largest } else { larger(largest, grid) })
    }

    /// Largest code.
    pub(crate) fn code_max(&self) -> i64 {
        self.grids.first().map_or(255, |grid| i64::from(grid.code_max))
    }

    /// What lies beyond the codes, in order of place; none of it is 0.
    pub fn beyond(&self) -> &[Beyond] {
        &self.beyond
    }

    /// Largest magnitude of what lies beyond the codes.
    pub(crate) fn largest_beyond(&self) -> i64 {
        self.beyond.iter().map(|one| i64::from(one.delta).abs()).max().unwrap_or(0)
    }

    /// What the magnitudes of all that lies beyond the codes of a row, or of all images, do not exceed together.
    pub(crate) fn most_beyond(&self) -> i64 {
        let row = |one: &Beyond| if self.per_row { one.at / self.channels.max(1) } else { 0 };
        let rows = self.beyond.chunk_by(|a, b| row(a) == row(b));
        rows.map(|row| row.iter().map(|one| i64::from(one.delta).abs()).sum()).max().unwrap_or(0)
    }

    /// Images; 1 for a matrix.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Height and width of the output of `shape` on these codes.
    pub fn output(&self, shape: &Shape) -> [usize; 2] {
        shape.output(self.size)
    }

    /// Height and width with the border.
    pub(crate) fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Bytes of one image of one plane.
    pub(crate) fn image_len(&self) -> usize {
        self.size[0] * self.size[1] * self.channels
    }

    /// Channels of a pixel.
    pub(crate) fn channels(&self) -> usize {
        self.channels
    }
}
