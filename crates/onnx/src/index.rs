//! Who makes and who reads each value of a graph.

use std::collections::{HashMap, HashSet};

use crate::node::body_reads;
use crate::proto::{GraphProto, NodeProto, ValueInfoProto, type_proto::Value};

/// Reader of a value that is no node of this graph: a graph output or a nested graph.
const ELSEWHERE: usize = usize::MAX;

/// A graph with its values by name.
pub(crate) struct Index<'a> {
    pub graph: &'a GraphProto,
    initialisers: HashMap<&'a str, usize>,
    sparse: HashMap<&'a str, usize>,
    producers: HashMap<&'a str, usize>,
    /// How often a value is read, and by which node last.
    reads: HashMap<&'a str, (u32, usize)>,
    ranks: HashMap<&'a str, usize>,
    live: Vec<bool>,
}

impl<'a> Index<'a> {
    pub fn new(graph: &'a GraphProto) -> Self {
        let name = |t: &'a crate::proto::TensorProto| t.name.as_deref().unwrap_or("");
        let initialisers = graph.initializer.iter().enumerate().map(|(i, t)| (name(t), i)).collect();
        let sparse = graph.sparse_initializer.iter().enumerate();
        let sparse = sparse.filter_map(|(i, s)| Some((s.values.as_ref()?.name.as_deref()?, i))).collect();
        let mut producers = HashMap::new();
        let mut reads = HashMap::new();
        let mut read = |name: &'a str, node| {
            let entry = reads.entry(name).or_insert((0, node));
            *entry = (entry.0 + 1, node);
        };
        for (i, node) in graph.node.iter().enumerate() {
            node.output.iter().for_each(|output| _ = producers.insert(output.as_str(), i));
            node.input.iter().for_each(|input| read(input, i));
            body_reads(node, &mut |input| read(input, ELSEWHERE));
        }
        graph.output.iter().filter_map(|o| o.name.as_deref()).for_each(|output| read(output, ELSEWHERE));
        let typed = graph.input.iter().chain(&graph.value_info).chain(&graph.output);
        let ranks = typed.filter_map(|v| Some((v.name.as_deref()?, rank(v)?))).collect();
        let live = live(graph, graph.node.iter());
        Self { graph, initialisers, sparse, producers, reads, ranks, live }
    }

    pub fn initialiser(&self, name: &str) -> Option<usize> {
        self.initialisers.get(name).copied()
    }

    /// The sparse initialiser of a name, by number.
    pub fn sparse(&self, name: &str) -> Option<usize> {
        self.sparse.get(name).copied()
    }

    /// The node that makes a value, by number.
    pub fn producer(&self, name: &str) -> Option<usize> {
        self.producers.get(name).copied()
    }

    /// The node that makes a value.
    pub fn maker(&self, name: &str) -> Option<&'a NodeProto> {
        self.producer(name).map(|i| &self.graph.node[i])
    }

    /// Whether an output of the graph depends on a node.
    pub fn is_live(&self, node: usize) -> bool {
        self.live[node]
    }

    pub fn is_read(&self, name: &str) -> bool {
        self.reads.contains_key(name)
    }

    /// The node that alone reads a value, once; `None` for a graph output.
    pub fn sole_reader(&self, name: &str) -> Option<usize> {
        self.reads.get(name).filter(|&&(count, node)| count == 1 && node != ELSEWHERE).map(|&(_, node)| node)
    }

    /// How often a value is read; as a graph output once.
    pub fn reads(&self, name: &str) -> u32 {
        self.reads.get(name).map_or(0, |&(count, _)| count)
    }

    /// Rank of a value, where the file states it.
    pub fn rank(&self, name: &str) -> Option<usize> {
        self.ranks.get(name).copied()
    }
}

/// Which of `nodes`, in topological order, the outputs of `graph` depend on.
pub(crate) fn live<'a>(graph: &'a GraphProto, nodes: impl DoubleEndedIterator<Item = &'a NodeProto>) -> Vec<bool> {
    let mut needed: HashSet<&str> = graph.output.iter().filter_map(|o| o.name.as_deref()).collect();
    let mut live: Vec<bool> = nodes
        .rev()
        .map(|node| {
            let is_live = node.output.iter().any(|name| !name.is_empty() && needed.contains(name.as_str()));
            if is_live {
                needed.extend(node.input.iter().map(String::as_str));
                body_reads(node, &mut |name| _ = needed.insert(name));
            }
            is_live
        })
        .collect();
    live.reverse();
    live
}

fn rank(info: &ValueInfoProto) -> Option<usize> {
    match info.r#type.as_ref()?.value.as_ref()? {
        Value::TensorType(tensor) => Some(tensor.shape.as_ref()?.dim.len()),
        _ => None,
    }
}
