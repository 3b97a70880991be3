//! Operators whose attributes became inputs.

use super::{expect, expect_refusal, float, int, ints, model, node, text, value};
use crate::proto::ModelProto;
use crate::proto::tensor_proto::DataType;

fn one(opset: i64, op_type: &str, attributes: &[super::Attribute]) -> ModelProto {
    model(opset, vec![node(op_type, "x", "y", attributes)])
}

#[test]
fn clip() {
    let limits = [float("min", -0.5), float("max", 6.0)];
    let constants = ["y_min: FLOAT [] [-0.5]", "y_max: FLOAT [] [6.0]"];
    expect(one(7, "Clip", &limits), 13, &["Clip(x, y_min, y_max) -> y"], &constants);
    expect(one(10, "Clip", &limits[1..]), 25, &["Clip(x, , y_max) -> y"], &constants[1..]);
    expect(one(10, "Clip", &[]), 13, &["Clip(x) -> y"], &[]);
    let defaults = [float("min", f32::MIN), float("max", f32::MAX)];
    expect(one(10, "Clip", &defaults), 13, &["Clip(x) -> y"], &[]);
    expect(model(11, vec![node("Clip", "x s", "y", &[])]), 13, &["Clip(x, s) -> y"], &[]);
}

#[test]
fn clip_takes_the_element_type_of_its_input() {
    let clip = |elem_type| {
        let mut model = one(7, "Clip", &[float("min", 1.0)]);
        model.graph.as_mut().expect("a graph").input = vec![value("x", elem_type, None)];
        model
    };
    let nodes = ["Clip(x, y_min) -> y"];
    expect(clip(DataType::Float16), 13, &nodes, &["y_min: FLOAT16 [] [00, 3c]"]);
    expect(clip(DataType::Double), 13, &nodes, &["y_min: DOUBLE [] [1.0]"]);
    expect_refusal(clip(DataType::Int32), 13, "not a floating type");
}

#[test]
fn clip_between_unstated_values_takes_the_only_floating_type() {
    let nodes =
        vec![node("Relu", "x", "h", &[]), node("Clip", "h", "i", &[float("min", 1.0)]), node("Relu", "i", "y", &[])];
    let shown = ["Relu(x) -> h", "Clip(h, i_min) -> i", "Relu(i) -> y"];
    let mut several = model(7, nodes);
    expect(several.clone(), 13, &shown, &["i_min: FLOAT [] [1.0]"]);
    several.graph.as_mut().expect("a graph").input.push(value("w", DataType::Double, None));
    expect_refusal(several, 13, "element type of its input is not stated");
}

#[test]
fn pad() {
    let pads = ints("pads", &[0, 1, -2, 0]);
    let constants = ["y_pads: INT64 [4] [0, 1, -2, 0]", "y_value: FLOAT [] [1.5]"];
    expect(one(7, "Pad", std::slice::from_ref(&pads)), 21, &["Pad(x, y_pads) -> y"], &constants[..1]);
    let value = [pads.clone(), float("value", 1.5), text("mode", "constant")];
    expect(one(10, "Pad", &value), 13, &["Pad(x, y_pads, y_value; mode=constant) -> y"], &constants);
    expect_refusal(one(10, "Pad", &[]), 13, "no attribute `pads`");
    expect(model(11, vec![node("Pad", "x p", "y", &[])]), 25, &["Pad(x, p) -> y"], &[]);
}

#[test]
fn slice() {
    let ends = [ints("starts", &[1, -2]), ints("ends", &[3, 9])];
    let constants = ["y_starts: INT64 [2] [1, -2]", "y_ends: INT64 [2] [3, 9]", "y_axes: INT64 [2] [0, 1]"];
    expect(one(7, "Slice", &ends), 13, &["Slice(x, y_starts, y_ends, y_axes) -> y"], &constants);
    let axes = [ends[0].clone(), ends[1].clone(), ints("axes", &[2, 3])];
    let constants = [constants[0], constants[1], "y_axes: INT64 [2] [2, 3]"];
    expect(one(9, "Slice", &axes), 13, &["Slice(x, y_starts, y_ends, y_axes) -> y"], &constants);
    expect_refusal(one(9, "Slice", &ends[..1]), 13, "no attribute `ends`");
    expect(model(10, vec![node("Slice", "x a b", "y", &[])]), 13, &["Slice(x, a, b) -> y"], &[]);
}

#[test]
fn split() {
    let two = |opset, attributes: &[_]| model(opset, vec![node("Split", "x", "y z", attributes)]);
    let lengths = [int("axis", 1), ints("split", &[2, 3])];
    let constants = ["y_split: INT64 [2] [2, 3]"];
    expect(two(7, &lengths), 13, &["Split(x, y_split; axis=1) -> y, z"], &constants);
    expect(two(12, &lengths), 25, &["Split(x, y_split; axis=1) -> y, z"], &constants);
    expect(two(7, &[]), 13, &["Split(x) -> y, z"], &[]);
    expect(two(7, &[]), 21, &["Split(x; num_outputs=2) -> y, z"], &[]);
    expect(two(13, &[]), 21, &["Split(x; num_outputs=2) -> y, z"], &[]);
    let given = model(13, vec![node("Split", "x s", "y z", &[])]);
    expect(given, 21, &["Split(x, s) -> y, z"], &[]);
}

#[test]
fn squeeze_and_unsqueeze() {
    let axes = [ints("axes", &[0, 2])];
    let constants = ["y_axes: INT64 [2] [0, 2]"];
    expect(one(7, "Squeeze", &axes), 13, &["Squeeze(x, y_axes) -> y"], &constants);
    expect(one(11, "Squeeze", &[]), 21, &["Squeeze(x) -> y"], &[]);
    expect(one(7, "Unsqueeze", &axes), 25, &["Unsqueeze(x, y_axes) -> y"], &constants);
    expect_refusal(one(7, "Unsqueeze", &[]), 13, "no attribute `axes`");
    expect_refusal(one(7, "Unsqueeze", &[int("axes", 0)]), 13, "attribute `axes` is of type INT");
    expect(model(13, vec![node("Unsqueeze", "x a", "y", &[])]), 25, &["Unsqueeze(x, a) -> y"], &[]);
}

#[test]
fn reduce() {
    let attributes = [ints("axes", &[-1]), int("keepdims", 0)];
    let constants = ["y_axes: INT64 [1] [-1]"];
    expect(one(7, "ReduceSum", &attributes), 13, &["ReduceSum(x, y_axes; keepdims=0) -> y"], &constants);
    for kind in ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare"] {
        let op_type = format!("Reduce{kind}");
        let kept = format!("{op_type}(x; axes=[-1], keepdims=0) -> y");
        expect(one(7, &op_type, &attributes), 13, &[&kept], &[]);
        let raised = format!("{op_type}(x, y_axes; keepdims=0) -> y");
        expect(one(13, &op_type, &attributes), 21, &[&raised], &constants);
        expect(one(17, &op_type, &[]), 25, &[&format!("{op_type}(x) -> y")], &[]);
    }
}

#[test]
fn an_empty_list_of_axes_is_no_list() {
    let none = [ints("axes", &[])];
    expect(one(7, "ReduceSum", &none), 13, &["ReduceSum(x) -> y"], &[]);
    expect(one(7, "ReduceMean", &none), 21, &["ReduceMean(x) -> y"], &[]);
    expect(one(7, "Squeeze", &none), 13, &["Squeeze(x) -> y"], &[]);
}

#[test]
fn top_k() {
    let nodes = |opset, input: &str, attributes: &[_]| model(opset, vec![node("TopK", input, "y i", attributes)]);
    let attributes = [int("k", 3), int("axis", 1)];
    expect(nodes(7, "x", &attributes), 13, &["TopK(x, y_k; axis=1) -> y, i"], &["y_k: INT64 [1] [3]"]);
    expect(nodes(10, "x k", &attributes[1..]), 13, &["TopK(x, k; axis=1) -> y, i"], &[]);
    expect_refusal(nodes(9, "x", &[]), 13, "no attribute `k`");
}

#[test]
fn dft() {
    expect(one(17, "DFT", &[]), 21, &["DFT(x, , y_axis) -> y"], &["y_axis: INT64 [] [1]"]);
    let axis = model(17, vec![node("DFT", "x n", "y", &[int("axis", -2), int("inverse", 1)])]);
    expect(axis, 25, &["DFT(x, n, y_axis; inverse=1) -> y"], &["y_axis: INT64 [] [-2]"]);
}
