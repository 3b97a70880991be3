//! Values inside a model as outputs of it, so that whoever runs it hands them out.

use std::collections::{HashMap, HashSet};

use crate::Error;
use crate::error::shown;
use crate::model::{Model, series_nodes};
use crate::proto::{TypeProto, ValueInfoProto, type_proto};

impl Model {
    /// Adds values to the outputs, after those there are, in the order of `names`: of the skeleton, of
    /// [`Model::readable`] and of an artefact that is written. One that is an input or output of the graph already, or is
    /// named twice, is not added.
    ///
    /// Which layers there are and what is folded into them stays as it is.
    ///
    /// # Errors
    /// [`Error::Exposed`] for a value that no node makes, and for one between a layer's own nodes, which the skeleton does
    /// not have; then nothing is added.
    pub fn expose(&mut self, names: &[String]) -> Result<(), Error> {
        let mut added = self.new_outputs(names)?;
        self.exposed.extend(added.iter().cloned());
        self.proto.graph.iter_mut().for_each(|graph| graph.output.append(&mut added));
        Ok(())
    }

    /// The model with the outputs that its file has, and no others.
    pub fn unexposed(&self) -> Self {
        let mut model = self.clone();
        let names: HashSet<_> = self.exposed.iter().filter_map(|value| value.name.as_deref()).collect();
        let is_stated = |value: &ValueInfoProto| !value.name.as_deref().is_some_and(|name| names.contains(name));
        model.proto.graph.iter_mut().for_each(|graph| graph.output.retain(is_stated));
        model.exposed.clear();
        model
    }

    /// Those of `names` that are no inputs or outputs yet, as outputs.
    fn new_outputs(&self, names: &[String]) -> Result<Vec<ValueInfoProto>, Error> {
        let graph = self.graph();
        let ends = graph.input.iter().chain(&graph.output).filter_map(|value| value.name.as_deref());
        let mut known: HashSet<&str> = ends.collect();
        let made = graph.node.iter().enumerate().flat_map(|(at, n)| n.output.iter().map(move |o| (o.as_str(), at)));
        let (makers, inside, types): (HashMap<&str, usize>, _, _) = (made.collect(), self.inside(), self.types());
        let mut added = Vec::new();
        for name in names.iter().filter(|name| known.insert(name)) {
            let reason = match makers.get(name.as_str()).filter(|_| !name.is_empty()).map(|at| inside.get(at)) {
                None => "no node makes it".to_owned(),
                Some(Some((layer, output))) if output != name => format!("it lies within layer {}", shown(layer)),
                Some(_) => {
                    added.push(value(name, types.get(name.as_str()).copied()));
                    continue;
                }
            };
            return Err(Error::Exposed { file: self.file.clone(), value: shown(name), reason });
        }
        Ok(added)
    }

    /// By node, the layer that it is part of and the value that this layer makes.
    fn inside(&self) -> HashMap<usize, (&str, &str)> {
        let mut inside = HashMap::new();
        for plan in &self.plans {
            let series = series_nodes(plan).into_iter().flatten();
            let turn = plan.turn.iter().flat_map(|turn| &turn.nodes);
            let nodes = series.chain(turn).chain(&plan.absorbed).chain([&plan.node]);
            inside.extend(nodes.map(|&at| (at, (plan.name.as_str(), plan.output.as_str()))));
        }
        inside
    }

    /// Element types by value, where the graph states them or a layer has them.
    fn types(&self) -> HashMap<&str, i32> {
        let graph = self.graph();
        let of_layers =
            self.plans.iter().flat_map(|plan| [plan.input.as_str(), &plan.output].map(|name| (name, plan.dtype)));
        let stated = graph.value_info.iter().filter_map(|value| match value.r#type.as_ref()?.value.as_ref()? {
            type_proto::Value::TensorType(tensor) => Some((value.name.as_deref()?, tensor.elem_type?)),
            _ => None,
        });
        of_layers.chain(stated).collect()
    }
}

/// A value without its shape.
fn value(name: &str, elem_type: Option<i32>) -> ValueInfoProto {
    let tensor = type_proto::Value::TensorType(type_proto::Tensor { elem_type, shape: None });
    let kind = TypeProto { value: Some(tensor), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind), ..ValueInfoProto::default() }
}
