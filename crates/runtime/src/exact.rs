//! Which operators of the host have the same bits on every CPU.
//!
//! Those that move values, compare or choose among them, convert them, or are one IEEE operation: these are compiled code without
//! a choice by CPU. Operators on integers and booleans alone are exact whatever they do. Everything else may sum in an order, or
//! approximate by instructions, that the host chooses for the CPU it runs on.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer};

/// Operators that only move, choose or convert values.
const MOVES: [&str; 29] = [
    "AddAxis",
    "RmAxis",
    "MoveAxis",
    "Reshape",
    "IntoShape",
    "Slice",
    "DynSlice",
    "StridedSlice",
    "Concat",
    "MultiBroadcastTo",
    "Gather",
    "GatherNd",
    "GatherElements",
    "Pad",
    "Tile",
    "DynTile",
    "Downsample",
    "NearestUpsample",
    "Trilu",
    "Identity",
    "Cast",
    "Iff",
    "Onehot",
    "Topk",
    "Source",
    "Const",
    "Scatter",
    "ScatterNd",
    "Range",
];

/// Operators that are one IEEE operation, or several in a fixed sequence.
const ROUNDED: [&str; 20] = [
    "Add",
    "Sub",
    "SubF",
    "Mul",
    "Div",
    "Min",
    "Max",
    "Abs",
    "Neg",
    "Square",
    "Sqrt",
    "Recip",
    "Rsqrt",
    "Ceil",
    "Floor",
    "Round",
    "RoundHalfToEven",
    "Sign",
    "IsNan",
    "IsInf",
];

/// Whether an operator has the same bits on every CPU, given its inputs and outputs.
pub(crate) fn is_exact(op: &dyn TypedOp, inputs: &[&TypedFact], outputs: &[&TypedFact]) -> bool {
    if let Some(reduce) = op.as_op().downcast_ref::<Reduce>() {
        let chooses = matches!(reduce.reducer, Reducer::ArgMax(_) | Reducer::ArgMin(_) | Reducer::Max | Reducer::Min);
        return chooses || !any_float(inputs);
    }
    let compares = op.as_op().is::<tract_onnx::tract_core::ops::binary::TypedBinOp>() && !any_float(outputs);
    let name = op.name();
    compares
        || MOVES.contains(&&*name)
        || ROUNDED.contains(&&*name)
        || !(any_float(inputs) || any_float(outputs) || name.starts_with("Random"))
}

fn any_float(facts: &[&TypedFact]) -> bool {
    facts.iter().any(|fact| fact.datum_type.is_float())
}
