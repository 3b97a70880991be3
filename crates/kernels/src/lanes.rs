//! Float sums in an order that no vector width changes: by lanes, then by a fixed tree.
//!
//! Lane `j` adds up, from 0 on and in order, the elements whose index is `j` modulo the number of lanes; then the upper half of
//! the lanes is added to the lower half, until one is left. Elements of value 0 at the end leave the sum unchanged.

/// The sum of lanes: the upper half is added to the lower half until one is left.
#[inline(always)]
pub(crate) fn tree<const N: usize>(mut lanes: [f32; N]) -> f32 {
    let mut half = N / 2;
    while half > 0 {
        for j in 0..half {
            lanes[j] += lanes[j + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Joins `x` into `N` lanes, from 0 on and in order, by `join(lane, value)`; values past the end are `absent`.
#[inline(always)]
pub(crate) fn joined<const N: usize>(x: &[f32], absent: f32, join: impl Fn(f32, f32) -> f32) -> [f32; N] {
    let mut lanes = [0f32; N];
    let (runs, rest) = x.as_chunks::<N>();
    for run in runs {
        for (lane, &x) in lanes.iter_mut().zip(run) {
            *lane = join(*lane, x);
        }
    }
    if !rest.is_empty() {
        let mut last = [absent; N];
        last[..rest.len()].copy_from_slice(rest);
        for (lane, x) in lanes.iter_mut().zip(last) {
            *lane = join(*lane, x);
        }
    }
    lanes
}
