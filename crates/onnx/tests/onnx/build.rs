//! A compact builder of ONNX models.

use bytes::Bytes;
use fpxint::{ExpandedLayer, Granularity, Layer, Settings, Weight, expand_layer};
use fpxint_onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType,
    tensor_shape_proto::Dimension, tensor_shape_proto::dimension, type_proto,
};
use fpxint_onnx::{EncodedLayer, Error, Limits, Model, encode, parse};
use prost::Message;

/// A model under construction: one input `x`, one output `y`, unless told otherwise.
#[derive(Clone)]
pub struct Build {
    pub proto: ModelProto,
}

impl Build {
    pub fn new(opset: i64, x: &[i64], y_rank: usize) -> Self {
        let graph = GraphProto {
            name: Some("g".into()),
            input: vec![value("x", DataType::Float, x)],
            output: vec![value("y", DataType::Float, &vec![-1; y_rank])],
            ..Default::default()
        };
        let import = OperatorSetIdProto { domain: Some(String::new()), version: Some(opset) };
        let proto =
            ModelProto { ir_version: Some(8), opset_import: vec![import], graph: Some(graph), ..Default::default() };
        Self { proto }
    }

    pub fn graph(&mut self) -> &mut GraphProto {
        self.proto.graph.as_mut().unwrap()
    }

    pub fn floats(mut self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        self.graph().initializer.push(floats(name, dims, values));
        self
    }

    pub fn tensor(mut self, tensor: TensorProto) -> Self {
        self.graph().initializer.push(tensor);
        self
    }

    pub fn node(mut self, node: NodeProto) -> Self {
        self.graph().node.push(node);
        self
    }

    pub fn op(self, op: &str, inputs: &[&str], output: &str) -> Self {
        self.node(node(op, inputs, output, vec![]))
    }

    pub fn bytes(&self) -> Bytes {
        self.proto.encode_to_vec().into()
    }

    pub fn parse(&self) -> Result<Model, Error> {
        parse(self.bytes(), "test.onnx", &Limits::default())
    }

    pub fn model(&self) -> Model {
        self.parse().unwrap()
    }
}

/// A dimension of -1 is the symbol `n`.
pub fn value(name: &str, dtype: DataType, dims: &[i64]) -> ValueInfoProto {
    let dim = |&size: &i64| Dimension {
        value: Some(match size {
            -1 => dimension::Value::DimParam("n".into()),
            size => dimension::Value::DimValue(size),
        }),
        ..Default::default()
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(dtype as i32), shape: Some(shape) };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(r#type), ..Default::default() }
}

pub fn raw(name: &str, dtype: DataType, dims: &[i64], bytes: Vec<u8>) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        data_type: Some(dtype as i32),
        dims: dims.to_vec(),
        raw_data: Some(bytes.into()),
        ..Default::default()
    }
}

pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    raw(name, DataType::Float, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

pub fn int64s(name: &str, values: &[i64]) -> TensorProto {
    raw(name, DataType::Int64, &[values.len() as i64], values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

pub fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: Some(op.into()),
        name: Some(format!("{op}_{output}")),
        input: inputs.iter().map(|&s| s.into()).collect(),
        output: vec![output.into()],
        attribute,
        ..Default::default()
    }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(kind as i32), ..Default::default() }
}

pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, AttributeType::Ints) }
}

pub fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, AttributeType::Float) }
}

pub fn string(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.into()), ..attribute(name, AttributeType::String) }
}

pub fn held(name: &str, tensor: TensorProto) -> AttributeProto {
    AttributeProto { t: Some(tensor), ..attribute(name, AttributeType::Tensor) }
}

pub fn body(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(graph), ..attribute(name, AttributeType::Graph) }
}

pub fn property(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) }
}

/// Distinct values of both signs.
pub fn ramp(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i as f32 * 1.7).sin() * 1.5) + 0.01 * i as f32).collect()
}

/// Convolution 3 -> 4 over 3 x 3 with bias.
pub fn conv(opset: i64) -> Build {
    let attributes = vec![ints("pads", &[1, 1, 1, 1])];
    Build::new(opset, &[1, 3, 8, 8], 4).floats("w", &[4, 3, 3, 3], &ramp(108)).floats("b", &[4], &ramp(4)).node(node(
        "Conv",
        &["x", "w", "b"],
        "y",
        attributes,
    ))
}

/// `x (2 x 5) W (5 x 3)`.
pub fn matmul(opset: i64) -> Build {
    Build::new(opset, &[2, 5], 2).floats("w", &[5, 3], &ramp(15)).op("MatMul", &["x", "w"], "y")
}

pub fn gemm(opset: i64, transposed: bool, attributes: Vec<AttributeProto>) -> Build {
    let dims = if transposed { [3, 5] } else { [5, 3] };
    let attributes = [vec![int("transB", transposed.into())], attributes].concat();
    Build::new(opset, &[2, 5], 2).floats("w", &dims, &ramp(15)).floats("c", &[3], &ramp(3)).node(node(
        "Gemm",
        &["x", "w", "c"],
        "y",
        attributes,
    ))
}

pub fn expand(model: &Model, weights: &str, granularity: Granularity) -> Vec<ExpandedLayer> {
    let (weights, activations) = (weights.parse().unwrap(), "int4x2".parse().unwrap());
    let settings = Settings {
        weights,
        activations,
        granularity,
        rounding: Default::default(),
        clip: Default::default(),
        asymmetric: false,
        activation_clip: Default::default(),
    };
    let layers = (0..model.layers().len()).map(|i| model.layer(i).unwrap());
    layers.map(|layer| expand_layer(&layer, &settings).unwrap()).collect()
}

pub fn encoded(layers: &[ExpandedLayer]) -> Vec<EncodedLayer> {
    layers.iter().map(encode).collect()
}

pub fn float_weights(layer: Layer) -> Vec<f32> {
    match layer.weight {
        Weight::Float(values) => values,
        Weight::Series(_) => panic!("a series"),
    }
}

/// Writes the model at a precision and parses what was written.
pub fn artefact(model: &Model, weights: &str, granularity: Granularity) -> (ModelProto, Model) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.onnx");
    fpxint_onnx::write(model, &encoded(&expand(model, weights, granularity)), &path).unwrap();
    let bytes: Bytes = std::fs::read(&path).unwrap().into();
    (ModelProto::decode(bytes.clone()).unwrap(), parse(bytes, "a.onnx", &Limits::default()).unwrap())
}
