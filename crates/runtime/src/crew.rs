//! Workers within one process: the sums of a layer's members in any order, and what goes on where a worker is lost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use fpxint::{Lost, Members, abelian_add, abelian_mul, balanced_words};
use fpxint_kernels::{Codes, Epilogue, Product, Room, Share, Weights};
use rayon::prelude::*;

use crate::held::Scratch;
use crate::layer::{Layer, code_bits, shape_of};
use crate::shared::{Shared, TermShare, weightless};
use crate::sharing::Crew;
use crate::{Error, Model};

/// What a run goes on without.
#[derive(Debug, Clone, PartialEq)]
pub struct Missing {
    /// Numbers of the lost workers, ascending, from 0.
    pub workers: Vec<usize>,
    /// The layers that lack something.
    pub layers: Vec<MissingLayer>,
}

/// What a layer goes on without, and the bounds that hold.
#[derive(Debug, Clone, PartialEq)]
pub struct MissingLayer {
    /// Name of the layer.
    pub name: String,
    /// Lost members.
    pub members: Vec<Members>,
    /// Largest error of a weight, where no member but whole weight terms is lost.
    pub weight_bound: Option<f64>,
    /// What no output differs by from that of all members, in steps of the activations' grid.
    pub output_bound: f64,
}

/// A layer that lost members: what is added for them, and its epilogue in the finer unit of the means.
#[derive(Debug)]
struct Degraded {
    means: Vec<(Product, Share)>,
    finish: Product,
    factor: i64,
}

/// What is lost.
#[derive(Debug, Default)]
pub(crate) struct State {
    lost: Vec<usize>,
    layers: Vec<Option<Degraded>>,
    missing: Option<Missing>,
}

/// The workers of a model.
pub(crate) struct Working {
    crew: Crew,
    state: RwLock<Arc<State>>,
    /// Where the next order of arrival comes from.
    order: AtomicU64,
}

impl std::fmt::Debug for Working {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Working").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Working {
    pub(crate) fn new(crew: &Crew) -> Self {
        Self { crew: crew.clone(), state: RwLock::default(), order: AtomicU64::new(0x9e37_79b9_7f4a_7c15) }
    }

    fn state(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The workers that are left, in another order every time.
    fn shuffled(&self, lost: &[usize]) -> Vec<usize> {
        let mut left: Vec<_> = (0..self.crew.partition.workers()).filter(|worker| !lost.contains(worker)).collect();
        let mut seed = self.order.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        for i in (1..left.len()).rev() {
            seed = (seed ^ (seed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(i as u64);
            left.swap(i, (seed >> 33) as usize % (i + 1));
        }
        left
    }
}

impl Model {
    /// Takes a worker of the crew out: from the next layer on its members are replaced by the products of their mean.
    ///
    /// # Errors
    /// [`Error::Worker`] where the model has no such worker, does without none, or the worker had the first term of a layer, without
    /// which the rest is of no use.
    pub fn lose(&self, worker: usize) -> Result<(), Error> {
        let fault = |reason: String| Error::Worker { worker, reason };
        let Some(working) = &self.working else { return Err(fault("the model has no workers".to_owned())) };
        let workers = working.crew.partition.workers();
        if worker >= workers {
            return Err(fault(format!("there are {workers}, counted from 0")));
        }
        if !working.crew.allow_missing {
            return Err(fault("is lost, and missing terms are not allowed".to_owned()));
        }
        let mut lost = working.state().lost.clone();
        if lost.contains(&worker) {
            return Ok(());
        }
        lost.push(worker);
        lost.sort_unstable();
        let state = self.without(lost).map_err(|error| match error {
            Error::Worker { reason, .. } => fault(reason),
            error => error,
        })?;
        *working.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
        Ok(())
    }

    /// Workers within this process; 0 where the model is not shared among any.
    pub fn crew_size(&self) -> usize {
        self.working.as_ref().map_or(0, |working| working.crew.partition.workers())
    }

    /// What runs go on without; `None` where nothing is lost.
    pub fn missing(&self) -> Option<Missing> {
        self.working.as_ref()?.state().missing.clone()
    }

    /// The state without some workers.
    fn without(&self, lost: Vec<usize>) -> Result<State, Error> {
        let (mut layers, mut missing) = (Vec::new(), Vec::new());
        for (index, layer) in self.layers.iter().enumerate() {
            let name = &self.layers()[index].name;
            let made = match &layer.shared {
                Some(Shared::Terms(share)) => degraded(name, layer, share, &lost)?,
                _ => None,
            };
            layers.push(made.map(|(degraded, layer)| {
                missing.push(layer);
                degraded
            }));
        }
        let missing = Some(Missing { workers: lost.clone(), layers: missing });
        Ok(State { lost, layers, missing })
    }

    /// Adds the sums of a layer over all workers that are left; returns what finishes them.
    pub(crate) fn crew_sums(
        &self,
        index: usize,
        working: &Working,
        share: &TermShare,
        codes: &Codes,
        (sums, scratch): (&mut [i64], &mut Scratch),
    ) -> Result<Finish, Error> {
        loop {
            let state = working.state();
            let order = working.shuffled(&state.lost);
            sums.fill(0);
            let Err((worker, reason)) = self.add_up(index, working, share, codes, &order, (&mut *sums, &mut *scratch))
            else {
                if let Some(degraded) = state.layers.get(index).and_then(Option::as_ref) {
                    abelian_mul(sums, degraded.factor);
                    let (threads, room) = (scratch.threads, scratch.room());
                    for (product, share) in &degraded.means {
                        product.partial_of(self.kernel, codes, *share, (0, &mut *sums), threads, room);
                    }
                }
                return Ok(Finish { state, index });
            };
            // What it had added in part is dropped with it.
            if !working.crew.allow_missing {
                return Err(Error::Worker { worker, reason: format!("failed: {reason}") });
            }
            self.lose(worker)?;
        }
    }

    /// Adds the sums of these workers, which start in this order; says who failed.
    fn add_up(
        &self,
        index: usize,
        working: &Working,
        share: &TermShare,
        codes: &Codes,
        order: &[usize],
        (sums, scratch): (&mut [i64], &mut Scratch),
    ) -> Result<(), (usize, String)> {
        let add = |worker: usize, sums: &mut [i64], threads: usize, room: &mut Room| {
            let run = || {
                if let Some(watch) = &working.crew.watch {
                    watch(worker, index);
                }
                for part in &share.workers[worker] {
                    part.product.partial_of(self.kernel, codes, part.share, (0, &mut *sums), threads, room);
                }
            };
            catch_unwind(AssertUnwindSafe(run)).map_err(|payload| {
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                (worker, text.unwrap_or_else(|| "no reason given".to_owned()))
            })
        };
        let threads = scratch.threads;
        if threads == 1 || order.len() < threads {
            let room = scratch.room();
            return order.iter().try_for_each(|&worker| add(worker, sums, threads, room));
        }
        // A thread adds up what it runs; whoever is done first adds to the total first.
        let (next, total) = (AtomicUsize::new(0), Mutex::new(sums));
        let thread = |(own, room): &mut (Vec<i64>, Room)| {
            let len = total.lock().map_or(0, |sums| sums.len());
            own.clear();
            own.resize(len, 0);
            while let Some(&worker) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                add(worker, own, 1, room)?;
            }
            abelian_add(&mut total.lock().unwrap_or_else(PoisonError::into_inner), own);
            Ok(())
        };
        let own = scratch.own(threads);
        own.par_iter_mut().with_max_len(1).try_for_each(thread)
    }
}

/// What turns a layer's sums into its outputs.
pub(crate) struct Finish {
    state: Arc<State>,
    index: usize,
}

impl Finish {
    /// The product that finishes: the layer's own, unless it lacks something.
    pub(crate) fn product<'a>(&'a self, own: &'a Product) -> &'a Product {
        self.state.layers.get(self.index).and_then(Option::as_ref).map_or(own, |degraded| &degraded.finish)
    }
}

/// A layer without some workers; `None` where they had nothing of it.
fn degraded(
    name: &str,
    layer: &Layer,
    share: &TermShare,
    lost: &[usize],
) -> Result<Option<(Degraded, MissingLayer)>, Error> {
    let parts: Vec<_> = lost.iter().filter_map(|&worker| share.workers.get(worker)).flatten().collect();
    if parts.is_empty() {
        return Ok(None);
    }
    let members: Vec<Members> = parts.iter().map(|part| part.members.clone()).collect();
    if members.iter().any(|m| *m.weights.start() == 1 && *m.activations.start() == 1) {
        let reason = format!("had the first term of layer `{name}`, without which the rest is of no use");
        return Err(Error::Worker { worker: lost[0], reason });
    }
    // One mean for all weights that are lost with the same digits of the codes.
    let mut losses: Vec<Lost> = Vec::new();
    for lost in parts.iter().filter_map(|part| part.lost.as_ref()) {
        match losses.iter_mut().find(|other| other.codes == lost.codes) {
            Some(other) => {
                let add = |to: &mut [i64], from: &[i64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
                add(&mut other.sums, &lost.sums);
                add(&mut other.magnitudes, &lost.magnitudes);
            }
            None => losses.push(lost.clone()),
        }
    }
    let bits = share.facts.precision.bits();
    let shape = shape_of(&layer.geometry);
    let fault = |source| Error::Layer { layer: name.to_owned(), source };
    let mut means = Vec::new();
    for loss in &losses {
        let mean = share.facts.mean(loss);
        let mean_bits = mean.iter().map(|m| 64 - m.unsigned_abs().leading_zeros()).max().unwrap_or(0);
        let total = code_bits(share.activations, share.clip);
        Product::check(&shape, share.weight_bits + bits, mean_bits, total).map_err(fault)?;
        means.push((
            mean_product(layer, share, &mean)?,
            Share { mask: loss.codes.mask, offset: loss.codes.offset, owner: loss.codes.owner },
        ));
    }
    let finer = |scale: &f32| scale / (1u32 << bits) as f32;
    let epilogue = Epilogue {
        scales: share.epilogue.scales.iter().map(finer).collect(),
        activation: layer.product.activation(),
        ..share.epilogue.clone()
    };
    let finish = weightless(name, &shape, &epilogue, code_bits(share.activations, share.clip))?;
    let all = 1..=share.activations.order();
    let whole = members.iter().all(|m| m.activations == all);
    let terms: Vec<u32> = members.iter().flat_map(|m| m.weights.clone()).collect();
    let weight_bound =
        (whole && losses.len() == 1).then(|| share.facts.weight_bound(&terms, &share.facts.mean(&losses[0])));
    let output_bound = share.facts.output_bound(&losses, share.activations, share.clip);
    let report = MissingLayer { name: name.to_owned(), members, weight_bound, output_bound };
    Ok(Some((Degraded { means, finish, factor: 1 << bits }, report)))
}

/// The product that adds `mean[c] sum_k a_k`.
fn mean_product(layer: &Layer, share: &TermShare, mean: &[i64]) -> Result<Product, Error> {
    let (shape, bits) = (shape_of(&layer.geometry), code_bits(share.activations, share.clip));
    let epilogue = Epilogue { means: mean.to_vec(), ..share.epilogue.clone() };
    if !shape.is_depthwise() {
        return weightless("", &shape, &epilogue, bits);
    }
    // Every channel has a window of its own, so the mean is a weight like any other.
    let whole: Vec<i64> = mean.iter().flat_map(|&mean| std::iter::repeat_n(mean, shape.depth())).collect();
    let words = balanced_words(&whole);
    let product = Product::new(shape, Weights::Depthwise(&words), &Epilogue { means: Vec::new(), ..epilogue }, bits);
    product.map_err(|source| Error::Layer { layer: String::new(), source })
}
