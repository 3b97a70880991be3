//! Every kernel against the definition, for equality of bits, and against f64 within a bound.

use super::*;
use crate::available;

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 1.7).sin() * [1.0, 1e-3, 30.0, 0.0][i * 7 % 4] + 0.3).collect()
}

fn norm(k: usize, rms: bool) -> Norm {
    let scale = (0..k).map(|i| 1.0 + (i as f32 * 0.9).cos()).collect();
    let bias = (0..k).map(|i| (i as f32 * 0.4).sin()).collect();
    Norm { scale, bias: if rms { vec![0.0; k] } else { bias }, epsilon: 1e-5, rms }
}

/// The sum of 64 lanes, written out.
fn sum(x: impl Iterator<Item = f32> + Clone, join: impl Fn(f32, f32) -> f32) -> f32 {
    let lane = |j: usize| x.clone().skip(j).step_by(64).fold(0f32, &join);
    let mut lanes: Vec<f32> = (0..64).map(lane).collect();
    while lanes.len() > 1 {
        let upper = lanes.split_off(lanes.len() / 2);
        lanes.iter_mut().zip(upper).for_each(|(low, high)| *low += high);
    }
    lanes[0]
}

fn definition(norm: &Norm, x: &[f32]) -> Vec<f32> {
    let count = x.len() as f32;
    let mean = if norm.rms { 0.0 } else { sum(x.iter().copied(), |s, x| s + x) / count };
    let squares = sum(x.iter().map(|x| x - mean), |s, d| d.mul_add(d, s));
    let inverse = 1.0 / (squares / count + norm.epsilon).sqrt();
    let columns = x.iter().zip(&norm.scale).zip(&norm.bias);
    columns.map(|((x, scale), bias)| ((x - mean) * inverse).mul_add(*scale, *bias)).collect()
}

#[test]
fn rows_equal_the_definition_on_every_kernel() {
    for k in [1, 2, 15, 16, 17, 63, 64, 65, 129, 384, 777] {
        for rms in [false, true] {
            let (norm, x) = (norm(k, rms), values(5 * k));
            let want: Vec<f32> = x.chunks(k).flat_map(|x| definition(&norm, x)).collect();
            for kernel in available() {
                for threads in [1, 2, 3] {
                    let (mut y, mut ranges) = (vec![0.0; x.len()], vec![]);
                    norm.run(kernel, &x, &mut y, &mut ranges, threads);
                    let same = y.iter().zip(&want).all(|(y, want)| y.to_bits() == want.to_bits());
                    assert!(same, "{k} values, rms {rms}, {threads} threads, {}", kernel.name());
                    for (range, y) in ranges.iter().zip(y.chunks(k)) {
                        assert_eq!(range.high, y.iter().fold(0f32, |a, &b| a.max(b)));
                        assert_eq!(range.low, y.iter().fold(0f32, |a, &b| a.min(b)));
                    }
                    assert_eq!(ranges.len(), 5);
                }
            }
        }
    }
}

#[test]
fn errors_are_small() {
    let (norm, x) = (norm(768, false), values(768));
    let (mut y, mut ranges) = (vec![0.0; 768], vec![]);
    norm.run(available()[0], &x, &mut y, &mut ranges, 1);
    let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let mean = wide.iter().sum::<f64>() / 768.0;
    let variance = wide.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 768.0;
    for (i, &y) in y.iter().enumerate() {
        let want = (wide[i] - mean) / (variance + 1e-5).sqrt() * f64::from(norm.scale[i]) + f64::from(norm.bias[i]);
        assert!((f64::from(y) - want).abs() < 2e-6, "{y} for {want}");
    }
}

#[test]
fn a_row_that_is_not_finite_is_nan_alone() {
    for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for rms in [false, true] {
            let (norm, mut x) = (norm(70, rms), values(3 * 70));
            x[70 + 69] = odd;
            for kernel in available() {
                let (mut y, mut ranges) = (vec![0.0; x.len()], vec![]);
                norm.run(kernel, &x, &mut y, &mut ranges, 1);
                assert!(y[70..140].iter().all(|y| y.is_nan()));
                assert!(y[..70].iter().chain(&y[140..]).all(|y| y.is_finite()));
                assert_eq!(ranges.iter().map(|r| r.is_finite()).collect::<Vec<_>>(), [true, false, true]);
            }
        }
    }
}
