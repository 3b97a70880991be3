//! Encoders: attention, normalisations, GELU and SiLU, and the mean over a sentence, as exporters spell them.

use fpxint_onnx::proto::{NodeProto, TensorProto};
use fpxint_runtime::{Float, Options, Value};
use ndarray::{ArrayD, Axis, IxDyn, Slice};

use crate::build::{changed, float, int, integers, ints, node, tensor, value, wave};
use crate::{bits, load, options};

/// Values of a token.
const WIDTH: i64 = 32;
/// Values of a head.
const DEPTH: i64 = 8;
/// Values between the two products of a feed-forward layer.
const INNER: i64 = 48;

/// How a block is spelt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Style {
    /// BERT: three projections, LayerNormalization behind each half, GELU by Erf.
    Bert,
    /// One joined projection, RMS normalisation before each half, SiLU.
    Joined,
}

/// Nodes and constants of a graph that grows.
#[derive(Default)]
struct Graph {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
}

impl Graph {
    fn add(&mut self, op: &str, inputs: &[&str], output: &str) {
        self.nodes.push(node(op, inputs, output, vec![]));
    }

    fn numbers(&mut self, name: &str, values: &[f32]) {
        let dims: &[i64] = if values.len() == 1 { &[] } else { &[values.len() as i64] };
        self.constants.push(tensor(name, dims, values));
    }

    fn project(&mut self, x: &str, [k, n]: [i64; 2], y: &str) {
        let (w, b) = (format!("{y}.w"), format!("{y}.b"));
        self.constants.push(tensor(&w, &[k, n], &wave((k * n) as usize, 0.71 + n as f32 * 0.01, 0.3)));
        self.numbers(&b, &wave(n as usize, 0.3, 0.2));
        self.add("MatMul", &[x, &w], &format!("{y}.product"));
        self.add("Add", &[&format!("{y}.product"), &b], y);
    }

    fn normalise(&mut self, style: Style, x: &str, y: &str) {
        let (scale, bias) = (format!("{y}.scale"), format!("{y}.bias"));
        self.numbers(&scale, &wave(WIDTH as usize, 0.9, 0.5).iter().map(|v| 1.0 + v).collect::<Vec<_>>());
        self.numbers(&bias, &wave(WIDTH as usize, 0.2, 0.1));
        if style == Style::Bert {
            return self.nodes.push(node("LayerNormalization", &[x, &scale, &bias], y, vec![float("epsilon", 1e-6)]));
        }
        let name = |part: &str| format!("{y}.{part}");
        self.add("Pow", &[x, "two"], &name("square"));
        self.nodes.push(node("ReduceMean", &[&name("square")], &name("mean"), vec![ints("axes", &[-1])]));
        self.add("Add", &[&name("mean"), "epsilon"], &name("more"));
        self.add("Sqrt", &[&name("more")], &name("root"));
        self.add("Div", &[x, &name("root")], &name("unit"));
        self.add("Mul", &[&name("unit"), &scale], y);
    }

    /// `x` in heads, with axes in the order `perm`.
    fn heads(&mut self, x: &str, perm: &[i64], y: &str) {
        self.add("Reshape", &[x, "split"], &format!("{y}.heads"));
        self.nodes.push(node("Transpose", &[&format!("{y}.heads")], y, vec![ints("perm", perm)]));
    }

    fn attend(&mut self, style: Style, x: &str, y: &str) {
        if style == Style::Bert {
            for part in ["q", "k", "v"] {
                self.project(x, [WIDTH; 2], &format!("{y}.{part}"));
            }
        } else {
            self.project(x, [WIDTH, 3 * WIDTH], &format!("{y}.joined"));
            let outputs = ["q", "k", "v"].map(|part| format!("{y}.{part}"));
            let mut split = node("Split", &[&format!("{y}.joined")], &outputs[0], vec![int("axis", 2)]);
            split.output = outputs.to_vec();
            self.nodes.push(split);
        }
        let name = |part: &str| format!("{y}.{part}");
        self.heads(&name("q"), &[0, 2, 1, 3], &name("qh"));
        self.heads(&name("k"), &[0, 2, 3, 1], &name("kh"));
        self.heads(&name("v"), &[0, 2, 1, 3], &name("vh"));
        self.add("MatMul", &[&name("qh"), &name("kh")], &name("dots"));
        self.add("Div", &[&name("dots"), "root"], &name("scaled"));
        self.add("Add", &[&name("scaled"), "bias"], &name("masked"));
        self.nodes.push(node("Softmax", &[&name("masked")], &name("p"), vec![int("axis", -1)]));
        self.add("MatMul", &[&name("p"), &name("vh")], &name("mixed"));
        self.nodes.push(node("Transpose", &[&name("mixed")], &name("back"), vec![ints("perm", &[0, 2, 1, 3])]));
        self.add("Reshape", &[&name("back"), "join"], y);
    }

    fn activate(&mut self, style: Style, x: &str, y: &str) {
        let name = |part: &str| format!("{y}.{part}");
        if style == Style::Joined {
            self.add("Sigmoid", &[x], &name("s"));
            return self.add("Mul", &[x, &name("s")], y);
        }
        self.add("Div", &[x, "root_two"], &name("u"));
        self.add("Erf", &[&name("u")], &name("erf"));
        self.add("Add", &[&name("erf"), "one"], &name("sum"));
        self.add("Mul", &[x, &name("sum")], &name("twice"));
        self.add("Mul", &[&name("twice"), "half"], y);
    }
}

/// Two blocks on `x` (batch, length, `WIDTH`) under `mask` (batch, length), 1 where a token is: hidden states `y`, and their mean
/// `s` over each sentence.
pub(crate) fn encoder(style: Style) -> fpxint_onnx::Model {
    let mut g = Graph::default();
    for (name, number) in
        [("one", 1.0), ("half", 0.5), ("two", 2.0), ("root_two", 2f32.sqrt()), ("far", -1e4), ("epsilon", 1e-6)]
    {
        g.numbers(name, &[number]);
    }
    g.numbers("root", &[(DEPTH as f32).sqrt()]);
    g.constants.extend([
        integers("split", &[0, 0, WIDTH / DEPTH, DEPTH]),
        integers("join", &[0, 0, WIDTH]),
        integers("middle", &[1, 2]),
        integers("last", &[-1]),
        integers("tokens", &[1]),
    ]);
    g.add("Unsqueeze", &["mask", "middle"], "mask4");
    g.add("Sub", &["one", "mask4"], "absent");
    g.add("Mul", &["absent", "far"], "bias");
    let mut x = "x".to_owned();
    for block in 0..2 {
        let name = |part: &str| format!("{block}.{part}");
        let ends = |half: &str| if block == 1 && half == "second" { "y".to_owned() } else { name(half) };
        if style == Style::Bert {
            g.attend(style, &x, &name("a"));
            g.project(&name("a"), [WIDTH; 2], &name("o"));
            g.add("Add", &[&name("o"), &x], &name("r"));
            g.normalise(style, &name("r"), &ends("first"));
            g.project(&ends("first"), [WIDTH, INNER], &name("up"));
            g.activate(style, &name("up"), &name("g"));
            g.project(&name("g"), [INNER, WIDTH], &name("down"));
            g.add("Add", &[&name("down"), &ends("first")], &name("r2"));
            g.normalise(style, &name("r2"), &ends("second"));
        } else {
            g.normalise(style, &x, &name("n"));
            g.attend(style, &name("n"), &name("a"));
            g.project(&name("a"), [WIDTH; 2], &name("o"));
            g.add("Add", &[&name("o"), &x], &ends("first"));
            g.normalise(style, &ends("first"), &name("n2"));
            g.project(&name("n2"), [WIDTH, INNER], &name("up"));
            g.activate(style, &name("up"), &name("g"));
            g.project(&name("g"), [INNER, WIDTH], &name("down"));
            g.add("Add", &[&name("down"), &ends("first")], &ends("second"));
        }
        x = ends("second");
    }
    g.add("Unsqueeze", &["mask", "last"], "column");
    g.add("Mul", &["y", "column"], "present");
    g.nodes.push(node("ReduceSum", &["present", "tokens"], "total", vec![int("keepdims", 0)]));
    g.nodes.push(node("ReduceSum", &["mask", "tokens"], "count", vec![int("keepdims", 1)]));
    g.add("Div", &["total", "count"], "s");
    changed(&[-1, -2, WIDTH], g.nodes, g.constants, |graph| {
        graph.input.push(value("mask", &[-1, -2]));
        graph.output.push(value("s", &[-1, WIDTH]));
    })
}

/// Sentences of these lengths, padded to `length`; what stands in the padding is not zero.
pub(crate) fn sentences(lengths: &[usize], length: usize) -> Vec<(String, Value)> {
    let width = WIDTH as usize;
    let all = ArrayD::from_shape_vec(IxDyn(&[9, 70, width]), wave(9 * 70 * width, 0.377, 1.5)).unwrap();
    let x = all.slice_axis(Axis(0), Slice::from(..lengths.len())).slice_axis(Axis(1), Slice::from(..length)).to_owned();
    let mask = ArrayD::from_shape_fn(IxDyn(&[lengths.len(), length]), |i| f32::from(u8::from(i[1] < lengths[i[0]])));
    vec![("x".to_owned(), Value::F32(x)), ("mask".to_owned(), Value::F32(mask))]
}

/// Sentence `b` of inputs, without its padding.
fn alone(inputs: &[(String, Value)], b: usize, length: usize) -> Vec<(String, Value)> {
    let one = |(name, value): &(String, Value)| {
        let of_sentence = value.to_f32().slice_axis(Axis(0), Slice::from(b..b + 1)).to_owned();
        (name.clone(), Value::F32(of_sentence.slice_axis(Axis(1), Slice::from(..length)).to_owned()))
    };
    inputs.iter().map(one).collect()
}

#[test]
fn kernels_threads_batches_and_padding_give_the_same_bits() {
    let lengths = [7, 19, 33, 1];
    for style in [Style::Bert, Style::Joined] {
        for precision in ["int4x2", "int8x2"] {
            let source = encoder(style);
            let inputs = sentences(&lengths, 40);
            let want = load(&source, &options(precision, precision)).run(&inputs).unwrap();
            for kernel in fpxint_kernels::available() {
                for threads in [1, 2] {
                    let mut options = options(precision, precision);
                    (options.kernel, options.threads) = (Some(kernel.name().to_owned()), threads);
                    let model = load(&source, &options);
                    let context = format!("{style:?} at {precision}, {} x {threads}", kernel.name());
                    assert_eq!(bits(&model.run(&inputs).unwrap()), bits(&want), "{context}");
                    for (b, &length) in lengths.iter().enumerate() {
                        let got = model.run(&alone(&inputs, b, length)).unwrap();
                        let [hidden, sentence] =
                            [0, 1].map(|i| want[i].1.to_f32().slice_axis(Axis(0), Slice::from(b..b + 1)).to_owned());
                        let hidden = hidden.slice_axis(Axis(1), Slice::from(..length)).to_owned();
                        let want = vec![("y".to_owned(), Value::F32(hidden)), ("s".to_owned(), Value::F32(sentence))];
                        assert_eq!(bits(&got), bits(&want), "sentence {b} alone, {context}");
                    }
                }
            }
        }
    }
}

#[test]
fn outputs_are_close_to_fp32_and_the_host_is_exact() {
    for style in [Style::Bert, Style::Joined] {
        let (source, inputs) = (encoder(style), sentences(&[7, 19, 33], 33));
        let model = load(&source, &options("int8x2", "int8x2"));
        let left = model.left_to_tract();
        let moved = |operator: &str| ["Slice", "Reduce", "Softmax"].iter().any(|of| operator.starts_with(of));
        assert!(left.iter().all(|node| node.exact && !moved(&node.operator)), "{style:?}: {left:?}");
        let steps = model.profile(&inputs).unwrap();
        let count = |operator: &str| steps.iter().filter(|step| step.operator == operator).count();
        let norm = if style == Style::Bert { "LayerNorm" } else { "RmsNorm" };
        assert_eq!([count("Attention"), count(norm), count("Sum"), count("Silu"), count("Gelu")], [2, 4, 2, 0, 0]);
        let (got, want) = (model.run(&inputs).unwrap(), Float::load(&source).unwrap().run(&inputs).unwrap());
        for ((name, got), (_, want)) in got.iter().zip(&want) {
            let (got, want) = (got.to_f32(), want.to_f32());
            let largest = want.iter().fold(0f32, |largest, v| largest.max(v.abs()));
            let error = got.iter().zip(&want).fold(0f32, |error, (a, b)| error.max((a - b).abs()));
            assert!(error < 1e-3 * largest && largest > 0.5, "{style:?}, {name}: {error} of {largest}");
        }
    }
}

#[test]
fn attention_computes_as_is_asked_stated_or_usual() {
    let mut source = encoder(Style::Bert);
    let inputs = sentences(&[7, 19, 33], 33);
    let run = |source: &fpxint_onnx::Model, precision: &str, attention: Option<&str>| {
        let attention = attention.map(|text| text.parse().unwrap());
        bits(&load(source, &Options { attention, ..options(precision, precision) }).run(&inputs).unwrap())
    };
    let floats = run(&source, "int4x2", Some("fp32"));
    let [eight, four] = ["int8x1", "int4x2"].map(|attention| run(&source, "int4x2", Some(attention)));
    assert!(floats != eight && eight != four && floats != four);
    assert_eq!(run(&source, "int4x2", None), eight);
    assert_eq!(run(&source, "int8x2", None), run(&source, "int8x2", Some("fp32")));
    source.state_attention("int4x2".parse().unwrap());
    assert_eq!(run(&source, "int4x2", None), four);
    assert_eq!(run(&source, "int4x2", Some("fp32")), floats);
}

#[test]
fn a_sentence_that_is_not_finite_turns_nan_alone() {
    for style in [Style::Bert, Style::Joined] {
        let mut inputs = sentences(&[7, 19, 33], 33);
        let Value::F32(x) = &mut inputs[0].1 else { panic!("float32") };
        x[[1, 3, 5]] = f32::INFINITY;
        let y = load(&encoder(style), &options("int4x2", "int4x2")).run(&inputs).unwrap();
        for (b, sentence) in y[1].1.to_f32().outer_iter().enumerate() {
            assert!(sentence.iter().all(|v| v.is_nan() == (b == 1)), "{style:?}, {b}: {sentence}");
        }
    }
}

#[test]
fn a_run_allocates_nothing_of_the_size_of_its_data() {
    let model = load(&encoder(Style::Joined), &options("int4x2", "int4x2"));
    let steady = |length: usize| {
        let inputs = sentences(&[length], length);
        for _ in 0..4 {
            model.run(&inputs).unwrap();
        }
        allocation_counter::measure(|| drop(model.run(&inputs).unwrap())).bytes_total
    };
    let (short, long) = (steady(10), steady(70));
    // A token has 128 bytes in the output, in its copy for the caller and in what the host makes of it; in a layer's values,
    // codes and scores it has more than 1,500.
    assert!(long < short + 60 * 640, "{long} bytes, and {short} for a seventh of the tokens");
}
