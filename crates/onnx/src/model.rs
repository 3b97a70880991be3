//! A model as read: its layers, decoded one at a time, and the graph around them.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use fpxint::{ActivationClip, AttentionPrecision, Geometry, Layer, Precision, Rotation, Weight};
use prost::Message;

use crate::artefact::Metadata;
use crate::constants::Constant;
use crate::external::{self, External, held, is_external};
use crate::index::Index;
use crate::layers::{Plan, Source};
use crate::node::node_name;
use crate::proto::tensor_shape_proto::{Dimension, dimension};
use crate::proto::{GraphProto, ModelProto, TensorProto, TensorShapeProto, ValueInfoProto, type_proto};
use crate::stream::Data;
use crate::{
    Error, Limits, available_memory, check, dims, error::shown, fold, foreign, fuse, layers, tensor, widen, wire,
};

/// What is known of a layer before its weights are decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// Name of the node or, without one, of its output; unique in the model.
    pub name: String,
    /// `Conv`, `Gemm` or `MatMul`.
    pub op_type: &'static str,
    /// What it computes.
    pub geometry: Geometry,
    /// Precision of the weights, where they are a series already.
    pub weights: Option<Precision>,
    /// Precision of the activations, where an artefact states it.
    pub activations: Option<Precision>,
    /// How they are clipped, where an artefact states it.
    pub activation_clip: ActivationClip,
    /// Number of weights.
    pub elements: usize,
    /// Name of the value that enters it, before it is rotated.
    pub input: String,
    /// What rotates it, and is taken into account in the weights.
    pub rotation: Option<Rotation>,
    /// Name of the value that it makes, with everything that is folded into it.
    pub output: String,
}

/// A node with constant weights that is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Name of the node.
    pub name: String,
    /// Its operator.
    pub op_type: String,
    /// Why.
    pub reason: String,
}

/// What a node of the graph is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operator<'a> {
    /// Its name or, without one, its first output.
    pub name: &'a str,
    /// Its domain; empty for ONNX's own.
    pub domain: &'a str,
    /// Its operator.
    pub op_type: &'a str,
}

/// A dimension of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// Known.
    Fixed(u64),
    /// The same wherever the symbol occurs.
    Symbol(String),
    /// Not stated.
    Unknown,
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueInfo {
    /// Its name.
    pub name: String,
    /// ONNX name of its element type, as in `FLOAT`; `UNDEFINED` for what is no tensor.
    pub elem_type: String,
    /// Its dimensions; empty for a scalar, and where the file states none.
    pub dims: Vec<Dim>,
}

/// An ONNX model whose layers are found and whose weights are still in the file's bytes or in other files of its folder.
#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) file: String,
    pub(crate) proto: ModelProto,
    pub(crate) plans: Vec<Plan>,
    bytes: Bytes,
    infos: Vec<LayerInfo>,
    skipped: Vec<Skipped>,
    opset: i64,
    external: Option<External>,
    attention: Option<AttentionPrecision>,
    /// Outputs that the file does not have.
    pub(crate) exposed: Vec<ValueInfoProto>,
}

/// Reads a model file: an FP32, FP16 or BF16 model or an artefact. Initialisers may lie in other files of its folder; of
/// those, matrices are read when they are needed.
///
/// # Errors
/// Every variant of [`Error`] but the last two; the file is not trusted in anything.
pub fn read(path: &Path, limits: &Limits) -> Result<Model, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let label = printable_path(path);
    if length > limits.max_file_bytes {
        return Err(oversize(label, limits));
    }
    if available_memory().is_some_and(|available| length > available) {
        return Err(io(io::Error::new(
            io::ErrorKind::OutOfMemory,
            format!("its {length} bytes do not fit the memory"),
        )));
    }
    let mut bytes = Vec::new();
    let room = bytes.try_reserve_exact(usize::try_from(length).unwrap_or(0));
    room.map_err(|e| io(io::Error::other(format!("its {length} bytes: {e}"))))?;
    file.by_ref().take(limits.max_file_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    decode(bytes.into(), &label, limits, Some(folder))
}

/// Reads a model from memory; `label` stands for the file in messages. Tensors in other files are refused.
///
/// # Errors
/// As [`read`], without [`Error::Io`].
pub fn parse(bytes: Bytes, label: &str, limits: &Limits) -> Result<Model, Error> {
    decode(bytes, label, limits, None)
}

fn decode(bytes: Bytes, label: &str, limits: &Limits, folder: Option<&Path>) -> Result<Model, Error> {
    let not_onnx = |reason: String| Error::NotOnnx { file: label.to_owned(), reason };
    if bytes.len() as u64 > limits.max_file_bytes {
        return Err(oversize(label.to_owned(), limits));
    }
    let beyond = |what: &str, limit| Error::Limit { file: label.to_owned(), what: what.to_owned(), limit };
    wire::scan(&bytes, limits).map_err(|fault| match fault {
        wire::Fault::Malformed(at) => not_onnx(format!("its protobuf is malformed at byte {at}")),
        wire::Fault::Nodes => beyond("the number of nodes", limits.max_nodes),
        wire::Fault::Records => beyond("the number of records", limits.max_records),
        wire::Fault::Nesting => beyond("the depth of records within records", limits.max_nesting.into()),
    })?;
    let mut proto =
        ModelProto::decode(bytes.clone()).map_err(|e| not_onnx(e.to_string().escape_debug().to_string()))?;
    let external = match (&proto.graph, folder) {
        (Some(graph), Some(folder)) => External::find(graph, folder, label)?,
        _ => None,
    };
    check::check(&proto, label, limits, external.as_ref())?;
    if external::total(&proto, bytes.len()) > limits.max_total_bytes {
        return Err(beyond("the size of the model and its other files in bytes", limits.max_total_bytes));
    }
    if let (Some(external), Some(graph)) = (&external, &mut proto.graph) {
        external.take_vectors(graph, limits)?;
    }
    let graph = proto.graph.as_ref().ok_or_else(|| not_onnx("there is no graph".to_owned()))?;
    if let Some((node, elements)) = fuse::oversized(graph, limits.max_tensor_elements) {
        let what = format!("what {} makes, {elements} elements,", node_name(node));
        return Err(beyond(&what, limits.max_tensor_elements));
    }
    let opset = check::opset(&proto).unwrap_or(0);
    let metadata = Metadata::read(&proto, label)?;
    foreign::refuse(&proto, graph, label)?;
    let index = Index::new(graph);
    let mut found = layers::find(&index, &metadata, label)?;
    foreign::list_skipped(&proto, &index, &mut found);
    let claimed: HashSet<usize> = found.plans.iter().filter_map(series_nodes).flatten().copied().collect();
    if let Some(node) = foreign::unclaimed(graph, &claimed) {
        let reason = "it is not part of an expanded weight".to_owned();
        return Err(metadata.fault(label, node, reason));
    }
    let infos = found.plans.iter().map(info).collect();
    let (plans, skipped, file) = (found.plans, found.skipped, label.to_owned());
    let attention = metadata.attention;
    Ok(Model { file, proto, plans, bytes, infos, skipped, opset, external, attention, exposed: Vec::new() })
}

fn oversize(file: String, limits: &Limits) -> Error {
    Error::Limit { file, what: "the size of the file in bytes".to_owned(), limit: limits.max_file_bytes }
}

fn printable_path(path: &Path) -> String {
    path.display().to_string().chars().map(|c| if c.is_control() { '_' } else { c }).collect()
}

pub(crate) fn series_nodes(plan: &Plan) -> Option<&Vec<usize>> {
    match &plan.source {
        Source::Series(series) => Some(&series.nodes),
        Source::Float(_) => None,
    }
}

fn info(plan: &Plan) -> LayerInfo {
    let weights = match &plan.source {
        Source::Series(series) => Some(series.precision),
        Source::Float(_) => None,
    };
    LayerInfo {
        name: plan.name.clone(),
        op_type: plan.op_type,
        geometry: plan.geometry.clone(),
        weights,
        activations: plan.activations,
        activation_clip: plan.activation_clip,
        elements: plan.geometry.weight_shape().iter().product(),
        input: plan.input.clone(),
        rotation: plan.turn.as_ref().map(|turn| turn.rotation),
        output: plan.output.clone(),
    }
}

impl Model {
    /// How attention computes, where an artefact states it or [`Model::state_attention`] was told.
    pub fn attention(&self) -> Option<AttentionPrecision> {
        self.attention
    }

    /// States how attention computes; an artefact of the model says so then.
    pub fn state_attention(&mut self, attention: AttentionPrecision) {
        self.attention = Some(attention);
    }

    /// The layers in the order of the graph; a layer's place here is its identity.
    pub fn layers(&self) -> &[LayerInfo] {
        &self.infos
    }

    /// Decodes layer `index`: weights and bias with everything folded into them, in f64, rounded once to f32.
    ///
    /// DOUBLE weights are rounded to f32 before anything is folded into them. Where a rotation of its input is asked for, the
    /// weights are those of the rotated input.
    ///
    /// # Errors
    /// [`Error::Artefact`] for terms that are no series, [`Error::DataType`] for parameters that are no floats,
    /// [`Error::ExternalData`] for a tensor whose file cannot be read.
    ///
    /// # Panics
    /// Unless `index < self.layers().len()`.
    pub fn layer(&self, index: usize) -> Result<Layer, Error> {
        let (plan, graph) = (&self.plans[index], self.graph());
        let not_float = |name: &str| {
            let dtype = "that is no float".to_owned();
            Error::DataType { file: self.file.clone(), tensor: shown(name), dtype }
        };
        let external = self.external.as_ref();
        let doubles = |constant: &Constant| {
            let (graph, constant) = held(external, graph, constant)?;
            constant.doubles(&graph).ok_or_else(|| not_float(constant.name(&graph)))
        };
        let affine = fold::compose(plan, doubles)?.ok_or_else(|| not_float(&plan.name))?;
        let weight = match &plan.source {
            Source::Float(constant) => {
                let (graph, constant) = held(external, graph, constant)?;
                let mut values = constant.floats(&graph).ok_or_else(|| not_float(constant.name(&graph)))?;
                drop(graph);
                if let Some(factor) = &affine.factor {
                    scale_channels(&mut values, factor, &plan.geometry);
                }
                match (&plan.turn, &plan.geometry) {
                    (Some(turn), Geometry::MatMul(g)) if turn.nodes.is_empty() => {
                        Weight::Float(turn.rotation.weights(g, &values))
                    }
                    _ => Weight::Float(values),
                }
            }
            Source::Series(series) => {
                Weight::Series(series.decode(graph, external, &plan.name, &plan.geometry, &self.file)?)
            }
        };
        let bias = affine.shift.map(|shift| shift.into_iter().map(|v| v as f32).collect());
        Ok(Layer { name: plan.name.clone(), geometry: plan.geometry.clone(), weight, bias })
    }

    /// Tells of the layers what their plans say now.
    pub(crate) fn tell_layers(&mut self) {
        self.infos = self.plans.iter().map(info).collect();
    }

    /// Nodes with constant weights that are not expanded, and why.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// The file as read, without the other files its tensors lie in.
    pub fn original(&self) -> &Bytes {
        &self.bytes
    }

    /// The folder of the files that tensors of the model lie in; `None` where it holds them all itself.
    pub fn folder(&self) -> Option<&Path> {
        self.external.as_ref().map(External::folder)
    }

    /// The other files that its tensors lie in, in order.
    pub fn data_files(&self) -> Vec<&Path> {
        self.external.as_ref().map_or_else(Vec::new, External::paths)
    }

    /// Size of the file and of the other files its tensors lie in.
    pub fn file_bytes(&self) -> u64 {
        self.bytes.len() as u64 + self.external.as_ref().map_or(0, External::bytes)
    }

    /// The file as any host can read it: open input dimensions named plainly, BF16 as FP32, values that were exposed among
    /// its outputs; nothing else is changed.
    ///
    /// # Errors
    /// [`Error::NotOnnx`] where the file no longer decodes, which reading it has ruled out.
    pub fn readable(&self) -> Result<Bytes, Error> {
        if dims::are_plain(self.graph()) && !widen::is_narrow(self.graph()) && self.exposed.is_empty() {
            return Ok(self.bytes.clone());
        }
        let fault = |e: prost::DecodeError| Error::NotOnnx { file: self.file.clone(), reason: e.to_string() };
        let mut proto = ModelProto::decode(self.bytes.clone()).map_err(fault)?;
        if let Some(graph) = &mut proto.graph {
            graph.output.extend(self.exposed.iter().cloned());
            dims::make_plain(graph);
            widen::widen(graph);
        }
        Ok(proto.encode_to_vec().into())
    }

    /// Whether some layer's weights are a series already.
    pub fn is_artefact(&self) -> bool {
        self.infos.iter().any(|layer| layer.weights.is_some())
    }

    /// Nodes of the main graph.
    pub fn operators(&self) -> impl Iterator<Item = Operator<'_>> {
        self.graph().node.iter().map(|node| Operator {
            name: node.name.as_deref().filter(|n| !n.is_empty()).or(node.output.first().map(|o| &**o)).unwrap_or(""),
            domain: node.domain.as_deref().unwrap_or(""),
            op_type: node.op_type.as_deref().unwrap_or(""),
        })
    }

    /// Inputs of the graph that are no initialisers.
    pub fn inputs(&self) -> Vec<ValueInfo> {
        let graph = self.graph();
        let constants: HashSet<&str> = graph.initializer.iter().filter_map(|t| t.name.as_deref()).collect();
        let given = graph.input.iter().filter(|i| !constants.contains(i.name.as_deref().unwrap_or("")));
        given.map(value_info).collect()
    }

    /// Outputs of the graph.
    pub fn outputs(&self) -> Vec<ValueInfo> {
        self.graph().output.iter().map(value_info).collect()
    }

    /// States the shapes of graph outputs that the file leaves out, so that a written artefact passes ONNX's checker; outputs
    /// that state one keep it. A dimension of `None` stays open.
    pub fn state_output_shapes(&mut self, shapes: &[(String, Vec<Option<u64>>)]) {
        let outputs = self.proto.graph.iter_mut().flat_map(|graph| &mut graph.output);
        for output in outputs {
            let stated = shapes.iter().find(|(name, _)| output.name.as_deref() == Some(name));
            let kind = output.r#type.as_mut().and_then(|t| t.value.as_mut());
            let (Some((_, dims)), Some(type_proto::Value::TensorType(tensor))) = (stated, kind) else { continue };
            tensor.shape.get_or_insert_with(|| {
                let value = |size: &u64| i64::try_from(*size).ok().map(dimension::Value::DimValue);
                let dim = |size: &Option<u64>| Dimension { denotation: None, value: size.as_ref().and_then(value) };
                TensorShapeProto { dim: dims.iter().map(dim).collect() }
            });
        }
    }

    /// Version of ONNX's own operator set.
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// The data of a tensor that lies in another file.
    pub(crate) fn elsewhere(&self, tensor: &TensorProto) -> Result<Option<Data<'static>>, Error> {
        match &self.external {
            Some(external) if is_external(tensor) => {
                Ok(Some(Data::Elsewhere(external.place(tensor, tensor::byte_len(tensor).unwrap_or(0))?)))
            }
            _ => Ok(None),
        }
    }

    pub(crate) fn graph(&self) -> &GraphProto {
        self.proto.graph.as_ref().expect("a checked model has a graph")
    }
}

/// `w[c] *= factor[c]` in f64, along the channels of a layer's weights.
fn scale_channels(values: &mut [f32], factor: &[f64], geometry: &Geometry) {
    let inner: usize = geometry.weight_shape()[geometry.channel_axis() + 1..].iter().product();
    for (block, run) in values.chunks_mut(inner).enumerate() {
        let factor = factor[block % factor.len()];
        run.iter_mut().for_each(|w| *w = (f64::from(*w) * factor) as f32);
    }
}

fn value_info(info: &ValueInfoProto) -> ValueInfo {
    let name = info.name.clone().unwrap_or_default();
    let tensor = match info.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => Some(tensor),
        _ => None,
    };
    let elem_type = tensor::type_name(tensor.and_then(|t| t.elem_type).unwrap_or(0));
    let dim = |dim: &Dimension| match &dim.value {
        Some(dimension::Value::DimValue(size)) => u64::try_from(*size).map_or(Dim::Unknown, Dim::Fixed),
        Some(dimension::Value::DimParam(symbol)) if !symbol.is_empty() => Dim::Symbol(symbol.clone()),
        _ => Dim::Unknown,
    };
    let dims = tensor.and_then(|t| t.shape.as_ref()).map_or_else(Vec::new, |s| s.dim.iter().map(dim).collect());
    ValueInfo { name, elem_type, dims }
}
