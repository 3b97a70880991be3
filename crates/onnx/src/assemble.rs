//! Graph surgery shared by the skeleton and the artefact: layer nodes replaced, what was folded taken out, and whatever
//! nothing reads any more removed.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::index::live;
use crate::layers::Plan;
use crate::model::Model;
use crate::node::{bodies, body_reads, int_attribute, make};
use crate::proto::{GraphProto, NodeProto, tensor_proto::DataType};

/// Names for the values that a rebuilt graph adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    prefix: String,
}

impl Names {
    /// `part` of layer `layer`.
    pub fn of(&self, layer: usize, part: &str) -> String {
        format!("{}/{layer}/{part}", self.prefix)
    }
}

/// The model's graph with the nodes that `replace` gives in place of each layer and of what is folded into it, and the
/// names it was given. Their prefix is the first that no name of the result has, whatever the model held before.
pub(crate) fn rebuild_named(
    model: &Model,
    replace: impl Fn(usize, &Plan, &Names) -> Option<Vec<NodeProto>>,
) -> (GraphProto, Names) {
    let trial = fresh(model.graph(), None);
    let mut graph = rebuild(model, |layer, plan| replace(layer, plan, &trial));
    let names = fresh(&graph, Some(&trial));
    if names != trial {
        let renamed =
            |name: &str| Some(format!("{}/{}", names.prefix, name.strip_prefix(&trial.prefix)?.strip_prefix('/')?));
        for node in &mut graph.node {
            for name in node.name.iter_mut().chain(&mut node.input).chain(&mut node.output) {
                if let Some(new) = renamed(name) {
                    *name = new;
                }
            }
        }
    }
    (graph, names)
}

/// The first of `fpxint`, `fpxint1`, .. that prefixes no name of a graph; names of `own` do not count.
fn fresh(graph: &GraphProto, own: Option<&Names>) -> Names {
    let mut taken = HashSet::new();
    collect_prefixes(graph, &mut taken);
    if let Some(own) = own {
        taken.remove(own.prefix.as_str());
    }
    let candidates = std::iter::once("fpxint".to_owned()).chain((1u32..).map(|i| format!("fpxint{i}")));
    let prefix = candidates.into_iter().find(|prefix| !taken.contains(prefix.as_str()));
    Names { prefix: prefix.unwrap_or_default() }
}

/// What precedes the first slash in every name of a graph and of the graphs in it.
fn collect_prefixes<'a>(graph: &'a GraphProto, taken: &mut HashSet<&'a str>) {
    let typed = graph.input.iter().chain(&graph.output).filter_map(|v| v.name.as_deref());
    let sparse = graph.sparse_initializer.iter().filter_map(|s| s.values.as_ref());
    let constants = graph.initializer.iter().chain(sparse).filter_map(|t| t.name.as_deref());
    let made = graph.node.iter().flat_map(|n| n.output.iter().chain(&n.input).chain(&n.name)).map(String::as_str);
    taken.extend(typed.chain(constants).chain(made).filter_map(|name| Some(name.split_once('/')?.0)));
    graph.node.iter().flat_map(bodies).for_each(|body| collect_prefixes(body, taken));
}

/// The model's graph with the nodes that `replace` gives in place of a layer and of what is folded into it; `None` keeps
/// the layer as it is.
fn rebuild(model: &Model, replace: impl Fn(usize, &Plan) -> Option<Vec<NodeProto>>) -> GraphProto {
    let graph = model.graph();
    let mut replaced: HashMap<usize, Vec<NodeProto>> = HashMap::new();
    for (i, plan) in model.plans.iter().enumerate() {
        if let Some(nodes) = replace(i, plan) {
            replaced.extend(plan.absorbed.iter().map(|&at| (at, Vec::new())));
            replaced.insert(plan.node, nodes);
        }
    }
    let mut nodes: Vec<Cow<NodeProto>> = Vec::with_capacity(graph.node.len());
    for (at, node) in graph.node.iter().enumerate() {
        match replaced.remove(&at) {
            Some(new) => nodes.extend(new.into_iter().map(Cow::Owned)),
            None => nodes.push(Cow::Borrowed(node)),
        }
    }
    prune(graph, nodes)
}

/// The graph with `nodes`, without those that no output depends on and the initialisers that none of them reads.
pub(crate) fn prune(graph: &GraphProto, nodes: Vec<Cow<NodeProto>>) -> GraphProto {
    let live = live(graph, nodes.iter().map(Cow::as_ref));
    let node: Vec<NodeProto> =
        nodes.into_iter().zip(live).filter(|(_, live)| *live).map(|(node, _)| node.into_owned()).collect();
    let mut needed: HashSet<&str> = graph.output.iter().filter_map(|o| o.name.as_deref()).collect();
    for node in &node {
        needed.extend(node.input.iter().map(String::as_str));
        body_reads(node, &mut |name| _ = needed.insert(name));
    }
    let name_needed = |name: &Option<String>| needed.contains(name.as_deref().unwrap_or(""));
    let constants: HashSet<&str> = graph.initializer.iter().filter_map(|t| t.name.as_deref()).collect();
    let initializer = graph.initializer.iter().filter(|t| name_needed(&t.name)).cloned().collect();
    let sparse = graph.sparse_initializer.iter();
    let sparse_initializer =
        sparse.filter(|s| s.values.as_ref().is_some_and(|v| name_needed(&v.name))).cloned().collect();
    let input = graph.input.iter().filter(|i| !constants.contains(i.name.as_deref().unwrap_or(""))).cloned().collect();
    let made: HashSet<&str> = node.iter().flat_map(|n| &n.output).map(String::as_str).collect();
    let value_info =
        graph.value_info.iter().filter(|v| made.contains(v.name.as_deref().unwrap_or(""))).cloned().collect();
    GraphProto {
        node,
        name: graph.name.clone(),
        initializer,
        sparse_initializer,
        doc_string: graph.doc_string.clone(),
        input,
        output: graph.output.clone(),
        value_info,
        quantization_annotation: Vec::new(),
        metadata_props: graph.metadata_props.clone(),
    }
}

/// The nodes that `build` makes between the plan's input and output, in FLOAT whatever the type around them.
pub(crate) fn in_float(
    plan: &Plan,
    layer: usize,
    names: &Names,
    build: impl FnOnce(&str, &str) -> Vec<NodeProto>,
) -> Vec<NodeProto> {
    if plan.dtype == DataType::Float as i32 {
        return build(&plan.input, &plan.output);
    }
    let (inner_x, inner_y) = (names.of(layer, "x"), names.of(layer, "y"));
    let cast = |from: &str, output: &str, name: &str, to: i32| {
        let mut node = make("", "Cast", &[from], output);
        node.name = Some(names.of(layer, name));
        node.attribute.push(int_attribute("to", i64::from(to)));
        node
    };
    let mut nodes = vec![cast(&plan.input, &inner_x, "in", DataType::Float as i32)];
    nodes.extend(build(&inner_x, &inner_y));
    nodes.push(cast(&inner_y, &plan.output, "out", plan.dtype));
    nodes
}
