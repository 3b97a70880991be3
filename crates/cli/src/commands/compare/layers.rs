//! `fpxint compare --layers`: where the error enters, layer by layer.
//!
//! ```text
//! input   |x' - x| / |x|            x, y: what enters and leaves the layer in the reference
//! own     |y' - f(x')| / |f(x')|    x', y': the same in the model;  f: the reference's layer in FP32
//! output  |y' - y| / |y|            with what is folded into the layer, without what follows it
//! ```
//!
//! Both models hand these values out as further outputs; layers correspond by name.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use fpxint::Geometry;
use fpxint_onnx::{LayerInfo, Model};
use fpxint_runtime::{Float, Outputs, Value};
use ndarray::{ArrayD, IxDyn};
use rayon::prelude::*;
use serde::Serialize;

use crate::metrics::Tally;
use crate::table::Table;

/// Layers that the closing line names.
const NAMED: usize = 3;

/// Errors of one layer over all runs.
#[derive(Debug, Serialize)]
pub(crate) struct LayerError {
    pub name: String,
    op: &'static str,
    weights: String,
    activations: String,
    /// Error of what enters the layer: `|a - b|_2 / |a|_2`, as the next two.
    pub input_relative: f64,
    /// Error that the layer adds: against the reference's layer on the same input.
    pub own_relative: f64,
    /// Error of what leaves the layer.
    pub output_relative: f64,
    /// The same as the largest difference relative to the largest value.
    output_max_relative: f64,
    /// Share of what enters the layer that lies beyond its codes; of layers whose activations are clipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    activations_beyond: Option<f64>,
}

/// A layer of the model with that of the same name in the reference.
#[derive(Debug)]
struct Pair {
    reference: LayerInfo,
    model: LayerInfo,
    /// Place of the layer in each model.
    places: [usize; 2],
    input: Tally,
    own: Tally,
    output: Tally,
}

/// The layers of two models that correspond, with what their runs have shown.
#[derive(Debug)]
pub(crate) struct Trace {
    reference: Model,
    pairs: Vec<Pair>,
    /// Layers of the model that the reference does not have.
    pub unmatched: Vec<String>,
}

impl Trace {
    /// Pairs the layers, and makes what enters and leaves them outputs of both models.
    ///
    /// `files` are the names of the two files for messages.
    pub(crate) fn new(mut reference: Model, model: &mut Model, files: [&Path; 2]) -> Result<Self> {
        let files = files.map(Path::display);
        if reference.is_artefact() {
            bail!("{}: is expanded already; --layers compares with the FP32 model it was made from", files[0]);
        }
        let places = reference.layers().iter().enumerate().map(|(place, layer)| (layer.name.as_str(), place));
        let places: HashMap<&str, usize> = places.collect();
        let (mut pairs, mut unmatched) = (Vec::new(), Vec::new());
        for (place, layer) in model.layers().iter().enumerate() {
            let Some(&there) = places.get(layer.name.as_str()) else {
                unmatched.push(layer.name.clone());
                continue;
            };
            let other = &reference.layers()[there];
            let (own, its) = (layer.geometry.weight_shape(), other.geometry.weight_shape());
            ensure!(
                layer.geometry == other.geometry,
                "layer `{}` is another one in {} (weights {own:?}) than in {} ({its:?})",
                layer.name,
                files[1],
                files[0]
            );
            pairs.push(Pair {
                reference: other.clone(),
                model: layer.clone(),
                places: [there, place],
                input: Tally::default(),
                own: Tally::default(),
                output: Tally::default(),
            });
        }
        ensure!(!pairs.is_empty(), "{} and {} have no layer of the same name", files[0], files[1]);
        let ends = |layer: &LayerInfo| [layer.input.clone(), layer.output.clone()];
        reference.expose(&pairs.iter().flat_map(|pair| ends(&pair.reference)).collect::<Vec<_>>())?;
        model.expose(&pairs.iter().flat_map(|pair| ends(&pair.model)).collect::<Vec<_>>())?;
        Ok(Self { reference, pairs, unmatched })
    }

    /// The reference, which has more outputs now.
    pub(crate) fn reference(&self) -> &Model {
        &self.reference
    }

    /// Adds one run: what both models gave for `inputs`.
    pub(crate) fn add(&mut self, inputs: &[(String, Value)], a: &Outputs, b: &Outputs) -> Result<()> {
        let reference = &self.reference;
        self.pairs.par_iter_mut().try_for_each(|pair| {
            let name = pair.model.name.clone();
            pair.add(reference, inputs, a, b).with_context(|| format!("layer `{name}`"))
        })
    }

    /// The errors, in the order of the model's graph; `model` has run.
    pub(crate) fn errors(&self, model: &fpxint_runtime::Model) -> Vec<LayerError> {
        let beyond = model.activations_beyond();
        let error = |pair: &Pair| {
            let loaded = &model.layers()[pair.places[1]];
            LayerError {
                name: pair.model.name.clone(),
                op: pair.model.op_type,
                weights: loaded.weights.to_string(),
                activations: loaded.activations.to_string(),
                input_relative: pair.input.root_relative(),
                own_relative: pair.own.root_relative(),
                output_relative: pair.output.root_relative(),
                output_max_relative: pair.output.max_relative(),
                activations_beyond: beyond[pair.places[1]],
            }
        };
        self.pairs.iter().map(error).collect()
    }
}

impl Pair {
    fn add(&mut self, reference: &Model, inputs: &[(String, Value)], a: &Outputs, b: &Outputs) -> Result<()> {
        let (x, y) = (found(&self.reference.input, a, inputs)?, found(&self.reference.output, a, inputs)?);
        let (actual_x, actual_y) = (found(&self.model.input, b, inputs)?, found(&self.model.output, b, inputs)?);
        for (what, a, b) in [("input", &x, &actual_x), ("output", &y, &actual_y)] {
            ensure!(a.shape() == b.shape(), "its {what} has shape {:?} and {:?}", a.shape(), b.shape());
        }
        let alone = Float::load(&reference.alone(self.places[0])?)?;
        let wanted = alone.run(&[("x".to_owned(), Value::F32(rows(&self.reference.geometry, actual_x.clone())?))])?;
        let (_, wanted) = wanted.into_iter().next().context("it has no output")?;
        let wanted = wanted.to_f32();
        ensure!(wanted.len() == actual_y.len(), "alone it gives {} values, not {}", wanted.len(), actual_y.len());
        for (tally, a, b) in
            [(&mut self.input, &x, &actual_x), (&mut self.own, &wanted, &actual_y), (&mut self.output, &y, &actual_y)]
        {
            let dense = "a contiguous value";
            tally.add_values(a.as_slice().context(dense)?, b.as_slice().context(dense)?);
        }
        Ok(())
    }
}

/// A value that left a model or entered it.
fn found(name: &str, outputs: &Outputs, inputs: &[(String, Value)]) -> Result<ArrayD<f32>> {
    let value = outputs.iter().chain(inputs).find(|(other, _)| other == name);
    Ok(value.with_context(|| format!("its value `{name}` was not handed out"))?.1.to_f32())
}

/// An input as a layer alone takes it: that of a matrix product as rows.
fn rows(geometry: &Geometry, x: ArrayD<f32>) -> Result<ArrayD<f32>> {
    let Geometry::MatMul(g) = geometry else { return Ok(x) };
    let rows = x.len() / g.k;
    Ok(x.into_shape_with_order(IxDyn(&[rows, g.k]))?)
}

/// Prints the errors, and which layers add most.
pub(super) fn print_table(layers: &[LayerError], unmatched: &[String]) {
    let mut header = vec!["layer", "op", "weights", "activations", "input error", "own error", "output error"];
    let clipped = layers.iter().any(|layer| layer.activations_beyond.is_some());
    if clipped {
        header.push("beyond codes");
    }
    let mut table = Table::new(4, &header);
    for layer in layers {
        let mut row = vec![layer.name.clone(), layer.op.to_owned(), layer.weights.clone(), layer.activations.clone()];
        let errors = [layer.input_relative, layer.own_relative, layer.output_relative];
        row.extend(errors.map(|error| format!("{error:.2e}")));
        if clipped {
            row.push(layer.activations_beyond.map_or("-".to_owned(), |share| format!("{:.3} %", 100.0 * share)));
        }
        table.row(row);
    }
    print!("\n{table}");
    if !unmatched.is_empty() {
        println!("not in the reference: {}", unmatched.join(", "));
    }
    let mut largest: Vec<_> = layers.iter().collect();
    largest.sort_by(|a, b| b.own_relative.total_cmp(&a.own_relative));
    let names = largest.iter().take(NAMED).map(|layer| format!("{} ({:.2e})", layer.name, layer.own_relative));
    println!("most error enters at {}", names.collect::<Vec<_>>().join(", "));
}
