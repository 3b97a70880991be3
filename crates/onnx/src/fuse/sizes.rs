//! How many elements the nodes of a graph make, where the file alone says so: a few bytes may ask for terabytes.

use super::facts::{Dim, Facts};
use crate::node::{attribute, onnx_op};
use crate::proto::{GraphProto, NodeProto};

/// The first node whose output is known to have more than `most` elements, and how many.
pub(crate) fn oversized(graph: &GraphProto, most: u64) -> Option<(&NodeProto, u64)> {
    let facts = Facts::new(graph);
    let sized = graph.node.iter().filter_map(|node| Some((node, elements(&facts, node)?)));
    sized.into_iter().find(|(_, elements)| *elements > most)
}

/// Elements of the first output of a node, where all its dimensions are numbers.
fn elements(facts: &Facts, node: &NodeProto) -> Option<u64> {
    let shape = |i: usize| numbers(facts.input(node, i)?.shape.as_deref()?);
    let content = |i: usize| facts.input(node, i)?.numbers();
    let each =
        |a: Vec<i64>, b: Vec<i64>, f: fn(i64, i64) -> i64| Some(a.into_iter().zip(b).map(|(a, b)| f(a, b)).collect());
    let dims: Option<Vec<i64>> = match onnx_op(node) {
        "Tile" => each(shape(0)?, content(1)?, i64::saturating_mul),
        "Pad" => {
            let (dims, pads) = (shape(0)?, content(1)?);
            let (before, after) = pads.split_at_checked(dims.len())?;
            let around = each(before.to_vec(), after.to_vec(), i64::saturating_add)?;
            each(dims, around, i64::saturating_add)
        }
        "Resize" => content(3),
        "OneHot" => Some([shape(0)?, content(1)?].concat()),
        "Range" => {
            let [start, limit, delta] = [0, 1, 2].map(|i| content(i)?.first().copied());
            let (start, limit, delta) = (i128::from(start?), i128::from(limit?), i128::from(delta?));
            let count = if delta == 0 { 0 } else { (limit - start) / delta };
            Some(vec![i64::try_from(count).unwrap_or(i64::MAX)])
        }
        "RandomNormal" | "RandomUniform" => attribute(node, "shape").map(|a| a.ints.clone()),
        _ => numbers(facts.shape(node.output.first()?)?),
    };
    Some(dims?.iter().fold(1u64, |product, &size| product.saturating_mul(size.max(0) as u64)))
}

fn numbers(shape: &[Dim]) -> Option<Vec<i64>> {
    shape.iter().map(|dim| dim.known()).collect()
}
