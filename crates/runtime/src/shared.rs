//! A layer's part of a model that is shared over workers: packing it.

use std::ops::Range;

use fpxint::{
    ActivationClip, BasisWeight, ExpandedLayer, Geometry, LayerFacts, Lost, Members, Partition, Precision, Prefix,
    Width, balanced_limbs, balanced_words, basis_codes, basis_weight, folds, limb_count, sum_width,
};
use fpxint_kernels::{Activation, Epilogue, NR, Product, Shape, Share, Weights};

use crate::layer::{code_bits, product_of, shape_of};
use crate::{Error, Sharing};

/// What a layer has beside its epilogue where a model is shared.
#[derive(Debug)]
pub(crate) enum Shared {
    /// Members of basis models.
    Terms(TermShare),
    /// Some output channels.
    Channels(ChannelShare),
}

/// A product of members.
#[derive(Debug)]
pub(crate) struct Part {
    pub members: Members,
    pub product: Product,
    pub share: Share,
    /// What stands for it when it is lost, where that is allowed.
    pub lost: Option<Lost>,
}

/// A layer's members.
#[derive(Debug)]
pub(crate) struct TermShare {
    /// The products of every worker of this process.
    pub workers: Vec<Vec<Part>>,
    pub width: Width,
    pub facts: LayerFacts,
    pub epilogue: Epilogue,
    pub activations: Precision,
    pub clip: ActivationClip,
    /// Bits of the weights beside their sign, as limbs.
    pub weight_bits: u32,
}

/// A layer's output channels.
#[derive(Debug)]
pub(crate) struct ChannelShare {
    /// Where every worker's channels begin, and the end.
    pub bounds: Vec<usize>,
    pub worker: usize,
    /// `None` for a worker without channels.
    pub own: Option<Product>,
}

/// Packs the members of a layer that the workers of this process have.
pub(crate) fn terms(expanded: &ExpandedLayer, sharing: &Sharing) -> Result<Option<TermShare>, Error> {
    let (partition, own, allow_missing): (&Partition, Option<usize>, bool) = match sharing {
        Sharing::Terms { partition, worker, .. } => (partition, Some(*worker), false),
        Sharing::Crew(crew) => (&crew.partition, None, crew.allow_missing),
        Sharing::Alone | Sharing::Channels { .. } => return Ok(None),
    };
    let ExpandedLayer { name, geometry, weight: series, bias, activations, activation_clip } = expanded;
    let clip = activation_clip.of(*activations);
    let bits = code_bits(*activations, clip);
    let shape = shape_of(geometry);
    let (order, channels) = (series.precision().order(), geometry.channels_out());
    let shared = partition.of(series.precision(), *activations, shape.is_depthwise());
    let cuts = folds(shared.iter().flatten());
    let part = |members: &Members| {
        let index = cuts.iter().position(|fold| *fold == members.weights).unwrap_or(cuts.len());
        let weight = basis_weight(name, series, &cuts, index)?;
        let codes = basis_codes(name, *activations, &members.activations)?;
        let lost = allow_missing.then(|| {
            let (sums, magnitudes) = weight.channel_sums(series.channels());
            Lost { codes, sums, magnitudes }
        });
        let product = product(name, geometry, &shape, weight, bits)?;
        let share = Share { mask: codes.mask, offset: codes.offset, owner: codes.owner };
        Ok(Part { members: members.clone(), product, share, lost })
    };
    let condensed = |mut part: Part| {
        // Workers of one process have all the terms between them: there is nothing to gain.
        if own.is_some() {
            part.product.condense();
        }
        part
    };
    let workers = shared.iter().enumerate().filter(|(worker, _)| own.is_none_or(|own| own == *worker));
    let workers = workers.map(|(_, run)| run.iter().map(|members| part(members).map(condensed)).collect());
    let prefix_units = series.prefix(name, order)?.units;
    let width = series.width(order);
    let limb = if shape.is_depthwise() { 16 } else { 8 };
    let weight_bits = width.next_multiple_of(limb) - 1;
    let fits = Product::check(&shape, weight_bits, 0, bits);
    fits.map_err(|source| Error::Layer { layer: name.clone(), source })?;
    Ok(Some(TermShare {
        workers: workers.collect::<Result<_, Error>>()?,
        width: sum_width(series, *activations, clip),
        facts: LayerFacts::of(series, geometry.depth()),
        epilogue: Epilogue {
            scales: prefix_units,
            bias: bias.clone().unwrap_or_else(|| vec![0.0; channels]),
            means: Vec::new(),
            shift: 0,
            activation: Activation::NONE,
        },
        activations: *activations,
        clip,
        weight_bits,
    }))
}

/// The product of some members: sums alone.
fn product(name: &str, geometry: &Geometry, shape: &Shape, weight: BasisWeight, bits: u32) -> Result<Product, Error> {
    let channels = shape.channels_out;
    let mut epilogue = Epilogue {
        scales: vec![0.0; channels],
        bias: vec![0.0; channels],
        means: weight.offsets.clone(),
        shift: weight.shift,
        activation: Activation::NONE,
    };
    let product = if shape.is_depthwise() {
        let mut whole: Vec<i64> = weight.q.iter().map(|&q| i64::from(q)).collect();
        if !weight.offsets.is_empty() {
            // Every channel has a window of its own, so the bias is part of the weight.
            let each = weight.q.iter().enumerate();
            whole = each.map(|(i, &q)| weight.whole(i / shape.depth(), q)).collect();
            (epilogue.means, epilogue.shift) = (Vec::new(), 0);
        }
        Product::new(shape.clone(), Weights::Depthwise(&balanced_words(&whole)), &epilogue, bits)
    } else {
        let limbs = balanced_limbs(&weight.q, limb_count(weight.width));
        Product::new(shape.clone(), ordered(geometry, &limbs), &epilogue, bits)
    };
    product.map_err(|source| Error::Layer { layer: name.to_owned(), source })
}

/// Limbs in the order in which a layer stores its weights.
pub(crate) fn ordered<'a>(geometry: &Geometry, limbs: &'a [Vec<i8>]) -> Weights<'a> {
    match geometry {
        Geometry::MatMul(g) if !g.transposed => Weights::InputFirst(limbs),
        _ => Weights::OutputFirst(limbs),
    }
}

/// A product without weights: its epilogue, and the sums of its means; for activations of `bits` bits.
pub(crate) fn weightless(name: &str, shape: &Shape, epilogue: &Epilogue, bits: u32) -> Result<Product, Error> {
    let weights = if shape.is_depthwise() { Weights::Depthwise(&[]) } else { Weights::OutputFirst(&[]) };
    let product = Product::new(shape.clone(), weights, epilogue, bits);
    product.map_err(|source| Error::Layer { layer: name.to_owned(), source })
}

/// Packs the output channels of a worker; `None` for a layer that every worker runs: one with groups of channels.
pub(crate) fn channels(
    name: &str,
    geometry: &Geometry,
    prefix: &Prefix,
    bias: Option<&[f32]>,
    bits: u32,
    sharing: &Sharing,
) -> Result<Option<ChannelShare>, Error> {
    let Sharing::Channels { worker, workers, .. } = *sharing else { return Ok(None) };
    if matches!(geometry, Geometry::Conv(g) if g.groups > 1) || workers == 1 {
        return Ok(None);
    }
    let bounds = channel_bounds(geometry.channels_out(), workers);
    let range = bounds[worker]..bounds[worker + 1];
    let own = if range.is_empty() {
        None
    } else {
        let (geometry, prefix) = (with_channels(geometry, range.len()), some_channels(geometry, prefix, &range));
        let bias = bias.map(|bias| bias[range].to_vec());
        Some(product_of(name, &geometry, prefix, bias, bits)?)
    };
    Ok(Some(ChannelShare { bounds, worker, own }))
}

/// Where the channels of every worker begin, and the end: whole panels of the kernels where there are enough.
fn channel_bounds(channels: usize, workers: usize) -> Vec<usize> {
    let unit = if channels >= NR * workers { NR } else { 1 };
    let units = channels.div_ceil(unit);
    (0..=workers).map(|worker| (units * worker / workers * unit).min(channels)).collect()
}

fn with_channels(geometry: &Geometry, count: usize) -> Geometry {
    let mut geometry = geometry.clone();
    match &mut geometry {
        Geometry::Conv(g) => g.channels_out = count,
        Geometry::MatMul(g) => g.n = count,
    }
    geometry
}

/// The output channels `range` of a prefix.
fn some_channels(geometry: &Geometry, prefix: &Prefix, range: &Range<usize>) -> Prefix {
    let depth = geometry.depth();
    let q = match geometry {
        Geometry::MatMul(g) if !g.transposed => {
            prefix.q.chunks_exact(g.n).flat_map(|row| &row[range.clone()]).copied().collect()
        }
        _ => prefix.q[range.start * depth..range.end * depth].to_vec(),
    };
    let means = if prefix.means.is_empty() { Vec::new() } else { prefix.means[range.clone()].to_vec() };
    Prefix { q, units: prefix.units[range.clone()].to_vec(), means, ..*prefix }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_has_one_worker() {
        for channels in [1, 3, 31, 64, 65, 96, 100, 1000] {
            for workers in [1, 2, 3, 4, 8] {
                let bounds = channel_bounds(channels, workers);
                assert_eq!((bounds.len(), bounds[0], bounds[workers]), (workers + 1, 0, channels));
                let widths: Vec<_> = bounds.windows(2).map(|b| b[1] - b[0]).collect();
                assert!(widths.iter().max().unwrap() - widths.iter().min().unwrap() <= NR, "{channels} {widths:?}");
            }
        }
    }
}
