//! From an expanded layer to its packed product.

use std::mem::take;
use std::sync::atomic::AtomicU64;

use fpxint::{
    ActivationClip, Channels, ExpandedLayer, Geometry, Grid, Magnitudes, Members, Precision, Prefix, balanced_limbs,
    balanced_words, basis_weight, limb_count,
};
use fpxint_kernels::{Activation, Clipping, Epilogue, Product, Range, RowGrid, Shape, Weights};

use crate::Error;

/// Widest weights and activations that run, in effective bits.
const MOST_BITS: u32 = 24;

/// A layer ready to run.
#[derive(Debug)]
pub(crate) struct Layer {
    pub geometry: Geometry,
    pub activations: Precision,
    pub clip: ActivationClip,
    pub product: Product,
    /// Activations that entered it, and those of them that lay beyond their codes.
    pub entered: [AtomicU64; 2],
    /// Ranges of activations are widened to be symmetric about zero.
    pub symmetric: bool,
}

/// What a loaded layer is and costs.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerReport {
    /// Name of the node.
    pub name: String,
    /// What it computes.
    pub geometry: Geometry,
    /// Precision of the weights in use.
    pub weights: Precision,
    /// Precision of the activations.
    pub activations: Precision,
    /// How they are clipped.
    pub activation_clip: ActivationClip,
    /// Integer products relative to one 8-bit product.
    pub products: u32,
    /// Bytes of packed weights.
    pub bytes: usize,
}

/// Packs a layer from the first `terms` terms of its weights (all by default), or from those of `members` in the unit of the
/// whole series.
pub(crate) fn pack(
    expanded: ExpandedLayer,
    terms: Option<u32>,
    members: Option<&Members>,
) -> Result<(Layer, LayerReport), Error> {
    let ExpandedLayer { name, geometry, weight: series, bias, activations, activation_clip } = expanded;
    let clip = activation_clip.of(activations);
    let (order, weight_channels) = (series.precision().order(), series.channels());
    let owned = members.map(|members| basis_weight(&name, &series, members)).transpose();
    let mut prefix = series.into_prefix(&name, terms.unwrap_or(order))?;
    if let Some(owned) = owned? {
        prefix.q = owned;
    }
    for (what, precision) in [("weights", prefix.precision), ("activations", activations)] {
        let bits = precision.total_bits();
        if bits > MOST_BITS {
            return Err(Error::Precision { layer: name, what, precision, bits });
        }
    }
    let shape = shape_of(&geometry);
    let channels = geometry.channels_out();
    let depthwise = shape.is_depthwise();
    let mut epilogue = Epilogue {
        scales: prefix.units.clone(),
        bias: bias.unwrap_or_else(|| vec![0.0; channels]),
        means: if depthwise { Vec::new() } else { prefix.means.clone() },
        shift: prefix.shift,
        activation: Activation::NONE,
    };
    let bits = activations.total_bits() + if clip == ActivationClip::None { 0 } else { ActivationClip::REACH_BITS };
    let product = if depthwise {
        // Words are wide enough to carry the mean of dropped terms in the weight itself.
        epilogue.shift = 0;
        let words = balanced_words(&whole(&prefix, weight_channels));
        Product::new(shape, Weights::Depthwise(&words), &epilogue, bits)
    } else {
        let limbs = balanced_limbs(&take(&mut prefix.q), limb_count(prefix.width));
        let weights = match &geometry {
            Geometry::MatMul(g) if !g.transposed => Weights::InputFirst(&limbs),
            _ => Weights::OutputFirst(&limbs),
        };
        Product::new(shape, weights, &epilogue, bits)
    };
    let product = product.map_err(|source| Error::Layer { layer: name.clone(), source })?;
    let report = LayerReport {
        name,
        geometry: geometry.clone(),
        weights: prefix.precision,
        activations,
        activation_clip: clip,
        products: ExpandedLayer::products(&geometry, prefix.width, activations),
        bytes: product.bytes(),
    };
    Ok((Layer { geometry, activations, clip, product, entered: Default::default(), symmetric: false }, report))
}

/// `2^shift * q + mean`: a prefix with its mean as one integer a weight.
fn whole(prefix: &Prefix, channels: Channels) -> Vec<i64> {
    let mean = |i: usize| prefix.means.get(channels.of(i)).copied().unwrap_or(0);
    prefix.q.iter().enumerate().map(|(i, &q)| (i64::from(q) << prefix.shift) + mean(i)).collect()
}

fn shape_of(geometry: &Geometry) -> Shape {
    match geometry {
        Geometry::MatMul(g) => Shape::matmul(g.k, g.n),
        Geometry::Conv(g) => Shape {
            channels_in: g.channels_in,
            channels_out: g.channels_out,
            groups: g.groups,
            kernel: g.kernel,
            strides: g.strides,
            dilations: g.dilations,
        },
    }
}

impl Layer {
    /// The grid of a row or image with this range.
    pub(crate) fn grid(&self, range: Range) -> RowGrid {
        let (mut low, mut high) = if range.is_finite() { (range.low, range.high) } else { (f32::NAN, f32::NAN) };
        if self.symmetric {
            // Of a range that is not finite both are NaN, and stay so.
            high = high.max(-low);
            low = -high;
        }
        row_grid(Grid::new(low, high, self.activations))
    }
}

fn row_grid(Grid { scale, inv, inv_wide, zero_point, code_max }: Grid) -> RowGrid {
    RowGrid { scale, inv, inv_wide, zero_point, code_max }
}

impl Clipping for Layer {
    fn grid(&self, range: Range) -> RowGrid {
        Layer::grid(self, range)
    }

    fn unit(&self, range: Range) -> f32 {
        ActivationClip::unit(range.low, range.high)
    }

    fn clipped(&self, range: Range, sum: u64, count: usize, attempt: u32) -> Option<RowGrid> {
        let magnitudes = Magnitudes { low: range.low, high: range.high, sum, count };
        self.clip.grid(&magnitudes, self.activations, attempt).map(row_grid)
    }

    fn most(&self, count: usize) -> usize {
        ActivationClip::most(count)
    }
}
