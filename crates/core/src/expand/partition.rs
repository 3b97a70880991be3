//! Which members of a model expansion each worker of a group runs.
//!
//! The members `(i, j)` of a layer stand in a row, `j` fastest, and every worker gets a run of them: so it holds as few weight
//! terms as possible. Among all cuts of the row those are best whose slowest worker is fastest; of these, those whose workers
//! hold the fewest weight terms; of these, the one of least total time. A run is up to three products: terms that begin within a weight term, whole weight terms, and those
//! that end within one. Terms of a product are folded into bytes, so a worker's time is not proportional to its members.

use std::ops::Range;

use crate::{Members, Precision};

/// What products cost a worker, in any unit of time, whole model or layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// One product of bytes.
    pub product: f64,
    /// One product more: unpacking its weights, masking its codes.
    pub start: f64,
}

impl Default for Costs {
    /// Starting a product takes a tenth of the product.
    fn default() -> Self {
        Self { product: 1.0, start: 0.1 }
    }
}

/// How the members of every layer are shared out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Partition {
    workers: usize,
    costs: Costs,
}

impl Partition {
    /// A partition over some workers by measured costs; it must be the same for all workers of a group.
    ///
    /// # Panics
    /// Unless there is a worker.
    pub fn new(workers: usize, costs: Costs) -> Self {
        assert!(workers > 0, "a group has workers");
        Self { workers, costs }
    }

    /// Workers of the group.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// What each worker runs of a layer of these precisions; nothing for workers beyond its members.
    pub fn of(&self, weights: Precision, activations: Precision, depthwise: bool) -> Vec<Vec<Members>> {
        let (n, m) = (weights.order() as usize, activations.order() as usize);
        let (members, runs) = (n * m, self.workers.min(n * m));
        let cost = |run: Range<usize>| self.costs.of(&rectangles(run, m), weights, activations, depthwise);
        let terms = |run: Range<usize>| ((run.end - 1) / m - run.start / m + 1) as f64;
        let (slowest, _) = best_cut(members, runs, f64::max, &|run| Some(cost(run)));
        let fast = |run: Range<usize>| cost(run) <= slowest;
        let (most, _) = best_cut(members, runs, f64::max, &|run| Some(terms(run.clone())).filter(|_| fast(run)));
        let small = |run: Range<usize>| terms(run.clone()) <= most && fast(run);
        let (_, cuts) = best_cut(members, runs, |a, b| a + b, &|run| Some(cost(run.clone())).filter(|_| small(run)));
        let mut shared: Vec<_> = cuts.windows(2).map(|cut| rectangles(cut[0]..cut[1], m)).collect();
        shared.resize(self.workers, Vec::new());
        shared
    }
}

/// The cut of `0 .. members` into `runs` of the least value, which is combined of those of its runs; `None` forbids a run.
fn best_cut(
    members: usize,
    runs: usize,
    combine: fn(f64, f64) -> f64,
    value: &dyn Fn(Range<usize>) -> Option<f64>,
) -> (f64, Vec<usize>) {
    // best[k][end]: of the first `end` members in `k` runs, and where the last begins.
    let mut best = vec![vec![(f64::INFINITY, 0usize); members + 1]; runs + 1];
    best[0][0] = (0.0, 0);
    for k in 1..=runs {
        for end in k..=members {
            for from in (k - 1..end).filter(|&from| best[k - 1][from].0.is_finite()).collect::<Vec<_>>() {
                if let Some(own) = value(from..end) {
                    let found = combine(best[k - 1][from].0, own);
                    if found < best[k][end].0 {
                        best[k][end] = (found, from);
                    }
                }
            }
        }
    }
    let (mut cuts, mut end) = (vec![members], members);
    for k in (1..=runs).rev() {
        end = best[k][end].1;
        cuts.push(end);
    }
    cuts.reverse();
    (best[runs][members].0, cuts)
}

impl Costs {
    /// Time of a worker's products of a layer.
    pub fn of(&self, run: &[Members], weights: Precision, activations: Precision, depthwise: bool) -> f64 {
        run.iter().map(|members| self.start + self.product * products(members, weights, activations, depthwise)).sum()
    }
}

/// Products of bytes that members take, folded.
fn products(members: &Members, weights: Precision, activations: Precision, depthwise: bool) -> f64 {
    let count = |terms: &std::ops::RangeInclusive<u32>| terms.end() - terms.start() + 1;
    let limbs = (weights.bits() * count(&members.weights)).div_ceil(if depthwise { 16 } else { 8 });
    // Bytes of a code that its digits touch.
    let bits = activations.bits();
    let low = bits * (activations.order() - members.activations.end());
    let planes = (low + bits * count(&members.activations)).div_ceil(8) - low / 8;
    f64::from(limbs * planes)
}

/// A run of members as rectangles, in order; `m` activation terms a weight term.
fn rectangles(run: Range<usize>, m: usize) -> Vec<Members> {
    let mut found: Vec<Members> = Vec::new();
    let mut at = run.start;
    while at < run.end {
        let (i, j) = (at / m, at % m);
        let last = (m - j).min(run.end - at);
        let (weight, activations) = (i as u32 + 1, j as u32 + 1..=(j + last) as u32);
        at += last;
        match found.last_mut() {
            Some(before) if before.activations == activations => {
                before.weights = *before.weights.start()..=weight;
            }
            _ => found.push(Members { weights: weight..=weight, activations }),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn precision(text: &str) -> Precision {
        text.parse().unwrap()
    }

    const PRECISIONS: [&str; 6] = ["int4x1", "int4x2", "int4x3", "int4x4", "int2x5", "int8x2"];

    #[test]
    fn every_member_has_one_worker() {
        for (w, a) in PRECISIONS.iter().flat_map(|w| PRECISIONS.map(|a| (*w, a))) {
            let (weights, activations) = (precision(w), precision(a));
            for workers in [1, 2, 3, 4, 5, 8, 16, 40] {
                let shared = Partition::new(workers, Costs::default()).of(weights, activations, false);
                assert_eq!(shared.len(), workers);
                let mut seen = vec![0; (weights.order() * activations.order()) as usize];
                for members in shared.iter().flatten() {
                    for (i, j) in members.weights.clone().flat_map(|i| members.activations.clone().map(move |j| (i, j)))
                    {
                        seen[((i - 1) * activations.order() + j - 1) as usize] += 1;
                    }
                }
                assert!(seen.iter().all(|&count| count == 1), "{w} {a} {workers}: {shared:?}");
                let busy = shared.iter().filter(|run| !run.is_empty()).count();
                assert_eq!(busy, workers.min(seen.len()), "{w} {a} {workers}");
                assert!(shared.iter().all(|run| run.len() <= 3));
            }
        }
    }

    #[test]
    fn a_worker_holds_few_weight_terms_and_the_slowest_is_fast() {
        let members = |weights, activations| vec![Members { weights, activations }];
        let of = |workers, w, a| Partition::new(workers, Costs::default()).of(precision(w), precision(a), false);
        assert_eq!(of(2, "int4x4", "int4x4"), [members(1..=2, 1..=4), members(3..=4, 1..=4)]);
        assert_eq!(of(4, "int4x4", "int4x4"), (1..=4).map(|i| members(i..=i, 1..=4)).collect::<Vec<_>>());
        assert_eq!(of(2, "int4x2", "int4x2"), [members(1..=1, 1..=2), members(2..=2, 1..=2)]);
        let shared = of(8, "int4x4", "int4x4");
        assert_eq!((&shared[0], &shared[7]), (&members(1..=1, 1..=2), &members(4..=4, 3..=4)));
        // Three terms of four bits by two of four: two workers fold two of them into a byte, and share the third.
        let slowest = |workers: usize| {
            let costs = Costs::default();
            let shared = of(workers, "int4x3", "int4x4");
            let time = |run: &Vec<Members>| costs.of(run, precision("int4x3"), precision("int4x4"), false);
            shared.iter().map(time).fold(0.0, f64::max)
        };
        assert!(slowest(2) < slowest(1) && slowest(3) <= slowest(2) && slowest(6) < slowest(3));
    }

    #[test]
    fn starting_a_product_counts() {
        // Three workers of four members each begin and end within weight terms, unless that costs more than it gains.
        let (w, a) = (precision("int4x2"), precision("int4x4"));
        let whole = |costs| Partition::new(2, costs).of(w, a, false).iter().map(Vec::len).max();
        assert_eq!(whole(Costs { product: 1.0, start: 10.0 }), Some(1));
        let idle = Partition::new(3, Costs::default()).of(precision("int4x1"), precision("int4x2"), true);
        assert!(idle[2].is_empty() && !idle[1].is_empty());
    }
}
