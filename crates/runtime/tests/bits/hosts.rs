//! What exporters write and the host alone would stumble over.

use fpxint_onnx::proto::{GraphProto, TensorProto, tensor_proto::DataType, tensor_shape_proto::dimension, type_proto};
use fpxint_runtime::Float;

use crate::build::{changed, float, int, ints, model, node, tensor, wave};
use crate::{array, bits, feed, load, options};

/// Changes the type of `x`.
fn input_type(graph: &mut GraphProto, change: impl FnOnce(&mut type_proto::Tensor)) {
    let Some(type_proto::Value::TensorType(tensor)) = graph.input[0].r#type.as_mut().and_then(|t| t.value.as_mut())
    else {
        panic!("a tensor");
    };
    change(tensor);
}

#[test]
fn any_name_of_an_open_dimension_will_do() {
    let build = |name: Option<&str>| {
        let nodes = vec![node("MatMul", &["x", "w"], "h", vec![]), node("Relu", &["h"], "y", vec![])];
        changed(&[-1, 4], nodes, vec![tensor("w", &[4, 2], &wave(8, 0.7, 1.0))], |graph| {
            input_type(graph, |tensor| {
                let dim = &mut tensor.shape.as_mut().unwrap().dim[0];
                dim.value = name.map(|name| dimension::Value::DimParam(name.to_owned()));
            });
        })
    };
    let x = feed("x", array(&[3, 4], 0.4));
    let want = bits(&load(&build(Some("N")), &options("int4x2", "int4x2")).run(&x).unwrap());
    for name in [None, Some(""), Some("batch size"), Some("past + 1"), Some("-1"), Some("?"), Some("a.b:c"), Some("2N")]
    {
        let source = build(name);
        assert_eq!(bits(&load(&source, &options("int4x2", "int4x2")).run(&x).unwrap()), want, "{name:?}");
        assert_eq!(Float::load(&source).unwrap().run(&x).unwrap()[0].1.shape(), [3, 2]);
    }
}

#[test]
fn half_precision_graphs_take_and_give_float32() {
    let w = wave(8, 0.7, 1.0);
    for kind in [DataType::Float16, DataType::Bfloat16] {
        let (mantissa, words): (u32, Vec<i32>) = match kind {
            DataType::Bfloat16 => (7, w.iter().map(|v| (v.to_bits() >> 16) as i32).collect()),
            // Weights that FP16 holds exactly: a sign and the exponent of 1.
            _ => (10, w.iter().map(|v| if *v < 0.0 { 0xbc00 } else { 0x3c00 }).collect()),
        };
        let weight = TensorProto {
            name: Some("w".to_owned()),
            dims: vec![4, 2],
            data_type: Some(kind as i32),
            int32_data: words,
            ..Default::default()
        };
        let nodes = vec![node("MatMul", &["x", "w"], "h", vec![]), node("Relu", &["h"], "y", vec![])];
        let source = changed(&[-1, 4], nodes, vec![weight], |graph| {
            input_type(graph, |tensor| tensor.elem_type = Some(kind as i32));
        });
        let x = feed("x", array(&[3, 4], 0.4));
        let exact = Float::load(&source).unwrap().run(&x).unwrap()[0].1.to_f32();
        let y = load(&source, &options("int8x2", "int8x2")).run(&x).unwrap()[0].1.to_f32();
        let step = 8.0 * 0.5f32.powi(mantissa as i32);
        assert!(y.iter().zip(&exact).all(|(a, b)| (a - b).abs() <= step), "{kind:?}: {y} {exact}");
        assert!(y.iter().any(|&v| v > 0.5));
    }
}

#[test]
fn inputs_keep_their_names_when_the_host_drops_a_node() {
    let nodes = vec![node("Slice", &["x", "from", "to"], "s", vec![]), node("MatMul", &["s", "w"], "y", vec![])];
    let bound = |name: &str, value: i64| TensorProto {
        name: Some(name.to_owned()),
        dims: vec![1],
        data_type: Some(DataType::Int64 as i32),
        int64_data: vec![value],
        ..Default::default()
    };
    let constants = vec![bound("from", 0), bound("to", i64::MAX), tensor("w", &[4, 2], &wave(8, 0.7, 1.0))];
    let source = model(&[-1, 4], nodes, constants);
    let y = load(&source, &options("int4x2", "int4x2")).run(&feed("x", array(&[3, 4], 0.4))).unwrap();
    assert_eq!((y[0].0.as_str(), y[0].1.shape()), ("y", &[3, 2][..]));
}

#[test]
fn a_strided_slice_after_a_layer_chooses_the_same_pixels_in_fp32() {
    let ints64 = |name: &str, values: &[i64]| TensorProto {
        name: Some(name.to_owned()),
        dims: vec![values.len() as i64],
        data_type: Some(DataType::Int64 as i32),
        int64_data: values.to_vec(),
        ..Default::default()
    };
    let nodes = vec![
        node("Conv", &["x", "w"], "c", vec![ints("pads", &[1, 1, 1, 1])]),
        node("Slice", &["c", "from", "to", "axes", "steps"], "y", vec![]),
    ];
    let constants = vec![
        tensor("w", &[3, 2, 3, 3], &wave(54, 0.7, 0.5)),
        ints64("from", &[1, 1]),
        ints64("to", &[9, 9]),
        ints64("axes", &[2, 3]),
        ints64("steps", &[2, 2]),
    ];
    let source = model(&[-1, 2, 8, 8], nodes, constants);
    let x = feed("x", array(&[1, 2, 8, 8], 0.4));
    let exact = Float::load(&source).unwrap().run(&x).unwrap()[0].1.to_f32();
    let y = load(&source, &options("int8x2", "int8x2")).run(&x).unwrap()[0].1.to_f32();
    assert_eq!(y.shape(), [1, 3, 4, 4]);
    assert!(y.iter().zip(&exact).all(|(a, b)| (a - b).abs() < 2e-3), "{y} {exact}");
}

#[test]
fn a_pool_whose_size_the_host_infers_wrongly_is_refused() {
    let nodes = vec![
        node("Conv", &["x", "w"], "c", vec![]),
        node(
            "MaxPool",
            &["c"],
            "p",
            vec![
                ints("kernel_shape", &[2, 2]),
                ints("strides", &[2, 2]),
                ints("pads", &[1, 1, 1, 1]),
                int("ceil_mode", 1),
            ],
        ),
        node("GlobalAveragePool", &["p"], "y", vec![]),
    ];
    let source = changed(&[-1, 2, 5, 5], nodes, vec![tensor("w", &[3, 2, 1, 1], &wave(6, 0.7, 0.5))], |graph| {
        input_type(graph, |tensor| {
            for (dim, name) in tensor.shape.as_mut().unwrap().dim[2..].iter_mut().zip(["H", "W"]) {
                dim.value = Some(dimension::Value::DimParam(name.to_owned()));
            }
        });
    });
    let model = load(&source, &options("int8x2", "int8x2"));
    assert!(model.run(&feed("x", array(&[1, 2, 10, 10], 0.4))).is_ok());
    let error = model.run(&feed("x", array(&[1, 2, 11, 11], 0.4))).unwrap_err().to_string();
    assert!(error.contains("`p_node`") && error.contains("export the model with fixed sizes"), "{error}");
}

#[test]
fn repeated_runs_and_changing_shapes_give_the_same_bits() {
    let source = crate::build::digits();
    let model = load(&source, &options("int4x2", "int4x2"));
    let want: Vec<_> =
        [1usize, 4, 2].map(|n| bits(&model.run(&feed("input", array(&[n, 1, 8, 8], 0.3))).unwrap())).into();
    for _ in 0..5 {
        for (n, want) in [1usize, 4, 2].iter().zip(&want) {
            assert_eq!(&bits(&model.run(&feed("input", array(&[*n, 1, 8, 8], 0.3))).unwrap()), want);
        }
    }
}

#[test]
fn activations_are_ours_fused_or_alone() {
    let curve = |name: &str, x: f64| match name {
        "LeakyRelu" => x.max(0.0) + 0.1 * x.min(0.0),
        "HardSigmoid" => (0.3 * x + 0.4).clamp(0.0, 1.0),
        "HardSwish" => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        "Sigmoid" => 1.0 / (1.0 + (-x).exp()),
        _ => x / (1.0 + (-x).exp()),
    };
    let cases = [
        ("LeakyRelu", vec![float("alpha", 0.1)]),
        ("HardSigmoid", vec![float("alpha", 0.3), float("beta", 0.4)]),
        ("HardSwish", vec![]),
        ("Sigmoid", vec![]),
        ("Silu", vec![]),
    ];
    for (name, attributes) in cases {
        let (op, output) = if name == "Silu" { ("Sigmoid", "s") } else { (name, "y") };
        let mut nodes = vec![node("Conv", &["x", "w"], "c", vec![]), node(op, &["c"], output, attributes)];
        if name == "Silu" {
            nodes.push(node("Mul", &["c", "s"], "y", vec![]));
        }
        let mut source = model(&[-1, 2, 3, 4], nodes, vec![tensor("w", &[5, 2, 1, 1], &wave(10, 0.7, 3.0))]);
        let x = feed("x", array(&[2, 2, 3, 4], 0.4));
        let fused = load(&source, &options("int8x2", "int8x2"));
        source.expose(&["c".to_owned()]).unwrap();
        let alone = load(&source, &options("int8x2", "int8x2"));
        assert_eq!((fused.left_to_tract(), alone.left_to_tract()), (vec![], vec![]), "{name}");
        let steps =
            [&fused, &alone].map(|model| model.profile(&x).unwrap().iter().filter(|s| s.operator == name).count());
        assert_eq!(steps, [0, 1], "{name}");
        let outputs = alone.run(&x).unwrap();
        let (y, c) = (outputs[0].1.to_f32(), outputs[1].1.to_f32());
        assert_eq!(bits(&fused.run(&x).unwrap()), bits(&outputs[..1].to_vec()), "{name}");
        for (&y, &c) in y.iter().zip(&c) {
            assert!((f64::from(y) - curve(name, f64::from(c))).abs() <= 1e-6 * f64::from(c.abs().max(1.0)), "{name}");
        }
    }
}
