//! Clipped and asymmetric weights with their saturation part and bias: the bits that the series says, at the products of the terms
//! alone.

use fpxint::{Clip, Geometry, Layer, Rounding, Settings, Weight, expand_layer};

use crate::build::{int, ints, model, node, tensor, wave};
use crate::spec::specified;
use crate::{array, bits, feed, load, options};

const SIZE: [usize; 2] = [6, 7];

/// A convolution of 24 channels with one weight in sixty far beyond the others, the mean of all well above zero.
fn source(groups: i64, channels: i64) -> fpxint_onnx::Model {
    let dims = [channels, 24 / groups, 3, 3];
    let tail = |(i, w): (usize, f32)| 0.15 + if i % 60 == 7 { w.signum() * 3.0 } else { w };
    let weights: Vec<f32> =
        wave(dims.iter().product::<i64>() as usize, 1.1, 0.5).into_iter().enumerate().map(tail).collect();
    model(
        &[-1, 24, SIZE[0] as i64, SIZE[1] as i64],
        vec![node("Conv", &["x", "w", "b"], "y", vec![ints("pads", &[1, 1, 1, 1]), int("group", groups)])],
        vec![tensor("w", &dims, &weights), tensor("b", &[channels], &wave(channels as usize, 0.9, 0.2))],
    )
}

#[test]
fn outputs_are_the_bits_that_the_clipped_and_asymmetric_series_says() {
    let cases = [("int4x1", 1), ("int2x2", 2), ("int2x2", 1), ("int4x2", 2), ("int4x3", 2), ("int2x4", 3)];
    let image = array(&[1, 24, SIZE[0], SIZE[1]], 0.83);
    let nhwc: Vec<f32> = image.view().permuted_axes(ndarray::IxDyn(&[0, 2, 3, 1])).iter().copied().collect();
    let (mut beyond, mut biased) = (0, 0);
    for (groups, channels) in [(1, 5), (2, 6), (24, 24)] {
        let source = source(groups, channels);
        let layer: Layer = source.layer(0).unwrap();
        for (weights, terms) in cases {
            let (mse, laplace) = ((Rounding::Sum, Clip::Mse), (Rounding::Nearest, Clip::Laplace));
            for ((rounding, clip), asymmetric) in [(mse, false), (laplace, false), (laplace, true), (mse, true)] {
                let mut options = options(weights, "int4x2");
                (options.weight_terms, options.rounding, options.clip) = (Some(terms), rounding, clip);
                options.asymmetric = asymmetric;
                let (weights, activations) = (options.weights.unwrap(), options.activations.unwrap());
                let settings = Settings {
                    weights,
                    activations,
                    granularity: options.granularity,
                    rounding,
                    clip,
                    asymmetric,
                    activation_clip: Default::default(),
                };
                let series = expand_layer(&layer, &settings).unwrap().weight;
                beyond += series.saturation().len();
                biased += usize::from(!series.offsets().is_empty());
                let (want, _) = specified(&layer, &settings, terms, SIZE, &nhwc);
                let want: Vec<u32> = want.iter().map(|v| v.to_bits()).collect();
                for kernel in fpxint_kernels::available() {
                    options.kernel = Some(kernel.name().to_owned());
                    let loaded = load(&source, &options);
                    let y = loaded.run(&feed("x", image.clone())).unwrap()[0].1.to_f32();
                    let y: Vec<u32> =
                        y.view().permuted_axes(ndarray::IxDyn(&[0, 2, 3, 1])).iter().map(|v| v.to_bits()).collect();
                    assert_eq!(y, want, "{groups} groups, {weights} at {terms}, {clip:?}");
                    let limbs = (weights.bits() * terms).div_ceil(if groups == 24 { 16 } else { 8 });
                    assert_eq!(loaded.layers()[0].products, limbs, "{weights} at {terms}: neither costs a product");
                }
            }
        }
    }
    assert!(beyond > 0 && biased > 20, "nothing lies beyond the terms, or no weights are biased");
}

#[test]
fn an_artefact_with_a_saturation_part_runs_as_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(1, 5);
    let x = feed("x", array(&[2, 24, SIZE[0], SIZE[1]], 0.83));
    let cases = ["int4x1", "int2x2", "int2x4", "int4x2"].into_iter().flat_map(|w| [(w, false), (w, true)]);
    for (weights, asymmetric) in cases {
        let mut direct = options(weights, "int4x2");
        (direct.rounding, direct.clip, direct.asymmetric) = (Rounding::Sum, Clip::Mse, asymmetric);
        let settings = Settings {
            weights: direct.weights.unwrap(),
            activations: direct.activations.unwrap(),
            granularity: direct.granularity,
            rounding: direct.rounding,
            clip: direct.clip,
            asymmetric,
            activation_clip: Default::default(),
        };
        let expanded = expand_layer(&source.layer(0).unwrap(), &settings).unwrap();
        let path = folder.path().join("artefact.onnx");
        fpxint_onnx::write(&source, &[fpxint_onnx::encode(&expanded)], &path).unwrap();
        let artefact = fpxint_onnx::read(&path, &fpxint_onnx::Limits::default()).unwrap();
        assert_eq!(artefact.layer(0).unwrap().weight, Weight::Series(expanded.weight));
        assert!(matches!(&artefact.layers()[0].geometry, Geometry::Conv(_)));
        for terms in 1..=settings.weights.order() {
            direct.weight_terms = Some(terms);
            let stored = fpxint_runtime::Options { weights: None, activations: None, ..direct.clone() };
            let (a, b) = (load(&source, &direct).run(&x).unwrap(), load(&artefact, &stored).run(&x).unwrap());
            assert_eq!(bits(&a), bits(&b), "{weights} at {terms}");
        }
    }
}
