//! Layer expansion (eq. 3, 4): `W A = sum_ij scale_wi scale_aj W_i A_j`.
//!
//! With `scale_wi = 2^(X (n-i)) scale_wn` and `scale_aj = 2^(Y (m-j)) scale_am` the double sum is one integer times two
//! scales, `scale_wn scale_am * sum_ij 2^(X(n-i) + Y(m-j)) W_i A_j`, which is why its terms fold into limbs. The weights are
//! expanded here, ahead of time; the activations at run time, on the grid of [`super::activation`].

use crate::expand::clip::Clip;
use crate::expand::saturate::ActivationClip;
use crate::expand::tensor::{Granularity, Method, expand_tensor_by};
use crate::{Error, Geometry, Layer, Precision, Rounding, Series, Weight};

/// How to expand a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Precision of the weights.
    pub weights: Precision,
    /// Precision of the activations.
    pub activations: Precision,
    /// Which weights share a scale.
    pub granularity: Granularity,
    /// How weights become integers.
    pub rounding: Rounding,
    /// Which weights lie beyond the terms.
    pub clip: Clip,
    /// Whether weights have a bias a channel beside the terms.
    pub asymmetric: bool,
    /// Which activations lie beyond their codes.
    pub activation_clip: ActivationClip,
}

/// A layer whose weights are a series.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpandedLayer {
    /// Name of the node.
    pub name: String,
    /// What it computes.
    pub geometry: Geometry,
    /// Its weights.
    pub weight: Series,
    /// One f32 an output channel.
    pub bias: Option<Vec<f32>>,
    /// Precision of the activations that enter it.
    pub activations: Precision,
    /// How they are clipped.
    pub activation_clip: ActivationClip,
}

/// Expands the weights of a layer; a layer that already is a series keeps its integers and takes only the activations'
/// precision and clip from `settings`.
///
/// # Errors
/// Those of [`expand_tensor_by`], and [`Error::NonFinite`] for a bias, naming the layer.
pub fn expand_layer(layer: &Layer, settings: &Settings) -> Result<ExpandedLayer, Error> {
    check_bias(layer)?;
    let weight = match &layer.weight {
        Weight::Series(series) => series.clone(),
        Weight::Float(values) => expand_weight(&layer.name, values, &layer.geometry, settings)?,
    };
    Ok(ExpandedLayer {
        name: layer.name.clone(),
        geometry: layer.geometry.clone(),
        weight,
        bias: layer.bias.clone(),
        activations: settings.activations,
        activation_clip: settings.activation_clip,
    })
}

/// [`expand_layer`] of a layer that is not needed any more: a series is moved.
///
/// # Errors
/// As [`expand_layer`].
pub fn into_expanded(layer: Layer, settings: &Settings) -> Result<ExpandedLayer, Error> {
    check_bias(&layer)?;
    let Layer { name, geometry, weight, bias } = layer;
    let weight = match weight {
        Weight::Series(series) => series,
        Weight::Float(values) => expand_weight(&name, &values, &geometry, settings)?,
    };
    let Settings { activations, activation_clip, .. } = *settings;
    Ok(ExpandedLayer { name, geometry, weight, bias, activations, activation_clip })
}

fn expand_weight(name: &str, values: &[f32], geometry: &Geometry, settings: &Settings) -> Result<Series, Error> {
    let (shape, axis) = (geometry.weight_shape(), geometry.channel_axis());
    let Settings { weights: precision, granularity, rounding, clip, asymmetric, .. } = *settings;
    expand_tensor_by(name, values, &shape, axis, &Method { precision, granularity, rounding, clip, asymmetric })
}

fn check_bias(layer: &Layer) -> Result<(), Error> {
    let bias = layer.bias.iter().flatten().enumerate();
    match bias.into_iter().find(|(_, bias)| !bias.is_finite()) {
        Some((index, &value)) => Err(Error::NonFinite { tensor: format!("{}.bias", layer.name), index, value }),
        None => Ok(()),
    }
}

impl ExpandedLayer {
    /// Integer-product cost relative to one 8-bit product: limbs of weights of `width` bits ([`Series::width`]) times limbs of
    /// the activations. Depthwise layers multiply 16-bit weights at the cost of 8-bit ones.
    pub fn products(geometry: &Geometry, width: u32, activations: Precision) -> u32 {
        let limb = if geometry.is_depthwise() { 16 } else { 8 };
        width.div_ceil(limb) * activations.total_bits().div_ceil(8)
    }
}

#[cfg(test)]
mod tests;
