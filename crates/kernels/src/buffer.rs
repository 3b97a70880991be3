//! Memory for vectors: aligned to a cache line, so that no vector of a row whose length is a multiple of it crosses one.

/// Bytes of a cache line.
const LINE: usize = 64;

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// A reusable buffer; it grows and never shrinks.
#[derive(Debug, Default)]
pub struct Buffer {
    lines: Vec<Line>,
}

impl Buffer {
    /// Bytes it holds.
    pub fn capacity(&self) -> usize {
        self.lines.len() * LINE
    }

    /// Makes it hold `bytes`. What it held is lost where it grows: its content is zero then.
    pub fn reserve(&mut self, bytes: usize) {
        if bytes > self.capacity() {
            self.lines = Vec::new();
            self.lines = vec![Line([0; LINE]); bytes.div_ceil(LINE)];
        }
    }

    /// The first `len` bytes.
    ///
    /// # Panics
    /// If it does not hold them.
    pub fn bytes(&self, len: usize) -> &[u8] {
        &self.lines_as_bytes()[..len]
    }

    /// The first `len` bytes.
    ///
    /// # Panics
    /// If it does not hold them.
    pub fn bytes_mut(&mut self, len: usize) -> &mut [u8] {
        assert!(len <= self.capacity(), "{len} bytes in {}", self.capacity());
        // SAFETY: the lines are initialised, and `len` of their bytes lie within, as checked above; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }

    /// The first `len` bytes as signed integers.
    ///
    /// # Panics
    /// If it does not hold them.
    pub fn signed(&self, len: usize) -> &[i8] {
        let bytes = self.bytes(len);
        // SAFETY: bytes of either kind have the same size, alignment and valid values.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
    }

    /// The first `len` bytes as signed integers.
    ///
    /// # Panics
    /// If it does not hold them.
    pub fn signed_mut(&mut self, len: usize) -> &mut [i8] {
        let bytes = self.bytes_mut(len);
        // SAFETY: as for `signed`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) }
    }

    fn lines_as_bytes(&self) -> &[u8] {
        // SAFETY: the lines are initialised, and these are all their bytes.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.capacity()) }
    }

    /// The first `len` floats.
    ///
    /// # Panics
    /// If it does not hold them.
    pub fn floats(&self, len: usize) -> &[f32] {
        assert!(len <= self.capacity() / size_of::<f32>(), "{len} floats in {} bytes", self.capacity());
        // SAFETY: the lines are initialised, any bytes are floats, and `len` of them lie within, as checked above.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), len) }
    }

    /// The first `len` floats.
    ///
    /// # Panics
    /// If it does not hold them.
    pub fn floats_mut(&mut self, len: usize) -> &mut [f32] {
        assert!(len <= self.capacity() / size_of::<f32>(), "{len} floats in {} bytes", self.capacity());
        // SAFETY: as for `floats`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_and_stays_aligned() {
        let mut buffer = Buffer::default();
        assert_eq!((buffer.capacity(), buffer.floats(0).len()), (0, 0));
        for len in [1usize, 16, 17, 1000, 3] {
            buffer.reserve(4 * len);
            buffer.floats_mut(len).fill(len as f32);
            assert!(buffer.floats(len).iter().all(|&v| v == len as f32));
            assert!(buffer.floats(len).as_ptr().addr().is_multiple_of(LINE));
        }
        assert_eq!(buffer.capacity(), 4032);
    }

    #[test]
    #[should_panic(expected = "17 floats in 64 bytes")]
    fn it_gives_no_more_than_it_holds() {
        let mut buffer = Buffer::default();
        buffer.reserve(64);
        buffer.floats_mut(17);
    }
}
