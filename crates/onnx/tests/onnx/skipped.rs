//! Constant weights that are left as they are, each with its reason; products of activations are no such thing.

use crate::build::*;
use fpxint_onnx::proto::{GraphProto, tensor_proto::DataType};

/// The one skipped node's operator and reason.
fn skipped(build: Build) -> (String, String) {
    let model = build.model();
    assert_eq!(model.layers().len(), 0);
    let [only] = model.skipped() else { panic!("{:?}", model.skipped()) };
    (only.op_type.clone(), only.reason.clone())
}

fn expect(build: Build, op: &str, part: &str) {
    let (op_type, reason) = skipped(build);
    assert!(op_type == op && reason.contains(part), "{op_type}: {reason}");
}

#[test]
fn products_of_other_shapes() {
    let x = |rank: usize| Build::new(13, &vec![-1; rank], rank);
    expect(x(5).floats("w", &[2, 3, 1, 1, 2], &ramp(12)).op("Conv", &["x", "w"], "y"), "Conv", "over 3 axes");
    expect(x(2).floats("w", &[5, 3], &ramp(15)).op("MatMul", &["w", "x"], "y"), "MatMul", "left");
    expect(x(2).floats("w", &[5, 3], &ramp(15)).op("Gemm", &["w", "x"], "y"), "Gemm", "left");
    expect(x(3).floats("w", &[2, 5, 3], &ramp(30)).op("MatMul", &["x", "w"], "y"), "MatMul", "rank 3");
    expect(x(3).floats("w", &[5], &ramp(5)).op("MatMul", &["x", "w"], "y"), "MatMul", "rank 1");
    expect(gemm(13, false, vec![int("transA", 1)]), "Gemm", "first operand");
    let integers = raw("w", DataType::Int32, &[5, 3], vec![0; 60]);
    expect(x(2).tensor(integers).op("MatMul", &["x", "w"], "y"), "MatMul", "integers");
    expect(x(2).floats("w", &[0, 3], &[]).op("MatMul", &["x", "w"], "y"), "MatMul", "empty");
}

#[test]
fn biases_of_other_shapes() {
    let mut build = conv(13);
    build.graph().initializer[1] = floats("b", &[1], &[0.0]);
    expect(build, "Conv", "bias");
    let mut build = gemm(13, false, vec![]);
    build.graph().initializer[1] = floats("c", &[2, 3], &ramp(6));
    expect(build, "Gemm", "bias");
    let mut build = gemm(13, false, vec![]);
    build.graph().initializer.remove(1);
    build.graph().input.push(value("c", DataType::Float, &[3]));
    expect(build, "Gemm", "not constant");
}

#[test]
fn other_operators_with_constant_weights() {
    for op in ["ConvTranspose", "LSTM", "GRU", "RNN"] {
        let build = Build::new(13, &[1, 3, 8], 3).floats("w", &[3, 4, 2], &ramp(24)).op(op, &["x", "w"], "y");
        expect(build, op, "not expanded");
    }
}

#[test]
fn nested_products() {
    let branch = || GraphProto {
        node: vec![node("MatMul", &["x", "inner"], "i", vec![]), node("MatMul", &["i", "outer"], "j", vec![])],
        initializer: vec![floats("inner", &[3, 3], &ramp(9))],
        output: vec![value("j", DataType::Float, &[2, 3])],
        ..Default::default()
    };
    let branches = vec![body("then_branch", branch()), body("else_branch", branch())];
    let build = Build::new(13, &[2, 3], 2).floats("outer", &[3, 3], &ramp(9)).node(node("If", &["x"], "y", branches));
    let model = build.model();
    assert_eq!(model.skipped().len(), 4);
    assert!(model.skipped().iter().all(|s| s.op_type == "MatMul" && s.reason.contains("body of a If")));
    // The weights stay: the nested graphs read them.
    let text = String::from_utf8_lossy(&fpxint_onnx::skeleton(&model).unwrap()).into_owned();
    assert!(text.contains("outer"));
}

#[test]
fn products_of_activations_are_not_listed() {
    let build = Build::new(13, &[3, 3], 2).op("MatMul", &["x", "x"], "y");
    let model = build.model();
    assert!(model.layers().is_empty() && model.skipped().is_empty());
}

#[test]
fn a_product_that_no_output_needs_is_no_layer() {
    let build = matmul(13).op("Relu", &["x"], "z");
    let mut dead = build.clone();
    dead.graph().output[0].name = Some("z".into());
    assert_eq!((build.model().layers().len(), dead.model().layers().len()), (1, 0));
}
