//! From an FP32 model to its artefact, one layer at a time, and what is told of it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use fpxint::{Means, Precision, Settings};
use fpxint_onnx::EncodedLayer;
use fpxint_runtime::Port;
use rayon::prelude::*;
use serde::Serialize;

use crate::args::{Common, Quantize};
use crate::expansion::{Examined, LayerReport, Skipped, asymmetric, rotated, skipped};
use crate::metrics::weighted_mean;
use crate::planning::{self, DEFAULT_GOAL, Planned, Request};
use crate::progress;
use crate::remarks::{by_operator, warnings};
use crate::table::{Table, bytes};

/// What was made of a model. It serialises to what the command prints as JSON, and displays as its table.
#[derive(Debug, Serialize)]
pub struct Report {
    seconds: f64,
    bytes_in: u64,
    bytes_out: u64,
    /// Integer-product multiply-accumulates relative to one 8-bit product everywhere.
    products: f64,
    mean_weight_bits: f64,
    /// Expected `|y' - y|_2 / |y|_2` of the model's outputs on the synthetic inputs of the planner; where it made a plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_error: Option<f64>,
    opset: i64,
    storage: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// The file of large tensors, where the model did not fit one file.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<PathBuf>,
    layers: Vec<LayerReport>,
    skipped: Vec<Skipped>,
    /// What to look at, one line a cause with its remedy.
    warnings: Vec<String>,
    /// The file written, if one was.
    #[serde(skip)]
    output: Option<PathBuf>,
}

/// Expands a model in FP32 that was read, or is called, `args.model`, with the threads of the current pool, and writes it where
/// `args` says.
///
/// # Errors
/// Those of the crates below, with the model's name; a model, pattern or place that does not do.
pub fn quantize(common: &Common, args: &Quantize, mut model: fpxint_onnx::Model) -> Result<Report> {
    let start = Instant::now();
    check(args, &model)?;
    let chosen = chosen(&model, args)?;
    let (base, planned) = precisions(common, args, &model, &chosen)?;
    if planning::rotates(&args.method, planned.as_ref()) {
        model = model.rotated(Some(&chosen));
    }
    let means = match &planned {
        Some(planned) => planned.means.clone(),
        None => planning::means(common, &model, args.method.bias_correction == Some(true))?,
    };
    let survey = fpxint_runtime::survey(&model).with_context(|| args.model.display().to_string())?;
    let settings = |index: usize| match &planned {
        Some(planned) => planned.plan.settings(&model.layers()[index].name, base),
        None => base,
    };
    let bar = progress::bar(common, "expanding", chosen.len());
    let held = AtomicU64::new(0);
    let expand = |&index: &usize| {
        let settings = settings(index);
        let of_layer = means.as_ref().and_then(|means| means.get(index));
        let (mut layer, mut report) = expand(&model, index, &settings, of_layer, survey.macs[index])?;
        if let Some(way) = planned.as_ref().and_then(|planned| planned.way(index)) {
            (report.expected_error, report.certified_error) = (Some(way.error), Some(way.certified));
            report.added = Some(way.added);
        }
        if held.fetch_add(layer.bytes(), Ordering::Relaxed) + layer.bytes() > MOST_HELD {
            layer.drop_terms(settings);
        }
        bar.inc(1);
        Ok((layer, report))
    };
    let expanded: Vec<Result<_>> = chosen.par_iter().with_max_len(1).map(expand).collect();
    let expanded: Result<Vec<_>> = expanded.into_iter().collect();
    bar.finish_and_clear();
    let (layers, reports): (Vec<EncodedLayer>, Vec<LayerReport>) =
        expanded.with_context(|| args.model.display().to_string())?.into_iter().unzip();
    let open = |size: Option<usize>| size.map(|s| s as u64);
    let shape = |port: Port| (port.name, port.shape.into_iter().map(open).collect());
    model.state_output_shapes(&survey.outputs.into_iter().map(shape).collect::<Vec<_>>());
    if let Some(attention) = args.attention {
        model.state_attention(attention);
    }
    let written = match &args.output {
        Some(output) if !args.dry_run => fpxint_onnx::write(&model, &layers, output)?,
        output => fpxint_onnx::preview(&model, &layers, output.as_deref().unwrap_or(Path::new("model.onnx")))?,
    };
    let mut warned = warnings(&reports.iter().collect::<Vec<_>>(), &by_operator(survey.left_to_tract));
    if args.method.rotation == Some(true) && reports.iter().all(|layer| layer.rotation.is_none()) {
        warned.push(NOTHING_ROTATED.to_owned());
    }
    let products = reports.iter().map(|layer| (f64::from(layer.products), layer.macs as f64));
    let is_chosen = |index: usize| chosen.binary_search(&index).is_ok();
    let bits = |index: usize| {
        let place = chosen.binary_search(&index).ok();
        place.map_or(32.0, |place| reports[place].mean_bits)
    };
    let bits = model.layers().iter().enumerate().map(|(index, layer)| (bits(index), layer.elements as f64));
    let excluded = model.layers().iter().enumerate().filter(|&(index, _)| !is_chosen(index));
    let excluded = excluded.map(|(_, layer)| Skipped { name: layer.name.clone(), reason: "excluded".to_owned() });
    Ok(Report {
        seconds: start.elapsed().as_secs_f64(),
        bytes_in: model.file_bytes(),
        bytes_out: written.bytes,
        products: weighted_mean(products),
        mean_weight_bits: weighted_mean(bits),
        expected_error: planned.as_ref().and_then(Planned::expected),
        opset: written.opset,
        storage: written.storage,
        note: written.note,
        data: written.data.filter(|_| !args.dry_run),
        warnings: warned,
        layers: reports,
        skipped: skipped(&model).into_iter().chain(excluded).collect(),
        output: args.output.clone().filter(|_| !args.dry_run),
    })
}

/// Where the flag changes nothing.
const NOTHING_ROTATED: &str = "--rotation hadamard has nothing to rotate: no matrix product that is expanded has a depth that 16 divides; \
                               leave it out";

/// Whether the model can be expanded and its artefact has a place.
fn check(args: &Quantize, model: &fpxint_onnx::Model) -> Result<()> {
    if model.is_artefact() {
        bail!("{}: is expanded already; give fpxint the FP32 model it was made from", args.model.display());
    }
    if model.layers().is_empty() {
        bail!(
            "{}: holds no Conv, Gemm or MatMul with constant weights, so there is nothing to expand",
            args.model.display()
        );
    }
    if let Some(output) = &args.output
        && std::fs::metadata(output).is_ok_and(|existing| !existing.is_file())
    {
        bail!("{}: is there already and is not a file, so it is not replaced", output.display());
    }
    Ok(())
}

/// The settings of every layer but for what a plan says of it, and the plan unless a precision was given.
fn precisions(
    common: &Common,
    args: &Quantize,
    model: &fpxint_onnx::Model,
    chosen: &[usize],
) -> Result<(Settings, Option<Planned>)> {
    let default = Precision::new(4, 2)?;
    let base = Settings {
        weights: args.weights.unwrap_or(default),
        activations: args.activations.unwrap_or(default),
        granularity: args.granularity,
        rounding: args.method.rounding.unwrap_or_default(),
        clip: args.method.clip.unwrap_or_default(),
        asymmetric: args.method.symmetry.unwrap_or_default(),
        activation_clip: args.method.activation_clip.unwrap_or_default(),
    };
    if args.weights.is_some() || args.activations.is_some() {
        return Ok((base, None));
    }
    let request = Request {
        planning: &args.planning,
        method: args.method,
        granularity: args.granularity,
        otherwise: Some(DEFAULT_GOAL),
        layers: Some(chosen),
    };
    Ok((base, Some(planning::planned(common, model, &args.model, &request)?)))
}

/// Indices of the layers to expand: those that no pattern excludes.
fn chosen(model: &fpxint_onnx::Model, args: &Quantize) -> Result<Vec<usize>> {
    let names = || model.layers().iter().map(|layer| layer.name.as_str());
    if let Some(pattern) = args.exclude.iter().find(|pattern| !names().any(|name| pattern.is_match(name))) {
        bail!("--exclude {pattern}: no layer of {} has such a name", args.model.display());
    }
    let kept = |(_, name): &(usize, &str)| !args.exclude.iter().any(|pattern| pattern.is_match(name));
    let chosen: Vec<usize> = names().enumerate().filter(kept).map(|(index, _)| index).collect();
    ensure!(!chosen.is_empty(), "--exclude leaves no layer of {} to expand", args.model.display());
    Ok(chosen)
}

/// Packed layers kept in memory until they are written, in bytes; the terms of those beyond it are made twice.
const MOST_HELD: u64 = 256 << 20;

/// Expands and packs one layer; only its packed form is kept.
fn expand(
    model: &fpxint_onnx::Model,
    index: usize,
    settings: &Settings,
    means: Option<&Means>,
    macs: u64,
) -> Result<(EncodedLayer, LayerReport)> {
    let examined = Examined::expand(model, index, settings, means)?;
    Ok((fpxint_onnx::encode(&examined.layer), examined.report(macs)?))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let planned = self.layers.iter().any(|layer| layer.expected_error.is_some());
        let mut header = vec!["layer", "op", "weights", "activations", "max error", "bound", "products"];
        if planned {
            header.extend(["expected error", "at most"]);
        }
        let mut table = Table::new(4, &header);
        for layer in &self.layers {
            let mut row = vec![
                layer.name.clone(),
                layer.op.to_owned(),
                layer.weights.clone(),
                layer.activations.clone(),
                layer.max_error.map_or("-".to_owned(), |error| format!("{error:.3e}")),
                format!("{:.3e}", layer.bound),
                layer.products.to_string(),
            ];
            if planned {
                let shown = |error: Option<f64>| error.map_or("-".to_owned(), |error| format!("{error:.2e}"));
                row.extend([layer.expected_error, layer.certified_error].map(shown));
            }
            table.row(row);
        }
        write!(f, "{table}")?;
        let sparse = self.layers.iter().map(|layer| layer.sparse_fraction).fold(0.0, f64::max);
        if sparse > 0.0 {
            writeln!(f, "beyond the terms: at most {:.2} % of the weights of a layer", 100.0 * sparse)?;
        }
        if let Some(line) = asymmetric(self.layers.iter().map(|layer| layer.asymmetric)) {
            writeln!(f, "{line}")?;
        }
        if let Some(line) = rotated(self.layers.iter().map(|layer| layer.rotation)) {
            writeln!(f, "{line}")?;
        }
        let unclipped = self.layers.iter().filter_map(|layer| layer.unclipped);
        for reason in unclipped.collect::<std::collections::BTreeSet<_>>() {
            let of = |layer: &&LayerReport| layer.unclipped == Some(reason);
            writeln!(f, "not clipped: {} layers: {reason}", self.layers.iter().filter(of).count())?;
        }
        for skipped in &self.skipped {
            writeln!(f, "stays in FP32: {}: {}", skipped.name, skipped.reason)?;
        }
        if let Some(note) = &self.note {
            writeln!(f, "note: {note}")?;
        }
        if let Some(data) = &self.data {
            writeln!(f, "note: large tensors are in {}; keep it beside the model", data.display())?;
        }
        if let Some(expected) = self.expected_error {
            writeln!(f, "expected relative error of the outputs: {expected:.2e}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        writeln!(
            f,
            "{}: {} from {}, {} terms at opset {}, {:.2} bits a weight, {:.2} products, {:.2} s",
            self.output.as_ref().map_or("nothing written".to_owned(), |output| output.display().to_string()),
            bytes(self.bytes_out),
            bytes(self.bytes_in),
            self.storage,
            self.opset,
            self.mean_weight_bits,
            self.products,
            self.seconds
        )
    }
}
