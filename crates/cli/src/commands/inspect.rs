//! `fpxint inspect`: what a model is made of, layer by layer, and what of it stays in FP32 or on the host.

mod measured;
mod page;

use anyhow::{Context, Result, bail};
use fpxint::{Geometry, Granularity, Precision, Settings};
use fpxint_onnx::Model;
use rayon::prelude::*;
use serde::Serialize;

use super::print_json;
use crate::args::{Common, Inspect};
use crate::expansion::{Examined, LayerReport, Skipped, asymmetric, rotated, skipped};
use crate::metrics::weighted_mean;
use crate::planning::{self, Planned, Request};
use crate::remarks::{Host, by_operator, warnings};
use crate::table::{Table, bytes};
use crate::{Outcome, engine, progress};

/// Number of groups of weights that share a scale, and the range of their `scale_1`.
#[derive(Debug, Serialize)]
struct Scales {
    groups: usize,
    min: f32,
    max: f32,
}

#[derive(Debug, Serialize)]
struct Layer {
    #[serde(flatten)]
    report: LayerReport,
    /// Dimensions of the weights, and the groups of a convolution.
    shape: Vec<usize>,
    groups: usize,
    scales: Scales,
    /// Bound of every prefix of the terms.
    bounds: Vec<f64>,
    /// Error of every prefix; `null` where the float weights are gone.
    max_errors: Option<Vec<f64>>,
    /// Bytes of the terms, in the narrowest type that holds them, and their scales; and of the same weights in FP32.
    bytes: u64,
    fp32_bytes: u64,
    /// Rule by which the activations are clipped.
    activation_clip: &'static str,
    /// [`Examined::histogram`], for a page.
    #[serde(skip)]
    histogram: Option<Vec<f64>>,
}

#[derive(Debug, Serialize)]
struct Embedding {
    name: String,
    shape: [usize; 2],
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Totals {
    layers: usize,
    bytes: u64,
    fp32_bytes: u64,
    mean_weight_bits: f64,
    /// Integer-product multiply-accumulates relative to one 8-bit product everywhere.
    products: f64,
    gmacs: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    opset: i64,
    artefact: bool,
    layers: Vec<Layer>,
    skipped: Vec<Skipped>,
    embeddings: Vec<Embedding>,
    host: Vec<Host>,
    totals: Totals,
    warnings: Vec<String>,
}

pub(crate) fn run(common: &Common, args: &Inspect) -> Result<Outcome> {
    let model = engine::read(common, &args.model)?;
    let planned = planned(common, args, &model).with_context(|| args.model.display().to_string())?;
    let model = if planning::rotates(&args.method, planned.as_ref()) { model.rotated(None) } else { model };
    let report = report(common, args, &model, planned.as_ref()).with_context(|| args.model.display().to_string())?;
    if let Some(file) = &args.html {
        page::write(common, args, model, planned, &report, file)?;
    }
    if common.json {
        print_json(&report)?;
    } else {
        print_table(&report);
    }
    Ok(Outcome::Done)
}

/// The plan that the flags ask for.
fn planned(common: &Common, args: &Inspect, model: &Model) -> Result<Option<Planned>> {
    if !args.planning.is_given() {
        return Ok(None);
    }
    let (method, granularity) = (args.method, Granularity::Channel);
    let request = Request { planning: &args.planning, method, granularity, otherwise: None, layers: None };
    Ok(Some(planning::planned(common, model, &args.model, &request)?))
}

fn report(common: &Common, args: &Inspect, model: &Model, planned: Option<&Planned>) -> Result<Report> {
    if model.is_artefact() && args.weights.is_some() {
        bail!("is expanded already: its weights have the precision that they have");
    }
    if let Some(flag) = args.method.given().filter(|_| model.is_artefact()) {
        bail!("is expanded already, and {flag} is a matter of the expansion");
    }
    let survey = fpxint_runtime::survey(model)?;
    let bar = progress::bar(common, "expanding", model.layers().len());
    let examine = |(index, &macs): (usize, &u64)| {
        let layer = examine(args, model, planned, index, macs);
        bar.inc(1);
        layer
    };
    let layers = survey.macs.par_iter().enumerate().map(examine).collect::<Result<Vec<_>>>()?;
    bar.finish_and_clear();
    let embedding = |e: fpxint_onnx::Embedding| Embedding { name: e.name, shape: e.shape, bytes: e.bytes };
    let host = by_operator(survey.left_to_tract);
    Ok(Report {
        model: args.model.display().to_string(),
        opset: model.opset(),
        artefact: model.is_artefact(),
        skipped: skipped(model),
        embeddings: model.embeddings().into_iter().map(embedding).collect(),
        totals: totals(&layers),
        warnings: warnings(&layers.iter().map(|layer| &layer.report).collect::<Vec<_>>(), &host),
        host,
        layers,
    })
}

/// Expands one layer, or decodes it where it is expanded already; what is told of it is kept.
fn examine(args: &Inspect, model: &Model, planned: Option<&Planned>, index: usize, macs: u64) -> Result<Layer> {
    let info = &model.layers()[index];
    let default = Precision::new(4, 2)?;
    let stated = args.activations.or(info.activations).or((!model.is_artefact()).then_some(default));
    let unstated = || fpxint_runtime::Error::NoActivations { layer: info.name.clone() };
    let mut settings = Settings {
        weights: args.weights.unwrap_or(default),
        activations: stated.ok_or_else(unstated)?,
        granularity: Granularity::Channel,
        rounding: args.method.rounding.unwrap_or_default(),
        clip: args.method.clip.unwrap_or_default(),
        asymmetric: args.method.symmetry.unwrap_or_default(),
        activation_clip: args.method.activation_clip.unwrap_or(info.activation_clip),
    };
    if let Some(planned) = planned {
        settings = planned.plan.settings(&info.name, settings);
    }
    let examined = Examined::expand(model, index, &settings, None)?;
    let series = &examined.layer.weight;
    let orders = 1..=examined.order();
    let scales = series.term_scales(1);
    let extreme = |pick: fn(f32, f32) -> f32| scales.iter().copied().reduce(pick).unwrap_or(0.0);
    Ok(Layer {
        report: LayerReport {
            added: planned.and_then(|planned| planned.way(index)).map(|way| way.added),
            ..examined.report(macs)?
        },
        shape: info.geometry.weight_shape(),
        groups: match &info.geometry {
            Geometry::Conv(g) => g.groups,
            Geometry::MatMul(_) => 1,
        },
        scales: Scales { groups: scales.len(), min: extreme(f32::min), max: extreme(f32::max) },
        bounds: orders.clone().map(|terms| series.worst_bound(terms)).collect(),
        max_errors: orders.map(|terms| examined.max_error(terms)).collect::<Result<_>>()?,
        bytes: fpxint_onnx::encode(&examined.layer).weight_bytes(),
        fp32_bytes: 4 * info.elements as u64,
        activation_clip: settings.activation_clip.of(settings.activations).name(),
        histogram: if args.html.is_some() { examined.histogram(page::BINS)? } else { None },
    })
}

fn totals(layers: &[Layer]) -> Totals {
    let sum = |of: fn(&Layer) -> u64| layers.iter().map(of).sum::<u64>();
    Totals {
        layers: layers.len(),
        bytes: sum(|l| l.bytes),
        fp32_bytes: sum(|l| l.fp32_bytes),
        mean_weight_bits: weighted_mean(layers.iter().map(|l| (l.report.mean_bits, l.fp32_bytes as f64))),
        products: weighted_mean(layers.iter().map(|l| (f64::from(l.report.products), l.report.macs as f64))),
        gmacs: sum(|l| l.report.macs) as f64 / 1e9,
    }
}

/// Dimensions as text; the groups of a convolution behind them.
fn shape_text(layer: &Layer) -> String {
    let dims = layer.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    if layer.groups == 1 { dims } else { format!("{dims} g{}", layer.groups) }
}

fn print_table(report: &Report) {
    let kind = if report.artefact { "artefact" } else { "FP32 model, expanded in memory" };
    println!("{}: {kind}, operator set {}", report.model, report.opset);
    print_layers(&report.layers);
    let totals = &report.totals;
    println!(
        "{} layers: weights {} for {} in FP32, {:.2} bits a weight, {:.2} products, {:.3} GMAC a sample",
        totals.layers,
        bytes(totals.bytes),
        bytes(totals.fp32_bytes),
        totals.mean_weight_bits,
        totals.products,
        totals.gmacs
    );
    let sparse = report.layers.iter().map(|layer| layer.report.sparse_fraction).fold(0.0, f64::max);
    if sparse > 0.0 {
        println!("beyond the terms: at most {:.2} % of the weights of a layer", 100.0 * sparse);
    }
    if let Some(line) = asymmetric(report.layers.iter().map(|layer| layer.report.asymmetric)) {
        println!("{line}");
    }
    if let Some(line) = rotated(report.layers.iter().map(|layer| layer.report.rotation)) {
        println!("{line}");
    }
    let clipped = report.layers.iter().filter(|layer| layer.activation_clip != "none").count();
    if clipped > 0 {
        println!("activations are clipped in {clipped} layers: at most 1 % of a row or image lies beyond its codes");
    }
    for skipped in &report.skipped {
        println!("stays in FP32: {}: {}", skipped.name, skipped.reason);
    }
    for Embedding { name, shape: [rows, columns], bytes: size } in &report.embeddings {
        println!("stays in FP32: {name}: an embedding of {rows} x {columns}, {}", bytes(*size));
    }
    if !report.host.is_empty() {
        let kinds = report.host.iter().map(|host| format!("{} {}", host.count, host.operator)).collect::<Vec<_>>();
        println!("left to the host: {}", kinds.join(", "));
        let inexact = report.host.iter().filter(|host| !host.exact).map(|host| host.operator.as_str());
        match inexact.collect::<Vec<_>>()[..] {
            [] => println!("  all of them exact: equal bits on every CPU"),
            ref inexact => println!("  equal bits on every CPU are not promised, because of {}", inexact.join(", ")),
        }
    }
    for warning in &report.warnings {
        println!("warning: {warning}");
    }
}

fn print_layers(layers: &[Layer]) {
    let header = [
        "layer",
        "op",
        "shape",
        "weights",
        "activations",
        "scales",
        "smallest",
        "largest",
        "max error",
        "bound",
        "size",
        "in FP32",
        "products",
        "MMAC",
    ];
    let mut table = Table::new(5, &header);
    for layer in layers {
        let report = &layer.report;
        table.row(vec![
            report.name.clone(),
            report.op.to_owned(),
            shape_text(layer),
            report.weights.clone(),
            report.activations.clone(),
            layer.scales.groups.to_string(),
            format!("{:.2e}", layer.scales.min),
            format!("{:.2e}", layer.scales.max),
            report.max_error.map_or("-".to_owned(), |error| format!("{error:.2e}")),
            format!("{:.2e}", report.bound),
            bytes(layer.bytes),
            bytes(layer.fp32_bytes),
            report.products.to_string(),
            format!("{:.2}", layer.report.macs as f64 / 1e6),
        ]);
    }
    print!("{table}");
}
