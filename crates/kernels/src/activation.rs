//! Activations: functions of one value, at the end of a layer or on their own.
//!
//! ```text
//! Clamp        if x < low {low} else {x}, then if x > high {high}
//! LeakyRelu    if x < 0 {x * slope} else {x}
//! HardSigmoid  x * slope + offset, clamped to [0, 1]
//! HardSwish    x * HardSigmoid(x), slope 1/6, offset 1/2
//! Sigmoid      1 / (1 + e) where x >= 0, else e * (1 / (1 + e));   e = exp(-|x|)
//! Silu         x * Sigmoid(x)
//! Gelu         x * Phi(x), Phi the distribution function of the normal distribution
//! GeluTanh     x * Sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))
//! ```
//!
//! Each is a fixed sequence of IEEE operations, written in [`functions`], so all kernels make the same bits. NaN stays NaN.
//! The relative errors of Sigmoid and Silu are below 2^-22 down to -87; below, where the true values are not normal numbers
//! any more, `exp(-87)` is taken. The errors of Gelu and GeluTanh are below `2^-22 |x|`.

use crate::{Kernel, Range, run};

pub(crate) mod functions;

pub(crate) use functions::*;

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
    /// The value times the normal distribution function of it.
    Gelu,
    /// Its approximation by `tanh`.
    GeluTanh,
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
            a::Activation::Gelu => {
                let $f = a::gelu;
                $run
            }
            a::Activation::GeluTanh => {
                let $f = a::gelu_tanh;
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
            Self::Gelu => "Gelu",
            Self::GeluTanh => "GeluTanh",
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

#[cfg(test)]
mod tests;
