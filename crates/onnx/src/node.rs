//! Reading and making nodes: attributes by name, the default domain, names for messages.

use crate::error::shown;
use crate::proto::{AttributeProto, GraphProto, NodeProto, attribute_proto::AttributeType};

/// The operator, when it belongs to ONNX's own domain; empty otherwise.
pub(crate) fn onnx_op(node: &NodeProto) -> &str {
    if is_default(node.domain.as_deref().unwrap_or("")) { node.op_type.as_deref().unwrap_or("") } else { "" }
}

/// ONNX's own domain under either of its names.
pub(crate) fn is_default(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// `node NAME`, or where it has none, the node of its first output.
pub(crate) fn node_name(node: &NodeProto) -> String {
    match node.name.as_deref() {
        Some(name) if !name.is_empty() => format!("node {}", shown(name)),
        _ => format!("the node of {}", shown(node.output.first().map_or("", String::as_str))),
    }
}

/// Input `i`, when given.
pub(crate) fn input(node: &NodeProto, i: usize) -> Option<&str> {
    node.input.get(i).map(String::as_str).filter(|name| !name.is_empty())
}

pub(crate) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name.as_deref() == Some(name))
}

pub(crate) fn int(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).and_then(|a| a.i).unwrap_or(default)
}

pub(crate) fn float(node: &NodeProto, name: &str, default: f32) -> f32 {
    attribute(node, name).and_then(|a| a.f).unwrap_or(default)
}

pub(crate) fn ints<'a>(node: &'a NodeProto, name: &str) -> Option<&'a [i64]> {
    attribute(node, name).map(|a| a.ints.as_slice())
}

/// Graphs that the attributes of a node hold.
pub(crate) fn bodies(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs))
}

/// The same, to change them.
pub(crate) fn bodies_mut(node: &mut NodeProto) -> impl Iterator<Item = &mut GraphProto> {
    node.attribute.iter_mut().flat_map(|a| a.g.iter_mut().chain(&mut a.graphs))
}

/// Every name that the bodies of a node read, whether from inside or from the graph around them.
pub(crate) fn body_reads<'a>(node: &'a NodeProto, read: &mut impl FnMut(&'a str)) {
    for body in bodies(node) {
        for inner in &body.node {
            inner.input.iter().filter(|name| !name.is_empty()).for_each(|name| read(name));
            body_reads(inner, read);
        }
        body.output.iter().filter_map(|o| o.name.as_deref()).for_each(&mut *read);
    }
}

/// A node of ONNX's own domain, or of `domain`.
pub(crate) fn make(domain: &str, op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(op.to_owned()),
        domain: (!domain.is_empty()).then(|| domain.to_owned()),
        name: Some(output.to_owned()),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

/// A Constant whose value is in `attribute`.
pub(crate) fn constant(name: &str, attribute: AttributeProto) -> NodeProto {
    NodeProto { attribute: vec![attribute], ..make("", "Constant", &[], name) }
}

pub(crate) fn int_attribute(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Int as i32),
        i: Some(value),
        ..AttributeProto::default()
    }
}

pub(crate) fn float_attribute(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Float as i32),
        f: Some(value),
        ..AttributeProto::default()
    }
}

pub(crate) fn ints_attribute(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Ints as i32),
        ints: values.iter().map(|&v| v as i64).collect(),
        ..AttributeProto::default()
    }
}

pub(crate) fn string_attribute(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::String as i32),
        s: Some(value.as_bytes().to_vec()),
        ..AttributeProto::default()
    }
}
