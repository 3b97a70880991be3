//! A model with other weights in FP32: an ordinary ONNX file of the same graph.
//!
//! Basis model `i` of a series is the model with the weights `scale_i W_i`. Its file has the layers as they are run, with what was
//! folded into them; every other node and initialiser is the model's own, and so is the operator set.

use std::io;
use std::path::Path;

use crate::assemble::{in_float, rebuild_named};
use crate::external::of_stream;
use crate::model::Model;
use crate::persist::persist;
use crate::proto::{TensorProto, tensor_proto::DataType};
use crate::rotation::Turns;
use crate::stream::Parts;
use crate::write::{layer_nodes, made_of};
use crate::{Error, check};

/// Largest file protobuf can be.
const MAX_BYTES: u64 = (1 << 31) - 1;

/// The weights of a layer in FP32.
#[derive(Debug, Clone, PartialEq)]
pub struct FloatLayer {
    /// In the shape of the layer's weight.
    pub weight: Vec<f32>,
    /// One value an output channel.
    pub bias: Option<Vec<f32>>,
}

/// Writes `model` with these weights, one for every layer of the model; returns the size of the file, which appears whole or not
/// at all.
///
/// # Errors
/// [`Error::Write`], also where the model is beyond the 2 GiB that one file can have, and [`Error::ExternalData`].
///
/// # Panics
/// If a layer's weights do not fit it (a caller's mistake, not data).
pub fn write_floats(model: &Model, layers: &[FloatLayer], path: &Path) -> Result<u64, Error> {
    assert_eq!(layers.len(), model.plans.len(), "weights for every layer");
    let turns = Turns::new(model, |_| true);
    let (graph, names) = rebuild_named(model, |i, plan, names| {
        let has_bias = layers[i].bias.is_some();
        Some(in_float(plan, i, names, |x, y| layer_nodes(&turns, plan, has_bias, i, names, [x, y])))
    });
    let mut proto = made_of(model, graph);
    // Before this set a Gemm without a bias is no node, and a Gemm needs none only where it has one of zeros.
    let needs_bias = check::opset(&proto).is_some_and(|opset| opset < 11);
    if let Some(graph) = &mut proto.graph {
        for (i, (plan, layer)) in model.plans.iter().zip(layers).enumerate() {
            let (shape, channels) = (plan.geometry.weight_shape(), plan.geometry.channels_out());
            graph.initializer.push(floats(names.of(i, "weight"), &shape, &layer.weight));
            match &layer.bias {
                Some(bias) => graph.initializer.push(floats(names.of(i, "bias"), &[channels], bias)),
                None if needs_bias && plan.op_type == "Gemm" => {
                    let name = names.of(i, "bias");
                    let weight = names.of(i, "weight");
                    let gemm = graph.node.iter_mut().find(|node| node.input.get(1) == Some(&weight));
                    gemm.into_iter().for_each(|node| node.input.push(name.clone()));
                    graph.initializer.push(floats(name, &[channels], &vec![0.0; channels]));
                }
                None => {}
            }
        }
    }
    let failed = |source| of_stream(source, |source| Error::Write { path: path.to_owned(), source });
    let parts = Parts::new(proto, |tensor| model.elsewhere(tensor))?;
    if parts.len() > MAX_BYTES {
        return Err(failed(io::Error::other("it is beyond 2 GiB, which protobuf cannot hold")));
    }
    persist(path, &|to| parts.write(to), None).map_err(failed)?;
    Ok(parts.len())
}

fn floats(name: String, shape: &[usize], values: &[f32]) -> TensorProto {
    assert_eq!(values.len(), shape.iter().product::<usize>(), "weights of the shape of their layer");
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    TensorProto {
        dims: shape.iter().map(|&size| size as i64).collect(),
        data_type: Some(DataType::Float as i32),
        name: Some(name),
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    }
}
