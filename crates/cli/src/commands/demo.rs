//! `fpxint demo`: the embedded network at six precisions, in one table.

use std::io::Cursor;
use std::time::Instant;

use anyhow::{Context, Result};
use fpxint::{Precision, Settings, Weight, expand_layer};
use fpxint_onnx::Limits;
use fpxint_runtime::{Float, Model, Options, Outputs, Value};
use ndarray::{Array1, Array3, ArrayD};
use ndarray_npy::NpzReader;
use serde::Serialize;

use super::print_json;
use crate::args::Common;
use crate::metrics::argmax;
use crate::table::{Table, bytes, percent};
use crate::{Outcome, progress};

/// The embedded network.
pub(crate) const NETWORK: &[u8] = include_bytes!("../../../../assets/digits.onnx");
const TEST_SET: &[u8] = include_bytes!("../../../../assets/digits_test.npz");
const PRECISIONS: [&str; 6] = ["int2x1", "int2x2", "int2x3", "int4x1", "int4x2", "int4x3"];

#[derive(Debug, Serialize)]
struct Row {
    precision: String,
    /// Bits a weight: bits x terms.
    effective_bits: u32,
    accuracy: f64,
    /// Share of images with the same class as in FP32.
    agreement: f64,
    /// Largest error of a weight, and the largest it can be, in the layer where it comes nearest to its bound.
    weight_error: f64,
    weight_bound: f64,
    /// Size of the artefact's terms, scales and biases.
    bytes: u64,
    /// Integer products relative to one 8-bit product.
    products: f64,
    milliseconds: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    images: usize,
    fp32_accuracy: f64,
    fp32_bytes: usize,
    fp32_milliseconds: f64,
    kernel: String,
    rows: Vec<Row>,
}

/// Images, and what the FP32 network says of them.
struct Truth {
    inputs: Vec<(String, Value)>,
    labels: Vec<usize>,
    fp32: Vec<usize>,
    /// Multiply-accumulates of every layer.
    macs: Vec<u64>,
}

pub(crate) fn run(common: &Common) -> Result<Outcome> {
    let source = fpxint_onnx::parse(NETWORK.into(), "the embedded network", &Limits::default())?;
    let (inputs, labels) = test_set()?;
    let float = Float::load(&source)?;
    let (outputs, fp32_milliseconds) = timed(|| Ok(float.run(&inputs)?))?;
    let macs = fpxint_runtime::survey(&source)?.macs;
    let truth = Truth { fp32: classes(&outputs)?, inputs, labels, macs };
    let bar = progress::bar(common, "expanding", PRECISIONS.len());
    let mut kernel = String::new();
    let mut rows = Vec::new();
    for text in PRECISIONS {
        let precision: Precision = text.parse()?;
        let options = Options {
            weights: Some(precision),
            activations: Some(precision),
            threads: common.threads(),
            ..Options::default()
        };
        let model = Model::load(&source, &options, &|_, _| {})?;
        kernel = model.kernel().to_owned();
        rows.push(row(&source, &model, precision, &truth)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let count = truth.labels.len();
    let report = Report {
        images: count,
        fp32_accuracy: share(&truth.fp32, &truth.labels),
        fp32_bytes: NETWORK.len(),
        fp32_milliseconds,
        kernel,
        rows,
    };
    if common.json {
        print_json(&report)?;
    } else {
        print_table(&report);
    }
    Ok(Outcome::Done)
}

/// Images as the network's input, and their labels.
pub(crate) type TestSet = (Vec<(String, Value)>, Vec<usize>);

/// The embedded test set.
pub(crate) fn test_set() -> Result<TestSet> {
    let mut archive = NpzReader::new(Cursor::new(TEST_SET)).context("the embedded test set")?;
    let pixels: Array3<u8> = archive.by_name("x").context("the embedded test set")?;
    let labels: Array1<u8> = archive.by_name("y").context("the embedded test set")?;
    let (n, h, w) = pixels.dim();
    let x = pixels.mapv(|v| f32::from(v) / 16.0).into_shape_with_order((n, 1, h, w))?;
    Ok((vec![("input".to_owned(), Value::F32(x.into_dyn()))], labels.iter().map(|&l| usize::from(l)).collect()))
}

fn row(source: &fpxint_onnx::Model, model: &Model, precision: Precision, truth: &Truth) -> Result<Row> {
    let (outputs, milliseconds) = timed(|| Ok(model.run(&truth.inputs)?))?;
    let found = classes(&outputs)?;
    let settings = Settings {
        weights: precision,
        activations: precision,
        granularity: fpxint::Granularity::Channel,
        rounding: Default::default(),
        clip: Default::default(),
        asymmetric: false,
        activation_clip: Default::default(),
    };
    let (mut error, mut bound, mut bytes) = (0f64, 0f64, 0);
    for (index, info) in source.layers().iter().enumerate() {
        let layer = source.layer(index)?;
        let expanded = expand_layer(&layer, &settings)?;
        if let Weight::Float(values) = &layer.weight {
            error = error.max(expanded.weight.measured_error(&info.name, values, precision.order())?.0);
        }
        bound = bound.max(expanded.weight.worst_bound(precision.order()));
        bytes += fpxint_onnx::encode(&expanded).bytes();
    }
    let weighted: f64 = truth.macs.iter().zip(model.layers()).map(|(&m, l)| m as f64 * f64::from(l.products)).sum();
    Ok(Row {
        precision: precision.to_string(),
        effective_bits: precision.total_bits(),
        accuracy: share(&found, &truth.labels),
        agreement: share(&found, &truth.fp32),
        weight_error: error,
        weight_bound: bound,
        bytes,
        products: weighted / truth.macs.iter().sum::<u64>() as f64,
        milliseconds,
    })
}

/// Runs twice, the first time to warm up; the result and the second run's milliseconds.
fn timed(run: impl Fn() -> Result<Outputs>) -> Result<(Outputs, f64)> {
    run()?;
    let start = Instant::now();
    let outputs = run()?;
    Ok((outputs, start.elapsed().as_secs_f64() * 1e3))
}

/// The best class of every image.
pub(crate) fn classes(outputs: &Outputs) -> Result<Vec<usize>> {
    let (_, logits) = outputs.first().context("the embedded network has an output")?;
    let logits: ArrayD<f32> = logits.to_f32();
    Ok(logits.outer_iter().map(|row| argmax(&row.iter().copied().collect::<Vec<_>>())).collect())
}

/// Share of classes that are those wanted.
pub(crate) fn share(found: &[usize], wanted: &[usize]) -> f64 {
    found.iter().zip(wanted).filter(|(a, b)| a == b).count() as f64 / wanted.len() as f64
}

fn print_table(report: &Report) {
    println!(
        "A network that reads handwritten digits, its weights and activations expanded into integer terms, on {} test images.",
        report.images
    );
    println!(
        "Each further term divides the error by 2^bits; up to eight bits in all cost one integer product ({}).\n",
        report.kernel
    );
    let header = ["precision", "bits", "accuracy", "as FP32", "weight error", "its bound", "size", "products", "ms"];
    let mut table = Table::new(1, &header);
    table.row(vec![
        "fp32".to_owned(),
        "32".to_owned(),
        percent(report.fp32_accuracy),
        "-".to_owned(),
        "-".to_owned(),
        "-".to_owned(),
        bytes(report.fp32_bytes as u64),
        "-".to_owned(),
        format!("{:.1}", report.fp32_milliseconds),
    ]);
    for row in &report.rows {
        table.row(vec![
            row.precision.clone(),
            row.effective_bits.to_string(),
            percent(row.accuracy),
            percent(row.agreement),
            format!("{:.2e}", row.weight_error),
            format!("{:.2e}", row.weight_bound),
            bytes(row.bytes),
            format!("{:.2}", row.products),
            format!("{:.1}", row.milliseconds),
        ]);
    }
    print!("{table}");
}
