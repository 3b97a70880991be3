//! Exact integer products for expanded layers: GEMM, convolution, depthwise, quantise-and-pack, and the fused epilogue.
//!
//! A layer computes, for every output row `r` and channel `c`,
//!
//! ```text
//! sum(r, c) = sum_k (u[r, k] - zp[r]) * Q[k, c]                  exact, in i32 or i64
//! y(r, c)   = mul_add(sum as f32 * scale_a[r], scale_w[c], bias[c]) (+ residual), activated
//! ```
//!
//! with unsigned codes `u` and signed integers `Q`, both given as 8-bit limbs. The sum is the exact integer for every input on
//! every [`Kernel`]; the float operations after it are a fixed sequence of IEEE roundings. So all kernels, thread counts and
//! batch splits give the same bits. This crate knows nothing of terms or graphs: it sees limbs, scales and tiles.
//!
//! * [`available`], [`named`], [`select`]: the one list of kernels, and the choice from it (`FPXINT_KERNEL`).
//! * [`Product`]: a layer packed for running: [`Product::partial`], [`Product::finish`], or [`Product::fused`] for both at once.
//! * [`Share`]: the part of the codes that a member of a group multiplies, [`Product::partial_of`].
//! * [`Codes`]: activations quantised into limbs, with their borders.
//! * [`Clipping`]: the rule by which they are clipped, what lies beyond being sparse integers that products include.
//! * [`Range`]: what the next layer needs to know of a value.
//! * [`Activation`]: the functions of one value that end a layer, or stand alone.
//! * [`Attention`], [`Norm`], [`softmax`] and [`sum`]: float operators of encoders, each sum in an order that no vector shows in.
//! * [`Rotation`]: of rows, before they are quantised.
//! * [`with_default_floats`]: the floating-point environment, whatever the host has made of it.
//! * [`Pool`] and [`global_average`]: pools between layers, with a fixed order of roundings.

mod activation;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
mod beyond;
mod bodies;
mod buffer;
mod codes;
mod environment;
mod kernel;
mod lanes;
mod normalise;
mod panels;
mod peak;
mod pool;
mod product;
mod range;
mod rotation;
mod run;
mod scalar;
mod shape;
mod softmax;
mod window;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use activation::Activation;
pub use attention::{Attention, Extent, Mask, Operands, Rows, Workspace};
pub use beyond::{Beyond, Clipping};
pub use buffer::Buffer;
pub use codes::Codes;
pub use environment::with_default_floats;
pub use kernel::{Kernel, MR, NR, RowGrid, UnknownKernel, available, named, select};
pub use normalise::Norm;
pub use panels::Weights;
pub use peak::peak;
pub use pool::{Pool, Pooling, global_average};
pub use product::{Epilogue, Error, Product, Residual, Room, Share};
pub use range::Range;
pub use rotation::Rotation;
pub use shape::Shape;
pub use softmax::{add, softmax, sum};
