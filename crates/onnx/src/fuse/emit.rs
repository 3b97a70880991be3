//! The nodes and constants that stand in place of what was recognised.

use std::collections::{HashMap, HashSet};

use super::{Input, Mask, Match};
use crate::DOMAIN;
use crate::constants::Constant;
use crate::node::{ints_attribute, make};
use crate::proto::{GraphProto, NodeProto, TensorProto, tensor_proto::DataType};

/// Names and constants that fusing adds to a graph.
pub(super) struct Emitter<'a> {
    graph: &'a GraphProto,
    opset: i64,
    taken: HashSet<&'a str>,
    count: usize,
    pub initializers: Vec<TensorProto>,
    /// Constants made, by their data.
    constants: HashMap<(i32, Vec<usize>, Vec<u8>), String>,
    /// Masks made, by condition and what is chosen, and the node in whose place they are made.
    masks: HashMap<(&'a str, u32, u32), (String, usize)>,
}

impl<'a> Emitter<'a> {
    pub fn new(graph: &'a GraphProto, opset: i64) -> Self {
        let ends = graph.input.iter().chain(&graph.output).map(|value| value.name());
        let held = graph.initializer.iter().map(|tensor| tensor.name());
        let sparse = graph.sparse_initializer.iter().filter_map(|tensor| Some(tensor.values.as_ref()?.name()));
        let of_nodes = graph
            .node
            .iter()
            .flat_map(|node| node.input.iter().chain(&node.output).map(String::as_str).chain([node.name()]));
        let mut taken: HashSet<&str> = ends.chain(held).chain(sparse).chain(of_nodes).collect();
        for node in &graph.node {
            names_within(node, &mut taken);
        }
        Self {
            graph,
            opset,
            taken,
            count: 0,
            initializers: Vec::new(),
            constants: HashMap::new(),
            masks: HashMap::new(),
        }
    }

    /// The nodes in place of a match, the fused one among them; `None` where a constant cannot be decoded.
    pub fn nodes(&mut self, found: &Match<'a>) -> Option<Vec<NodeProto>> {
        let root = &self.graph.node[found.root];
        let output = root.output.first()?;
        let mut nodes = Vec::new();
        let mut inputs = Vec::new();
        for input in &found.inputs {
            inputs.push(self.input(input, &mut nodes)?);
        }
        let mut mask: Option<String> = None;
        for part in &found.masks {
            let part = self.mask(part, found.root, &mut nodes);
            mask = Some(match mask {
                Some(mask) => self.node("Add", &[&mask, &part], Vec::new(), &mut nodes),
                None => part,
            });
        }
        inputs.extend(mask);
        let inner = if found.nan_to_zero { self.fresh(output) } else { output.clone() };
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let mut node = make(DOMAIN, found.op_type, &inputs, &inner);
        node.name.clone_from(&root.name);
        node.attribute.clone_from(&found.attributes);
        nodes.push(node);
        if found.nan_to_zero {
            let test = self.node("IsNaN", &[&inner], Vec::new(), &mut nodes);
            let zero = self.constant(DataType::Float, &[], 0f32.to_le_bytes().to_vec());
            nodes.push(make("", "Where", &[&test, &zero, &inner], output));
        }
        Some(nodes)
    }

    fn input(&mut self, input: &Input<'a>, nodes: &mut Vec<NodeProto>) -> Option<String> {
        match input {
            Input::Value(name) => Some((*name).to_owned()),
            Input::Filled(len, value) => Some(self.floats(&vec![*value; *len])),
            Input::Vector(constant, factor) => self.vector(constant, *factor),
            Input::Part(joined, start, end) => {
                let bounds = [usize::try_from(*start).ok()?, usize::try_from(*end).ok()?];
                Some(self.part(joined, bounds, nodes))
            }
        }
    }

    /// A one-dimensional f32 initialiser: that of the constant, where it is one and the factor is 1.
    fn vector(&mut self, constant: &Constant, factor: f32) -> Option<String> {
        let held = constant.tensor(self.graph).filter(|tensor| tensor.dims.len() == 1);
        if let (Some(_), Some(initialiser)) = (held, constant.initialiser(self.graph))
            && factor == 1.0
        {
            return Some(initialiser.name().to_owned());
        }
        let mut values = constant.floats(self.graph)?;
        values.iter_mut().for_each(|value| *value *= factor);
        Some(self.floats(&values))
    }

    /// `start..end` of the last axis of a value of rank 3.
    fn part(&mut self, joined: &str, [start, end]: [usize; 2], nodes: &mut Vec<NodeProto>) -> String {
        if self.opset < 10 {
            let attributes = [("axes", 2), ("starts", start), ("ends", end)];
            let attributes = attributes.map(|(name, value)| ints_attribute(name, &[value])).to_vec();
            return self.node("Slice", &[joined], attributes, nodes);
        }
        let [start, end, axis] =
            [start, end, 2].map(|v| self.constant(DataType::Int64, &[1], (v as i64).to_le_bytes().to_vec()));
        self.node("Slice", &[joined, &start, &end, &axis], Vec::new(), nodes)
    }

    fn mask(&mut self, mask: &Mask<'a>, root: usize, nodes: &mut Vec<NodeProto>) -> String {
        let (condition, yes, no) = match *mask {
            Mask::Added(name) => return name.to_owned(),
            Mask::Chosen(condition, yes, no) => (condition, yes, no),
        };
        let key = (condition, yes.to_bits(), no.to_bits());
        if let Some((name, _)) = self.masks.get(&key).filter(|&&(_, made)| made < root) {
            return name.clone();
        }
        let chosen = [yes, no].map(|value| self.constant(DataType::Float, &[], value.to_le_bytes().to_vec()));
        let name = self.node("Where", &[condition, &chosen[0], &chosen[1]], Vec::new(), nodes);
        self.masks.insert(key, (name.clone(), root));
        name
    }

    fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        attribute: Vec<crate::proto::AttributeProto>,
        nodes: &mut Vec<NodeProto>,
    ) -> String {
        let output = self.fresh(op);
        nodes.push(NodeProto { attribute, ..make("", op, inputs, &output) });
        output
    }

    fn floats(&mut self, values: &[f32]) -> String {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(DataType::Float, &[values.len()], data)
    }

    /// The initialiser that holds `data`.
    fn constant(&mut self, dtype: DataType, shape: &[usize], data: Vec<u8>) -> String {
        let key = (dtype as i32, shape.to_vec(), data);
        if let Some(name) = self.constants.get(&key) {
            return name.clone();
        }
        let name = self.fresh("constant");
        self.initializers.push(TensorProto {
            name: Some(name.clone()),
            data_type: Some(dtype as i32),
            dims: shape.iter().map(|&size| size as i64).collect(),
            raw_data: Some(key.2.clone().into()),
            ..TensorProto::default()
        });
        self.constants.insert(key, name.clone());
        name
    }

    /// A name that nothing has.
    fn fresh(&mut self, part: &str) -> String {
        loop {
            self.count += 1;
            let name = format!("{part}_fused{}", self.count);
            if !self.taken.contains(name.as_str()) {
                return name;
            }
        }
    }
}

/// Names of values in the graphs that a node holds.
fn names_within<'a>(node: &'a NodeProto, taken: &mut HashSet<&'a str>) {
    for body in crate::node::bodies(node) {
        let ends = body.input.iter().chain(&body.output).map(|value| value.name());
        taken.extend(ends.chain(body.initializer.iter().map(|tensor| tensor.name())));
        for inner in &body.node {
            taken.extend(inner.input.iter().chain(&inner.output).map(String::as_str));
            names_within(inner, taken);
        }
    }
}
