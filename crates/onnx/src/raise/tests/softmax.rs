//! Softmax, LogSoftmax and Hardmax.

use super::{expect, int, model, node, with_dims};
use crate::proto::ModelProto;

const OPERATORS: [&str; 3] = ["Softmax", "LogSoftmax", "Hardmax"];

fn one(opset: i64, op_type: &str, axis: Option<i64>) -> ModelProto {
    let axis: Vec<_> = axis.map(|axis| int("axis", axis)).into_iter().collect();
    model(opset, vec![node(op_type, "x", "y", &axis)])
}

#[track_caller]
fn expect_single(model: ModelProto, op_type: &str, axis: i64) {
    expect(model, 13, &[&format!("{op_type}(x; axis={axis}) -> y")], &[]);
}

#[track_caller]
fn expect_matrix(model: ModelProto, op_type: &str, axis: i64) {
    let nodes = [
        format!("Flatten(x; axis={axis}) -> y_flat"),
        "Shape(x) -> y_shape".to_owned(),
        format!("{op_type}(y_flat; axis=-1) -> y_rows"),
        "Reshape(y_rows, y_shape) -> y".to_owned(),
    ];
    expect(model, 13, &nodes.each_ref().map(String::as_str), &[]);
}

#[test]
fn the_last_axis_stays_one_axis() {
    for op_type in OPERATORS {
        expect_single(one(11, op_type, Some(-1)), op_type, -1);
        expect_single(with_dims(one(7, op_type, None), &[2, 3]), op_type, -1);
        expect_single(with_dims(one(7, op_type, Some(3)), &[2, 3, 4, 5]), op_type, -1);
    }
}

#[test]
fn axes_of_size_one_may_follow() {
    for op_type in OPERATORS {
        expect_single(with_dims(one(7, op_type, None), &[2, 3, 1, 1]), op_type, 1);
        expect_single(with_dims(one(11, op_type, Some(-3)), &[2, 3, 1, 1]), op_type, 1);
    }
}

#[test]
fn other_axes_are_read_as_a_matrix() {
    for op_type in OPERATORS {
        expect_matrix(one(7, op_type, None), op_type, 1);
        expect_matrix(one(11, op_type, Some(-2)), op_type, -2);
        expect_matrix(with_dims(one(7, op_type, Some(0)), &[2, 3]), op_type, 0);
        expect_matrix(with_dims(one(12, op_type, Some(2)), &[2, 3, 4, 5]), op_type, 2);
        expect_matrix(with_dims(one(12, op_type, Some(i64::MIN)), &[2, 3]), op_type, i64::MIN);
        expect_matrix(with_dims(one(12, op_type, Some(1)), &[]), op_type, 1);
    }
}

#[test]
fn the_output_of_gemm_is_a_matrix() {
    let nodes = vec![node("Gemm", "x w", "h", &[]), node("Softmax", "h", "y", &[])];
    expect(model(9, nodes), 13, &["Gemm(x, w) -> h", "Softmax(h; axis=-1) -> y"], &[]);
}

#[test]
fn the_newer_form_is_kept() {
    expect(one(13, "Softmax", Some(1)), 21, &["Softmax(x; axis=1) -> y"], &[]);
    expect(one(13, "Softmax", None), 25, &["Softmax(x) -> y"], &[]);
}

#[test]
fn added_nodes_have_names_of_their_own() {
    let mut model = one(9, "Softmax", None);
    model.graph.as_mut().expect("a graph").node[0].name = Some("y_shape".into());
    super::raise(&mut model, 13).expect("raisable");
    let mut names: Vec<&str> = super::graph(&model).node.iter().map(|node| node.name()).collect();
    assert_eq!(names, ["y_flat", "y_shape_1", "y_shape", "y_reshape"]);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 4);
}
