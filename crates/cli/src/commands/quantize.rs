//! `fpxint quantize`: an FP32 model to its artefact, one layer at a time.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use fpxint::{ExpandedLayer, Precision, Settings, Weight, expand_layer};
use fpxint_onnx::EncodedLayer;
use fpxint_runtime::Port;
use rayon::prelude::*;
use serde::Serialize;

use super::print_json;
use crate::args::{Common, Granularity, Quantize};
use crate::table::{Table, bytes};
use crate::{Outcome, engine, progress};

#[derive(Debug, Serialize)]
struct LayerReport {
    name: String,
    op: &'static str,
    weights: String,
    activations: String,
    /// Largest error the series can have anywhere in the layer.
    bound: f64,
    /// Largest error it has.
    max_error: f64,
    /// Share of weights in the saturation part.
    sparse_fraction: f64,
    /// Integer products relative to one 8-bit product.
    products: u32,
}

#[derive(Debug, Serialize)]
struct Skipped {
    name: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Report {
    seconds: f64,
    bytes_in: u64,
    bytes_out: u64,
    /// Integer-product multiply-accumulates relative to one 8-bit product everywhere.
    products: f64,
    mean_weight_bits: f64,
    opset: i64,
    storage: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// The file of large tensors, where the model did not fit one file.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<PathBuf>,
    layers: Vec<LayerReport>,
    skipped: Vec<Skipped>,
}

pub(crate) fn run(common: &Common, args: &Quantize) -> Result<Outcome> {
    let start = Instant::now();
    let mut model = engine::read(&args.model)?;
    if model.is_artefact() {
        bail!("{}: is expanded already; give fpxint the FP32 model it was made from", args.model.display());
    }
    if model.layers().is_empty() {
        bail!(
            "{}: holds no Conv, Gemm or MatMul with constant weights, so there is nothing to expand",
            args.model.display()
        );
    }
    if std::fs::metadata(&args.output).is_ok_and(|existing| !existing.is_file()) {
        bail!("{}: is there already and is not a file, so it is not replaced", args.output.display());
    }
    let settings = Settings {
        weights: args.weights,
        activations: args.activations,
        granularity: match args.granularity {
            Granularity::Channel => fpxint::Granularity::Channel,
            Granularity::Tensor => fpxint::Granularity::Tensor,
        },
    };
    let bar = progress::bar(common, "expanding", model.layers().len());
    let expand = |index: usize| {
        let layer = expand(&model, index, &settings);
        bar.inc(1);
        layer
    };
    let expanded: Result<Vec<_>> = (0..model.layers().len()).into_par_iter().map(expand).collect();
    bar.finish_and_clear();
    let (layers, reports): (Vec<EncodedLayer>, Vec<LayerReport>) =
        expanded.with_context(|| args.model.display().to_string())?.into_iter().unzip();
    let survey = fpxint_runtime::survey(&model).with_context(|| args.model.display().to_string())?;
    let open = |size: Option<usize>| size.map(|s| s as u64);
    let shape = |port: Port| (port.name, port.shape.into_iter().map(open).collect());
    model.state_output_shapes(&survey.outputs.into_iter().map(shape).collect::<Vec<_>>());
    let written = fpxint_onnx::write(&model, &layers, &args.output)?;
    let total: u64 = survey.macs.iter().sum();
    let weighted: f64 =
        survey.macs.iter().zip(&reports).map(|(&macs, layer)| macs as f64 * f64::from(layer.products)).sum();
    let elements = || model.layers().iter().map(|l| l.elements as f64);
    let bits: f64 = elements().zip(&layers).map(|(n, layer)| n * f64::from(layer.weights().total_bits())).sum();
    let skipped = model.skipped().iter().map(|s| Skipped { name: s.name.clone(), reason: s.reason.clone() });
    let report = Report {
        seconds: start.elapsed().as_secs_f64(),
        bytes_in: model.file_bytes(),
        bytes_out: written.bytes,
        products: weighted / total.max(1) as f64,
        mean_weight_bits: bits / elements().sum::<f64>(),
        opset: written.opset,
        storage: written.storage,
        note: written.note,
        data: written.data,
        layers: reports,
        skipped: skipped.collect(),
    };
    if common.json {
        print_json(&report)?;
    } else if !common.quiet {
        print_table(&report, args);
    }
    Ok(Outcome::Done)
}

/// Expands and packs one layer; only its packed form is kept.
fn expand(model: &fpxint_onnx::Model, index: usize, settings: &Settings) -> Result<(EncodedLayer, LayerReport)> {
    let info = &model.layers()[index];
    let layer = model.layer(index)?;
    let expanded = expand_layer(&layer, settings)?;
    let order = expanded.weight.precision().order();
    let max_error = match &layer.weight {
        Weight::Float(values) => expanded.weight.measured_error(&info.name, values, order)?.0,
        Weight::Series(_) => 0.0,
    };
    let precision = |p: Precision| p.to_string();
    let report = LayerReport {
        name: info.name.clone(),
        op: info.op_type,
        weights: precision(expanded.weight.precision()),
        activations: precision(expanded.activations),
        bound: expanded.weight.worst_bound(order),
        max_error,
        sparse_fraction: 0.0,
        products: ExpandedLayer::products(&expanded.geometry, expanded.weight.precision(), expanded.activations),
    };
    Ok((fpxint_onnx::encode(&expanded), report))
}

fn print_table(report: &Report, args: &Quantize) {
    let mut table = Table::new(4, &["layer", "op", "weights", "activations", "max error", "bound", "products"]);
    for layer in &report.layers {
        table.row(vec![
            layer.name.clone(),
            layer.op.to_owned(),
            layer.weights.clone(),
            layer.activations.clone(),
            format!("{:.3e}", layer.max_error),
            format!("{:.3e}", layer.bound),
            layer.products.to_string(),
        ]);
    }
    print!("{table}");
    for skipped in &report.skipped {
        println!("stays in FP32: {}: {}", skipped.name, skipped.reason);
    }
    if let Some(note) = &report.note {
        println!("note: {note}");
    }
    if let Some(data) = &report.data {
        println!("note: large tensors are in {}; keep it beside the model", data.display());
    }
    println!(
        "{}: {} from {}, {} terms at opset {}, {:.2} bits a weight, {:.2} products, {:.2} s",
        args.output.display(),
        bytes(report.bytes_out),
        bytes(report.bytes_in),
        report.storage,
        report.opset,
        report.mean_weight_bits,
        report.products,
        report.seconds
    );
}
