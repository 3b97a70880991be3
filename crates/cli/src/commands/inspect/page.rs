//! `inspect --html`: layers as a table and pictures, errors against their bounds, warnings, and what to do about them.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use fpxint_onnx::Model;

use super::measured::{Measured, measured};
use super::{Report, shape_text};
use crate::args::{Common, Inspect};
use crate::page::figure::{Axis, Cell, Figure, Kind, Mark, Plot, Show, column};
use crate::page::{escape, figure, marked, opened, page};
use crate::planning::Planned;
use crate::table::bytes;

/// Bars of a histogram.
pub(super) const BINS: usize = 20;
/// A layer with a larger share of all error than this is named.
const MUCH: f64 = 0.15;
/// Layers that are named.
const NAMED: usize = 3;

/// Measures a model and writes its page.
pub(super) fn write(
    common: &Common,
    args: &Inspect,
    model: Model,
    planned: Option<Planned>,
    report: &Report,
    file: &Path,
) -> Result<()> {
    let measured = measured(common, args, model, planned).with_context(|| args.model.display().to_string())?;
    let html = html(report, &measured, common.threads());
    std::fs::write(file, html).with_context(|| format!("cannot write {}", file.display()))
}

fn html(report: &Report, measured: &Measured, threads: usize) -> String {
    let name = Path::new(&report.model).file_name().unwrap_or_default().to_string_lossy();
    let kind = if report.artefact { "an artefact" } else { "an FP32 model, expanded in memory" };
    let totals = &report.totals;
    let mut body = format!("<h1>{}</h1>\n", escape(&name));
    let _ = writeln!(
        body,
        "<p>{kind}, operator set {}: {} layers, weights {} for {} in FP32, {:.2} bits a weight, {:.2} products, {:.3} GMAC a \
         sample. One sample takes {:.2} ms ({threads} threads, kernel {}).</p>",
        report.opset,
        totals.layers,
        bytes(totals.bytes),
        bytes(totals.fp32_bytes),
        totals.mean_weight_bits,
        totals.products,
        totals.gmacs,
        measured.total,
        measured.kernel
    );
    body += "<p class=\"muted\">Times and errors are those of synthetic inputs: images of smooth noise, sentences of 128 random \
             tokens. A layer's time includes what is fused into it. Products are relative to one 8-bit product.</p>\n";
    body += "<nav><ul><li><a href=\"#warnings\">What to look at</a></li><li><a href=\"#layers\">Layers</a></li>\
             <li><a href=\"#errors\">Errors and bounds</a></li><li><a href=\"#rest\">Everything else</a></li></ul></nav>\n";
    warnings(&mut body, report, measured);
    let layers = layers(report, measured);
    let _ = writeln!(body, "<section id=\"layers\">\n<h2>Layers</h2>\n{}</section>", opened(&layers, "layers", true));
    let _ = writeln!(body, "<section id=\"errors\">\n<h2>Errors and bounds</h2>");
    match histograms(report) {
        Some(histograms) => body += &figure(&histograms, "histograms"),
        None => body += "<p>The float weights are gone from this file: inspect the FP32 model to see errors.</p>\n",
    }
    body += "</section>\n";
    rest(&mut body, report, measured);
    page(&format!("fpxint inspect: {name}"), &body)
}

/// Warnings with their remedies.
fn warnings(body: &mut String, report: &Report, measured: &Measured) {
    *body += "<section id=\"warnings\">\n<h2>What to look at</h2>\n";
    let mut all: Vec<String> = report.warnings.clone();
    all.extend(heavy(report, measured));
    if all.is_empty() {
        *body += "<p>Nothing stands out.</p>\n";
    }
    for warning in all {
        let (cause, remedy) = warning.rsplit_once(": ").unwrap_or((&warning, ""));
        let remedy =
            if remedy.is_empty() { String::new() } else { format!("<p><b>Remedy:</b> {}.</p>", marked(remedy)) };
        let _ = writeln!(body, "<div class=\"warn\"><p>{}.</p>{remedy}</div>", marked(cause));
    }
    *body += "</section>\n";
}

/// Layers with much of the error, and a host with much of the time.
fn heavy(report: &Report, measured: &Measured) -> Vec<String> {
    let mut found = Vec::new();
    let shares = error_shares(measured);
    let mut order: Vec<usize> = (0..shares.len()).filter(|&i| shares[i] > MUCH).collect();
    order.sort_by(|&a, &b| shares[b].total_cmp(&shares[a]));
    for &index in order.iter().take(NAMED) {
        let layer = &report.layers[index].report;
        found.push(format!(
            "`{}` has {:.0} % of the squared error that layers add: give it another term, as in `\"{}\" = {{ weights = \
             \"int4x3\", activations = \"int4x3\" }}` in a plan (--plan FILE), or let --target-products choose",
            layer.name,
            100.0 * shares[index],
            layer.name
        ));
    }
    let host: f64 = measured.others.iter().filter(|(name, _)| name.starts_with("host")).map(|(_, time)| time).sum();
    if host > MUCH * measured.total {
        let names: Vec<&str> =
            measured.others.iter().filter(|(n, _)| n.starts_with("host")).map(|(n, _)| &n[..]).collect();
        let share = 100.0 * host / measured.total;
        let longest = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        found.push(format!(
            "the host takes {share:.0} % of the time ({longest}): export the model with operators that fpxint runs itself, which \
             the README lists"
        ));
    }
    found
}

/// Share of every layer in the squares of the errors that layers add; empty where they are not known.
fn error_shares(measured: &Measured) -> Vec<f64> {
    let squares: Vec<f64> =
        measured.errors.iter().flatten().map(|error| error.own_relative * error.own_relative).collect();
    let sum: f64 = squares.iter().sum();
    squares.iter().map(|square| if sum > 0.0 { square / sum } else { 0.0 }).collect()
}

fn layers(report: &Report, measured: &Measured) -> Figure {
    let columns = vec![
        column("layer", "layer", Show::Text),
        column("op", "op", Show::Text),
        column("shape", "shape", Show::Text),
        column("weights", "weights", Show::Text),
        column("activations", "activations", Show::Text),
        column("weight_bits", "bits, weights", Show::Integer),
        column("activation_bits", "bits, activations", Show::Integer),
        column("products", "products", Show::Integer),
        column("mmacs", "MMAC", Show::Fixed(2)),
        column("mac_share", "share of MAC", Show::Percent(1)),
        column("milliseconds", "time, ms", Show::Fixed(3)),
        column("time_share", "share of time", Show::Percent(1)),
        column("own_error", "own error", Show::Scientific),
        column("error_share", "share of error", Show::Percent(1)),
        column("output_error", "output error", Show::Scientific),
        column("max_error", "largest error of a weight", Show::Scientific),
        column("bound", "its bound", Show::Scientific),
        column("bytes", "bytes", Show::Integer),
        column("fp32_bytes", "bytes in FP32", Show::Integer),
    ];
    let caption = "Share of error: of the sum of squares of what the layers add of their own, |f̂(x) − f(x)|₂ / |f(x)|₂ on the \
                   actual input of each, as `fpxint compare --layers` gives it. Output error: against FP32 from the first layer \
                   on.";
    let mut figure = Figure::new("Layers", caption, columns);
    let macs: f64 = report.layers.iter().map(|layer| layer.report.macs as f64).sum();
    let shares = error_shares(measured);
    for (index, layer) in report.layers.iter().enumerate() {
        let told = &layer.report;
        let error = measured.errors.as_ref().and_then(|errors| errors.get(index));
        let time = measured.layers[index];
        let mut cells: Vec<Cell> = vec![told.name.as_str().into(), told.op.into(), shape_text(layer).into()];
        cells.extend([told.weights.as_str().into(), told.activations.as_str().into()]);
        cells.extend([told.weight_bits, told.activation_bits, told.products].map(Cell::from));
        let macs_share = if macs > 0.0 { told.macs as f64 / macs } else { 0.0 };
        cells.extend([told.macs as f64 / 1e6, macs_share, time, time / measured.total].map(Cell::from));
        cells.push(error.map(|error| error.own_relative).into());
        cells.push(shares.get(index).copied().into());
        cells.push(error.map(|error| error.output_relative).into());
        cells.extend([told.max_error, Some(told.bound)].map(Cell::from));
        cells.extend([layer.bytes as f64, layer.fp32_bytes as f64].map(Cell::from));
        figure.row(cells);
    }
    let line = |title: &str, key: &str, colour| figure.line(title, ["layer", key], ("", ""), (colour, Mark::Points));
    let mut shares =
        vec![line("share of time", "time_share", 0), line("share of multiply-accumulates", "mac_share", 6)];
    let (mut own, mut bits) = (Vec::new(), vec![line("bits of a weight", "weight_bits", 0)]);
    if measured.errors.is_some() {
        shares.insert(1, line("share of error", "error_share", 1));
        own = vec![line("own error", "own_error", 1), line("output error", "output_error", 3)];
    }
    bits.extend([line("bits of an activation", "activation_bits", 1), line("products", "products", 2)]);
    let plot = |y: Axis, lines| Plot { kind: Kind::Dots, x: Axis::linear("layer"), y, lines };
    let plots = [
        plot(Axis::percent("share of the whole model"), shares),
        plot(Axis::log("relative error"), own),
        plot(Axis::linear("effective bits; 8-bit products"), bits),
    ];
    figure.plots.extend(plots.into_iter().filter(|plot| !plot.lines.is_empty()));
    figure
}

/// Errors of the weights over their bounds; `None` where they are not known.
fn histograms(report: &Report) -> Option<Figure> {
    let columns = vec![
        column("layer", "layer", Show::Text),
        column("from", "error / bound from", Show::Fixed(2)),
        column("to", "to", Show::Fixed(2)),
        column("share", "share of the weights", Show::Percent(2)),
    ];
    let caption = "How the errors of each layer's weights spread, in units of their channel's bound; dashed: the bound, which no \
                   error exceeds. Rounding to the nearest spreads errors evenly; short groups, such as depthwise filters, have \
                   the scale that fits them best, and so smaller errors.";
    let mut figure = Figure::new("Errors of the weights against their bounds", caption, columns);
    for layer in &report.layers {
        let histogram = layer.histogram.as_ref()?;
        for (bin, &share) in histogram.iter().enumerate() {
            let end = |bin: usize| 2.0 * bin as f64 / BINS as f64 - 1.0;
            let name = layer.report.name.as_str();
            figure.row(vec![name.into(), end(bin).into(), end(bin + 1).into(), share.into()]);
        }
    }
    let lines = vec![figure.line("", ["layer", "share"], ("", ""), (0, Mark::Solid))];
    let (x, y) = (Axis::linear("error of a weight / its bound"), Axis::percent("share of the weights"));
    figure.plots.push(Plot { kind: Kind::Histograms, x, y, lines });
    Some(figure)
}

/// What is no layer: steps by time, what stays in FP32, what the host runs.
fn rest(body: &mut String, report: &Report, measured: &Measured) {
    *body += "<section id=\"rest\">\n<h2>Everything else</h2>\n";
    let columns = vec![
        column("operator", "operator", Show::Text),
        column("milliseconds", "time, ms", Show::Fixed(3)),
        column("time_share", "share of time", Show::Percent(1)),
    ];
    let mut times = Figure::new("Time outside the layers", "By kind of operator, the longest first.", columns);
    for (operator, time) in &measured.others {
        times.row(vec![operator.as_str().into(), (*time).into(), (time / measured.total).into()]);
    }
    *body += &figure(&times, "others");
    let mut items: Vec<String> =
        report.skipped.iter().map(|skipped| format!("stays in FP32: {}: {}", skipped.name, skipped.reason)).collect();
    for embedding in &report.embeddings {
        let [rows, width] = embedding.shape;
        items.push(format!(
            "stays in FP32: {}: an embedding of {rows} x {width}, {}",
            embedding.name,
            bytes(embedding.bytes)
        ));
    }
    for host in &report.host {
        let exact = if host.exact { "equal bits on every CPU" } else { "equal bits on every CPU are not promised" };
        items.push(format!("left to the host: {} {}: {exact}", host.count, host.operator));
    }
    let items: String = items.iter().map(|item| format!("<li>{}</li>", escape(item))).collect();
    let _ = writeln!(body, "<ul class=\"found\">{items}</ul>\n</section>");
}
