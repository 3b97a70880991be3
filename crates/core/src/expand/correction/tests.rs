//! The mean error of an output goes, by as much as two kinds of inputs agree on it.

use super::*;
use crate::{Clip, ConvGeometry, Granularity, MatMulGeometry, Padding, Rounding};

fn settings() -> Settings {
    let precision = "int3x1".parse().unwrap();
    let (granularity, rounding, clip) = (Granularity::Channel, Rounding::Nearest, Clip::None);
    Settings {
        weights: precision,
        activations: precision,
        granularity,
        rounding,
        clip,
        asymmetric: false,
        activation_clip: Default::default(),
    }
}

fn layer(geometry: Geometry, bias: Option<Vec<f32>>) -> Layer {
    let count = geometry.weight_shape().iter().product::<usize>();
    let weight = Weight::Float((0..count).map(|i| (i as f32 * 1.7).sin()).collect());
    Layer { name: "layer".to_owned(), geometry, weight, bias }
}

fn matmul(transposed: bool) -> Geometry {
    Geometry::MatMul(MatMulGeometry { k: 6, n: 4, transposed })
}

fn conv(groups: usize) -> Geometry {
    Geometry::Conv(ConvGeometry {
        spatial_rank: 2,
        channels_in: 6,
        channels_out: 12,
        groups,
        kernel: [3, 2],
        strides: [1, 1],
        dilations: [1, 1],
        padding: Padding::Explicit([0; 4]),
    })
}

/// `sum_k w_ok x_k` of constant input channels, by a loop over the axes of the weight.
fn outputs(geometry: &Geometry, weight: &[f64], x: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; geometry.channels_out()];
    for (o, y) in y.iter_mut().enumerate() {
        match geometry {
            Geometry::MatMul(g) => {
                for k in 0..g.k {
                    *y += weight[if g.transposed { o * g.k + k } else { k * g.n + o }] * x[k];
                }
            }
            Geometry::Conv(g) => {
                let (of_group, taps) = (g.channels_in / g.groups, g.kernel[0] * g.kernel[1]);
                let group = o / (g.channels_out / g.groups);
                for c in 0..of_group {
                    for t in 0..taps {
                        *y += weight[(o * of_group + c) * taps + t] * x[group * of_group + c];
                    }
                }
            }
        }
    }
    y
}

#[test]
fn constant_inputs_come_out_right() {
    let means: Vec<f64> = (0..6).map(|k| 1.0 + f64::from(k) * 0.3).collect();
    for geometry in [matmul(false), matmul(true), conv(1), conv(2), conv(6)] {
        for bias in [None, Some(vec![0.25f32; geometry.channels_out()])] {
            let layer = layer(geometry.clone(), bias.clone());
            let kinds = [means.clone(), means.clone()];
            let expanded = expand_corrected(&layer, &settings(), Some(&Means { kinds })).unwrap();
            let Weight::Float(floats) = &layer.weight else { panic!("floats") };
            let floats: Vec<f64> = floats.iter().map(|&w| f64::from(w)).collect();
            let values: Vec<f64> = expanded.weight.values("w", 1).unwrap().collect();
            let (exact, made) = (outputs(&geometry, &floats, &means), outputs(&geometry, &values, &means));
            let (before, after) = (bias.unwrap_or_else(|| vec![0.0; exact.len()]), expanded.bias.unwrap());
            for o in 0..exact.len() {
                let (exact, made) = (exact[o] + f64::from(before[o]), made[o] + f64::from(after[o]));
                assert!((exact - made).abs() < 1e-5, "{geometry:?} {o}: {exact} {made}");
            }
        }
    }
}

#[test]
fn kinds_that_disagree_correct_nothing() {
    let layer = layer(matmul(true), Some(vec![0.5; 4]));
    let plain = expand_layer(&layer, &settings()).unwrap();
    let means = |other: f64| Means { kinds: [vec![1.0; 6], vec![other; 6]] };
    let corrected = |means: &Means| expand_corrected(&layer, &settings(), Some(means)).unwrap();
    assert_eq!(corrected(&means(-1.0)), plain);
    assert_eq!(corrected(&Means::default()), plain);
    assert_eq!(corrected(&Means { kinds: [vec![1.0; 6], Vec::new()] }), plain);
    assert_eq!(corrected(&Means { kinds: [vec![f64::NAN; 6], vec![1.0; 6]] }), plain);
    assert_eq!(expand_corrected(&layer, &settings(), None).unwrap(), plain);
    // Half as far apart as it is large: three quarters of the correction.
    let moved = |of: &ExpandedLayer| of.bias.as_ref().unwrap()[0] - plain.bias.as_ref().unwrap()[0];
    let (all, part) = (moved(&corrected(&means(1.0))), moved(&corrected(&means(0.5))));
    assert!(all != 0.0 && (part - 0.75 * all).abs() < 1e-6, "{all} {part}");
}
