//! Reading ONNX bytes with tract: to a typed graph with symbolic shapes.

use std::collections::HashMap;

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::unimpl::UnimplementedOp;

use crate::error::Error;
use crate::value::{Element, Port};

/// Domains whose operators tract knows by name; a same-named operator of another domain is another operator.
const DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

/// Refuses nodes of domains that nothing here runs.
pub(crate) fn check_domains(source: &fpxint_onnx::Model) -> Result<(), Error> {
    match source.operators().find(|node| !DOMAINS.contains(&node.domain)) {
        None => Ok(()),
        Some(node) => {
            Err(Error::Operator { node: node.name.to_owned(), op_type: format!("{}.{}", node.domain, node.op_type) })
        }
    }
}

/// Reads `bytes` with `onnx`; an operator that tract lacks is an error naming its node.
pub(crate) fn read(onnx: &tract_onnx::Onnx, bytes: &[u8]) -> Result<InferenceModel, Error> {
    let onnx = onnx.clone().with_ignore_output_shapes(true).with_ignore_value_info(true);
    let model = onnx.model_for_read(&mut &*bytes).map_err(Error::graph)?;
    for node in model.nodes() {
        if node.op.as_op().is::<UnimplementedOp>() {
            return Err(Error::Operator { node: node.name.clone(), op_type: unimplemented_name(&*node.op) });
        }
    }
    Ok(model)
}

fn unimplemented_name(op: &dyn InferenceOp) -> String {
    let text = op.name();
    text.strip_prefix("Unimplemented(").and_then(|t| t.strip_suffix(')')).unwrap_or(&text).to_owned()
}

/// Infers shapes, folds constants and simplifies.
pub(crate) fn typed(model: InferenceModel) -> Result<TypedModel, Error> {
    model.into_typed().and_then(|model| model.into_decluttered()).map_err(Error::graph)
}

/// Inputs of a typed graph.
pub(crate) fn inputs(model: &TypedModel) -> Result<Vec<Port>, Error> {
    let outlets = model.input_outlets().map_err(Error::graph)?;
    outlets.iter().map(|&outlet| port(model, outlet, model.node(outlet.node).name.clone())).collect()
}

/// Outputs of a typed graph under the names the file gives them.
pub(crate) fn outputs(model: &TypedModel, source: &fpxint_onnx::Model) -> Result<Vec<Port>, Error> {
    let outlets = model.output_outlets().map_err(Error::graph)?;
    outlets.iter().zip(source.outputs()).map(|(&outlet, info)| port(model, outlet, info.name)).collect()
}

/// Name and symbolic shape of every input.
pub(crate) fn symbols(model: &TypedModel) -> Result<Vec<(String, TVec<TDim>)>, Error> {
    let outlets = model.input_outlets().map_err(Error::graph)?;
    let symbols = |&outlet: &OutletId| {
        let fact = model.outlet_fact(outlet).map_err(Error::graph)?;
        Ok((model.node(outlet.node).name.clone(), fact.shape.to_tvec()))
    };
    outlets.iter().map(symbols).collect()
}

fn port(model: &TypedModel, outlet: OutletId, name: String) -> Result<Port, Error> {
    let fact = model.outlet_fact(outlet).map_err(Error::graph)?;
    let shape = fact.shape.iter().map(|dim| dim.to_usize().ok()).collect();
    Ok(Port { name, element: Element::of(fact.datum_type), shape })
}

/// The values of the symbols in a graph's input shapes, given actual inputs.
///
/// # Errors
/// [`Error::Input`] where one symbol stands for two sizes.
pub(crate) fn bind(model: &[(String, TVec<TDim>)], shapes: &[&[usize]]) -> Result<SymbolValues, Error> {
    let mut values = SymbolValues::default();
    let mut seen: HashMap<Symbol, i64> = HashMap::new();
    for ((name, dims), shape) in model.iter().zip(shapes) {
        for (dim, &size) in dims.iter().zip(*shape) {
            let TDim::Sym(symbol) = dim else { continue };
            let size = size as i64;
            if *seen.entry(symbol.clone()).or_insert(size) != size {
                let reason = format!("dimension {symbol} is {size} here and {} in another input", seen[symbol]);
                return Err(Error::Input { input: name.clone(), reason });
            }
            values.set(symbol, size);
        }
    }
    Ok(values)
}
