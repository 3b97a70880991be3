//! Limbs: an integer re-split into the widest digits the CPU multiplies natively.
//!
//! `n` terms of `X` bits are one integer `Q` of `n * X` bits, so any number of terms folds into `ceil(n X / 8)` limbs of
//! eight bits. Balanced digits with carry are needed: folding digit pairs directly overflows `i8` (-136 to 119).

/// Eight-bit limbs that hold `b` bits.
pub fn limb_count(total_bits: u32) -> usize {
    total_bits.div_ceil(8) as usize
}

/// Largest magnitude that this many limbs hold with either sign.
pub(crate) fn limb_max(limbs: usize) -> i64 {
    (0..limbs).fold(0, |max, _| max * 256 + 127)
}

/// Splits each `q` into `count` balanced base-256 digits, least significant limb first: `q = sum_l 256^l * limb[l]`.
///
/// # Panics
/// If a value needs more than `count` limbs.
pub fn balanced_limbs(q: &[i32], count: usize) -> Vec<Vec<i8>> {
    let above = |limbs: usize| drop_digits(8, limbs as u32);
    // What is left of a value above its limbs grows with the value.
    for value in <[i32; 2]>::from(span(q)) {
        assert_eq!(above(count)(i64::from(value)), 0, "{value} needs more than {count} limbs");
    }
    let limb = |l: usize| {
        let rest = above(l);
        q.iter().map(|&value| rest(i64::from(value)) as i8).collect()
    };
    (0..count).map(limb).collect()
}

/// Splits each `q` into as few balanced base-65536 digits as hold them all, least significant first, for depthwise products.
pub fn balanced_words(q: &[i64]) -> Vec<Vec<i16>> {
    let (mut words, mut rest) = (Vec::new(), q.to_vec());
    while words.is_empty() || rest.iter().any(|&value| value != 0) {
        let digits: Vec<i16> = rest.iter().map(|&value| balanced_digit(value, 16) as i16).collect();
        for (value, &digit) in rest.iter_mut().zip(&digits) {
            *value = (*value - i64::from(digit)) >> 16;
        }
        words.push(digits);
    }
    words
}

/// The balanced digit of `q` in base `2^bits`, in `[-2^(bits-1), 2^(bits-1) - 1]`.
pub(crate) fn balanced_digit(q: i64, bits: u32) -> i64 {
    let half = 1i64 << (bits - 1);
    ((q + half) & (2 * half - 1)) - half
}

/// Drops the lowest `count` balanced digits of integers in base `2^bits` and divides by `2^(bits * count)`.
///
/// With half a base added to each of those digits none of them is negative, so that dropping them is a shift:
/// `(q + 2^(bits-1) (1 + 2^bits + .. + 2^(bits (count-1)))) >> (bits * count)`, for `bits * count <= 32`.
pub(crate) fn drop_digits(bits: u32, count: u32) -> impl Fn(i64) -> i64 + Copy {
    let halves = (0..count).fold(0i64, |sum, _| (sum << bits) + (1 << (bits - 1)));
    move |q| (q + halves) >> (bits * count)
}

/// Smallest and largest of some integers, or 0.
pub(crate) fn span<T: Copy + Ord + Default>(values: &[T]) -> (T, T) {
    values.iter().fold(Default::default(), |(low, high), &value| (low.min(value), high.max(value)))
}

/// `numerator / denominator` rounded to the nearest integer, ties to even; `denominator > 0`.
pub(crate) fn divide_half_even(numerator: i128, denominator: i128) -> i128 {
    let floor = numerator.div_euclid(denominator);
    match (2 * numerator.rem_euclid(denominator)).cmp(&denominator) {
        std::cmp::Ordering::Less => floor,
        std::cmp::Ordering::Greater => floor + 1,
        std::cmp::Ordering::Equal => floor + (floor & 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Precision;

    #[test]
    fn every_series_fits_its_limbs() {
        for bits in 2..=8u32 {
            for order in 1..=24 / bits {
                let p = Precision::new(bits, order).unwrap();
                let top = p.q_max() as i32;
                let q = [-top, 1 - top, -129, -128, -1, 0, 1, 127, 128, top - 1, top].map(|v| v.clamp(-top, top));
                let limbs = balanced_limbs(&q, limb_count(p.total_bits()));
                for (i, &want) in q.iter().enumerate() {
                    let got: i64 = limbs.iter().rev().fold(0, |sum, limb| sum * 256 + i64::from(limb[i]));
                    assert_eq!(got, i64::from(want), "{p}");
                }
                let words = balanced_words(&q.map(i64::from));
                assert!(words.len() <= p.total_bits().div_ceil(16) as usize);
                for (i, &want) in q.iter().enumerate() {
                    let got: i64 = words.iter().rev().fold(0, |sum, word| sum * 65536 + i64::from(word[i]));
                    assert_eq!(got, i64::from(want), "{p}");
                }
            }
        }
    }

    #[test]
    fn dropping_digits_is_dropping_one_by_one() {
        for (bits, count) in [(2, 0), (2, 1), (2, 16), (3, 10), (4, 3), (8, 1), (8, 4)] {
            for q in (-70_000..70_000).step_by(37).chain([i32::MIN, i32::MIN + 1, -128, 127, i32::MAX]).map(i64::from) {
                let one_by_one = (0..count).fold(q, |rest, _| (rest - balanced_digit(rest, bits)) >> bits);
                assert_eq!(drop_digits(bits, count)(q), one_by_one, "{q} without {count} digits of {bits} bits");
            }
        }
    }

    #[test]
    #[should_panic(expected = "needs more than 1 limbs")]
    fn a_value_too_wide_is_refused() {
        balanced_limbs(&[128], 1);
    }
}
