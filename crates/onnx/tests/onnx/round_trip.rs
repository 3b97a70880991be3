//! Integers, scales and bias survive the file, at every storage and for every kind of layer.

use crate::build::*;
use fpxint::{Granularity, Weight};
use fpxint_onnx::proto::tensor_proto::DataType;
use prost::Message;

fn depthwise() -> Build {
    Build::new(13, &[1, 4, 8, 8], 4).floats("w", &[4, 1, 3, 3], &ramp(36)).node(node(
        "Conv",
        &["x", "w"],
        "y",
        vec![int("group", 4)],
    ))
}

fn biased_matmul() -> Build {
    let mut build = matmul(13).floats("c", &[3], &ramp(3));
    build.graph().node[0].output[0] = "h".into();
    build.op("Add", &["h", "c"], "y")
}

fn line() -> Build {
    Build::new(13, &[1, 3, 9], 3).floats("w", &[5, 3, 3], &ramp(45)).op("Conv", &["x", "w"], "y")
}

#[test]
fn every_layer_reads_back_identically() {
    let models =
        [conv(13), depthwise(), line(), gemm(13, false, vec![]), gemm(13, true, vec![]), matmul(13), biased_matmul()];
    for build in models {
        let model = build.model();
        for precision in ["int4x2", "int4x3", "int2x3", "int8x1", "int8x2", "int3x2", "int6x1", "int4x1", "int2x16"] {
            for granularity in [Granularity::Channel, Granularity::Tensor, Granularity::Group(2)] {
                let expanded = &expand(&model, precision, granularity)[0];
                let (proto, again) = artefact(&model, precision, granularity);
                let layer = again.layer(0).unwrap();
                assert_eq!(layer.weight, Weight::Series(expanded.weight.clone()), "{precision}");
                assert_eq!((&layer.bias, &layer.geometry), (&expanded.bias, &expanded.geometry));
                let info = &again.layers()[0];
                assert_eq!(info.weights.unwrap().to_string(), precision);
                assert_eq!(info.activations, Some(expanded.activations));
                assert!(again.is_artefact() && again.skipped().is_empty());
                let nodes = proto.graph.unwrap().node;
                assert!(nodes.iter().all(|n| n.op_type() != "DequantizeLinear" || n.input.len() == 2));
            }
        }
    }
}

#[test]
fn the_clip_of_activations_is_kept() {
    let model = conv(13).model();
    for clip in [fpxint::ActivationClip::None, fpxint::ActivationClip::Laplace] {
        let mut expanded = expand(&model, "int4x2", Granularity::Channel);
        expanded.iter_mut().for_each(|layer| layer.activation_clip = clip);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.onnx");
        fpxint_onnx::write(&model, &encoded(&expanded), &path).unwrap();
        let again = fpxint_onnx::read(&path, &fpxint_onnx::Limits::default()).unwrap();
        assert_eq!(again.layers()[0].activation_clip, clip);
        let mut proto = fpxint_onnx::proto::ModelProto::decode(&std::fs::read(&path).unwrap()[..]).unwrap();
        let stated = |value: &str| value.contains("activation_clip");
        let values = proto.metadata_props.iter_mut().filter_map(|entry| entry.value.as_mut());
        let values: Vec<&mut String> = values.filter(|value| stated(value)).collect();
        assert_eq!(
            values.is_empty(),
            clip == fpxint::ActivationClip::None,
            "nothing is stated where nothing is clipped"
        );
        for value in values {
            *value = value.replace("laplace", "kl");
        }
        if clip != fpxint::ActivationClip::None {
            std::fs::write(&path, proto.encode_to_vec()).unwrap();
            let refused = fpxint_onnx::read(&path, &fpxint_onnx::Limits::default()).unwrap_err().to_string();
            assert!(refused.contains("clip of its activations is unknown"), "{refused}");
        }
    }
}

#[test]
fn storage_and_operator_set_follow_the_bits() {
    for (precision, dtype, opset, ir) in [
        ("int4x2", DataType::Int4, 21, 10),
        ("int3x2", DataType::Int4, 21, 10),
        ("int2x3", DataType::Int2, 25, 13),
        ("int8x1", DataType::Int8, 13, 8),
        ("int5x2", DataType::Int8, 13, 8),
    ] {
        let (proto, _) = artefact(&conv(13).model(), precision, Granularity::Channel);
        assert_eq!(proto.opset_import[0].version(), opset, "{precision}");
        assert_eq!(proto.ir_version(), ir, "{precision}");
        let graph = proto.graph.unwrap();
        let term = graph.initializer.iter().find(|t| t.name().ends_with("term1")).unwrap();
        assert_eq!((term.data_type(), &term.dims), (dtype as i32, &vec![4, 3, 3, 3]), "{precision}");
    }
}

#[test]
fn how_attention_computes_is_kept_where_it_is_stated() {
    let mut model = conv(13).model();
    let stated = |model: &fpxint_onnx::Model| artefact(model, "int4x2", Granularity::Channel).1.attention();
    assert_eq!((model.attention(), stated(&model)), (None, None));
    for text in ["fp32", "int8x1", "int4x2"] {
        let attention = text.parse().unwrap();
        model.state_attention(attention);
        assert_eq!(stated(&model), Some(attention));
    }
}

#[test]
fn the_sum_is_left_associated() {
    let graph = artefact(&conv(13).model(), "int4x3", Granularity::Channel).0.graph.unwrap();
    let ops: Vec<_> = graph.node.iter().map(|n| (n.op_type(), n.output[0].rsplit('/').next().unwrap())).collect();
    let wanted = [
        ("DequantizeLinear", "scaled1"),
        ("DequantizeLinear", "scaled2"),
        ("Add", "sum2"),
        ("DequantizeLinear", "scaled3"),
        ("Add", "weight"),
        ("Conv", "y"),
    ];
    assert_eq!(ops, wanted);
    assert_eq!(graph.node[4].input, ["fpxint/0/sum2", "fpxint/0/scaled3"]);
}

#[test]
fn metadata_may_be_missing() {
    let model = conv(13).model();
    let (mut proto, whole) = artefact(&model, "int4x2", Granularity::Channel);
    proto.metadata_props.clear();
    let bare = Build { proto }.model();
    assert_eq!(bare.layers()[0].activations, None);
    assert_eq!(bare.layer(0).unwrap(), whole.layer(0).unwrap());
}

#[test]
fn an_artefact_written_again_is_the_same() {
    let model = biased_matmul().model();
    let (first, again) = artefact(&model, "int4x2", Granularity::Channel);
    let (second, _) = artefact(&again, "int8x1", Granularity::Tensor);
    assert_eq!(first.encode_to_vec(), second.encode_to_vec());
    let deep = Build::new(13, &[2, 16], 2).floats("w", &[16, 3], &ramp(48)).op("MatMul", &["x", "w"], "y").model();
    let (first, again) = artefact(&deep.rotated(None), "int4x2", Granularity::Channel);
    assert!(again.layers()[0].rotation.is_some());
    let (second, _) = artefact(&again, "int4x2", Granularity::Channel);
    assert_eq!(first.encode_to_vec(), second.encode_to_vec());
}

#[test]
fn a_model_below_operator_set_13_is_raised_or_spelt_out() {
    // Raised: the terms are INT4.
    let (proto, _) = artefact(&conv(9).model(), "int4x2", Granularity::Channel);
    assert_eq!(proto.opset_import[0].version(), 21);
    // An operator that no set of ONNX has cannot be carried over.
    for (opset, form) in [(9, "Mul"), (12, "Mul"), (13, "DequantizeLinear"), (21, "DequantizeLinear")] {
        for granularity in [Granularity::Channel, Granularity::Tensor] {
            for base in [conv(opset), matmul(opset), gemm(opset, true, vec![])] {
                let mut build = base;
                build.graph().node[0].output[0] = "h".into();
                let model = build.op("NoSuchOperator", &["h"], "y").model();
                let expanded = expand(&model, "int4x2", granularity);
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("a.onnx");
                let written = fpxint_onnx::write(&model, &encoded(&expanded), &path).unwrap();
                assert_eq!((written.opset, written.note.is_none()), (opset, opset == 21), "{written:?}");
                assert_eq!(written.storage, if opset == 21 { "INT4" } else { "INT8" });
                assert!(written.note.is_none_or(|note| note.contains("NoSuchOperator") && note.contains("INT8")));
                let again = fpxint_onnx::read(&path, &Default::default()).unwrap();
                assert_eq!(again.layer(0).unwrap().weight, Weight::Series(expanded[0].weight.clone()));
                let text = std::fs::read(&path).unwrap();
                assert!(String::from_utf8_lossy(&text).contains(form));
            }
        }
    }
}

#[test]
fn int2_falls_back_to_int4_before_int8() {
    let mut build = conv(21);
    build.graph().node[0].output[0] = "h".into();
    let model = build.op("NoSuchOperator", &["h"], "y").model();
    let expanded = expand(&model, "int2x3", Granularity::Channel);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.onnx");
    let written = fpxint_onnx::write(&model, &encoded(&expanded), &path).unwrap();
    assert_eq!((written.storage, written.opset), ("INT4", 21));
    let again = fpxint_onnx::read(&path, &Default::default()).unwrap();
    assert_eq!(again.layer(0).unwrap().weight, Weight::Series(expanded[0].weight.clone()));
}

#[test]
fn scales_of_groups_are_those_of_blocked_quantisation() {
    let (proto, _) = artefact(&conv(13).model(), "int8x1", Granularity::Group(2));
    let graph = proto.graph.unwrap();
    let node = graph.node.iter().find(|n| n.op_type() == "DequantizeLinear").unwrap();
    let attribute = |name: &str| node.attribute.iter().find(|a| a.name() == name).map(|a| a.i());
    assert_eq!((attribute("axis"), attribute("block_size")), (Some(1), Some(2)));
    let dims = |name: &str| graph.initializer.iter().find(|t| t.name() == name).unwrap().dims.clone();
    let (term, mut divided) = (dims(&node.input[0]), dims(&node.input[0]));
    divided[1] = (term[1] + 1) / 2;
    assert_eq!(dims(&node.input[1]), divided);
    assert!(proto.opset_import.iter().any(|set| set.version() >= 21), "blocks came with operator set 21");
}

#[test]
fn scales_of_groups_need_operator_set_21() {
    let mut build = conv(13);
    build.graph().node[0].output[0] = "h".into();
    let model = build.op("NoSuchOperator", &["h"], "y").model();
    let folder = tempfile::tempdir().unwrap();
    let layers = encoded(&expand(&model, "int4x1", Granularity::Group(2)));
    let refused = fpxint_onnx::write(&model, &layers, &folder.path().join("a.onnx")).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("operator set 21") && text.contains("one scale a channel"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn dropped_terms_are_made_again_as_they_were() {
    let model = conv(13).model();
    for precision in ["int4x2", "int2x3", "int8x1"] {
        let folder = tempfile::tempdir().unwrap();
        let settings = fpxint::Settings {
            weights: precision.parse().unwrap(),
            activations: "int4x2".parse().unwrap(),
            granularity: Granularity::Channel,
            rounding: Default::default(),
            clip: Default::default(),
            asymmetric: false,
            activation_clip: Default::default(),
        };
        let mut layers = encoded(&expand(&model, precision, Granularity::Channel));
        let write = |layers: &[_], name: &str| {
            fpxint_onnx::write(&model, layers, &folder.path().join(name)).unwrap();
            std::fs::read(folder.path().join(name)).unwrap()
        };
        let held = write(&layers, "a.onnx");
        let bytes = layers[0].bytes();
        layers[0].drop_terms(settings);
        assert_eq!(layers[0].bytes(), bytes);
        assert_eq!(write(&layers, "b.onnx"), held, "{precision}");
        let told = fpxint_onnx::preview(&model, &layers, &folder.path().join("c.onnx")).unwrap();
        assert_eq!(told.bytes, held.len() as u64);
        assert!(!folder.path().join("c.onnx").exists());
    }
}
