//! Recognises attention, normalisations, GELU and SiLU in a graph and replaces each by one node of domain `fpxint`.
//!
//! * `FpxAttention`: inputs `q` (batch, sequence, heads * d), `k` (batch, keys, heads * d), `v` (batch, keys, heads * e) and
//!   optionally `mask`, which is added to the scores and broadcasts to (batch, heads, sequence, keys); attributes `heads`
//!   (int), `scale` (float). `softmax(scale q k^T + mask) v` per head: (batch, sequence, heads * e).
//! * `FpxLayerNorm`: inputs `x`, `scale` and optionally `bias`, vectors as long as the last axis of `x`; attribute `epsilon`.
//!   `(x - mean) / sqrt(variance + epsilon) * scale + bias` over the last axis.
//! * `FpxRmsNorm`: inputs `x`, `scale`; attribute `epsilon`. `x / sqrt(mean(x^2) + epsilon) * scale`.
//! * `FpxGelu`: input `x`; attribute `approximate`, `none` or `tanh`.
//! * `FpxSilu`: input `x`. `x * sigmoid(x)`.
//!
//! All values are FLOAT. A pattern is replaced only where nothing else reads its inner values and what it computes follows
//! from the graph for every input: dimensions count as equal only where that is proved. The rest of the graph stays as it
//! is, without what nothing reads any more.

mod activation;
mod attention;
mod contents;
mod emit;
mod facts;
mod heads;
mod norm;
mod product;
mod shapes;
mod sizes;
mod view;

pub(crate) use sizes::oversized;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::assemble::prune;
use crate::constants::Constant;
use crate::node::onnx_op;
use crate::proto::{AttributeProto, GraphProto, NodeProto};
use emit::Emitter;
use view::View;

/// An input of a fused node.
enum Input<'a> {
    Value(&'a str),
    /// A constant vector times a number.
    Vector(Constant, f32),
    /// As many times the same number.
    Filled(usize, f32),
    /// From one index to another along the last axis of a value of rank 3.
    Part(&'a str, i64, i64),
}

/// What is added to the scores of an attention.
enum Mask<'a> {
    Added(&'a str),
    /// One number where a condition holds and another where it does not.
    Chosen(&'a str, f32, f32),
}

/// A subgraph that one node can replace.
struct Match<'a> {
    /// The node that makes its result.
    root: usize,
    /// All its nodes.
    nodes: HashSet<usize>,
    op_type: &'static str,
    inputs: Vec<Input<'a>>,
    attributes: Vec<AttributeProto>,
    masks: Vec<Mask<'a>>,
    /// Whether zero takes the place of a result that is NaN.
    nan_to_zero: bool,
}

impl<'a> Match<'a> {
    fn new(root: usize, nodes: Vec<usize>, op_type: &'static str, inputs: Vec<Input<'a>>) -> Self {
        let nodes = nodes.into_iter().collect();
        Self { root, nodes, op_type, inputs, attributes: Vec::new(), masks: Vec::new(), nan_to_zero: false }
    }

    /// The values that its replacement reads.
    fn kept(&self) -> Vec<&'a str> {
        let inputs = self.inputs.iter().filter_map(|input| match input {
            Input::Value(name) | Input::Part(name, ..) => Some(*name),
            Input::Vector(..) | Input::Filled(..) => None,
        });
        let masks = self.masks.iter().map(|mask| match mask {
            Mask::Added(name) | Mask::Chosen(name, ..) => *name,
        });
        inputs.chain(masks).collect()
    }

    /// Whether it can be replaced: in FLOAT, and with inner values that nothing else needs.
    fn is_sound(&self, view: &View) -> bool {
        let node = view.node(self.root);
        let x = self.inputs.first().map_or("", |input| match input {
            Input::Value(name) | Input::Part(name, ..) => name,
            Input::Vector(..) | Input::Filled(..) => "",
        });
        let is_f32 = view.facts.is_f32(x) || node.output.first().is_some_and(|name| view.facts.is_f32(name));
        is_f32 && view.is_closed(self.root, &self.nodes, &self.kept())
    }
}

/// Fuses what is recognised in a graph whose nodes are in topological order, of ONNX's operator set `opset`.
pub fn fuse(graph: &mut GraphProto, opset: i64) {
    let view = View::new(graph, opset);
    let mut emitter = Emitter::new(graph, opset);
    let mut claimed = HashSet::new();
    let mut replaced: HashMap<usize, Vec<NodeProto>> = HashMap::new();
    for at in (0..graph.node.len()).filter(|&at| view.index.is_live(at)) {
        let found = recognise(&view, at).filter(|found| found.nodes.is_disjoint(&claimed));
        if let Some(found) = found
            && let Some(nodes) = emitter.nodes(&found)
        {
            claimed.extend(&found.nodes);
            replaced.insert(found.root, nodes);
        }
    }
    if replaced.is_empty() {
        return;
    }
    let initializers = emitter.initializers;
    let mut nodes: Vec<Cow<NodeProto>> = Vec::with_capacity(graph.node.len());
    for (at, node) in graph.node.iter().enumerate() {
        match replaced.remove(&at) {
            Some(new) => nodes.extend(new.into_iter().map(Cow::Owned)),
            None => nodes.push(Cow::Borrowed(node)),
        }
    }
    let mut fused = prune(graph, nodes);
    fused.initializer.extend(initializers);
    *graph = fused;
}

/// What ends at a node, or for an attention has its Softmax there.
fn recognise<'a>(view: &View<'a>, at: usize) -> Option<Match<'a>> {
    let node = view.node(at);
    let sound = |found: Option<Match<'a>>| found.filter(|found| found.is_sound(view));
    match onnx_op(node) {
        "Softmax" => sound(attention::attention(view, at)),
        "Mul" | "Div" => sound(norm::norm(view, at, true))
            .or_else(|| sound(norm::norm(view, at, false)))
            .or_else(|| sound(activation::gelu(view, at)))
            .or_else(|| sound(activation::silu(view, at))),
        _ => sound(norm::operator(view, at))
            .or_else(|| sound(activation::gelu(view, at)))
            .or_else(|| sound(activation::silu(view, at)))
            .or_else(|| sound(attention::attention(view, at))),
    }
}
