//! Exact integer products for expanded layers: GEMM, convolution, depthwise, quantise-and-pack, and the fused epilogue.
//!
//! A layer computes, for every output row `r` and channel `c`,
//!
//! ```text
//! sum(r, c) = sum_k (u[r, k] - zp[r]) * Q[k, c]                  exact, in i32 or i64
//! y(r, c)   = mul_add(sum as f32 * scale_a[r], scale_w[c], bias[c]) (+ residual), clamped
//! ```
//!
//! with unsigned codes `u` and signed integers `Q`, both given as 8-bit limbs. The sum is the exact integer for every input on
//! every [`Kernel`]; the float operations after it are a fixed sequence of IEEE roundings. So all kernels, thread counts and
//! batch splits give the same bits. This crate knows nothing of terms or graphs: it sees limbs, scales and tiles.
//!
//! * [`available`], [`named`], [`select`]: the one list of kernels, and the choice from it (`FPXINT_KERNEL`).
//! * [`Product`]: a layer packed for running: [`Product::partial`], [`Product::finish`], or [`Product::fused`] for both at once.
//! * [`Codes`]: activations quantised into limbs, with their borders.
//! * [`Range`]: what the next layer needs to know of a value.

#[cfg(target_arch = "x86_64")]
mod avx512vnni;
mod bodies;
mod codes;
mod kernel;
mod panels;
mod product;
mod run;
mod scalar;
mod shape;
mod window;

pub use codes::Codes;
pub use kernel::{Kernel, MR, NR, RowGrid, UnknownKernel, available, named, select};
pub use panels::Weights;
pub use product::{Epilogue, Error, Product};
pub use shape::Shape;

/// Smallest and largest value, and whether every value is finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Smallest value, at most 0.
    pub low: f32,
    /// Largest value, at least 0.
    pub high: f32,
    /// Largest bit pattern of an absolute value; from `0x7f80_0000` up something is infinite or NaN.
    pub magnitude: u32,
}

impl Range {
    /// The range of no values: zero alone.
    pub const EMPTY: Range = Range { low: 0.0, high: 0.0, magnitude: 0 };

    /// The range of both.
    pub fn union(self, other: Range) -> Range {
        Range {
            low: if other.low < self.low { other.low } else { self.low },
            high: if other.high > self.high { other.high } else { self.high },
            magnitude: self.magnitude.max(other.magnitude),
        }
    }

    /// Whether every value is finite.
    pub fn is_finite(self) -> bool {
        self.magnitude < 0x7f80_0000
    }
}
