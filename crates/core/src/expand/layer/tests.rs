//! Eq. 3: the sum over term products equals the integer product, and the float product within its bound.

use super::*;
use crate::{Grid, MatMulGeometry, limb_count, limbs::balanced_limbs};

fn layer(weight: Weight) -> Layer {
    let geometry = Geometry::MatMul(MatMulGeometry { k: 9, n: 2, transposed: true });
    Layer { name: "fc".to_owned(), geometry, weight, bias: Some(vec![0.5, -0.5]) }
}

fn settings(weights: &str, activations: &str) -> Settings {
    let (weights, activations) = (weights.parse().unwrap(), activations.parse().unwrap());
    Settings {
        weights,
        activations,
        granularity: Granularity::Channel,
        rounding: Rounding::Nearest,
        clip: Clip::None,
        asymmetric: false,
        activation_clip: Default::default(),
    }
}

#[test]
fn term_products_sum_to_the_integer_product() {
    let w: Vec<f32> = (0..18).map(|i| (i as f32 * 1.3).sin()).collect();
    let x: Vec<f32> = (0..9).map(|i| (i as f32 * 2.1).cos() * 3.0 + 1.0).collect();
    for (weights, activations) in
        [("int4x2", "int4x2"), ("int2x4", "int4x3"), ("int8x2", "int8x2"), ("int4x3", "int2x2")]
    {
        let s = settings(weights, activations);
        let expanded = expand_layer(&layer(Weight::Float(w.clone())), &s).unwrap();
        let (p, a) = (expanded.weight.precision(), s.activations);
        let (low, high) = x.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
        let grid = Grid::new(low, high, a);
        let codes: Vec<i32> = x.iter().map(|&v| grid.code(v)).collect();
        for c in 0..2 {
            let q = &expanded.weight.q()[c * 9..][..9];
            let direct: i64 = q.iter().zip(&codes).map(|(&q, &u)| i64::from(q) * i64::from(u - grid.zero_point)).sum();
            let mut by_terms = 0i64;
            for i in 1..=p.order() {
                let wi = &expanded.weight.term(i)[c * 9..][..9];
                let shift = p.bits() * (p.order() - i);
                // A_nsy: the zero point's rank-one part belongs to who owns W_i.
                let column: i64 = wi.iter().map(|&w| i64::from(w)).sum();
                by_terms += (column * (a.centre() - i64::from(grid.zero_point))) << shift;
                for j in 0..a.order() as usize {
                    let product: i64 =
                        wi.iter().zip(&codes).map(|(&w, &u)| i64::from(w) * i64::from(Grid::digits(u, a)[j])).sum();
                    by_terms += product << (shift + a.bits() * (a.order() - 1 - j as u32));
                }
            }
            assert_eq!(by_terms, direct, "{weights} {activations}");
            let limbs = balanced_limbs(q, limb_count(p.total_bits()));
            let folded: i64 = limbs.iter().enumerate().fold(0, |sum, (l, limb)| {
                let part: i64 =
                    limb.iter().zip(&codes).map(|(&w, &u)| i64::from(w) * i64::from(u - grid.zero_point)).sum();
                sum + (part << (8 * l))
            });
            assert_eq!(folded, direct);

            let scales = f64::from(expanded.weight.term_scales(p.order())[c]) * f64::from(grid.scale);
            let exact: f64 = (0..9).map(|k| f64::from(w[c * 9 + k]) * f64::from(x[k])).sum();
            let absolute: f64 = x.iter().map(|v| f64::from(v.abs())).sum();
            let weights: f64 = expanded.weight.values("fc", p.order()).unwrap().skip(c * 9).take(9).map(f64::abs).sum();
            let bound = absolute * expanded.weight.bound(p.order(), c) + weights * grid.bound();
            assert!((scales * direct as f64 - exact).abs() <= bound);
        }
    }
}

#[test]
fn a_series_keeps_its_integers() {
    let w: Vec<f32> = (0..18).map(|i| (i as f32).sin()).collect();
    let first = expand_layer(&layer(Weight::Float(w)), &settings("int4x3", "int4x2")).unwrap();
    let again = expand_layer(&layer(Weight::Series(first.weight.clone())), &settings("int2x1", "int8x2")).unwrap();
    assert_eq!(again.weight, first.weight);
    let products = |l: &ExpandedLayer| {
        ExpandedLayer::products(&l.geometry, l.weight.width(l.weight.precision().order()), l.activations)
    };
    assert_eq!((products(&first), products(&again)), (2, 4));
}

#[test]
fn a_bad_bias_names_its_layer() {
    let mut bad = layer(Weight::Float(vec![0.0; 18]));
    bad.bias = Some(vec![0.0, f32::INFINITY]);
    let error = expand_layer(&bad, &settings("int4x2", "int4x2")).unwrap_err();
    assert!(error.to_string().contains("`fc.bias` holds inf at element 1"), "{error}");
}
