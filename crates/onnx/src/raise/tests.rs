//! Raising whole models; helpers that build nodes and show them as text.

use bytes::Bytes;

use super::{Unraisable, raise};
use crate::proto::attribute_proto::AttributeType;
use crate::proto::tensor_proto::DataType;
use crate::proto::tensor_shape_proto::{Dimension, dimension};
use crate::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TrainingInfoProto, TypeProto, ValueInfoProto, type_proto,
};

mod inference;
mod inputs;
mod sampling;
mod softmax;

type Attribute = AttributeProto;

fn attribute(name: &str, kind: AttributeType) -> Attribute {
    Attribute { name: Some(name.into()), r#type: Some(kind as i32), ..Attribute::default() }
}

fn int(name: &str, value: i64) -> Attribute {
    Attribute { i: Some(value), ..attribute(name, AttributeType::Int) }
}

fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute { ints: values.to_vec(), ..attribute(name, AttributeType::Ints) }
}

fn float(name: &str, value: f32) -> Attribute {
    Attribute { f: Some(value), ..attribute(name, AttributeType::Float) }
}

fn floats(name: &str, values: &[f32]) -> Attribute {
    Attribute { floats: values.to_vec(), ..attribute(name, AttributeType::Floats) }
}

fn text(name: &str, value: &str) -> Attribute {
    Attribute { s: Some(value.into()), ..attribute(name, AttributeType::String) }
}

fn body(name: &str, graph: GraphProto) -> Attribute {
    Attribute { g: Some(graph), ..attribute(name, AttributeType::Graph) }
}

/// A node; names of inputs and outputs are separated by blanks, `_` is an absent one.
fn node(op_type: &str, input: &str, output: &str, attributes: &[Attribute]) -> NodeProto {
    let names =
        |names: &str| names.split(' ').map(|name| if name == "_" { String::new() } else { name.into() }).collect();
    NodeProto {
        op_type: Some(op_type.into()),
        input: names(input),
        output: names(output),
        attribute: attributes.to_vec(),
        ..NodeProto::default()
    }
}

fn value(name: &str, elem_type: DataType, dims: Option<&[i64]>) -> ValueInfoProto {
    let dim = |&size: &i64| Dimension { value: Some(dimension::Value::DimValue(size)), denotation: None };
    let shape = dims.map(|dims| TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = type_proto::Tensor { elem_type: Some(elem_type as i32), shape };
    let r#type = TypeProto { denotation: None, value: Some(type_proto::Value::TensorType(tensor)) };
    ValueInfoProto { name: Some(name.into()), r#type: Some(r#type), ..ValueInfoProto::default() }
}

fn constant(name: &str, values: &[f32]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        data_type: Some(DataType::Float as i32),
        dims: vec![values.len() as i64],
        float_data: values.to_vec(),
        ..TensorProto::default()
    }
}

/// A model that reads `x`, an f32 tensor of unstated rank, and returns `y`.
fn model(opset: i64, node: Vec<NodeProto>) -> ModelProto {
    let graph = GraphProto {
        node,
        input: vec![value("x", DataType::Float, None)],
        output: vec![value("y", DataType::Float, None)],
        ..GraphProto::default()
    };
    let import = OperatorSetIdProto { domain: None, version: Some(opset) };
    ModelProto { ir_version: Some(3), opset_import: vec![import], graph: Some(graph), ..ModelProto::default() }
}

fn graph(model: &ModelProto) -> &GraphProto {
    model.graph.as_ref().expect("a graph")
}

/// The same model with `x` of these dimensions.
fn with_dims(mut model: ModelProto, dims: &[i64]) -> ModelProto {
    model.graph.as_mut().expect("a graph").input = vec![value("x", DataType::Float, Some(dims))];
    model
}

/// The same model with a constant `s`.
fn with_constant(mut model: ModelProto, values: &[f32]) -> ModelProto {
    model.graph.as_mut().expect("a graph").initializer.push(constant("s", values));
    model
}

/// `Op(inputs; attributes) -> outputs`.
fn show(node: &NodeProto) -> String {
    let attributes: Vec<String> = node.attribute.iter().map(show_attribute).collect();
    let attributes = if attributes.is_empty() { String::new() } else { format!("; {}", attributes.join(", ")) };
    format!("{}({}{attributes}) -> {}", node.op_type(), node.input.join(", "), node.output.join(", "))
}

fn show_attribute(attribute: &Attribute) -> String {
    let value = match attribute.r#type() {
        AttributeType::Int => attribute.i().to_string(),
        AttributeType::Ints => format!("{:?}", attribute.ints),
        AttributeType::Float => attribute.f().to_string(),
        AttributeType::Floats => format!("{:?}", attribute.floats),
        AttributeType::String => String::from_utf8_lossy(attribute.s()).into_owned(),
        kind => kind.as_str_name().to_owned(),
    };
    format!("{}={value}", attribute.name())
}

/// `name: TYPE dims bytes`, the bytes as little-endian numbers.
fn show_constant(tensor: &TensorProto) -> String {
    let kind = DataType::try_from(tensor.data_type()).expect("a known type");
    let raw = tensor.raw_data.as_deref().unwrap_or_default();
    let values = match kind {
        DataType::Int64 => {
            format!("{:?}", raw.as_chunks().0.iter().map(|&v| i64::from_le_bytes(v)).collect::<Vec<_>>())
        }
        DataType::Double => {
            format!("{:?}", raw.as_chunks().0.iter().map(|&v| f64::from_le_bytes(v)).collect::<Vec<_>>())
        }
        DataType::Float => {
            format!("{:?}", raw.as_chunks().0.iter().map(|&v| f32::from_le_bytes(v)).collect::<Vec<_>>())
        }
        _ => format!("{raw:02x?}"),
    };
    format!("{}: {} {:?} {values}", tensor.name(), kind.as_str_name(), tensor.dims)
}

/// Raises `model` to `to` and compares all nodes and the constants it gained.
#[track_caller]
fn expect(mut model: ModelProto, to: i64, nodes: &[&str], constants: &[&str]) {
    let had = graph(&model).initializer.len();
    raise(&mut model, to).expect("raisable");
    assert_eq!(model.opset_import[0].version(), to);
    assert_eq!(graph(&model).node.iter().map(show).collect::<Vec<_>>(), nodes);
    assert_eq!(graph(&model).initializer[had..].iter().map(show_constant).collect::<Vec<_>>(), constants);
}

/// The model is refused for a reason that contains `reason`, and left as it was.
#[track_caller]
fn expect_refusal(mut model: ModelProto, to: i64, reason: &str) -> Unraisable {
    let before = model.clone();
    let error = raise(&mut model, to).expect_err("not raisable");
    assert!(error.reason.contains(reason), "{error}");
    assert!(model == before, "the model has changed");
    error
}

#[test]
fn a_model_at_or_above_the_opset_is_left_alone() {
    for opset in [13, 14, 25, 99] {
        let mut model = model(opset, vec![node("Unknown", "x", "y", &[])]);
        let before = model.clone();
        assert_eq!(raise(&mut model, 13), Ok(()));
        assert!(model == before);
    }
}

#[test]
fn opsets_that_cannot_be_read_or_written_are_refused() {
    let relu = || vec![node("Relu", "x", "y", &[])];
    expect_refusal(model(6, relu()), 13, "opset 6 is older than 7");
    expect_refusal(model(i64::MIN, relu()), 13, "older than 7");
    expect_refusal(model(9, relu()), 12, "opset 12 is not one of 13..=25");
    expect_refusal(model(9, relu()), 26, "opset 26 is not one of 13..=25");
    expect_refusal(ModelProto { opset_import: vec![], ..model(9, relu()) }, 13, "no opset");
    let mut twice = model(9, relu());
    twice.opset_import.push(OperatorSetIdProto { domain: Some("ai.onnx".into()), version: Some(10) });
    expect_refusal(twice, 13, "opsets 9 and 10");
}

#[test]
fn every_default_import_and_an_old_ir_version_are_raised() {
    let mut model = model(9, vec![node("Relu", "x", "y", &[])]);
    model.opset_import.push(OperatorSetIdProto { domain: Some("ai.onnx".into()), version: Some(9) });
    model.opset_import.push(OperatorSetIdProto { domain: Some("com.example".into()), version: Some(1) });
    assert_eq!(raise(&mut model, 21), Ok(()));
    assert_eq!(model.opset_import.iter().map(|import| import.version()).collect::<Vec<_>>(), [21, 21, 1]);
    assert_eq!(model.ir_version(), 4);
    model.ir_version = Some(8);
    assert_eq!(raise(&mut model, 25), Ok(()));
    assert_eq!(model.ir_version(), 8);
}

#[test]
fn an_unknown_operator_is_named_and_nothing_is_changed() {
    let mut unknown = node("Foo", "h", "y", &[]);
    let nodes = vec![node("Clip", "x", "h", &[float("min", 0.5)]), unknown.clone()];
    let error = expect_refusal(model(7, nodes), 13, "not known");
    assert_eq!((error.node.as_str(), error.op_type.as_str()), ("y", "Foo"));
    unknown.name = Some("the node".into());
    let error = expect_refusal(model(7, vec![unknown]), 13, "not known");
    assert_eq!(error.to_string(), "node `the node` (Foo): its changes between opsets are not known");
}

#[test]
fn nodes_of_other_domains_are_kept_and_their_graphs_raised() {
    let clip = |input: &str, output: &str| node("Clip", input, output, &[float("min", 0.5)]);
    let inner = GraphProto { node: vec![clip("x", "z")], ..GraphProto::default() };
    let mut other = node("Clip", "x", "y", &[float("min", 0.5), body("inner", inner)]);
    other.domain = Some("com.example".into());
    let mut model = model(7, vec![other]);
    assert_eq!(raise(&mut model, 13), Ok(()));
    let raised = &graph(&model).node[0];
    assert_eq!(show(raised), "Clip(x; min=0.5, inner=GRAPH) -> y");
    let inner = raised.attribute[1].g.as_ref().expect("a graph");
    assert_eq!(show(&inner.node[0]), "Clip(x, z_min) -> z");
    assert_eq!(show_constant(&inner.initializer[0]), "z_min: FLOAT [] [0.5]");
    assert!(graph(&model).initializer.is_empty());
}

#[test]
fn branches_are_raised_and_their_names_do_not_meet() {
    let branch =
        || GraphProto { node: vec![node("Unsqueeze", "x", "b", &[ints("axes", &[0])])], ..GraphProto::default() };
    let choice = node("If", "c", "y", &[body("then_branch", branch()), body("else_branch", branch())]);
    let mut model = model(11, vec![choice]);
    assert_eq!(raise(&mut model, 21), Ok(()));
    let shown = |at: usize| show(&graph(&model).node[0].attribute[at].g.as_ref().expect("a graph").node[0]);
    assert_eq!([shown(0), shown(1)], ["Unsqueeze(x, b_axes) -> b", "Unsqueeze(x, b_axes_1) -> b"]);
}

#[test]
fn a_refusal_inside_a_branch_changes_nothing() {
    let branch = GraphProto { node: vec![node("Foo", "x", "b", &[])], ..GraphProto::default() };
    let nodes =
        vec![node("Clip", "x", "h", &[float("max", 1.0)]), node("If", "h", "y", &[body("then_branch", branch)])];
    assert_eq!(expect_refusal(model(9, nodes), 21, "not known").op_type, "Foo");
}

#[test]
fn functions_and_training_graphs_are_refused() {
    let relu = || vec![node("Relu", "x", "y", &[])];
    let mut with_function = model(9, relu());
    let import = OperatorSetIdProto { domain: None, version: Some(9) };
    let function = FunctionProto { name: Some("f".into()), opset_import: vec![import], ..FunctionProto::default() };
    with_function.functions.push(function);
    expect_refusal(with_function.clone(), 13, "function `f`");
    with_function.functions[0].opset_import[0].version = Some(13);
    assert_eq!(raise(&mut with_function, 13), Ok(()));
    let mut training = model(9, relu());
    training.training_info.push(TrainingInfoProto::default());
    expect_refusal(training, 13, "training");
}

#[test]
fn a_model_without_a_graph_is_raised() {
    let mut model = ModelProto { graph: None, ..model(9, vec![]) };
    assert_eq!(raise(&mut model, 13), Ok(()));
    assert_eq!(model.opset_import[0].version(), 13);
}

#[test]
fn new_names_avoid_every_name_of_the_model() {
    let nodes = vec![
        node("Clip", "x", "h", &[float("min", 0.5)]),
        NodeProto { name: Some("h_min_1".into()), ..node("Add", "h h_min", "y", &[]) },
    ];
    let mut model = model(7, nodes);
    let graph = model.graph.as_mut().expect("a graph");
    graph.input.push(value("h_min", DataType::Float, None));
    let nodes = ["Clip(x, h_min_2) -> h", "Add(h, h_min) -> y"];
    expect(model, 13, &nodes, &["h_min_2: FLOAT [] [0.5]"]);
}

#[test]
fn equal_models_are_raised_equally() {
    let make = || model(7, vec![node("Softmax", "x", "h", &[]), node("Pad", "h", "y", &[ints("pads", &[1, 1])])]);
    let (mut a, mut b) = (make(), make());
    assert_eq!((raise(&mut a, 25), raise(&mut b, 25)), (Ok(()), Ok(())));
    assert!(a == b);
}

#[test]
fn external_or_malformed_constants_are_not_read() {
    let read = super::constant::floats;
    assert_eq!(read(&constant("s", &[1.0, 2.0])), Some(vec![1.0, 2.0]));
    let raw = |raw: &'static [u8], len: i64| TensorProto {
        raw_data: Some(Bytes::from_static(raw)),
        dims: vec![len],
        ..constant("s", &[])
    };
    assert_eq!(read(&raw(&[0, 0, 128, 63], 1)), Some(vec![1.0]));
    assert_eq!(read(&raw(&[0, 0, 128], 1)), None);
    assert_eq!(read(&raw(&[0, 0, 128, 63], 2)), None);
    assert_eq!(read(&raw(&[0, 0, 128, 63], -1)), None);
    assert_eq!(read(&TensorProto { dims: vec![], ..constant("s", &[1.0]) }), None);
    assert_eq!(read(&TensorProto { data_type: Some(7), ..constant("s", &[1.0]) }), None);
    assert_eq!(read(&TensorProto { data_location: Some(1), ..constant("s", &[1.0]) }), None);
}

#[test]
fn the_table_names_each_operator_once() {
    let mut names: Vec<&str> = super::table::SAME.iter().flat_map(|names| names.split_whitespace()).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(names.iter().all(|name| matches!(super::table::rule(name), Some(super::table::Rule::Same))));
    assert!(["", "Clip Pad", "Foo", "relu"].iter().all(|name| super::table::rule(name).is_none()));
}
