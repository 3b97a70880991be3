//! GELU and SiLU, as operators and as the expressions that exporters write for them.
//!
//! ```text
//! FpxGelu   none   x/2 (1 + erf(x / sqrt 2))
//!           tanh   x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
//! FpxSilu          x / (1 + exp(-x))
//! ```

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use super::product::{Product, close};
use super::view::View;
use super::{Input, Match};
use crate::node::{attribute, float, input, is_default, onnx_op, string_attribute};
use crate::proto::NodeProto;

/// `sqrt(2 / pi)`.
const TANH_SCALE: f64 = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
const CUBE: f64 = 0.044_715;

/// A GELU that node `at` ends.
pub(super) fn gelu<'a>(view: &View<'a>, at: usize) -> Option<Match<'a>> {
    let node = view.node(at);
    let of = |x: &'a str, nodes, approximate| Match {
        attributes: vec![string_attribute("approximate", approximate)],
        ..Match::new(at, nodes, "FpxGelu", vec![Input::Value(x)])
    };
    let contributed = node.domain() == "com.microsoft";
    match node.op_type() {
        "Gelu" if contributed || is_default(node.domain()) => {
            let approximate = match attribute(node, "approximate").map_or(&b"none"[..], |a| a.s()) {
                b"none" => "none",
                b"tanh" if !contributed => "tanh",
                _ => return None,
            };
            Some(of(input(node, 0)?, vec![at], approximate))
        }
        "FastGelu" if contributed && input(node, 1).is_none() => Some(of(input(node, 0)?, vec![at], "tanh")),
        _ if matches!(onnx_op(node), "Mul" | "Div") => {
            let mut nodes = Vec::new();
            let product = Product::of_node(view, at, &mut nodes)?;
            let &[a, b] = product.over.as_slice() else { return None };
            if !product.under.is_empty() || !close(product.number, 0.5) {
                return None;
            }
            let mark = nodes.len();
            [(a, b), (b, a)].into_iter().find_map(|(x, gate)| {
                nodes.truncate(mark);
                let approximate = self::gate(view, x, gate, &mut nodes)?;
                Some(of(x, nodes.clone(), approximate))
            })
        }
        _ => None,
    }
}

/// Whether `gate` is `1 + erf(..)` or `1 + tanh(..)` of `x`.
fn gate<'a>(view: &View<'a>, x: &'a str, gate: &'a str, nodes: &mut Vec<usize>) -> Option<&'static str> {
    let inner = plus_one(view, gate, nodes)?;
    let node = view.maker(inner, nodes)?;
    let argument = input(node, 0)?;
    match onnx_op(node) {
        "Erf" => {
            let product = Product::of_value(view, argument, nodes)?;
            let fits = product.over == [x] && product.under.is_empty() && close(product.number, FRAC_1_SQRT_2);
            fits.then_some("none")
        }
        "Tanh" => cubic(view, x, argument, nodes).then_some("tanh"),
        _ => None,
    }
}

/// Whether a value is `sqrt(2/pi) (x + 0.044715 x^3)`, also as `sqrt(2/pi) x (1 + 0.044715 x^2)`.
fn cubic<'a>(view: &View<'a>, x: &'a str, name: &'a str, nodes: &mut Vec<usize>) -> bool {
    let Some(product) = Product::of_value(view, name, nodes).filter(|p| p.under.is_empty()) else { return false };
    if !close(product.number, TANH_SCALE) {
        return false;
    }
    match *product.over.as_slice() {
        [sum] => {
            let Some(add) = view.made_by(sum, "Add", nodes) else { return false };
            let (Some(a), Some(b)) = (input(add, 0), input(add, 1)) else { return false };
            [(a, b), (b, a)].into_iter().any(|(own, cube)| view.source(own) == x && power(view, x, 3, cube, nodes))
        }
        [a, b] => [(a, b), (b, a)].into_iter().any(|(own, sum)| {
            own == x && plus_one(view, sum, nodes).is_some_and(|square| power(view, x, 2, square, nodes))
        }),
        _ => false,
    }
}

/// Whether a value is `0.044715 x^exponent`.
fn power<'a>(view: &View<'a>, x: &'a str, exponent: usize, name: &'a str, nodes: &mut Vec<usize>) -> bool {
    let mark = nodes.len();
    let is_power = Product::of_value(view, name, nodes).is_some_and(|product| {
        let factors = product.over.len() == exponent && product.over.iter().all(|&factor| factor == x);
        factors && product.under.is_empty() && close(product.number, CUBE)
    });
    if !is_power {
        nodes.truncate(mark);
    }
    is_power
}

/// What one is added to.
fn plus_one<'a>(view: &View<'a>, name: &'a str, nodes: &mut Vec<usize>) -> Option<&'a str> {
    let add = view.made_by(name, "Add", nodes)?;
    let (a, b) = (input(add, 0)?, input(add, 1)?);
    let is_one = |name| view.number(name, 1).is_some_and(|number| close(number, 1.0));
    if is_one(b) { Some(a) } else { Some(b).filter(|_| is_one(a)) }
}

/// A SiLU that node `at` ends.
pub(super) fn silu<'a>(view: &View<'a>, at: usize) -> Option<Match<'a>> {
    let node = view.node(at);
    let of = |x: &'a str, nodes| Match::new(at, nodes, "FpxSilu", vec![Input::Value(x)]);
    match onnx_op(node) {
        "Swish" if float(node, "alpha", 1.0) == 1.0 => Some(of(input(node, 0)?, vec![at])),
        "Mul" => {
            let (a, b) = (input(node, 0)?, input(node, 1)?);
            [(a, b), (b, a)].into_iter().find_map(|(x, gate)| {
                let mut nodes = vec![at];
                let sigmoid: &NodeProto = view.made_by(gate, "Sigmoid", &mut nodes)?;
                let x = view.source(x);
                (view.source(input(sigmoid, 0)?) == x).then(|| of(x, nodes))
            })
        }
        _ => None,
    }
}
