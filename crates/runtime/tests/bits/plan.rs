//! Plans: what is measured for them, and models whose layers have precisions of their own.

use std::sync::Arc;

use fpxint::{Goal, Granularity, LayerPrecision, Plan, Settings, Weight, choose, expand_layer};
use fpxint_runtime::{Measurement, Options};

use crate::{array, bits, feed, load, models, options};

fn pair(weights: &str, activations: &str) -> LayerPrecision {
    LayerPrecision::plain(weights.parse().unwrap(), activations.parse().unwrap())
}

fn base() -> Settings {
    let LayerPrecision { weights, activations, rounding, clip, asymmetric, activation_clip } = pair("int4x2", "int4x2");
    Settings { weights, activations, granularity: Granularity::Channel, rounding, clip, asymmetric, activation_clip }
}

/// A measurement that leaves every choice to the planner.
fn measurement(goal: Goal, runs: &[Inputs], threads: usize) -> Measurement<'_> {
    let (clip, asymmetric, activation_clip) = (None, None, None);
    Measurement { goal, base: base(), clip, asymmetric, activation_clip, runs, means: &[], threads }
}

/// The inputs of a run.
type Inputs = Vec<(String, fpxint_runtime::Value)>;

#[test]
fn measurements_do_not_depend_on_threads_and_plans_keep_their_limit() {
    for (source, input, shape) in models() {
        let runs = [feed(input, array(&[&[2], &shape[..]].concat(), 0.377))];
        let goal = Goal::Products(1.3);
        let measured = |threads| {
            let measurement = measurement(goal, &runs, threads);
            measurement.layers(&source, &|_, _| {}).unwrap()
        };
        let layers = measured(1);
        assert_eq!(layers, measured(3));
        for layer in &layers {
            assert!(layer.gains.iter().all(|gain| gain.is_finite() && *gain >= 0.0), "{layer:?}");
            let spread = |fine: f64, coarse: f64| fine < coarse / 50.0;
            // Where the rank-one product of asymmetric weights may pay, they are one of three ways.
            let (fine, coarse) = layer.weights.split_last().unwrap();
            let is_product = matches!(layer.geometry, fpxint::Geometry::MatMul(_));
            assert_eq!(coarse.len(), if is_product { 2 } else { 1 }, "{layer:?}");
            assert!(coarse.iter().all(|coarse| spread(fine.variance, coarse.variance)), "{layer:?}");
            let [coarse, fine] = &layer.activations[..] else { panic!("{layer:?}") };
            assert!(spread(fine.variance, coarse.variance), "{layer:?}");
        }
        let ways = choose(&layers, goal).unwrap();
        let macs: u64 = layers.iter().map(|layer| layer.macs).sum();
        let cost: u64 = layers.iter().zip(&ways).map(|(layer, way)| layer.macs * u64::from(way.products)).sum();
        assert!(cost as f64 <= 1.3 * macs as f64);
    }
}

#[test]
fn expected_errors_are_those_that_layers_have() {
    // A relative variance is that of what the series stands for.
    for (source, input, shape) in models() {
        let runs = [feed(input, array(&[&[2], &shape[..]].concat(), 0.377))];
        let goal = Goal::Tolerance(0.1);
        let measurement = measurement(goal, &runs, 1);
        let layers = measurement.layers(&source, &|_, _| {}).unwrap();
        for (index, options) in layers.iter().enumerate() {
            let layer = source.layer(index).unwrap();
            let Weight::Float(floats) = &layer.weight else { panic!("float weights") };
            for option in &options.weights {
                let settings =
                    Settings { weights: option.precision, clip: option.clip, asymmetric: option.asymmetric, ..base() };
                let series = expand_layer(&layer, &settings).unwrap().weight;
                let values = series.values("w", option.precision.order()).unwrap();
                let noise: f64 = values.zip(floats).map(|(v, &w)| (v - f64::from(w)).powi(2)).sum();
                let power: f64 = floats.iter().map(|&w| f64::from(w).powi(2)).sum();
                assert!((option.variance * power - noise).abs() <= 1e-12 * noise, "{option:?}");
            }
        }
    }
}

#[test]
fn every_layer_runs_at_its_own_precisions() {
    for (source, input, shape) in models() {
        let x = feed(input, array(&[&[3], &shape[..]].concat(), 0.377));
        let run = |plan: Plan| {
            let options = Options { plan: Some(Arc::new(plan)), ..options("int2x1", "int2x1") };
            let model = load(&source, &options);
            for layer in model.layers() {
                let planned = options.plan.as_ref().unwrap().of(&layer.name);
                assert_eq!((layer.weights, layer.activations), (planned.weights, planned.activations));
            }
            bits(&model.run(&x).unwrap())
        };
        let (low, high) = (pair("int4x2", "int4x2"), pair("int4x3", "int8x2"));
        let uniform = |default| Plan { default, layers: [].into(), corrected: false, rotated: false };
        assert_eq!(run(uniform(low)), bits(&load(&source, &options("int4x2", "int4x2")).run(&x).unwrap()));
        let first = source.layers()[0].name.clone();
        let mixed =
            run(Plan { default: low, layers: [(first.clone(), high)].into(), corrected: false, rotated: false });
        assert_ne!(mixed, run(uniform(low)));
        assert_ne!(mixed, run(uniform(high)));
        let listed = source.layers().iter().skip(1).map(|layer| (layer.name.clone(), low));
        assert_eq!(run(Plan { default: high, layers: listed.collect(), corrected: false, rotated: false }), mixed);
    }
}
