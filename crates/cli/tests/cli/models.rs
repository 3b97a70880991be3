//! The digits network and what can be made of it, a small network for colour images, and data for both.

use fpxint_onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto::Dimension,
    tensor_shape_proto::dimension, type_proto,
};
use ndarray::Array4;
use prost::Message;

/// The network that reads digits, as a file.
pub const DIGITS: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/digits.onnx"));

/// The network that reads digits, decoded.
pub fn digits() -> ModelProto {
    ModelProto::decode(DIGITS).unwrap()
}

/// Reproducible values in `[0, 1)`.
pub fn noise(len: usize) -> impl Iterator<Item = f32> {
    let mut state = 0x2545_f491u32;
    (0..len).map(move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 24) as f32
    })
}

/// Images for the digits network.
pub fn images(count: usize) -> Array4<f32> {
    Array4::from_shape_vec((count, 1, 8, 8), noise(count * 64).collect()).unwrap()
}

/// An initialiser by name.
pub fn tensor<'a>(graph: &'a mut GraphProto, name: &str) -> &'a mut TensorProto {
    graph.initializer.iter_mut().find(|t| t.name.as_deref() == Some(name)).unwrap()
}

/// Replaces one value of a float initialiser.
pub fn set(graph: &mut GraphProto, name: &str, element: usize, value: f32) {
    let tensor = tensor(graph, name);
    let mut raw = tensor.raw_data.take().unwrap().to_vec();
    raw[4 * element..][..4].copy_from_slice(&value.to_le_bytes());
    tensor.raw_data = Some(raw.into());
}

/// A float initialiser.
pub fn floats(name: &str, dims: &[i64], values: impl IntoIterator<Item = f32>) -> TensorProto {
    raw(name, DataType::Float, dims, values.into_iter().flat_map(f32::to_le_bytes).collect())
}

/// An initialiser of any type.
pub fn raw(name: &str, dtype: DataType, dims: &[i64], bytes: Vec<u8>) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        data_type: Some(dtype as i32),
        dims: dims.to_vec(),
        raw_data: Some(bytes.into()),
        ..Default::default()
    }
}

/// A node. An attribute of one value is that value, but `axes` are a list.
pub fn node(op: &str, name: &str, inputs: &[&str], output: &str, attributes: &[(&str, &[i64])]) -> NodeProto {
    let attribute = |&(name, values): &(&str, &[i64])| match values {
        [one] if name != "axes" => AttributeProto {
            name: Some(name.into()),
            r#type: Some(AttributeType::Int as i32),
            i: Some(*one),
            ..Default::default()
        },
        _ => AttributeProto {
            name: Some(name.into()),
            r#type: Some(AttributeType::Ints as i32),
            ints: values.to_vec(),
            ..Default::default()
        },
    };
    NodeProto {
        op_type: Some(op.into()),
        name: Some(name.into()),
        input: inputs.iter().map(|&s| s.into()).collect(),
        output: vec![output.into()],
        attribute: attributes.iter().map(attribute).collect(),
        ..Default::default()
    }
}

/// Puts `node` in front of the node called `before`, which reads `node`'s output where it read `instead_of`.
pub fn insert(graph: &mut GraphProto, node: NodeProto, before: &str, instead_of: &str) {
    let at = graph.node.iter().position(|n| n.name.as_deref() == Some(before)).unwrap();
    for input in graph.node[at].input.iter_mut().filter(|input| *input == instead_of) {
        input.clone_from(&node.output[0]);
    }
    graph.node.insert(at, node);
}

/// An input or output; a size of -1 is the symbol `n`, one of -2 the symbol `s`.
pub fn value(name: &str, dtype: DataType, dims: &[i64]) -> ValueInfoProto {
    let size = |size: i64| match size {
        -1 => dimension::Value::DimParam("n".into()),
        -2 => dimension::Value::DimParam("s".into()),
        size => dimension::Value::DimValue(size),
    };
    let dim = dims.iter().map(|&d| Dimension { value: Some(size(d)), ..Default::default() }).collect();
    let tensor = type_proto::Tensor { elem_type: Some(dtype as i32), shape: Some(TensorShapeProto { dim }) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(kind), ..Default::default() }
}

/// A network that sorts colour images into classes: a convolution, Relu, GlobalAveragePool and Gemm, all of random weights.
pub fn colour(batch: i64, size: i64, classes: i64) -> ModelProto {
    let weights = |len: i64| noise(len as usize).map(|v| 2.0 * v - 1.0);
    let graph = GraphProto {
        name: Some("colour".into()),
        input: vec![value("input", DataType::Float, &[batch, 3, size, size])],
        output: vec![value("scores", DataType::Float, &[batch, classes])],
        initializer: vec![
            floats("conv.weight", &[8, 3, 3, 3], weights(216)),
            floats("classifier.weight", &[classes, 8], weights(8 * classes).map(|w| 4.0 * w)),
        ],
        node: vec![
            node("Conv", "conv", &["input", "conv.weight"], "c", &[("pads", &[1, 1, 1, 1])]),
            node("Relu", "relu", &["c"], "r", &[]),
            node("GlobalAveragePool", "pool", &["r"], "p", &[]),
            node("Flatten", "flatten", &["p"], "f", &[]),
            node("Gemm", "classifier", &["f", "classifier.weight"], "scores", &[("transB", &[1])]),
        ],
        ..Default::default()
    };
    let import = OperatorSetIdProto { domain: Some(String::new()), version: Some(13) };
    ModelProto { ir_version: Some(8), opset_import: vec![import], graph: Some(graph), ..Default::default() }
}
