//! One layer as a model of its own: what the layer computes in FP32, without the graph around it.

use std::borrow::Cow;

use fpxint::{Geometry, Layer, Padding, Weight};
use prost::Message;

use crate::model::{Model, parse};
use crate::node::{int_attribute, ints_attribute, make, string_attribute};
use crate::proto::tensor_shape_proto::{Dimension, dimension};
use crate::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, tensor_proto::DataType, type_proto,
};
use crate::{Error, Limits};

/// Operator set of a layer alone: Gemm without a bias begins at 11.
const OPSET: i64 = 13;
const IR_VERSION: i64 = 8;

impl Model {
    /// Layer `index` as a model of one node, its folded weights and bias as initialisers: from `x` to `y`, both FLOAT.
    ///
    /// * `x`: `(batch, channels_in, [height,] width)` for a convolution, all but the channels open; `(rows, k)` for a matrix
    ///   product of whatever rank. `y`: `(batch, channels_out, ..)` and `(rows, n)`.
    ///
    /// A layer whose weights are a series has the values that the series stands for, rounded to f32; one whose input is rotated
    /// takes it as it is before.
    ///
    /// # Errors
    /// As [`Model::layer`].
    ///
    /// # Panics
    /// Unless `index < self.layers().len()`.
    pub fn alone(&self, index: usize) -> Result<Model, Error> {
        let layer = self.layer(index)?;
        let values = match &layer.weight {
            Weight::Float(values) => Cow::Borrowed(values.as_slice()),
            Weight::Series(series) => {
                Cow::Owned(series.values(&layer.name, series.precision().order())?.map(|v| v as f32).collect())
            }
        };
        let values = match (self.layers()[index].rotation, &layer.geometry) {
            (Some(rotation), Geometry::MatMul(g)) => Cow::Owned(rotation.restored(g, &values)),
            _ => values,
        };
        let weights = float_tensor("w", &layer.geometry.weight_shape(), &values);
        let bias = layer.bias.as_ref().map(|bias| float_tensor("b", &[bias.len()], bias));
        let inputs = if bias.is_some() { &["x", "w", "b"][..] } else { &["x", "w"] };
        let graph = GraphProto {
            name: Some(layer.name.clone()),
            node: vec![node(&layer, inputs)],
            initializer: [Some(weights), bias].into_iter().flatten().collect(),
            input: vec![value("x", &input_dims(&layer.geometry))],
            output: vec![value("y", &vec![None; input_dims(&layer.geometry).len()])],
            ..GraphProto::default()
        };
        let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) };
        let model = ModelProto {
            ir_version: Some(IR_VERSION),
            opset_import: vec![opset],
            producer_name: Some("fpxint".to_owned()),
            graph: Some(graph),
            ..ModelProto::default()
        };
        parse(model.encode_to_vec().into(), &self.file, &Limits::default())
    }
}

fn node(layer: &Layer, inputs: &[&str]) -> NodeProto {
    let (op_type, attribute) = match &layer.geometry {
        Geometry::MatMul(g) => ("Gemm", vec![int_attribute("transB", i64::from(g.transposed))]),
        Geometry::Conv(g) => {
            let from = 2 - g.spatial_rank;
            let attributes = vec![
                int_attribute("group", g.groups as i64),
                ints_attribute("kernel_shape", &g.kernel[from..]),
                ints_attribute("strides", &g.strides[from..]),
                ints_attribute("dilations", &g.dilations[from..]),
                padding(&g.padding, from),
            ];
            ("Conv", attributes)
        }
    };
    let mut node = make("", op_type, inputs, "y");
    node.name = Some(layer.name.clone());
    node.attribute = attribute;
    node
}

fn padding(padding: &Padding, from: usize) -> AttributeProto {
    match padding {
        Padding::Explicit(pads) => ints_attribute("pads", &[&pads[from..2], &pads[2 + from..]].concat()),
        Padding::SameUpper => string_attribute("auto_pad", "SAME_UPPER"),
        Padding::SameLower => string_attribute("auto_pad", "SAME_LOWER"),
    }
}

/// Dimensions of `x`; `None` where they are open.
fn input_dims(geometry: &Geometry) -> Vec<Option<usize>> {
    match geometry {
        Geometry::MatMul(g) => vec![None, Some(g.k)],
        Geometry::Conv(g) => [&[None, Some(g.channels_in)][..], &vec![None; g.spatial_rank]].concat(),
    }
}

fn value(name: &str, dims: &[Option<usize>]) -> ValueInfoProto {
    let dim = |(axis, size): (usize, &Option<usize>)| {
        let value = match size {
            Some(size) => dimension::Value::DimValue(*size as i64),
            None => dimension::Value::DimParam(format!("{name}{axis}")),
        };
        Dimension { denotation: None, value: Some(value) }
    };
    let shape = TensorShapeProto { dim: dims.iter().enumerate().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(DataType::Float as i32), shape: Some(shape) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind), ..ValueInfoProto::default() }
}

fn float_tensor(name: &str, shape: &[usize], values: &[f32]) -> TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    TensorProto {
        dims: shape.iter().map(|&size| size as i64).collect(),
        data_type: Some(DataType::Float as i32),
        name: Some(name.to_owned()),
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    }
}
