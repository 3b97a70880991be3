//! Finds the layers of a graph: each Conv, Gemm and MatMul with constant weights, and why some cannot be expanded.

use std::collections::HashMap;

use fpxint::{ActivationClip, Geometry, Precision};

use crate::artefact::{Metadata, Pattern, SeriesPlan};
use crate::constants::Constant;
use crate::error::shown;
use crate::fold::{Fold, absorb, is_bias};
use crate::index::Index;
use crate::model::Skipped;
use crate::node::{attribute, float, input, node_name, onnx_op};
use crate::proto::{NodeProto, tensor_proto::DataType};
use crate::rotation::Turn;
use crate::tensor::{is_float, type_name};
use crate::{Error, geometry, rotation};

/// Where the weights of a layer come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A float constant.
    Float(Constant),
    /// The terms of an artefact.
    Series(SeriesPlan),
}

/// A layer of the graph, nothing of it decoded.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Number of its node.
    pub node: usize,
    /// The value that enters it: before it is turned, where it is.
    pub input: String,
    /// What turns it.
    pub turn: Option<Turn>,
    /// Unique name.
    pub name: String,
    /// `Conv`, `Gemm` or `MatMul`.
    pub op_type: &'static str,
    pub geometry: Geometry,
    pub source: Source,
    /// Data type in which the node computes.
    pub dtype: i32,
    /// What is folded into weights and bias, in order.
    pub folds: Vec<Fold>,
    /// Nodes folded.
    pub absorbed: Vec<usize>,
    /// The value that the layer with all its folds makes.
    pub output: String,
    pub activations: Option<Precision>,
    pub activation_clip: ActivationClip,
}

impl Plan {
    /// Whether its weights are a series already.
    pub fn is_series(&self) -> bool {
        matches!(self.source, Source::Series(_))
    }
}

/// What a graph holds.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub plans: Vec<Plan>,
    pub skipped: Vec<Skipped>,
}

impl Found {
    /// In an artefact, layers that are no series were excluded from it and are no layers of it.
    fn settled(mut self) -> Self {
        if self.plans.iter().any(Plan::is_series) {
            let (series, floats) = self.plans.into_iter().partition(Plan::is_series);
            self.plans = series;
            let excluded = |plan: Plan| Skipped {
                name: plan.name,
                op_type: plan.op_type.to_owned(),
                reason: "it was left in full precision".to_owned(),
            };
            self.skipped.extend(floats.into_iter().map(excluded));
        }
        self
    }
}

/// Finds the layers of a checked graph.
pub(crate) fn find(index: &Index, metadata: &Metadata, file: &str) -> Result<Found, Error> {
    // An unnamed layer is named after its output, and no other node may have that name.
    let others = index.graph.node.iter().filter(|node| !matches!(onnx_op(node), "Conv" | "Gemm" | "MatMul"));
    let names = others.filter_map(|node| Some((printable(node.name.as_deref()?), 0))).collect();
    let mut finder = Finder { index, metadata, file, found: Found::default(), names, turns: HashMap::new() };
    for (at, node) in index.graph.node.iter().enumerate().filter(|&(at, _)| index.is_live(at)) {
        match onnx_op(node) {
            "Conv" => finder.product(at, node, "Conv")?,
            "Gemm" => finder.product(at, node, "Gemm")?,
            "MatMul" => finder.product(at, node, "MatMul")?,
            _ => {}
        }
    }
    let mut found = finder.found;
    let turning = rotation::settle(index, &mut found.plans);
    found.plans.retain(|plan| !turning.contains(&plan.node));
    Ok(found.settled())
}

struct Finder<'a> {
    index: &'a Index<'a>,
    metadata: &'a Metadata,
    file: &'a str,
    found: Found,
    /// How often a layer name has been given.
    names: HashMap<String, usize>,
    /// By value that a product reads, what turns it and the value before.
    turns: HashMap<&'a str, Option<(Turn, &'a str)>>,
}

impl<'a> Finder<'a> {
    /// A Conv, Gemm or MatMul: a layer, skipped, or without constant weights.
    fn product(&mut self, at: usize, node: &'a NodeProto, op_type: &'static str) -> Result<(), Error> {
        let (Some(x), Some(w)) = (input(node, 0), input(node, 1)) else { return Ok(()) };
        let Some(output) = node.output.first().filter(|name| !name.is_empty()) else { return Ok(()) };
        let name = self.layer_name(node, output);
        let pattern = Pattern::find(self.index, w);
        let constant = if pattern.is_none() { Constant::find(self.index, w) } else { None };
        let (shape, dtype) = match (&pattern, &constant) {
            (Some(pattern), _) => (pattern.shape(), DataType::Float as i32),
            (None, Some(constant)) => (constant.shape.as_slice(), constant.dtype),
            (None, None) => {
                if op_type != "Conv" && Constant::find(self.index, x).is_some() {
                    self.skip(name, op_type, "its constant operand is the left one".to_owned());
                }
                return Ok(());
            }
        };
        if Constant::find(self.index, x).is_some() {
            return Ok(()); // A constant product: whoever runs the graph folds it.
        }
        if !is_float(dtype) {
            return self.not_float(name, op_type, w, dtype);
        }
        let shaped = match op_type {
            "Conv" => geometry::conv(node, shape),
            "Gemm" => geometry::gemm(node, shape),
            _ => geometry::matmul(shape, false),
        };
        let parts = shaped.and_then(|geometry| Ok((self.own_folds(node, op_type, &geometry)?, geometry)));
        let (folds, geometry) = match parts {
            Ok(parts) => parts,
            Err(reason) => {
                self.skip(name, op_type, reason);
                return Ok(());
            }
        };
        let record = self.metadata.layer(&name);
        let source = match (pattern, constant) {
            (Some(pattern), _) => {
                let scaled = folds.iter().any(|fold| matches!(fold, Fold::Alpha(_)));
                let series = if scaled { Err("alpha is not 1".to_owned()) } else { pattern.series(&geometry, record) };
                Source::Series(series.map_err(|reason| self.metadata.fault(self.file, node, reason))?)
            }
            (None, Some(constant)) => Source::Float(constant),
            (None, None) => return Ok(()),
        };
        let record = record.filter(|_| matches!(source, Source::Series(_)));
        let (absorbed, output) = (Vec::new(), output.clone());
        let (turn, x) = match &geometry {
            Geometry::MatMul(g) => self.turned(x, g.k),
            Geometry::Conv(_) => (None, x),
        };
        let mut plan = Plan {
            node: at,
            input: x.to_owned(),
            turn,
            name,
            op_type,
            geometry,
            source,
            dtype,
            folds,
            absorbed,
            output,
            activations: record.map(|r| r.activations),
            activation_clip: record.map_or(ActivationClip::None, |r| r.activation_clip),
        };
        absorb(self.index, &mut plan);
        self.found.plans.push(plan);
        Ok(())
    }

    /// What turns the input `x` of a product of a depth, and the value before.
    fn turned(&mut self, x: &'a str, depth: usize) -> (Option<Turn>, &'a str) {
        let found = self.turns.entry(x).or_insert_with(|| Turn::find(self.index, x)).as_ref();
        let fits = |turn: &Turn| depth.is_multiple_of(turn.rotation.block());
        found.filter(|(turn, _)| fits(turn)).map_or((None, x), |(turn, before)| (Some(turn.clone()), before))
    }

    /// Bias, alpha and beta of the node itself.
    fn own_folds(&self, node: &NodeProto, op_type: &str, geometry: &Geometry) -> Result<Vec<Fold>, String> {
        let mut folds = Vec::new();
        let is_gemm = op_type == "Gemm";
        let alpha = f64::from(float(node, "alpha", 1.0));
        if is_gemm && alpha != 1.0 {
            folds.push(Fold::Alpha(alpha));
        }
        if attribute(node, "broadcast").is_some() {
            return Err("it broadcasts in the way of an operator set before 7".to_owned());
        }
        if let Some(name) = input(node, 2).filter(|_| op_type != "MatMul") {
            let constant = Constant::find(self.index, name).filter(|c| is_float(c.dtype));
            let constant = constant.ok_or_else(|| format!("its bias {} is not constant", shown(name)))?;
            if !is_bias(geometry, &constant.shape) {
                let channels = geometry.channels_out();
                return Err(format!("its bias has dimensions {:?} for {channels} channels", constant.shape));
            }
            folds.push(Fold::Add(constant, if is_gemm { f64::from(float(node, "beta", 1.0)) } else { 1.0 }));
        }
        Ok(folds)
    }

    fn not_float(&mut self, name: String, op_type: &'static str, w: &str, dtype: i32) -> Result<(), Error> {
        use DataType::*;
        let integer = [Int8, Uint8, Int16, Uint16, Int32, Uint32, Int64, Uint64, Bool].map(|t| t as i32);
        if integer.contains(&dtype) {
            self.skip(name, op_type, "its weights are integers".to_owned());
            return Ok(());
        }
        Err(Error::DataType { file: self.file.to_owned(), tensor: shown(w), dtype: type_name(dtype) })
    }

    fn skip(&mut self, name: String, op_type: &str, reason: String) {
        self.found.skipped.push(Skipped { name, op_type: op_type.to_owned(), reason });
    }

    /// Name of the node or, without one, of its output; made unique by a number.
    fn layer_name(&mut self, node: &NodeProto, output: &str) -> String {
        let name = node.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(output);
        let plain = printable(name);
        let mut count = *self.names.get(&plain).unwrap_or(&0);
        let mut unique = plain.clone();
        while self.names.contains_key(&unique) {
            count += 1;
            unique = format!("{plain}_{}", count + 1);
        }
        self.names.insert(plain, count);
        self.names.entry(unique.clone()).or_insert(0);
        unique
    }
}

/// A name that fits a line: control characters replaced, at most 200 characters.
pub(crate) fn printable(name: &str) -> String {
    name.chars().take(200).map(|c| if c.is_control() { '_' } else { c }).collect()
}

/// Name of a node as [`Skipped`] shows it.
pub(crate) fn plain_name(node: &NodeProto) -> String {
    match node.name.as_deref().filter(|name| !name.is_empty()).or(node.output.first().map(String::as_str)) {
        Some(name) => printable(name),
        None => node_name(node),
    }
}
