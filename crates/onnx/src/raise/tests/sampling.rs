//! Upsample, Resize, GridSample and RoiAlign.

use super::{Attribute, expect, expect_refusal, floats, model, node, text, with_constant};
use crate::proto::ModelProto;

const FLOOR: &str = "nearest_mode=floor, coordinate_transformation_mode=asymmetric";
const CEIL: &str = "nearest_mode=ceil, coordinate_transformation_mode=asymmetric";
const LINEAR: &str = "mode=linear, coordinate_transformation_mode=asymmetric";

fn scaled(opset: i64, op_type: &str, scales: &[f32], attributes: &[Attribute]) -> ModelProto {
    with_constant(model(opset, vec![node(op_type, "x s", "y", attributes)]), scales)
}

#[test]
fn upsample() {
    let scales = floats("scales", &[1.0, 2.0]);
    let constants = ["y_scales: FLOAT [2] [1.0, 2.0]"];
    let nearest = model(7, vec![node("Upsample", "x", "y", std::slice::from_ref(&scales))]);
    expect(nearest, 13, &[&format!("Resize(x, , y_scales; {FLOOR}) -> y")], &constants);
    let linear = model(7, vec![node("Upsample", "x", "y", &[scales.clone(), text("mode", "linear")])]);
    expect(linear, 21, &[&format!("Resize(x, , y_scales; {LINEAR}) -> y")], &constants);
    let given = model(9, vec![node("Upsample", "x s", "y", &[])]);
    expect(given, 25, &[&format!("Resize(x, , s; {FLOOR}) -> y")], &[]);
    let cubic = model(7, vec![node("Upsample", "x", "y", &[scales, text("mode", "cubic")])]);
    expect_refusal(cubic, 13, "mode `cubic`");
    expect_refusal(model(9, vec![node("Upsample", "x", "y", &[])]), 13, "no input 1");
}

#[test]
fn resize_of_opset_10_rounds_by_direction() {
    expect(scaled(10, "Resize", &[1.0, 2.0], &[]), 13, &[&format!("Resize(x, , s; {FLOOR}) -> y")], &[]);
    expect(scaled(10, "Resize", &[1.0, 0.5], &[]), 25, &[&format!("Resize(x, , s; {CEIL}) -> y")], &[]);
    expect_refusal(scaled(10, "Resize", &[0.5, 2.0], &[]), 13, "grows one axis and shrinks another");
    let unknown = |mode: &[_]| model(10, vec![node("Resize", "x s", "y", mode)]);
    expect_refusal(unknown(&[]), 13, "grows or shrinks its input is not stated");
    expect(unknown(&[text("mode", "linear")]), 13, &[&format!("Resize(x, , s; {LINEAR}) -> y")], &[]);
}

#[test]
fn resize_reads_the_scales_of_a_constant_node() {
    let mut tensor = super::attribute("value", super::AttributeType::Tensor);
    tensor.t = Some(super::constant("", &[1.0, 3.0]));
    let mut made = node("Constant", "", "s", &[tensor]);
    made.input.clear();
    let model = model(10, vec![made, node("Resize", "x s", "y", &[])]);
    let nodes = ["Constant(; value=TENSOR) -> s", &format!("Resize(x, , s; {FLOOR}) -> y")];
    expect(model, 13, &nodes, &[]);
}

#[test]
fn resize_of_opset_11() {
    let resize = |opset, input: &str, how: &str| {
        model(opset, vec![node("Resize", input, "y", &[text("coordinate_transformation_mode", how)])])
    };
    let kept = "coordinate_transformation_mode=half_pixel";
    expect(resize(11, "x r s", "half_pixel"), 13, &[&format!("Resize(x, r, s; {kept}) -> y")], &[]);
    expect(resize(11, "x r s n", "half_pixel"), 21, &[&format!("Resize(x, r, , n; {kept}) -> y")], &[]);
    expect(resize(13, "x _ s", "half_pixel"), 25, &[&format!("Resize(x, , s; {kept}) -> y")], &[]);
    expect_refusal(resize(11, "x r s", "tf_half_pixel_for_nn"), 13, "tf_half_pixel_for_nn");
}

#[test]
fn grid_sample() {
    let sample = |mode: &str| model(16, vec![node("GridSample", "x g", "y", &[text("mode", mode)])]);
    expect(sample("bilinear"), 20, &["GridSample(x, g; mode=linear) -> y"], &[]);
    expect(sample("bicubic"), 21, &["GridSample(x, g; mode=cubic) -> y"], &[]);
    expect(sample("nearest"), 21, &["GridSample(x, g; mode=nearest) -> y"], &[]);
    expect(sample("bilinear"), 19, &["GridSample(x, g; mode=bilinear) -> y"], &[]);
    let default = model(16, vec![node("GridSample", "x g", "y", &[])]);
    expect(default, 21, &["GridSample(x, g) -> y"], &[]);
}

#[test]
fn roi_align() {
    let align = |opset| model(opset, vec![node("RoiAlign", "x r b", "y", &[])]);
    expect(align(10), 13, &["RoiAlign(x, r, b) -> y"], &[]);
    let told = "RoiAlign(x, r, b; coordinate_transformation_mode=output_half_pixel) -> y";
    expect(align(10), 21, &[told], &[]);
    expect(align(16), 21, &["RoiAlign(x, r, b) -> y"], &[]);
    expect_refusal(align(16), 25, "opset 22");
}
