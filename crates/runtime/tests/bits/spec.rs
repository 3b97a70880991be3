//! A layer's output against the specification: integers of the series and the grid, then the stated roundings, in plain code.

use fpxint::{ActivationClip, Geometry, Granularity, Layer, Saturated, Series, Settings, expand_layer};
use fpxint_reference::{Convolution, convolution};

use crate::build::{int, ints, model, node, tensor, wave};
use crate::{array, feed, load, options};

const SIZE: [usize; 2] = [6, 7];

/// `relu(conv(x) + r)` with `r` another convolution of `x`, so that bias, residual and clamp all take part.
fn source(groups: i64, channels: i64) -> fpxint_onnx::Model {
    let dims = [channels, 4 / groups, 3, 3];
    let len = dims.iter().product::<i64>() as usize;
    model(
        &[-1, 4, SIZE[0] as i64, SIZE[1] as i64],
        vec![
            node("Conv", &["x", "w", "b"], "a", vec![ints("pads", &[1, 1, 1, 1]), int("group", groups)]),
            node("Conv", &["x", "v"], "r", vec![]),
            node("Add", &["a", "r"], "s", vec![]),
            node("Relu", &["s"], "y", vec![]),
        ],
        vec![
            tensor("w", &dims, &wave(len, 1.1, 0.5)),
            tensor("b", &[channels], &wave(channels as usize, 0.9, 0.2)),
            tensor("v", &[channels, 4, 1, 1], &wave(4 * channels as usize, 0.3, 0.3)),
        ],
    )
}

/// Exact integer sums of one image and the layer's outputs before residual and clamp, NHWC.
pub(crate) fn specified(
    layer: &Layer,
    settings: &Settings,
    terms: u32,
    size: [usize; 2],
    x: &[f32],
) -> (Vec<f32>, Vec<f64>) {
    let Geometry::Conv(g) = &layer.geometry else { panic!("a convolution") };
    let series: Series = expand_layer(layer, settings).unwrap().weight;
    let prefix = series.prefix("w", terms).unwrap();
    let saturated = Saturated::new(x, settings.activations, settings.activation_clip);
    let (grid, codes) = (saturated.grid, saturated.integers());
    let channels = series.channels();
    let mean = |i: usize| prefix.means.get(channels.of(i)).copied().unwrap_or(0);
    let q: Vec<i64> = prefix.q.iter().enumerate().map(|(i, &q)| (i64::from(q) << prefix.shift) + mean(i)).collect();
    let shape = Convolution {
        input: size,
        channels_in: g.channels_in,
        channels_out: g.channels_out,
        groups: g.groups,
        kernel: g.kernel,
        strides: g.strides,
        dilations: g.dilations,
        pads: g.pads(size),
    };
    let sums = convolution(&shape, &codes, &q);
    let bias = |c: usize| layer.bias.as_ref().map_or(0.0, |b| b[c]);
    let rounded = |(i, &sum): (usize, &i64)| {
        let c = i % g.channels_out;
        (sum as f32 * grid.scale).mul_add(prefix.units[c], bias(c))
    };
    let exact = |(i, &sum): (usize, &i64)| {
        let c = i % g.channels_out;
        sum as f64 * f64::from(grid.scale) * f64::from(prefix.units[c]) + f64::from(bias(c))
    };
    (sums.iter().enumerate().map(rounded).collect(), sums.iter().enumerate().map(exact).collect())
}

/// Values of which one in 150 is far beyond the others.
pub(crate) fn with_outliers(mut x: Vec<f32>) -> Vec<f32> {
    x.iter_mut().enumerate().filter(|(i, _)| i % 150 == 78).for_each(|(_, v)| *v = 41.0 * v.signum() + 20.0 * *v);
    x
}

#[test]
fn outputs_are_the_bits_that_the_series_says() {
    let cases = [
        ("int4x2", "int4x2", 2),
        ("int2x4", "int4x3", 4),
        ("int2x4", "int4x2", 2),
        ("int8x2", "int8x2", 1),
        ("int4x3", "int2x2", 2),
    ];
    for (groups, channels) in [(1, 5), (2, 6), (4, 4)] {
        let source = source(groups, channels);
        let granularities = [Granularity::Channel, Granularity::Group(1), Granularity::Group(3)];
        let cases = granularities.iter().flat_map(|&granularity| cases.map(|case| (granularity, case)));
        for (granularity, (weights, activations, terms)) in cases {
            let mut options = options(weights, activations);
            options.weight_terms = Some(terms);
            options.granularity = granularity;
            let settings = Settings {
                weights: options.weights.unwrap(),
                activations: options.activations.unwrap(),
                granularity: options.granularity,
                rounding: options.rounding,
                clip: options.clip,
                asymmetric: false,
                activation_clip: Default::default(),
            };
            let image = array(&[1, 4, SIZE[0], SIZE[1]], 0.83);
            let nhwc: Vec<f32> = image.view().permuted_axes(ndarray::IxDyn(&[0, 2, 3, 1])).iter().copied().collect();
            let layers: Vec<Layer> = (0..2).map(|i| source.layer(i).unwrap()).collect();
            let named = |name: &str| layers.iter().find(|l| l.name == name).unwrap();
            let (a, exact) = specified(named("a_node"), &settings, terms, SIZE, &nhwc);
            let (r, _) = specified(named("r_node"), &settings, terms, SIZE, &nhwc);
            let want = |(a, r): (&f32, &f32)| if a + r < 0.0 { 0.0 } else { a + r };
            let want: Vec<u32> = a.iter().zip(&r).map(|pair| want(pair).to_bits()).collect();

            let outputs = load(&source, &options).run(&feed("x", image)).unwrap();
            let y = outputs[0].1.to_f32();
            let y: Vec<f32> = y.view().permuted_axes(ndarray::IxDyn(&[0, 2, 3, 1])).iter().copied().collect();
            let got: Vec<u32> = y.iter().map(|v| v.to_bits()).collect();
            assert_eq!(got, want, "{groups} groups, {granularity:?}, {weights} at {terms} terms, {activations}");
            for (a, exact) in a.iter().zip(&exact) {
                assert!(
                    (f64::from(*a) - exact).abs() <= exact.abs() * 3e-7 + 1e-7,
                    "three roundings from the exact sum"
                );
            }
        }
    }
}

#[test]
fn the_output_error_stays_within_the_stated_bounds() {
    let source = source(1, 5);
    let layer = source.layer(0).unwrap();
    let fpxint::Weight::Float(w) = &layer.weight else { panic!("a float model") };
    let x = with_outliers(wave(4 * SIZE[0] * SIZE[1], 0.83, 2.0));
    let clips = [ActivationClip::None, ActivationClip::Laplace];
    let precisions = [("int4x2", "int4x2"), ("int2x3", "int4x3"), ("int8x2", "int8x2")];
    for ((weights, activations), activation_clip) in precisions.iter().flat_map(|p| clips.map(|clip| (p, clip))) {
        // Both at once: the bounds hold for either.
        let asymmetric = activation_clip != ActivationClip::None;
        let o = options(weights, activations);
        let settings = Settings {
            weights: o.weights.unwrap(),
            activations: o.activations.unwrap(),
            granularity: o.granularity,
            rounding: o.rounding,
            clip: o.clip,
            asymmetric,
            activation_clip,
        };
        let series = expand_layer(&layer, &settings).unwrap().weight;
        let order = settings.weights.order();
        for terms in 1..=order {
            let (_, y) = specified(&layer, &settings, terms, SIZE, &x);
            let expanded: Vec<f64> = series.values("w", terms).unwrap().collect();
            let saturated = Saturated::new(&x, settings.activations, activation_clip);
            assert_eq!(saturated.beyond.is_empty(), activation_clip == ActivationClip::None);
            let step = saturated.bound();
            // The centre pixel, whose window lies within the image: y = sum w x + b.
            let (row, column) = (3usize, 3usize);
            for c in 0..5 {
                let (mut want, mut bound) = (f64::from(layer.bias.as_ref().unwrap()[c]), 1e-9);
                for k in 0..36 {
                    let (channel, ky, kx) = (k / 9, k / 3 % 3, k % 3);
                    let value = f64::from(x[((row + ky - 1) * SIZE[1] + column + kx - 1) * 4 + channel]);
                    want += f64::from(w[c * 36 + k]) * value;
                    bound += series.bound(terms, c) * value.abs() + expanded[c * 36 + k].abs() * step;
                }
                let got = y[(row * SIZE[1] + column) * 5 + c];
                assert!((got - want).abs() <= bound, "{weights} at {terms}: {} of {bound}", (got - want).abs());
            }
        }
    }
}
