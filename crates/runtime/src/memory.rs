//! Whether a run fits the memory there is: asked before anything of its size is allocated.
//!
//! ```text
//! needed >= largest over the nodes of (bytes of its inputs + bytes of its outputs)        values that are alive at once
//! ```
//!
//! The answer is a lower bound, so what is refused could not have run; what is not may still be too much for a system that
//! other processes take memory from meanwhile.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use fpxint_onnx::available_memory;
use tract_onnx::prelude::*;

use crate::error::guarded;
use crate::{Error, Model, graph};

/// Runs below this are not asked about.
const SMALL: u64 = 256 << 20;
/// Shapes that are remembered to fit.
const REMEMBERED: usize = 64;
/// More elements of inputs than this are beyond any memory, and beyond the arithmetic of sizes.
const MOST_ELEMENTS: u128 = 1 << 42;

/// What the values of a graph take.
#[derive(Debug, Default)]
pub(crate) struct Footprint {
    /// Bytes in the symbols of the inputs, by node, each once.
    open: HashSet<TDim>,
    /// The most of any node of known size.
    fixed: u64,
    /// Shapes that fitted.
    fitting: Mutex<Vec<Vec<usize>>>,
}

impl Footprint {
    pub fn of(model: &TypedModel) -> TractResult<Self> {
        let mut found = Self::default();
        for node in model.nodes() {
            let outputs = node.outputs.iter().map(|output| &output.fact);
            let inputs =
                node.inputs.iter().map(|&outlet| model.outlet_fact(outlet)).collect::<TractResult<Vec<_>>>()?;
            let values = inputs.into_iter().chain(outputs).filter(|fact| fact.konst.is_none());
            let bytes = |fact: &TypedFact| fact.shape.iter().cloned().product::<TDim>() * fact.datum_type.size_of();
            let bytes: TDim = values.map(bytes).sum();
            match bytes.to_i64() {
                Ok(bytes) => found.fixed = found.fixed.max(bytes.max(0) as u64),
                Err(_) => _ = found.open.insert(bytes),
            }
        }
        Ok(found)
    }

    fn bytes(&self, symbols: &SymbolValues) -> u64 {
        let of = |bytes: &TDim| bytes.eval_to_i64(symbols).map_or(0, |bytes| bytes.max(0) as u64);
        self.open.iter().map(of).fold(self.fixed, u64::max)
    }
}

impl Model {
    /// Refuses a run whose parts have inputs of these shapes, so many parts at once, where its values cannot fit.
    pub(crate) fn check_memory(&self, shapes: &[&[usize]], at_once: usize) -> Result<(), Error> {
        let key: Vec<usize> = [at_once].into_iter().chain(shapes.iter().copied().flatten().copied()).collect();
        let fitting = || self.footprint.fitting.lock().unwrap_or_else(PoisonError::into_inner);
        if fitting().contains(&key) {
            return Ok(());
        }
        let elements =
            shapes.iter().map(|shape| shape.iter().map(|&size| size as u128).product::<u128>()).sum::<u128>();
        let needed = if elements > MOST_ELEMENTS {
            u64::try_from(elements.saturating_mul(4)).unwrap_or(u64::MAX)
        } else {
            let symbols = graph::bind(&self.sources, shapes)?;
            let bytes = guarded(|| Ok(self.footprint.bytes(&symbols))).map_err(Error::graph)?;
            bytes.saturating_mul(at_once as u64)
        };
        if needed > SMALL
            && let Some(available) = available_memory()
            && needed > available
        {
            return Err(Error::Memory { needed, available });
        }
        let mut fitting = fitting();
        if fitting.len() == REMEMBERED {
            fitting.clear();
        }
        fitting.push(key);
        Ok(())
    }
}
