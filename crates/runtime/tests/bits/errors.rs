//! Errors of loading and running name what is at fault.

use fpxint_runtime::{Float, Model, Options, Value};
use ndarray::{ArrayD, IxDyn};

use crate::build::{digits, int, model, node, tensor};
use crate::{array, feed, load, options};

fn message(source: &fpxint_onnx::Model, options: &Options) -> String {
    let text = Model::load(source, options, &|_, _| {}).unwrap_err().to_string();
    assert!(!text.contains('\n'), "one line: {text}");
    text
}

#[test]
fn loading_names_node_and_layer() {
    let weights = tensor("w", &[4, 2], &[0.5; 8]);
    let odd = model(
        &[-1, 4],
        vec![node("MatMul", &["x", "w"], "h", vec![]), node("Frobnicate", &["h"], "y", vec![])],
        vec![weights.clone()],
    );
    assert_eq!(message(&odd, &options("int4x2", "int4x2")), "node `y_node`: operator Frobnicate is not supported");
    assert!(Float::load(&odd).unwrap_err().to_string().contains("`y_node`"));

    let plain = model(&[-1, 4], vec![node("MatMul", &["x", "w"], "y", vec![])], vec![weights]);
    let text = message(&plain, &options("int4x2", "int8x4"));
    assert!(text.contains("`y_node`") && text.contains("int8x4") && text.contains("24"), "{text}");
    assert!(message(&plain, &options("int4x2", "")).contains("no activation precision"));
    let deep = Options { weight_terms: Some(3), ..options("int4x2", "int4x2") };
    assert_eq!(message(&plain, &deep), "3 weight terms asked for, but `y_node` has 2");
    let kernel = Options { kernel: Some("mmx".to_owned()), ..options("int4x2", "int4x2") };
    assert!(message(&plain, &kernel).contains("kernel `mmx`"));

    let bad = tensor("w", &[4, 2], &[0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let nan = model(&[-1, 4], vec![node("MatMul", &["x", "w"], "y", vec![])], vec![bad]);
    assert!(message(&nan, &options("int4x2", "int4x2")).contains("`y_node` holds NaN at element 2"));
}

#[test]
fn a_foreign_operator_is_not_taken_for_onnxs() {
    let mut relu = node("Relu", &["h"], "y", vec![]);
    relu.domain = Some("com.example".to_owned());
    let matmul = node("MatMul", &["x", "w"], "h", vec![]);
    let source = model(&[-1, 4], vec![matmul, relu], vec![tensor("w", &[4, 2], &[0.5; 8])]);
    let wanted = "node `y_node`: operator com.example.Relu is not supported";
    assert_eq!(message(&source, &options("int4x2", "int4x2")), wanted);
    assert_eq!(Float::load(&source).unwrap_err().to_string(), wanted);
}

#[test]
fn nodes_of_one_name_stay_apart() {
    let (mut a, mut b) = (node("MatMul", &["x", "w"], "h", vec![]), node("Sigmoid", &["h"], "s", vec![]));
    let mut c = node("Tanh", &["s"], "y", vec![]);
    for node in [&mut a, &mut b, &mut c] {
        node.name = Some("same".to_owned());
    }
    let source = model(&[-1, 4], vec![a, b, c], vec![tensor("w", &[4, 2], &[0.5; 8])]);
    let y = load(&source, &options("int8x2", "int8x2")).run(&feed("x", array(&[3, 4], 0.1))).unwrap();
    assert_eq!(y[0].1.shape(), [3, 2]);
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let model = load(&digits(), &options("int4x2", "int4x2"));
    let message = |inputs: &[(String, Value)]| model.run(inputs).unwrap_err().to_string();
    let x = || array(&[1, 1, 8, 8], 0.1);
    assert!(message(&[]).contains("input `input`: not given"));
    assert!(message(&feed("image", x())).contains("no such input; it has `input`"));
    assert!(message(&[feed("input", x()), feed("input", x())].concat()).contains("given twice"));
    assert!(
        message(&feed("input", array(&[1, 1, 8, 9], 0.1))).contains("[1, 1, 8, 9], but the model takes [?, 1, 8, 8]")
    );
    assert!(message(&feed("input", array(&[1, 8, 8], 0.1))).contains("[1, 8, 8]"));
    assert!(message(&feed("input", ArrayD::zeros(IxDyn(&[0, 1, 8, 8])))).contains("holds no values"));
    let integers = Value::I64(ArrayD::zeros(IxDyn(&[1, 1, 8, 8])));
    assert!(message(&[("input".to_owned(), integers)]).contains("holds int64, but the model takes float32"));
}

#[test]
fn an_image_smaller_than_the_kernel_names_the_node() {
    let source = model(
        &[-1, 2, -1, -1],
        vec![node("Conv", &["x", "w"], "y", vec![int("group", 1)])],
        vec![tensor("w", &[2, 2, 5, 5], &[0.1; 100])],
    );
    let model = load(&source, &options("int4x2", "int4x2"));
    let error = model.run(&feed("x", array(&[2, 2, 2, 2], 0.1))).unwrap_err().to_string();
    assert!(error.contains("`y_node`") && error.contains("smaller than the kernel"), "{error}");
}
