//! How a model is shared over workers: which part of every layer this process has, and what it needs of the others.

use std::sync::Arc;

use fpxint::{Costs, Gather, Partition, Reduce};

/// How a model is shared over a group of workers.
#[derive(Clone, Default)]
pub enum Sharing {
    /// Not at all.
    #[default]
    Alone,
    /// Terms: basis models whose sums are added in every layer. This process is one of the workers, all of which run the plan.
    Terms {
        /// Number of this worker, from 0.
        worker: usize,
        /// Which members every worker has; the same for all.
        partition: Partition,
        /// How partial sums are added over the group.
        reduce: Arc<dyn Reduce>,
    },
    /// Terms, all workers being threads of this process: see [`Crew`].
    Crew(Crew),
    /// Output channels, which are gathered in every layer that has no groups of channels. This process is one of the workers,
    /// all of which run the plan.
    Channels {
        /// Number of this worker, from 0.
        worker: usize,
        /// Workers.
        workers: usize,
        /// How channels are collected over the group.
        gather: Arc<dyn Gather>,
    },
}

/// Workers within one process. They take the products of a layer in another order in every layer of every run, and add their sums
/// in the order in which they are done.
#[derive(Clone)]
pub struct Crew {
    /// Which members every worker has.
    pub partition: Partition,
    /// Whether the rest goes on where a worker is lost, as [`crate::Model::lose`] says.
    pub allow_missing: bool,
    /// Called before a worker's products of a layer, with the numbers of worker and layer; a panic in it is the worker's.
    pub watch: Option<Arc<dyn Fn(usize, usize) + Send + Sync>>,
}

impl Crew {
    /// Workers by the usual costs, all of which are needed.
    pub fn of(workers: usize) -> Self {
        Self { partition: Partition::new(workers, Costs::default()), allow_missing: false, watch: None }
    }
}

impl std::fmt::Debug for Sharing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Sharing::Alone => f.write_str("Alone"),
            Sharing::Terms { worker, partition, .. } => write!(f, "Terms({worker} of {})", partition.workers()),
            Sharing::Crew(crew) => write!(f, "Crew({})", crew.partition.workers()),
            Sharing::Channels { worker, workers, .. } => write!(f, "Channels({worker} of {workers})"),
        }
    }
}

/// Bytes that a process holds of a model whose terms are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldBytes {
    /// Weights of its own terms, packed to their bits.
    pub terms: u64,
    /// What all terms of all layers take in their bits.
    pub all_terms: u64,
    /// What is not split: scales, biases, sums of columns, and constants of the host such as embeddings.
    pub rest: u64,
    /// Room that all layers share for the unpacked weights of one.
    pub room: u64,
}
