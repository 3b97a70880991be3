//! Where constant weights are found, and their values.

use crate::build::*;
use fpxint::Geometry;
use fpxint_onnx::proto::{TensorProto, tensor_proto::DataType};
use half::{bf16, f16};

fn only_layer(build: &Build) -> Vec<f32> {
    let model = build.model();
    assert_eq!(model.layers().len(), 1, "{:?}", model.skipped());
    float_weights(model.layer(0).unwrap())
}

fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect()
}

#[test]
fn initialisers_and_constant_nodes() {
    assert_eq!(only_layer(&matmul(13)), ramp(15));
    let constant = Build::new(13, &[2, 5], 2)
        .node(node("Constant", &[], "w", vec![held("value", floats("", &[5, 3], &ramp(15)))]))
        .op("MatMul", &["x", "w"], "y");
    assert_eq!(only_layer(&constant), ramp(15));
    let mut typed = matmul(13);
    typed.graph().initializer[0].raw_data = None;
    typed.graph().initializer[0].float_data = ramp(15);
    assert_eq!(only_layer(&typed), ramp(15));
}

#[test]
fn through_identity_transpose_reshape_and_axes() {
    let through = |make: &dyn Fn(Build) -> Build, dims: &[i64]| {
        let build = Build::new(13, &[2, 5], 2).floats("v", dims, &ramp(15));
        only_layer(&make(build).op("MatMul", &["x", "w"], "y"))
    };
    assert_eq!(through(&|b| b.op("Identity", &["v"], "w"), &[5, 3]), ramp(15));
    let turned = transpose(&ramp(15), 3, 5);
    assert_eq!(through(&|b| b.op("Transpose", &["v"], "w"), &[3, 5]), turned);
    assert_eq!(through(&|b| b.node(node("Transpose", &["v"], "w", vec![ints("perm", &[1, 0])])), &[3, 5]), turned);
    for shape in [&[5, 3][..], &[-1, 3], &[5, -1]] {
        let b = |b: Build| b.tensor(int64s("s", shape)).op("Reshape", &["v", "s"], "w");
        assert_eq!(through(&b, &[15]), ramp(15));
    }
    let zeros = |b: Build| b.tensor(int64s("s", &[0, -1])).op("Reshape", &["v", "s"], "w");
    assert_eq!(through(&zeros, &[5, 1, 3]), ramp(15));
    let squeezed = |b: Build| b.tensor(int64s("s", &[1])).op("Squeeze", &["v", "s"], "w");
    assert_eq!(through(&squeezed, &[5, 1, 3]), ramp(15));
    let both = |b: Build| b.op("Transpose", &["v"], "t").tensor(int64s("s", &[5, 3])).op("Reshape", &["t", "s"], "w");
    assert_eq!(through(&both, &[3, 5]), turned);
}

#[test]
fn a_shared_initialiser_is_a_layer_each() {
    let build = Build::new(13, &[2, 3], 2).floats("w", &[3, 3], &ramp(9)).op("MatMul", &["x", "w"], "h").op(
        "MatMul",
        &["h", "w"],
        "y",
    );
    let model = build.model();
    assert_eq!(model.layers().len(), 2);
    assert_ne!(model.layers()[0].name, model.layers()[1].name);
    for i in 0..2 {
        assert_eq!(float_weights(model.layer(i).unwrap()), ramp(9));
    }
    let (_, again) = artefact(&model, "int4x2", Default::default());
    assert_eq!(again.layer(0).unwrap().weight, again.layer(1).unwrap().weight);
}

#[test]
fn unnamed_and_equal_names_become_unique() {
    let mut build = Build::new(13, &[2, 3], 2).floats("w", &[3, 3], &ramp(9));
    for (from, to, name) in [("x", "a", ""), ("a", "b", "fc"), ("b", "c", "fc"), ("c", "y", "fc_2")] {
        let mut matmul = node("MatMul", &[from, "w"], to, vec![]);
        matmul.name = Some(name.into());
        build = build.node(matmul);
    }
    let names = |m: &fpxint_onnx::Model| m.layers().iter().map(|l| l.name.clone()).collect::<Vec<_>>();
    let model = build.model();
    assert_eq!(names(&model), ["a", "fc", "fc_2", "fc_2_2"]);
    assert_eq!(names(&artefact(&model, "int4x2", Default::default()).1), names(&model));
}

#[test]
fn half_precision_weights_are_exact() {
    let typed = |dtype: DataType, bytes: Vec<u8>| {
        let mut build = Build::new(13, &[2, 5], 2).tensor(raw("w", dtype, &[5, 3], bytes));
        build.graph().input = vec![value("x", dtype, &[2, 5])];
        build.graph().output = vec![value("y", dtype, &[2, 3])];
        build.op("MatMul", &["x", "w"], "y")
    };
    let half: Vec<f16> = ramp(15).into_iter().map(f16::from_f32).collect();
    let brain: Vec<bf16> = ramp(15).into_iter().map(bf16::from_f32).collect();
    let halves = typed(DataType::Float16, half.iter().flat_map(|v| v.to_le_bytes()).collect());
    let brains = typed(DataType::Bfloat16, brain.iter().flat_map(|v| v.to_le_bytes()).collect());
    assert_eq!(only_layer(&halves), half.iter().map(|v| v.to_f32()).collect::<Vec<_>>());
    assert_eq!(only_layer(&brains), brain.iter().map(|v| v.to_f32()).collect::<Vec<_>>());
    let mut in_words = halves.clone();
    let words = half.iter().map(|v| i32::from(v.to_bits())).collect();
    let tensor = TensorProto { raw_data: None, int32_data: words, ..in_words.graph().initializer[0].clone() };
    in_words.graph().initializer[0] = tensor;
    assert_eq!(only_layer(&in_words), only_layer(&halves));
    // A cast to FP16 rounds.
    let cast = Build::new(13, &[2, 5], 2)
        .floats("v", &[5, 3], &ramp(15))
        .node(node("Cast", &["v"], "h", vec![int("to", 10)]))
        .node(node("Cast", &["h"], "w", vec![int("to", 1)]))
        .op("MatMul", &["x", "w"], "y");
    assert_eq!(only_layer(&cast), only_layer(&halves));
}

#[test]
fn geometry_follows_the_attributes() {
    use fpxint::{ConvGeometry, Padding};
    let conv = |dims: &[i64], attributes| {
        let rank = dims.len();
        let len = dims.iter().product::<i64>() as usize;
        let build = Build::new(13, &vec![-1; rank], rank).floats("w", dims, &ramp(len));
        let model = build.node(node("Conv", &["x", "w"], "y", attributes)).model();
        match model.layers().first().map(|l| l.geometry.clone()) {
            Some(Geometry::Conv(g)) => Ok(g),
            _ => Err(model.skipped()[0].reason.clone()),
        }
    };
    let plain = ConvGeometry {
        spatial_rank: 2,
        channels_in: 3,
        channels_out: 4,
        groups: 1,
        kernel: [3, 2],
        strides: [1, 1],
        dilations: [1, 1],
        padding: Padding::Explicit([0; 4]),
    };
    assert_eq!(conv(&[4, 3, 3, 2], vec![]), Ok(plain.clone()));
    assert_eq!(conv(&[4, 3, 3, 2], vec![string("auto_pad", "VALID")]), Ok(plain.clone()));
    let same = ConvGeometry { padding: Padding::SameLower, ..plain.clone() };
    assert_eq!(conv(&[4, 3, 3, 2], vec![string("auto_pad", "SAME_LOWER")]), Ok(same));
    let all = vec![ints("strides", &[2, 1]), ints("dilations", &[1, 3]), ints("pads", &[1, 2, 3, 4]), int("group", 2)];
    let padding = Padding::Explicit([1, 2, 3, 4]);
    let grouped = ConvGeometry { strides: [2, 1], dilations: [1, 3], padding, groups: 2, channels_in: 6, ..plain };
    assert_eq!(conv(&[4, 3, 3, 2], all), Ok(grouped));
    let line = conv(&[4, 3, 5], vec![ints("pads", &[1, 2]), ints("strides", &[2])]).unwrap();
    assert_eq!((line.spatial_rank, line.kernel, line.strides), (1, [1, 5], [1, 2]));
    assert_eq!(line.padding, Padding::Explicit([0, 1, 0, 2]));
    let depthwise = conv(&[4, 1, 3, 3], vec![int("group", 4)]).unwrap();
    assert!(Geometry::Conv(depthwise).is_depthwise());
    for wrong in [
        vec![int("group", 3)],
        vec![int("group", 0)],
        vec![ints("strides", &[1])],
        vec![ints("pads", &[-1, 0, 0, 0])],
        vec![ints("kernel_shape", &[3, 3])],
        vec![string("auto_pad", "OTHER")],
    ] {
        conv(&[4, 3, 3, 2], wrong).unwrap_err();
    }
}
