//! One choice an item, least total error within a limit on the total cost (the multiple-choice knapsack problem).
//!
//! ```text
//! least[c] = 0                                              extra cost of at most c units, no item yet
//! for each item:  least'[c] = min over its choices (least[c - extra(choice)] + error(choice))
//! ```
//!
//! Costs are counted above the cheapest choice of each item, in whole units, rounded up. What fits a limit therefore fits
//! every larger one: the least error never grows with the limit.

/// A choice of an item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Choice {
    pub cost: f64,
    pub error: f64,
}

/// The choice of every item, or `None` where even the cheapest ones cost more than `limit`; `unit` is the grain of costs.
///
/// Of choices with equal error the cheaper one is taken, and of those with equal cost too the first.
pub(super) fn least_error(items: &[Vec<Choice>], limit: f64, unit: f64) -> Option<Vec<usize>> {
    let orders: Vec<Vec<usize>> = items.iter().map(|item| worthwhile(item)).collect();
    let base: f64 = items.iter().zip(&orders).map(|(item, order)| item[order[0]].cost).sum();
    if base > limit * (1.0 + 1e-12) {
        return None;
    }
    let extra = |item: usize, choice: usize| {
        let above = items[item][choice].cost - items[item][orders[item][0]].cost;
        (above / unit * (1.0 - 1e-9)).ceil() as usize
    };
    let most: usize = orders.iter().enumerate().map(|(i, order)| order.last().map_or(0, |&c| extra(i, c))).sum();
    let room = (((limit - base) / unit + 1e-6) as usize).min(most);
    let mut least = vec![0f64; room + 1];
    let mut taken = Vec::with_capacity(items.len());
    for (i, order) in orders.iter().enumerate() {
        let steps: Vec<(usize, f64)> = order.iter().map(|&c| (extra(i, c), items[i][c].error)).collect();
        let mut next = vec![f64::INFINITY; room + 1];
        let mut which = vec![0u8; room + 1];
        for (place, &(cost, error)) in steps.iter().enumerate() {
            for room in cost..=room {
                let total = least[room - cost] + error;
                if total < next[room] {
                    (next[room], which[room]) = (total, place as u8);
                }
            }
        }
        least = next;
        taken.push((which, steps));
    }
    let mut left = room;
    let mut found = vec![0; items.len()];
    for (i, (which, steps)) in taken.iter().enumerate().rev() {
        let place = usize::from(which[left]);
        found[i] = orders[i][place];
        left -= steps[place].0;
    }
    Some(found)
}

/// Choices from the cheapest on, without those that cost more and err no less.
fn worthwhile(item: &[Choice]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..item.len()).collect();
    order.sort_by(|&a, &b| item[a].cost.total_cmp(&item[b].cost).then(item[a].error.total_cmp(&item[b].error)));
    let mut kept: Vec<usize> = Vec::new();
    for choice in order {
        if kept.last().is_none_or(|&last| item[choice].error < item[last].error) {
            kept.push(choice);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn total(items: &[Vec<Choice>], found: &[usize]) -> (f64, f64) {
        let chosen = items.iter().zip(found).map(|(item, &c)| item[c]);
        chosen.fold((0.0, 0.0), |(cost, error), c| (cost + c.cost, error + c.error))
    }

    /// All combinations that cost at most `limit`.
    fn exhaustive(items: &[Vec<Choice>], limit: f64) -> Option<f64> {
        let Some((first, rest)) = items.split_first() else { return (limit >= 0.0).then_some(0.0) };
        first.iter().filter_map(|c| Some(c.error + exhaustive(rest, limit - c.cost)?)).reduce(f64::min)
    }

    fn items() -> impl Strategy<Value = Vec<Vec<Choice>>> {
        let choice = (0u32..9, 0u32..100).prop_map(|(cost, error)| Choice { cost: cost.into(), error: error.into() });
        prop::collection::vec(prop::collection::vec(choice, 1..4), 1..6)
    }

    proptest! {
        #[test]
        fn it_is_the_best_of_all_combinations(items in items(), limit in 0u32..40) {
            let limit = f64::from(limit);
            let found = least_error(&items, limit, 1.0);
            let totals = found.map(|found| total(&items, &found));
            prop_assert!(totals.is_none_or(|(cost, _)| cost <= limit));
            prop_assert_eq!(totals.map(|(_, error)| error), exhaustive(&items, limit));
        }

        #[test]
        fn a_larger_limit_never_errs_more(items in items(), limit in 0u32..30, unit in 0.1f64..3.0) {
            let error = |limit: u32| least_error(&items, limit.into(), unit).map(|found| total(&items, &found).1);
            if let (Some(less), Some(more)) = (error(limit), error(limit + 1)) {
                prop_assert!(more <= less);
            }
        }
    }
}
