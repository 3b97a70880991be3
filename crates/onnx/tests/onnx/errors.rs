//! One crafted file for every way in which reading fails.

use crate::build::*;
use fpxint::Granularity;
use fpxint_onnx::proto::{GraphProto, ModelProto, TensorProto, tensor_proto::DataType};
use fpxint_onnx::{Error, Limits, parse, read};
use prost::Message;
use std::path::Path;

/// The error, whose message is one line that names the file.
fn refused(build: &Build) -> Error {
    checked(build.parse().unwrap_err())
}

fn checked(error: Error) -> Error {
    let text = error.to_string();
    assert!(text.contains("test.onnx") && !text.contains('\n'), "{text}");
    error
}

fn artefact_of_conv(precision: &str) -> Build {
    Build { proto: artefact(&conv(13).model(), precision, Granularity::Channel).0 }
}

#[test]
fn a_missing_file_is_io() {
    let error = checked(read(Path::new("/nonexistent/test.onnx"), &Limits::default()).unwrap_err());
    assert!(matches!(error, Error::Io { .. }));
    assert!(matches!(read(Path::new("/"), &Limits::default()), Err(Error::Io { .. })));
}

#[test]
fn what_is_no_model_is_not_onnx() {
    let parsed = |bytes: &[u8]| checked(parse(bytes.to_vec().into(), "test.onnx", &Limits::default()).unwrap_err());
    assert!(matches!(parsed(b"PK\x03\x04 not a model"), Error::NotOnnx { .. }));
    assert!(matches!(parsed(b""), Error::NotOnnx { .. }));
    let mut build = conv(13);
    build.proto.opset_import.clear();
    assert!(matches!(refused(&build), Error::NotOnnx { .. }));
    let mut build = conv(13);
    build.graph().output.clear();
    assert!(matches!(refused(&build), Error::NotOnnx { .. }));
    let graphless = ModelProto { graph: None, ..conv(13).proto };
    assert!(matches!(parsed(&graphless.encode_to_vec()), Error::NotOnnx { .. }));
}

#[test]
fn limits_hold() {
    let under = |limits: Limits| checked(parse(conv(13).bytes(), "test.onnx", &limits).unwrap_err());
    for limits in [
        Limits { max_file_bytes: 10, ..Limits::default() },
        Limits { max_nodes: 0, ..Limits::default() },
        Limits { max_records: 10, ..Limits::default() },
        Limits { max_tensor_elements: 107, ..Limits::default() },
        Limits { max_total_bytes: 100, ..Limits::default() },
        Limits { max_nesting: 2, ..Limits::default() },
    ] {
        assert!(matches!(under(limits), Error::Limit { .. }));
    }
    let file = tempfile::NamedTempFile::with_suffix("test.onnx").unwrap();
    std::fs::write(file.path(), conv(13).bytes()).unwrap();
    let limits = Limits { max_file_bytes: 10, ..Limits::default() };
    assert!(matches!(checked(read(file.path(), &limits).unwrap_err()), Error::Limit { .. }));
}

#[test]
fn a_short_tensor_is_named() {
    let mut build = conv(13);
    let data = build.graph().initializer[0].raw_data.take().unwrap();
    build.graph().initializer[0].raw_data = Some(data.slice(..data.len() - 1));
    match refused(&build) {
        Error::Truncated { tensor, expected: 432, found: 431, unit: "bytes", .. } => assert_eq!(tensor, "`w`"),
        other => panic!("{other}"),
    }
    build.graph().initializer[0].raw_data = None;
    build.graph().initializer[0].float_data = ramp(107);
    assert!(matches!(refused(&build), Error::Truncated { expected: 108, found: 107, unit: "values", .. }));
}

#[test]
fn weights_of_unknown_types_are_refused() {
    for dtype in [0, 99, DataType::String as i32, DataType::Complex64 as i32, DataType::Float8e5m2 as i32] {
        let tensor = TensorProto { data_type: Some(dtype), ..floats("w", &[5, 3], &[]) };
        let bytes = if dtype == DataType::Complex64 as i32 { 120 } else { 15 };
        let tensor = TensorProto { raw_data: Some(vec![0; bytes].into()), ..tensor };
        let build = Build::new(13, &[2, 5], 2).tensor(tensor).op("MatMul", &["x", "w"], "y");
        assert!(matches!(refused(&build), Error::DataType { .. }), "{dtype}");
    }
}

#[test]
fn impossible_dimensions_are_refused() {
    for dims in [&[-1, 3][..], &[i64::MAX, i64::MAX], &[i64::MAX, 3], &[0, i64::MAX, i64::MAX], &[3; 100]] {
        let build = matmul(13).floats("z", dims, &[]);
        assert!(matches!(refused(&build), Error::Dimension { .. }), "{dims:?}");
    }
}

#[test]
fn attributes_that_no_host_may_see_are_refused() {
    let bad = [
        ("Conv", vec![ints("strides", &[0, 1])]),
        ("Conv", vec![ints("pads", &[1 << 40, 0, 0, 0])]),
        ("MaxPool", vec![ints("kernel_shape", &[2, -1])]),
        ("AveragePool", vec![ints("dilations", &[1, i64::MAX])]),
        ("Transpose", vec![ints("perm", &[0, 1, 1, 1])]),
        ("Transpose", vec![ints("perm", &[0, 1, 2, 9])]),
    ];
    for (op, attributes) in bad {
        let mut build = Build::new(13, &[1, 3, 8, 8], 4);
        build.graph().node.push(node(op, &["x", "x"], "y", attributes.clone()));
        let error = refused(&build);
        assert!(matches!(&error, Error::Attribute { .. }), "{op} {attributes:?}: {error}");
        assert!(error.to_string().contains("_y`"), "{error}");
    }
}

#[test]
fn values_are_defined_once_and_before_use() {
    let twice = matmul(13).op("Relu", &["x"], "y");
    assert!(matches!(refused(&twice), Error::Duplicate { value, .. } if value == "`y`"));
    assert!(matches!(refused(&matmul(13).floats("w", &[1], &[0.0])), Error::Duplicate { .. }));
    assert!(matches!(refused(&matmul(13).op("Relu", &["x"], "w")), Error::Duplicate { .. }));
    let nowhere = Build::new(13, &[2], 1).op("Relu", &["nothing"], "y");
    assert!(matches!(refused(&nowhere), Error::Undefined { value, .. } if value == "`nothing`"));
    let unmade = Build::new(13, &[2], 1).op("Relu", &["x"], "z");
    assert!(matches!(refused(&unmade), Error::Undefined { value, .. } if value == "`y`"));
    let unsorted = Build::new(13, &[2], 1).op("Relu", &["h"], "y").op("Relu", &["x"], "h");
    assert!(matches!(refused(&unsorted), Error::Unsorted { .. }));
    let cyclic = Build::new(13, &[2], 1).op("Add", &["x", "h"], "y").op("Relu", &["y"], "h");
    assert!(matches!(refused(&cyclic), Error::Cyclic { .. }));
    let itself = Build::new(13, &[2], 1).op("Add", &["x", "y"], "y");
    assert!(matches!(refused(&itself), Error::Cyclic { .. }));
}

#[test]
fn nested_graphs_are_checked_and_see_the_outer_one() {
    let inner = |input: &str| GraphProto {
        node: vec![node("Relu", &[input], "i", vec![])],
        output: vec![value("i", DataType::Float, &[2])],
        ..Default::default()
    };
    let build = |input: &str| {
        let attributes = vec![body("then_branch", inner(input)), body("else_branch", inner("x"))];
        Build::new(13, &[2], 1).op("Relu", &["x"], "outer").node(node("If", &["x"], "y", attributes))
    };
    build("outer").model();
    assert!(matches!(refused(&build("nothing")), Error::Undefined { .. }));
}

#[test]
fn models_of_other_quantisers_are_refused() {
    let (scale, zero) = (floats("s", &[], &[0.1]), raw("z", DataType::Int8, &[], vec![0]));
    let quantised = Build::new(13, &[2, 5], 2)
        .tensor(scale.clone())
        .tensor(zero.clone())
        .op("QuantizeLinear", &["x", "s", "z"], "q")
        .op("DequantizeLinear", &["q", "s", "z"], "y");
    assert!(matches!(refused(&quantised), Error::AlreadyQuantised { op, .. } if op == "`QuantizeLinear`"));
    let weights_only = Build::new(13, &[2, 5], 2)
        .tensor(scale)
        .tensor(zero)
        .tensor(raw("w8", DataType::Int8, &[5, 3], vec![1; 15]))
        .op("DequantizeLinear", &["w8", "s", "z"], "w")
        .op("MatMul", &["x", "w"], "y");
    assert!(matches!(refused(&weights_only), Error::AlreadyQuantised { op, .. } if op == "`DequantizeLinear`"));
    let mut nbits = node("MatMulNBits", &["x"], "y", vec![]);
    nbits.domain = Some("com.microsoft".into());
    assert!(matches!(refused(&Build::new(13, &[2, 5], 2).node(nbits)), Error::AlreadyQuantised { .. }));
    for op in ["QLinearConv", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "QLinearAdd"] {
        assert!(matches!(refused(&Build::new(13, &[2], 1).op(op, &["x"], "y")), Error::AlreadyQuantised { .. }));
    }
    // -8 is a digit that no int4x1 series has.
    let foreign = Build::new(21, &[2, 4], 2)
        .floats("s", &[], &[0.1])
        .tensor(raw("w4", DataType::Int4, &[4, 1], vec![0x18, 0x22]))
        .op("DequantizeLinear", &["w4", "s"], "w")
        .op("MatMul", &["x", "w"], "y");
    assert!(foreign.model().layer(0).is_err());
}

#[test]
fn external_data_and_old_operator_sets_are_refused() {
    let mut build = matmul(13);
    build.graph().initializer[0].external_data.push(property("location", "/etc/passwd"));
    assert!(matches!(refused(&build), Error::ExternalData { tensor, .. } if tensor == "`w`"));
    build.graph().initializer[0].external_data.clear();
    build.graph().initializer[0].data_location = Some(1);
    assert!(matches!(refused(&build), Error::ExternalData { .. }));
    assert!(matches!(refused(&matmul(6)), Error::OpsetTooOld { opset: 6, .. }));
}

#[test]
fn newer_artefacts_are_refused() {
    let mut build = artefact_of_conv("int4x2");
    build.proto.metadata_props[0].value = Some("2".into());
    assert!(matches!(refused(&build), Error::Newer { .. }));
    build.proto.metadata_props[0].value = Some("two".into());
    assert!(matches!(refused(&build), Error::Artefact { .. }));
}

#[test]
fn broken_artefacts_are_refused() {
    let broken = |change: &dyn Fn(&mut Build)| {
        let mut build = artefact_of_conv("int4x2");
        change(&mut build);
        match build.parse() {
            Ok(model) => checked_artefact(model.layer(0).unwrap_err()),
            Err(error) => checked_artefact(checked(error)),
        }
    };
    fn checked_artefact(error: Error) {
        assert!(matches!(error, Error::Artefact { .. }), "{error}");
    }
    let position = |build: &mut Build, end: &str| {
        build.graph().initializer.iter().position(|t| t.name.as_ref().unwrap().ends_with(end)).unwrap()
    };
    let set = |build: &mut Build, end: &str, data: Vec<u8>| {
        let at = position(build, end);
        build.graph().initializer[at].raw_data = Some(data.into());
    };
    broken(&|b| b.proto.metadata_props[1].value = Some("{".into()));
    broken(&|b| {
        let text = b.proto.metadata_props[1].value.take().unwrap();
        b.proto.metadata_props[1].value = Some(text.replace("int4x2", "int4x3"));
    });
    broken(&|b| {
        let text = b.proto.metadata_props[1].value.take().unwrap();
        b.proto.metadata_props[1].value = Some(text.replace("\"means\":[[", "\"means\":[[1"));
    });
    broken(&|b| {
        let entry = fpxint_onnx::proto::StringStringEntryProto {
            key: Some("fpxint.attention".into()),
            value: Some("int8x2".into()),
        };
        b.proto.metadata_props.push(entry);
    });
    broken(&|b| set(b, "scale2", vec![0x3f; 16]));
    broken(&|b| set(b, "scale1", vec![0xff; 16]));
    broken(&|b| set(b, "term1", vec![0x88; 54]));
    // Scales of zero, below it, and none; each term's are those of the first over 16.
    for scale in [0.0f32, -1.0, f32::NAN, f32::INFINITY] {
        let both = |b: &mut Build| {
            for (end, scale) in [("scale1", scale), ("scale2", scale / 16.0)] {
                set(b, end, [scale; 4].iter().flat_map(|s| s.to_le_bytes()).collect());
            }
        };
        broken(&both);
    }
    // A DequantizeLinear that belongs to no weight.
    broken(&|b| {
        let at = b.graph().node.iter().position(|n| n.op_type() == "Add").unwrap();
        b.graph().node[at].op_type = Some("Sub".into());
    });
}

#[test]
fn names_with_line_breaks_stay_on_one_line() {
    let build = Build::new(13, &[2], 1).op("Relu", &["no\nthing\r\u{1b}[2J"], "y");
    let text = refused(&build).to_string();
    assert!(text.contains("no\\nthing") && !text.contains('\u{1b}'), "{text}");
}
