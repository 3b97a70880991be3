//! What a model says of its values: element types, dimensions, constants, and which names are taken.

use std::collections::{HashMap, HashSet};

use super::constant;
use crate::proto::tensor_proto::DataType;
use crate::proto::tensor_shape_proto::dimension::Value as Dim;
use crate::proto::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, type_proto};

/// What one graph says of one value.
#[derive(Default)]
struct Fact<'a> {
    stated: Option<&'a type_proto::Tensor>,
    constant: Option<&'a TensorProto>,
    producer: Option<&'a NodeProto>,
}

/// The values of a graph, and those of the graphs around it.
pub(super) struct Scope<'a> {
    facts: HashMap<&'a str, Fact<'a>>,
    outer: Option<&'a Scope<'a>>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(graph: &'a GraphProto, outer: Option<&'a Scope<'a>>) -> Self {
        let mut facts: HashMap<&str, Fact<'_>> = HashMap::new();
        for value in stated_values(graph) {
            facts.entry(value.name()).or_default().stated = tensor_type(value);
        }
        for tensor in &graph.initializer {
            facts.entry(tensor.name()).or_default().constant = Some(tensor);
        }
        for node in &graph.node {
            for output in &node.output {
                facts.entry(output).or_default().producer = Some(node);
            }
            if let (Some(value), Some(output)) = (constant_value(node), node.output.first()) {
                facts.entry(output).or_default().constant = Some(value);
            }
        }
        Self { facts, outer }
    }

    fn fact(&self, name: &str) -> Option<&Fact<'a>> {
        let mut scope = Some(self);
        while let Some(here) = scope {
            if let Some(fact) = here.facts.get(name) {
                return Some(fact);
            }
            scope = here.outer;
        }
        None
    }

    /// The element type of a value, where the model states it.
    pub(super) fn elem_type(&self, name: &str) -> Option<i32> {
        let fact = self.fact(name)?;
        let stated = fact.stated.and_then(|tensor| tensor.elem_type);
        stated.or_else(|| fact.constant.and_then(|tensor| tensor.data_type)).filter(|&t| t != 0)
    }

    /// The dimensions of a value, where the model states them; `None` for one that is not a number.
    pub(super) fn dims(&self, name: &str) -> Option<Vec<Option<i64>>> {
        let fact = self.fact(name)?;
        if let Some(shape) = fact.stated.and_then(|tensor| tensor.shape.as_ref()) {
            let dim = |value: &Option<Dim>| match value {
                Some(Dim::DimValue(size)) => Some(*size),
                _ => None,
            };
            return Some(shape.dim.iter().map(|d| dim(&d.value)).collect());
        }
        if let Some(tensor) = fact.constant {
            return Some(tensor.dims.iter().map(|&size| Some(size)).collect());
        }
        let always_a_matrix = fact.producer.is_some_and(|node| matches!(node.op_type(), "Gemm" | "Flatten"));
        always_a_matrix.then(|| vec![None; 2])
    }

    /// The elements of a constant f32 value.
    pub(super) fn floats(&self, name: &str) -> Option<Vec<f32>> {
        constant::floats(self.fact(name)?.constant?)
    }
}

/// What is known of the model as a whole.
pub(super) struct ModelFacts {
    taken: HashSet<String>,
    next_suffix: HashMap<String, u64>,
    consumed: HashSet<String>,
    float_types: HashSet<i32>,
}

impl ModelFacts {
    pub(super) fn new(graph: &GraphProto) -> Self {
        let mut facts = Self {
            taken: HashSet::new(),
            next_suffix: HashMap::new(),
            consumed: HashSet::new(),
            float_types: HashSet::new(),
        };
        facts.add_graph(graph);
        facts
    }

    /// A name that nothing in the model has, and that no later call returns.
    pub(super) fn fresh(&mut self, wanted: String) -> String {
        if self.taken.insert(wanted.clone()) {
            return wanted;
        }
        let suffix = self.next_suffix.entry(wanted.clone()).or_default();
        loop {
            *suffix += 1;
            let name = format!("{wanted}_{suffix}");
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }

    /// Whether some node or graph output reads the value.
    pub(super) fn is_consumed(&self, name: &str) -> bool {
        self.consumed.contains(name)
    }

    /// The floating type of every value, where the model has but one (f32 where it states none).
    pub(super) fn only_float_type(&self) -> Option<i32> {
        match self.float_types.len() {
            0 => Some(DataType::Float as i32),
            1 => self.float_types.iter().next().copied(),
            _ => None,
        }
    }

    fn add_graph(&mut self, graph: &GraphProto) {
        for value in stated_values(graph) {
            self.taken.insert(value.name().to_owned());
            self.add_type(tensor_type(value).map_or(0, type_proto::Tensor::elem_type));
        }
        for tensor in &graph.initializer {
            self.taken.insert(tensor.name().to_owned());
            self.add_type(tensor.data_type());
        }
        for values in graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref()) {
            self.taken.insert(values.name().to_owned());
            self.add_type(values.data_type());
        }
        self.consumed.extend(graph.output.iter().map(|value| value.name().to_owned()));
        for node in &graph.node {
            self.taken.insert(node.name().to_owned());
            self.taken.extend(node.output.iter().cloned());
            self.taken.extend(node.input.iter().cloned());
            self.consumed.extend(node.input.iter().cloned());
            node.attribute.iter().for_each(|attribute| self.add_attribute(attribute));
        }
    }

    fn add_attribute(&mut self, attribute: &AttributeProto) {
        attribute.t.iter().chain(&attribute.tensors).for_each(|tensor| self.add_type(tensor.data_type()));
        if matches!(attribute.name(), "to" | "dtype") {
            self.add_type(i32::try_from(attribute.i()).unwrap_or(0));
        }
        attribute.g.iter().chain(&attribute.graphs).for_each(|graph| self.add_graph(graph));
    }

    fn add_type(&mut self, elem_type: i32) {
        let floating = [DataType::Float, DataType::Double, DataType::Float16, DataType::Bfloat16];
        if floating.iter().any(|&t| t as i32 == elem_type) {
            self.float_types.insert(elem_type);
        }
    }
}

fn stated_values(graph: &GraphProto) -> impl Iterator<Item = &ValueInfoProto> {
    graph.input.iter().chain(&graph.output).chain(&graph.value_info)
}

fn tensor_type(value: &ValueInfoProto) -> Option<&type_proto::Tensor> {
    match value.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => Some(tensor),
        _ => None,
    }
}

fn constant_value(node: &NodeProto) -> Option<&TensorProto> {
    if node.op_type() != "Constant" || !super::is_default_domain(node.domain()) {
        return None;
    }
    node.attribute.iter().find(|attribute| attribute.name() == "value")?.t.as_ref()
}
