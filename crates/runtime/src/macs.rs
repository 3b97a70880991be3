//! Multiply-accumulates of a model's layers, from the shapes that tract infers.

use tract_onnx::prelude::*;

use crate::placeholder::{self, LayerOp};
use crate::{Error, graph};

/// Multiply-accumulates of every layer, by index, for one sample: every open dimension of the inputs taken as 1.
///
/// # Errors
/// [`Error`], naming the node at fault.
pub fn layer_macs(source: &fpxint_onnx::Model) -> Result<Vec<u64>, Error> {
    let typed = placeholder::typed(source)?;
    let inputs = typed.input_outlets().map_err(Error::graph)?.to_vec();
    let mut shapes = Vec::new();
    for outlet in inputs {
        let fact = typed.outlet_fact(outlet).map_err(Error::graph)?;
        shapes.push((typed.node(outlet.node).name.clone(), fact.shape.to_tvec()));
    }
    let ones: Vec<Vec<usize>> = shapes.iter().map(|(_, s)| vec![1; s.len()]).collect();
    let values = graph::bind(&shapes, &ones.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    let macs = symbolic(&typed, source.layers().len())?;
    Ok(macs.iter().map(|m| m.eval_to_i64(&values).unwrap_or(0) as u64).collect())
}

/// The same in the symbols of the inputs: values of the output times the depth of each.
pub(crate) fn symbolic(model: &TypedModel, layers: usize) -> Result<Vec<TDim>, Error> {
    let mut macs = vec![0.to_dim(); layers];
    for node in model.nodes() {
        if let Some(op) = node.op_as::<LayerOp>() {
            let values: TDim = node.outputs[0].fact.shape.iter().fold(1.to_dim(), |product, dim| product * dim);
            macs[op.layer] = values * op.geometry.depth();
        }
    }
    Ok(macs)
}
