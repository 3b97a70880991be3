//! Every kernel against the definition, for equality of bits; the definition against attention on floats.

use crate::attention::Extent;
use crate::attention::tests::{Case, assert_same, values};
use crate::available;

use super::bodies::short_exp;

/// Scale and integers of a row.
fn integers(row: &[f32], steps: u8) -> (f32, Vec<i64>) {
    let largest = row.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    if row.iter().any(|x| !x.is_finite()) {
        return (f32::NAN, vec![0; row.len()]);
    }
    if largest < 2f32.powi(-90) {
        return (0.0, vec![0; row.len()]);
    }
    let inv = f32::from(steps) / largest;
    (largest / f32::from(steps), row.iter().map(|x| (x * inv).round_ties_even() as i64).collect())
}

fn dot(a: &[i64], b: &[i64]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum::<i64>() as f32
}

/// Outputs of one query of one head.
fn outputs(case: &Case, [b, i, h]: [usize; 3]) -> Vec<f32> {
    let Extent { queries, keys, depth, width, .. } = case.extent;
    let (operands, steps) = (case.operands(), case.steps.unwrap());
    let row =
        |rows: crate::Rows<'_>, r: usize, len: usize| integers(&rows.values[r * rows.stride + h * len..][..len], steps);
    let (scale_q, q) = row(operands.queries, b * queries + i, depth);
    let mut z = vec![];
    let mut values = vec![];
    for j in 0..keys {
        let (scale_k, k) = row(operands.keys, b * keys + j, depth);
        let score = dot(&q, &k) * scale_k * (scale_q * 0.37);
        z.push(match &case.mask {
            None => score,
            Some((mask, [sb, sh, si, sj])) => score + mask[b * sb + h * sh + i * si + j * sj],
        });
        values.push(row(operands.values, b * keys + j, width));
    }
    let largest = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let p: Vec<f32> = z.iter().map(|z| short_exp(z - largest)).collect();
    let mut lanes: Vec<f32> = (0..16).map(|j| p.iter().skip(j).step_by(16).fold(0f32, |s, p| s + p)).collect();
    while lanes.len() > 1 {
        let upper = lanes.split_off(lanes.len() / 2);
        lanes.iter_mut().zip(upper).for_each(|(low, high)| *low += high);
    }
    let w: Vec<f32> = p.iter().zip(&values).map(|(p, (scale, _))| p * scale).collect();
    let most = w.iter().copied().fold(0f32, f32::max);
    let inv = if most > 0.0 { 255.0 / most } else { 0.0 };
    let u: Vec<i64> = w.iter().map(|w| (w * inv).round_ties_even() as i64).collect();
    let odd = values.iter().any(|(scale, _)| scale.is_nan());
    let scale = if odd { f32::NAN } else { (most / 255.0) * (1.0 / lanes[0]) };
    let column = |c: usize| values.iter().map(|(_, v)| v[c]).collect::<Vec<_>>();
    (0..width).map(|c| dot(&u, &column(c)) * scale + 0.0).collect()
}

fn definition(case: &Case) -> Vec<f32> {
    let Extent { batch, queries, .. } = case.extent;
    let row = |row: usize| (0..case.heads).flat_map(move |h| outputs(case, [row / queries, row % queries, h]));
    (0..batch * queries).flat_map(row).collect()
}

fn check(case: &Case, context: &str) {
    let want = definition(case);
    for kernel in available() {
        for threads in [1, 2, 3] {
            assert_same(&case.run(kernel, threads), &want, &format!("{context}, {} x {threads}", kernel.name()));
        }
    }
}

fn case(heads: usize, [batch, queries, keys, depth, width]: [usize; 5], slack: usize, steps: u8) -> Case {
    let mut case = Case::new(heads, Extent { batch, queries, keys, depth, width }, slack);
    case.steps = Some(steps);
    case
}

#[test]
fn heads_equal_the_definition_on_every_kernel() {
    for (heads, sizes) in [
        (1, [1, 1, 1, 1, 1]),
        (2, [1, 3, 1, 4, 4]),
        (3, [2, 14, 32, 16, 32]),
        (2, [1, 15, 33, 17, 31]),
        (2, [3, 29, 31, 32, 33]),
        (2, [1, 57, 65, 64, 64]),
        (1, [5, 13, 16, 5, 70]),
    ] {
        for (slack, steps) in [(0, 127), (3, 119), (1, 85)] {
            check(
                &case(heads, sizes, slack, steps),
                &format!("{heads} heads, {sizes:?}, {slack} beside, {steps} steps"),
            );
        }
    }
}

#[test]
fn masks_broadcast_along_any_axis() {
    for strides in [[20, 0, 0, 1], [0, 0, 20, 1], [3 * 340, 340, 20, 1], [340, 0, 20, 1], [3, 1, 0, 0], [0; 4]] {
        let mut case = case(3, [2, 17, 20, 8, 8], 0, 127);
        case.mask = Some((values(2 * 3 * 17 * 20, 0.9), strides));
        check(&case, &format!("{strides:?}"));
    }
}

#[test]
fn extreme_integers_are_summed_exactly() {
    let signs: [fn(usize) -> f32; 3] = [|_| 1.0, |_| -1.0, |i| if i % 2 == 0 { 1.0 } else { -1.0 }];
    for (q, k) in signs.iter().flat_map(|q| signs.iter().map(move |k| (q, k))) {
        let mut case = case(1, [1, 16, 70, 64, 32], 0, 127);
        for (part, sign) in case.parts.iter_mut().zip([q, k, k]) {
            part.iter_mut().enumerate().for_each(|(i, x)| *x = sign(i) * 2.5);
        }
        check(&case, "extremes");
    }
}

#[test]
fn what_is_not_finite_makes_nan_of_what_sees_it() {
    for (part, row, odd) in
        [(0, 1, f32::NAN), (0, 2, f32::INFINITY), (1, 3, f32::NEG_INFINITY), (1, 0, f32::NAN), (2, 4, f32::INFINITY)]
    {
        let mut case = case(2, [1, 5, 6, 8, 8], 0, 127);
        // The first head has it, the second has not.
        case.parts[part][row * 16 + 3] = odd;
        check(&case, "odd values");
        let y = case.run(available()[0], 1);
        for (i, y) in y.chunks_exact(16).enumerate() {
            let own = part != 0 || i == row;
            assert!(
                y[..8].iter().all(|y| y.is_nan() == own) && y[8..].iter().all(|y| y.is_finite()),
                "{part} {i}: {y:?}"
            );
        }
    }
}

#[test]
fn zeros_and_masked_rows_are_as_on_floats() {
    let mut case = case(1, [1, 3, 5, 4, 4], 0, 127);
    case.parts[0].fill(0.0);
    case.parts[2][4..].fill(0.0);
    check(&case, "zeros");
    let mut mask = vec![0.0; 15];
    mask[5..10].fill(f32::NEG_INFINITY);
    mask[12] = f32::NAN;
    case.mask = Some((mask, [0, 0, 5, 1]));
    check(&case, "masked rows");
    let y = case.run(available()[0], 1);
    assert!(y[..4].iter().all(|y| y.is_finite()) && y[4..].iter().all(|y| y.is_nan()), "{y:?}");
}

#[test]
fn outputs_are_close_to_those_of_floats() {
    let mut case = case(4, [2, 40, 90, 32, 32], 0, 127);
    let integers = case.run(available()[0], 1);
    case.steps = None;
    let floats = case.run(available()[0], 1);
    let (mut error, mut size) = (0f64, 0f64);
    for (a, b) in integers.iter().zip(&floats) {
        error += f64::from(a - b).powi(2);
        size += f64::from(*b).powi(2);
    }
    let relative = (error / size).sqrt();
    assert!(relative > 1e-5 && relative < 2e-2, "{relative}");
}

#[test]
fn short_exponentials_are_within_their_bound() {
    let mut worst = 0f64;
    for i in 0..2_000_000 {
        let x = -87.0 * (i as f32 / 2_000_000.0);
        let want = f64::from(x).exp();
        worst = worst.max((f64::from(short_exp(x)) - want).abs() / want);
    }
    assert!(worst < 2f64.powi(-16), "{worst:e}");
    assert_eq!((short_exp(0.0), short_exp(-87.1), short_exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
    assert!(short_exp(f32::NAN).is_nan());
}
