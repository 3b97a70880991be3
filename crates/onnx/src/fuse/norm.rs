//! Normalisations over the last axis, as operators and as the expressions that exporters write for them.
//!
//! ```text
//! FpxLayerNorm   d / sqrt(mean(d^2) + epsilon) scale + bias,   d = x - mean(x)
//! FpxRmsNorm     x / sqrt(mean(x^2) + epsilon) scale
//! ```

use super::product::Product;
use super::shapes::axes;
use super::view::View;
use super::{Input, Match};
use crate::constants::Constant;
use crate::node::{float, float_attribute, input, int, is_default, onnx_op};
use crate::proto::NodeProto;

/// LayerNormalization, RMSNormalization and SimplifiedLayerNormalization over the last axis.
pub(super) fn operator<'a>(view: &View<'a>, at: usize) -> Option<Match<'a>> {
    let node = view.node(at);
    let contributed = node.domain() == "com.microsoft";
    let (op_type, has_bias) = match node.op_type() {
        "LayerNormalization" if is_default(node.domain()) => ("FpxLayerNorm", true),
        "RMSNormalization" if is_default(node.domain()) => ("FpxRmsNorm", false),
        "SimplifiedLayerNormalization" if contributed || is_default(node.domain()) => ("FpxRmsNorm", false),
        _ => return None,
    };
    let x = input(node, 0)?;
    let others_unread = node.output.iter().skip(1).all(|name| view.nodes_reading(name).is_some_and(<[_]>::is_empty));
    let last = is_last(int(node, "axis", -1), view.facts.of(x).and_then(|fact| fact.rank()));
    if !others_unread || !last {
        return None;
    }
    let scale = view.vector(input(node, 1)?, None)?;
    let len = scale.len();
    let mut inputs = vec![Input::Value(x), Input::Vector(scale, 1.0)];
    if let Some(bias) = input(node, 2).filter(|_| has_bias) {
        inputs.push(Input::Vector(view.vector(bias, None).filter(|bias| bias.len() == len)?, 1.0));
    }
    let epsilon = float(node, "epsilon", 1e-5);
    Some(Match { attributes: vec![float_attribute("epsilon", epsilon)], ..Match::new(at, vec![at], op_type, inputs) })
}

/// The parts of a decomposed normalisation.
struct Parts<'a> {
    x: &'a str,
    epsilon: f64,
    scale: Option<Constant>,
    /// What the scale is multiplied by.
    number: f64,
}

/// The product that node `at` makes, with the bias that follows it: a layer normalisation where `centred`, else one by the
/// root mean square.
pub(super) fn norm<'a>(view: &View<'a>, at: usize, centred: bool) -> Option<Match<'a>> {
    let mut nodes = Vec::new();
    let parts = parts(view, at, centred, &mut nodes)?;
    let rank = view.facts.of(parts.x).and_then(|fact| fact.rank());
    let added = if centred { bias(view, at, rank, &mut nodes) } else { None };
    let (root, bias) = match added {
        Some((root, bias)) => (root, Some(bias)),
        None => (at, None),
    };
    let len = parts.scale.as_ref().or(bias.as_ref())?.len();
    let scale = match parts.scale {
        Some(scale) => Input::Vector(scale, parts.number as f32),
        None => Input::Filled(len, parts.number as f32),
    };
    let mut inputs = vec![Input::Value(parts.x), scale];
    if let Some(bias) = bias {
        inputs.push(Input::Vector(Some(bias).filter(|bias| bias.len() == len)?, 1.0));
    }
    let op_type = if centred { "FpxLayerNorm" } else { "FpxRmsNorm" };
    let attributes = vec![float_attribute("epsilon", parts.epsilon as f32)];
    Some(Match { attributes, ..Match::new(root, nodes, op_type, inputs) })
}

/// `x`, scale and epsilon of the product that node `at` makes.
fn parts<'a>(view: &View<'a>, at: usize, centred: bool, nodes: &mut Vec<usize>) -> Option<Parts<'a>> {
    let product = Product::of_node(view, at, nodes)?;
    let rank = view.facts.of(view.node(at).output.first()?).and_then(|fact| fact.rank());
    let mut scales = product.over.iter().filter_map(|name| view.vector(name, rank));
    let (scale, more) = (scales.next(), scales.next());
    let others: Vec<&str> = product.over.iter().copied().filter(|name| view.vector(name, rank).is_none()).collect();
    let (deviation, root, inverse) = match (others.as_slice(), product.under.as_slice()) {
        (&[d], &[root]) => (d, root, false),
        (&[a, b], &[]) if is_inverse(view, b) => (a, b, true),
        (&[a, b], &[]) if is_inverse(view, a) => (b, a, true),
        _ => return None,
    };
    if more.is_some() || !product.number.is_finite() {
        return None;
    }
    let (square_mean, epsilon) = square_root(view, root, inverse, nodes)?;
    let squared = squared(view, mean(view, square_mean, nodes)?, nodes)?;
    let x = if centred {
        let x = centre(view, deviation, nodes)?;
        let same = squared == deviation || centre(view, squared, nodes)? == x;
        same.then_some(x)?
    } else {
        (squared == deviation).then_some(deviation)?
    };
    Some(Parts { x, epsilon, scale, number: product.number })
}

fn is_inverse<'a>(view: &View<'a>, name: &'a str) -> bool {
    view.maker(name, &mut Vec::new()).is_some_and(|node| match onnx_op(node) {
        "Reciprocal" => true,
        "Pow" => input(node, 1).and_then(|name| view.number(name, 1)) == Some(-0.5),
        _ => false,
    })
}

/// What lies under the square root, or the inverse of one, beside the epsilon that is added to it.
fn square_root<'a>(view: &View<'a>, name: &'a str, inverse: bool, nodes: &mut Vec<usize>) -> Option<(&'a str, f64)> {
    let mut node = view.maker(name, nodes)?;
    let mut exponent = 0.5;
    if inverse && onnx_op(node) == "Reciprocal" {
        node = view.maker(input(node, 0)?, nodes)?;
    } else if inverse {
        exponent = -0.5;
    }
    let is_root = match onnx_op(node) {
        "Sqrt" => exponent == 0.5,
        "Pow" => view.number(input(node, 1)?, 1) == Some(exponent),
        _ => false,
    };
    let add = view.made_by(input(node, 0).filter(|_| is_root)?, "Add", nodes)?;
    let (a, b) = (input(add, 0)?, input(add, 1)?);
    let (value, epsilon) = match view.number(b, 1) {
        Some(epsilon) => (a, epsilon),
        None => (b, view.number(a, 1)?),
    };
    (epsilon >= 0.0 && (epsilon as f32).is_finite()).then_some((value, epsilon))
}

/// What a value is the mean of along the last axis, which is kept.
fn mean<'a>(view: &View<'a>, name: &'a str, nodes: &mut Vec<usize>) -> Option<&'a str> {
    let node = view.made_by(name, "ReduceMean", nodes)?;
    let x = input(node, 0)?;
    let rank = view.facts.of(x).and_then(|fact| fact.rank());
    let along_last = matches!(axes(&view.facts, node)?[..], [axis] if is_last(axis, rank));
    (along_last && int(node, "keepdims", 1) != 0).then_some(x)
}

/// What a value is the square of.
fn squared<'a>(view: &View<'a>, name: &'a str, nodes: &mut Vec<usize>) -> Option<&'a str> {
    let node: &NodeProto = view.maker(name, nodes)?;
    let (a, b) = (input(node, 0)?, input(node, 1)?);
    let is_square = match onnx_op(node) {
        "Mul" => view.source(a) == view.source(b) || twin(view, a, b, nodes),
        "Pow" => view.number(b, 1) == Some(2.0),
        _ => false,
    };
    is_square.then(|| view.source(a))
}

/// Whether two values are the same difference to a mean, computed twice.
fn twin<'a>(view: &View<'a>, a: &'a str, b: &'a str, nodes: &mut Vec<usize>) -> bool {
    let (a, b) = (centre(view, a, nodes), centre(view, b, nodes));
    a.is_some() && a == b
}

/// What a value is the difference of to its mean.
fn centre<'a>(view: &View<'a>, name: &'a str, nodes: &mut Vec<usize>) -> Option<&'a str> {
    let node = view.made_by(name, "Sub", nodes)?;
    let x = view.source(input(node, 0)?);
    let of = mean(view, input(node, 1)?, nodes)?;
    (view.source(of) == x).then_some(x)
}

/// The Add of a constant vector that alone reads what node `at` makes.
fn bias<'a>(view: &View<'a>, at: usize, rank: Option<usize>, nodes: &mut Vec<usize>) -> Option<(usize, Constant)> {
    let mut through = Vec::new();
    let add = view.reader(at, "Add", &mut through)?;
    let node = view.node(add);
    let bias = [0, 1].into_iter().find_map(|i| view.vector(input(node, i)?, rank))?;
    nodes.extend(through);
    Some((add, bias))
}

fn is_last(axis: i64, rank: Option<usize>) -> bool {
    axis == -1 || rank.is_some_and(|rank| rank > 0 && axis == rank as i64 - 1)
}
