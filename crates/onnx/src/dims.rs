//! Open dimensions of graph inputs: named so that any host can read them.
//!
//! Exporters write `batch size`, `past + 1`, `?` or nothing where a dimension is open; a host may take such text for an
//! expression. Names that are plain identifiers stay, all others become fresh ones, equal names equally.

use std::collections::{HashMap, HashSet};

use crate::proto::tensor_shape_proto::{Dimension, dimension::Value};
use crate::proto::{GraphProto, ValueInfoProto, type_proto};

/// Whether every open dimension of the inputs has a name that any host can read.
pub(crate) fn are_plain(graph: &GraphProto) -> bool {
    let plain = |dim: &Dimension| match &dim.value {
        Some(Value::DimValue(size)) => *size > 0,
        Some(Value::DimParam(name)) => is_plain(name),
        None => false,
    };
    graph.input.iter().all(|input| dims(input).is_some_and(|dims| dims.iter().all(plain)))
}

/// Names the open dimensions of the inputs, and leaves those of the outputs to the reader.
pub(crate) fn make_plain(graph: &mut GraphProto) {
    let named = |dim: &Dimension| match &dim.value {
        Some(Value::DimParam(name)) if is_plain(name) => Some(name.clone()),
        _ => None,
    };
    let taken: HashSet<String> =
        graph.input.iter().flat_map(|i| dims(i).into_iter().flatten()).filter_map(named).collect();
    let mut fresh = (0..).map(|i| format!("open{i}")).filter(|name| !taken.contains(name));
    let mut renamed: HashMap<String, String> = HashMap::new();
    for input in &mut graph.input {
        let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_mut().and_then(|t| t.value.as_mut()) else {
            continue;
        };
        for dim in tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim) {
            let mut next = || fresh.next().unwrap_or_default();
            let name = match &dim.value {
                Some(Value::DimValue(1..)) => continue,
                Some(Value::DimParam(name)) if is_plain(name) => continue,
                Some(Value::DimParam(name)) if !name.is_empty() => {
                    renamed.entry(name.clone()).or_insert_with(next).clone()
                }
                _ => next(),
            };
            dim.value = Some(Value::DimParam(name));
        }
    }
    for output in &mut graph.output {
        if let Some(type_proto::Value::TensorType(tensor)) = output.r#type.as_mut().and_then(|t| t.value.as_mut()) {
            tensor.shape = None;
        }
    }
}

/// A letter, then letters, digits and underscores.
fn is_plain(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(word)
}

/// Dimensions of a value, where it states a shape.
fn dims(value: &ValueInfoProto) -> Option<&[Dimension]> {
    match value.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => tensor.shape.as_ref().map(|shape| &shape.dim[..]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{TensorShapeProto, TypeProto};

    fn graph(inputs: &[&[Option<Value>]]) -> GraphProto {
        let value = |values: &&[Option<Value>]| {
            let dim = |value: &Option<Value>| Dimension { denotation: None, value: value.clone() };
            let shape = Some(TensorShapeProto { dim: values.iter().map(dim).collect() });
            let tensor = type_proto::Tensor { elem_type: Some(1), shape };
            let kind = TypeProto { denotation: None, value: Some(type_proto::Value::TensorType(tensor)) };
            ValueInfoProto { r#type: Some(kind), ..Default::default() }
        };
        GraphProto { input: inputs.iter().map(value).collect(), ..Default::default() }
    }

    fn name(text: &str) -> Option<Value> {
        Some(Value::DimParam(text.to_owned()))
    }

    #[test]
    fn odd_names_become_fresh_ones() {
        let size = Some(Value::DimValue(3));
        let odd = [name("past + 1"), None, size.clone(), name("open0")];
        let mut graph = graph(&[&odd, &[name("past + 1"), name(""), Some(Value::DimValue(-1)), name("N")]]);
        assert!(!are_plain(&graph));
        make_plain(&mut graph);
        assert!(are_plain(&graph));
        let got: Vec<_> = graph.input.iter().flat_map(|i| dims(i).unwrap()).map(|d| d.value.clone()).collect();
        let want =
            [name("open1"), name("open2"), size, name("open0"), name("open1"), name("open3"), name("open4"), name("N")];
        assert_eq!(got, want);
    }

    #[test]
    fn plain_names_are_told_from_expressions() {
        for text in ["N", "batch_size", "s0"] {
            assert!(is_plain(text), "{text}");
        }
        for text in ["", "2N", "N,M", "a b", "-1", "?", "日本", "a.b:c"] {
            assert!(!is_plain(text), "{text}");
        }
    }
}
