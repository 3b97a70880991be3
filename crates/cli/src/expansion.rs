//! Layers expanded to be told of, one at a time: what `quantize` and `inspect` say alike.

use anyhow::Result;
use fpxint::{Clip, ExpandedLayer, Means, Rotation, Settings, Weight, expand_corrected};
use serde::Serialize;

/// What is told of an expanded layer.
#[derive(Debug, Serialize)]
pub(crate) struct LayerReport {
    pub name: String,
    pub op: &'static str,
    pub weights: String,
    pub activations: String,
    /// Largest error the series can have anywhere in the layer.
    pub bound: f64,
    /// Largest error it has; `null` where the float weights are gone.
    pub max_error: Option<f64>,
    /// Effective bits of a weight and of an activation.
    pub weight_bits: u32,
    pub activation_bits: u32,
    /// Share of weights in the saturation part.
    pub sparse_fraction: f64,
    /// Whether some channel has a bias beside its terms.
    pub asymmetric: bool,
    /// Values of a block of what enters it rotated; `null` where nothing is.
    pub rotation: Option<usize>,
    /// Why nothing was clipped, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unclipped: Option<&'static str>,
    /// Integer products relative to one 8-bit product.
    pub products: u32,
    /// Bits of a weight in the mean, the saturation part's counted in.
    #[serde(skip)]
    pub mean_bits: f64,
    /// Expected relative error of the layer's output, and the largest it can be for any input relative to `|w|_1 max|a|`; of
    /// layers that were planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_error: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certified_error: Option<f64>,
    /// What it is expected to add to the relative variance of the model's outputs, where it was planned.
    #[serde(skip)]
    pub added: Option<f64>,
    #[serde(skip)]
    pub depthwise: bool,
    /// Multiply-accumulates for one sample.
    pub macs: u64,
}

/// A line that counts the layers with asymmetric weights, where there are any.
pub(crate) fn asymmetric(layers: impl Iterator<Item = bool>) -> Option<String> {
    let count = layers.filter(|&asymmetric| asymmetric).count();
    (count > 0).then(|| format!("weights are asymmetric in {count} layers: a bias a channel beside their terms"))
}

/// A line that counts the layers whose input is rotated, where there are any.
pub(crate) fn rotated(layers: impl Iterator<Item = Option<usize>>) -> Option<String> {
    let blocks: Vec<usize> = layers.flatten().collect();
    let (count, least, most) = (blocks.len(), blocks.iter().min()?, blocks.iter().max()?);
    let sizes = if least == most { most.to_string() } else { format!("{least} to {most}") };
    Some(format!("what enters {count} layers is rotated, in blocks of {sizes} values"))
}

/// A node with constant weights that stays in FP32.
#[derive(Debug, Serialize)]
pub(crate) struct Skipped {
    pub name: String,
    pub reason: String,
}

/// Nodes of a model that stay in FP32.
pub(crate) fn skipped(model: &fpxint_onnx::Model) -> Vec<Skipped> {
    model.skipped().iter().map(|s| Skipped { name: s.name.clone(), reason: s.reason.clone() }).collect()
}

/// An expanded layer beside the weights that it was made from.
#[derive(Debug)]
pub(crate) struct Examined {
    pub layer: ExpandedLayer,
    /// The float weights; `None` where the file holds the series itself.
    floats: Option<Vec<f32>>,
    op: &'static str,
    rotation: Option<Rotation>,
    unclipped: Option<&'static str>,
}

/// Why a layer of which nothing lies beyond the terms is not clipped, where it was asked for.
fn unclipped(settings: &Settings) -> Option<&'static str> {
    let asked = settings.clip != Clip::None;
    let reason = settings.clip.obstacle(settings.weights, settings.granularity);
    asked.then(|| reason.unwrap_or("no clip lowers its error"))
}

impl Examined {
    /// Expands layer `index` of a model, its bias corrected by the means of what enters it, if any.
    pub(crate) fn expand(
        model: &fpxint_onnx::Model,
        index: usize,
        settings: &Settings,
        means: Option<&Means>,
    ) -> Result<Self> {
        let layer = model.layer(index)?;
        let expanded = expand_corrected(&layer, settings, means)?;
        let floats = match layer.weight {
            Weight::Float(values) => Some(values),
            Weight::Series(_) => None,
        };
        let unclipped = floats.as_ref().and_then(|_| unclipped(settings));
        let info = &model.layers()[index];
        Ok(Self { layer: expanded, floats, op: info.op_type, rotation: info.rotation, unclipped })
    }

    /// Number of terms.
    pub(crate) fn order(&self) -> u32 {
        self.layer.weight.precision().order()
    }

    /// Largest error of the first `terms` terms, where the float weights are there.
    pub(crate) fn max_error(&self, terms: u32) -> Result<Option<f64>> {
        let Some(floats) = &self.floats else { return Ok(None) };
        Ok(Some(self.layer.weight.measured_error(&self.layer.name, floats, terms)?.0))
    }

    /// How the errors of the weights spread over their bounds: the share of them in each of `bins` equal parts of `-1 ..= 1`, in
    /// units of their channel's bound; `None` where the float weights are gone.
    pub(crate) fn histogram(&self, bins: usize) -> Result<Option<Vec<f64>>> {
        let Some(floats) = &self.floats else { return Ok(None) };
        let (series, order) = (&self.layer.weight, self.order());
        let channels = series.channels();
        let bounds: Vec<f64> = (0..channels.count).map(|channel| series.bound(order, channel)).collect();
        let mut counts = vec![0u64; bins];
        for (i, (value, &float)) in series.values(&self.layer.name, order)?.zip(floats).enumerate() {
            let share = (value - f64::from(float)) / bounds[channels.of(i)];
            let bin = ((share + 1.0) / 2.0 * bins as f64).floor();
            counts[bin.clamp(0.0, bins as f64 - 1.0) as usize] += 1;
        }
        Ok(Some(counts.into_iter().map(|count| count as f64 / floats.len() as f64).collect()))
    }

    /// What is told of the layer, which has this many multiply-accumulates for one sample.
    pub(crate) fn report(&self, macs: u64) -> Result<LayerReport> {
        let (layer, precision) = (&self.layer, self.layer.weight.precision());
        let sparse_fraction = layer.weight.saturation().len() as f64 / layer.weight.q().len() as f64;
        Ok(LayerReport {
            name: layer.name.clone(),
            op: self.op,
            weights: precision.to_string(),
            activations: layer.activations.to_string(),
            bound: layer.weight.worst_bound(self.order()),
            max_error: self.max_error(self.order())?,
            weight_bits: precision.total_bits(),
            activation_bits: layer.activations.total_bits(),
            sparse_fraction,
            asymmetric: !layer.weight.offsets().is_empty(),
            rotation: self.rotation.map(Rotation::block),
            unclipped: self.unclipped.filter(|_| sparse_fraction == 0.0),
            products: ExpandedLayer::products(&layer.geometry, layer.weight.width(self.order()), layer.activations),
            mean_bits: layer.weight.mean_bits(),
            expected_error: None,
            certified_error: None,
            added: None,
            depthwise: layer.geometry.is_depthwise(),
            macs,
        })
    }
}
