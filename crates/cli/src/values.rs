//! Values of flags by their names.

use fpxint::{ActivationClip, Clip, Granularity, Rounding};

/// A rule of rounding.
pub(crate) fn rounding(text: &str) -> Result<Rounding, String> {
    Rounding::named(text).ok_or_else(|| "is not nearest or sum".to_owned())
}

/// A clip of weights.
pub(crate) fn clip(text: &str) -> Result<Clip, String> {
    Clip::named(text).ok_or_else(|| "is not none, laplace or mse".to_owned())
}

/// Whether weights are asymmetric.
pub(crate) fn symmetry(text: &str) -> Result<bool, String> {
    match text {
        "symmetric" => Ok(false),
        "asymmetric" => Ok(true),
        _ => Err("is not symmetric or asymmetric".to_owned()),
    }
}

/// Whether biases are corrected.
pub(crate) fn correction(text: &str) -> Result<bool, String> {
    match text {
        "none" => Ok(false),
        "synthetic" => Ok(true),
        _ => Err("is not none or synthetic".to_owned()),
    }
}

/// Whether what enters matrix products is rotated.
pub(crate) fn rotation(text: &str) -> Result<bool, String> {
    match text {
        "none" => Ok(false),
        "hadamard" => Ok(true),
        _ => Err("is not none or hadamard".to_owned()),
    }
}

/// A clip of activations.
pub(crate) fn activation_clip(text: &str) -> Result<ActivationClip, String> {
    ActivationClip::named(text).ok_or_else(|| "is not none or laplace".to_owned())
}

/// Which weights share a scale.
pub(crate) fn granularity(text: &str) -> Result<Granularity, String> {
    match text {
        "channel" => Ok(Granularity::Channel),
        "tensor" => Ok(Granularity::Tensor),
        _ => {
            let size = text.strip_prefix("group:").and_then(|size| size.parse().ok()).filter(|&size| size > 0);
            size.map(Granularity::Group).ok_or_else(|| "is not channel, tensor or group:G, G inputs a group".to_owned())
        }
    }
}
