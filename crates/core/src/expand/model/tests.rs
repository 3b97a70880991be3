//! AbelianAdd over basis models: any split, any order, the same bits (eq. 5 to 8).

use super::*;
use crate::{
    ActivationClip, Clip, ConvGeometry, Costs, Geometry, Granularity, Grid, LayerFacts, Lost, MatMulGeometry, Method,
    Padding, Partition, Rounding, Settings, abelian_add, abelian_mul, expand_layer, expand_tensor, expand_tensor_by,
};
use crate::{Layer, Weight};
use proptest::prelude::*;

/// Partial sums of a member for rows of codes, all on one grid.
fn member(
    series: &Series,
    activations: Precision,
    rows: &[Vec<i32>],
    grid: &Grid,
    all: &[Members],
    one: &Members,
) -> Vec<i64> {
    let folds = folds(all);
    let index = folds.iter().position(|fold| *fold == one.weights).unwrap();
    let weight = basis_weight("w", series, &folds, index).unwrap();
    let codes = basis_codes("w", activations, &one.activations).unwrap();
    let value = |u: i32| {
        i64::from(u & codes.mask as i32) - codes.offset - if codes.owner { i64::from(grid.zero_point) } else { 0 }
    };
    let depth = rows[0].len();
    let dot = |row: &Vec<i32>| -> Vec<i64> {
        let channel = |q: &[i32]| q.iter().zip(row).map(|(&q, &u)| i64::from(q) * value(u)).sum();
        weight.q.chunks(depth).map(channel).collect()
    };
    let mut sums: Vec<i64> = rows.iter().flat_map(dot).collect();
    abelian_mul(&mut sums, 1 << weight.shift);
    sums
}

fn whole(series: &Series, rows: &[Vec<i32>], grid: &Grid) -> Vec<i64> {
    let depth = rows[0].len();
    let dot = |row: &Vec<i32>| -> Vec<i64> {
        let channel = |q: &[i32]| q.iter().zip(row).map(|(&q, &u)| i64::from(q) * i64::from(u - grid.zero_point)).sum();
        series.q().chunks(depth).map(channel).collect()
    };
    rows.iter().flat_map(dot).collect()
}

const PRECISIONS: [(&str, &str); 6] = [
    ("int4x4", "int4x4"),
    ("int4x2", "int4x2"),
    ("int2x5", "int4x3"),
    ("int8x3", "int8x2"),
    ("int3x4", "int2x4"),
    ("int4x3", "int8x1"),
];

proptest! {
    #[test]
    fn basis_models_sum_to_the_model_in_any_order(
        x in prop::collection::vec(-1.0f32..1.0, 12),
        values in prop::collection::vec(-1.0f32..2.0, 8),
        which in 0..PRECISIONS.len(),
        workers in 1usize..20,
        order in any::<u64>(),
    ) {
        let (weights, activations) = PRECISIONS[which];
        let (weights, activations): (Precision, Precision) = (weights.parse().unwrap(), activations.parse().unwrap());
        let series = expand_tensor("w", &x, &[3, 4], 0, weights, Granularity::Channel).unwrap();
        let grid = Grid::new(-1.0, 2.0, activations);
        let rows: Vec<Vec<i32>> = values.chunks(4).map(|row| row.iter().map(|&v| grid.code(v)).collect()).collect();
        let shared = Partition::new(workers, Costs::default()).of(weights, activations, false);
        let all: Vec<Members> = shared.into_iter().flatten().collect();
        let mut arrival: Vec<usize> = (0..all.len()).collect();
        arrival.sort_by_key(|&i| (i as u64 + 1).wrapping_mul(order | 1));
        let mut total = vec![0i64; 6];
        for i in arrival {
            abelian_add(&mut total, &member(&series, activations, &rows, &grid, &all, &all[i]));
        }
        prop_assert_eq!(total, whole(&series, &rows, &grid));
    }

    #[test]
    fn single_terms_are_the_digits_of_the_series(x in prop::collection::vec(-1.0f32..1.0, 12), which in 0..PRECISIONS.len()) {
        let weights: Precision = PRECISIONS[which].0.parse().unwrap();
        let series = expand_tensor("w", &x, &[3, 4], 0, weights, Granularity::Channel).unwrap();
        let terms: Vec<_> = (1..=weights.order()).map(|t| t..=t).collect();
        for term in 1..=weights.order() {
            let basis = basis_weight("w", &series, &terms, term as usize - 1).unwrap();
            let digits: Vec<i32> = series.term(term).into_iter().map(i32::from).collect();
            prop_assert_eq!((basis.q, basis.shift, basis.width), (digits, weights.bits() * (weights.order() - term), weights.bits()));
        }
    }

    #[test]
    fn folds_fit_their_bits(q in prop_oneof![any::<i32>(), -40_000..40_000i32], bits in 2u32..24) {
        let digit = fold_digit(i64::from(q), bits);
        prop_assert_eq!((i64::from(q) - digit).rem_euclid(1 << bits), 0);
        let top = if bits % 8 == 0 { 8 } else { bits % 8 };
        let low: i64 = (0..bits - top).step_by(8).map(|at| 128i64 << at).sum();
        let half = 1i64 << (bits - 1);
        prop_assert!(digit >= -half - low && digit < half - low + low / 128 * 127 + 1, "{} of {} bits", digit, bits);
    }

    /// What is lost is within its bounds; whole last terms leave the prefix.
    #[test]
    fn losses_stay_within_their_bounds(
        x in prop::collection::vec(-1.0f32..1.0, 12),
        values in prop::collection::vec(-1.0f32..2.0, 8),
        lost in prop::collection::btree_set(1usize..16, 1..6),
    ) {
        let precision: Precision = "int4x4".parse().unwrap();
        let series = expand_tensor("w", &x, &[3, 4], 0, precision, Granularity::Channel).unwrap();
        let grid = Grid::new(-1.0, 2.0, precision);
        let rows: Vec<Vec<i32>> = values.chunks(4).map(|row| row.iter().map(|&v| grid.code(v)).collect()).collect();
        let all: Vec<Members> = Partition::new(16, Costs::default()).of(precision, precision, false).concat();
        let facts = LayerFacts::of(&series, 4);
        let (mut total, mut losses) = (whole(&series, &rows, &grid), Vec::new());
        let exact = total.clone();
        abelian_mul(&mut total, 16);
        for &i in &lost {
            let mut gone = member(&series, precision, &rows, &grid, &all, &all[i]);
            abelian_mul(&mut gone, -16);
            abelian_add(&mut total, &gone);
            let index = *all[i].weights.start() as usize - 1;
            let terms: Vec<_> = (1..=4).map(|t| t..=t).collect();
            let weight = basis_weight("w", &series, &terms, index).unwrap();
            let sum = |part: fn(i64) -> i64| weight.q.chunks(4).map(|row| row.iter().map(|&q| part(i64::from(q)) << weight.shift).sum()).collect();
            let codes = basis_codes("w", precision, &all[i].activations).unwrap();
            let loss = Lost { codes, sums: sum(|q| q), magnitudes: sum(i64::abs) };
            let mean = facts.mean(&loss);
            for (row, codes) in rows.iter().enumerate() {
                let zero = loss.codes.offset + if loss.codes.owner { i64::from(grid.zero_point) } else { 0 };
                let window: i64 = codes.iter().map(|&u| i64::from(u & loss.codes.mask as i32) - zero).sum();
                (0..3).for_each(|c| total[row * 3 + c] += mean[c] * window);
            }
            losses.push(loss);
        }
        let bound = facts.output_bound(&losses, precision, ActivationClip::None);
        for (at, (&total, &exact)) in total.iter().zip(&exact).enumerate() {
            let error = (total as f64 / 16.0 - exact as f64).abs() * facts.units[at % 3];
            prop_assert!(error <= bound, "{} is beyond {}", error, bound);
        }
    }
}

/// With the first term go the saturation part and the bias, which the bound of a weight includes.
#[test]
fn weights_stay_within_their_bound_whatever_terms_are_lost() {
    let tail = |i: usize| 0.4 + (i as f32 * 0.71).sin() * if i % 110 == 3 { 12.0 } else { 1.0 };
    let x: Vec<f32> = (0..480).map(tail).collect();
    let precision: Precision = "int2x3".parse().unwrap();
    for (clip, asymmetric) in [Clip::None, Clip::Laplace].into_iter().flat_map(|clip| [(clip, false), (clip, true)]) {
        let method =
            Method { precision, granularity: Granularity::Channel, rounding: Rounding::Nearest, clip, asymmetric };
        let series = expand_tensor_by("w", &x, &[4, 120], 0, &method).unwrap();
        assert_eq!((series.saturation().is_empty(), series.offsets().is_empty()), (clip == Clip::None, !asymmetric));
        let (facts, folds) = (LayerFacts::of(&series, 120), [1..=1, 2..=2, 3..=3]);
        let codes = basis_codes("w", precision, &(1..=3)).unwrap();
        for lost in 1..7u32 {
            let (mut gone, mut kept) = (vec![0i64; 4], vec![0i64; 480]);
            for index in 0..3 {
                let weight = basis_weight("w", &series, &folds, index).unwrap();
                if lost >> index & 1 == 1 {
                    abelian_add(&mut gone, &weight.channel_sums(series.channels()).0);
                } else {
                    kept.iter_mut()
                        .zip(&weight.q)
                        .enumerate()
                        .for_each(|(i, (to, &q))| *to += weight.whole(i / 120, q));
                }
            }
            let mean = facts.mean(&Lost { codes, sums: gone, magnitudes: Vec::new() });
            let terms: Vec<u32> = (1..=3).filter(|term| lost >> (term - 1) & 1 == 1).collect();
            let bound = facts.weight_bound(&terms, &mean);
            for (i, &kept) in kept.iter().enumerate() {
                let value = facts.units[i / 120] * (kept as f64 + mean[i / 120] as f64 / 4.0);
                let error = (value - f64::from(x[i])).abs();
                assert!(error <= bound, "{error} of {bound}: {terms:?} {clip:?} {asymmetric}");
            }
        }
    }
}

#[test]
fn whole_last_terms_leave_the_prefix() {
    let x: Vec<f32> = (0..40).map(|i| (i as f32 * 0.71).sin()).collect();
    let precision: Precision = "int4x4".parse().unwrap();
    for granularity in [Granularity::Channel, Granularity::Group(5)] {
        let series = expand_tensor("w", &x, &[4, 10], 0, precision, granularity).unwrap();
        let (facts, terms) = (LayerFacts::of(&series, 10), [1..=1, 2..=2, 3..=3, 4..=4]);
        for kept in 1..4 {
            let mut sums = vec![0i64; 4];
            for index in kept..4 {
                let weight = basis_weight("w", &series, &terms, index).unwrap();
                let rows =
                    weight.q.chunks(10).map(|row| row.iter().map(|&q| i64::from(q) << weight.shift).sum::<i64>());
                sums.iter_mut().zip(rows).for_each(|(sum, row)| *sum += row);
            }
            let codes = basis_codes("w", precision, &(1..=4)).unwrap();
            let mean = facts.mean(&Lost { codes, sums, magnitudes: vec![] });
            let prefix = series.prefix("w", kept as u32).unwrap();
            assert_eq!(mean, prefix.means);
            assert!(facts.units.iter().zip(&prefix.units).all(|(unit, &of)| unit / 16.0 == f64::from(of)));
            let lost: Vec<u32> = (kept as u32 + 1..=4).collect();
            let (bound, of) = (facts.weight_bound(&lost, &mean), series.worst_bound(kept as u32));
            assert!((bound / of - 1.0).abs() < 1e-12, "{bound} and {of}");
        }
    }
}

#[test]
fn the_saturation_part_belongs_to_the_first_term() {
    let mut x: Vec<f32> = (0..640).map(|i| (i as f32 * 0.71).sin() * 0.2).collect();
    x[9] = 1.0;
    let method = Method {
        precision: "int2x2".parse().unwrap(),
        granularity: Granularity::Channel,
        rounding: Rounding::Nearest,
        clip: Clip::Mse,
        asymmetric: false,
    };
    let series = expand_tensor_by("w", &x, &[1, 640], 0, &method).unwrap();
    let saturation = series.saturation();
    assert!(!saturation.is_empty(), "the largest value is clipped");
    let terms = [1..=1, 2..=2];
    let first = basis_weight("w", &series, &terms, 0).unwrap();
    let mut want: Vec<i32> = series.term(1).into_iter().map(i32::from).collect();
    saturation.iter().for_each(|&(i, s)| want[i] += s);
    assert_eq!(first.q, want);
    let digits: Vec<i32> = series.term(2).into_iter().map(i32::from).collect();
    assert_eq!(basis_weight("w", &series, &terms, 1).unwrap().q, digits);
}

#[test]
fn members_outside_the_series_are_refused() {
    let series = expand_tensor("w", &[1.0; 4], &[1, 4], 0, "int4x2".parse().unwrap(), Granularity::Tensor).unwrap();
    for folds in [vec![0..=1, 2..=2], vec![1..=3], vec![1..=1], vec![2..=2, 1..=1], vec![1..=2, 2..=2], vec![]] {
        assert!(basis_weight("w", &series, &folds, 0).is_err(), "{folds:?}");
    }
    assert!(basis_weight("w", &series, &[1..=2], 1).is_err());
    for terms in [0..=1, 1..=3, RangeInclusive::new(2, 1)] {
        assert!(basis_codes("w", series.precision(), &terms).is_err());
    }
}

fn model() -> Expanded {
    let settings = Settings {
        weights: "int4x3".parse().unwrap(),
        activations: "int4x2".parse().unwrap(),
        granularity: Granularity::Channel,
        rounding: Rounding::Nearest,
        clip: Clip::None,
        asymmetric: false,
        activation_clip: ActivationClip::None,
    };
    let layer = |name: &str, geometry: Geometry, len: usize| {
        let values = (0..len).map(|i| (i as f32 * 0.9 + 0.2).cos()).collect();
        let layer = Layer { name: name.to_owned(), geometry, weight: Weight::Float(values), bias: None };
        expand_layer(&layer, &settings).unwrap()
    };
    let conv = ConvGeometry {
        spatial_rank: 2,
        channels_in: 2,
        channels_out: 3,
        groups: 1,
        kernel: [2, 2],
        strides: [1, 1],
        dilations: [1, 1],
        padding: Padding::Explicit([0; 4]),
    };
    let product = Geometry::MatMul(MatMulGeometry { k: 3, n: 5, transposed: false });
    Expanded { layers: vec![layer("stem", Geometry::Conv(conv), 24), layer("head", product, 15)] }
}

#[test]
fn a_basis_model_has_a_term_of_every_layer() {
    let model = model();
    for (i, j) in [(1, 1), (2, 1), (3, 2)] {
        let basis = model.basis(i, j).unwrap();
        assert_eq!(basis.len(), 2);
        for (layer, of) in basis.iter().zip(&model.layers) {
            let digits: Vec<i32> = of.weight.term(i).into_iter().map(i32::from).collect();
            assert_eq!(layer.weight.as_ref().map(|w| &w.q), Some(&digits));
            assert_eq!(layer.codes.map(|c| (c.mask, c.owner)), Some((if j == 1 { 0xf0 } else { 0x0f }, j == 1)));
        }
    }
    assert!(model.basis(4, 1).is_err() && model.basis(1, 3).is_err() && model.basis(0, 1).is_err());
}

#[test]
fn a_region_with_something_nonlinear_in_it_is_refused_by_name() {
    let model = model();
    assert_eq!(model.region(1..2).map(Region::layer), Ok(1));
    assert_eq!(model.region(0..2), Err(Error::NonLinear { layer: "head".to_owned() }));
    assert!(model.region(0..2).unwrap_err().to_string().contains("`head`"));
    assert!(model.region(1..1).is_err() && model.region(2..3).is_err());
}

/// What the refusal prevents: with a Relu and a rounding inside, basis models that are added at the end are another network.
#[test]
fn an_unchecked_region_gives_something_else() {
    let p: Precision = "int4x2".parse().unwrap();
    let (first, second) = ([0.9f32, -0.7, 0.3, 0.8, -0.2, 0.6], [0.5f32, -0.9, 0.4, 0.7]);
    let first = expand_tensor("a", &first, &[2, 3], 0, p, Granularity::Channel).unwrap();
    let second = expand_tensor("b", &second, &[2, 2], 0, p, Granularity::Channel).unwrap();
    let x = [0.9f32, 0.2, 0.4];
    let layer = |series: &Series, x: &[f32], all: &[Members], one: &Members| {
        let low = x.iter().copied().fold(0.0, f32::min);
        let high = x.iter().copied().fold(0.0, f32::max);
        let grid = Grid::new(low, high, p);
        let row = vec![x.iter().map(|&v| grid.code(v)).collect::<Vec<_>>()];
        (member(series, p, &row, &grid, all, one), grid.scale)
    };
    let relu = |series: &Series, (sums, scale): (Vec<i64>, f32)| -> Vec<f32> {
        let unit = |c: usize| series.term_scales(2)[c];
        sums.iter().enumerate().map(|(c, &s)| (s as f32 * scale * unit(c)).max(0.0)).collect()
    };
    let terms = |i: u32| Members { weights: i..=i, activations: 1..=2 };
    let all = [terms(1), terms(2)];
    // Reduced after every layer.
    let reduced = |series: &Series, x: &[f32]| {
        let (mut total, scale) = layer(series, x, &all, &all[0]);
        abelian_add(&mut total, &layer(series, x, &all, &all[1]).0);
        (total, scale)
    };
    let right = reduced(&second, &relu(&first, reduced(&first, &x)));
    // Every basis model runs both layers alone, and only the end is added.
    let alone = |i: usize| layer(&second, &relu(&first, layer(&first, &x, &all, &all[i])), &all, &all[i]);
    let mut wrong = alone(0);
    abelian_add(&mut wrong.0, &alone(1).0);
    let value = |(sums, scale): &(Vec<i64>, f32)| sums.iter().map(|&s| s as f32 * scale).collect::<Vec<_>>();
    let differ = value(&right).iter().zip(value(&wrong)).any(|(a, b)| (a - b).abs() > 0.01 * a.abs());
    assert!(differ, "{:?} {:?}", value(&right), value(&wrong));
}

/// A network whose partial results, summed as floats, depend on the order; as integers they do not.
#[test]
fn float_sums_depend_on_the_order_and_ours_do_not() {
    let x: Vec<f32> = (0..512).map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.0).powi(3)).collect();
    let (weights, activations): (Precision, Precision) = ("int4x4".parse().unwrap(), "int4x4".parse().unwrap());
    let series = expand_tensor("w", &x, &[8, 64], 0, weights, Granularity::Channel).unwrap();
    let grid = Grid::new(-1.0, 3.0, activations);
    let row = |r: usize| (0..64).map(|k| grid.code(((r * 64 + k) as f32 * 0.37).sin() + 1.0)).collect::<Vec<_>>();
    let rows: Vec<_> = (0..4).map(row).collect();
    let all: Vec<Members> = Partition::new(16, Costs::default()).of(weights, activations, false).concat();
    let parts: Vec<Vec<i64>> = all.iter().map(|one| member(&series, activations, &rows, &grid, &all, one)).collect();
    let unit = |at: usize| series.term_scales(4)[at % 8] * grid.scale;
    let forward: Vec<usize> = (0..16).collect();
    let backward: Vec<usize> = (0..16).rev().collect();
    let floats = |order: &[usize]| {
        let sum = |at: usize| order.iter().fold(0f32, |sum, &i| sum + parts[i][at] as f32 * unit(at));
        (0..32).map(|at| sum(at).to_bits()).collect::<Vec<_>>()
    };
    assert_ne!(floats(&forward), floats(&backward), "float sums depend on the order");
    let ours = |order: &[usize]| {
        let mut total = vec![0; 32];
        order.iter().for_each(|&i| abelian_add(&mut total, &parts[i]));
        total.iter().enumerate().map(|(at, &s)| (s as f32 * unit(at)).to_bits()).collect::<Vec<_>>()
    };
    assert_eq!(ours(&forward), ours(&backward));
}
