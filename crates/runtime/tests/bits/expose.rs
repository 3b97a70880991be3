//! Values handed out on the way: they change no bit of the outputs, and a layer alone computes what it does in its model.

use fpxint_runtime::{Float, Value, survey};
use ndarray::IxDyn;

use crate::{PRECISIONS, array, bits, feed, load, models, options};

/// What enters and leaves every layer.
fn ends(source: &fpxint_onnx::Model) -> Vec<String> {
    source.layers().iter().flat_map(|layer| [layer.input.clone(), layer.output.clone()]).collect()
}

#[test]
fn values_handed_out_change_no_bit_of_the_outputs() {
    for (mut source, input, shape) in models() {
        let x = feed(input, array(&[&[3], &shape[..]].concat(), 0.377));
        let plain = PRECISIONS.map(|(w, a)| bits(&load(&source, &options(w, a)).run(&x).unwrap()));
        let outputs = source.outputs().len();
        source.expose(&ends(&source)).unwrap();
        for ((weights, activations), want) in PRECISIONS.into_iter().zip(plain) {
            for kernel in fpxint_kernels::available() {
                let kernel = Some(kernel.name().to_owned());
                let options = fpxint_runtime::Options { kernel, ..options(weights, activations) };
                let got = load(&source, &options).run(&x).unwrap();
                assert!(got.len() > outputs);
                assert_eq!(bits(&got[..outputs].to_vec()), want, "{weights} by {activations}");
            }
        }
    }
}

#[test]
fn a_layer_alone_gives_what_it_gives_in_its_model() {
    for (mut source, input, shape) in models() {
        let x = feed(input, array(&[&[2], &shape[..]].concat(), 0.9));
        source.expose(&ends(&source)).unwrap();
        let all = Float::load(&source).unwrap().run(&x).unwrap();
        let value = |name: &str| all.iter().chain(&x).find(|(n, _)| n == name).unwrap().1.to_f32();
        for (index, layer) in source.layers().iter().enumerate() {
            let (mut x, y) = (value(&layer.input), value(&layer.output));
            if let fpxint::Geometry::MatMul(g) = &layer.geometry {
                let rows = x.len() / g.k;
                x = x.into_shape_with_order(IxDyn(&[rows, g.k])).unwrap();
            }
            let alone = Float::load(&source.alone(index).unwrap()).unwrap();
            let got = alone.run(&[("x".to_owned(), Value::F32(x))]).unwrap()[0].1.to_f32();
            let largest = y.iter().fold(0f32, |m, v| m.max(v.abs()));
            assert_eq!(got.len(), y.len(), "{}", layer.name);
            assert!(got.iter().zip(&y).all(|(a, b)| (a - b).abs() <= 1e-5 * largest), "{}", layer.name);
        }
    }
}

#[test]
fn the_values_of_both_runs_lie_close() {
    for (mut source, input, shape) in models() {
        let x = feed(input, array(&[&[2], &shape[..]].concat(), 0.61));
        source.expose(&ends(&source)).unwrap();
        let exact = Float::load(&source).unwrap().run(&x).unwrap();
        let got = load(&source, &options("int8x3", "int8x3")).run(&x).unwrap();
        assert_eq!(got.len(), exact.len());
        for ((name, a), (other, b)) in exact.iter().zip(&got) {
            let (a, b) = (a.to_f32(), b.to_f32());
            let largest = a.iter().fold(0f32, |m, v| m.max(v.abs()));
            assert_eq!((name, a.shape()), (other, b.shape()));
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 2e-5 * largest), "{name}");
        }
    }
}

#[test]
fn a_survey_lists_what_the_loaded_model_leaves_to_the_host() {
    let mut kinds = 0;
    for (source, ..) in models() {
        let left = survey(&source).unwrap().left_to_tract;
        assert_eq!(left, load(&source, &options("int4x2", "int4x2")).left_to_tract());
        kinds += left.len();
    }
    assert!(kinds > 0, "some node is the host's");
}
