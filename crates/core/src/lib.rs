//! Series expansion of neural networks into low-bit integer basis models (FP=xINT).
//!
//! A tensor `M` becomes `bias * M_nsy + sum_i scale_i * M_i` with integer terms `M_i` of `X` bits and
//! `scale_i = 2^X * scale_{i+1}` (theorem 1). A product of two such tensors becomes a sum of integer products
//! (eq. 3, 4), and the sum over terms can be split over isomorphic basis models whose partial sums form an Abelian
//! group (eq. 5 to 8). This crate is the specification: clear scalar code, no files, no threads, no SIMD.
//!
//! * [`Precision`]: bits per term and number of terms, written `int4x2`.
//! * [`AttentionPrecision`]: how attention computes.
//! * [`Series`]: the expansion of a weight tensor, its bound for every prefix, and its integers.
//! * [`Grid`]: the expansion of activations at run time, one grid per row or image.
//! * [`Saturated`]: the same with what lies beyond a clip, [`ActivationClip`], as a sparse integer part.
//! * [`expand_layer`]: a layer's weights to an [`ExpandedLayer`].
//! * [`Rotation`]: what spreads the large values of rows before they are expanded.
//! * [`Plan`]: precisions layer by layer; [`choose`](choose()) is the planner.
//! * [`Expanded`]: a model as the sum of basis models; [`Partition`]: which of them each worker of a group runs.
//! * [`Reduce`]: where the partial sums of basis models are added, by [`abelian_add`].

#![forbid(unsafe_code)]

mod asymmetry;
mod attention;
mod blocks;
mod error;
pub mod expand;
mod layer;
mod limbs;
mod pack;
mod plan;
mod precision;
mod reduce;
mod rotation;
mod rounding;
mod saturation;
mod series;

pub use attention::AttentionPrecision;
pub use error::Error;
pub use expand::activation::Grid;
pub use expand::clip::Clip;
pub use expand::correction::{Means, expand_corrected};
pub use expand::layer::{ExpandedLayer, Settings, expand_layer, into_expanded};
pub use expand::loss::{LayerFacts, Lost};
pub use expand::model::{
    BasisCodes, BasisLayer, BasisWeight, Expanded, Members, Region, Width, basis_codes, basis_weight, folds, sum_width,
};
pub use expand::partition::{Costs, Partition};
pub use expand::saturate::{ActivationClip, Magnitudes, Saturated};
pub use expand::tensor::{Granularity, Method, expand_tensor, expand_tensor_by};
pub use layer::{ConvGeometry, Geometry, Layer, MatMulGeometry, Padding, Weight};
pub use limbs::{balanced_limbs, balanced_words, limb_count};
pub use pack::{Packed, pack, packed_len, unpack};
pub use plan::{ActivationOption, Goal, LayerOptions, LayerPrecision, Plan, Way, WeightOption, choose};
pub use precision::Precision;
pub use reduce::{Gather, GroupError, Reduce, abelian_add, abelian_mul};
pub use rotation::Rotation;
pub use rounding::Rounding;
pub use series::{Channels, Prefix, Scales, Series};
