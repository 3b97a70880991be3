//! Saturation part and bias survive the file, and a file that holds others is refused.

use crate::build::*;
use fpxint::{Clip, ExpandedLayer, Rounding, Settings, Weight, expand_layer};
use fpxint_onnx::proto::{GraphProto, SparseTensorProto, TensorProto};
use fpxint_onnx::{Limits, Model, parse};
use prost::Message;

const DEPTH: i64 = 144;

/// Small weights with one in eighty far beyond the others.
fn weights(len: i64) -> Vec<f32> {
    let value = |i: i64| ((i * 37 % 101) as f32 - 50.0) / 100.0 * if i % 80 == 3 { 6.0 } else { 1.0 };
    (0..len).map(value).collect()
}

fn conv_with_tail(opset: i64) -> Build {
    Build::new(opset, &[1, 16, 8, 8], 4).floats("w", &[4, 16, 3, 3], &weights(4 * DEPTH)).op("Conv", &["x", "w"], "y")
}

fn product(opset: i64, op: &str, transposed: bool) -> Build {
    let dims = if transposed { [5, DEPTH] } else { [DEPTH, 5] };
    let attributes = if op == "Gemm" { vec![int("transB", transposed.into())] } else { vec![] };
    let build = Build::new(opset, &[2, DEPTH], 2).floats("w", &dims, &weights(5 * DEPTH));
    build.node(node(op, &["x", "w"], "y", attributes))
}

fn clipped(model: &Model, weights: &str, rounding: Rounding, clip: Clip) -> ExpandedLayer {
    expanded(model, weights, rounding, clip, false)
}

fn expanded(model: &Model, weights: &str, rounding: Rounding, clip: Clip, asymmetric: bool) -> ExpandedLayer {
    let settings = Settings {
        weights: weights.parse().unwrap(),
        activations: "int4x2".parse().unwrap(),
        granularity: Default::default(),
        rounding,
        clip,
        asymmetric,
        activation_clip: Default::default(),
    };
    expand_layer(&model.layer(0).unwrap(), &settings).unwrap()
}

fn written(model: &Model, layer: &ExpandedLayer) -> Build {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.onnx");
    fpxint_onnx::write(model, &encoded(std::slice::from_ref(layer)), &path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    Build { proto: fpxint_onnx::proto::ModelProto::decode(bytes.as_slice()).unwrap() }
}

#[test]
fn it_reads_back_with_every_layer_form_and_rounding() {
    let unraisable = |mut build: Build| {
        build.graph().node[0].output[0] = "h".into();
        build.op("NoSuchOperator", &["h"], "y")
    };
    let forms: [fn(i64) -> Build; 4] = [
        conv_with_tail,
        |opset| product(opset, "Gemm", true),
        |opset| product(opset, "Gemm", false),
        |opset| product(opset, "MatMul", false),
    ];
    for build in forms {
        for build in [build(13), unraisable(build(13)), unraisable(build(9))] {
            let model = build.model();
            for precision in ["int4x1", "int3x1", "int2x2", "int2x4", "int4x2"] {
                let (mse, laplace) = ((Rounding::Sum, Clip::Mse), (Rounding::Nearest, Clip::Laplace));
                for ((rounding, clip), asymmetric) in [(mse, false), (laplace, false), (laplace, true)] {
                    let layer = expanded(&model, precision, rounding, clip, asymmetric);
                    let mut build = written(&model, &layer);
                    let again = parse(build.bytes(), "a.onnx", &Limits::default()).unwrap();
                    assert_eq!(again.layer(0).unwrap().weight, Weight::Series(layer.weight.clone()), "{precision}");
                    let sparse = all_sparse(build.proto.graph.as_mut().unwrap());
                    let count = layer.weight.saturation().len();
                    assert_eq!(sparse.len(), usize::from(count > 0));
                    assert!(sparse.into_iter().all(|s| s.values.as_ref().unwrap().dims == [count as i64]));
                    assert!(count == 0 || build.proto.ir_version() >= 5);
                    assert!(precision != "int4x1" || clip != Clip::Mse || count > 0, "the test has no saturation part");
                }
            }
        }
    }
}

/// As [`conv_with_tail`], with weights about one half.
fn conv_off_zero() -> Build {
    let off: Vec<f32> = weights(4 * DEPTH).iter().map(|w| w + 0.5).collect();
    Build::new(13, &[1, 16, 8, 8], 4).floats("w", &[4, 16, 3, 3], &off).op("Conv", &["x", "w"], "y")
}

#[test]
fn a_bias_reads_back_and_another_is_refused() {
    let model = conv_off_zero().model();
    for (clip, saturates) in [(Clip::None, false), (Clip::Mse, true)] {
        let layer = expanded(&model, "int4x1", Rounding::Nearest, clip, true);
        assert!(layer.weight.offsets().len() == 4 && layer.weight.saturation().is_empty() != saturates);
        let good = written(&model, &layer);
        assert_eq!(good.parse().unwrap().layer(0).unwrap().weight, Weight::Series(layer.weight.clone()));
        for (bias, reason) in [
            ([0.123, 0.0, 0.0, 0.0], "its bias 0, 0.123, is no whole number of steps"),
            ([0.0, f32::NAN, 0.0, 0.0], "its bias 1, NaN"),
            ([0.0, 0.0, f32::INFINITY, 0.0], "its bias 2, inf"),
            ([layer.weight.scales()[0] * (1 << 20) as f32, 0.0, 0.0, 0.0], "bias 0 is 1048576 steps"),
        ] {
            let mut build = written(&model, &layer);
            let raw: Vec<u8> = bias.iter().flat_map(|v: &f32| v.to_le_bytes()).collect();
            asymmetry(build.graph()).raw_data = Some(raw.into());
            let refused = build.parse().and_then(|model| model.layer(0)).unwrap_err().to_string();
            assert!(refused.contains("test.onnx") && refused.contains(reason), "{refused}");
        }
        let mut build = written(&model, &layer);
        asymmetry(build.graph()).dims = vec![1, 4, 1, 1];
        assert!(build.parse().map_or(true, |model| model.layers().is_empty()));
    }
}

fn asymmetry(graph: &mut GraphProto) -> &mut TensorProto {
    graph.initializer.iter_mut().find(|tensor| tensor.name().ends_with("asymmetry")).unwrap()
}

#[test]
fn another_saturation_part_is_refused() {
    let model = conv_with_tail(13).model();
    let layer = clipped(&model, "int4x1", Rounding::Nearest, Clip::Mse);
    let good = written(&model, &layer);
    assert!(good.parse().is_ok());
    let bytes =
        |values: &[i64]| -> bytes::Bytes { values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>().into() };
    let first = layer.weight.saturation()[0].0 as i64;
    let count = layer.weight.saturation().len();
    let shifted = |by: i64| layer.weight.saturation().iter().map(|&(i, _)| i as i64 + by).collect::<Vec<_>>();
    let reversed = shifted(0).into_iter().rev().collect::<Vec<_>>();
    type Edit<'a> = Box<dyn Fn(&mut SparseTensorProto) + 'a>;
    let edits: Vec<Edit<'_>> = vec![
        Box::new(move |s| indices(s).raw_data = Some(bytes(&shifted(1)))),
        Box::new(move |s| indices(s).raw_data = Some(bytes(&reversed))),
        Box::new(move |s| indices(s).raw_data = Some(bytes(&vec![-1; count]))),
        Box::new(move |s| indices(s).raw_data = Some(bytes(&vec![i64::MAX; count]))),
        Box::new(move |s| {
            indices(s).raw_data = Some(bytes(&[first]));
            indices(s).dims = vec![1];
        }),
        Box::new(move |s| s.values.as_mut().unwrap().raw_data = Some(vec![0; 4 * count].into())),
        Box::new(move |s| s.values.as_mut().unwrap().raw_data = Some(vec![0x7f; 4 * count].into())),
        Box::new(|s| s.indices = None),
    ];
    for (i, edit) in edits.iter().enumerate() {
        let mut build = written(&model, &layer);
        edit(all_sparse(build.graph()).remove(0));
        let refused = build.parse().and_then(|model| model.layer(0)).expect_err(&format!("edit {i}")).to_string();
        assert!(refused.contains("test.onnx") && !refused.contains('\n'), "{refused}");
    }
    // Of other dimensions or scales than the terms it is no part of the weight, and there is no layer left to misread.
    let mut build = written(&model, &layer);
    all_sparse(build.graph())[0].dims = vec![4, 16, 9];
    assert!(build.parse().map_or(true, |model| model.layers().is_empty()));
}

/// Sparse initialisers, and sparse values of Constants.
fn all_sparse(graph: &mut GraphProto) -> Vec<&mut SparseTensorProto> {
    let held = graph.node.iter_mut().flat_map(|node| &mut node.attribute).filter_map(|a| a.sparse_tensor.as_mut());
    graph.sparse_initializer.iter_mut().chain(held).collect()
}

fn indices(sparse: &mut SparseTensorProto) -> &mut TensorProto {
    sparse.indices.as_mut().unwrap()
}

#[test]
fn an_unknown_rounding_is_refused() {
    let model = conv_with_tail(13).model();
    let mut build = written(&model, &clipped(&model, "int4x1", Rounding::Sum, Clip::None));
    let record = build.proto.metadata_props.iter_mut().find(|e| e.key().starts_with("fpxint.layer.")).unwrap();
    assert!(record.value().contains(r#""rounding":"sum""#), "{}", record.value());
    record.value = Some(record.value().replace(r#""sum""#, r#""up""#));
    assert!(build.parse().unwrap_err().to_string().contains("its rounding is unknown"));
}
