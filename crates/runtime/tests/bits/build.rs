//! Small ONNX models for the tests, and the embedded network.

use fpxint_onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto, type_proto,
};
use fpxint_onnx::{Limits, Model, parse};
use prost::Message;

/// The network that `fpxint demo` runs.
pub(crate) fn digits() -> Model {
    parse(include_bytes!("../../../../assets/digits.onnx").as_slice().into(), "digits", &Limits::default()).unwrap()
}

/// Deterministic values in `(-span, span)`.
pub(crate) fn wave(len: usize, step: f32, span: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * step + 0.3).sin() * span).collect()
}

pub(crate) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    let kind = AttributeType::Ints as i32;
    AttributeProto { name: Some(name.into()), r#type: Some(kind), ints: values.to_vec(), ..Default::default() }
}

pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    let kind = AttributeType::Int as i32;
    AttributeProto { name: Some(name.into()), r#type: Some(kind), i: Some(value), ..Default::default() }
}

pub(crate) fn float(name: &str, value: f32) -> AttributeProto {
    let kind = AttributeType::Float as i32;
    AttributeProto { name: Some(name.into()), r#type: Some(kind), f: Some(value), ..Default::default() }
}

pub(crate) fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: Some(op.into()),
        name: Some(format!("{output}_node")),
        input: inputs.iter().map(|i| (*i).into()).collect(),
        output: vec![output.into()],
        attribute,
        ..Default::default()
    }
}

pub(crate) fn integers(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: vec![values.len() as i64],
        data_type: Some(DataType::Int64 as i32),
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

pub(crate) fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(DataType::Float as i32),
        float_data: values.to_vec(),
        ..Default::default()
    }
}

/// A float value; -1 stands for the batch and -2 for the length of a sequence.
pub(crate) fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |&size: &i64| {
        let value = match size {
            -1 => tensor_shape_proto::dimension::Value::DimParam("n".into()),
            -2 => tensor_shape_proto::dimension::Value::DimParam("t".into()),
            size => tensor_shape_proto::dimension::Value::DimValue(size),
        };
        tensor_shape_proto::Dimension { value: Some(value), ..Default::default() }
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(DataType::Float as i32), shape: Some(shape) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(kind), ..Default::default() }
}

/// A model with input `x` of shape `dims` (-1: the batch) and output `y`.
pub(crate) fn model(dims: &[i64], nodes: Vec<NodeProto>, constants: Vec<TensorProto>) -> Model {
    changed(dims, nodes, constants, |_| {})
}

/// The same model with something changed.
pub(crate) fn changed(
    dims: &[i64],
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    change: impl FnOnce(&mut GraphProto),
) -> Model {
    let mut output = value("y", &[]);
    if let Some(type_proto::Value::TensorType(tensor)) = output.r#type.as_mut().and_then(|t| t.value.as_mut()) {
        tensor.shape = None;
    }
    let mut graph = GraphProto {
        name: Some("test".into()),
        node: nodes,
        initializer: constants,
        input: vec![value("x", dims)],
        output: vec![output],
        ..Default::default()
    };
    change(&mut graph);
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
    let model = ModelProto { ir_version: Some(8), graph: Some(graph), opset_import: vec![opset], ..Default::default() };
    parse(model.encode_to_vec().into(), "test", &Limits::default()).unwrap()
}
