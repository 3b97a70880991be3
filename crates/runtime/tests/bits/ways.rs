//! Other ways to expand layers and to quantise activations: what a caller's expansion gives, and symmetric ranges.

use std::sync::Arc;

use fpxint::{Series, Settings, Weight, into_expanded};
use fpxint_runtime::{Expansion, Options};
use ndarray::{Array2, Axis, concatenate};

use crate::build::{model, node, tensor, wave};
use crate::{array, bits, feed, load, models, options};

#[test]
fn an_expansion_takes_the_place_of_the_usual_one() {
    for (source, input, shape) in models() {
        let x = feed(input, array(&[&[2], &shape[..]].concat(), 0.43));
        let usual = options("int4x2", "int4x2");
        let want = bits(&load(&source, &usual).run(&x).unwrap());
        let run = |expansion| {
            let options = Options { expansion: Some(Expansion(expansion)), ..usual.clone() };
            bits(&load(&source, &options).run(&x).unwrap())
        };
        assert_eq!(run(Arc::new(|_, layer, settings: &Settings| into_expanded(layer, settings))), want);
        let coarser = run(Arc::new(|_, layer, settings: &Settings| {
            let weights = "int2x1".parse()?;
            into_expanded(layer, &Settings { weights, ..*settings })
        }));
        assert_eq!(coarser, bits(&load(&source, &options("int2x1", "int4x2")).run(&x).unwrap()));
        assert_ne!(coarser, want);
    }
}

#[test]
fn an_expansion_knows_the_layer_by_its_index() {
    for (source, ..) in models() {
        let names: Vec<String> = source.layers().iter().map(|layer| layer.name.clone()).collect();
        let expand = move |index: usize, layer: fpxint::Layer, settings: &Settings| {
            assert_eq!(layer.name, names[index]);
            assert!(matches!(layer.weight, Weight::Float(_)));
            let expanded = into_expanded(layer, settings)?;
            assert!(Series::q(&expanded.weight).len() > 1);
            Ok(expanded)
        };
        load(&source, &Options { expansion: Some(Expansion(Arc::new(expand))), ..options("int4x2", "int4x2") });
    }
}

const ROWS: usize = 3;
const DEPTH: usize = 40;
const CHANNELS: usize = 5;

/// `x W`, the depth filled up with weights of zero.
fn product(zeros: usize) -> fpxint_onnx::Model {
    let mut weights = wave(DEPTH * CHANNELS, 0.71, 0.4);
    weights.extend(vec![0.0; zeros * CHANNELS]);
    let depth = (DEPTH + zeros) as i64;
    model(
        &[-1, depth],
        vec![node("MatMul", &["x", "w"], "y", vec![])],
        vec![tensor("w", &[depth, CHANNELS as i64], &weights)],
    )
}

#[test]
fn a_symmetric_range_is_that_of_the_largest_magnitude() {
    for sign in [1.0, -1.0] {
        let x = Array2::from_shape_vec((ROWS, DEPTH), wave(ROWS * DEPTH, 0.377, 2.0))
            .unwrap()
            .mapv(|v| sign * (v.abs() + 0.1));
        // A last input that multiplies zero, and makes the range symmetric.
        let other =
            x.map_axis(Axis(1), |row| -sign * row.iter().fold(0f32, |m, v| m.max(v.abs()))).insert_axis(Axis(1));
        let wider = concatenate(Axis(1), &[x.view(), other.view()]).unwrap();
        for precision in ["int4x1", "int4x2", "int8x2"] {
            let usual = options("int4x2", precision);
            let symmetric = Options { symmetric: true, ..usual.clone() };
            let run = |zeros, x: &Array2<f32>, options| {
                bits(&load(&product(zeros), options).run(&feed("x", x.clone().into_dyn())).unwrap())
            };
            let want = run(1, &wider, &usual);
            assert_eq!(run(0, &x, &symmetric), want, "{precision}");
            assert_ne!(run(0, &x, &usual), want, "{precision}");
            assert_eq!(run(1, &wider, &symmetric), want, "{precision}");
        }
    }
}

#[test]
fn a_range_that_is_not_finite_turns_nan_when_symmetric_too() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = array(&[2, DEPTH], 0.377);
        x[[0, 3]] = bad;
        let symmetric = Options { symmetric: true, ..options("int4x2", "int4x2") };
        let y = load(&product(0), &symmetric).run(&feed("x", x)).unwrap()[0].1.to_f32();
        assert!(y.index_axis(Axis(0), 0).iter().all(|v| v.is_nan()), "{bad}: {y}");
        assert!(y.index_axis(Axis(0), 1).iter().all(|v| v.is_finite()), "{bad}: {y}");
    }
}
