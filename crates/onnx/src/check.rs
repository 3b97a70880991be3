//! Is the graph one? Every value defined once, before it is read; every tensor complete.

use std::collections::{HashMap, HashSet};

use crate::error::shown;
use crate::external::{External, fault, is_external};
use crate::node::{bodies, is_default, node_name};
use crate::proto::{GraphProto, ModelProto, NodeProto};
use crate::{Error, Limits, attributes, tensor};

/// Version of ONNX's own operator set.
pub(crate) fn opset(model: &ModelProto) -> Option<i64> {
    let own = model.opset_import.iter().filter(|set| is_default(set.domain.as_deref().unwrap_or("")));
    own.map(|set| set.version.unwrap_or(0)).max()
}

/// Checks a decoded model, its graph and all nested graphs.
///
/// `external` has the files that initialisers of the graph, though not of nested graphs, may lie in.
pub(crate) fn check<'a>(
    model: &'a ModelProto,
    file: &str,
    limits: &Limits,
    external: Option<&External>,
) -> Result<&'a GraphProto, Error> {
    let not_onnx = |reason: &str| Error::NotOnnx { file: file.to_owned(), reason: reason.to_owned() };
    let graph = model.graph.as_ref().ok_or_else(|| not_onnx("there is no graph"))?;
    let version = opset(model).ok_or_else(|| not_onnx("there is no import of ONNX's operator set"))?;
    if version < 7 {
        return Err(Error::OpsetTooOld { file: file.to_owned(), opset: version });
    }
    if graph.output.is_empty() {
        return Err(not_onnx("the graph has no outputs"));
    }
    Checker { file, limits, external, scopes: Vec::new() }.graph(graph)?;
    model.functions.iter().try_for_each(|function| in_function(&function.node, file))?;
    Ok(graph)
}

/// Refuses tensors in a function that lie in other files.
fn in_function(nodes: &[NodeProto], file: &str) -> Result<(), Error> {
    for node in nodes {
        let name = node.output.first().map_or("", String::as_str);
        let mut held = node.attribute.iter().flat_map(|a| a.t.iter().chain(&a.tensors));
        if let Some(tensor) = held.find(|tensor| is_external(tensor)) {
            return Err(fault(tensor, name, file, "a tensor of a function must be in the model itself"));
        }
        for body in bodies(node) {
            if let Some(tensor) = body.initializer.iter().find(|tensor| is_external(tensor)) {
                return Err(fault(tensor, tensor.name(), file, "a tensor of a function must be in the model itself"));
            }
            in_function(&body.node, file)?;
        }
    }
    Ok(())
}

struct Checker<'a> {
    file: &'a str,
    limits: &'a Limits,
    external: Option<&'a External>,
    /// Names defined so far, outermost graph first.
    scopes: Vec<HashSet<&'a str>>,
}

impl<'a> Checker<'a> {
    fn graph(&mut self, graph: &'a GraphProto) -> Result<(), Error> {
        self.tensors(graph)?;
        let names = self.definitions(graph)?;
        self.scopes.push(names);
        for (at, node) in graph.node.iter().enumerate() {
            for name in node.input.iter().filter(|name| !name.is_empty()) {
                if !self.defined(name) {
                    return Err(self.out_of_order(graph, at, name));
                }
            }
            if let Some(reason) = attributes::fault(node) {
                return Err(Error::Attribute { file: self.file.to_owned(), node: node_name(node), reason });
            }
            bodies(node).try_for_each(|body| self.graph(body))?;
            for name in node.output.iter().filter(|name| !name.is_empty()) {
                if !self.scopes.last_mut().is_some_and(|scope| scope.insert(name)) {
                    return Err(self.duplicate(name));
                }
            }
        }
        for name in graph.output.iter().map(|o| o.name.as_deref().unwrap_or("")) {
            if !self.defined(name) {
                let (file, node) = (self.file.to_owned(), "the graph's output".to_owned());
                return Err(Error::Undefined { file, node, value: shown(name) });
            }
        }
        self.scopes.pop();
        Ok(())
    }

    fn defined(&self, name: &str) -> bool {
        self.scopes.iter().any(|scope| scope.contains(name))
    }

    fn duplicate(&self, name: &str) -> Error {
        Error::Duplicate { file: self.file.to_owned(), value: shown(name) }
    }

    /// Inputs and initialisers; one name may be both.
    fn definitions(&self, graph: &'a GraphProto) -> Result<HashSet<&'a str>, Error> {
        let mut inputs = HashSet::new();
        for name in graph.input.iter().map(|i| i.name.as_deref().unwrap_or("")) {
            if !inputs.insert(name) {
                return Err(self.duplicate(name));
            }
        }
        let sparse = graph.sparse_initializer.iter().filter_map(|s| s.values.as_ref());
        let mut constants = HashSet::new();
        for name in graph.initializer.iter().chain(sparse).map(|t| t.name.as_deref().unwrap_or("")) {
            if !constants.insert(name) {
                return Err(self.duplicate(name));
            }
        }
        inputs.extend(constants);
        Ok(inputs)
    }

    fn tensors(&self, graph: &GraphProto) -> Result<(), Error> {
        let external = self.external.filter(|_| self.scopes.is_empty());
        let initialisers = graph.initializer.iter();
        initialisers.into_iter().try_for_each(|t| tensor::check(t, t.name(), self.file, self.limits, external))?;
        let check = |t: &_, name: &str| tensor::check(t, name, self.file, self.limits, None);
        for sparse in &graph.sparse_initializer {
            let name = sparse.values.as_ref().and_then(|v| v.name.as_deref()).unwrap_or("");
            sparse.values.iter().chain(&sparse.indices).try_for_each(|t| check(t, name))?;
        }
        for node in &graph.node {
            let name = node.output.first().map_or("", String::as_str);
            let held = node.attribute.iter().flat_map(|a| a.t.iter().chain(&a.tensors));
            held.into_iter().try_for_each(|t| check(t, name))?;
            let sparse = node.attribute.iter().flat_map(|a| a.sparse_tensor.iter().chain(&a.sparse_tensors));
            let mut sparse = sparse.flat_map(|sparse| sparse.values.iter().chain(&sparse.indices));
            sparse.try_for_each(|t| check(t, name))?;
        }
        Ok(())
    }

    /// What is wrong with a node that reads `name`, which is not defined before it.
    fn out_of_order(&self, graph: &GraphProto, at: usize, name: &str) -> Error {
        let (file, node, value) = (self.file.to_owned(), node_name(&graph.node[at]), shown(name));
        let mut producers = HashMap::new();
        for (i, node) in graph.node.iter().enumerate() {
            node.output.iter().for_each(|output| _ = producers.insert(output.as_str(), i));
        }
        if !producers.contains_key(name) {
            return Error::Undefined { file, node, value };
        }
        // Is the node among its own ancestors?
        let (mut seen, mut pending) = (HashSet::new(), vec![at]);
        while let Some(i) = pending.pop() {
            for producer in graph.node[i].input.iter().filter_map(|name| producers.get(name.as_str())) {
                if *producer == at {
                    return Error::Cyclic { file, node };
                }
                if seen.insert(*producer) {
                    pending.push(*producer);
                }
            }
        }
        Error::Unsorted { file, node, value }
    }
}
