//! Batches in parts: which models are cut, and that no cut changes a bit.

use fpxint_onnx::proto::{AttributeProto, NodeProto, TensorProto, tensor_proto::DataType};
use fpxint_runtime::{Float, Model, Options, Value};
use ndarray::{ArrayD, Axis, Slice};

use crate::build::{float, int, ints, model, node, tensor, wave};
use crate::{array, bits, feed, load, memory, options};

fn weights(name: &str, dims: &[i64]) -> TensorProto {
    tensor(name, dims, &wave(dims.iter().product::<i64>() as usize, 0.71, 0.2))
}

/// A constant of integers.
fn shape(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: vec![values.len() as i64],
        data_type: Some(DataType::Int64 as i32),
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

/// An encoder of 32 tokens: attention in four heads on rows of all sentences at once, a feed-forward part, a norm and scores.
fn encoder() -> fpxint_onnx::Model {
    let heads = |x: &str, y: &str, perm: &[i64]| {
        let split = format!("{y}_split");
        [node("Reshape", &[x, "heads"], &split, vec![]), node("Transpose", &[&split], y, vec![ints("perm", perm)])]
    };
    let mut nodes = vec![
        node("Add", &["x", "places"], "p", vec![]),
        node("Reshape", &["p", "rows"], "r", vec![]),
        node("MatMul", &["r", "wq"], "q", vec![]),
        node("MatMul", &["r", "wk"], "k", vec![]),
        node("MatMul", &["r", "wv"], "v", vec![]),
    ];
    nodes.extend(heads("q", "qh", &[0, 2, 1, 3]));
    nodes.extend(heads("k", "kh", &[0, 2, 3, 1]));
    nodes.extend(heads("v", "vh", &[0, 2, 1, 3]));
    nodes.extend([
        node("MatMul", &["qh", "kh"], "s", vec![]),
        node("Softmax", &["s"], "a", vec![int("axis", -1)]),
        node("MatMul", &["a", "vh"], "c", vec![]),
        node("Transpose", &["c"], "ct", vec![ints("perm", &[0, 2, 1, 3])]),
        node("Reshape", &["ct", "sentences"], "cr", vec![]),
        node("MatMul", &["cr", "w1"], "f", vec![]),
        node("Relu", &["f"], "g", vec![]),
        node("MatMul", &["g", "w2"], "h", vec![]),
        node("Add", &["h", "p"], "t", vec![]),
        node("LayerNormalization", &["t", "gain", "bias"], "n", vec![int("axis", -1), float("epsilon", 1e-5)]),
        node("ReduceMean", &["n"], "m", vec![ints("axes", &[1]), int("keepdims", 0)]),
        node("MatMul", &["m", "w3"], "y", vec![]),
    ]);
    let constants = vec![
        weights("places", &[1, 32, 64]),
        shape("rows", &[-1, 64]),
        shape("heads", &[-1, 32, 4, 16]),
        shape("sentences", &[-1, 32, 64]),
        weights("wq", &[64, 64]),
        weights("wk", &[64, 64]),
        weights("wv", &[64, 64]),
        weights("w1", &[64, 1024]),
        weights("w2", &[1024, 64]),
        weights("w3", &[64, 7]),
        weights("gain", &[64]),
        weights("bias", &[64]),
    ];
    model(&[-1, 32, 64], nodes, constants)
}

/// The bits of a run on every sample by itself.
fn alone(model: &Model, x: &ArrayD<f32>) -> Vec<u32> {
    let sample = |i| feed("x", x.slice_axis(Axis(0), Slice::from(i..i + 1)).to_owned());
    (0..x.shape()[0]).flat_map(|i| bits(&model.run(&sample(i)).unwrap())).collect()
}

#[test]
fn parts_have_the_bits_of_samples_alone() {
    let cases = [
        // 2 MB a sample: one a part.
        (memory::source(128), vec![3, 128, 128], vec![(8, [8, 8, 7]), (7, [7, 7, 7]), (1, [1, 1, 1])]),
        // 300 KB a sample: three a part at most, or two.
        (memory::source(48), vec![3, 48, 48], vec![(8, [3, 4, 3]), (7, [3, 4, 3])]),
        // 128 KB a sample.
        (encoder(), vec![32, 64], vec![(20, [3, 4, 3]), (9, [2, 2, 3])]),
    ];
    for (source, sizes, batches) in cases {
        for (batch, parts) in batches {
            let x = array(&[&[batch], &sizes[..]].concat(), 0.377);
            let want = alone(&load(&source, &options("int4x2", "int4x2")), &x);
            for (threads, parts) in [1, 2, 3].into_iter().zip(parts) {
                let model = load(&source, &Options { threads, ..options("int4x2", "int4x2") });
                let inputs = feed("x", x.clone());
                assert_eq!(model.parts(&inputs).unwrap(), parts, "{batch} of {sizes:?}, {threads} threads");
                for _ in 0..3 {
                    assert_eq!(bits(&model.run(&inputs).unwrap()), want, "{batch} of {sizes:?}, {threads} threads");
                }
                // The same values in another order of memory.
                let Value::F32(x) = &inputs[0].1 else { unreachable!("floats were fed") };
                let turned = x.t().as_standard_layout().into_owned().reversed_axes();
                assert!(turned.as_slice().is_none() && turned == x);
                assert_eq!(bits(&model.run(&feed("x", turned)).unwrap()), want, "{threads} threads");
            }
        }
    }
}

#[test]
fn a_profile_has_the_time_of_all_parts() {
    let source = memory::source(128);
    for threads in [1, 2] {
        let model = load(&source, &Options { threads, ..options("int4x2", "int4x2") });
        let x = feed("x", array(&[5, 3, 128, 128], 0.2));
        model.run(&x).unwrap();
        let start = std::time::Instant::now();
        let steps = model.profile(&x).unwrap();
        let (whole, sum) = (start.elapsed().as_secs_f64(), steps.iter().map(|step| step.seconds).sum::<f64>());
        assert!(sum <= whole && sum > whole / 2.0, "{sum} of {whole} s");
        assert_eq!(steps.iter().map(|step| step.macs).sum::<u64>(), model.macs(&x).unwrap());
    }
}

/// One node.
fn one(op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> Vec<NodeProto> {
    vec![node(op, inputs, "y", attributes)]
}

#[test]
fn what_mixes_samples_is_not_cut() {
    let samples = 24;
    let cases = [
        ("a mean over the batch", one("ReduceMean", &["h"], vec![ints("axes", &[0]), int("keepdims", 1)])),
        ("a softmax over the batch", one("Softmax", &["h"], vec![int("axis", 0)])),
        ("a transposition", one("Transpose", &["h"], vec![ints("perm", &[1, 0, 2])])),
        ("rows of several samples", one("Reshape", &["h", "mixed"], vec![])),
        ("a sum over the batch, of which every sample has a part", {
            let mut nodes = one("Sub", &["h", "m"], vec![]);
            nodes.insert(0, node("ReduceMean", &["h"], "m", vec![ints("axes", &[0]), int("keepdims", 1)]));
            nodes
        }),
        ("samples behind each other", one("Concat", &["h", "h"], vec![int("axis", 0)])),
        ("the first samples only", one("Slice", &["h", "zero", "two", "zero"], vec![])),
        ("products of samples with samples", {
            let mut nodes = one("MatMul", &["a", "b"], vec![]);
            nodes.insert(0, node("Transpose", &["h"], "a", vec![ints("perm", &[1, 0, 2])]));
            nodes.insert(1, node("Transpose", &["h"], "b", vec![ints("perm", &[1, 2, 0])]));
            nodes
        }),
        ("the number of samples", {
            let mut nodes = one("Mul", &["h", "c"], vec![]);
            nodes.insert(0, node("Shape", &["h"], "s", vec![]));
            nodes.insert(1, node("Gather", &["s", "zero"], "g", vec![]));
            nodes.insert(2, node("Cast", &["g"], "c", vec![int("to", 1)]));
            nodes
        }),
    ];
    for (name, behind) in cases {
        let mut nodes = vec![node("MatMul", &["x", "w"], "h", vec![])];
        nodes.extend(behind);
        let constants =
            vec![weights("w", &[64, 512]), shape("mixed", &[8, -1, 512]), shape("zero", &[0]), shape("two", &[2])];
        // 256 KB a sample: if it could be cut it would be.
        let source = model(&[-1, 128, 64], nodes, constants);
        let x = feed("x", array(&[samples, 128, 64], 0.31));
        let want = Float::load(&source).unwrap().run(&x).unwrap();
        for threads in [1, 2] {
            let model = load(&source, &Options { threads, ..options("int8x2", "int8x2") });
            assert_eq!(model.parts(&x).unwrap(), 1, "{name}");
            let got = model.run(&x).unwrap();
            assert_eq!(got[0].1.shape(), want[0].1.shape(), "{name}");
            let (got, want) = (got[0].1.to_f32(), want[0].1.to_f32());
            let largest = want.iter().fold(0f32, |most, v| most.max(v.abs()));
            let error = got.iter().zip(&want).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(error <= 1e-3 * largest, "{name}: {error} of {largest}");
        }
    }
}
