//! Rotated inputs of matrix products: written as plain nodes, read back as what they are.

use fpxint::{Granularity, Rotation, Weight};
use fpxint_onnx::proto::GraphProto;
use fpxint_onnx::{FloatLayer, Limits, Model, read, skeleton, write, write_floats, write_within};
use half::f16;
use prost::Message;

use crate::build::*;

const K: i64 = 48;

/// Three products of `x`, and one of what two of them make.
fn products(opset: i64) -> Build {
    Build::new(opset, &[2, 3, K], 3)
        .floats("q", &[K, 32], &ramp(48 * 32))
        .floats("k", &[K, 32], &ramp(48 * 32))
        .floats("o", &[32, 5], &ramp(32 * 5))
        .floats("v", &[K, 5], &ramp(48 * 5))
        .op("MatMul", &["x", "q"], "a")
        .op("MatMul", &["x", "k"], "b")
        .op("Mul", &["a", "b"], "c")
        .op("MatMul", &["c", "o"], "d")
        .op("MatMul", &["x", "v"], "e")
        .op("Add", &["d", "e"], "y")
}

fn blocks(model: &Model) -> Vec<Option<usize>> {
    model.layers().iter().map(|layer| layer.rotation.map(Rotation::block)).collect()
}

fn count(graph: &GraphProto, op: &str) -> usize {
    graph.node.iter().filter(|node| node.op_type() == op).count()
}

/// The artefact of a model as a graph, and as it is read.
fn artefact(model: &Model) -> (Build, Model) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.onnx");
    write(model, &encoded(&expand(model, "int4x2", Granularity::Channel)), &path).unwrap();
    let proto = fpxint_onnx::proto::ModelProto::decode(std::fs::read(&path).unwrap().as_slice()).unwrap();
    (Build { proto }, read(&path, &Limits::default()).unwrap())
}

#[test]
fn an_artefact_holds_it_once_a_value_and_is_read_back() {
    for build in [products(21), products(13), products(9), products(13).op("NoSuchOperator", &["y"], "z")] {
        let model = build.model().rotated(None);
        assert_eq!(blocks(&model), [Some(16), Some(16), Some(32), Some(16)]);
        let (mut build, again) = artefact(&model);
        // One rotation of `x` and one of `c`, each with its matrix.
        let graph = build.graph();
        assert_eq!((count(graph, "MatMul"), count(graph, "Shape")), (4 + 2, 2));
        let matrices = graph.node.iter().filter(|node| node.output[0].ends_with("/rotation"));
        assert_eq!(
            matrices.map(|node| node.output[0].as_str()).collect::<Vec<_>>(),
            ["fpxint/0/rotation", "fpxint/2/rotation"]
        );
        assert_eq!(blocks(&again), blocks(&model));
        assert!(again.skipped().is_empty(), "{:?}", again.skipped());
        for (i, layer) in expand(&model, "int4x2", Granularity::Channel).into_iter().enumerate() {
            assert_eq!(again.layer(i).unwrap().weight, Weight::Series(layer.weight));
            let ends = |model: &Model| [model.layers()[i].input.clone(), model.layers()[i].name.clone()];
            assert_eq!(ends(&again), ends(&model));
        }
        // Both have the same skeleton, in which each rotation is one node.
        let graph = |model: &Model| {
            let bytes = skeleton(model).unwrap();
            fpxint_onnx::proto::ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap()
        };
        let kinds = |graph: &GraphProto| graph.node.iter().map(|n| n.op_type().to_owned()).collect::<Vec<_>>();
        let of_model = graph(&model);
        assert_eq!(
            (count(&of_model, "FpxRotation"), count(&of_model, "Reshape"), count(&of_model, "Constant")),
            (2, 0, 0)
        );
        assert_eq!(kinds(&graph(&again)), kinds(&of_model));
    }
}

#[test]
fn only_asked_layers_of_a_model_in_fp32_are_rotated() {
    let model = products(13).model();
    assert_eq!(blocks(&model.rotated(Some(&[1, 2]))), [None, Some(16), Some(32), None]);
    assert_eq!(float_weights(model.rotated(Some(&[1])).layer(0).unwrap()), float_weights(model.layer(0).unwrap()));
    let (_, artefact) = artefact(&model);
    assert_eq!(blocks(&artefact.rotated(None)), [None; 4]);
    // Convolutions, and depths without blocks of sixteen, have none.
    assert_eq!(blocks(&conv(13).model().rotated(None)), [None]);
    assert_eq!(blocks(&matmul(13).model().rotated(None)), [None]);
}

#[test]
fn an_excluded_layer_reads_the_value_as_it_was() {
    let model = products(13).model().rotated(None);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.onnx");
    let layers = expand(&model, "int4x2", Granularity::Channel);
    write(&model, &encoded(&layers[1..]), &path).unwrap();
    let again = read(&path, &Limits::default()).unwrap();
    assert_eq!(blocks(&again), [Some(16), Some(32), Some(16)]);
    let reasons: Vec<_> = again.skipped().iter().map(|s| (s.name.as_str(), s.reason.as_str())).collect();
    assert_eq!(reasons, [("MatMul_a", "it was left in full precision")]);
}

#[test]
fn a_layer_alone_takes_its_input_as_it_is() {
    let model = products(13).model();
    let (want, rotated) = (model.alone(2).unwrap(), model.rotated(None));
    let (_, artefact) = artefact(&rotated);
    let want = float_weights(want.layer(0).unwrap());
    for (alone, within) in [(rotated.alone(2).unwrap(), 1e-6), (artefact.alone(2).unwrap(), 0.05)] {
        assert_eq!(blocks(&alone), [None]);
        let found = float_weights(alone.layer(0).unwrap());
        assert!(found.iter().zip(&want).all(|(a, b)| (a - b).abs() < within), "{found:?} for {want:?}");
    }
}

#[test]
fn a_rotated_value_that_others_read_stays_in_the_graph() {
    let (build, _) = artefact(&products(13).model().rotated(None));
    let turned = "fpxint/0/rotated";
    let extra = build.clone().op("Relu", &[turned], "z");
    let mut output = extra;
    output.graph().output.push(value("z", fpxint_onnx::proto::tensor_proto::DataType::Float, &[2, 3, K]));
    let again = output.model();
    assert_eq!(blocks(&again), [None, None, Some(32), None]);
    assert_eq!(again.layers()[0].input, turned);
    let reasons: Vec<_> = again.skipped().iter().map(|s| s.reason.as_str()).collect();
    assert_eq!(reasons, ["it was left in full precision"]);
}

#[test]
fn blocks_across_rows_are_no_rotation_of_them() {
    let turned = |k: i64| {
        let matrix = Rotation::of(16).unwrap().matrix();
        let build = Build::new(13, &[2, 3, k], 3)
            .floats("m", &[16, 16], &matrix)
            .tensor(int64s("sizes", &[-1, 16]))
            .floats("w", &[k, 5], &ramp(5 * k as usize));
        build
            .op("Shape", &["x"], "s")
            .op("Reshape", &["x", "sizes"], "b")
            .op("MatMul", &["b", "m"], "p")
            .op("Reshape", &["p", "s"], "t")
            .op("MatMul", &["t", "w"], "y")
            .model()
    };
    assert_eq!(blocks(&turned(48)), [Some(16)]);
    // Of 24 values, a block of 16 is no part: both products are layers as any.
    assert_eq!(blocks(&turned(24)), [None, None]);
}

#[test]
fn values_within_a_rotation_are_not_to_be_had() {
    let (_, mut artefact) = artefact(&products(13).model().rotated(None));
    let names = ["fpxint/0/rotated", "fpxint/0/rotated_product"].map(str::to_owned);
    for name in names {
        let error = artefact.expose(std::slice::from_ref(&name)).unwrap_err().to_string();
        assert!(error.contains("it lies within layer"), "{error}");
    }
    artefact.expose(&["x".into(), "c".into()]).unwrap();
}

#[test]
fn its_matrix_stays_in_the_model_where_tensors_leave_it() {
    let model = products(13).model().rotated(None);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.onnx");
    let layers = encoded(&expand(&model, "int4x2", Granularity::Channel));
    let written = write_within(&model, &layers, &path, 2000).unwrap();
    assert!(written.data.is_some());
    assert_eq!(blocks(&read(&path, &Limits::default()).unwrap()), blocks(&model));
}

#[test]
fn a_half_precision_layer_is_rotated_in_float() {
    let halves = |name: &str, len: usize| {
        let raw_bytes = ramp(len).iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
        raw(name, fpxint_onnx::proto::tensor_proto::DataType::Float16, &[K, len as i64 / K], raw_bytes)
    };
    let mut build = Build::new(13, &[2, K], 2)
        .tensor(halves("a", 48 * 5))
        .tensor(halves("b", 48 * 5))
        .op("MatMul", &["x", "a"], "p")
        .op("MatMul", &["x", "b"], "q")
        .op("Add", &["p", "q"], "y");
    let graph = build.graph();
    for end in graph.input.iter_mut().chain(&mut graph.output) {
        let name = end.name.clone().unwrap();
        let dims: &[i64] = if name == "x" { &[2, K] } else { &[2, 5] };
        *end = value(&name, fpxint_onnx::proto::tensor_proto::DataType::Float16, dims);
    }
    let model = build.model().rotated(None);
    let (mut written, again) = artefact(&model);
    assert_eq!(blocks(&again), [Some(16), Some(16)]);
    assert_eq!(count(written.graph(), "Cast"), 4);
}

#[test]
fn basis_models_have_it_too() {
    let model = products(13).model().rotated(None);
    let layers = expand(&model, "int4x2", Granularity::Channel).into_iter().map(|layer| {
        let weight = layer.weight.values("w", 2).unwrap().map(|v| v as f32).collect();
        FloatLayer { weight, bias: layer.bias }
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.onnx");
    let layers: Vec<_> = layers.collect();
    write_floats(&model, &layers, &path).unwrap();
    let again = read(&path, &Limits::default()).unwrap();
    assert_eq!(blocks(&again), blocks(&model));
    // Its weights are those of rotated inputs already.
    assert_eq!(float_weights(again.layer(1).unwrap()), layers[1].weight);
    assert_eq!(float_weights(again.rotated(None).layer(1).unwrap()), layers[1].weight);
}
