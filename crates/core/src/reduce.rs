//! AbelianAdd and AbelianMul: partial integer sums of basis models, in `Z / 2^64` (definitions 1 and 2, eq. 5 to 8).
//!
//! Integer addition modulo `2^64` is associative and commutative without exception, which float addition is not: any
//! order of reduction over any number of workers gives the same bits. The scales apply once, after the reduce.

use thiserror::Error;

use crate::Width;

/// Adds the partial sums of one basis model to those of another (definition 1).
///
/// # Panics
/// If the two differ in length.
pub fn abelian_add(total: &mut [i64], partial: &[i64]) {
    assert_eq!(total.len(), partial.len(), "partial sums of one layer have one shape");
    for (sum, &value) in total.iter_mut().zip(partial) {
        *sum = sum.wrapping_add(value);
    }
}

/// Multiplies partial sums by an integer (definition 2): by a power of two, it lifts a member to the unit of the whole series.
pub fn abelian_mul(sums: &mut [i64], factor: i64) {
    for sum in sums {
        *sum = sum.wrapping_mul(factor);
    }
}

/// A group of workers that cannot go on together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct GroupError(pub String);

/// Sums a layer's partial results over the workers of a group. All of them call it for the same layers in the same order.
pub trait Reduce: Send + Sync {
    /// Replaces `sums`, this worker's partial sums of layer `layer` or of a tile of it, by the total over all workers.
    ///
    /// # Errors
    /// [`GroupError`] where the group has no total.
    fn all_reduce(&self, layer: usize, sums: &mut [i64], width: Width) -> Result<(), GroupError>;

    /// Tiles that `sums` values are cut into, each reduced while the next is computed; the same for every worker.
    fn tiles(&self, sums: usize) -> usize {
        let _ = sums;
        1
    }
}

/// Collects a layer's output channels from the workers of a group. All of them call it for the same layers in the same order.
pub trait Gather: Send + Sync {
    /// Fills `all` with what every worker gives, in order of the workers: `own` is this worker's, `counts` are the lengths of all.
    ///
    /// # Errors
    /// [`GroupError`] where something is missing.
    fn all_gather(&self, layer: usize, own: &[f32], counts: &[usize], all: &mut [f32]) -> Result<(), GroupError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(mut a: Vec<i64>, b: &[i64]) -> Vec<i64> {
        abelian_add(&mut a, b);
        a
    }

    fn product(mut a: Vec<i64>, factor: i64) -> Vec<i64> {
        abelian_mul(&mut a, factor);
        a
    }

    /// Any integers, the ends of the range often among them.
    fn integers() -> impl Strategy<Value = Vec<i64>> {
        let value = prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), Just(-1i64), -5i64..5];
        prop::collection::vec(value, 9)
    }

    proptest! {
        #[test]
        fn partial_sums_are_an_abelian_group(a in integers(), b in integers(), c in integers()) {
            let zero = vec![0; 9];
            let inverse = product(a.clone(), -1);
            prop_assert_eq!(sum(a.clone(), &b).len(), 9);
            prop_assert_eq!(sum(a.clone(), &b), sum(b.clone(), &a));
            prop_assert_eq!(sum(sum(a.clone(), &b), &c), sum(a.clone(), &sum(b.clone(), &c)));
            prop_assert_eq!(&sum(a.clone(), &zero), &a);
            prop_assert_eq!(sum(a.clone(), &inverse), zero);
        }

        #[test]
        fn multiplication_is_a_homomorphism(a in integers(), b in integers(), x in any::<i64>(), y in any::<i64>()) {
            prop_assert_eq!(product(sum(a.clone(), &b), x), sum(product(a.clone(), x), &product(b.clone(), x)));
            prop_assert_eq!(product(product(a.clone(), x), y), product(product(a.clone(), y), x));
            prop_assert_eq!(product(a.clone(), x.wrapping_add(y)), sum(product(a.clone(), x), &product(a.clone(), y)));
            prop_assert_eq!(product(a.clone(), 1), a);
        }

        #[test]
        fn narrow_totals_survive_addition_modulo_32_bits(a in integers(), total in prop::collection::vec(any::<i32>(), 9)) {
            // The partial sums may be anything, as long as their total is narrow.
            let b = sum(total.iter().map(|&t| i64::from(t)).collect(), &product(a.clone(), -1));
            let narrow = a.iter().zip(&b).map(|(&a, &b)| (a as i32).wrapping_add(b as i32));
            prop_assert_eq!(narrow.collect::<Vec<_>>(), total);
        }
    }

    #[test]
    fn addition_wraps_at_the_end_of_the_range() {
        assert_eq!(sum(vec![i64::MAX, i64::MIN], &[1, -1]), [i64::MIN, i64::MAX]);
        assert_eq!(product(vec![i64::MIN, 1 << 62], 2), [0, i64::MIN]);
    }
}
