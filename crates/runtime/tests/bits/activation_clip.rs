//! Clipped activations with their saturation part: the bits that the specification says, however a model is run.

use fpxint::{ActivationClip, Layer, Settings};
use fpxint_runtime::{Crew, Model, Options, Sharing};
use ndarray::{ArrayD, Axis, IxDyn, Slice};

use crate::build::{int, ints, model, node, tensor, wave};
use crate::group::{channels_at_once, terms_at_once};
use crate::spec::{specified, with_outliers};
use crate::{bits, feed, load, models, options};

const SIZE: [usize; 2] = [6, 7];

/// An input of which some values lie far beyond the others.
fn outlying(shape: &[usize], step: f32) -> ArrayD<f32> {
    ArrayD::from_shape_vec(IxDyn(shape), with_outliers(wave(shape.iter().product(), step, 2.0))).unwrap()
}

fn clipped(weights: &str, activations: &str) -> Options {
    Options { activation_clip: Some(ActivationClip::Laplace), ..options(weights, activations) }
}

fn clips(model: &Model) -> bool {
    model.activations_beyond().iter().flatten().any(|&share| share > 0.0)
}

fn source(groups: i64, channels: i64) -> fpxint_onnx::Model {
    let dims = [channels, 24 / groups, 3, 3];
    let weights = wave(dims.iter().product::<i64>() as usize, 1.1, 0.5);
    model(
        &[-1, 24, SIZE[0] as i64, SIZE[1] as i64],
        vec![node("Conv", &["x", "w", "b"], "y", vec![ints("pads", &[1, 1, 1, 1]), int("group", groups)])],
        vec![tensor("w", &dims, &weights), tensor("b", &[channels], &wave(channels as usize, 0.9, 0.2))],
    )
}

#[test]
fn outputs_are_the_bits_that_the_saturated_activations_say() {
    let cases = [
        ("int4x2", 2, "int4x2"),
        ("int2x4", 2, "int4x2"),
        ("int4x3", 3, "int4x3"),
        ("int8x2", 1, "int8x2"),
        ("int8x1", 1, "int2x2"),
    ];
    let image = outlying(&[1, 24, SIZE[0], SIZE[1]], 0.83);
    let nhwc: Vec<f32> = image.view().permuted_axes(IxDyn(&[0, 2, 3, 1])).iter().copied().collect();
    for (groups, channels) in [(1, 5), (2, 6), (24, 24)] {
        let source = source(groups, channels);
        let layer: Layer = source.layer(0).unwrap();
        for (weights, terms, activations) in cases {
            let mut options = clipped(weights, activations);
            options.weight_terms = Some(terms);
            let settings = Settings {
                weights: options.weights.unwrap(),
                activations: options.activations.unwrap(),
                granularity: options.granularity,
                rounding: options.rounding,
                clip: options.clip,
                asymmetric: false,
                activation_clip: ActivationClip::Laplace,
            };
            let (want, _) = specified(&layer, &settings, terms, SIZE, &nhwc);
            let want: Vec<u32> = want.iter().map(|v| v.to_bits()).collect();
            for kernel in fpxint_kernels::available() {
                options.kernel = Some(kernel.name().to_owned());
                let loaded = load(&source, &options);
                let y = loaded.run(&feed("x", image.clone())).unwrap()[0].1.to_f32();
                let y = y.view().permuted_axes(IxDyn(&[0, 2, 3, 1])).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!(y, want, "{groups} groups, {weights} at {terms}, {activations}, {}", kernel.name());
                assert!(clips(&loaded), "{weights}, {activations}");
            }
        }
    }
}

#[test]
fn every_kernel_thread_count_and_batch_split_gives_the_same_bits_when_clipped() {
    for (source, input, shape) in models() {
        for (weights, activations) in [("int4x2", "int4x2"), ("int4x3", "int4x3")] {
            let x = outlying(&[&[3], &shape[..]].concat(), 0.37);
            let options = clipped(weights, activations);
            let model = load(&source, &options);
            let want = bits(&model.run(&feed(input, x.clone())).unwrap());
            // What is rotated has no values far out.
            let has_none = shape.iter().product::<usize>() < 200 || source.layers()[0].rotation.is_some();
            assert!(clips(&model) || has_none, "nothing is clipped: {shape:?}");
            for kernel in fpxint_kernels::available() {
                for threads in [1, 2, 3] {
                    let options = Options { kernel: Some(kernel.name().to_owned()), threads, ..options.clone() };
                    let got = bits(&load(&source, &options).run(&feed(input, x.clone())).unwrap());
                    assert_eq!(got, want, "{} {threads} threads, {weights}", kernel.name());
                }
            }
            let alone = |i: usize| {
                let one = x.slice_axis(Axis(0), Slice::from(i..i + 1)).to_owned();
                bits(&model.run(&feed(input, one)).unwrap())
            };
            assert_eq!((0..3).flat_map(alone).collect::<Vec<_>>(), want, "{weights}");
        }
    }
}

#[test]
fn a_clip_brings_outputs_nearer_to_fp32_where_values_lie_far_out() {
    let (source, x) = (source(1, 5), outlying(&[2, 24, SIZE[0], SIZE[1]], 0.83));
    let exact = fpxint_runtime::Float::load(&source).unwrap().run(&feed("x", x.clone())).unwrap()[0].1.to_f32();
    let error = |options: &Options| {
        let y = load(&source, options).run(&feed("x", x.clone())).unwrap()[0].1.to_f32();
        y.iter().zip(&exact).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
    };
    let (plain, clipped) = (error(&options("int8x2", "int4x2")), error(&clipped("int8x2", "int4x2")));
    assert!(clipped < 0.2 * plain, "{clipped:.3e} of {plain:.3e}");
}

#[test]
fn workers_share_what_lies_beyond_with_their_terms() {
    for (groups, channels) in [(1, 5), (2, 6), (24, 24)] {
        let (source, x) = (source(groups, channels), feed("x", outlying(&[2, 24, SIZE[0], SIZE[1]], 0.83)));
        for options in [clipped("int2x4", "int4x2"), clipped("int4x2", "int4x2")] {
            let alone = load(&source, &options);
            let want = bits(&alone.run(&x).unwrap());
            assert!(alone.activations_beyond()[0].is_some_and(|share| share > 0.0));
            for workers in [2, 3, 5] {
                for threads in [1, 3] {
                    let sharing = Sharing::Crew(Crew::of(workers));
                    let model = load(&source, &Options { sharing, threads, ..options.clone() });
                    assert_eq!(bits(&model.run(&x).unwrap()), want, "{workers} workers, {threads} threads");
                }
                for tiles in [1, 3] {
                    assert_eq!(
                        terms_at_once(&source, &options, &x, (workers, tiles)),
                        want,
                        "{workers}, {tiles} tiles"
                    );
                }
                assert_eq!(channels_at_once(&source, &options, &x, workers), want, "{workers} workers");
            }
        }
    }
}

#[test]
fn an_artefact_states_the_clip_of_its_activations() {
    let folder = tempfile::tempdir().unwrap();
    let (source, x) = (source(1, 5), feed("x", outlying(&[2, 24, SIZE[0], SIZE[1]], 0.83)));
    let direct = clipped("int4x2", "int4x2");
    let settings = Settings {
        weights: direct.weights.unwrap(),
        activations: direct.activations.unwrap(),
        granularity: direct.granularity,
        rounding: direct.rounding,
        clip: direct.clip,
        asymmetric: false,
        activation_clip: ActivationClip::Laplace,
    };
    let expanded = fpxint::expand_layer(&source.layer(0).unwrap(), &settings).unwrap();
    let path = folder.path().join("artefact.onnx");
    fpxint_onnx::write(&source, &[fpxint_onnx::encode(&expanded)], &path).unwrap();
    let artefact = fpxint_onnx::read(&path, &fpxint_onnx::Limits::default()).unwrap();
    let stated = Options { weights: None, activations: None, activation_clip: None, ..direct.clone() };
    let (want, got) = (load(&source, &direct).run(&x).unwrap(), load(&artefact, &stated).run(&x).unwrap());
    assert_eq!(bits(&got), bits(&want));
    let other = Options { activation_clip: Some(ActivationClip::None), ..stated };
    let plain = load(&source, &options("int4x2", "int4x2")).run(&x).unwrap();
    assert_eq!(bits(&load(&artefact, &other).run(&x).unwrap()), bits(&plain));
    assert_ne!(bits(&plain), bits(&want));
}

#[test]
fn a_non_finite_image_turns_nan_alone_when_others_are_clipped() {
    let source = source(1, 5);
    let model = load(&source, &clipped("int4x2", "int4x2"));
    let mut x = outlying(&[3, 24, SIZE[0], SIZE[1]], 0.83);
    let clean = bits(&model.run(&feed("x", x.clone())).unwrap());
    x.index_axis_mut(Axis(0), 1).as_slice_mut().unwrap()[7] = f32::INFINITY;
    let got = bits(&model.run(&feed("x", x)).unwrap());
    let image = got.len() / 3;
    assert_eq!((&got[..image], &got[2 * image..]), (&clean[..image], &clean[2 * image..]));
    assert!(got[image..2 * image].iter().all(|&b| f32::from_bits(b).is_nan()));
}
