//! Values made outputs, layers taken out alone, and look-ups in tables.

use crate::build::*;
use fpxint::{Granularity, Weight};
use fpxint_onnx::proto::{GraphProto, ModelProto, tensor_proto::DataType, type_proto};
use fpxint_onnx::{Error, Model, skeleton};
use half::f16;
use prost::Message;

/// Convolution with a folded addition, Relu, and a second convolution that reads it; `h` lies within the first layer.
fn two_layers() -> Build {
    Build::new(13, &[-1, 3, 8, 8], 4)
        .floats("w", &[4, 3, 3, 3], &ramp(108))
        .floats("v", &[2, 4, 1, 1], &ramp(8))
        .floats("c", &[4, 1, 1], &ramp(4))
        .op("Conv", &["x", "w"], "h")
        .op("Add", &["h", "c"], "a")
        .op("Relu", &["a"], "r")
        .op("Conv", &["r", "v"], "y")
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn outputs(graph: &GraphProto) -> Vec<&str> {
    graph.output.iter().map(|output| output.name()).collect()
}

fn graphs(model: &Model) -> [GraphProto; 2] {
    let skeleton = ModelProto::decode(skeleton(model).unwrap().as_slice()).unwrap();
    [skeleton, ModelProto::decode(model.readable().unwrap()).unwrap()].map(|proto| proto.graph.unwrap())
}

#[test]
fn values_become_outputs_once_and_in_order() {
    let mut model = two_layers().model();
    let ends: Vec<_> = model.layers().iter().flat_map(|layer| [layer.input.clone(), layer.output.clone()]).collect();
    assert_eq!(ends, ["x", "a", "r", "y"]);
    let layers = model.layers().to_vec();
    model.expose(&ends).unwrap();
    model.expose(&names(&["r", "a"])).unwrap();
    assert_eq!(model.layers(), layers);
    assert_eq!(model.outputs().iter().map(|output| output.name.as_str()).collect::<Vec<_>>(), ["y", "a", "r"]);
    for graph in graphs(&model) {
        assert_eq!(outputs(&graph), ["y", "a", "r"]);
        let types = graph.output.iter().map(|output| match output.r#type.as_ref().unwrap().value.as_ref().unwrap() {
            type_proto::Value::TensorType(tensor) => tensor.elem_type,
            other => panic!("{other:?}"),
        });
        assert_eq!(types.collect::<Vec<_>>(), [Some(DataType::Float as i32); 3]);
    }
    let stated = graphs(&model.unexposed());
    assert!(stated.iter().all(|graph| outputs(graph) == ["y"]));
    // In an artefact the same names stand for the same values.
    let (_, mut written) = artefact(&two_layers().model(), "int4x2", Granularity::Channel);
    let again: Vec<_> = written.layers().iter().flat_map(|layer| [layer.input.clone(), layer.output.clone()]).collect();
    assert_eq!(again, ends);
    written.expose(&again).unwrap();
    assert!(graphs(&written).iter().all(|graph| outputs(graph) == ["y", "a", "r"]));
}

#[test]
fn values_that_are_not_there_to_be_had_are_refused() {
    let (_, written) = artefact(&two_layers().model(), "int4x2", Granularity::Channel);
    let (read, hidden) = (two_layers().model(), written.layers().iter().map(|_| "fpxint/0/weight").next().unwrap());
    for (mut model, value, reason) in [
        (read, "h", "it lies within layer `Conv_h`"),
        (two_layers().model(), "w", "no node makes it"),
        (two_layers().model(), "none\nsuch", "no node makes it"),
        (written, hidden, "it lies within layer `Conv_h`"),
    ] {
        let before = graphs(&model);
        let error = model.expose(&names(&["r", value])).unwrap_err();
        assert!(matches!(&error, Error::Exposed { reason: r, .. } if r == reason), "{value}: {error}");
        assert!(!error.to_string().contains('\n'), "{error}");
        assert_eq!(graphs(&model), before, "{value}");
    }
}

#[test]
fn a_layer_alone_has_its_folded_weights_and_bias() {
    let one_d = Build::new(13, &[1, 4, 9], 3).floats("w", &[6, 2, 3], &ramp(36)).node(node(
        "Conv",
        &["x", "w"],
        "y",
        vec![int("group", 2), ints("strides", &[2]), ints("dilations", &[2]), ints("pads", &[3, 1])],
    ));
    let mut same = conv(13);
    same.graph().node[0].attribute = vec![string("auto_pad", "SAME_LOWER")];
    let scaled = vec![float("alpha", 0.5), float("beta", 2.0)];
    let builds =
        [two_layers(), conv(7), same, one_d, matmul(13), gemm(13, true, scaled.clone()), gemm(9, false, scaled)];
    for build in builds {
        let model = build.model();
        for (index, info) in model.layers().iter().enumerate() {
            let alone = model.alone(index).unwrap();
            assert_eq!(alone.layer(0).unwrap(), model.layer(index).unwrap());
            assert_eq!((alone.layers().len(), alone.operators().count()), (1, 1));
            assert_eq!((alone.layers()[0].input.as_str(), alone.layers()[0].output.as_str()), ("x", "y"));
            assert_eq!(alone.layers()[0].geometry, info.geometry);
        }
    }
}

#[test]
fn a_layer_of_an_artefact_alone_has_the_values_of_its_terms() {
    let (_, written) = artefact(&two_layers().model(), "int4x2", Granularity::Channel);
    let layer = written.layer(1).unwrap();
    let Weight::Series(series) = &layer.weight else { panic!("a series") };
    let want: Vec<f32> = series.values("v", 2).unwrap().map(|v| v as f32).collect();
    assert_eq!(float_weights(written.alone(1).unwrap().layer(0).unwrap()), want);
}

#[test]
fn lookups_in_float_tables_are_listed() {
    let half: Vec<u8> = ramp(20).into_iter().flat_map(|v| f16::from_f32(v).to_le_bytes()).collect();
    let mut build = Build::new(13, &[2, 3], 2)
        .floats("table", &[7, 4], &ramp(28))
        .tensor(raw("small", DataType::Float16, &[5, 4], half))
        .floats("vector", &[4], &ramp(4))
        .tensor(raw("ids", DataType::Int64, &[7, 1], vec![0; 56]))
        .op("Gather", &["table", "x"], "rows")
        .node(node("Cast", &["small"], "wide", vec![int("to", 1)]))
        .op("Gather", &["wide", "x"], "more")
        .op("Gather", &["vector", "x"], "a_vector")
        .op("Gather", &["ids", "x"], "integers")
        .op("Gather", &["rows", "x"], "of_no_constant")
        .op("Gather", &["table", "x"], "dead");
    build.graph().input = vec![value("x", DataType::Int64, &[2, 3])];
    build.graph().output =
        ["rows", "more", "a_vector", "integers", "of_no_constant"].map(|n| value(n, DataType::Float, &[])).to_vec();
    let found = build.model().embeddings();
    let found: Vec<_> = found.iter().map(|e| (e.name.as_str(), e.shape, e.bytes)).collect();
    assert_eq!(found, [("Gather_rows", [7, 4], 112), ("Gather_more", [5, 4], 40)]);
}
