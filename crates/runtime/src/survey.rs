//! What is known of a model before any weight is read: shapes, the size of every layer's product, and what the host runs.

use tract_onnx::prelude::*;

use crate::error::guarded;
use crate::placeholder::{self, LayerOp};
use crate::plan::{HostNode, plan};
use crate::value::Port;
use crate::{Error, graph};

/// A model's shapes and sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    /// Multiply-accumulates of every layer, by index, for one sample: an open first dimension taken as 1, others as 224.
    pub macs: Vec<u64>,
    /// Inputs.
    pub inputs: Vec<Port>,
    /// Outputs with their inferred shapes.
    pub outputs: Vec<Port>,
    /// As [`crate::Model::left_to_tract`].
    pub left_to_tract: Vec<HostNode>,
}

/// Size of an open dimension other than the batch: the side of an image, or tokens.
const NOMINAL: i64 = 224;

/// Surveys a model; as fast as its graph is small.
///
/// # Errors
/// [`Error`], naming the node at fault.
pub fn survey(source: &fpxint_onnx::Model) -> Result<Survey, Error> {
    let typed = placeholder::typed(source)?;
    let inputs = graph::inputs(&typed, source)?;
    let mut values = SymbolValues::default();
    for (axis, dim) in inputs.iter().flat_map(|input| input.shape.iter().enumerate()) {
        if let TDim::Sym(symbol) = dim
            && values.get(symbol).is_none()
        {
            values.set(symbol, if axis == 0 { 1 } else { NOMINAL });
        }
    }
    let macs = guarded(|| Ok(layer_macs(&typed, source.layers().len()))).map_err(Error::graph)?;
    Ok(Survey {
        macs: macs.iter().map(|m| m.eval_to_i64(&values).unwrap_or(0).max(0) as u64).collect(),
        inputs: graph::ports(source),
        outputs: graph::outputs(&typed, source)?,
        left_to_tract: plan(&typed)?.left_to_tract(),
    })
}

/// Multiply-accumulates of every layer in the symbols of the inputs: values of its output times the depth of each.
pub(crate) fn layer_macs(model: &TypedModel, layers: usize) -> Vec<TDim> {
    let mut macs = vec![0.to_dim(); layers];
    for node in model.nodes() {
        if let Some(op) = node.op_as::<LayerOp>() {
            let values: TDim = node.outputs[0].fact.shape.iter().fold(1.to_dim(), |product, dim| product * dim);
            macs[op.layer] = values * op.geometry.depth();
        }
    }
    macs
}
