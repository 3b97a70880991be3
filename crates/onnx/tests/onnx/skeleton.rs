//! What a skeleton holds.

use crate::build::*;
use fpxint::Granularity;
use fpxint_onnx::proto::{ModelProto, NodeProto, tensor_proto::DataType};
use fpxint_onnx::{DOMAIN, Dim, Model, skeleton};
use half::f16;
use prost::Message;

fn skeleton_of(model: &Model) -> ModelProto {
    ModelProto::decode(skeleton(model).unwrap().as_slice()).unwrap()
}

fn ints_of(node: &NodeProto, name: &str) -> Vec<i64> {
    let a = node.attribute.iter().find(|a| a.name() == name).unwrap();
    if a.ints.is_empty() { vec![a.i()] } else { a.ints.clone() }
}

#[test]
fn a_convolution_is_one_node() {
    let attributes =
        vec![ints("strides", &[2, 1]), int("group", 2), ints("dilations", &[1, 2]), ints("pads", &[1, 2, 3, 4])];
    let mut build = Build::new(13, &[1, 6, 8, 8], 4)
        .floats("w", &[4, 3, 3, 2], &ramp(72))
        .floats("unused", &[2], &ramp(2))
        .node(node("Conv", &["x", "w"], "h", attributes))
        .floats("c", &[4, 1, 1], &ramp(4))
        .op("Add", &["h", "c"], "i")
        .op("Relu", &["i"], "y")
        .op("Relu", &["x"], "dead");
    build.graph().value_info = vec![value("h", DataType::Float, &[]), value("i", DataType::Float, &[])];
    let proto = skeleton_of(&build.model());
    assert!(proto.opset_import.iter().any(|s| s.domain() == DOMAIN));
    assert!(proto.opset_import.iter().any(|s| s.domain().is_empty() && s.version() == 13));
    let graph = proto.graph.unwrap();
    assert_eq!(graph.initializer, vec![]);
    assert_eq!(graph.value_info.iter().map(|v| v.name()).collect::<Vec<_>>(), ["i"]);
    assert_eq!(graph.node.iter().map(|n| n.op_type()).collect::<Vec<_>>(), ["FpxConv", "Relu"]);
    let conv = &graph.node[0];
    assert_eq!((conv.domain(), conv.name()), (DOMAIN, "Conv_h"));
    assert_eq!((conv.input.clone(), conv.output.clone()), (vec!["x".to_owned()], vec!["i".to_owned()]));
    for (name, wanted) in [
        ("layer", &[0][..]),
        ("spatial_rank", &[2]),
        ("channels_in", &[6]),
        ("channels_out", &[4]),
        ("groups", &[2]),
        ("kernel", &[3, 2]),
        ("strides", &[2, 1]),
        ("dilations", &[1, 2]),
        ("pads", &[1, 2, 3, 4]),
    ] {
        assert_eq!(ints_of(conv, name), wanted, "{name}");
    }
}

#[test]
fn automatic_padding_stays_automatic() {
    let mut build = conv(13);
    build.graph().node[0].attribute = vec![string("auto_pad", "SAME_UPPER")];
    let graph = skeleton_of(&build.model()).graph.unwrap();
    let auto = graph.node[0].attribute.iter().find(|a| a.name() == "auto_pad").unwrap();
    assert_eq!(auto.s(), b"SAME_UPPER");
    assert!(graph.node[0].attribute.iter().all(|a| a.name() != "pads"));
}

#[test]
fn products_become_matmul() {
    for build in [matmul(13), gemm(13, true, vec![]), gemm(13, false, vec![])] {
        let graph = skeleton_of(&build.model()).graph.unwrap();
        let [node] = graph.node.as_slice() else { panic!("one node") };
        assert_eq!(node.op_type(), "FpxMatMul");
        assert_eq!((ints_of(node, "k"), ints_of(node, "n")), (vec![5], vec![3]));
    }
}

#[test]
fn half_precision_is_cast_around() {
    let bytes = ramp(15).into_iter().flat_map(|v| f16::from_f32(v).to_le_bytes()).collect();
    let mut build = Build::new(13, &[2, 5], 2).tensor(raw("w", DataType::Float16, &[5, 3], bytes));
    build.graph().input = vec![value("x", DataType::Float16, &[2, 5])];
    build.graph().output = vec![value("y", DataType::Float16, &[2, 3])];
    let model = build.op("MatMul", &["x", "w"], "y").model();
    let graph = skeleton_of(&model).graph.unwrap();
    assert_eq!(graph.node.iter().map(|n| n.op_type()).collect::<Vec<_>>(), ["Cast", "FpxMatMul", "Cast"]);
    assert_eq!((ints_of(&graph.node[0], "to"), ints_of(&graph.node[2], "to")), (vec![1], vec![10]));
    // The artefact holds the casts already; its skeleton is the same.
    let (_, again) = artefact(&model, "int8x2", Granularity::Channel);
    assert_eq!(skeleton(&again).unwrap(), skeleton(&model).unwrap());
}

#[test]
fn inputs_are_those_to_be_fed() {
    let mut build = conv(13);
    build.graph().input.push(value("w", DataType::Float, &[4, 3, 3, 3]));
    build.graph().input[0] = value("x", DataType::Float, &[-1, 3, 8, 8]);
    let model = build.model();
    let [x] = &model.inputs()[..] else { panic!("one input") };
    assert_eq!((x.name.as_str(), x.elem_type.as_str()), ("x", "FLOAT"));
    assert_eq!(x.dims, [Dim::Symbol("n".into()), Dim::Fixed(3), Dim::Fixed(8), Dim::Fixed(8)]);
    assert_eq!(model.outputs()[0].name, "y");
    assert_eq!((model.opset(), model.is_artefact()), (13, false));
    assert_eq!(skeleton_of(&model).graph.unwrap().input.len(), 1);
}

#[test]
fn an_unnamed_layer_takes_no_other_nodes_name() {
    let mut build = matmul(13).op("Relu", &["y"], "z");
    build.graph().output[0].name = Some("z".into());
    build.graph().node[0].name = None;
    build.graph().node[1].name = Some("y".into());
    let graph = skeleton_of(&build.model()).graph.unwrap();
    assert_eq!(graph.node.iter().map(|n| n.name()).collect::<Vec<_>>(), ["y_2", "y"]);
}
