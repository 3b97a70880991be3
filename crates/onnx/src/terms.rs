//! The sum of scaled integer terms that stands where an expanded weight was; see [`crate::write()`].

use std::collections::HashMap;
use std::sync::Arc;

use crate::assemble::Names;
use crate::encode::{EncodedLayer, Terms};
use crate::model::Model;
use crate::node::{constant, int_attribute, make};
use crate::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, attribute_proto::AttributeType,
    tensor_proto::DataType,
};
use crate::stream::Data;
use crate::write::Form;

/// Adds the tensors of every encoded layer, and at the front of the graph the nodes that sum its terms. Gives the data of
/// the terms, which their tensors do not hold.
pub(crate) fn add_terms<'a>(
    proto: &mut ModelProto,
    model: &'a Model,
    encoded: &[Option<&'a EncodedLayer>],
    names: &Names,
    form: Form,
) -> HashMap<String, Data<'a>> {
    let mut data = HashMap::new();
    let Some(graph) = proto.graph.as_mut() else { return data };
    let mut nodes = Vec::new();
    for (i, layer) in encoded.iter().enumerate().filter_map(|(i, layer)| Some((i, (*layer)?))) {
        let mut sum = beside_terms(graph, &mut nodes, i, layer, names, form);
        let terms = Arc::new(Terms::new(model, i, layer));
        for t in 0..layer.scales.len() {
            let last = t + 1 == layer.scales.len();
            let part = |part: &str| names.of(i, &format!("{part}{}", t + 1));
            let bits = layer.storage.max(form.bits);
            data.insert(part("term"), Data::Term { terms: terms.clone(), term: t, bits });
            graph.initializer.push(term_tensor(layer, bits, part("term")));
            graph.initializer.push(scale_tensor(layer, t, form, part("scale")));
            let whole = if last { names.of(i, "weight") } else { part("sum") };
            let scaled = if last && sum.is_none() { whole.clone() } else { part("scaled") };
            nodes.extend(scaled_term(layer, form, &part("term"), &part("scale"), &scaled));
            sum = Some(match sum {
                None => scaled,
                Some(sum) => {
                    nodes.push(make("", "Add", &[&sum, &scaled], &whole));
                    whole
                }
            });
        }
        if let Some(bias) = &layer.bias {
            graph.initializer.push(float_tensor(bias, vec![bias.len() as i64], names.of(i, "bias")));
        }
    }
    nodes.append(&mut graph.node);
    graph.node = nodes;
    data
}

/// Adds what stands before the terms: the saturation part, the bias, or their sum; its name, if there is any.
fn beside_terms(
    graph: &mut GraphProto,
    nodes: &mut Vec<NodeProto>,
    i: usize,
    layer: &EncodedLayer,
    names: &Names,
    form: Form,
) -> Option<String> {
    let mut sum = None;
    if !layer.saturation.is_empty() {
        let (beyond, scaled) = (names.of(i, "saturation"), names.of(i, "saturation_scaled"));
        let sparse = sparse_tensor(layer, &beyond);
        if form.dequantize {
            nodes.push(sparse_constant(sparse, &beyond));
        } else {
            graph.sparse_initializer.push(sparse);
        }
        nodes.extend(scaled_term(layer, form, &beyond, &names.of(i, "scale1"), &scaled));
        sum = Some(scaled);
    }
    if !layer.asymmetry.is_empty() {
        let bias = names.of(i, "asymmetry");
        graph.initializer.push(float_tensor(
            &layer.asymmetry,
            along_channels(layer, layer.asymmetry.len()),
            bias.clone(),
        ));
        sum = Some(match sum {
            None => bias,
            Some(saturation) => {
                let whole = names.of(i, "asymmetric");
                nodes.push(make("", "Add", &[&saturation, &bias], &whole));
                whole
            }
        });
    }
    sum
}

/// Dimensions of one value in all, or of one a channel that is broadcast to the weight.
fn along_channels(layer: &EncodedLayer, len: usize) -> Vec<i64> {
    let (rank, axis) = (layer.geometry.weight_shape().len(), layer.geometry.channel_axis());
    if len == 1 { Vec::new() } else { (0..rank).map(|i| if i == axis { len as i64 } else { 1 }).collect() }
}

/// `DequantizeLinear(term, scale)` or `Mul(Cast(term), scale)`.
fn scaled_term(layer: &EncodedLayer, form: Form, term: &str, scale: &str, output: &str) -> Vec<NodeProto> {
    if form.dequantize {
        let mut node = make("", "DequantizeLinear", &[term, scale], output);
        if let Some(block) = layer.block {
            node.attribute.push(int_attribute("axis", layer.geometry.input_axis() as i64));
            node.attribute.push(int_attribute("block_size", block as i64));
        } else if layer.scales[0].len() > 1 {
            node.attribute.push(int_attribute("axis", layer.geometry.channel_axis() as i64));
        }
        return vec![node];
    }
    let float = format!("{term}_float");
    let mut cast = make("", "Cast", &[term], &float);
    cast.attribute.push(int_attribute("to", DataType::Float as i64));
    vec![cast, make("", "Mul", &[&float, scale], output)]
}

/// A term's tensor without its data.
fn term_tensor(layer: &EncodedLayer, bits: u32, name: String) -> TensorProto {
    let dtype = match bits {
        2 => DataType::Int2,
        4 => DataType::Int4,
        _ => DataType::Int8,
    };
    TensorProto {
        dims: layer.geometry.weight_shape().iter().map(|&d| d as i64).collect(),
        data_type: Some(dtype as i32),
        name: Some(name),
        ..TensorProto::default()
    }
}

/// The saturation part as a sparse INT8 tensor in the shape of the weight.
fn sparse_tensor(layer: &EncodedLayer, name: &str) -> SparseTensorProto {
    let vector = |dtype: DataType, raw: Vec<u8>, name: String| TensorProto {
        dims: vec![layer.saturation.len() as i64],
        data_type: Some(dtype as i32),
        name: Some(name),
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    };
    let byte = |part: i32| i8::try_from(part).expect("it fits a byte, as it does together with the first digit") as u8;
    let values = layer.saturation.iter().map(|&(_, part)| byte(part)).collect();
    let indices = layer.saturation.iter().flat_map(|&(index, _)| (index as i64).to_le_bytes()).collect();
    SparseTensorProto {
        indices: Some(vector(DataType::Int64, indices, format!("{name}_indices"))),
        values: Some(vector(DataType::Int8, values, name.to_owned())),
        dims: layer.geometry.weight_shape().iter().map(|&d| d as i64).collect(),
    }
}

/// A Constant with a sparse value. ONNX's inference of types takes what it makes for a dense tensor, which it does not of a
/// sparse initialiser; the operator has such values since set 11.
fn sparse_constant(sparse: SparseTensorProto, name: &str) -> NodeProto {
    let attribute = AttributeProto {
        name: Some("sparse_value".to_owned()),
        r#type: Some(AttributeType::SparseTensor as i32),
        sparse_tensor: Some(sparse),
        ..AttributeProto::default()
    };
    constant(name, attribute)
}

fn scale_tensor(layer: &EncodedLayer, t: usize, form: Form, name: String) -> TensorProto {
    let scales = &layer.scales[t];
    let shape = layer.geometry.weight_shape();
    if let Some(block) = layer.block {
        let divided =
            |(i, &dim): (usize, &usize)| if i == layer.geometry.input_axis() { dim.div_ceil(block) } else { dim };
        let dims = shape.iter().enumerate().map(|dim| divided(dim) as i64).collect();
        return float_tensor(scales, dims, name);
    }
    let dims = match (scales.len(), form.dequantize) {
        (len @ 2.., true) => vec![len as i64],
        (len, _) => along_channels(layer, len),
    };
    float_tensor(scales, dims, name)
}

fn float_tensor(values: &[f32], dims: Vec<i64>, name: String) -> TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    TensorProto {
        dims,
        data_type: Some(DataType::Float as i32),
        name: Some(name),
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    }
}
