//! A group of workers that share the terms gives the bits of one that owns them all.

use std::sync::{Arc, Barrier, Mutex};

use fpxint::{Members, Reduce, abelian_add};
use fpxint_runtime::{Options, Worker};

use crate::build::digits;
use crate::{array, bits, feed, load, options};

/// Adds the sums of all threads of a group; the order is that of arrival.
struct Shared {
    total: Mutex<Vec<i64>>,
    barrier: Barrier,
}

impl Reduce for Shared {
    fn all_reduce(&self, _layer: usize, sums: &mut [i64]) {
        {
            let mut total = self.total.lock().unwrap();
            total.resize(sums.len(), 0);
            abelian_add(&mut total, sums);
        }
        self.barrier.wait();
        sums.copy_from_slice(&self.total.lock().unwrap());
        if self.barrier.wait().is_leader() {
            self.total.lock().unwrap().clear();
        }
        self.barrier.wait();
    }
}

#[test]
fn workers_give_the_bits_of_one() {
    let source = digits();
    let x = feed("input", array(&[3, 1, 8, 8], 0.4));
    for (weights, splits) in
        [("int4x2", vec![vec![1..=1, 2..=2]]), ("int2x4", vec![vec![1..=3, 4..=4], vec![1..=1, 2..=2, 3..=4]])]
    {
        let options = options(weights, "int4x2");
        let want = bits(&load(&source, &options).run(&x).unwrap());
        for split in splits {
            let shared = Arc::new(Shared { total: Mutex::default(), barrier: Barrier::new(split.len()) });
            let worker = |weight_terms| {
                let worker = Worker { members: Members { weight_terms }, reduce: shared.clone() };
                load(&source, &Options { worker: Some(worker), ..options.clone() })
            };
            let models: Vec<_> = split.iter().cloned().map(worker).collect();
            std::thread::scope(|scope| {
                let runs: Vec<_> = models.iter().map(|m| scope.spawn(|| bits(&m.run(&x).unwrap()))).collect();
                for run in runs {
                    assert_eq!(run.join().unwrap(), want, "{weights} split as {split:?}");
                }
            });
        }
    }
}
