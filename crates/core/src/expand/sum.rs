//! Sum-preserving rounding: the errors of an output channel cancel instead of adding up.
//!
//! The output error of a channel is `sum_k error_k x_k`; where inputs have a common mean, the part of it that grows with the
//! depth is that mean times the sum of the errors. After rounding to the nearest, values next to a tie go to their other
//! neighbour, first within each kernel (the values of one input channel), then over the whole channel:
//!
//! ```text
//! |sum_(k in kernel) error_k| > 1/2:   move the values of largest error with the sign of the sum, one step each
//! |sum_k error_k| > 1/2:               one move in each of the kernels whose remaining sum is largest with that sign; then, where
//!                                      that is not enough, of any values as within a kernel
//! ```
//!
//! A value is at most one step from its nearest integer, on the other side of its float value, so that its error is at most
//! one step; a move may be taken back. No move leaves the range of the terms. Errors are in steps of the last term.

/// Rounds a channel whose integers `q` are the nearest to `values`, both in the order of the tensor, so that the errors of
/// every `kernel` consecutive values and then of all sum to at most 1/2; `q_max` is the largest magnitude of the terms.
pub(super) fn preserve_sum(values: &[f64], q: &mut [i32], kernel: usize, q_max: i64) {
    let nearest = q.to_vec();
    let kernels = kernel > 1 && kernel < q.len();
    if kernels {
        for first in (0..q.len()).step_by(kernel) {
            let range = first..(first + kernel).min(q.len());
            let mut group = Group { values: &values[range.clone()], nearest: &nearest[range.clone()], q_max };
            group.settle(&mut q[range]);
        }
    }
    let mut whole = Group { values, nearest: &nearest, q_max };
    if kernels {
        whole.settle_by_kernel(q, kernel);
    }
    whole.settle(q);
}

/// Values whose errors are to cancel.
struct Group<'a> {
    values: &'a [f64],
    nearest: &'a [i32],
    q_max: i64,
}

/// Moves that bring a sum of errors to at most 1/2, and their direction.
fn moves(sum: f64) -> (usize, i32) {
    ((sum.abs() - 0.5).ceil().max(0.0) as usize, if sum < 0.0 { -1 } else { 1 })
}

impl Group<'_> {
    fn error(&self, q: &[i32], i: usize) -> f64 {
        self.values[i] - f64::from(q[i])
    }

    fn sum(&self, q: &[i32]) -> f64 {
        (0..q.len()).map(|i| self.error(q, i)).sum()
    }

    /// Whether value `i` may move by one in a direction.
    fn may_move(&self, q: &[i32], i: usize, direction: i32) -> bool {
        let moved = q[i] - self.nearest[i];
        let is_other_side = (self.values[i] - f64::from(self.nearest[i])) * f64::from(direction) > 0.0;
        let (now, then) = (i64::from(q[i]).abs(), (i64::from(q[i]) + i64::from(direction)).abs());
        (moved == -direction || (moved == 0 && is_other_side)) && (then <= now || then <= self.q_max)
    }

    /// Moves the values of largest error; of equal ones the first.
    fn settle(&mut self, q: &mut [i32]) {
        let (count, direction) = moves(self.sum(q));
        if count == 0 {
            return;
        }
        let mut free: Vec<usize> = (0..q.len()).filter(|&i| self.may_move(q, i, direction)).collect();
        let error = |&i: &usize| self.error(q, i) * f64::from(direction);
        free.sort_by(|a, b| error(b).total_cmp(&error(a)));
        for &i in free.iter().take(count) {
            q[i] += direction;
        }
    }

    /// One move in each of the kernels whose errors sum to the most, as many as the sum of all asks for.
    fn settle_by_kernel(&mut self, q: &mut [i32], kernel: usize) {
        let (mut count, direction) = moves(self.sum(q));
        if count == 0 {
            return;
        }
        let range = |k: usize| k * kernel..((k + 1) * kernel).min(q.len());
        let rest = |k: usize| range(k).map(|i| self.error(q, i)).sum::<f64>() * f64::from(direction);
        let mut order: Vec<(f64, std::ops::Range<usize>)> =
            (0..q.len().div_ceil(kernel)).map(|k| (rest(k), range(k))).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, range) in order {
            if count == 0 {
                return;
            }
            let free = range.filter(|&i| self.may_move(q, i, direction));
            let error = |i: usize| self.error(q, i) * f64::from(direction);
            // Of equal errors the first.
            let best = free.reduce(|best, i| if error(i) > error(best) { i } else { best });
            if let Some(i) = best {
                q[i] += direction;
                count -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rounded(values: &[f64], kernel: usize, q_max: i64) -> Vec<i32> {
        let mut q: Vec<i32> = values.iter().map(|v| v.round_ties_even() as i32).collect();
        preserve_sum(values, &mut q, kernel, q_max);
        q
    }

    #[test]
    fn the_values_nearest_a_tie_move() {
        let values = [0.4, 1.3, -2.45, 0.1, 3.0, 0.45];
        // Errors 0.4, 0.3, -0.45, 0.1, 0, 0.45 sum to 0.8: one move, of the last.
        assert_eq!(rounded(&values, 1, 7), [0, 1, -2, 0, 3, 1]);
        // Within kernels of three: 0.25 stays, 0.55 moves its last; the whole is then -0.2.
        assert_eq!(rounded(&values, 3, 7), [0, 1, -2, 0, 3, 1]);
        // Past the range nothing moves: the next one does.
        assert_eq!(rounded(&[7.45, 0.4, 0.3], 1, 7), [7, 1, 0]);
    }

    #[test]
    fn kernels_come_before_the_channel() {
        // The kernels' errors are 0.8 and -0.8: their sum is nothing, but each has a move of its own.
        let values = [0.4, 0.4, -0.4, -0.4];
        assert_eq!(rounded(&values, 4, 7), [0, 0, 0, 0]);
        assert_eq!(rounded(&values, 2, 7), [1, 0, -1, 0]);
    }

    proptest! {
        #[test]
        fn errors_cancel_unless_no_value_can_move(
            values in prop::collection::vec(-9.0f64..9.0, 1..60),
            kernel in 1usize..10,
            q_max in 7i64..12,
        ) {
            let q = rounded(&values, kernel, q_max);
            let group = Group { values: &values, nearest: &values.iter().map(|v| v.round_ties_even() as i32).collect::<Vec<_>>(), q_max };
            let sum = group.sum(&q);
            let (_, direction) = moves(sum);
            let can_move = (0..q.len()).any(|i| group.may_move(&q, i, direction));
            prop_assert!(sum.abs() <= 0.5 + 1e-9 || !can_move, "{} left", sum);
            if q_max >= 10 {
                prop_assert!(sum.abs() <= 0.5 + 1e-9, "{} left with all values free", sum);
            }
            for (v, &q) in values.iter().zip(&q) {
                prop_assert!((v - f64::from(q)).abs() <= 1.0 && (q as f64 - v.round_ties_even()).abs() <= 1.0);
                prop_assert!(i64::from(q).abs() <= q_max.max(v.round_ties_even().abs() as i64));
            }
        }
    }
}
