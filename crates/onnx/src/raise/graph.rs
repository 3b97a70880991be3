//! Walks a graph and the graphs in its attributes, and drafts the raised ones without touching the model.

use std::collections::HashSet;

use super::edit::Edit;
use super::facts::{ModelFacts, Scope};
use super::table::{Rule, rule};
use super::{Unraisable, is_default_domain};
use crate::proto::{GraphProto, NodeProto, TensorProto};

/// A raised graph: what replaces its nodes, and the constants they need.
#[derive(Default)]
pub(super) struct Draft {
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    dropped: HashSet<String>,
}

impl Draft {
    /// Puts the draft in place of the nodes it was made from.
    pub(super) fn apply(self, graph: &mut GraphProto) {
        graph.node = self.nodes;
        graph.initializer.extend(self.initializers);
        if !self.dropped.is_empty() {
            graph.value_info.retain(|value| !self.dropped.contains(value.name()));
        }
    }
}

/// Drafts `graph`, the main graph of a model, raised from opset `from` to `to`.
pub(super) fn draft(graph: &GraphProto, from: i64, to: i64) -> Result<Draft, Unraisable> {
    let mut walk = Walk { model: ModelFacts::new(graph), from, to };
    walk.graph(graph, None)
}

struct Walk {
    model: ModelFacts,
    from: i64,
    to: i64,
}

impl Walk {
    fn graph(&mut self, graph: &GraphProto, outer: Option<&Scope<'_>>) -> Result<Draft, Unraisable> {
        let scope = Scope::new(graph, outer);
        let mut draft = Draft::default();
        for node in &graph.node {
            let mut raised = node.clone();
            for (attribute, old) in raised.attribute.iter_mut().zip(&node.attribute) {
                for (graph, old) in attribute.g.iter_mut().zip(&old.g) {
                    self.graph(old, Some(&scope))?.apply(graph);
                }
                for (graph, old) in attribute.graphs.iter_mut().zip(&old.graphs) {
                    self.graph(old, Some(&scope))?.apply(graph);
                }
            }
            if is_default_domain(node.domain()) {
                self.node(raised, &scope, &mut draft)?;
            } else {
                draft.nodes.push(raised);
            }
        }
        Ok(draft)
    }

    fn node(&mut self, node: NodeProto, scope: &Scope<'_>, draft: &mut Draft) -> Result<(), Unraisable> {
        let rewrite = match rule(node.op_type()) {
            Some(Rule::Same) => {
                draft.nodes.push(node);
                return Ok(());
            }
            Some(Rule::Rewrite(rewrite)) => rewrite,
            None => return Err(unraisable(&node, "its changes between opsets are not known".into())),
        };
        let mut edit = Edit::new(node, scope, &mut self.model, self.from, self.to);
        match rewrite(&mut edit) {
            Err(reason) => Err(unraisable(&edit.node, reason)),
            Ok(()) => {
                draft.nodes.append(&mut edit.before);
                draft.nodes.push(edit.node);
                draft.nodes.append(&mut edit.after);
                draft.initializers.append(&mut edit.initializers);
                draft.dropped.extend(edit.dropped);
                Ok(())
            }
        }
    }
}

fn unraisable(node: &NodeProto, reason: String) -> Unraisable {
    let name = match node.name() {
        "" => node.output.first().map_or("", String::as_str),
        name => name,
    };
    Unraisable { node: name.to_owned(), op_type: node.op_type().to_owned(), reason }
}
