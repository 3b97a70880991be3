//! AbelianAdd: partial integer sums of basis models, added in `Z / 2^64` (definition 1, eq. 5 to 8).
//!
//! Integer addition modulo `2^64` is associative and commutative without exception, which float addition is not: any
//! order of reduction over any number of workers gives the same bits. The scales apply once, after the reduce.

/// Adds the partial sums of one basis model to those of another.
///
/// # Panics
/// If the two differ in length.
pub fn abelian_add(total: &mut [i64], partial: &[i64]) {
    assert_eq!(total.len(), partial.len(), "partial sums of one layer have one shape");
    for (sum, &value) in total.iter_mut().zip(partial) {
        *sum = sum.wrapping_add(value);
    }
}

/// Sums a layer's partial results over the workers of a group.
pub trait Reduce: Sync {
    /// Replaces `sums`, this worker's partial sums of layer `layer`, by the total over all workers.
    fn all_reduce(&self, layer: usize, sums: &mut [i64]);
}
