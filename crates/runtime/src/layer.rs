//! From an expanded layer to its packed product.

use std::mem::take;
use std::sync::atomic::AtomicU64;

use fpxint::{
    ActivationClip, Channels, ExpandedLayer, Geometry, Grid, Magnitudes, Precision, Prefix, balanced_limbs,
    balanced_words, limb_count,
};
use fpxint_kernels::{Activation, Clipping, Epilogue, Product, Range, RowGrid, Shape, Weights};

use crate::shared::{self, ChannelShare, Shared};
use crate::{Error, Sharing};

/// Widest weights and activations that run, in effective bits.
const MOST_BITS: u32 = 24;

/// A layer ready to run.
#[derive(Debug)]
pub(crate) struct Layer {
    pub geometry: Geometry,
    pub activations: Precision,
    /// How activations are clipped.
    pub clip: ActivationClip,
    /// All of the layer; its epilogue alone, where the model is shared.
    pub product: Product,
    /// Activations that entered it, and those of them that lay beyond their codes.
    pub entered: [AtomicU64; 2],
    /// Ranges of activations are widened to be symmetric about zero.
    pub symmetric: bool,
    /// This process's part, where the layer is shared.
    pub shared: Option<Shared>,
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
    /// A hash of its weights and bias, where [`crate::Options::fingerprints`] asks for it.
    pub fingerprint: Option<u64>,
}

/// A hash of weights and bias.
pub(crate) fn fingerprint(expanded: &ExpandedLayer) -> u64 {
    /// Those of the hash FNV-1a, here of words.
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x100_0000_01b3;
    let join = |hash: &mut u64, word: u32| *hash = (*hash ^ u64::from(word)).wrapping_mul(PRIME);
    // In lanes, which do not wait for each other.
    let mut lanes = [START; 8];
    for some in expanded.weight.q().chunks(lanes.len()) {
        lanes.iter_mut().zip(some).for_each(|(hash, &q)| join(hash, q as u32));
    }
    let mut hash = START;
    lanes.iter().flat_map(|lane| [*lane as u32, (lane >> 32) as u32]).for_each(|word| join(&mut hash, word));
    let floats = expanded.weight.scales().iter().chain(expanded.bias.iter().flatten());
    floats.for_each(|value| join(&mut hash, value.to_bits()));
    expanded.weight.offsets().iter().for_each(|&offset| join(&mut hash, offset as u32));
    hash
}

/// Packs a layer from the first `terms` terms of its weights (all by default), or what `sharing` leaves this process of it.
pub(crate) fn pack(
    expanded: ExpandedLayer,
    terms: Option<u32>,
    sharing: &Sharing,
) -> Result<(Layer, LayerReport), Error> {
    let whole = expanded.weight.precision();
    let weights = match terms {
        Some(asked) if asked == 0 || asked > whole.order() => {
            return Err(fpxint::Error::Order { tensor: expanded.name, asked, order: whole.order() }.into());
        }
        Some(terms) => whole.with_order(terms)?,
        None => whole,
    };
    for (what, precision) in [("weights", weights), ("activations", expanded.activations)] {
        let bits = precision.total_bits();
        if bits > MOST_BITS {
            return Err(Error::Precision { layer: expanded.name, what, precision, bits });
        }
    }
    let own = shared::terms(&expanded, sharing)?;
    let ExpandedLayer { name, geometry, weight: series, bias, activations, activation_clip } = expanded;
    let clip = activation_clip.of(activations);
    let bits = code_bits(activations, clip);
    let layer = |geometry, product, shared| {
        let entered = Default::default();
        Layer { geometry, activations, clip, product, entered, symmetric: false, shared }
    };
    let report = |name, geometry: &Geometry, weights, width, bytes| {
        let products = ExpandedLayer::products(geometry, width, activations);
        let (geometry, activation_clip) = (geometry.clone(), clip);
        LayerReport { name, geometry, weights, activations, activation_clip, products, bytes, fingerprint: None }
    };
    if let Some(share) = own {
        let product = shared::weightless(&name, &shape_of(&geometry), &share.epilogue, bits)?;
        let (precision, width) = (series.precision(), series.width(series.precision().order()));
        let bytes = share.workers.iter().flatten().map(|part| part.product.bytes()).sum();
        let report = report(name, &geometry, precision, width, bytes);
        return Ok((layer(geometry, product, Some(Shared::Terms(share))), report));
    }
    let order = series.precision().order();
    let prefix = series.into_prefix(&name, terms.unwrap_or(order))?;
    let (precision, width) = (prefix.precision, prefix.width);
    if let Some(share) = shared::channels(&name, &geometry, &prefix, bias.as_deref(), bits, sharing)? {
        let shape = shape_of(&geometry);
        let epilogue = epilogue(&prefix, bias, &shape);
        let product = shared::weightless(&name, &shape, &Epilogue { means: Vec::new(), ..epilogue }, bits)?;
        let bytes = share.own.as_ref().map_or(0, Product::bytes);
        let report = report(name, &geometry, precision, width, bytes);
        return Ok((layer(geometry, product, Some(Shared::Channels(share))), report));
    }
    let product = product_of(&name, &geometry, prefix, bias, bits)?;
    let report = report(name, &geometry, precision, width, product.bytes());
    Ok((layer(geometry, product, None), report))
}

fn epilogue(prefix: &Prefix, bias: Option<Vec<f32>>, shape: &Shape) -> Epilogue {
    Epilogue {
        scales: prefix.units.clone(),
        bias: bias.unwrap_or_else(|| vec![0.0; shape.channels_out]),
        means: if shape.is_depthwise() { Vec::new() } else { prefix.means.clone() },
        shift: prefix.shift,
        activation: Activation::NONE,
    }
}

/// Bits of the integers that enter a layer: those of its codes, and what lies beyond them.
pub(crate) fn code_bits(activations: Precision, clip: ActivationClip) -> u32 {
    activations.total_bits() + if clip == ActivationClip::None { 0 } else { ActivationClip::REACH_BITS }
}

/// Packs a prefix of a layer's weights with its epilogue, for activations of `bits` bits.
pub(crate) fn product_of(
    name: &str,
    geometry: &Geometry,
    mut prefix: Prefix,
    bias: Option<Vec<f32>>,
    bits: u32,
) -> Result<Product, Error> {
    let shape = shape_of(geometry);
    let mut epilogue = epilogue(&prefix, bias, &shape);
    let product = if shape.is_depthwise() {
        // Words are wide enough to carry the mean of dropped terms in the weight itself.
        epilogue.shift = 0;
        let channels = Channels { count: shape.channels_out, inner: shape.depth() };
        let words = balanced_words(&whole(&prefix, channels));
        Product::new(shape, Weights::Depthwise(&words), &epilogue, bits)
    } else {
        let limbs = balanced_limbs(&take(&mut prefix.q), limb_count(prefix.width));
        Product::new(shape, shared::ordered(geometry, &limbs), &epilogue, bits)
    };
    product.map_err(|source| Error::Layer { layer: name.to_owned(), source })
}

/// `2^shift * q + mean`: a prefix with its mean as one integer a weight.
fn whole(prefix: &Prefix, channels: Channels) -> Vec<i64> {
    let mean = |i: usize| prefix.means.get(channels.of(i)).copied().unwrap_or(0);
    prefix.q.iter().enumerate().map(|(i, &q)| (i64::from(q) << prefix.shift) + mean(i)).collect()
}

pub(crate) fn shape_of(geometry: &Geometry) -> Shape {
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
    /// Sets the activation that ends it.
    pub(crate) fn set_activation(&mut self, activation: Activation) {
        self.product.set_activation(activation);
        if let Some(Shared::Channels(ChannelShare { own: Some(own), .. })) = &mut self.shared {
            own.set_activation(activation);
        }
    }

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
