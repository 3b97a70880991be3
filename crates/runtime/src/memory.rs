//! Whether a run fits the memory there is: asked before anything of its size is allocated.
//!
//! ```text
//! needed >= largest over the nodes of (bytes of its inputs + bytes of its outputs)        values that are alive at once
//! ```
//!
//! The answer is a lower bound, so what is refused could not have run; what is not may still be too much for a system that
//! other processes take memory from meanwhile.

use std::collections::HashMap;
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
    /// Bytes in the symbols of the inputs, and the first node that they are those of.
    open: HashMap<TDim, String>,
    /// The most of any node of known size, and the node.
    fixed: (u64, String),
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
                Ok(bytes) if bytes.max(0) as u64 > found.fixed.0 => found.fixed = (bytes as u64, node.name.clone()),
                Ok(_) => {}
                Err(_) => _ = found.open.entry(bytes).or_insert_with(|| node.name.clone()),
            }
        }
        Ok(found)
    }

    /// Bytes of the largest node, and its name.
    fn largest(&self, symbols: &SymbolValues) -> (u64, &str) {
        let of = |bytes: &TDim| bytes.eval_to_i64(symbols).map_or(0, |bytes| bytes.max(0) as u64);
        let open = self.open.iter().map(|(bytes, name)| (of(bytes), name.as_str()));
        open.chain([(self.fixed.0, self.fixed.1.as_str())]).max().unwrap_or((0, ""))
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
        let (needed, node) = if elements > MOST_ELEMENTS {
            (
                u64::try_from(elements.saturating_mul(4)).unwrap_or(u64::MAX),
                self.inputs().first().map_or("", |input| &input.name),
            )
        } else {
            let symbols = graph::bind(&self.sources, shapes)?;
            let (bytes, node) = guarded(|| Ok(self.footprint.largest(&symbols))).map_err(Error::graph)?;
            (bytes.saturating_mul(at_once as u64), node)
        };
        if needed > SMALL
            && let Some(available) = available_memory()
            && needed > available
        {
            return Err(Error::Memory { node: node.to_owned(), needed, available });
        }
        let mut fitting = fitting();
        if fitting.len() == REMEMBERED {
            fitting.clear();
        }
        fitting.push(key);
        Ok(())
    }
}
