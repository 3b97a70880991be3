//! Reading ONNX bytes with tract: to a typed graph with symbolic shapes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use fpxint_onnx::{Dim, ValueInfo};
use tract_onnx::data_resolver::FopenDataResolver;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::unimpl::UnimplementedOp;

use crate::error::{Error, guarded};
use crate::value::{Element, Port};

/// Domains whose operators tract knows by name; a same-named operator of another domain is another operator.
const DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

/// Refuses nodes that nothing here runs: of other domains, or under the names by which a skeleton refers to layers.
pub(crate) fn check_operators(source: &fpxint_onnx::Model) -> Result<(), Error> {
    for node in source.operators() {
        let known = DOMAINS.contains(&node.domain);
        if !known || node.op_type.starts_with("Fpx") {
            let op_type = if known { node.op_type.to_owned() } else { format!("{}.{}", node.domain, node.op_type) };
            return Err(Error::Operator { node: node.name.to_owned(), op_type });
        }
    }
    Ok(())
}

/// Reads `bytes` with `onnx`, and from `folder` the tensors that lie in other files; an operator that tract lacks is an
/// error naming its node.
pub(crate) fn read(onnx: &tract_onnx::Onnx, bytes: &[u8], folder: Option<&Path>) -> Result<InferenceModel, Error> {
    let onnx = onnx.clone().with_ignore_output_shapes(true).with_ignore_value_info(true);
    let model = match folder {
        None => guarded(|| onnx.model_for_read(&mut &*bytes)).map_err(Error::graph)?,
        Some(folder) => read_beside(onnx, bytes, folder)?,
    };
    for node in model.nodes() {
        if node.op.as_op().is::<UnimplementedOp>() {
            return Err(Error::Operator { node: node.name.clone(), op_type: unimplemented_name(&*node.op) });
        }
    }
    Ok(model)
}

/// Reads a model whose tensors may lie in files of `folder`.
fn read_beside(mut onnx: tract_onnx::Onnx, bytes: &[u8], folder: &Path) -> Result<InferenceModel, Error> {
    // Plain reads: a file that shrinks under a memory map would end the process.
    onnx.provider = Arc::new(FopenDataResolver);
    let name = folder.to_str().ok_or_else(|| Error::Graph(format!("the name of {folder:?} is not in Unicode")))?;
    let parse = || onnx.parse(&onnx.proto_model_for_read(&mut &*bytes)?, Some(name));
    let parsed = guarded(parse).map_err(Error::graph)?;
    match parsed.unresolved_inputs.first() {
        None => Ok(parsed.model),
        Some(input) => Err(Error::Graph(format!("nothing defines {input:?}"))),
    }
}

fn unimplemented_name(op: &dyn InferenceOp) -> String {
    let text = op.name();
    text.strip_prefix("Unimplemented(").and_then(|t| t.strip_suffix(')')).unwrap_or(&text).to_owned()
}

/// Infers shapes, folds constants and simplifies.
pub(crate) fn typed(model: InferenceModel) -> Result<TypedModel, Error> {
    guarded(|| model.into_typed()?.into_decluttered()).map_err(Error::graph)
}

/// An input as the host sees it.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub name: String,
    pub shape: TVec<TDim>,
    pub kind: DatumType,
}

/// Inputs of a typed graph, under the names the file gives them.
pub(crate) fn inputs(model: &TypedModel, source: &fpxint_onnx::Model) -> Result<Vec<Input>, Error> {
    let outlets = model.input_outlets().map_err(Error::graph)?;
    let input = |(&outlet, info): (&OutletId, ValueInfo)| {
        let fact = model.outlet_fact(outlet).map_err(Error::graph)?;
        Ok(Input { name: info.name, shape: fact.shape.to_tvec(), kind: fact.datum_type })
    };
    outlets.iter().zip(source.inputs()).map(input).collect()
}

/// Inputs as callers see them.
pub(crate) fn ports(source: &fpxint_onnx::Model) -> Vec<Port> {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) if *size > 0 => usize::try_from(*size).ok(),
        _ => None,
    };
    let tables = source.embeddings();
    let port = |info: ValueInfo| Port {
        element: Element::named(&info.elem_type),
        shape: info.dims.iter().map(size).collect(),
        rows: tables.iter().filter(|table| table.indices == info.name).map(|table| table.shape[0]).min(),
        name: info.name,
    };
    source.inputs().into_iter().map(port).collect()
}

/// Outputs of a typed graph under the names the file gives them.
pub(crate) fn outputs(model: &TypedModel, source: &fpxint_onnx::Model) -> Result<Vec<Port>, Error> {
    let outlets = model.output_outlets().map_err(Error::graph)?;
    let port = |(&outlet, info): (&OutletId, ValueInfo)| {
        let fact = model.outlet_fact(outlet).map_err(Error::graph)?;
        let shape = fact.shape.iter().map(|dim| dim.to_usize().ok()).collect();
        Ok(Port { name: info.name, element: Element::of(fact.datum_type), shape, rows: None })
    };
    outlets.iter().zip(source.outputs()).map(port).collect()
}

/// The values of the symbols in a graph's input shapes, given actual inputs.
///
/// # Errors
/// [`Error::Input`] where one symbol stands for two sizes.
pub(crate) fn bind(inputs: &[Input], shapes: &[&[usize]]) -> Result<SymbolValues, Error> {
    let mut values = SymbolValues::default();
    let mut seen: HashMap<Symbol, i64> = HashMap::new();
    for (input, shape) in inputs.iter().zip(shapes) {
        for (dim, &size) in input.shape.iter().zip(*shape) {
            let TDim::Sym(symbol) = dim else { continue };
            let size = size as i64;
            if *seen.entry(symbol.clone()).or_insert(size) != size {
                let reason =
                    format!("one of its dimensions is {size} here and {} elsewhere, under one name", seen[symbol]);
                return Err(Error::Input { input: input.name.clone(), reason });
            }
            values.set(symbol, size);
        }
    }
    Ok(values)
}
