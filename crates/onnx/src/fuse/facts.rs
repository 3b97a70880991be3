//! What is known of the values of a graph before it runs: element type, dimensions, and the elements of short integer
//! vectors, which are what shapes are computed from.
//!
//! An open dimension is a symbol; two dimensions with the same symbol are equal whatever the graph is fed. One pass in the
//! order of the graph; an operator without a rule leaves its outputs to what the file states of them.

use std::cell::Cell;
use std::collections::HashMap;

use super::{contents, shapes};
use crate::node::{input, int, is_default};
use crate::proto::tensor_shape_proto::{Dimension, dimension};
use crate::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto, tensor_proto::DataType, type_proto};
use crate::{DOMAIN, tensor};

/// Most dimensions of a value that are followed.
pub(super) const MAX_RANK: usize = 8;
/// Most elements of an integer vector that are followed.
pub(super) const MAX_CONTENT: usize = 16;

/// A dimension, or an element of an integer vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dim {
    Known(i64),
    Symbol(u32),
}

impl Dim {
    pub fn known(self) -> Option<i64> {
        match self {
            Self::Known(size) => Some(size),
            Self::Symbol(_) => None,
        }
    }
}

/// What is known of one value.
#[derive(Debug, Clone, Default)]
pub(super) struct Fact {
    /// ONNX data type; 0 where it is not known.
    pub dtype: i32,
    pub shape: Option<Vec<Dim>>,
    /// Elements of an integer scalar or vector, also after a cast to floats.
    pub content: Option<Vec<Dim>>,
}

impl Fact {
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// The elements, where all are numbers.
    pub fn numbers(&self) -> Option<Vec<i64>> {
        self.content.as_ref()?.iter().map(|dim| dim.known()).collect()
    }

    /// Of a tensor in the file.
    pub fn of_tensor(tensor: &TensorProto) -> Self {
        let shape = tensor.dims.iter().map(|&size| Dim::Known(size)).collect::<Vec<_>>();
        let elements = tensor.dims.iter().try_fold(1i64, |n, &size| n.checked_mul(size));
        let short = shape.len() <= 1 && elements.is_some_and(|n| n <= MAX_CONTENT as i64);
        let integers = if short { tensor::integers(tensor) } else { None };
        Self {
            dtype: tensor.data_type.unwrap_or(0),
            shape: Some(shape).filter(|shape| shape.len() <= MAX_RANK),
            content: integers.map(|values| values.into_iter().map(Dim::Known).collect()),
        }
    }
}

/// The facts of a graph, by value.
#[derive(Default)]
pub(super) struct Facts<'a> {
    of: HashMap<&'a str, Fact>,
    parameters: HashMap<&'a str, Dim>,
    symbols: Cell<u32>,
}

impl<'a> Facts<'a> {
    pub fn new(graph: &'a GraphProto) -> Self {
        let mut facts = Self::default();
        for value in &graph.input {
            let fact = facts.stated(value);
            facts.of.insert(value.name(), fact);
        }
        facts.of.extend(graph.initializer.iter().map(|tensor| (tensor.name(), Fact::of_tensor(tensor))));
        let stated = graph.value_info.iter().chain(&graph.output).map(|value| (value.name(), value));
        let stated: HashMap<&str, &ValueInfoProto> = stated.collect();
        for node in &graph.node {
            let mut made = facts.infer(node).into_iter();
            for name in &node.output {
                let mut fact = made.next().unwrap_or_default();
                if let Some(value) = stated.get(name.as_str()) {
                    let stated = facts.stated(value);
                    fact.dtype = if fact.dtype == 0 { stated.dtype } else { fact.dtype };
                    fact.shape = fact.shape.or(stated.shape);
                }
                fact.shape = fact.shape.filter(|shape| shape.len() <= MAX_RANK);
                fact.content = fact.content.filter(|content| content.len() <= MAX_CONTENT);
                facts.of.insert(name, fact);
            }
        }
        facts
    }

    pub fn of(&self, name: &str) -> Option<&Fact> {
        self.of.get(name)
    }

    pub fn shape(&self, name: &str) -> Option<&[Dim]> {
        self.of(name)?.shape.as_deref()
    }

    pub fn is_f32(&self, name: &str) -> bool {
        self.of(name).is_some_and(|fact| fact.dtype == DataType::Float as i32)
    }

    /// Input `i` of a node.
    pub fn input(&self, node: &NodeProto, i: usize) -> Option<&Fact> {
        self.of(input(node, i)?)
    }

    /// A symbol that no other dimension has.
    pub fn fresh(&self) -> Dim {
        let symbol = self.symbols.get();
        self.symbols.set(symbol.wrapping_add(1));
        Dim::Symbol(symbol)
    }

    /// What the file states of a value.
    fn stated(&mut self, value: &'a ValueInfoProto) -> Fact {
        let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
            return Fact::default();
        };
        let shape = tensor.shape.as_ref().filter(|shape| shape.dim.len() <= MAX_RANK);
        let shape = shape.map(|shape| shape.dim.iter().map(|dim| self.dim(dim)).collect());
        Fact { dtype: tensor.elem_type.unwrap_or(0), shape, content: None }
    }

    fn dim(&mut self, dim: &'a Dimension) -> Dim {
        match &dim.value {
            Some(dimension::Value::DimValue(size)) if *size > 0 => Dim::Known(*size),
            Some(dimension::Value::DimParam(name)) if !name.is_empty() => {
                let fresh = self.fresh();
                *self.parameters.entry(name).or_insert(fresh)
            }
            _ => self.fresh(),
        }
    }

    /// Of the outputs of a node.
    fn infer(&self, node: &NodeProto) -> Vec<Fact> {
        let op = node.op_type();
        let ours = node.domain() == DOMAIN;
        if !ours && !is_default(node.domain()) && node.domain() != "com.microsoft" {
            return Vec::new();
        }
        if op == "Split" {
            let dtype = self.dtype(node, op);
            let shapes = shapes::split(self, node).into_iter();
            return shapes.map(|shape| Fact { dtype, shape: Some(shape), content: None }).collect();
        }
        if op == "Constant" {
            return vec![constant(node)];
        }
        let content = contents::content(self, node, op);
        let shape = shapes::shape(self, node, op);
        let dtype = if ours { DataType::Float as i32 } else { self.dtype(node, op) };
        vec![Fact { dtype, shape, content }]
    }

    fn dtype(&self, node: &NodeProto, op: &str) -> i32 {
        let of = |i: usize| self.input(node, i).map_or(0, |fact| fact.dtype);
        let either = |i: usize, j: usize| if of(i) == 0 { of(j) } else { of(i) };
        match op {
            "Cast" => i32::try_from(int(node, "to", 0)).unwrap_or(0),
            "CastLike" => of(1),
            "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" => DataType::Int64 as i32,
            "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" | "Not" | "And" | "Or" | "Xor"
            | "IsNaN" | "IsInf" => DataType::Bool as i32,
            "ConstantOfShape" => {
                let value = crate::node::attribute(node, "value").and_then(|a| a.t.as_ref());
                value.map_or(DataType::Float as i32, |tensor| tensor.data_type.unwrap_or(0))
            }
            "Where" => either(1, 2),
            "Add" | "Sub" | "Mul" | "Div" | "MatMul" | "Gemm" | "Conv" | "Min" | "Max" | "Concat" | "Range" => {
                either(0, 1)
            }
            _ if shapes::keeps_type(op) => of(0),
            _ => 0,
        }
    }
}

/// Of the output of a Constant node.
fn constant(node: &NodeProto) -> Fact {
    let integers = |values: &[i64], shape: Vec<Dim>| Fact {
        dtype: DataType::Int64 as i32,
        shape: Some(shape),
        content: Some(values.iter().map(|&v| Dim::Known(v)).collect()),
    };
    let float = |shape: Vec<Dim>| Fact { dtype: DataType::Float as i32, shape: Some(shape), content: None };
    let Some(a) = node.attribute.iter().find(|a| a.name().starts_with("value")) else { return Fact::default() };
    match a.name() {
        "value" => a.t.as_ref().map(Fact::of_tensor).unwrap_or_default(),
        "value_int" => integers(&[a.i()], Vec::new()),
        "value_ints" => integers(&a.ints, vec![Dim::Known(a.ints.len() as i64)]),
        "value_float" => float(Vec::new()),
        "value_floats" => float(vec![Dim::Known(a.floats.len() as i64)]),
        _ => Fact::default(),
    }
}
