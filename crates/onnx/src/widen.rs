//! Graphs that compute in BF16, rewritten to compute in FP32: hosts know FP16, but not BF16. Every BF16 value is an f32.

use crate::node::bodies_mut;
use crate::proto::{
    AttributeProto, GraphProto, TensorProto, ValueInfoProto, tensor_proto::DataLocation, tensor_proto::DataType,
    type_proto,
};
use crate::tensor;

const NARROW: i32 = DataType::Bfloat16 as i32;
const WIDE: i32 = DataType::Float as i32;

/// Whether an input or initialiser of the graph is in BF16.
pub(crate) fn is_narrow(graph: &GraphProto) -> bool {
    let input = |value: &ValueInfoProto| match value.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => tensor.elem_type == Some(NARROW),
        _ => false,
    };
    graph.input.iter().any(input) || graph.initializer.iter().any(|t| t.data_type == Some(NARROW))
}

/// Turns BF16 into FP32 throughout: types of values, initialisers, constants, and what Cast and its like make.
pub(crate) fn widen(graph: &mut GraphProto) {
    let values = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    for value in values {
        if let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_mut().and_then(|t| t.value.as_mut())
            && tensor.elem_type == Some(NARROW)
        {
            tensor.elem_type = Some(WIDE);
        }
    }
    graph.initializer.iter_mut().for_each(widen_tensor);
    for node in &mut graph.node {
        node.attribute.iter_mut().for_each(widen_attribute);
        bodies_mut(node).for_each(widen);
    }
}

fn widen_attribute(attribute: &mut AttributeProto) {
    attribute.t.iter_mut().chain(&mut attribute.tensors).for_each(widen_tensor);
    let is_type = matches!(attribute.name.as_deref(), Some("to" | "dtype"));
    if is_type && attribute.i == Some(i64::from(NARROW)) {
        attribute.i = Some(i64::from(WIDE));
    }
}

fn widen_tensor(narrow: &mut TensorProto) {
    let elsewhere = narrow.data_location == Some(DataLocation::External as i32);
    if narrow.data_type != Some(NARROW) || elsewhere {
        return;
    }
    if let Some(values) = tensor::floats(narrow) {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        *narrow = TensorProto {
            name: narrow.name.take(),
            dims: std::mem::take(&mut narrow.dims),
            data_type: Some(WIDE),
            raw_data: Some(bytes.into()),
            ..TensorProto::default()
        };
    }
}
