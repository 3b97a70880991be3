//! A graph as patterns see it: who makes and who reads a value, which values are constants, and whether a set of nodes can
//! go.

use std::collections::{HashMap, HashSet};

use super::facts::Facts;
use crate::constants::Constant;
use crate::index::Index;
use crate::node::{body_reads, input, int, onnx_op};
use crate::proto::{GraphProto, NodeProto};
use crate::tensor::is_float;

/// Reader of a value that is no node of this graph: a graph output or a nested graph.
const ELSEWHERE: usize = usize::MAX;
/// Longest chain of nodes looked through, and deepest expression evaluated.
const MAX_CHAIN: usize = 8;
/// Most readers of an inner value, and most nodes beside a pattern that go with it.
const MAX_BESIDE: usize = 64;

pub(super) struct View<'a> {
    pub graph: &'a GraphProto,
    pub index: Index<'a>,
    pub facts: Facts<'a>,
    pub opset: i64,
    readers: HashMap<&'a str, Vec<usize>>,
}

impl<'a> View<'a> {
    pub fn new(graph: &'a GraphProto, opset: i64) -> Self {
        let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, node) in graph.node.iter().enumerate() {
            let given = node.input.iter().filter(|name| !name.is_empty());
            given.for_each(|name| readers.entry(name).or_default().push(at));
            body_reads(node, &mut |name| readers.entry(name).or_default().push(ELSEWHERE));
        }
        graph.output.iter().for_each(|value| readers.entry(value.name()).or_default().push(ELSEWHERE));
        Self { graph, index: Index::new(graph), facts: Facts::new(graph), opset, readers }
    }

    pub fn node(&self, at: usize) -> &'a NodeProto {
        &self.graph.node[at]
    }

    fn readers(&self, name: &str) -> &[usize] {
        self.readers.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether a node only hands on its first input.
    fn hands_on(&self, node: &NodeProto) -> bool {
        match onnx_op(node) {
            "Identity" => true,
            "Dropout" => {
                let unread = node.output.iter().skip(1).all(|name| self.readers(name).is_empty());
                unread && (self.opset < 12 || input(node, 2).is_none())
            }
            "Cast" => {
                let from = self.facts.input(node, 0).map_or(0, |fact| fact.dtype);
                is_float(from) && i64::from(from) == int(node, "to", 0)
            }
            _ => false,
        }
    }

    /// The value that `name` is a copy of.
    pub fn source(&self, name: &'a str) -> &'a str {
        let mut name = name;
        for _ in 0..MAX_CHAIN {
            match self.index.maker(name).filter(|node| self.hands_on(node)).and_then(|node| input(node, 0)) {
                Some(from) => name = from,
                None => break,
            }
        }
        name
    }

    /// The node that makes a value or what it is a copy of; it and the copies are noted in `nodes`.
    pub fn maker(&self, name: &'a str, nodes: &mut Vec<usize>) -> Option<&'a NodeProto> {
        let mut name = name;
        for _ in 0..MAX_CHAIN {
            let at = self.index.producer(name)?;
            nodes.push(at);
            let node = self.node(at);
            if !self.hands_on(node) {
                return Some(node);
            }
            name = input(node, 0)?;
        }
        None
    }

    /// The same for an ONNX operator of one kind.
    pub fn made_by(&self, name: &'a str, op: &str, nodes: &mut Vec<usize>) -> Option<&'a NodeProto> {
        let mark = nodes.len();
        let node = self.maker(name, nodes).filter(|node| onnx_op(node) == op);
        if node.is_none() {
            nodes.truncate(mark);
        }
        node
    }

    /// Whether a value and all it is a copy of have one reader.
    pub fn has_one_reader(&self, name: &'a str) -> bool {
        let mut name = name;
        for _ in 0..MAX_CHAIN {
            if self.readers(name).len() != 1 {
                return false;
            }
            match self.index.maker(name).filter(|node| self.hands_on(node)).and_then(|node| input(node, 0)) {
                Some(from) => name = from,
                None => return true,
            }
        }
        false
    }

    /// The one node of operator `op` that reads what node `at` makes, through copies; it and they are noted in `nodes`.
    ///
    /// Shape may read it too: what it tells goes into shapes that the pattern needs no more, or the pattern cannot go.
    pub fn reader(&self, at: usize, op: &str, nodes: &mut Vec<usize>) -> Option<usize> {
        let mut at = at;
        for _ in 0..MAX_CHAIN {
            let readers = self.nodes_reading(self.node(at).output.first()?).filter(|all| all.len() <= MAX_BESIDE)?;
            let mut others = readers.iter().filter(|&&reader| onnx_op(self.node(reader)) != "Shape");
            let (Some(&next), None) = (others.next(), others.next()) else { return None };
            nodes.push(next);
            if !self.hands_on(self.node(next)) {
                return Some(next).filter(|&next| onnx_op(self.node(next)) == op);
            }
            at = next;
        }
        None
    }

    /// The nodes of this graph that read a value; `None` where it is read elsewhere too.
    pub fn nodes_reading(&self, name: &str) -> Option<&[usize]> {
        Some(self.readers(name)).filter(|readers| !readers.contains(&ELSEWHERE))
    }

    /// The one element of a constant of at most `max_rank` axes; square roots and quotients of constants included, and
    /// known dimensions.
    pub fn number(&self, name: &'a str, max_rank: usize) -> Option<f64> {
        let fact = self.facts.of(name);
        if fact.and_then(|fact| fact.rank()).is_some_and(|rank| rank > max_rank) {
            return None;
        }
        self.evaluate(name, 0)
    }

    fn evaluate(&self, name: &'a str, depth: usize) -> Option<f64> {
        let fact = self.facts.of(name);
        if let Some([value]) = fact.and_then(|fact| fact.content.as_deref()) {
            return value.known().map(|value| value as f64);
        }
        if fact.and_then(|fact| fact.shape.as_ref()).is_some_and(|shape| shape.iter().any(|d| d.known() != Some(1))) {
            return None;
        }
        if let Some(constant) = Constant::find(&self.index, name) {
            let single = constant.len() == 1 && is_float(constant.dtype);
            return if single { constant.doubles(self.graph)?.first().copied() } else { None };
        }
        let node = self.index.maker(name).filter(|_| depth < MAX_CHAIN)?;
        let of = |i: usize| self.evaluate(input(node, i)?, depth + 1);
        match onnx_op(node) {
            "Identity" | "Squeeze" | "Unsqueeze" | "Reshape" => of(0),
            "Cast" if is_float(int(node, "to", 0) as i32) => of(0),
            "Sqrt" => Some(of(0)?.sqrt()),
            "Reciprocal" => Some(1.0 / of(0)?),
            "Mul" => Some(of(0)? * of(1)?),
            "Div" if self.facts.is_f32(name) => Some(of(0)? / of(1)?),
            "Pow" => Some(of(0)?.powf(of(1)?)),
            _ => None,
        }
    }

    /// A constant f32 vector along the last axis, of more than one element, that adds no axis to a value of `rank`.
    pub fn vector(&self, name: &'a str, rank: Option<usize>) -> Option<Constant> {
        let constant = Constant::find(&self.index, name)?;
        let (last, outer) = constant.shape.split_last()?;
        let fits = outer.is_empty() || rank.is_some_and(|rank| outer.len() < rank);
        let along_last = *last > 1 && outer.iter().all(|&size| size == 1);
        (fits && along_last && constant.dtype == crate::proto::tensor_proto::DataType::Float as i32).then_some(constant)
    }

    /// Whether `nodes` can go when `root`, one of them, is replaced by nodes that read `kept`: what they make is read by
    /// nothing but them, and by nodes that only they need.
    pub fn is_closed(&self, root: usize, nodes: &HashSet<usize>, kept: &[&str]) -> bool {
        let mut beside = HashSet::new();
        let mut pending: Vec<usize> = nodes.iter().copied().filter(|&at| at != root).collect();
        while let Some(at) = pending.pop() {
            for name in self.node(at).output.iter().filter(|name| !name.is_empty()) {
                let readers = self.readers(name);
                if kept.contains(&name.as_str()) || readers.len() > MAX_BESIDE {
                    return false;
                }
                for &reader in readers {
                    if reader == ELSEWHERE {
                        return false;
                    }
                    if !nodes.contains(&reader) && beside.insert(reader) {
                        pending.push(reader);
                    }
                    if beside.len() > MAX_BESIDE {
                        return false;
                    }
                }
            }
        }
        true
    }
}
