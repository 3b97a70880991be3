//! Adversarial shapes and data: constant extremes find what random data does not.

/// How test data is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Every value the smallest.
    Min,
    /// Every value the largest.
    Max,
    /// Smallest and largest in turn.
    Alternating,
    /// Pseudo-random over the full range, from a seed.
    Random(u64),
}

impl Pattern {
    /// The patterns every kernel is tested on.
    pub const ALL: [Pattern; 4] = [Pattern::Min, Pattern::Max, Pattern::Alternating, Pattern::Random(7)];

    fn fill(self, len: usize, min: i64, max: i64) -> Vec<i64> {
        let mut state = match self {
            Pattern::Random(seed) => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            _ => 0,
        };
        let value = |i: usize| match self {
            Pattern::Min => min,
            Pattern::Max => max,
            Pattern::Alternating => [min, max][i % 2],
            Pattern::Random(_) => {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                min + (state >> 11) as i64 % (max - min + 1)
            }
        };
        (0..len).map(value).collect()
    }
}

/// `len` unsigned bytes.
pub fn adversarial_u8(pattern: Pattern, len: usize) -> Vec<u8> {
    pattern.fill(len, 0, 255).into_iter().map(|v| v as u8).collect()
}

/// `len` signed bytes.
pub fn adversarial_i8(pattern: Pattern, len: usize) -> Vec<i8> {
    pattern.fill(len, -128, 127).into_iter().map(|v| v as i8).collect()
}

/// `len` signed words.
pub fn adversarial_i16(pattern: Pattern, len: usize) -> Vec<i16> {
    pattern.fill(len, -32768, 32767).into_iter().map(|v| v as i16).collect()
}

/// Sizes around a tile of `t`: 0, 1, t-1, t, t+1, 2t+1.
pub fn sizes(t: usize) -> Vec<usize> {
    let mut sizes = vec![0, 1, t - 1, t, t + 1, 2 * t + 1];
    sizes.dedup();
    sizes
}
