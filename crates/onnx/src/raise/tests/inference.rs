//! Operators that differ between training and inference, and those that are renamed or refused.

use super::{DataType, expect, expect_refusal, float, int, model, node, raise, value, with_dims};
use crate::proto::ModelProto;

fn batch_norm(opset: i64, output: &str, attributes: &[super::Attribute]) -> ModelProto {
    model(opset, vec![node("BatchNormalization", "x s b m v", output, attributes)])
}

#[test]
fn batch_normalization() {
    let raised = ["BatchNormalization(x, s, b, m, v; epsilon=0.5) -> y"];
    expect(batch_norm(7, "y", &[float("epsilon", 0.5), int("spatial", 1)]), 13, &raised, &[]);
    expect(batch_norm(9, "y _ _", &[float("epsilon", 0.5)]), 21, &raised, &[]);
    expect_refusal(batch_norm(7, "y", &[int("spatial", 0)]), 13, "spatial = 0");
    expect_refusal(batch_norm(9, "y m2 v2 m3 v3", &[]), 21, "outputs of training");
    let training = ["BatchNormalization(x, s, b, m, v; training_mode=1) -> y, m2, v2"];
    expect(batch_norm(14, "y m2 v2", &[int("training_mode", 1)]), 21, &training, &[]);
}

#[test]
fn dropout() {
    let ratio = [float("ratio", 0.5)];
    expect(model(7, vec![node("Dropout", "x", "y", &ratio)]), 13, &["Dropout(x) -> y"], &[]);
    expect(model(10, vec![node("Dropout", "x", "y m", &ratio)]), 25, &["Dropout(x) -> y"], &[]);
    let read = vec![node("Dropout", "x", "h m", &ratio), node("Mul", "h m", "y", &[])];
    expect_refusal(model(10, read), 13, "mask is used");
    let newer = model(12, vec![node("Dropout", "x r", "y m", &[])]);
    expect(newer, 13, &["Dropout(x, r) -> y, m"], &[]);
}

#[test]
fn a_mask_that_is_dropped_leaves_no_type_behind() {
    let mut model = model(7, vec![node("Dropout", "x", "h m", &[]), node("Relu", "h", "y", &[])]);
    let stated = vec![value("h", DataType::Float, None), value("m", DataType::Float, None)];
    model.graph.as_mut().expect("a graph").value_info = stated;
    raise(&mut model, 13).expect("raisable");
    let names: Vec<&str> = super::graph(&model).value_info.iter().map(|value| value.name()).collect();
    assert_eq!(names, ["h"]);
}

#[test]
fn group_normalization() {
    let norm = || model(18, vec![node("GroupNormalization", "x s b", "y", &[int("num_groups", 3)])]);
    let raised = ["GroupNormalization(x, s, b; num_groups=3) -> y"];
    expect(with_dims(norm(), &[2, 3, 4]), 21, &raised, &[]);
    expect(norm(), 20, &raised, &[]);
    expect_refusal(with_dims(norm(), &[2, 6, 4]), 21, "for each channel");
    expect_refusal(norm(), 21, "for each channel");
}

#[test]
fn scatter_is_renamed() {
    let scatter = model(9, vec![node("Scatter", "x i u", "y", &[int("axis", 1)])]);
    expect(scatter, 13, &["ScatterElements(x, i, u; axis=1) -> y"], &[]);
}

#[test]
fn the_first_scan_is_refused() {
    let scan = |opset| model(opset, vec![node("Scan", "x", "y", &[])]);
    expect_refusal(scan(8), 13, "batch dimension");
    expect(scan(9), 13, &["Scan(x) -> y"], &[]);
}

#[test]
fn operators_without_a_kernel_for_opset_22_stay_below_it() {
    for op_type in ["GlobalLpPool", "MaxRoiPool", "RandomNormalLike"] {
        let model = model(9, vec![node(op_type, "x", "y", &[])]);
        expect(model.clone(), 21, &[&format!("{op_type}(x) -> y")], &[]);
        expect_refusal(model, 22, "opset 22");
    }
}
