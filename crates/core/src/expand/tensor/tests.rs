//! The bound holds for every prefix, the sum is exact in f32, and integers equal an f64 oracle's.

use super::*;
use proptest::prelude::*;

fn precisions() -> impl Iterator<Item = Precision> {
    (2..=8).flat_map(|bits| (1..=32 / bits).map(move |order| Precision::new(bits, order).unwrap()))
}

#[test]
fn every_precision_holds_the_extremes() {
    let c = 0.731_234_5_f32;
    for p in precisions() {
        for c in [c, f32::MAX, 1e-20, 1.0, 3.0] {
            let x = [c, -c, c / 2.0, 0.0, -c / 3.0, c * 0.999_999];
            let s = expand_tensor("w", &x, &[1, 6], 0, p, Granularity::Channel).unwrap();
            for t in 1..=p.order() {
                let (_, ratio) = s.measured_error("w", &x, t).unwrap();
                assert!(ratio <= 1.0, "{p}, {t} terms of {c}: {ratio}");
            }
        }
    }
}

#[test]
fn integers_equal_the_oracle() {
    let x: Vec<f32> = (0..700).map(|i| (i as f32 * 0.37).sin() * 2f32.powi(i % 9 - 4)).collect();
    for p in precisions() {
        let s = expand_tensor("w", &x, &[7, 100], 0, p, Granularity::Channel).unwrap();
        for (channel, row) in x.chunks(100).enumerate() {
            let oracle = fpxint_reference::quantise_symmetric(row, s.term_scales(p.order())[channel]);
            assert_eq!(oracle, s.q()[channel * 100..][..100], "{p}");
        }
    }
}

#[test]
fn sums_of_terms_are_exact_in_f32_in_any_order() {
    let x: Vec<f32> = (0..500).map(|i| (i as f32 * 1.7).cos() * 0.3).collect();
    for p in precisions().filter(|p| p.total_bits() <= 16) {
        let s = expand_tensor("w", &x, &[5, 100], 0, p, Granularity::Channel).unwrap();
        let terms: Vec<_> = (1..=p.order()).map(|t| (s.term(t), s.term_scales(t))).collect();
        for i in 0..x.len() {
            let exact = s.q()[i] as f64 * f64::from(s.term_scales(p.order())[i / 100]);
            let dequantised = |(digits, scales): &(Vec<i8>, Vec<f32>)| f32::from(digits[i]) * scales[i / 100];
            let forward = terms.iter().fold(0f32, |sum, term| sum + dequantised(term));
            let backward = terms.iter().rev().fold(0f32, |sum, term| sum + dequantised(term));
            assert_eq!((f64::from(forward), f64::from(backward)), (exact, exact), "{p}");
        }
    }
}

#[test]
fn more_terms_divide_the_error_by_the_radix() {
    let x: Vec<f32> = (0..4000).map(|i| (i as f32 * 0.77).sin()).collect();
    for bits in [2u32, 4, 8] {
        let errors: Vec<f64> = (1..=16 / bits)
            .map(|order| {
                let p = Precision::new(bits, order).unwrap();
                let s = expand_tensor("w", &x, &[1, 4000], 0, p, Granularity::Tensor).unwrap();
                s.measured_error("w", &x, order).unwrap().0
            })
            .collect();
        for pair in errors.windows(2) {
            let gain = pair[0] / pair[1];
            let radix = f64::from(1u32 << bits);
            assert!(gain > radix * 0.7 && gain < radix * 1.5, "int{bits}: {errors:?}");
        }
    }
}

#[test]
fn granularity_and_zero_groups() {
    let x = [1.0, -2.0, 0.0, 0.0, 1e-30, 4.0];
    let p = Precision::new(4, 2).unwrap();
    let by_channel = expand_tensor("w", &x, &[2, 3], 1, p, Granularity::Channel).unwrap();
    assert_eq!(by_channel.scales().len(), 3);
    assert_eq!(by_channel.scales()[1], {
        let alone = expand_tensor("w", &[-2.0, 1e-30], &[2], 0, p, Granularity::Tensor).unwrap();
        alone.scales()[0]
    });
    let tensor = expand_tensor("w", &x, &[2, 3], 1, p, Granularity::Tensor).unwrap();
    assert_eq!(tensor.scales().len(), 1);
    assert_eq!(tensor.q()[5], 119.min(tensor.q()[5]));
    let zero = expand_tensor("w", &[0.0, 1e-30], &[1, 2], 0, p, Granularity::Channel).unwrap();
    assert_eq!((zero.scales(), zero.q()), (&[0.0f32][..], &[0, 0][..]));
    assert!(zero.measured_error("w", &[0.0, 1e-30], 2).unwrap().1 <= 1.0);
}

#[test]
fn bad_tensors_are_named() {
    let p = Precision::new(4, 2).unwrap();
    let error = expand_tensor("conv1.weight", &[0.0, f32::NAN], &[2], 0, p, Granularity::Tensor).unwrap_err();
    assert_eq!(error.to_string(), "tensor `conv1.weight` holds NaN at element 1; a series needs finite weights");
    for (shape, axis) in [(&[3usize][..], 0), (&[2][..], 1), (&[0, 2][..], 0)] {
        let result = expand_tensor("w", &[0.0, 1.0], shape, axis, p, Granularity::Tensor);
        assert!(matches!(result, Err(Error::Shape { .. })), "{shape:?}");
    }
}

proptest! {
    #[test]
    fn the_bound_holds_for_every_prefix(
        bits in 2u32..=8,
        order in 1u32..=4,
        x in prop::collection::vec(prop_oneof![-1e3f32..1e3, -1e-3f32..1e-3, Just(0.0)], 12),
        axis in 0usize..3,
        granularity in prop_oneof![
            Just(Granularity::Tensor),
            Just(Granularity::Channel),
            (1usize..4).prop_map(Granularity::Group)
        ],
    ) {
        let p = Precision::new(bits, order).unwrap();
        let s = expand_tensor("w", &x, &[2, 3, 2], axis, p, granularity).unwrap();
        for t in 1..=order {
            let (error, ratio) = s.measured_error("w", &x, t).unwrap();
            prop_assert!(ratio <= 1.0, "{} terms: {} of the bound, error {}", t, ratio, error);
            prop_assert!(error <= s.worst_bound(t));
        }
    }
}
