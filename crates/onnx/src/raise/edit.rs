//! A node under rewriting, with the steps that rewritings are made of.

use super::constant;
use super::facts::{ModelFacts, Scope};
use crate::proto::attribute_proto::AttributeType;
use crate::proto::{AttributeProto, NodeProto, TensorProto};

/// A node on its way from opset `from` to opset `to`.
///
/// A rewriting changes `node` and may add nodes `before` and `after` it, constants, and names of outputs it dropped.
/// What it leaves is discarded when it fails.
pub(super) struct Edit<'a> {
    pub(super) node: NodeProto,
    pub(super) before: Vec<NodeProto>,
    pub(super) after: Vec<NodeProto>,
    pub(super) initializers: Vec<TensorProto>,
    pub(super) dropped: Vec<String>,
    pub(super) scope: &'a Scope<'a>,
    pub(super) model: &'a mut ModelFacts,
    from: i64,
    to: i64,
}

impl<'a> Edit<'a> {
    pub(super) fn new(node: NodeProto, scope: &'a Scope<'a>, model: &'a mut ModelFacts, from: i64, to: i64) -> Self {
        let (before, after, initializers, dropped) = Default::default();
        Self { node, before, after, initializers, dropped, scope, model, from, to }
    }

    /// Whether the schema of opset `version` comes into force on the way.
    pub(super) fn crosses(&self, version: i64) -> bool {
        self.from < version && version <= self.to
    }

    /// The name of an input that is there.
    pub(super) fn input(&self, index: usize) -> Option<&str> {
        self.node.input.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The name of an input that the operator cannot do without.
    pub(super) fn required_input(&self, index: usize) -> Result<String, String> {
        self.input(index).map(str::to_owned).ok_or_else(|| format!("it has no input {index}"))
    }

    /// The name of the first output.
    pub(super) fn required_output(&self) -> Result<String, String> {
        let name = self.node.output.first().filter(|name| !name.is_empty());
        name.cloned().ok_or_else(|| "it has no output".into())
    }

    /// Makes `name` the input at `index`; inputs skipped on the way are absent ones.
    pub(super) fn set_input(&mut self, index: usize, name: String) {
        if self.node.input.len() <= index {
            self.node.input.resize(index + 1, String::new());
        }
        self.node.input[index] = name;
    }

    /// Makes a one-dimensional i64 constant the input at `index`.
    pub(super) fn set_int64s(&mut self, index: usize, role: &str, values: &[i64]) {
        let name = self.fresh(role);
        self.initializers.push(constant::int64(name.clone(), values, false));
        self.set_input(index, name);
    }

    /// Makes an i64 scalar the input at `index`.
    pub(super) fn set_int64(&mut self, index: usize, role: &str, value: i64) {
        let name = self.fresh(role);
        self.initializers.push(constant::int64(name.clone(), &[value], true));
        self.set_input(index, name);
    }

    /// Makes a one-dimensional f32 constant the input at `index`.
    pub(super) fn set_floats(&mut self, index: usize, role: &str, values: &[f32]) {
        let name = self.fresh(role);
        self.initializers.push(constant::float(name.clone(), values));
        self.set_input(index, name);
    }

    /// Makes a scalar of the floating type `elem_type` the input at `index`.
    pub(super) fn set_scalar(&mut self, index: usize, role: &str, elem_type: i32, value: f32) -> Result<(), String> {
        let name = self.fresh(role);
        let tensor = constant::scalar(name.clone(), elem_type, value)
            .ok_or_else(|| format!("its element type {elem_type} is not a floating type"))?;
        self.initializers.push(tensor);
        self.set_input(index, name);
        Ok(())
    }

    /// The element type of the first input, taken from it, from the output, or from the model's only floating type.
    pub(super) fn float_type(&self) -> Result<i32, String> {
        let names = self.input(0).into_iter().chain(self.node.output.first().map(String::as_str));
        let stated = names.filter_map(|name| self.scope.elem_type(name)).next();
        stated
            .or_else(|| self.model.only_float_type())
            .ok_or_else(|| "the element type of its input is not stated".into())
    }

    /// A new name, made of the node's first output and `role`.
    pub(super) fn fresh(&mut self, role: &str) -> String {
        let base = self.node.output.iter().map(String::as_str).find(|name| !name.is_empty());
        let base = base.unwrap_or_else(|| self.node.name());
        let wanted = format!("{base}_{role}");
        self.model.fresh(wanted)
    }

    /// Removes an attribute and returns its integers.
    pub(super) fn take_ints(&mut self, name: &str) -> Result<Option<Vec<i64>>, String> {
        Ok(self.take(name, AttributeType::Ints)?.map(|attribute| attribute.ints))
    }

    /// Removes an attribute and returns its integers; the operator cannot do without it.
    pub(super) fn take_required_ints(&mut self, name: &str) -> Result<Vec<i64>, String> {
        self.take_ints(name)?.ok_or_else(|| format!("it has no attribute `{name}`"))
    }

    /// Removes an attribute and returns its integer.
    pub(super) fn take_int(&mut self, name: &str) -> Result<Option<i64>, String> {
        Ok(self.take(name, AttributeType::Int)?.map(|attribute| attribute.i()))
    }

    /// Removes an attribute and returns its number.
    pub(super) fn take_float(&mut self, name: &str) -> Result<Option<f32>, String> {
        Ok(self.take(name, AttributeType::Float)?.map(|attribute| attribute.f()))
    }

    /// Removes an attribute and returns its numbers.
    pub(super) fn take_floats(&mut self, name: &str) -> Result<Option<Vec<f32>>, String> {
        Ok(self.take(name, AttributeType::Floats)?.map(|attribute| attribute.floats))
    }

    /// The integer of an attribute.
    pub(super) fn int(&self, name: &str) -> Option<i64> {
        self.node.attribute.iter().find(|attribute| attribute.name() == name).map(AttributeProto::i)
    }

    /// The text of an attribute.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let attribute = self.node.attribute.iter().find(|attribute| attribute.name() == name)?;
        Some(String::from_utf8_lossy(attribute.s()).into_owned())
    }

    /// Sets an attribute to an integer.
    pub(super) fn set_int(&mut self, name: &str, value: i64) {
        let (name, kind) = (Some(name.to_owned()), Some(AttributeType::Int as i32));
        self.set(AttributeProto { name, r#type: kind, i: Some(value), ..AttributeProto::default() });
    }

    /// Sets an attribute to a text.
    pub(super) fn set_text(&mut self, name: &str, value: &str) {
        let (name, kind) = (Some(name.to_owned()), Some(AttributeType::String as i32));
        self.set(AttributeProto { name, r#type: kind, s: Some(value.into()), ..AttributeProto::default() });
    }

    fn set(&mut self, attribute: AttributeProto) {
        match self.node.attribute.iter_mut().find(|old| old.name() == attribute.name()) {
            Some(old) => *old = attribute,
            None => self.node.attribute.push(attribute),
        }
    }

    fn take(&mut self, name: &str, kind: AttributeType) -> Result<Option<AttributeProto>, String> {
        let Some(at) = self.node.attribute.iter().position(|attribute| attribute.name() == name) else {
            return Ok(None);
        };
        let attribute = self.node.attribute.remove(at);
        if attribute.r#type() != kind && attribute.r#type() != AttributeType::Undefined {
            return Err(format!("its attribute `{name}` is of type {}", attribute.r#type().as_str_name()));
        }
        Ok(Some(attribute))
    }
}

/// A node of the default domain, named after its output.
pub(super) fn new_node(op_type: &str, input: Vec<String>, output: String) -> NodeProto {
    NodeProto {
        op_type: Some(op_type.to_owned()),
        name: Some(output.clone()),
        input,
        output: vec![output],
        ..NodeProto::default()
    }
}
