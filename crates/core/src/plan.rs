//! Precisions layer by layer: what a plan is; how one is chosen is in [`choose()`].

mod choose;
mod knapsack;

use std::collections::BTreeMap;

pub use choose::{ActivationOption, Goal, LayerOptions, Way, WeightOption, choose};

use crate::{ActivationClip, Clip, Precision, Rounding, Settings};

/// Precisions of one layer, and how its weights reach theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerPrecision {
    /// Of its weights.
    pub weights: Precision,
    /// Of the activations that enter it.
    pub activations: Precision,
    /// How its weights become integers.
    pub rounding: Rounding,
    /// Which of its weights lie beyond the terms.
    pub clip: Clip,
    /// Whether its weights have a bias a channel beside the terms.
    pub asymmetric: bool,
    /// How the activations are clipped.
    pub activation_clip: ActivationClip,
}

impl LayerPrecision {
    /// Precisions of a layer whose weights are symmetric and rounded to the nearest, nothing of it clipped.
    pub fn plain(weights: Precision, activations: Precision) -> Self {
        let (rounding, clip, activation_clip) = (Rounding::Nearest, Clip::None, ActivationClip::None);
        Self { weights, activations, rounding, clip, asymmetric: false, activation_clip }
    }
}

/// The precisions of every layer of a model, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Of layers that are not listed.
    pub default: LayerPrecision,
    /// Of those that are.
    pub layers: BTreeMap<String, LayerPrecision>,
    /// Whether biases are corrected by the means of what enters the layers ([`crate::Means`]).
    pub corrected: bool,
    /// Whether what enters matrix products is rotated ([`crate::Rotation`]): the model that the plan is for is then one whose inputs
    /// and weights are.
    pub rotated: bool,
}

impl Plan {
    /// The precisions of a layer.
    pub fn of(&self, layer: &str) -> LayerPrecision {
        self.layers.get(layer).copied().unwrap_or(self.default)
    }

    /// The settings of a layer: what the plan says of it, and everything else as in `base`.
    pub fn settings(&self, layer: &str, base: Settings) -> Settings {
        let LayerPrecision { weights, activations, rounding, clip, asymmetric, activation_clip } = self.of(layer);
        Settings { weights, activations, rounding, clip, asymmetric, activation_clip, ..base }
    }

    /// The first layer it lists that is not among `names`.
    pub fn unknown<'a>(&'a self, names: &[&str]) -> Option<&'a str> {
        self.layers.keys().map(String::as_str).find(|layer| !names.contains(layer))
    }
}

#[cfg(test)]
mod tests;
