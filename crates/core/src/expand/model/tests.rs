//! AbelianAdd over basis models: any split, any order, the same bits (eq. 5 to 8).

use super::*;
use crate::{Granularity, abelian_add, expand_tensor};
use proptest::prelude::*;

proptest! {
    #[test]
    fn basis_models_sum_to_the_model_in_any_order(
        x in prop::collection::vec(-1.0f32..1.0, 12),
        codes in prop::collection::vec(0i64..256, 4),
        order in Just([1u32, 2, 3, 4]).prop_shuffle(),
        cut in 1u32..4,
    ) {
        let p = "int4x4".parse().unwrap();
        let series = expand_tensor("w", &x, &[3, 4], 0, p, Granularity::Channel).unwrap();
        let product = |q: &[i32]| -> Vec<i64> {
            q.chunks(4).map(|row| row.iter().zip(&codes).map(|(&q, &u)| i64::from(q) * u).sum()).collect()
        };
        let whole = product(series.q());
        let sum = |parts: &[RangeInclusive<u32>]| {
            let mut total = vec![0i64; 3];
            for part in parts {
                let members = Members { weight_terms: part.clone() };
                abelian_add(&mut total, &product(&basis_weight("w", &series, &members).unwrap()));
            }
            total
        };
        prop_assert_eq!(&sum(&order.map(|t| t..=t)), &whole);
        prop_assert_eq!(&sum(&[1..=cut, cut + 1..=4]), &whole);
        prop_assert_eq!(&sum(&[1..=4]), &whole);
    }
}

#[test]
fn members_outside_the_series_are_refused() {
    let series = expand_tensor("w", &[1.0; 4], &[1, 4], 0, "int4x2".parse().unwrap(), Granularity::Tensor).unwrap();
    for range in [0..=1, 1..=3, RangeInclusive::new(2, 1)] {
        assert!(basis_weight("w", &series, &Members { weight_terms: range }).is_err());
    }
}
