//! What is not ours to expand: files that another tool quantised, and constant weights in operators and nested graphs
//! that have no series form.

use std::collections::HashSet;

use crate::constants::Constant;
use crate::index::Index;
use crate::layers::{Found, plain_name};
use crate::model::Skipped;
use crate::node::{bodies, input, node_name, onnx_op};
use crate::proto::{GraphProto, ModelProto, NodeProto};
use crate::{Error, error::shown};

/// Operators that only a quantised model has, whatever their domain.
const QUANTISED: &[&str] = &[
    "QuantizeLinear",
    "DynamicQuantizeLinear",
    "ConvInteger",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
    "MatMulNBits",
    "MatMulBnb4",
    "MatMulFpQ4",
    "GatherBlockQuantized",
    "DequantizeBFP",
    "QuantizeBFP",
    "QAttention",
    "QGemm",
    "QMoE",
    "QEmbedLayerNormalization",
];

/// Operators with constant weights that have no series form, with the input that holds them.
const UNSUPPORTED: &[(&str, usize)] = &[
    ("ConvTranspose", 1),
    ("DeformConv", 1),
    ("LSTM", 1),
    ("GRU", 1),
    ("RNN", 1),
    ("Einsum", 1),
    ("FusedConv", 1),
    ("FusedGemm", 1),
    ("FusedMatMul", 1),
    ("Attention", 1),
];

fn is_quantised(node: &NodeProto) -> bool {
    let op = node.op_type.as_deref().unwrap_or("");
    op.starts_with("QLinear") || op.starts_with("QOrdered") || QUANTISED.contains(&op)
}

fn quantised(node: &NodeProto, file: &str) -> Error {
    let op = shown(node.op_type.as_deref().unwrap_or(""));
    Error::AlreadyQuantised { file: file.to_owned(), node: node_name(node), op }
}

/// Refuses a model with operators of a quantised one; DequantizeLinear in the main graph is left to [`unclaimed`].
pub(crate) fn refuse(model: &ModelProto, graph: &GraphProto, file: &str) -> Result<(), Error> {
    let inner = |node: &NodeProto| node.op_type.as_deref() == Some("DequantizeLinear");
    for node in &graph.node {
        if is_quantised(node) {
            return Err(quantised(node, file));
        }
        bodies(node).try_for_each(|body| refuse_body(&body.node, &inner, file))?;
    }
    model.functions.iter().try_for_each(|function| refuse_body(&function.node, &inner, file))
}

fn refuse_body(nodes: &[NodeProto], inner: &impl Fn(&NodeProto) -> bool, file: &str) -> Result<(), Error> {
    for node in nodes {
        if is_quantised(node) || inner(node) {
            return Err(quantised(node, file));
        }
        bodies(node).try_for_each(|body| refuse_body(&body.node, inner, file))?;
    }
    Ok(())
}

/// The first DequantizeLinear that is not part of one of our weights.
pub(crate) fn unclaimed<'a>(graph: &'a GraphProto, claimed: &HashSet<usize>) -> Option<&'a NodeProto> {
    let foreign =
        |(i, node): &(usize, &NodeProto)| node.op_type.as_deref() == Some("DequantizeLinear") && !claimed.contains(i);
    graph.node.iter().enumerate().find(foreign).map(|(_, node)| node)
}

/// The error for such a node of a file that is not ours.
pub(crate) fn already_quantised(node: &NodeProto, file: &str) -> Error {
    quantised(node, file)
}

/// Lists constant weights in operators and nested graphs that are not expanded.
pub(crate) fn list_skipped(model: &ModelProto, index: &Index, found: &mut Found) {
    for node in &index.graph.node {
        let op = node.op_type.as_deref().unwrap_or("");
        let weights = UNSUPPORTED.iter().find(|(name, _)| *name == op);
        if let Some(&(_, at)) = weights
            && input(node, at).is_some_and(|name| Constant::find(index, name).is_some())
        {
            let reason = format!("the operator {op} is not expanded");
            found.skipped.push(Skipped { name: plain_name(node), op_type: op.to_owned(), reason });
        }
        for body in bodies(node) {
            let outer = |name: &str| Constant::find(index, name).is_some();
            in_body(body, &outer, &format!("it lies in the body of a {op} node"), &mut found.skipped);
        }
    }
    for function in &model.functions {
        for node in function.node.iter().filter(|node| is_product(node)) {
            let name = function.name.as_deref().unwrap_or("");
            let reason = format!("it lies in the local function {}", shown(name));
            let op_type = onnx_op(node).to_owned();
            found.skipped.push(Skipped { name: plain_name(node), op_type, reason });
        }
    }
}

fn is_product(node: &NodeProto) -> bool {
    matches!(onnx_op(node), "Conv" | "Gemm" | "MatMul")
}

/// Products with constant weights in a nested graph.
fn in_body(body: &GraphProto, outer: &dyn Fn(&str) -> bool, reason: &str, skipped: &mut Vec<Skipped>) {
    let mut constants: HashSet<&str> = body.initializer.iter().filter_map(|t| t.name.as_deref()).collect();
    for node in &body.node {
        let known = |name: &str| constants.contains(name) || outer(name);
        if is_product(node) && (input(node, 1).is_some_and(known) != input(node, 0).is_some_and(known)) {
            let (name, op_type) = (plain_name(node), onnx_op(node).to_owned());
            skipped.push(Skipped { name, op_type, reason: reason.to_owned() });
        }
        bodies(node).for_each(|inner| in_body(inner, &known, reason, skipped));
        let carries = matches!(onnx_op(node), "Identity" | "Transpose" | "Reshape" | "Cast" | "Squeeze" | "Unsqueeze");
        if onnx_op(node) == "Constant" || (carries && input(node, 0).is_some_and(known)) {
            constants.extend(node.output.first().map(String::as_str));
        }
    }
}
