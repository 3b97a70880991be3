//! Matrix products of rotated rows: the bits that the specification says, near to what they are without.

use fpxint::{ActivationClip, Geometry, Layer, MatMulGeometry, Rotation, Saturated, Settings, Weight, expand_layer};
use fpxint_onnx::Model;
use fpxint_runtime::Options;
use ndarray::{ArrayD, IxDyn};

use crate::build::{int, integers, model, node, tensor, wave};
use crate::spec::with_outliers;
use crate::{array, bits, feed, load, options};

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

/// A product and its rotation.
struct Case {
    rotation: Rotation,
    geometry: MatMulGeometry,
    /// As it is, and rotated.
    original: Layer,
    layer: Layer,
}

impl Case {
    /// The output of every channel for a row, by the specification; each must be within its bound.
    fn specified(&self, x: &[f32], settings: &Settings) -> Vec<f32> {
        let (&MatMulGeometry { k, n, .. }, b) = (&self.geometry, self.rotation.block());
        let (w, turned) = (float_weights(&self.original), float_weights(&self.layer));
        let series = expand_layer(&self.layer, settings).unwrap().weight;
        let (order, bias) = (settings.weights.order(), self.layer.bias.as_ref().unwrap());
        let prefix = series.prefix("w", order).unwrap();
        let values: Vec<f64> = series.values("w", order).unwrap().collect();
        let mean = |c: usize| prefix.means.get(c).copied().unwrap_or(0);
        let weight = |i: usize, c: usize| (i64::from(prefix.q[i * n + c]) << prefix.shift) + mean(c);
        let mut row = x.to_vec();
        self.rotation.turn(&mut row);
        let saturated = Saturated::new(&row, settings.activations, settings.activation_clip);
        let codes = saturated.integers();
        // What the sums and differences of every block lose.
        let (ulp, scale) = (2f64.powi(-24), f64::from(self.rotation.factors()[0].abs()));
        let of_block = |block: &[f32]| block.iter().map(|x| f64::from(x.abs())).sum::<f64>() * scale;
        let lost: Vec<f64> = x.chunks(b).map(|block| f64::from(b.ilog2()) * ulp * of_block(block)).collect();
        let output = |c: usize| {
            let sum = (0..k).map(|i| codes[i] * weight(i, c)).sum::<i64>() as f32;
            let y = (sum * saturated.grid.scale).mul_add(prefix.units[c], bias[c]);
            let (mut exact, mut bound) = (f64::from(bias[c]), 1e-5);
            for i in 0..k {
                let (at, value, turned) = (i * n + c, f64::from(row[i]).abs(), f64::from(turned[i * n + c]).abs());
                exact += f64::from(x[i]) * f64::from(w[at]);
                bound += series.bound(order, c) * value + values[at].abs() * saturated.bound();
                bound += ulp * turned * value + lost[i / b] * turned;
            }
            assert!((f64::from(y) - exact).abs() <= bound, "{k} x {n}: {y} for {exact} +- {bound}");
            y
        };
        (0..n).map(output).collect()
    }
}

#[test]
fn outputs_are_the_bits_that_the_turned_rows_and_weights_say_and_within_their_bounds() {
    for (k, n, block) in [(48, 5, 16), (128, 33, 128), (192, 7, 64), (384, 4, 128)] {
        let (plain, rotation) = (product(k as i64, n as i64), Rotation::of(k).unwrap());
        let source = plain.rotated(None);
        assert_eq!((rotation.block(), source.layers()[0].rotation), (block, Some(rotation)));
        let geometry = MatMulGeometry { k, n, transposed: false };
        let case = Case { rotation, geometry, original: plain.layer(0).unwrap(), layer: source.layer(0).unwrap() };
        assert_eq!(case.layer.geometry, Geometry::MatMul(case.geometry.clone()));
        assert_eq!(float_weights(&case.layer), rotation.weights(&case.geometry, float_weights(&case.original)));
        let x = with_outliers(wave(3 * k, 0.83, 2.0));
        for (weights, activations) in [("int4x2", "int4x2"), ("int2x3", "int4x3"), ("int8x1", "int4x1")] {
            for (clip, asymmetric) in [(ActivationClip::None, false), (ActivationClip::Laplace, true)] {
                let options = Options { activation_clip: Some(clip), asymmetric, ..options(weights, activations) };
                let rows = x.chunks(k).flat_map(|x| case.specified(x, &settings(&options)));
                let want: Vec<u32> = rows.map(f32::to_bits).collect();
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
fn rows_whose_depth_is_open_are_rotated_where_they_fit() {
    let weights = tensor("w", &[48, 5], &wave(240, 1.1, 0.5));
    let open = |dims: &[i64]| model(dims, vec![node("MatMul", &["x", "w"], "y", vec![])], vec![weights.clone()]);
    let loaded = |dims: &[i64]| load(&open(dims).rotated(None), &options("int4x2", "int4x2"));
    let run = |model: &fpxint_runtime::Model, shape: &[usize]| model.run(&feed("x", array(shape, 0.3)));
    let (known, unknown) = (loaded(&[-1, 48]), loaded(&[-1, -2]));
    assert_eq!(bits(&run(&unknown, &[3, 48]).unwrap()), bits(&run(&known, &[3, 48]).unwrap()));
    for depth in [24, 64] {
        let error = run(&unknown, &[3, depth]).unwrap_err().to_string();
        assert!(error.contains("y_node") || error.contains("rotated"), "{error}");
    }
}

#[test]
fn means_of_rotated_rows_do_not_depend_on_how_an_array_lies() {
    let (source, x) = (product(96, 4).rotated(None), array(&[5, 96], 0.83));
    let turned = x.clone().reversed_axes().as_standard_layout().into_owned().reversed_axes();
    assert!(!turned.is_standard_layout() && turned == x);
    let means = |x: ArrayD<f32>| {
        let runs = [feed("x", x)];
        fpxint_runtime::input_means(&source, [&runs, &runs], 1, &|_, _| {}).unwrap()
    };
    let found = means(x.clone());
    assert_eq!(found, means(turned));
    let mut first = vec![0.0; 96];
    for row in x.rows() {
        let mut row = row.to_vec();
        Rotation::of(96).unwrap().turn(&mut row);
        first.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(x) / 5.0);
    }
    assert!(first.iter().zip(&found[0].kinds[0]).all(|(want, mean)| (want - mean).abs() < 1e-9), "{found:?}");
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
