//! The bias is a whole number of steps, narrows the grid, and changes no promise: bounds, exact sums, read back.

use crate::{Clip, Granularity, Method, Precision, Rounding, Series, expand_tensor_by};
use proptest::prelude::*;

fn method(precision: &str, granularity: Granularity) -> Method {
    let precision = precision.parse().unwrap();
    Method { precision, granularity, rounding: Rounding::Nearest, clip: Clip::None, asymmetric: true }
}

fn expand(x: &[f32], shape: &[usize], axis: usize, method: &Method) -> Series {
    expand_tensor_by("w", x, shape, axis, method).unwrap()
}

/// Values of channels that lie far from zero, one of them in a narrow range.
fn shifted() -> (Vec<f32>, [usize; 2]) {
    let value = |i: usize| [5.0, -300.0, 1e-3, 1e7][i / 16] + [1.0, 20.0, 1e-3, 3.0][i / 16] * (i as f32 * 1.7).sin();
    ((0..64).map(value).collect(), [4, 16])
}

#[test]
fn a_bias_makes_the_grid_as_fine_as_the_range_is_narrow() {
    let (x, shape) = shifted();
    let centred = method("int4x2", Granularity::Channel);
    let [plain, centred] = [false, true].map(|asymmetric| expand(&x, &shape, 0, &Method { asymmetric, ..centred }));
    assert!(plain.offsets().is_empty() && plain.bias().is_empty());
    assert!(centred.bound(2, 1) < plain.bound(2, 1) / 10.0, "{} {}", centred.bound(2, 1), plain.bound(2, 1));
    assert!((centred.bias()[1] + 300.0).abs() < 2.0 && (centred.bias()[0] - 5.0).abs() < 0.5);
}

#[test]
fn a_channel_that_gains_nothing_stays_symmetric() {
    // From -1 to 1, and from -1 to 3.
    let x: Vec<f32> = (0..80).map(|i| (1 + i / 40) as f32 * ((i % 40) as f32 / 19.5 - 1.0) + (i / 40) as f32).collect();
    let by_channel = method("int4x1", Granularity::Channel);
    assert_eq!(expand(&x, &[2, 40], 0, &by_channel).offsets(), [0, 3]);
    assert!(expand(&x[..40], &[1, 40], 0, &by_channel).offsets().is_empty());
    let groups = expand(&x, &[2, 40], 0, &method("int4x1", Granularity::Group(2)));
    assert!(groups.offsets().is_empty(), "the scales of groups follow the range about zero");
}

#[test]
fn the_ends_of_the_float_range_are_held() {
    let rows: [&[f32]; 4] = [
        &[f32::MAX, f32::MIN, 0.0, f32::MIN_POSITIVE],
        &[f32::MAX, f32::MAX / 2.0, f32::MAX / 3.0, f32::MAX],
        &[1e-26, 1e-27, 0.0, 0.0],
        &[0.0; 4],
    ];
    for x in rows {
        for precision in ["int4x2", "int8x2", "int8x3"] {
            let series = expand(x, &[1, 4], 0, &method(precision, Granularity::Channel));
            let (_, ratio) = series.measured_error("w", x, series.precision().order()).unwrap();
            assert!(ratio <= 1.0 && series.bias().iter().all(|bias| bias.is_finite()), "{x:?}");
        }
    }
}

#[test]
fn offsets_that_no_expansion_produces_are_refused() {
    let series = expand(&[1.0, 2.0, 0.0, 0.0], &[2, 2], 0, &method("int4x1", Granularity::Channel));
    let with = |offsets: Vec<i32>| series.clone().with_offsets("w", offsets).map(|s| s.offsets().to_vec());
    assert_eq!(with(vec![7, 0]).unwrap(), [7, 0]);
    assert!(with(vec![7]).unwrap_err().to_string().contains("1 biases beside 2 scales"));
    assert!(with(vec![0, 1]).unwrap_err().to_string().contains("bias 1 is 1 steps of 0"));
    assert!(with(vec![i32::MIN, 0]).unwrap_err().to_string().contains("bias 0"));
}

const PRECISIONS: [&str; 9] =
    ["int2x1", "int3x1", "int4x1", "int2x3", "int4x2", "int4x3", "int4x4", "int8x2", "int8x3"];

proptest! {
    #[test]
    fn every_promise_of_a_series_holds(
        which in 0..PRECISIONS.len(),
        x in prop::collection::vec(-1f32..1.0, 120),
        middles in prop::collection::vec(-3f32..3.0, 3),
        size in -20i32..20,
        tensor: bool,
        sum: bool,
        clipped: bool,
    ) {
        let granularity = if tensor { Granularity::Tensor } else { Granularity::Channel };
        let (rounding, clip) = (if sum { Rounding::Sum } else { Rounding::Nearest }, if clipped { Clip::Mse } else { Clip::None });
        let method = Method { rounding, clip, ..method(PRECISIONS[which], granularity) };
        let tail = |(i, v): (usize, &f32)| (if i % 37 == 5 { 3.0 * v } else { *v } + middles[i / 40]) * 2f32.powi(size);
        let x: Vec<f32> = x.iter().enumerate().map(tail).collect();
        let series = expand(&x, &[3, 40], 0, &method);
        let order = series.precision().order();
        // One value in a hundred, or what a clip about zero leaves there.
        let about_zero = expand(&x, &[3, 40], 0, &Method { asymmetric: false, ..method });
        prop_assert!(series.saturation().len() <= (x.len() / 100).max(about_zero.saturation().len()));
        for terms in 1..=order {
            let (_, ratio) = series.measured_error("w", &x, terms).unwrap();
            prop_assert!(ratio <= 1.0, "prefix {} at {}", terms, ratio);
            // `W = unit (2^shift q + mean)`, and `q` fits its width.
            let prefix = series.prefix("w", terms).unwrap();
            for (i, value) in series.values("w", terms).unwrap().enumerate() {
                let whole = (i64::from(prefix.q[i]) << prefix.shift) + prefix.means.get(i / 40).copied().unwrap_or(0);
                prop_assert_eq!(f64::from(prefix.units[i / 40]) * whole as f64, value);
                let most = crate::limbs::limb_max(crate::limb_count(prefix.width));
                prop_assert!(i64::from(prefix.q[i]).abs() <= most + 1);
            }
        }
        if order > 1 || series.precision().total_bits() < 8 {
            reads_back(&series)?;
        }
        if series.precision().total_bits() <= 16 {
            sums_are_exact(&series)?;
        }
    }
}

/// The terms, scales, saturation part and bias of a series are all of it.
fn reads_back(series: &Series) -> Result<(), TestCaseError> {
    let terms: Vec<_> = (1..=series.precision().order()).map(|t| series.term(t)).collect();
    let scales = crate::Scales { first: series.term_scales(1), block: None };
    let (shape, means) = (series.shape().to_vec(), series.means().to_vec());
    let again = Series::from_terms("w", series.precision(), shape, 0, scales, &terms, means).unwrap();
    let again = again.with_saturation("w", &series.saturation()).unwrap();
    let again = again.with_offsets("w", series.offsets().to_vec()).unwrap().with_rounding(series.rounding());
    prop_assert_eq!(&again, series);
    Ok(())
}

/// Bias, saturation part and terms add up exactly in f32, from the front and from the back.
fn sums_are_exact(series: &Series) -> Result<(), TestCaseError> {
    let order = series.precision().order();
    let mut parts: Vec<Vec<f32>> = Vec::new();
    let scales: Vec<f32> = series.value_scales(1).collect();
    let mut beyond = vec![0f32; scales.len()];
    series.saturation().iter().for_each(|&(i, s)| beyond[i] = s as f32 * scales[i]);
    parts.push(beyond);
    let bias = series.bias();
    parts.push(
        (0..scales.len()).map(|i| bias.get(if bias.len() == 1 { 0 } else { i / 40 }).copied().unwrap_or(0.0)).collect(),
    );
    for term in 1..=order {
        let digits = series.term(term);
        parts.push(digits.iter().zip(series.value_scales(term)).map(|(&d, scale)| f32::from(d) * scale).collect());
    }
    for (i, value) in series.values("w", order).unwrap().enumerate() {
        let forward = parts.iter().fold(0f32, |sum, part| sum + part[i]);
        let backward = parts.iter().rev().fold(0f32, |sum, part| sum + part[i]);
        prop_assert_eq!((f64::from(forward), f64::from(backward)), (value, value));
    }
    Ok(())
}

#[test]
fn few_bits_carry_their_bias_in_the_limbs() {
    let x: Vec<f32> = (0..32).map(|i| 0.9 + 0.6 * (i as f32 * 0.7).sin()).collect();
    for precision in ["int2x1", "int3x1", "int4x1", "int2x3", "int4x3"] {
        let series = expand(&x, &[1, 32], 0, &method(precision, Granularity::Channel));
        let prefix = series.prefix("w", series.precision().order()).unwrap();
        assert!(series.offsets()[0] != 0 && prefix.means.is_empty(), "{precision}");
    }
    let series = expand(&x, &[1, 32], 0, &method("int4x2", Granularity::Channel));
    assert_eq!(series.prefix("w", 2).unwrap().means, [i64::from(series.offsets()[0])]);
    let precision: Precision = series.precision();
    assert!(series.q().iter().all(|&q| i64::from(q).abs() <= precision.q_max()));
}
