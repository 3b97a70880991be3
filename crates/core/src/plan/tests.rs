//! Plans and goals: limits are kept, more never errs more, and what cannot be reached is an error.

use super::*;
use crate::{ActivationClip, Clip, ConvGeometry, Error, Geometry, Padding, Rounding};
use proptest::prelude::*;

fn precision(text: &str) -> Precision {
    text.parse().unwrap()
}

fn pair(weights: &str, activations: &str) -> LayerPrecision {
    LayerPrecision { rounding: Rounding::Sum, ..LayerPrecision::plain(precision(weights), precision(activations)) }
}

fn geometry(groups: usize) -> Geometry {
    Geometry::Conv(ConvGeometry {
        spatial_rank: 2,
        channels_in: 8,
        channels_out: 8,
        groups,
        kernel: [3, 3],
        strides: [1, 1],
        dilations: [1, 1],
        padding: Padding::SameUpper,
    })
}

/// A layer for a goal whose variances fall by `16^2` with every four bits from `at_eight`.
fn layer(goal: Goal, number: usize, depthwise: bool, macs: u64, at_eight: [f64; 2], gains: [f64; 2]) -> LayerOptions {
    let variance = |p: Precision, at_eight: f64| at_eight * 4f64.powi(8 - p.total_bits() as i32);
    let weight = |p: Precision| WeightOption {
        precision: p,
        rounding: Rounding::Sum,
        clip: Clip::None,
        asymmetric: false,
        bits: p.total_bits().into(),
        width: p.total_bits(),
        variance: variance(p, at_eight[0]),
        added: None,
        step: (at_eight[0] * 4f64.powi(8 - p.total_bits() as i32)).sqrt(),
        certified: 2f64.powi(-(p.total_bits() as i32)),
        magnitude: 1.0,
    };
    let activation = |p: Precision| {
        let variance = variance(p, at_eight[1]);
        ActivationOption { precision: p, clip: ActivationClip::None, variance, error: variance.sqrt() }
    };
    LayerOptions {
        name: format!("layer{number}"),
        geometry: geometry(if depthwise { 8 } else { 1 }),
        macs,
        elements: macs as usize % 97 + 1,
        weights: goal.weights().into_iter().map(weight).collect(),
        activations: goal.activations().into_iter().map(activation).collect(),
        gains,
    }
}

/// What the layers cost in products.
fn products(layers: &[LayerOptions], ways: &[Way]) -> f64 {
    let macs: f64 = layers.iter().map(|l| l.macs as f64).sum();
    layers.iter().zip(ways).map(|(l, way)| l.macs as f64 * f64::from(way.products)).sum::<f64>() / macs
}

fn added(ways: &[Way]) -> f64 {
    ways.iter().map(|way| way.added).sum()
}

/// Layers as `(depthwise, macs, variances, gains)`.
type Drawn = Vec<(bool, u64, f64, f64, f64, f64)>;

fn drawn() -> impl Strategy<Value = Drawn> {
    let layer = (any::<bool>(), 1u64..1_000_000, 1e-7f64..1e-3, 1e-7f64..1e-3, 0.0f64..50.0, 0.0f64..50.0);
    prop::collection::vec(layer, 1..12)
}

fn layers(goal: Goal, drawn: &Drawn) -> Vec<LayerOptions> {
    let made = |(i, &(depthwise, macs, w, a, gw, ga)): (usize, &_)| layer(goal, i, depthwise, macs, [w, a], [gw, ga]);
    drawn.iter().enumerate().map(made).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn products_stay_within_their_limit_and_more_never_err_more(drawn in drawn(), limit in 1.0f64..4.0) {
        let plan = |limit: f64| {
            let goal = Goal::Products(limit);
            let layers = layers(goal, &drawn);
            let ways = choose(&layers, goal).unwrap();
            assert!(products(&layers, &ways) <= limit * (1.0 + 1e-9), "{limit}");
            ways
        };
        let ways = plan(limit);
        prop_assert_eq!(&ways, &plan(limit), "the same every time");
        prop_assert!(added(&plan(limit * 1.1)) <= added(&ways));
        prop_assert!(added(&ways) <= added(&plan(1.0)));
    }

    #[test]
    fn bits_stay_within_their_limit_and_more_never_err_more(drawn in drawn(), limit in 2.0f64..12.0) {
        let plan = |limit: f64| {
            let goal = Goal::Bits(limit);
            let layers = layers(goal, &drawn);
            let ways = choose(&layers, goal).unwrap();
            let elements: usize = layers.iter().map(|l| l.elements).sum();
            let bits = |(l, way): (&LayerOptions, &Way)| l.elements as f64 * f64::from(way.precision.weights.total_bits());
            let mean = layers.iter().zip(&ways).map(bits).sum::<f64>() / elements as f64;
            assert!(mean <= limit * (1.0 + 1e-9), "{mean} {limit}");
            added(&ways)
        };
        prop_assert!(plan(limit * 1.1) <= plan(limit));
    }

    #[test]
    fn a_tolerance_is_kept_with_the_fewest_products(drawn in drawn(), tolerance in 1e-3f64..0.1) {
        let goal = Goal::Tolerance(tolerance);
        let layers = layers(goal, &drawn);
        for (layer, way) in layers.iter().zip(choose(&layers, goal).unwrap()) {
            prop_assert!(way.error <= tolerance);
            prop_assert!(layer.ways().iter().all(|w| w.error > tolerance || w.products >= way.products));
        }
    }
}

#[test]
fn what_is_free_is_taken_and_the_rest_goes_where_it_helps_most() {
    let goal = Goal::Products(1.2);
    let of = |i, depthwise, macs, gain| layer(goal, i, depthwise, macs, [1e-4, 1e-6], [gain, 1.0]);
    let layers = [of(0, true, 100, 1.0), of(1, false, 400, 1.0), of(2, false, 100, 9.0), of(3, false, 400, 2.0)];
    let ways = choose(&layers, goal).unwrap();
    let weights: Vec<String> = ways.iter().map(|way| way.precision.weights.to_string()).collect();
    assert_eq!(weights, ["int4x3", "int4x2", "int4x3", "int4x2"]);
    assert_eq!(ways[0].products, 1, "a second product of a depthwise layer takes more than its share of time");
    let ways = choose(&layers, Goal::Products(1.0)).unwrap();
    assert_eq!(ways[0].precision, pair("int4x3", "int4x2"));
    assert_eq!(ways[2].precision, pair("int4x2", "int4x2"));
}

#[test]
fn asymmetric_weights_are_counted_by_time_unless_they_are_free() {
    let goal = Goal::Products(1.1);
    let with_bias = |macs, gain, times: u32| {
        let mut layer = layer(goal, times as usize, false, macs, [1e-4, 1e-6], [gain, 1.0]);
        let Geometry::Conv(g) = &mut layer.geometry else { panic!("a convolution") };
        (g.channels_in, g.channels_out) = (8 * times as usize, 8 * times as usize);
        let eight = layer.weights[0];
        layer.weights.push(WeightOption { asymmetric: true, variance: eight.variance / 2.0, ..eight });
        layer
    };
    // The larger a layer, the less its rank-one product weighs; of the small one it takes as long as several products.
    let layers = [with_bias(1000, 5.0, 1), with_bias(1000, 5.0, 64)];
    let ways = choose(&layers, goal).unwrap();
    assert!(ways[0].rank_one == 0.0 && !ways[0].precision.asymmetric, "{ways:?}");
    assert!(ways[1].precision.asymmetric && ways[1].rank_one > 0.0 && ways[1].rank_one < 0.05, "{ways:?}");
    let mut free = layers.clone();
    free[0].weights[2].width = 7;
    assert!(choose(&free, Goal::Products(1.0)).unwrap()[0].precision.asymmetric, "the bytes have room");
}

#[test]
fn the_stopping_rules_add_terms_until_errors_are_small() {
    for bits in [2, 3, 4, 8] {
        let goal = Goal::Stopping(bits);
        let layers: Vec<_> = (0..4).map(|i| layer(goal, i, false, 100, [1e-6, 1e-7], [1.0; 2])).collect();
        let ways = choose(&layers, goal).unwrap();
        assert_eq!([ways[0].precision, ways[3].precision], [pair("int8x1", "int8x1"); 2]);
        let LayerPrecision { weights, activations, .. } = ways[1].precision;
        assert_eq!((weights.bits(), activations.bits()), (bits, bits));
        // A step of 1e-3 and an error of 3e-4 at eight bits, both halved with every bit more.
        let step = |order: u32| 1e-3 * 2f64.powi(8 - (bits * order) as i32);
        let error = |order: u32| step(order) * 0.1f64.sqrt();
        assert!(step(weights.order()) * f64::from(bits).exp2() < 1e-2);
        assert!(weights.order() == 1 || step(weights.order() - 1) * f64::from(bits).exp2() >= 1e-2);
        assert!(error(activations.order()) < 1e-4 && error(activations.order() - 1) >= 1e-4);
        // Where no number of terms is enough, all that run.
        let coarse: Vec<_> = (0..3).map(|i| layer(goal, i, false, 100, [1e9, 1e9], [1.0; 2])).collect();
        let way = choose(&coarse, goal).unwrap()[1];
        assert_eq!(way.precision.weights.order(), 24 / bits);
        assert_eq!(way.precision.activations.order(), 24 / bits);
    }
    assert!(matches!(choose(&[], Goal::Stopping(0)), Err(Error::Goal(_))));
}

#[test]
fn goals_out_of_reach_are_errors() {
    let layers = |goal| [layer(goal, 0, false, 100, [1e-4; 2], [1.0; 2])];
    for (goal, word) in [
        (Goal::Products(0.5), "1.00"),
        (Goal::Bits(1.5), "2.00"),
        (Goal::Tolerance(1e-9), "layer0"),
        (Goal::Products(f64::NAN), "positive"),
        (Goal::Tolerance(0.0), "positive"),
        (Goal::Bits(f64::INFINITY), "positive"),
    ] {
        let Err(Error::Goal(told)) = choose(&layers(goal), goal) else { panic!("{goal:?} was reached") };
        assert!(told.contains(word) && !told.contains('\n'), "{told}");
    }
}

#[test]
fn layers_that_are_not_listed_have_the_default() {
    let default = pair("int4x2", "int4x2");
    let plan =
        Plan { default, layers: [("a".to_owned(), pair("int4x3", "int8x2"))].into(), corrected: false, rotated: false };
    assert_eq!((plan.of("a"), plan.of("b")), (pair("int4x3", "int8x2"), default));
    assert_eq!((plan.unknown(&["b"]), plan.unknown(&["b", "a"])), (Some("a"), None));
}
