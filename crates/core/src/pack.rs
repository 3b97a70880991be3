//! Packing of terms as ONNX stores them: INT2 and INT4 little end first, INT8 as is.
//!
//! INT4: two values a byte, low nibble first. INT2: four values a byte, `x0 | x1 << 2 | x2 << 4 | x3 << 6`.

/// Bytes that `len` values of `bits` (2, 4 or 8) take.
pub fn packed_len(len: usize, bits: u32) -> usize {
    len.div_ceil(8 / bits as usize)
}

/// Packs digits of at most `bits` bits, the last byte padded with zero.
///
/// # Panics
/// Unless `bits` is 2, 4 or 8 (a caller's mistake, not data).
pub fn pack(digits: &[i8], bits: u32) -> Vec<u8> {
    assert!(matches!(bits, 2 | 4 | 8), "storage of {bits} bits");
    match bits {
        2 => pack_bytes::<4>(digits),
        4 => pack_bytes::<2>(digits),
        _ => digits.iter().map(|&digit| digit as u8).collect(),
    }
}

/// Packs `N` digits of `8 / N` bits into each byte.
fn pack_bytes<const N: usize>(digits: &[i8]) -> Vec<u8> {
    let bits = 8 / N;
    let fold = |byte: &[i8; N]| {
        byte.iter().rev().fold(0u8, |packed, &digit| packed << bits | digit as u8 & (0xff >> (8 - bits)))
    };
    let (whole, rest) = digits.as_chunks::<N>();
    let mut last = [0; N];
    last[..rest.len()].copy_from_slice(rest);
    whole.iter().chain((!rest.is_empty()).then_some(&last)).map(fold).collect()
}

/// Digits as a file holds them.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a> {
    /// The packed digits.
    pub bytes: &'a [u8],
    /// Bits of each: 2, 4 or 8.
    pub bits: u32,
}

impl Packed<'_> {
    /// Whether there are `len` digits.
    pub(crate) fn holds(&self, len: usize) -> bool {
        self.bytes.len() == packed_len(len, self.bits)
    }

    /// `len` of the digits it holds from `first`, where a byte begins.
    pub(crate) fn digits(&self, first: usize, len: usize) -> Vec<i8> {
        let bytes = &self.bytes[packed_len(first, self.bits)..][..packed_len(len, self.bits)];
        unpack(bytes, len, self.bits).unwrap_or_default()
    }
}

/// Unpacks `len` sign-extended digits; `None` when `bytes` has another length than [`packed_len`].
pub fn unpack(bytes: &[u8], len: usize, bits: u32) -> Option<Vec<i8>> {
    assert!(matches!(bits, 2 | 4 | 8), "storage of {bits} bits");
    if bytes.len() != packed_len(len, bits) {
        return None;
    }
    Some(match bits {
        2 => unpack_bytes::<4>(bytes, len),
        4 => unpack_bytes::<2>(bytes, len),
        _ => bytes.iter().map(|&byte| byte as i8).collect(),
    })
}

/// Unpacks `N` digits of `8 / N` bits from each byte.
fn unpack_bytes<const N: usize>(bytes: &[u8], len: usize) -> Vec<i8> {
    let bits = 8 / N;
    let lift = 8 - bits;
    let digits = |byte: u8| std::array::from_fn::<i8, N, _>(|i| ((byte >> (i * bits) << lift) as i8) >> lift);
    let mut unpacked = vec![0; len];
    let (whole, rest) = unpacked.as_chunks_mut::<N>();
    for (slots, &byte) in whole.iter_mut().zip(bytes) {
        *slots = digits(byte);
    }
    if let Some(&byte) = bytes.last().filter(|_| !rest.is_empty()) {
        rest.copy_from_slice(&digits(byte)[..rest.len()]);
    }
    unpacked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_onnx() {
        assert_eq!(pack(&[1, -2, 7], 4), [0xe1, 0x07]);
        assert_eq!(pack(&[1, -2, -1, 0, -2], 2), [0b00_11_10_01, 0b10]);
        assert_eq!(pack(&[-128, 127], 8), [0x80, 0x7f]);
    }

    #[test]
    fn packing_round_trips() {
        for bits in [2, 4, 8] {
            let half = 1i32 << (bits - 1);
            for len in 0..11 {
                let digits: Vec<i8> = (0..len).map(|i| ((i * 5) % (2 * half) - half) as i8).collect();
                let bytes = pack(&digits, bits);
                assert_eq!(bytes.len(), packed_len(digits.len(), bits));
                assert_eq!(unpack(&bytes, digits.len(), bits), Some(digits.clone()));
                assert_eq!(unpack(&bytes, digits.len() + 8, bits), None);
            }
        }
    }
}
