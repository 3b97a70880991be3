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
    let mask = (0xffu16 >> (8 - bits)) as u8;
    let fold = |byte: &[i8]| byte.iter().rev().fold(0u16, |acc, &d| acc << bits | u16::from(d as u8 & mask)) as u8;
    digits.chunks(8 / bits as usize).map(fold).collect()
}

/// Unpacks `len` sign-extended digits; `None` when `bytes` has another length than [`packed_len`].
pub fn unpack(bytes: &[u8], len: usize, bits: u32) -> Option<Vec<i8>> {
    assert!(matches!(bits, 2 | 4 | 8), "storage of {bits} bits");
    if bytes.len() != packed_len(len, bits) {
        return None;
    }
    let per_byte = 8 / bits as usize;
    let lift = 8 - bits;
    let digit = |i: usize| {
        let raw = bytes[i / per_byte] >> (i % per_byte * bits as usize);
        ((raw << lift) as i8) >> lift
    };
    Some((0..len).map(digit).collect())
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
