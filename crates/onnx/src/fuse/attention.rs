//! Attention over heads, as an operator and as the subgraphs that exporters write for it.
//!
//! ```text
//! FpxAttention   y = softmax(scale Q K^T + mask) V   per head
//! ```
//!
//! The pattern is found from its Softmax: back along the scores to the product of Q and K and from each to the Reshape that
//! makes its heads, then on to the product with V and the Reshape that joins the heads.

use super::heads::{COLUMNS, Operand, ROWS, is_joined};
use super::view::View;
use super::{Input, Mask, Match};
use crate::node::{attribute, float, float_attribute, input, int, int_attribute, ints, is_default, onnx_op};
use crate::proto::{NodeProto, tensor_proto::DataType};

/// Most operations between the product of Q and K and the Softmax.
const MAX_DEPTH: usize = 6;
/// What is chosen in place of a score must be at most this to count as masked out.
const MASKED: f64 = -1e4;

/// The scores: `scale Q K^T` and what is added to them.
struct Scores<'a> {
    q: Operand<'a>,
    k: Operand<'a>,
    scale: f64,
    masks: Vec<Mask<'a>>,
}

/// An attention around node `at`, a Softmax, or that it is.
pub(super) fn attention<'a>(view: &View<'a>, at: usize) -> Option<Match<'a>> {
    match onnx_op(view.node(at)) {
        "Softmax" => subgraph(view, at),
        _ => operator(view, at),
    }
}

fn subgraph<'a>(view: &View<'a>, softmax: usize) -> Option<Match<'a>> {
    let node = view.node(softmax);
    if !matches!(int(node, "axis", if view.opset >= 13 { -1 } else { 1 }), -1 | 3) {
        return None;
    }
    let mut nodes = vec![softmax];
    let Scores { q, k, scale, masks } = scores(view, input(node, 0)?, 0, &mut nodes)?;
    let (weights, nan_to_zero) = match nan_guard(view, softmax, &mut nodes) {
        Some(guard) => (guard, true),
        None => (softmax, false),
    };
    let product = view.reader(weights, "MatMul", &mut nodes)?;
    let (lhs, rhs) = (input(view.node(product), 0)?, input(view.node(product), 1)?);
    if view.source(lhs) != view.node(weights).output.first()? {
        return None;
    }
    let v = Operand::find(view, rhs, ROWS, &mut nodes)?;
    let back = view.reader(product, "Transpose", &mut nodes)?;
    let root = view.reader(back, "Reshape", &mut nodes)?;
    let same_heads = q.heads == k.heads && q.heads == v.heads && q.batch == k.batch && q.batch == v.batch;
    let swapped = ints(view.node(back), "perm") == Some(&[0, 2, 1, 3]);
    if !same_heads || !swapped || v.scale != 1.0 || !is_joined(view, root, &q, &v) {
        return None;
    }
    let scale = (scale * q.scale * k.scale) as f32;
    let inputs = vec![operand(&q), operand(&k), operand(&v)];
    Some(Match { masks, nan_to_zero, ..fused(root, nodes, inputs, q.heads, scale.is_finite().then_some(scale)?) })
}

fn fused<'a>(root: usize, nodes: Vec<usize>, inputs: Vec<Input<'a>>, heads: i64, scale: f32) -> Match<'a> {
    let attributes = vec![int_attribute("heads", heads), float_attribute("scale", scale)];
    Match { attributes, ..Match::new(root, nodes, "FpxAttention", inputs) }
}

fn operand<'a>(operand: &Operand<'a>) -> Input<'a> {
    match operand.part {
        Some((start, end)) => Input::Part(operand.value, start, end),
        None => Input::Value(operand.value),
    }
}

/// The scores that `name` is; nodes are noted in `nodes`.
fn scores<'a>(view: &View<'a>, name: &'a str, depth: usize, nodes: &mut Vec<usize>) -> Option<Scores<'a>> {
    let node = Some(view.maker(name, nodes)?).filter(|_| depth < MAX_DEPTH)?;
    let of = |i: usize| input(node, i);
    match onnx_op(node) {
        "MatMul" => {
            let q = Operand::find(view, of(0)?, ROWS, nodes)?;
            let k = Operand::find(view, of(1)?, COLUMNS, nodes)?;
            Some(Scores { q, k, scale: 1.0, masks: Vec::new() })
        }
        op @ ("Mul" | "Div") => {
            let (rest, number) = match view.number(of(1)?, 4) {
                Some(number) => (of(0)?, if op == "Mul" { number } else { 1.0 / number }),
                None => (of(1)?, view.number(of(0)?, 4).filter(|_| op == "Mul")?),
            };
            let mut inner = scores(view, rest, depth + 1, nodes)?;
            inner.scale *= number;
            inner.masks.is_empty().then_some(inner)
        }
        "Add" => {
            let mark = nodes.len();
            [(0, 1), (1, 0)].into_iter().find_map(|(rest, mask)| {
                nodes.truncate(mark);
                let mut inner = scores(view, of(rest)?, depth + 1, nodes)?;
                let added = of(mask).filter(|name| fits(view, name))?;
                inner.masks.push(Mask::Added(view.source(added)));
                Some(inner)
            })
        }
        "Where" => {
            let mark = nodes.len();
            [(1, 2), (2, 1)].into_iter().find_map(|(rest, chosen)| {
                nodes.truncate(mark);
                let value = view.number(of(chosen)?, 4).filter(|&value| value <= MASKED)? as f32;
                let mut inner = scores(view, of(rest)?, depth + 1, nodes)?;
                let condition = condition(view, of(0)?, of(rest)?, nodes);
                let (yes, no) = if rest == 1 { (0.0, value) } else { (value, 0.0) };
                inner.masks.push(Mask::Chosen(condition, yes, no));
                fits(view, condition).then_some(inner)
            })
        }
        _ => None,
    }
}

/// Whether a value adds no axis to scores.
fn fits(view: &View, name: &str) -> bool {
    view.facts.of(name).and_then(|fact| fact.rank()).is_none_or(|rank| rank <= 4)
}

/// The condition, before it is expanded to the shape of the scores that it is a condition on.
fn condition<'a>(view: &View<'a>, name: &'a str, scores: &'a str, nodes: &mut Vec<usize>) -> &'a str {
    let mut inner = Vec::new();
    match unexpanded(view, name, scores, &mut inner) {
        Some(condition) => {
            nodes.extend(inner);
            condition
        }
        None => name,
    }
}

fn unexpanded<'a>(view: &View<'a>, name: &'a str, scores: &'a str, nodes: &mut Vec<usize>) -> Option<&'a str> {
    let node = view.made_by(name, "Expand", nodes)?;
    let shape = view.made_by(input(node, 1)?, "Shape", nodes)?;
    let whole = attribute(shape, "start").is_none() && attribute(shape, "end").is_none();
    let same = view.source(input(shape, 0)?) == view.source(scores);
    (whole && same).then_some(input(node, 0)?)
}

/// The Where that puts zero in place of a Softmax that is NaN.
fn nan_guard(view: &View, softmax: usize, nodes: &mut Vec<usize>) -> Option<usize> {
    let weights = view.node(softmax).output.first()?;
    let &[a, b] = view.nodes_reading(weights)? else { return None };
    let guard = [a, b].into_iter().find(|&at| onnx_op(view.node(at)) == "Where")?;
    let test = if guard == a { b } else { a };
    let node = view.node(guard);
    let is_test = onnx_op(view.node(test)) == "IsNaN" && view.node(test).output.first() == node.input.first();
    let zero = view.number(input(node, 1)?, 4) == Some(0.0);
    (is_test && zero && input(node, 2) == Some(weights)).then(|| {
        nodes.extend([test, guard]);
        guard
    })
}

/// Attention of ONNX and MultiHeadAttention of ONNX Runtime on values of rank 3, without a cache.
fn operator<'a>(view: &View<'a>, at: usize) -> Option<Match<'a>> {
    let node = view.node(at);
    let one_output = node.output.iter().skip(1).all(|name| name.is_empty());
    let contributed = node.domain() == "com.microsoft" && node.op_type() == "MultiHeadAttention";
    let own = is_default(node.domain()) && node.op_type() == "Attention";
    if !one_output || !(contributed || own) {
        return None;
    }
    let (q, k, v) = (input(node, 0)?, input(node, 1)?, input(node, 2)?);
    let shape = |name| view.facts.shape(name).filter(|shape| shape.len() == 3);
    let (dims, others) = (shape(q)?, [shape(k)?, shape(v)?]);
    if others.iter().any(|other| other[0] != dims[0]) || ![q, k, v].iter().all(|name| view.facts.is_f32(name)) {
        return None;
    }
    let (heads, mask) = if own { own_rest(node)? } else { contributed_rest(node)? };
    let scale = match attribute(node, "scale").map(|a| a.f()).filter(|&scale| scale != 0.0 || own) {
        Some(scale) => scale,
        None => 1.0 / ((dims[2].known()?.checked_div(heads)?) as f32).sqrt(),
    };
    let masks = match mask {
        None => Vec::new(),
        Some(mask) => {
            let fact = view.facts.of(mask).filter(|fact| fact.rank().is_none_or(|rank| rank <= 4))?;
            match DataType::try_from(fact.dtype).ok()? {
                DataType::Float => vec![Mask::Added(mask)],
                DataType::Bool => vec![Mask::Chosen(mask, 0.0, f32::NEG_INFINITY)],
                _ => return None,
            }
        }
    };
    let inputs = vec![Input::Value(q), Input::Value(k), Input::Value(v)];
    let fused = fused(at, vec![at], inputs, heads, scale.is_finite().then_some(scale)?);
    Some(Match { masks, ..fused })
}

/// Heads and mask of ONNX's Attention.
fn own_rest(node: &NodeProto) -> Option<(i64, Option<&str>)> {
    let heads = int(node, "q_num_heads", 0);
    let plain = int(node, "kv_num_heads", 0) == heads
        && int(node, "is_causal", 0) == 0
        && float(node, "softcap", 0.0) == 0.0
        && attribute(node, "softmax_precision").is_none()
        && node.input.iter().skip(4).all(String::is_empty);
    (plain && heads > 0).then(|| (heads, input(node, 3)))
}

/// Heads and mask of MultiHeadAttention.
fn contributed_rest(node: &NodeProto) -> Option<(i64, Option<&str>)> {
    let heads = int(node, "num_heads", 0);
    let others = node.input.iter().enumerate().skip(3).filter(|&(i, _)| i != 5);
    let plain = int(node, "unidirectional", 0) == 0 && others.into_iter().all(|(_, name)| name.is_empty());
    (plain && heads > 0).then(|| (heads, input(node, 5)))
}
