//! Pools inside models: which are ours, and their bits against the definition.

use fpxint_onnx::proto::{AttributeProto, GraphProto, tensor_shape_proto::dimension, type_proto};
use fpxint_reference::{Pooled, average_pool, max_pool};
use ndarray::{ArrayD, IxDyn};

use crate::build::{changed, int, ints, node, tensor, wave};
use crate::{array, bits, feed, load, options};

/// Channels of every image here.
const CHANNELS: usize = 9;

/// `y = pool(c)` behind a pointwise convolution `c` of `x`, over images of `size`; open sizes where `open` says so.
fn model(
    op: &str,
    attributes: Vec<AttributeProto>,
    size: &[usize],
    open: bool,
) -> (fpxint_onnx::Model, Vec<usize>, ArrayD<f32>) {
    let shape = [&[2, CHANNELS][..], size].concat();
    let dims: Vec<i64> = [-1, CHANNELS as i64].into_iter().chain(size.iter().map(|&s| s as i64)).collect();
    let kernel = [&[CHANNELS as i64, CHANNELS as i64][..], &vec![1; size.len()]].concat();
    let w = tensor("w", &kernel, &wave(CHANNELS * CHANNELS, 0.7, 0.5));
    let nodes = vec![node("Conv", &["x", "w"], "c", vec![]), node(op, &["c"], "y", attributes)];
    let name = |graph: &mut GraphProto| {
        let Some(type_proto::Value::TensorType(tensor)) = graph.input[0].r#type.as_mut().and_then(|t| t.value.as_mut())
        else {
            panic!("a tensor");
        };
        for (dim, name) in tensor.shape.as_mut().unwrap().dim[2..].iter_mut().zip(["H", "W"]) {
            if open {
                dim.value = Some(dimension::Value::DimParam(name.to_owned()));
            }
        }
    };
    let mut source = changed(&dims, nodes, vec![w], name);
    source.expose(&["c".to_owned()]).unwrap();
    (source, shape.clone(), array(&shape, 0.377))
}

/// Runs a pool; returns `y`, and `c` with channels last, image by image. No pool may be left to the host.
fn run(source: &fpxint_onnx::Model, x: &ArrayD<f32>) -> (ArrayD<f32>, Vec<Vec<f32>>) {
    let model = load(source, &options("int8x2", "int8x2"));
    let pools = ["SumPool", "MaxPool", "Reduce", "Mul"];
    let left = model.left_to_tract();
    assert!(!left.iter().any(|node| pools.iter().any(|pool| node.operator.contains(pool))), "{left:?}");
    let outputs = model.run(&feed("x", x.clone())).unwrap();
    let c = outputs[1].1.to_f32();
    let last: Vec<usize> = std::iter::once(0).chain(2..c.ndim()).chain([1]).collect();
    let c = c.permuted_axes(IxDyn(&last));
    let images = c.outer_iter().map(|image| image.iter().copied().collect()).collect();
    (outputs[0].1.to_f32(), images)
}

/// `y (n, c, ..)` with channels last, as bits.
fn last(y: &ArrayD<f32>) -> Vec<u32> {
    let order: Vec<usize> = std::iter::once(0).chain(2..y.ndim()).chain([1]).collect();
    y.view().permuted_axes(IxDyn(&order)).iter().map(|v| v.to_bits()).collect()
}

#[test]
fn pools_have_the_bits_of_the_definition() {
    let base = Pooled {
        input: [7, 10],
        channels: CHANNELS,
        kernel: [3, 2],
        strides: [2, 3],
        dilations: [1, 1],
        pads: [1, 0, 1, 1],
        output: [4, 4],
    };
    let cases = [
        (base.clone(), 0),
        (Pooled { dilations: [2, 3], output: [3, 3], ..base.clone() }, 0),
        (Pooled { kernel: [2, 2], strides: [3, 3], pads: [0; 4], output: [3, 4], ..base.clone() }, 1),
        (Pooled { kernel: [4, 3], strides: [2, 2], pads: [1, 1, 0, 1], output: [3, 6], ..base.clone() }, 1),
        // One axis.
        (Pooled { input: [1, 11], kernel: [1, 3], strides: [1, 2], pads: [0, 1, 0, 0], output: [1, 5], ..base }, 0),
    ];
    for (g, ceil) in cases {
        let axes = if g.input[0] == 1 { 1..2 } else { 0..2 };
        let of = |pair: [usize; 2]| pair[axes.clone()].iter().map(|&v| v as i64).collect::<Vec<_>>();
        let pads = [of([g.pads[0], g.pads[1]]), of([g.pads[2], g.pads[3]])].concat();
        for (op, count_padding) in [("MaxPool", false), ("AveragePool", false), ("AveragePool", true)] {
            let mut attributes = vec![
                ints("kernel_shape", &of(g.kernel)),
                ints("strides", &of(g.strides)),
                ints("dilations", &of(g.dilations)),
                ints("pads", &pads),
                int("ceil_mode", ceil),
            ];
            if op == "AveragePool" {
                attributes.push(int("count_include_pad", i64::from(count_padding)));
            }
            for open in [false, true] {
                let (source, _, x) = model(op, attributes.clone(), &g.input[axes.clone()], open);
                let (y, images) = run(&source, &x);
                let pool = |x: &Vec<f32>| match op {
                    "MaxPool" => max_pool(&g, x),
                    _ => average_pool(&g, count_padding, x),
                };
                let want: Vec<u32> = images.iter().flat_map(pool).map(f32::to_bits).collect();
                assert_eq!(last(&y), want, "{op} {count_padding} {g:?}");
            }
        }
    }
}

#[test]
fn means_over_the_image_have_the_bits_of_the_definition() {
    for size in [&[5, 7][..], &[8, 8], &[12]] {
        let axes: Vec<i64> = (2..2 + size.len() as i64).collect();
        let mean = |keep| vec![ints("axes", &axes), int("keepdims", keep)];
        for (op, attributes, rank) in [
            ("GlobalAveragePool", vec![], 2 + size.len()),
            ("ReduceMean", mean(1), 2 + size.len()),
            ("ReduceMean", mean(0), 2),
        ] {
            for open in [false, true] {
                let (source, _, x) = model(op, attributes.clone(), size, open);
                let (y, images) = run(&source, &x);
                assert_eq!(y.ndim(), rank);
                let input = if size.len() == 1 { [1, size[0]] } else { [size[0], size[1]] };
                let ones = [1, 1];
                let g = Pooled {
                    input,
                    channels: CHANNELS,
                    kernel: input,
                    strides: ones,
                    dilations: ones,
                    pads: [0; 4],
                    output: ones,
                };
                let want: Vec<f32> = images.iter().flat_map(|x| average_pool(&g, false, x)).collect();
                let want: Vec<u32> = want.iter().map(|v| v.to_bits()).collect();
                assert_eq!(y.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), want, "{op} {size:?}");
            }
        }
    }
}

#[test]
fn a_sum_that_is_no_mean_keeps_its_factor() {
    let nodes = |factor: &str| {
        vec![
            node("Conv", &["x", "w"], "c", vec![]),
            node("ReduceSum", &["c", "axes"], "s", vec![int("keepdims", 1)]),
            node("Mul", &["s", factor], "y", vec![]),
        ]
    };
    let axes = fpxint_onnx::proto::TensorProto {
        name: Some("axes".to_owned()),
        dims: vec![2],
        data_type: Some(fpxint_onnx::proto::tensor_proto::DataType::Int64 as i32),
        int64_data: vec![2, 3],
        ..Default::default()
    };
    let constants = vec![
        tensor("w", &[4, 3, 1, 1], &wave(12, 0.7, 0.5)),
        axes,
        tensor("whole", &[], &[1.0 / 20.0]),
        tensor("half", &[], &[0.5]),
        tensor("each", &[1, 4, 1, 1], &[1.0 / 20.0, 0.5, 0.0, -1.0]),
    ];
    let y = |factor: &str| {
        let source = changed(&[-1, 3, 4, 5], nodes(factor), constants.clone(), |_| {});
        load(&source, &options("int8x2", "int8x2")).run(&feed("x", array(&[2, 3, 4, 5], 0.4))).unwrap()
    };
    let (mean, half, each) = (y("whole")[0].1.to_f32(), y("half")[0].1.to_f32(), y("each")[0].1.to_f32());
    for ((image, mean), (half, each)) in mean.indexed_iter().zip(half.iter().zip(&each)) {
        assert!((half - 10.0 * mean).abs() <= 1e-5);
        let factor = [1.0, 10.0, 0.0, -20.0][image[1]];
        assert!((each - factor * mean).abs() <= 1e-5);
    }
}

#[test]
fn a_pool_of_an_input_is_ours() {
    let g = Pooled {
        input: [6, 6],
        channels: 3,
        kernel: [2, 2],
        strides: [2, 2],
        dilations: [1, 1],
        pads: [0; 4],
        output: [3, 3],
    };
    let attributes = vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])];
    let nodes = vec![node("AveragePool", &["x"], "p", attributes), node("Conv", &["p", "w"], "y", vec![])];
    let w = tensor("w", &[4, 3, 1, 1], &wave(12, 0.7, 0.5));
    let mut source = changed(&[-1, 3, 6, 6], nodes, vec![w], |_| {});
    source.expose(&["p".to_owned()]).unwrap();
    let model = load(&source, &options("int4x2", "int4x2"));
    assert_eq!(model.left_to_tract(), []);
    let x = array(&[1, 3, 6, 6], 0.4);
    let nhwc: Vec<f32> = x.view().permuted_axes(IxDyn(&[0, 2, 3, 1])).iter().copied().collect();
    let outputs = model.run(&feed("x", x)).unwrap();
    let want: Vec<u32> = average_pool(&g, false, &nhwc).iter().map(|v| v.to_bits()).collect();
    assert_eq!(last(&outputs[1].1.to_f32()), want);
    assert_eq!(bits(&outputs[1..].to_vec()).len(), want.len());
}
