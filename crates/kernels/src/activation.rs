//! Activations: functions of one value, at the end of a layer or on their own.
//!
//! ```text
//! Clamp        if x < low {low} else {x}, then if x > high {high}
//! LeakyRelu    if x < 0 {x * slope} else {x}
//! HardSigmoid  x * slope + offset, clamped to [0, 1]
//! HardSwish    x * HardSigmoid(x), slope 1/6, offset 1/2
//! Sigmoid      1 / (1 + e) where x >= 0, else e * (1 / (1 + e));   e = exp(-|x|)
//! Silu         x * Sigmoid(x)
//! ```
//!
//! Each is a fixed sequence of IEEE operations, with `mul_add` in `exp` alone, so all kernels make the same bits. NaN stays
//! NaN. `exp` is a polynomial of degree 7 behind a reduction by powers of two; down to -87 the relative errors of Sigmoid and
//! Silu are below 2^-22. Below, where the true values are not normal numbers any more, `exp(-87)` is taken.

use crate::{Kernel, Range, run};

/// A function of one value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// The nearest value of an interval.
    Clamp {
        /// Smallest output; `-inf` for none, 0 for a ReLU.
        low: f32,
        /// Largest output.
        high: f32,
    },
    /// The value, times a slope where it is negative.
    LeakyRelu {
        /// That slope.
        slope: f32,
    },
    /// A line between 0 and 1.
    HardSigmoid {
        /// Its slope.
        slope: f32,
        /// Its value at 0.
        offset: f32,
    },
    /// The value times its [`Activation::HardSigmoid`] of slope 1/6 and offset 1/2.
    HardSwish,
    /// The logistic function.
    Sigmoid,
    /// The value times its logistic function.
    Silu,
}

/// Runs `$run` with `$f`, the function of one value that `$activation` is: the choice is made once, outside all loops.
macro_rules! by_activation {
    ($activation:expr, |$f:ident| $run:expr) => {{
        use $crate::activation as a;
        match $activation {
            a::Activation::Clamp { low, high } => {
                let $f = move |x| a::clamp(x, low, high);
                $run
            }
            a::Activation::LeakyRelu { slope } => {
                let $f = move |x| a::leaky_relu(x, slope);
                $run
            }
            a::Activation::HardSigmoid { slope, offset } => {
                let $f = move |x| a::hard_sigmoid(x, slope, offset);
                $run
            }
            a::Activation::HardSwish => {
                let $f = a::hard_swish;
                $run
            }
            a::Activation::Sigmoid => {
                let $f = a::sigmoid;
                $run
            }
            a::Activation::Silu => {
                let $f = a::silu;
                $run
            }
        }
    }};
}

pub(crate) use by_activation;

impl Activation {
    /// The function that changes nothing.
    pub const NONE: Self = Self::Clamp { low: f32::NEG_INFINITY, high: f32::INFINITY };
    /// The larger of a value and 0.
    pub const RELU: Self = Self::Clamp { low: 0.0, high: f32::INFINITY };

    /// The function of one value.
    pub fn apply(self, x: f32) -> f32 {
        by_activation!(self, |f| f(x))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clamp { .. } => "Clamp",
            Self::LeakyRelu { .. } => "LeakyRelu",
            Self::HardSigmoid { .. } => "HardSigmoid",
            Self::HardSwish => "HardSwish",
            Self::Sigmoid => "Sigmoid",
            Self::Silu => "Silu",
        }
    }

    /// The function of all values of `x (n, image)` into `y`; returns the range of each image made.
    ///
    /// # Panics
    /// If `x` and `y` differ in length.
    pub fn run(self, kernel: &dyn Kernel, x: &[f32], y: &mut [f32], n: usize, threads: usize) -> Vec<Range> {
        /// Values at a time, which stay in the first-level cache until their range is measured.
        const BLOCK: usize = 4096;
        assert_eq!(x.len(), y.len(), "one output a value");
        let image = x.len() / n.max(1);
        let parts = run::map_blocks(y, image, BLOCK.min(image.max(1)), threads, |index, start, y| {
            kernel.activate(self, &x[index * image + start..][..y.len()], y);
            kernel.range(y)
        });
        run::united(n, parts)
    }
}

/// `y = f(x)`.
#[inline(always)]
pub(crate) fn activate(activation: Activation, x: &[f32], y: &mut [f32]) {
    by_activation!(activation, |f| for (y, &x) in y.iter_mut().zip(x) {
        *y = f(x);
    });
}

#[inline(always)]
pub(crate) fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let raised = if x < low { low } else { x };
    if raised > high { high } else { raised }
}

#[inline(always)]
pub(crate) fn leaky_relu(x: f32, slope: f32) -> f32 {
    if x < 0.0 { x * slope } else { x }
}

#[inline(always)]
pub(crate) fn hard_sigmoid(x: f32, slope: f32, offset: f32) -> f32 {
    clamp(x * slope + offset, 0.0, 1.0)
}

#[inline(always)]
pub(crate) fn hard_swish(x: f32) -> f32 {
    x * hard_sigmoid(x, 1.0 / 6.0, 0.5)
}

#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    let s = 1.0 / (1.0 + e);
    if x < 0.0 { e * s } else { s }
}

#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// `exp(x)` for `x` from -87 to 0; below, `exp(-87)`.
///
/// `x = n ln 2 + f` with `|f| <= ln 2 / 2`, and `exp(f) = 1 + f + f^2 q(f)`.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding this to an f32 of magnitude below 2^22 rounds it to an integer, ties to even, in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2, in 12 bits, and the rest.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    const Q: [f32; 6] = [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let x = if x < -87.0 { -87.0 } else { x };
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let f = (-n).mul_add(LN_2[1], (-n).mul_add(LN_2[0], x));
    let q = Q[1..].iter().fold(Q[0], |q, &c| q.mul_add(f, c));
    let small = q.mul_add(f * f, f) + 1.0;
    // 2^n: the low bits of `rounded` are n.
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    small * power
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::available;

    const ALL: [Activation; 8] = [
        Activation::NONE,
        Activation::RELU,
        Activation::Clamp { low: -0.5, high: 1.0 },
        Activation::LeakyRelu { slope: 0.01 },
        Activation::HardSigmoid { slope: 0.2, offset: 0.5 },
        Activation::HardSwish,
        Activation::Sigmoid,
        Activation::Silu,
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
}
