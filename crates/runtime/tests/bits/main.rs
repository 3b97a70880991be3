//! Whole models: the same bits however they are run, and the bits that the series says.

mod activation_clip;
mod batch;
mod build;
mod clamps;
mod encoder;
mod errors;
mod expose;
mod external;
mod group;
mod hosts;
mod load;
mod memory;
mod missing;
mod plan;
mod pools;
mod rotation;
mod saturation;
mod spec;
mod ways;

use build::{digits, float, int, ints, model, node, tensor, wave};
use fpxint_runtime::{Model, Options, Outputs, Value};
use ndarray::{ArrayD, Axis, IxDyn, Slice};

pub(crate) fn options(weights: &str, activations: &str) -> Options {
    Options { weights: weights.parse().ok(), activations: activations.parse().ok(), ..Options::default() }
}

pub(crate) fn load(source: &fpxint_onnx::Model, options: &Options) -> Model {
    Model::load(source, options, &|_, _| {}).unwrap()
}

pub(crate) fn array(shape: &[usize], step: f32) -> ArrayD<f32> {
    ArrayD::from_shape_vec(IxDyn(shape), wave(shape.iter().product(), step, 2.0)).unwrap()
}

pub(crate) fn feed(name: &str, x: ArrayD<f32>) -> Vec<(String, Value)> {
    vec![(name.to_owned(), Value::F32(x))]
}

pub(crate) fn bits(outputs: &Outputs) -> Vec<u32> {
    outputs.iter().flat_map(|(_, value)| value.to_f32().iter().map(|v| v.to_bits()).collect::<Vec<_>>()).collect()
}

/// Models that between them use every kind of step.
fn models() -> Vec<(fpxint_onnx::Model, &'static str, Vec<usize>)> {
    let weights =
        |name: &str, dims: &[i64]| tensor(name, dims, &wave(dims.iter().product::<i64>() as usize, 0.71, 0.4));
    // A 1-D network with a pool, a residual whose other side is computed later, a concatenation and two readers of a value.
    let one_d = model(
        &[-1, 6, 40],
        vec![
            node("Conv", &["x", "w1", "b1"], "a", vec![ints("pads", &[2, 2]), ints("kernel_shape", &[5])]),
            node("Relu", &["a"], "r", vec![]),
            node("MaxPool", &["r"], "p", vec![ints("kernel_shape", &[2]), ints("strides", &[2])]),
            node("Conv", &["p", "w2"], "left", vec![ints("pads", &[1, 1]), int("group", 2)]),
            node("Conv", &["p", "w3"], "right", vec![]),
            node("Add", &["left", "right"], "sum", vec![]),
            node("Concat", &["sum", "p"], "cat", vec![int("axis", 1)]),
            node("GlobalAveragePool", &["cat"], "g", vec![]),
            node("Flatten", &["g"], "f", vec![]),
            node("MatMul", &["f", "w4"], "y", vec![]),
        ],
        vec![
            weights("w1", &[8, 6, 5]),
            weights("b1", &[8]),
            weights("w2", &[8, 4, 3]),
            weights("w3", &[8, 8, 1]),
            weights("w4", &[16, 5]),
        ],
    );
    // Dilation, SAME padding, a depthwise filter, a clamp that is read twice and so cannot be fused away.
    let two_d = model(
        &[-1, 3, 17, 13],
        vec![
            node("Conv", &["x", "w1"], "a", vec![ints("dilations", &[2, 1]), ints("strides", &[1, 2])]),
            node("Clip", &["a", "low", "high"], "c", vec![]),
            node("Conv", &["c", "w2"], "d", vec![int("group", 12), ints("pads", &[1, 1, 1, 1])]),
            node("Add", &["d", "c"], "s", vec![]),
            node("Sigmoid", &["c"], "t", vec![]),
            node("Mul", &["s", "t"], "m", vec![]),
            node("Relu", &["m"], "y", vec![]),
        ],
        vec![
            weights("w1", &[12, 3, 3, 3]),
            weights("w2", &[12, 1, 3, 3]),
            tensor("low", &[], &[-0.5]),
            tensor("high", &[], &[1.0]),
        ],
    );
    // Pools that reach past the image, two of them joined, and a mean that drops its axes.
    let pools = model(
        &[-1, 3, 14, 11],
        vec![
            node("Conv", &["x", "w1"], "a", vec![ints("pads", &[1, 1, 1, 1])]),
            node(
                "MaxPool",
                &["a"],
                "m",
                vec![ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2]), int("ceil_mode", 1)],
            ),
            node(
                "AveragePool",
                &["a"],
                "p",
                vec![
                    ints("kernel_shape", &[3, 3]),
                    ints("strides", &[2, 2]),
                    int("ceil_mode", 1),
                    int("count_include_pad", 1),
                ],
            ),
            node("Concat", &["m", "p"], "cat", vec![int("axis", 1)]),
            node("Conv", &["cat", "w2"], "b", vec![]),
            node("AveragePool", &["b"], "q", vec![ints("kernel_shape", &[3, 2]), ints("pads", &[1, 1, 1, 0])]),
            node("ReduceMean", &["q"], "g", vec![ints("axes", &[2, 3]), int("keepdims", 0)]),
            node("MatMul", &["g", "w3"], "y", vec![]),
        ],
        vec![weights("w1", &[37, 3, 3, 3]), weights("w2", &[10, 74, 1, 1]), weights("w3", &[10, 6])],
    );
    // Every activation, fused behind a layer, behind a residual, and alone.
    let curves = model(
        &[-1, 4, 9, 6],
        vec![
            node("Conv", &["x", "w1"], "a", vec![]),
            node("LeakyRelu", &["a"], "b", vec![float("alpha", 0.1)]),
            node("Conv", &["b", "w2"], "c", vec![]),
            node("Add", &["c", "b"], "d", vec![]),
            node("HardSwish", &["d"], "e", vec![]),
            node("Conv", &["e", "w3"], "f", vec![int("group", 13), ints("pads", &[1, 1, 1, 1])]),
            node("Sigmoid", &["f"], "g", vec![]),
            node("Mul", &["f", "g"], "h", vec![]),
            node("GlobalAveragePool", &["h"], "i", vec![]),
            node("Conv", &["i", "w4"], "j", vec![]),
            node("HardSigmoid", &["j"], "k", vec![]),
            node("Mul", &["h", "k"], "l", vec![]),
            node("LeakyRelu", &["l"], "m", vec![]),
            node("HardSwish", &["m"], "n", vec![]),
            node("Conv", &["n", "w2"], "o", vec![]),
            node("Sigmoid", &["o"], "y", vec![]),
        ],
        vec![
            weights("w1", &[13, 4, 1, 1]),
            weights("w2", &[13, 13, 1, 1]),
            weights("w3", &[13, 1, 3, 3]),
            weights("w4", &[13, 13, 1, 1]),
        ],
    );
    let rows = model(
        &[-1, 5, 24],
        vec![
            node("MatMul", &["x", "w1"], "a", vec![]),
            node("Add", &["b", "a"], "h", vec![]),
            node("Relu", &["h"], "r", vec![]),
            node("MatMul", &["r", "w2"], "z", vec![]),
            node("Add", &["z", "x"], "y", vec![]),
        ],
        vec![weights("w1", &[24, 40]), weights("b", &[40]), weights("w2", &[40, 24])],
    );
    vec![
        (digits(), "input", vec![1, 8, 8]),
        (one_d, "x", vec![6, 40]),
        (two_d, "x", vec![3, 17, 13]),
        (pools, "x", vec![3, 14, 11]),
        (curves, "x", vec![4, 9, 6]),
        (rows, "x", vec![5, 24]),
        (rotation::turned(), "x", vec![5, 48]),
    ]
}

const PRECISIONS: [(&str, &str); 5] =
    [("int4x2", "int4x2"), ("int2x3", "int4x3"), ("int8x2", "int8x2"), ("int4x1", "int2x4"), ("int4x5", "int8x3")];

#[test]
fn every_kernel_thread_count_and_batch_split_gives_the_same_bits() {
    for (source, input, shape) in models() {
        let x = array(&[&[5], &shape[..]].concat(), 0.377);
        for (weights, activations) in PRECISIONS {
            let options = options(weights, activations);
            let whole = load(&source, &options);
            let want = bits(&whole.run(&feed(input, x.clone())).unwrap());
            for kernel in fpxint_kernels::available() {
                for threads in [1, 2, 3] {
                    let options = Options { threads, kernel: Some(kernel.name().to_owned()), ..options.clone() };
                    let got = load(&source, &options).run(&feed(input, x.clone())).unwrap();
                    assert_eq!(bits(&got), want, "{} {threads} threads {weights} {activations}", kernel.name());
                }
            }
            for cuts in [vec![0, 1, 2, 3, 4, 5], vec![0, 2, 5]] {
                let part = |range: &[usize]| {
                    let part = x.slice_axis(Axis(0), Slice::from(range[0]..range[1])).to_owned();
                    bits(&whole.run(&feed(input, part)).unwrap())
                };
                let split: Vec<u32> = cuts.windows(2).flat_map(part).collect();
                assert_eq!(split, want, "cut at {cuts:?}, {weights} {activations}");
            }
        }
    }
}

#[test]
fn one_model_runs_in_many_threads_at_once() {
    let model = load(&digits(), &options("int4x2", "int4x2"));
    let inputs: Vec<_> = (1..5).map(|i| feed("input", array(&[i, 1, 8, 8], 0.1 * i as f32))).collect();
    let want: Vec<_> = inputs.iter().map(|x| bits(&model.run(x).unwrap())).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (x, want) in inputs.iter().zip(&want).cycle().take(40) {
                    assert_eq!(&bits(&model.run(x).unwrap()), want);
                }
            });
        }
    });
}

#[test]
fn an_artefact_runs_as_the_model_it_was_made_from() {
    let folder = tempfile::tempdir().unwrap();
    for (source, input, shape) in models() {
        let x = feed(input, array(&[&[2], &shape[..]].concat(), 0.9));
        for (weights, activations) in PRECISIONS {
            let options = options(weights, activations);
            let settings = fpxint::Settings {
                weights: options.weights.unwrap(),
                activations: options.activations.unwrap(),
                granularity: fpxint::Granularity::Channel,
                rounding: options.rounding,
                clip: options.clip,
                asymmetric: false,
                activation_clip: Default::default(),
            };
            let encoded: Vec<_> = (0..source.layers().len())
                .map(|i| fpxint_onnx::encode(&fpxint::expand_layer(&source.layer(i).unwrap(), &settings).unwrap()))
                .collect();
            let path = folder.path().join("artefact.onnx");
            fpxint_onnx::write(&source, &encoded, &path).unwrap();
            let artefact = fpxint_onnx::read(&path, &fpxint_onnx::Limits::default()).unwrap();
            let order = settings.weights.order();
            for terms in 1..=order {
                let terms = Some(terms).filter(|&t| t < order);
                let direct = load(&source, &Options { weight_terms: terms, ..options.clone() });
                let stored = Options { weights: None, activations: None, weight_terms: terms, ..options.clone() };
                let read = load(&artefact, &stored);
                assert_eq!(bits(&read.run(&x).unwrap()), bits(&direct.run(&x).unwrap()), "{weights}, {terms:?} terms");
            }
        }
    }
}

#[test]
fn more_terms_bring_the_model_to_fp32() {
    let source = digits();
    let x = feed("input", array(&[4, 1, 8, 8], 0.21));
    let exact = fpxint_runtime::Float::load(&source).unwrap().run(&x).unwrap()[0].1.to_f32();
    let largest = exact.iter().fold(0f32, |m, v| m.max(v.abs()));
    let error = |precision: &str| {
        let y = load(&source, &options(precision, precision)).run(&x).unwrap()[0].1.to_f32();
        y.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max) / largest
    };
    let errors: Vec<f32> = ["int4x1", "int4x2", "int4x3", "int4x4"].map(error).to_vec();
    for pair in errors.windows(2) {
        assert!(pair[0] / pair[1] > 8.0, "a term of four bits divides the error by about 16: {errors:?}");
    }
    assert!(error("int8x2") < 1e-3 && error("int8x3") < 1e-5, "{} {}", error("int8x2"), error("int8x3"));
}

#[test]
fn a_non_finite_image_or_row_turns_nan_alone() {
    for (source, input, shape) in models() {
        let model = load(&source, &options("int4x2", "int4x2"));
        let mut x = array(&[&[3], &shape[..]].concat(), 0.5);
        let clean = bits(&model.run(&feed(input, x.clone())).unwrap());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            x.index_axis_mut(Axis(0), 1).as_slice_mut().unwrap()[7] = bad;
            let got = bits(&model.run(&feed(input, x.clone())).unwrap());
            let image = got.len() / 3;
            assert_eq!((&got[..image], &got[2 * image..]), (&clean[..image], &clean[2 * image..]));
            assert!(got[image..2 * image].iter().any(|&b| f32::from_bits(b).is_nan()), "{bad} vanished");
        }
    }
}
