//! Checked views of quantised activations: a window proves once that every address a tile forms lies within its slice.

use std::ops::Range;

use crate::kernel::{MR, NR};

/// Offsets of taps, and the largest of them.
#[derive(Debug)]
pub struct Taps {
    offsets: Vec<usize>,
    last: usize,
}

impl Taps {
    /// Taps at these offsets.
    pub fn new(offsets: Vec<usize>) -> Self {
        Self { last: offsets.iter().copied().max().unwrap_or(0), offsets }
    }

    /// The offsets, in order.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// Where `depth` bytes from every tap of the last of `rows` rows end; `None` without rows.
    fn end(&self, depth: usize, rows: usize, row_stride: usize) -> Option<usize> {
        self.last.checked_add((rows.checked_sub(1)?).checked_mul(row_stride)?)?.checked_add(depth)
    }

    /// Whether `depth` bytes from every tap of each of `rows` rows lie within `len` bytes, and `rows` is in `1 ..= MR`.
    fn fit(&self, len: usize, depth: usize, rows: usize, row_stride: usize) -> Option<bool> {
        Some(rows <= MR && self.end(depth, rows, row_stride)? <= len)
    }
}

/// Rows of activations as a tile reads them: row `r`, tap `t`, byte `k` is `data[taps[t] + r * row_stride + k]`.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    data: &'a [u8],
    taps: &'a [usize],
    depth: usize,
    rows: usize,
    row_stride: usize,
}

impl<'a> Window<'a> {
    /// A window of `rows` rows of the taps `part`, or `None` where an address of any tap would lie outside `data`, `rows` is
    /// not in `1 ..= MR` or `depth` is not a multiple of four.
    pub fn new(
        data: &'a [u8],
        taps: &'a Taps,
        part: Range<usize>,
        depth: usize,
        rows: usize,
        row_stride: usize,
    ) -> Option<Self> {
        let fits = taps.fit(data.len(), depth, rows, row_stride)? && depth.is_multiple_of(4);
        fits.then_some(Self { data, taps: taps.offsets.get(part)?, depth, rows, row_stride })
    }

    /// Rows, at most [`MR`].
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Offsets of the taps.
    pub fn taps(&self) -> &'a [usize] {
        self.taps
    }

    /// Bytes a tap, a multiple of four.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Bytes from one row to the next.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Start of the data; every `taps[t] + r * row_stride + k` with `r < rows`, `k < depth` may be read from it.
    pub fn as_ptr(&self) -> *const u8 {
        self.data.as_ptr()
    }

    /// The bytes of one tap of one row.
    pub fn tap(&self, row: usize, tap: usize) -> &'a [u8] {
        &self.data[self.taps[tap] + row * self.row_stride..][..self.depth]
    }
}

/// Lines of rows that a kernel walks in one call, tile by tile: row `r` of line `l` starts `l * line_stride + r * row_stride`
/// bytes into `data`.
#[derive(Debug, Clone, Copy)]
pub struct Lines<'a> {
    data: &'a [u8],
    taps: &'a Taps,
    part: (usize, usize),
    depth: usize,
    rows: usize,
    row_stride: usize,
    lines: usize,
    line_stride: usize,
}

/// Rows of a line, and bytes from one to the next; lines, and bytes from one to the next.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Rows of a line.
    pub rows: usize,
    /// Bytes from row to row.
    pub row_stride: usize,
    /// Lines.
    pub lines: usize,
    /// Bytes from line to line.
    pub line_stride: usize,
}

impl<'a> Lines<'a> {
    /// Lines whose every tile makes a [`Window`] over the taps `part`, or a [`Strip`] where `depth` is [`NR`] and `part` is all
    /// of them; `None` where an address would lie outside `data`.
    pub fn new(data: &'a [u8], taps: &'a Taps, part: Range<usize>, depth: usize, extent: Extent) -> Option<Self> {
        let Extent { rows, row_stride, lines, line_stride } = extent;
        let end = taps.end(depth, rows, row_stride)?.checked_add(lines.checked_sub(1)?.checked_mul(line_stride)?)?;
        let fits =
            end <= data.len() && depth.is_multiple_of(4) && part.start <= part.end && part.end <= taps.offsets.len();
        let part = (part.start, part.end);
        fits.then_some(Self { data, taps, part, depth, rows, row_stride, lines, line_stride })
    }

    /// Tiles of at most [`MR`] rows: line, first row, and number of rows, nearly the same in a line.
    #[inline(always)]
    pub fn tiles(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let (rows, count) = (self.rows, self.rows.div_ceil(MR));
        let (height, more) = (rows / count, rows % count);
        let tile = move |i: usize| (i * height + i.min(more), height + usize::from(i < more));
        (0..self.lines).flat_map(move |line| (0..count).map(move |i| (line, tile(i).0, tile(i).1)))
    }

    /// Rows of a line.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Lines.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// The window of rows `first .. first + rows` of a line.
    #[inline(always)]
    pub fn window(&self, line: usize, first: usize, rows: usize) -> Window<'a> {
        assert!(line < self.lines && rows > 0 && rows <= MR && first + rows <= self.rows, "rows of a line");
        let data = &self.data[line * self.line_stride + first * self.row_stride..];
        let taps = &self.taps.offsets[self.part.0..self.part.1];
        Window { data, taps, depth: self.depth, rows, row_stride: self.row_stride }
    }

    /// The strip of rows `first .. first + rows` of a line.
    #[inline(always)]
    pub fn strip(&self, line: usize, first: usize, rows: usize) -> Strip<'a> {
        let Window { data, taps, depth, rows, row_stride } = self.window(line, first, rows);
        assert!(depth == NR, "lines of strips");
        Strip { data, taps, rows, row_stride }
    }
}

/// Rows of up to [`NR`] channels for a depthwise tile: row `r`, tap `t`, channel `c` is
/// `data[taps[t] + r * row_stride + c]`.
#[derive(Debug, Clone, Copy)]
pub struct Strip<'a> {
    data: &'a [u8],
    taps: &'a [usize],
    rows: usize,
    row_stride: usize,
}

impl<'a> Strip<'a> {
    /// A strip of `rows` rows, or `None` where `NR` bytes from some tap would lie outside `data`.
    pub fn new(data: &'a [u8], taps: &'a Taps, rows: usize, row_stride: usize) -> Option<Self> {
        let fits = taps.fit(data.len(), NR, rows, row_stride)?;
        fits.then_some(Self { data, taps: &taps.offsets, rows, row_stride })
    }

    /// Rows, at most [`MR`].
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes from one row to the next.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Start of the data; `NR` bytes from every `taps[t] + r * row_stride` with `r < rows` may be read from it.
    pub fn as_ptr(&self) -> *const u8 {
        self.data.as_ptr()
    }

    /// Offsets of the taps.
    #[inline(always)]
    pub fn taps(&self) -> &'a [usize] {
        self.taps
    }

    /// Offsets of taps `2 i` and `2 i + 1`; an odd last tap is its own partner.
    #[inline(always)]
    pub fn pair(&self, i: usize) -> [usize; 2] {
        [self.taps[2 * i], self.taps[(2 * i + 1).min(self.taps.len() - 1)]]
    }

    /// Offsets of the taps, two at a time; an odd last tap is its own partner.
    #[inline(always)]
    pub fn pairs(&self) -> impl Iterator<Item = [usize; 2]> + 'a {
        self.taps.chunks(2).map(|pair| [pair[0], pair[pair.len() - 1]])
    }

    /// The channels of one row of the tap at offset `tap`.
    #[inline(always)]
    pub fn at(&self, row: usize, tap: usize) -> &'a [u8; NR] {
        self.data[tap + row * self.row_stride..].first_chunk().expect("NR bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_never_reaches_past_its_slice() {
        let data = [0u8; 100];
        let window = |taps: &[usize], depth, rows, row_stride| {
            Window::new(&data, &Taps::new(taps.to_vec()), 0..taps.len(), depth, rows, row_stride).is_some()
        };
        assert!(window(&[0, 8], 4, 14, 6));
        let lines = |rows, row_stride, lines, line_stride| {
            let extent = Extent { rows, row_stride, lines, line_stride };
            Lines::new(&data, &Taps::new(vec![0, 8]), 0..2, 4, extent).is_some()
        };
        assert!(lines(30, 2, 1, 0) && lines(4, 6, 8, 10) && lines(1, 0, 1, 0));
        assert!(!lines(46, 2, 1, 0) && !lines(4, 6, 9, 10) && !lines(0, 2, 1, 0) && !lines(4, 6, 0, 10));
        assert!(!lines(2, 1, usize::MAX, 2) && !lines(usize::MAX, 2, 1, 0));
        assert!(window(&[0, 18], 4, 14, 6));
        assert!(!window(&[19, 0], 4, 14, 6));
        assert!(!window(&[0], 4, 15, 1));
        assert!(!window(&[0], 4, 0, 1));
        assert!(!window(&[0], 6, 1, 1));
        assert!(!window(&[usize::MAX], 4, 2, 1));
        assert!(!window(&[0], 4, 14, usize::MAX));
        assert!(Window::new(&data, &Taps::new(vec![0, 18]), 0..1, 4, 14, 6).is_some());
        assert!(Window::new(&data, &Taps::new(vec![0, 18]), 1..3, 4, 14, 6).is_none());
        assert!(Strip::new(&data, &Taps::new(vec![68]), 1, 0).is_some());
        assert!(Strip::new(&data, &Taps::new(vec![69]), 1, 0).is_none());
        assert!(Strip::new(&data, &Taps::new(vec![0]), 15, 0).is_none());
    }

    #[test]
    fn tiles_cover_every_row_once() {
        let data = vec![0u8; 4000];
        let taps = Taps::new(vec![0]);
        for rows in [1, 13, 14, 15, 17, 28, 29, 35, 56, 112] {
            let extent = Extent { rows, row_stride: 4, lines: 3, line_stride: 4 * rows };
            let lines = Lines::new(&data, &taps, 0..1, 4, extent).unwrap();
            let mut next = (0, 0);
            for (line, first, height) in lines.tiles() {
                assert_eq!((line, first), next);
                assert!(height <= MR && lines.window(line, first, height).rows() == height);
                next = if first + height == rows { (line + 1, 0) } else { (line, first + height) };
            }
            assert_eq!(next, (3, 0));
        }
    }
}
