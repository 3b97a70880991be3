//! Every kernel against the definition, for equality of bits.

use super::*;
use crate::activation::exp_or_zero;
use crate::available;

pub(super) fn values(len: usize, seed: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 1.7 + seed).sin() * [1.0, 0.1, 3.0, 0.0][i * 7 % 4]).collect()
}

/// Queries, keys and values with `slack` other values behind each row.
pub(super) struct Case {
    pub(super) heads: usize,
    pub(super) extent: Extent,
    slack: usize,
    pub(super) parts: [Vec<f32>; 3],
    pub(super) mask: Option<(Vec<f32>, [usize; 4])>,
    pub(super) steps: Option<u8>,
}

impl Case {
    pub(super) fn new(heads: usize, extent: Extent, slack: usize) -> Self {
        let Extent { batch, queries, keys, depth, width } = extent;
        let part = |rows: usize, len: usize, seed: f32| values(batch * rows * (heads * len + slack), seed);
        let parts = [part(queries, depth, 0.3), part(keys, depth, 1.1), part(keys, width, 2.7)];
        Self { heads, extent, slack, parts, mask: None, steps: None }
    }

    fn attention(&self) -> Attention {
        Attention { heads: self.heads, scale: 0.37, steps: self.steps }
    }

    pub(super) fn operands(&self) -> Operands<'_> {
        let Extent { depth, width, .. } = self.extent;
        let rows = |i: usize, len: usize| Rows { values: &self.parts[i], stride: self.heads * len + self.slack };
        let mask = self.mask.as_ref().map(|(values, strides)| Mask { values, strides: *strides });
        Operands { queries: rows(0, depth), keys: rows(1, depth), values: rows(2, width), mask }
    }

    pub(super) fn run(&self, kernel: &dyn Kernel, threads: usize) -> Vec<f32> {
        let Extent { batch, queries, width, .. } = self.extent;
        let mut y = vec![7.0; batch * queries * self.heads * width];
        self.attention().run(kernel, &self.operands(), self.extent, &mut y, &mut Workspace::default(), threads);
        y
    }

    fn definition(&self) -> Vec<f32> {
        let Extent { batch, queries, keys, depth, width } = self.extent;
        let operands = self.operands();
        let mut y = vec![];
        for row in 0..batch * queries {
            let (b, i) = (row / queries, row % queries);
            for h in 0..self.heads {
                let q = &operands.queries.values[row * operands.queries.stride + h * depth..][..depth];
                let score = |j: usize| {
                    let k = &operands.keys.values[(b * keys + j) * operands.keys.stride + h * depth..][..depth];
                    let dot = q.iter().zip(k).fold(0f32, |sum, (q, k)| q.mul_add(*k, sum)) * 0.37;
                    match &self.mask {
                        None => dot,
                        Some((mask, [sb, sh, si, sj])) => dot + mask[b * sb + h * sh + i * si + j * sj],
                    }
                };
                let scores: Vec<f32> = (0..keys).map(score).collect();
                let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let p: Vec<f32> = scores.iter().map(|score| exp_or_zero(score - largest)).collect();
                let mut lanes: Vec<f32> =
                    (0..16).map(|j| p.iter().skip(j).step_by(16).fold(0f32, |s, p| s + p)).collect();
                while lanes.len() > 1 {
                    let upper = lanes.split_off(lanes.len() / 2);
                    lanes.iter_mut().zip(upper).for_each(|(low, high)| *low += high);
                }
                let inverse = 1.0 / lanes[0];
                for c in 0..width {
                    let v = |j: usize| operands.values.values[(b * keys + j) * operands.values.stride + h * width + c];
                    let sum = p.iter().enumerate().fold(0f32, |sum, (j, p)| p.mul_add(v(j), sum));
                    y.push((sum + 0.0) * inverse);
                }
            }
        }
        y
    }
}

pub(super) fn assert_same(got: &[f32], want: &[f32], context: &str) {
    assert_eq!(got.len(), want.len(), "{context}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{got} for {want} at {i}, {context}");
    }
}

fn check(case: &Case, context: &str) {
    let want = case.definition();
    for kernel in available() {
        for threads in [1, 2, 3] {
            assert_same(&case.run(kernel, threads), &want, &format!("{context}, {} x {threads}", kernel.name()));
        }
    }
}

#[test]
fn heads_equal_the_definition_on_every_kernel() {
    for (heads, [batch, queries, keys, depth, width]) in [
        (1, [1, 1, 1, 1, 1]),
        (2, [1, 3, 1, 4, 4]),
        (3, [2, 14, 32, 16, 32]),
        (2, [1, 15, 33, 17, 31]),
        (2, [3, 29, 31, 32, 33]),
        (2, [1, 57, 65, 64, 64]),
        (1, [5, 13, 16, 5, 70]),
    ] {
        let extent = Extent { batch, queries, keys, depth, width };
        for slack in [0, 3] {
            check(&Case::new(heads, extent, slack), &format!("{heads} heads, {extent:?}, {slack} beside"));
        }
    }
}

#[test]
fn masks_broadcast_along_any_axis() {
    let extent = Extent { batch: 2, queries: 17, keys: 20, depth: 8, width: 8 };
    for strides in [[20, 0, 0, 1], [0, 0, 20, 1], [3 * 340, 340, 20, 1], [340, 0, 20, 1], [3, 1, 0, 0], [0; 4]] {
        let mut case = Case::new(3, extent, 0);
        case.mask = Some((values(2 * 3 * 17 * 20, 0.9), strides));
        check(&case, &format!("{strides:?}"));
    }
}

#[test]
fn masked_keys_change_no_bit_whatever_their_number() {
    let short = Extent { batch: 1, queries: 11, keys: 11, depth: 16, width: 16 };
    let masks = [-1e4, -1e9, f32::MIN, f32::NEG_INFINITY];
    for (steps, masked) in [None, Some(127)].into_iter().flat_map(|steps| masks.map(|masked| (steps, masked))) {
        let alone = Case { steps, ..Case::new(2, short, 0) };
        for length in [12, 16, 17, 40, 64, 100] {
            let mut padded = Case { steps, ..Case::new(2, Extent { queries: length, keys: length, ..short }, 0) };
            for (padded, alone) in padded.parts.iter_mut().zip(&alone.parts) {
                padded[..alone.len()].copy_from_slice(alone);
            }
            let mask = (0..length).map(|j| if j < 11 { 0.0 } else { masked }).collect();
            padded.mask = Some((mask, [0, 0, 0, 1]));
            // What stands in the padding is not looked at.
            padded.parts[1][11 * 32..].fill(f32::NAN);
            padded.parts[2][11 * 32..].fill(f32::INFINITY);
            for kernel in available() {
                for threads in [1, 2] {
                    let (want, got) = (alone.run(kernel, 1), padded.run(kernel, threads));
                    assert_same(&got[..want.len()], &want, &format!("{length} by {masked}, {}", kernel.name()));
                }
            }
        }
    }
}

#[test]
fn rows_without_a_finite_largest_score_are_nan() {
    let extent = Extent { batch: 1, queries: 3, keys: 5, depth: 4, width: 4 };
    let mut case = Case::new(1, extent, 0);
    let mut mask = vec![0.0; 15];
    mask[5..10].fill(f32::NEG_INFINITY);
    mask[12] = f32::NAN;
    case.mask = Some((mask, [0, 0, 5, 1]));
    for kernel in available() {
        let y = case.run(kernel, 1);
        assert!(y[..4].iter().all(|y| y.is_finite()) && y[4..].iter().all(|y| y.is_nan()), "{y:?}");
    }
    check(&case, "masked rows");
    case.extent.keys = 0;
    assert!(case.run(available()[0], 1).iter().all(|y| y.is_nan()));
}

#[test]
fn only_keys_that_no_query_sees_are_hidden() {
    let extent = Extent { batch: 1, queries: 3, keys: 20, depth: 4, width: 4 };
    for (seen, masked) in [(20, -9.9e3), (13, -1e4), (20, f32::NAN)] {
        let mut case = Case::new(1, extent, 0);
        let mut mask = vec![0.0; 60];
        for (i, mask) in mask.chunks_exact_mut(20).enumerate() {
            mask[[9, 13, 11][i]..].fill(masked);
        }
        case.mask = Some((mask, [0, 0, 20, 1]));
        let (kernel, operands) = (available()[0], case.operands());
        let call = Call { attention: case.attention(), kernel, operands: &operands, extent };
        assert_eq!(call.keys(0), seen, "{masked}");
    }
    // Where all are masked alike, all are seen.
    let mut case = Case::new(1, extent, 0);
    for masked in [-1e4, f32::MIN, f32::NEG_INFINITY] {
        case.mask = Some((vec![masked; 20], [0, 0, 0, 1]));
        let (kernel, operands) = (available()[0], case.operands());
        assert_eq!(Call { attention: case.attention(), kernel, operands: &operands, extent }.keys(0), 20, "{masked}");
    }
}
