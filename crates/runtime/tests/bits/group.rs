//! Groups of workers that share the terms or the channels give the bits of one process, whatever the order of arrival.

use std::sync::{Arc, Barrier, Mutex};

use fpxint::{Costs, Gather, GroupError, Partition, Reduce, Width, abelian_add};
use fpxint_runtime::{Crew, Options, Sharing, Value};

use crate::{array, bits, feed, load, models, options};

/// Adds the sums of all threads of a group in their order of arrival, cut into tiles, and keeps every worker's.
struct Lockstep {
    total: Mutex<Vec<i64>>,
    barrier: Barrier,
    tiles: usize,
    /// By layer: every worker's partial sums.
    seen: Mutex<Vec<(usize, Vec<i64>)>>,
}

impl Lockstep {
    fn new(workers: usize, tiles: usize) -> Arc<Self> {
        let (total, seen) = (Mutex::default(), Mutex::default());
        Arc::new(Self { total, barrier: Barrier::new(workers), tiles, seen })
    }
}

impl Reduce for Lockstep {
    fn all_reduce(&self, layer: usize, sums: &mut [i64], width: Width) -> Result<(), GroupError> {
        self.seen.lock().unwrap().push((layer, sums.to_vec()));
        {
            let mut total = self.total.lock().unwrap();
            total.resize(sums.len(), 0);
            abelian_add(&mut total, sums);
        }
        self.barrier.wait();
        sums.copy_from_slice(&self.total.lock().unwrap());
        if width == Width::Narrow {
            // As after a reduce modulo 2^32.
            sums.iter_mut().for_each(|sum| *sum = i64::from(*sum as i32));
        }
        if self.barrier.wait().is_leader() {
            self.total.lock().unwrap().clear();
        }
        self.barrier.wait();
        Ok(())
    }

    fn tiles(&self, _sums: usize) -> usize {
        self.tiles
    }
}

/// Collects what the threads of a group give.
struct Collect {
    parts: Mutex<Vec<(usize, Vec<f32>)>>,
    barrier: Barrier,
}

/// A worker's end of it.
struct Place(usize, Arc<Collect>);

impl Gather for Place {
    fn all_gather(&self, _layer: usize, own: &[f32], counts: &[usize], all: &mut [f32]) -> Result<(), GroupError> {
        let Self(worker, collect) = self;
        assert_eq!(own.len(), counts[*worker]);
        collect.parts.lock().unwrap().push((*worker, own.to_vec()));
        collect.barrier.wait();
        {
            let mut parts = collect.parts.lock().unwrap();
            parts.sort_by_key(|(worker, _)| *worker);
            let joined: Vec<f32> = parts.iter().flat_map(|(_, part)| part.clone()).collect();
            all.copy_from_slice(&joined);
        }
        if collect.barrier.wait().is_leader() {
            collect.parts.lock().unwrap().clear();
        }
        collect.barrier.wait();
        Ok(())
    }
}

const PRECISIONS: [(&str, &str); 3] = [("int4x3", "int4x4"), ("int4x2", "int4x2"), ("int2x5", "int8x2")];

/// Runs a function in one thread a worker, all at once; all must return the same bits.
fn all_at_once(workers: usize, run: impl Fn(usize) -> Vec<u32> + Sync) -> Vec<u32> {
    std::thread::scope(|scope| {
        let run = &run;
        let runs: Vec<_> = (0..workers).map(|worker| scope.spawn(move || run(worker))).collect();
        let found: Vec<_> = runs.into_iter().map(|run| run.join().unwrap()).collect();
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]));
        found.into_iter().next().unwrap()
    })
}

/// What workers that share terms give, all at once; a layer's sums are reduced in some tiles.
pub fn terms_at_once(
    source: &fpxint_onnx::Model,
    options: &Options,
    x: &[(String, Value)],
    (workers, tiles): (usize, usize),
) -> Vec<u32> {
    let (reduce, partition) = (Lockstep::new(workers, tiles), Partition::new(workers, Costs::default()));
    all_at_once(workers, |worker| {
        let sharing = Sharing::Terms { worker, partition, reduce: reduce.clone() };
        bits(&load(source, &Options { sharing, ..options.clone() }).run(x).unwrap())
    })
}

/// What workers that share channels give, all at once.
pub fn channels_at_once(
    source: &fpxint_onnx::Model,
    options: &Options,
    x: &[(String, Value)],
    workers: usize,
) -> Vec<u32> {
    let collect = Arc::new(Collect { parts: Mutex::default(), barrier: Barrier::new(workers) });
    all_at_once(workers, |worker| {
        let gather = Arc::new(Place(worker, collect.clone()));
        let sharing = Sharing::Channels { worker, workers, gather };
        bits(&load(source, &Options { sharing, ..options.clone() }).run(x).unwrap())
    })
}

#[test]
fn workers_of_one_process_give_the_bits_of_one() {
    for (source, input, shape) in models() {
        let x = feed(input, array(&[&[3], &shape[..]].concat(), 0.4));
        for ((weights, activations), asymmetric) in PRECISIONS.iter().flat_map(|p| [(p, false), (p, true)]) {
            let options = Options { asymmetric, ..options(weights, activations) };
            let want = bits(&load(&source, &options).run(&x).unwrap());
            for workers in [1, 2, 3, 4, 8, 16] {
                for threads in [1, 3] {
                    let sharing = Sharing::Crew(Crew::of(workers));
                    let model = load(&source, &Options { sharing, threads, ..options.clone() });
                    for _ in 0..2 {
                        let got = bits(&model.run(&x).unwrap());
                        assert_eq!(got, want, "{weights} {activations} {workers} workers {threads} threads");
                    }
                }
            }
        }
    }
}

#[test]
fn workers_in_lock_step_give_the_bits_of_one() {
    for (source, input, shape) in models() {
        let x = feed(input, array(&[&[3], &shape[..]].concat(), 0.4));
        for ((weights, activations), asymmetric) in PRECISIONS.iter().flat_map(|p| [(p, false), (p, true)]) {
            let options = Options { asymmetric, ..options(weights, activations) };
            let want = bits(&load(&source, &options).run(&x).unwrap());
            for (workers, tiles) in [(1, 1), (2, 1), (3, 4), (5, 2), (8, 1)] {
                let got = terms_at_once(&source, &options, &x, (workers, tiles));
                assert_eq!(got, want, "{weights} {activations} {workers} workers");
            }
        }
    }
}

/// Equations 5 and 6 in every layer of whole models: the partial sums of basis models that share their activations, or their
/// weights, add up to those of the model that has both, where all run in lock-step on the same values.
#[test]
fn partial_sums_of_basis_models_add_up_in_every_layer() {
    for (source, input, shape) in models() {
        let x = feed(input, array(&[&[2], &shape[..]].concat(), 0.7));
        // Weights of two terms and activations of one: the members are (W_1, A), (W_2, A); and the other way round.
        for (weights, activations) in [("int4x2", "int8x1"), ("int8x1", "int4x2")] {
            let options = Options { asymmetric: true, ..options(weights, activations) };
            let sums = |workers: usize| {
                let reduce = Lockstep::new(workers, 1);
                let partition = Partition::new(workers, Costs::default());
                all_at_once(workers, |worker| {
                    let sharing = Sharing::Terms { worker, partition, reduce: reduce.clone() };
                    bits(&load(&source, &Options { sharing, ..options.clone() }).run(&x).unwrap())
                });
                std::mem::take(&mut *reduce.seen.lock().unwrap())
            };
            let (whole, parts) = (sums(1), sums(2));
            assert_eq!(parts.len(), 2 * whole.len());
            for ((layer, total), pair) in whole.iter().zip(parts.chunks(2)) {
                assert!(pair.iter().all(|(of, sums)| of == layer && sums != total), "each has a part only");
                let mut sum = pair[0].1.clone();
                abelian_add(&mut sum, &pair[1].1);
                assert_eq!(&sum, total, "layer {layer} {weights} {activations}");
            }
        }
    }
}

#[test]
fn channels_of_workers_give_the_bits_of_one() {
    for (source, input, shape) in models() {
        let x = feed(input, array(&[&[3], &shape[..]].concat(), 0.4));
        for (weights, activations) in PRECISIONS {
            for terms in [None, Some(2)] {
                let asymmetric = activations.starts_with("int4");
                let options = Options { weight_terms: terms, asymmetric, ..options(weights, activations) };
                let want = bits(&load(&source, &options).run(&x).unwrap());
                for workers in [1, 2, 3, 8] {
                    let got = channels_at_once(&source, &options, &x, workers);
                    assert_eq!(got, want, "{weights} {activations} {workers} workers");
                }
            }
        }
    }
}

#[test]
fn workers_start_in_another_order_every_time() {
    let (source, input, shape) = models().swap_remove(0);
    let x = feed(input, array(&[&[1], &shape[..]].concat(), 0.4));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = seen.clone();
    let watch: Arc<dyn Fn(usize, usize) + Send + Sync> =
        Arc::new(move |worker, layer| note.lock().unwrap().push((layer, worker)));
    let crew = Crew { watch: Some(watch), ..Crew::of(8) };
    let model = load(&source, &Options { sharing: Sharing::Crew(crew), ..options("int4x4", "int4x2") });
    for _ in 0..4 {
        model.run(&x).unwrap();
    }
    let seen = seen.lock().unwrap();
    let mut orders: Vec<Vec<usize>> =
        seen.chunks(8).map(|run| run.iter().map(|(_, worker)| *worker).collect()).collect();
    let sorted = |order: &Vec<usize>| {
        let mut order = order.clone();
        order.sort_unstable();
        order == (0..8).collect::<Vec<_>>()
    };
    assert!(orders.iter().all(sorted), "every worker once a layer");
    let count = orders.len();
    orders.sort();
    orders.dedup();
    assert!(orders.len() > count / 2, "{} orders of {count}", orders.len());
}

#[test]
fn a_terms_worker_holds_its_terms_in_their_bits() {
    let (source, ..) = models().swap_remove(0);
    let held = |worker, workers| {
        let partition = Partition::new(workers, Costs::default());
        let sharing = Sharing::Terms { worker, partition, reduce: Lockstep::new(1, 1) };
        load(&source, &Options { sharing, ..options("int4x4", "int4x4") }).held_bytes()
    };
    let whole = held(0, 1);
    for worker in 0..4 {
        let own = held(worker, 4);
        assert_eq!(own.all_terms, whole.all_terms);
        // All limbs of panels that are padded take more than the bits; a quarter of them takes a quarter.
        assert!(own.terms * 4 <= whole.terms + 4096 && own.terms > 0, "{own:?} of {whole:?}");
    }
    let idle = load(&source, &Options { sharing: Sharing::Crew(Crew::of(20)), ..options("int4x4", "int4x4") });
    assert_eq!(idle.idle_workers(), 4);
}
