//! `fpxint basis`: one basis model as an ordinary ONNX file.
//!
//! The file of term `i` has the weights `scale_i W_i` in FP32, that of the first term the saturation part and the bias too: so the
//! weights and biases of all files add up to those of the series, exactly where its terms have 16 bits in all or fewer.

use anyhow::{Context, Result, bail, ensure};
use fpxint::{ActivationClip, ExpandedLayer, Granularity, Precision, Settings, into_expanded};
use fpxint_onnx::FloatLayer;
use serde::Serialize;

use super::print_json;
use crate::args::Common;
use crate::group_args::Basis;
use crate::table::bytes;
use crate::{Outcome, engine, planning, progress};

#[derive(Debug, Serialize)]
struct Report {
    weight_term: u32,
    /// Terms of the layer that has most.
    weight_terms: u32,
    layers: usize,
    /// Layers that have no such term: zeros.
    empty: usize,
    bytes: u64,
}

pub(crate) fn run(common: &Common, args: &Basis) -> Result<Outcome> {
    let model = engine::read(common, &args.model)?;
    let file = args.model.display();
    let grid = args.rounding.is_some() || args.clip.is_some() || args.symmetry.is_some();
    if model.is_artefact() && (args.weights.is_some() || grid || args.rotation.is_some()) {
        bail!("{file} is expanded already: its terms are what they are");
    }
    let model = planning::rotated(&model, args.rotation == Some(true), None);
    ensure!(!model.layers().is_empty(), "{file} has no layers to expand");
    let default = Precision::new(4, 2)?;
    let settings = Settings {
        weights: args.weights.unwrap_or(default),
        activations: default,
        granularity: Granularity::Channel,
        rounding: args.rounding.unwrap_or_default(),
        clip: args.clip.unwrap_or_default(),
        asymmetric: args.symmetry.unwrap_or_default(),
        activation_clip: ActivationClip::None,
    };
    let bar = progress::bar(common, "expanding", model.layers().len());
    let (mut layers, mut most, mut empty) = (Vec::new(), 0, 0);
    for index in 0..model.layers().len() {
        let layer = into_expanded(model.layer(index)?, &settings).with_context(|| file.to_string())?;
        let order = layer.weight.precision().order();
        (most, empty) = (most.max(order), empty + usize::from(order < args.weight_term));
        layers.push(basis_layer(layer, args.weight_term));
        bar.inc(1);
    }
    bar.finish_and_clear();
    ensure!(args.weight_term <= most, "{file}: weight term {} asked for, but there are {most}", args.weight_term);
    let written = fpxint_onnx::write_floats(&model, &layers, &args.output)?;
    let report =
        Report { weight_term: args.weight_term, weight_terms: most, layers: layers.len(), empty, bytes: written };
    if common.json {
        print_json(&report)?;
    } else if !common.quiet {
        let output = args.output.display();
        println!("{output}: term {} of {most} of {} layers, {}", args.weight_term, report.layers, bytes(written));
    }
    Ok(Outcome::Done)
}

/// The weights `scale_i W_i` of a layer.
fn basis_layer(layer: ExpandedLayer, term: u32) -> FloatLayer {
    let ExpandedLayer { weight: series, bias, geometry, .. } = layer;
    let bias = bias.map(|bias| if term == 1 { bias } else { vec![0.0; bias.len()] });
    if term > series.precision().order() {
        return FloatLayer { weight: vec![0.0; geometry.weight_shape().iter().product()], bias };
    }
    let mut digits: Vec<i32> = series.term(term).into_iter().map(i32::from).collect();
    if term == 1 {
        series.saturation().into_iter().for_each(|(i, s)| digits[i] += s);
    }
    let scales = series.value_scales(term);
    let mut weight: Vec<f32> = digits.iter().zip(scales).map(|(&digit, scale)| digit as f32 * scale).collect();
    let asymmetry = series.bias();
    if term == 1 && !asymmetry.is_empty() {
        let (channels, last) = (series.channels(), asymmetry.len() - 1);
        weight.iter_mut().enumerate().for_each(|(i, w)| *w += asymmetry[channels.of(i).min(last)]);
    }
    FloatLayer { weight, bias }
}
