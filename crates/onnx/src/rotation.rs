//! Rotation of what enters a layer, as nodes that any ONNX runtime has:
//!
//! ```text
//! Reshape(MatMul(Reshape(x, [-1, b]), R), Shape(x))      R: b x b, the matrix of [`fpxint::Rotation`], a Constant
//! ```
//!
//! Layers that read one value share these nodes, and all of one block size share `R`, which is no initialiser, so that it stays
//! in the model where large tensors leave it. In the skeleton they are one node `FpxRotation` with the attribute `block`.

use std::collections::{HashMap, HashSet};

use fpxint::{Geometry, Rotation};

use crate::assemble::Names;
use crate::constants::Constant;
use crate::index::Index;
use crate::layers::Plan;
use crate::model::Model;
use crate::node;
use crate::node::{input, int_attribute, make, onnx_op};
use crate::proto::{AttributeProto, NodeProto, TensorProto, attribute_proto::AttributeType, tensor_proto::DataType};
use crate::skeleton::DOMAIN;

/// What turns the input of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    pub rotation: Rotation,
    /// Nodes of the graph that do it; none where the graph does not, and the weights are yet to be turned.
    pub nodes: Vec<usize>,
}

impl Turn {
    /// The turn that makes `name`, and the value that is turned, if it is one.
    pub fn find<'a>(index: &Index<'a>, name: &str) -> Option<(Self, &'a str)> {
        let made = |name: &str, op: &str| {
            let at = index.producer(name)?;
            let node = &index.graph.node[at];
            (onnx_op(node) == op).then_some((at, node))
        };
        let alone = |name: &'a str| index.sole_reader(name).map(|_| name);
        let (back, node) = made(name, "Reshape")?;
        let (product, shape) = (alone(input(node, 0)?)?, alone(input(node, 1)?)?);
        let (shape, of) = made(shape, "Shape").filter(|(_, node)| node.attribute.is_empty())?;
        let (product, node) = made(product, "MatMul")?;
        let (blocks, matrix) = (alone(input(node, 0)?)?, input(node, 1)?);
        let (blocks, node) = made(blocks, "Reshape")?;
        let x = input(node, 0).filter(|&x| input(of, 0) == Some(x))?;
        let matrix = Constant::direct(index, matrix).filter(|c| c.dtype == DataType::Float as i32)?;
        let rotation = Rotation::with_block(*matrix.shape.first()?)?;
        let block = rotation.block();
        let sizes = Constant::direct(index, input(node, 1)?)?;
        if matrix.shape != [block; 2] || sizes.shape != [2] {
            return None;
        }
        sizes.integers(index.graph).filter(|sizes| sizes[..] == [-1, block as i64])?;
        let same = matrix.floats(index.graph)?.iter().zip(rotation.matrix()).all(|(a, b)| a.to_bits() == b.to_bits());
        same.then_some((Self { rotation, nodes: vec![back, shape, product, blocks] }, x))
    }
}

/// Takes back every turn of a value that others read too: its nodes are those of the graph then. Gives the nodes of the turns
/// that are left.
pub(crate) fn settle(index: &Index, plans: &mut [Plan]) -> HashSet<usize> {
    let read = |plan: &Plan| input(&index.graph.node[plan.node], 0).unwrap_or("").to_owned();
    let mut readers: HashMap<String, u32> = HashMap::new();
    for plan in plans.iter().filter(|plan| plan.turn.is_some()) {
        *readers.entry(read(plan)).or_default() += 1;
    }
    let mut nodes = HashSet::new();
    for plan in plans {
        let name = read(plan);
        if readers.get(&name).is_some_and(|&count| count == index.reads(&name)) {
            nodes.extend(plan.turn.iter().flat_map(|turn| &turn.nodes));
        } else if plan.turn.take().is_some() {
            plan.input = name;
        }
    }
    nodes
}

/// Who makes the turned values of a rebuilt graph, and the constants that this takes.
pub(crate) struct Turns<'a> {
    pub model: &'a Model,
    /// By value and block: the first layer that reads it turned.
    values: HashMap<(&'a str, usize), usize>,
    /// By block: the first layer of it.
    blocks: HashMap<usize, usize>,
}

impl<'a> Turns<'a> {
    /// The turns of the layers that are replaced.
    pub fn new(model: &'a Model, is_replaced: impl Fn(usize) -> bool) -> Self {
        let mut turns = Self { model, values: HashMap::new(), blocks: HashMap::new() };
        for (i, plan) in model.plans.iter().enumerate().filter(|&(i, _)| is_replaced(i)) {
            let Some(turn) = &plan.turn else { continue };
            let block = turn.rotation.block();
            turns.blocks.entry(block).or_insert(i);
            // Of other types every layer has a value of its own in FLOAT.
            if plan.dtype == DataType::Float as i32 {
                turns.values.entry((plan.input.as_str(), block)).or_insert(i);
            }
        }
        turns
    }

    /// What layer `i`, which reads `x`, reads instead, and the nodes that make it where it is the first to.
    fn turned(
        &self,
        i: usize,
        names: &Names,
        x: &str,
        make: impl FnOnce(usize, &str) -> Vec<NodeProto>,
    ) -> (Vec<NodeProto>, String) {
        let Some(turn) = &self.model.plans[i].turn else { return (Vec::new(), x.to_owned()) };
        let block = turn.rotation.block();
        let first = self.values.get(&(x, block)).copied().unwrap_or(i);
        let name = names.of(first, "rotated");
        (if first == i { make(block, &name) } else { Vec::new() }, name)
    }

    /// The same in ONNX's operators.
    pub fn plain(&self, i: usize, names: &Names, x: &str) -> (Vec<NodeProto>, String) {
        self.turned(i, names, x, |block, turned| {
            let owner = self.blocks.get(&block).copied().unwrap_or(i);
            let [matrix, sizes] = ["rotation", "rotation_blocks"].map(|part| names.of(owner, part));
            let mut nodes = if owner == i { constants(block, &matrix, &sizes) } else { Vec::new() };
            nodes.extend(turning(x, turned, [&matrix, &sizes]));
            nodes
        })
    }

    /// The same as one node of ours.
    pub fn own(&self, i: usize, names: &Names, x: &str) -> (Vec<NodeProto>, String) {
        self.turned(i, names, x, |block, turned| {
            let mut node = make(DOMAIN, "FpxRotation", &[x], turned);
            node.attribute.push(int_attribute("block", block as i64));
            vec![node]
        })
    }
}

/// The nodes that make `turned` of `x`, given the matrix and the sizes of rows as blocks.
fn turning(x: &str, turned: &str, [matrix, sizes]: [&str; 2]) -> [NodeProto; 4] {
    let [shape, blocks, product] = ["shape", "blocks", "product"].map(|part| format!("{turned}_{part}"));
    [
        make("", "Shape", &[x], &shape),
        make("", "Reshape", &[x, sizes], &blocks),
        make("", "MatMul", &[&blocks, matrix], &product),
        make("", "Reshape", &[&product, &shape], turned),
    ]
}

/// The matrix of a block, and the sizes of rows as blocks.
fn constants(block: usize, matrix: &str, sizes: &str) -> Vec<NodeProto> {
    let entries = Rotation::with_block(block).map_or_else(Vec::new, Rotation::matrix);
    let (entries, side): (Vec<u8>, _) = (entries.iter().flat_map(|v| v.to_le_bytes()).collect(), block as i64);
    let rows = [-1, side].iter().flat_map(|v| v.to_le_bytes()).collect();
    vec![constant(matrix, DataType::Float, vec![side, side], entries), constant(sizes, DataType::Int64, vec![2], rows)]
}

fn constant(name: &str, dtype: DataType, dims: Vec<i64>, raw: Vec<u8>) -> NodeProto {
    let tensor =
        TensorProto { dims, data_type: Some(dtype as i32), raw_data: Some(raw.into()), ..TensorProto::default() };
    let (attribute, kind) = (Some("value".to_owned()), Some(AttributeType::Tensor as i32));
    node::constant(name, AttributeProto { name: attribute, r#type: kind, t: Some(tensor), ..AttributeProto::default() })
}

impl Model {
    /// The model with what enters its matrix products rotated, and their weights alike: its outputs are the same up to a rounding
    /// to f32. Of `layers`, or all; not those whose weights are a series already or whose depth has no rotation.
    #[must_use]
    pub fn rotated(&self, layers: Option<&[usize]>) -> Self {
        let mut model = self.clone();
        let layers: Option<HashSet<usize>> = layers.map(|layers| layers.iter().copied().collect());
        for (index, plan) in model.plans.iter_mut().enumerate() {
            let is_asked = layers.as_ref().is_none_or(|layers| layers.contains(&index));
            if let (true, Geometry::MatMul(g), false, None) = (is_asked, &plan.geometry, plan.is_series(), &plan.turn) {
                plan.turn = Rotation::of(g.k).map(|rotation| Turn { rotation, nodes: Vec::new() });
            }
        }
        model.tell_layers();
        model
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::GraphProto;

    /// The nodes of a turn of `x`, as they are written.
    fn written(block: usize) -> GraphProto {
        let mut node = constants(block, "m", "z");
        node.extend(turning("x", "y", ["m", "z"]));
        GraphProto { node, ..GraphProto::default() }
    }

    fn found(graph: &GraphProto) -> Option<usize> {
        Turn::find(&Index::new(graph), "y").map(|(turn, x)| {
            assert_eq!((x, turn.nodes), ("x", vec![5, 2, 4, 3]));
            turn.rotation.block()
        })
    }

    #[test]
    fn what_is_written_is_found() {
        for block in [16, 32, 64, 128] {
            assert_eq!(found(&written(block)), Some(block));
        }
    }

    #[test]
    fn near_misses_are_other_nodes() {
        type Change = fn(&mut GraphProto);
        let changes: [(&str, Change); 7] = [
            ("another matrix", |graph| {
                let tensor = graph.node[0].attribute[0].t.as_mut().unwrap();
                let mut raw = tensor.raw_data.take().unwrap().to_vec();
                raw[7] ^= 0x80;
                tensor.raw_data = Some(raw.into());
            }),
            ("another shape", |graph| graph.node[2].input[0] = "other".to_owned()),
            ("a part of the shape", |graph| graph.node[2].attribute.push(int_attribute("start", 1))),
            ("other blocks", |graph| {
                let raw = [-1i64, 8].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
                graph.node[1].attribute[0].t.as_mut().unwrap().raw_data = Some(raw.into());
            }),
            ("a product that is read twice", |graph| graph.node.push(make("", "Relu", &["y_product"], "q"))),
            ("the other operand", |graph| graph.node[4].input.swap(0, 1)),
            ("another operator", |graph| graph.node[4].op_type = Some("Add".to_owned())),
        ];
        for (what, change) in changes {
            let mut graph = written(16);
            change(&mut graph);
            assert_eq!(found(&graph), None, "{what}");
        }
    }
}
