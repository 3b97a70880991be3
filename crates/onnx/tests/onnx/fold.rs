//! Folding against direct f64 arithmetic, and where nothing may be folded.

use crate::build::*;
use fpxint_onnx::Model;

const EPSILON: f32 = 1e-3;

fn normed(build: Build, y: &str) -> Build {
    let mut normed = build
        .floats("gamma", &[4], &[1.5, -0.5, 0.25, 2.0])
        .floats("beta", &[4], &[0.1, 0.2, -0.3, 0.4])
        .floats("mean", &[4], &[0.7, -0.6, 0.5, 0.0])
        .floats("var", &[4], &[0.9, 1.1, 0.3, 0.0]);
    let inputs = ["h", "gamma", "beta", "mean", "var"];
    normed.graph().node.push(node("BatchNormalization", &inputs, y, vec![float("epsilon", EPSILON)]));
    normed
}

fn conv_into(h: &str) -> Build {
    Build::new(13, &[1, 3, 8, 8], 4).floats("w", &[4, 3, 3, 3], &ramp(108)).floats("b", &[4], &ramp(4)).op(
        "Conv",
        &["x", "w", "b"],
        h,
    )
}

fn bias(model: &Model) -> Vec<f32> {
    model.layer(0).unwrap().bias.unwrap()
}

#[test]
fn batch_normalisation_is_folded_in_f64() {
    let model = normed(conv_into("h"), "y").model();
    let layer = model.layer(0).unwrap();
    let (gamma, beta) = ([1.5f64, -0.5, 0.25, 2.0], [0.1f32, 0.2, -0.3, 0.4]);
    let (mean, var) = ([0.7f32, -0.6, 0.5, 0.0], [0.9f32, 1.1, 0.3, 0.0]);
    let b = ramp(4);
    let factor: Vec<f64> = (0..4).map(|c| gamma[c] / (f64::from(var[c]) + f64::from(EPSILON)).sqrt()).collect();
    let wanted: Vec<f32> =
        (0..4).map(|c| ((f64::from(b[c]) - f64::from(mean[c])) * factor[c] + f64::from(beta[c])) as f32).collect();
    assert_eq!(layer.bias.as_ref(), Some(&wanted));
    let weights: Vec<f32> =
        ramp(108).iter().enumerate().map(|(i, &w)| (f64::from(w) * factor[i / 27]) as f32).collect();
    assert_eq!(float_weights(layer), weights);
}

#[test]
fn additions_and_factors_per_channel_are_folded() {
    for (dims, len) in [(&[4i64, 1, 1][..], 4), (&[1, 4, 1, 1], 4), (&[], 1), (&[1], 1), (&[1, 1, 1], 1)] {
        let c = ramp(len);
        for inputs in [["h", "c"], ["c", "h"]] {
            let model = conv_into("h").floats("c", dims, &c).op("Add", &inputs, "y").model();
            let wanted: Vec<f32> =
                ramp(4).iter().enumerate().map(|(i, &b)| (f64::from(b) + f64::from(c[i % len])) as f32).collect();
            assert_eq!(bias(&model), wanted, "{dims:?}");
            let model = conv_into("h").floats("c", dims, &c).op("Mul", &inputs, "y").model();
            let wanted: Vec<f32> =
                ramp(4).iter().enumerate().map(|(i, &b)| (f64::from(b) * f64::from(c[i % len])) as f32).collect();
            assert_eq!(bias(&model), wanted, "{dims:?}");
        }
    }
    for (dims, len) in [(&[3i64][..], 3), (&[1, 3], 3), (&[], 1)] {
        let mut build = matmul(13).floats("c", dims, &ramp(len));
        build.graph().node[0].output[0] = "h".into();
        let model = build.op("Add", &["c", "h"], "y").model();
        assert_eq!(bias(&model), (0..3).map(|i| ramp(len)[i % len]).collect::<Vec<_>>());
    }
}

#[test]
fn chains_are_folded_whole() {
    let build = normed(conv_into("h"), "i").floats("c", &[4, 1, 1], &ramp(4)).op("Add", &["i", "c"], "y");
    let (model, alone) = (build.model(), normed(conv_into("h"), "y").model());
    assert_eq!(float_weights(model.layer(0).unwrap()), float_weights(alone.layer(0).unwrap()));
    for (sum, (a, b)) in bias(&model).iter().zip(bias(&alone).iter().zip(ramp(4))) {
        assert!((sum - (a + b)).abs() <= 1e-5 * sum.abs());
    }
}

#[test]
fn alpha_and_beta_are_folded() {
    for transposed in [false, true] {
        let model = gemm(13, transposed, vec![float("alpha", 0.5), float("beta", 3.0)]).model();
        let layer = model.layer(0).unwrap();
        assert_eq!(layer.bias, Some(ramp(3).iter().map(|v| (f64::from(*v) * 3.0) as f32).collect()));
        assert_eq!(float_weights(layer), ramp(15).iter().map(|v| v * 0.5).collect::<Vec<_>>());
    }
    for (dims, len) in [(&[][..], 1), (&[1], 1), (&[1, 3], 3), (&[1, 1], 1)] {
        let mut build = gemm(13, true, vec![]);
        build.graph().initializer[1] = floats("c", dims, &ramp(len));
        assert_eq!(bias(&build.model()), (0..3).map(|i| ramp(len)[i % len]).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_read_twice_or_shaped_otherwise_is_not_folded() {
    let keeps = |build: Build| assert_eq!(bias(&build.model()), ramp(4));
    // A graph output, a second reader, a nested reader.
    let mut output = normed(conv_into("h"), "y");
    let info = value("h", fpxint_onnx::proto::tensor_proto::DataType::Float, &[1, 4, 6, 6]);
    output.graph().output.push(info);
    keeps(output);
    keeps(normed(conv_into("h"), "n").op("Add", &["n", "h"], "y"));
    keeps(conv_into("h").op("Add", &["h", "h"], "y"));
    let branch = fpxint_onnx::proto::GraphProto {
        node: vec![node("Relu", &["h"], "i", vec![])],
        output: vec![value("i", fpxint_onnx::proto::tensor_proto::DataType::Float, &[])],
        ..Default::default()
    };
    let branches = vec![body("then_branch", branch.clone()), body("else_branch", branch)];
    keeps(normed(conv_into("h"), "n").node(node("If", &["x"], "i2", branches)).op("Add", &["n", "i2"], "y"));
    // Not per channel: along the width, one axis more, another length.
    keeps(conv_into("h").floats("c", &[6], &ramp(6)).op("Add", &["h", "c"], "y"));
    keeps(conv_into("h").floats("c", &[1, 1, 4, 1, 1], &ramp(4)).op("Add", &["h", "c"], "y"));
    keeps(conv_into("h").floats("c", &[4, 1], &ramp(4)).op("Add", &["h", "c"], "y"));
    // In training, a BatchNormalization uses the batch's own statistics.
    let mut training = normed(conv_into("h"), "y");
    training.graph().node[1].attribute.push(int("training_mode", 1));
    keeps(training);
}

#[test]
fn a_matrix_product_is_normed_only_where_its_rank_is_known() {
    let build = |rank: usize| {
        let mut dims = vec![2; rank];
        dims[rank - 1] = 5;
        let mut build = Build::new(13, &dims, rank).floats("w", &[5, 4], &ramp(20)).op("MatMul", &["x", "w"], "h");
        dims[rank - 1] = 4;
        build.graph().value_info.push(value("h", fpxint_onnx::proto::tensor_proto::DataType::Float, &dims));
        normed(build, "y").model()
    };
    assert!(build(2).layer(0).unwrap().bias.is_some());
    assert!(build(3).layer(0).unwrap().bias.is_none());
}

#[test]
fn a_weight_made_infinite_by_folding_is_the_layers_fault() {
    let model = conv_into("h").floats("c", &[], &[f32::INFINITY]).op("Mul", &["h", "c"], "y").model();
    let settings = fpxint::Settings {
        weights: "int4x2".parse().unwrap(),
        activations: "int4x2".parse().unwrap(),
        granularity: Default::default(),
        rounding: Default::default(),
        clip: Default::default(),
        asymmetric: false,
        activation_clip: Default::default(),
    };
    let error = fpxint::expand_layer(&model.layer(0).unwrap(), &settings).unwrap_err().to_string();
    assert!(error.contains("Conv_h"), "{error}");
}
