//! Bits on every kernel, and errors against f64.

use super::*;
use crate::available;

const ALL: [Activation; 10] = [
    Activation::NONE,
    Activation::RELU,
    Activation::Clamp { low: -0.5, high: 1.0 },
    Activation::LeakyRelu { slope: 0.01 },
    Activation::HardSigmoid { slope: 0.2, offset: 0.5 },
    Activation::HardSwish,
    Activation::Sigmoid,
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
];

/// Finite values of every sign and exponent.
fn values() -> impl Iterator<Item = f32> {
    (0..u32::MAX / 4001).map(|i| f32::from_bits(i * 4001)).filter(|x| x.is_finite())
}

#[test]
fn kernels_agree_to_the_bit() {
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 0.0, -87.0, f32::MIN_POSITIVE];
    let x: Vec<f32> = values().chain(special).collect();
    for activation in ALL {
        let want: Vec<f32> = x.iter().map(|&x| activation.apply(x)).collect();
        for kernel in available() {
            for threads in [1, 2] {
                let mut y = vec![0.0; x.len()];
                activation.run(kernel, &x, &mut y, 1, threads);
                let same = |(y, w): (&f32, &f32)| y.to_bits() == w.to_bits() || (y.is_nan() && w.is_nan());
                assert!(y.iter().zip(&want).all(same), "{activation:?} on {}", kernel.name());
            }
        }
    }
}

#[test]
fn nan_stays_and_ranges_are_those_of_the_images() {
    for activation in ALL {
        let x = [1.0, f32::NAN, -2.0, 3.0];
        let mut y = [0.0; 4];
        let ranges = activation.run(available()[0], &x, &mut y, 2, 1);
        assert!(y[1].is_nan(), "{activation:?}");
        assert!(!ranges[0].is_finite() && ranges[1].is_finite());
        assert_eq!((ranges[1].low, ranges[1].high), (y[2].min(0.0), y[3].max(0.0)));
    }
}

#[test]
fn the_piecewise_ones_have_the_values_of_their_definition() {
    let apply = |activation: Activation, x: &[f32]| x.iter().map(|&x| activation.apply(x)).collect::<Vec<_>>();
    assert_eq!(apply(Activation::LeakyRelu { slope: 0.25 }, &[-4.0, 0.0, 3.0]), [-1.0, 0.0, 3.0]);
    let hard = Activation::HardSigmoid { slope: 0.25, offset: 0.5 };
    assert_eq!(apply(hard, &[-9.0, -2.0, 0.0, 1.0, 9.0]), [0.0, 0.0, 0.5, 0.75, 1.0]);
    assert_eq!(apply(Activation::HardSwish, &[-7.0, -3.0, 0.0, 3.0, 7.0]), [0.0, 0.0, 0.0, 3.0, 7.0]);
    for x in values().filter(|x| x.abs() < 3.0 && x.abs() > 1e-30) {
        let want = f64::from(x) * (f64::from(x) / 6.0 + 0.5);
        assert!((f64::from(Activation::HardSwish.apply(x)) - want).abs() <= f64::from(x.abs()) * 1.5e-7, "{x}");
    }
}

#[test]
fn sigmoid_and_silu_are_within_their_bound() {
    let mut worst = 0f64;
    for x in values().filter(|x| x.abs() <= 1e4) {
        let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
        for (activation, exact) in [(Activation::Sigmoid, exact), (Activation::Silu, f64::from(x) * exact)] {
            let error = (f64::from(activation.apply(x)) - exact).abs();
            if x < -87.0 {
                assert!(error <= 1e-33, "{activation:?} of {x}");
            } else if exact.abs() >= f64::from(f32::MIN_POSITIVE) {
                worst = worst.max(error / exact.abs());
            }
        }
    }
    assert!(worst <= 2f64.powi(-22), "{worst} is {} of 2^-22", worst * 2f64.powi(22));
    assert!(worst >= 2f64.powi(-24), "an error below half a unit is one that was not measured");
}

/// The normal distribution function, by the series of `(Phi - 1/2) / phi`: terms of one sign, so nothing cancels.
fn normal(x: f64) -> f64 {
    if x.abs() > 12.0 {
        return if x < 0.0 { 0.0 } else { 1.0 };
    }
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > sum.abs() * 1e-17 {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    0.5 + sum * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

#[test]
fn gelus_are_within_their_bounds() {
    let [mut exact, mut tanh] = [0f64; 2];
    for x in values().filter(|x| x.abs() <= 1e9 && x.abs() >= 1e-30) {
        let wide = f64::from(x);
        let error = |activation: Activation, want: f64| (f64::from(activation.apply(x)) - want).abs() / wide.abs();
        exact = exact.max(error(Activation::Gelu, wide * normal(wide)));
        let s = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
        tanh = tanh.max(error(Activation::GeluTanh, wide * 0.5 * (1.0 + s.tanh())));
    }
    let unit = 2f64.powi(-24);
    assert!((unit..4.0 * unit).contains(&exact), "{} units", exact / unit);
    assert!((unit..4.0 * unit).contains(&tanh), "{} units", tanh / unit);
    assert_eq!(Activation::Gelu.apply(-5.6).to_bits(), (-0f32).to_bits());
    assert_eq!(Activation::Gelu.apply(5.6), 5.6);
}

#[test]
fn exponentials_far_below_are_zero() {
    let mut worst = 0f64;
    for x in (0..200_000).map(|i| -100.0 * i as f32 / 200_000.0) {
        let got = f64::from(exp_or_zero(x));
        if x < -87.0 {
            assert_eq!(got, 0.0, "{x}");
        } else {
            worst = worst.max((got - f64::from(x).exp()).abs() / f64::from(x).exp());
        }
    }
    assert!((2f64.powi(-25)..2f64.powi(-23)).contains(&worst), "{worst}");
    for x in [-1e4, f32::MIN, f32::NEG_INFINITY] {
        assert_eq!(exp_or_zero(x).to_bits(), 0);
    }
    assert!(exp_or_zero(f32::NAN).is_nan());
    assert_eq!(exp_or_zero(0.0), 1.0);
}
