//! Matrix products of rotated rows: the bits that the specification says, near to what they are without.

use fpxint::{ActivationClip, Geometry, Layer, MatMulGeometry, Rotation, Saturated, Settings, Weight, expand_layer};
use fpxint_onnx::Model;
use fpxint_runtime::Options;
use ndarray::{ArrayD, IxDyn};

use crate::build::{int, integers, model, node, tensor, wave};
use crate::spec::with_outliers;
use crate::{bits, feed, load, options};

/// Rows that three products share, one of what they make together, and one whose depth has blocks of another size.
fn rows() -> Model {
    let weights =
        |name: &str, dims: &[i64]| tensor(name, dims, &wave(dims.iter().product::<i64>() as usize, 0.71, 0.4));
    model(
        &[-1, 5, 48],
        vec![
            node("MatMul", &["x", "q"], "a", vec![]),
            node("MatMul", &["x", "k"], "b", vec![]),
            node("MatMul", &["x", "v"], "c", vec![]),
            node("Add", &["a", "bias"], "d", vec![]),
            node("Mul", &["d", "b"], "e", vec![]),
            node("Add", &["e", "c"], "f", vec![]),
            node("Relu", &["f"], "g", vec![]),
            node("MatMul", &["g", "o"], "h", vec![]),
            node("Add", &["h", "x"], "i", vec![]),
            node("Reshape", &["i", "flat"], "j", vec![]),
            node("Gemm", &["j", "w"], "y", vec![int("transB", 1)]),
        ],
        vec![
            weights("q", &[48, 96]),
            weights("k", &[48, 96]),
            weights("v", &[48, 96]),
            weights("bias", &[96]),
            weights("o", &[96, 48]),
            weights("w", &[7, 240]),
            integers("flat", &[-1, 240]),
        ],
    )
}

/// The same, rotated.
pub(crate) fn turned() -> Model {
    let turned = rows().rotated(None);
    let blocks: Vec<_> = turned.layers().iter().map(|layer| layer.rotation.map(Rotation::block)).collect();
    assert_eq!(blocks, [Some(16), Some(16), Some(16), Some(32), Some(16)]);
    turned
}

/// A product alone.
fn product(k: i64, n: i64) -> Model {
    let weights = tensor("w", &[k, n], &wave((k * n) as usize, 1.1, 0.5));
    let bias = tensor("b", &[n], &wave(n as usize, 0.9, 0.2));
    let nodes = vec![node("MatMul", &["x", "w"], "p", vec![]), node("Add", &["p", "b"], "y", vec![])];
    model(&[-1, k], nodes, vec![weights, bias])
}

fn settings(options: &Options) -> Settings {
    Settings {
        weights: options.weights.unwrap(),
        activations: options.activations.unwrap(),
        granularity: options.granularity,
        rounding: options.rounding,
        clip: options.clip,
        asymmetric: options.asymmetric,
        activation_clip: options.activation_clip.unwrap_or_default(),
    }
}

fn float_weights(layer: &Layer) -> &[f32] {
    let Weight::Float(values) = &layer.weight else { panic!("a float model") };
    values
}

#[test]
fn outputs_are_the_bits_that_the_turned_rows_and_weights_say_and_within_their_bounds() {
    for (k, n, block) in [(48, 5, 16), (128, 33, 128), (192, 7, 64), (384, 4, 128)] {
        let (plain, geometry) = (product(k as i64, n as i64), MatMulGeometry { k, n, transposed: false });
        let (source, rotation) = (plain.rotated(None), Rotation::of(k).unwrap());
        assert_eq!((rotation.block(), source.layers()[0].rotation), (block, Some(rotation)));
        let (layer, original) = (source.layer(0).unwrap(), plain.layer(0).unwrap());
        assert_eq!(layer.geometry, Geometry::MatMul(geometry.clone()));
        let w = float_weights(&original);
        assert_eq!(float_weights(&layer), rotation.weights(&geometry, w));
        let x = with_outliers(wave(3 * k, 0.83, 2.0));
        let clips = [ActivationClip::None, ActivationClip::Laplace];
        for (weights, activations) in [("int4x2", "int4x2"), ("int2x3", "int4x3"), ("int8x1", "int4x1")] {
            for (activation_clip, asymmetric) in clips.into_iter().zip([false, true]) {
                let activation_clip = Some(activation_clip);
                let options = Options { activation_clip, asymmetric, ..options(weights, activations) };
                let settings = settings(&options);
                let series = expand_layer(&layer, &settings).unwrap().weight;
                let (order, bias) = (settings.weights.order(), layer.bias.as_ref().unwrap());
                let (prefix, values) = (series.prefix("w", order).unwrap(), series.values("w", order).unwrap());
                let values: Vec<f64> = values.collect();
                let mean = |c: usize| prefix.means.get(c).copied().unwrap_or(0);
                let mut want = Vec::new();
                for x in x.chunks(k) {
                    let mut row = x.to_vec();
                    rotation.turn(&mut row);
                    let saturated = Saturated::new(&row, settings.activations, settings.activation_clip);
                    let codes = saturated.integers();
                    for c in 0..n {
                        let weight = |i: usize| (i64::from(prefix.q[i * n + c]) << prefix.shift) + mean(c);
                        let sum = (0..k).map(|i| codes[i] * weight(i)).sum::<i64>() as f32;
                        let y = (sum * saturated.grid.scale).mul_add(prefix.units[c], bias[c]);
                        want.push(y.to_bits());
                        // Given its actual input, in f64: what weights and activations err, and the roundings to f32.
                        let (mut exact, mut bound) = (f64::from(bias[c]), 1e-5);
                        for i in 0..k {
                            exact += f64::from(x[i]) * f64::from(w[i * n + c]);
                            bound += series.bound(order, c) * f64::from(row[i]).abs()
                                + values[i * n + c].abs() * (saturated.bound() + 2e-6 * f64::from(row[i]).abs());
                        }
                        assert!(
                            (f64::from(y) - exact).abs() <= bound,
                            "{k} x {n}, {weights}: {y} for {exact} +- {bound}"
                        );
                    }
                }
                for kernel in fpxint_kernels::available() {
                    let options = Options { kernel: Some(kernel.name().to_owned()), ..options.clone() };
                    let x = ArrayD::from_shape_vec(IxDyn(&[3, k]), x.clone()).unwrap();
                    let y = bits(&load(&source, &options).run(&feed("x", x)).unwrap());
                    assert_eq!(y, want, "{k} x {n}, {weights}, {activations}, {}", kernel.name());
                }
            }
        }
    }
}

#[test]
fn a_rotation_brings_outputs_nearer_to_fp32_where_values_lie_far_out() {
    let plain = product(96, 8);
    let x = ArrayD::from_shape_vec(IxDyn(&[10, 96]), with_outliers(wave(960, 0.83, 2.0))).unwrap();
    let exact = fpxint_runtime::Float::load(&plain).unwrap().run(&feed("x", x.clone())).unwrap()[0].1.to_f32();
    let error = |source: &Model, activations: &str| {
        let y = load(source, &options("int8x2", activations)).run(&feed("x", x.clone())).unwrap()[0].1.to_f32();
        y.iter().zip(&exact).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
    };
    let turned = plain.rotated(None);
    assert!(error(&turned, "int4x2") < 0.5 * error(&plain, "int4x2"));
    // Sixteen bits leave nothing to gain, and the rotation loses nothing.
    assert!(error(&turned, "int8x2") < 1e-7 * exact.iter().map(|y| f64::from(*y).powi(2)).sum::<f64>());
}

#[test]
fn a_row_that_is_not_finite_is_nan_alone() {
    for odd in [f32::NAN, f32::INFINITY] {
        let mut x = wave(3 * 128, 0.83, 2.0);
        x[130] = odd;
        let x = ArrayD::from_shape_vec(IxDyn(&[3, 128]), x).unwrap();
        let model = load(&product(128, 6).rotated(None), &options("int4x2", "int4x2"));
        let y = model.run(&feed("x", x)).unwrap()[0].1.to_f32();
        assert!(y.iter().enumerate().all(|(i, y)| y.is_nan() == (6..12).contains(&i)), "{y}");
    }
}
