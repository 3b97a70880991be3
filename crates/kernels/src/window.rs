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

    /// Whether `depth` bytes from every tap of each of `rows` rows lie within `len` bytes, and `rows` is in `1 ..= MR`.
    fn fit(&self, len: usize, depth: usize, rows: usize, row_stride: usize) -> Option<bool> {
        let end = self.last.checked_add((rows.checked_sub(1)?).checked_mul(row_stride)?)?.checked_add(depth)?;
        Some(rows <= MR && end <= len)
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
}
