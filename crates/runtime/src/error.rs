//! What can go wrong while loading or running a model.

use thiserror::Error;
use tract_onnx::prelude::TractResult;
use tract_onnx::tract_core::internal::format_err;

/// A model that cannot be loaded or run. Every message is one line.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The file.
    #[error(transparent)]
    Onnx(#[from] fpxint_onnx::Error),
    /// The expansion.
    #[error(transparent)]
    Expand(#[from] fpxint::Error),
    /// The kernel asked for.
    #[error(transparent)]
    Kernel(#[from] fpxint_kernels::UnknownKernel),
    /// A layer whose sums do not fit.
    #[error("layer `{layer}`: {source}")]
    Layer {
        /// Name of the layer.
        layer: String,
        /// Why.
        source: fpxint_kernels::Error,
    },
    /// An operator that nothing here runs.
    #[error("node `{node}`: operator {op_type} is not supported")]
    Operator {
        /// Name of the node.
        node: String,
        /// Its operator.
        op_type: String,
    },
    /// A precision the runtime does not run.
    #[error("layer `{layer}`: {what} of {precision} have {bits} bits in all, but 24 is the most that runs")]
    Precision {
        /// Name of the layer.
        layer: String,
        /// Weights or activations.
        what: &'static str,
        /// What was asked for.
        precision: fpxint::Precision,
        /// Its bits times terms.
        bits: u32,
    },
    /// No precision for the activations.
    #[error("layer `{layer}` has no activation precision: the file does not state one, so pass one (as in int4x2)")]
    NoActivations {
        /// Name of the layer.
        layer: String,
    },
    /// The graph as a whole.
    #[error("the graph cannot be run: {0}")]
    Graph(String),
    /// An input that does not fit the model.
    #[error("input `{input}`: {reason}")]
    Input {
        /// Name of the input.
        input: String,
        /// What is wrong and what is expected.
        reason: String,
    },
    /// A node that failed while running.
    #[error("node `{node}`: {reason}")]
    Run {
        /// Name of the node.
        node: String,
        /// What went wrong.
        reason: String,
    },
    /// A run whose values do not fit the memory there is.
    #[error(
        "node `{node}`: its values take {} at a time, but {} of memory can be had; use a smaller batch or shorter inputs",
        size(*needed),
        size(*available)
    )]
    Memory {
        /// Name of the node whose inputs and outputs take most.
        node: String,
        /// Bytes that are needed, at least.
        needed: u64,
        /// Bytes that there are.
        available: u64,
    },
    /// A worker of a group that cannot be done without.
    #[error("worker {worker}: {reason}")]
    Worker {
        /// Its number, from 0.
        worker: usize,
        /// Why.
        reason: String,
    },
    /// Worker threads that could not be started.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// How many.
        threads: usize,
        /// Why.
        reason: String,
    },
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

/// A chain of causes on one line.
pub(crate) fn one_line(error: &tract_onnx::prelude::TractError) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Runs the host's code; a panic in it becomes an error.
pub(crate) fn guarded<T>(run: impl FnOnce() -> TractResult<T>) -> TractResult<T> {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    caught.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format_err!("the host failed: {}", text.unwrap_or_else(|| "no reason given".to_owned())))
    })
}

impl Error {
    pub(crate) fn graph(error: tract_onnx::prelude::TractError) -> Self {
        Error::Graph(one_line(&error))
    }

    pub(crate) fn run(node: &str, error: tract_onnx::prelude::TractError) -> Self {
        Error::Run { node: node.to_owned(), reason: one_line(&error) }
    }
}
