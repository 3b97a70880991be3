//! Every kernel against the definition, for equality of bits.

use super::*;
use crate::available;

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 1.7).sin() * [1.0, 1e-3, 90.0, 0.0][i * 7 % 4]).collect()
}

/// The sum of 16 lanes, written out.
fn lanes(x: &[f32]) -> f32 {
    let lane = |j: usize| x.iter().skip(j).step_by(16).fold(0f32, |sum, x| sum + x);
    let mut lanes: Vec<f32> = (0..16).map(lane).collect();
    while lanes.len() > 1 {
        let upper = lanes.split_off(lanes.len() / 2);
        lanes.iter_mut().zip(upper).for_each(|(low, high)| *low += high);
    }
    lanes[0]
}

fn definition(x: &[f32]) -> Vec<f32> {
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let p: Vec<f32> = x.iter().map(|x| exp_or_zero(x - largest)).collect();
    let inverse = 1.0 / lanes(&p);
    p.iter().map(|p| p * inverse).collect()
}

#[test]
fn rows_equal_the_definition_on_every_kernel() {
    for k in [1, 2, 15, 16, 17, 31, 33, 128, 1000] {
        let x = values(5 * k);
        let want: Vec<f32> = x.chunks(k).flat_map(definition).collect();
        for kernel in available() {
            for threads in [1, 2, 3] {
                let mut y = vec![0.0; x.len()];
                softmax(kernel, &x, k, &mut y, threads);
                let same = y.iter().zip(&want).all(|(y, want)| y.to_bits() == want.to_bits());
                assert!(same, "{k} values, {threads} threads, {}", kernel.name());
            }
        }
        for row in want.chunks(k) {
            assert!((row.iter().map(|&p| f64::from(p)).sum::<f64>() - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn rows_that_are_not_finite() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for kernel in available() {
        for (x, want) in [
            ([0.0, -inf, 0.0], [0.5, 0.0, 0.5]),
            ([0.0, -1e4, -inf], [1.0, 0.0, 0.0]),
            ([-inf; 3], [nan; 3]),
            ([0.0, inf, 0.0], [nan; 3]),
            ([0.0, nan, -1e4], [nan; 3]),
        ] {
            let mut y = [7.0; 3];
            softmax(kernel, &x, 3, &mut y, 1);
            let same = |(y, want): (&f32, &f32)| y == want || y.is_nan() && want.is_nan();
            assert!(y.iter().zip(&want).all(same), "{x:?} gives {y:?}");
        }
    }
}

#[test]
fn sums_equal_the_definition_on_every_kernel() {
    for [outer, n, inner] in [[1, 1, 1], [3, 7, 1], [3, 40, 1], [2, 5, 3], [2, 9, 64], [3, 4, 200], [2, 3, 77]] {
        let x = values(outer * n * inner);
        let one = |o: usize, i: usize| {
            let x: Vec<f32> = (0..n).map(|j| x[(o * n + j) * inner + i]).collect();
            if inner == 1 { lanes(&x) } else { x.iter().fold(0f32, |sum, x| sum + x) }
        };
        let want: Vec<f32> = (0..outer * inner).map(|oi| one(oi / inner, oi % inner)).collect();
        for kernel in available() {
            for threads in [1, 2] {
                let mut y = vec![7.0; want.len()];
                sum(kernel, &x, [outer, n, inner], &mut y, threads);
                let same = y.iter().zip(&want).all(|(y, want)| y.to_bits() == want.to_bits());
                assert!(same, "{outer} x {n} x {inner}, {threads} threads, {}", kernel.name());
            }
        }
    }
    let mut y = [7.0; 2];
    sum(available()[0], &[], [2, 0, 1], &mut y, 1);
    assert_eq!(y, [0.0; 2]);
}
