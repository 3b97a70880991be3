//! Which models work sample by sample, so that a batch may be run in parts.
//!
//! ```text
//! a value is  by sample   its first dimension is N k, no other has N in it, and its i-th k-th depends on sample i alone
//!             fixed       neither its shape nor its values have to do with N
//! ```
//!
//! N is the symbol that is the first dimension of every input. A model is separable where every input and output is by sample
//! and every node is known to keep to the two kinds. A node that is not known ends the proof, not the loading.

use std::collections::HashSet;

use fpxint::Geometry;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::{
    array::{Gather, MultiBroadcastTo, Pad, Range, Slice, TypedConcat},
    binary::TypedBinOp,
    cast::Cast,
    change_axes::AxisOp,
    cnn::{MaxPool, SumPool},
    downsample::Downsample,
    einsum::EinSum,
    element_wise::ElementWiseOp,
    konst::Const,
    logic::Iff,
    nn::{Reduce, RmsNorm, Softmax},
    source::TypedSource,
};

use crate::activation::Activate;
use crate::encoder::{AttentionOp, NormOp, RotationOp};
use crate::placeholder::LayerOp;

/// What is known of the samples of a separable model.
#[derive(Debug)]
pub(crate) struct Samples {
    /// Their number in a batch.
    pub count: Symbol,
    /// Bytes of the largest value of a sample, among those of fixed size.
    largest: u64,
    /// Bytes of the values of a sample that depend on other dimensions of the inputs.
    open: HashSet<TDim>,
}

impl Samples {
    /// Bytes of the largest value of one sample.
    pub fn largest(&self, symbols: &SymbolValues) -> u64 {
        let bytes = |dim: &TDim| dim.eval_to_i64(symbols).map_or(0, |bytes| bytes.max(0) as u64);
        self.open.iter().map(bytes).fold(self.largest, u64::max)
    }

    /// Takes note of a value that is by sample.
    fn note(&mut self, fact: &TypedFact) -> TractResult<()> {
        let values: TDim = fact.shape.iter().cloned().product();
        let bytes = values.substitute(&self.count, &1.to_dim())? * fact.datum_type.size_of();
        match bytes.to_i64() {
            Ok(bytes) => self.largest = self.largest.max(bytes.max(0) as u64),
            Err(_) => {
                self.open.insert(bytes);
            }
        }
        Ok(())
    }

    /// Whether a value of this shape can be by sample.
    fn lead(&self, shape: &[TDim]) -> TractResult<bool> {
        let Some((first, rest)) = shape.split_first() else { return Ok(false) };
        let each = first.substitute(&self.count, &1.to_dim())?;
        let whole = TDim::Sym(self.count.clone()) * each.clone();
        Ok(whole == *first && each != 0.to_dim() && !rest.iter().any(|dim| self.has_count(dim)))
    }

    fn has_count(&self, dim: &TDim) -> bool {
        dim.symbols().contains(&self.count)
    }
}

/// What makes a model separable, or `None` where it is not known to be.
pub(crate) fn samples(model: &TypedModel) -> TractResult<Option<Samples>> {
    let inputs = model.input_outlets()?;
    let first = inputs.first().map(|&input| model.outlet_fact(input)).transpose()?;
    let Some(TDim::Sym(count)) = first.and_then(|fact| fact.shape.dims().first().cloned()) else { return Ok(None) };
    let mut samples = Samples { count, largest: 0, open: HashSet::new() };
    let mut by_sample: HashSet<OutletId> = HashSet::new();
    for &input in inputs {
        let fact = model.outlet_fact(input)?;
        if fact.shape.dims().first() != Some(&TDim::Sym(samples.count.clone())) || !samples.lead(fact.shape.dims())? {
            return Ok(None);
        }
        samples.note(fact)?;
        by_sample.insert(input);
    }
    for id in model.eval_order()? {
        let node = model.node(id);
        if node.op_is::<TypedSource>() {
            continue;
        }
        let kinds: TVec<bool> = node.inputs.iter().map(|input| by_sample.contains(input)).collect();
        let facts = model.node_input_facts(id)?;
        let Some(made) = kind_of(&samples, node, &facts, &kinds)? else { return Ok(None) };
        for (slot, fact) in model.node_output_facts(id)?.into_iter().enumerate() {
            let fits =
                if made { samples.lead(fact.shape.dims())? } else { !fact.shape.iter().any(|d| samples.has_count(d)) };
            if !fits {
                return Ok(None);
            }
            if made {
                samples.note(fact)?;
                by_sample.insert(OutletId::new(id, slot));
            }
        }
    }
    Ok(model.output_outlets()?.iter().all(|output| by_sample.contains(output)).then_some(samples))
}

/// Whether what a node makes is by sample (`true`) or fixed, if its shape is of that kind, given whether its inputs are; `None`
/// where neither is known.
fn kind_of(samples: &Samples, node: &TypedNode, facts: &[&TypedFact], by_sample: &[bool]) -> TractResult<Option<bool>> {
    if let Some(constant) = node.op_as::<Const>() {
        return Ok(is_fixed(samples, constant.val())?.then_some(false));
    }
    if let Some(op) = node.op_as::<Slice>()
        && (samples.has_count(&op.start) || samples.has_count(&op.end))
    {
        return Ok(None);
    }
    if let Some(op) = node.op_as::<MultiBroadcastTo>() {
        let same = facts[0].rank() == op.shape.rank();
        // Copies of what a sample has along other axes than the first, or of one fixed value.
        if by_sample[0] {
            return Ok((same && facts[0].shape[0] == op.shape[0]).then_some(true));
        }
        let repeats = samples.lead(op.shape.dims())? && (!same || facts[0].shape[0].is_one());
        return Ok(Some(repeats));
    }
    Ok(if by_sample.contains(&true) {
        keeps_samples_apart(&*node.op, facts, by_sample).then_some(true)
    } else {
        is_function(&*node.op).then_some(false)
    })
}

/// Whether an operator is known to depend on nothing but its inputs and the dimensions of its output.
fn is_function(op: &dyn TypedOp) -> bool {
    let op = op.as_op();
    let of_values = op.is::<LayerOp>() || op.is::<Activate>() || op.is::<ElementWiseOp>() || op.is::<TypedBinOp>();
    let of_places =
        op.is::<AxisOp>() || op.is::<Slice>() || op.is::<TypedConcat>() || op.is::<Pad>() || op.is::<Gather>();
    let of_axes = op.is::<Reduce>() || op.is::<Softmax>() || op.is::<RmsNorm>() || op.is::<EinSum>();
    of_values || of_places || of_axes || op.is::<Cast>() || op.is::<Iff>() || op.is::<Range>()
}

/// Whether a constant has nothing to do with the number of samples.
fn is_fixed(samples: &Samples, constant: &Tensor) -> TractResult<bool> {
    if constant.datum_type() != TDim::datum_type() {
        return Ok(true);
    }
    Ok(!constant.try_as_plain_ram()?.as_slice::<TDim>()?.iter().any(|dim| samples.has_count(dim)))
}

/// Whether an operator is known to keep samples apart along the first axis, of the inputs that are by sample.
fn keeps_samples_apart(op: &dyn TypedOp, facts: &[&TypedFact], by_sample: &[bool]) -> bool {
    let op = op.as_op();
    if let Some(op) = op.downcast_ref::<LayerOp>() {
        matches!(op.geometry, Geometry::Conv(_)) || facts[0].rank() >= 2
    } else if op.is::<NormOp>() || op.is::<RotationOp>() {
        facts[0].rank() >= 2
    } else if op.is::<AttentionOp>() {
        let mask = facts.get(3).zip(by_sample.get(3));
        let of_four = |(mask, &by): (&&TypedFact, &bool)| match mask.rank() {
            4 if by => mask.shape[0] == facts[0].shape[0],
            4 => mask.shape[0].is_one(),
            _ => !by,
        };
        by_sample[..3] == [true; 3] && aligned(&facts[..3], &by_sample[..3]) && mask.is_none_or(of_four)
    } else if op.is::<Activate>() || op.is::<ElementWiseOp>() || op.is::<Cast>() {
        true
    } else if op.is::<TypedBinOp>() || op.is::<Iff>() {
        aligned(facts, by_sample)
    } else if let Some(op) = op.downcast_ref::<TypedConcat>() {
        op.axis != 0 && !by_sample.contains(&false) && aligned(facts, by_sample)
    } else if let Some(op) = op.downcast_ref::<AxisOp>() {
        match op {
            AxisOp::Add(axis) | AxisOp::Rm(axis) => *axis != 0,
            AxisOp::Move(from, to) => *from != 0 && *to != 0,
            // The order of values stays: a sample's are next to each other before and behind it.
            AxisOp::Reshape(..) => true,
        }
    } else if let Some(op) = op.downcast_ref::<Slice>() {
        op.axis != 0
    } else if let Some(op) = op.downcast_ref::<Downsample>() {
        op.axis != 0
    } else if let Some(op) = op.downcast_ref::<Pad>() {
        op.pads.first() == Some(&(0, 0))
    } else if let Some(op) = op.downcast_ref::<MaxPool>() {
        op.with_index_outputs.is_none() && op.pool_spec.data_format.has_n()
    } else if let Some(op) = op.downcast_ref::<SumPool>() {
        op.pool_spec.data_format.has_n()
    } else if let Some(op) = op.downcast_ref::<Reduce>() {
        !op.axes.contains(&0)
    } else if let Some(op) = op.downcast_ref::<Softmax>() {
        !op.axes.contains(&0)
    } else if let Some(op) = op.downcast_ref::<RmsNorm>() {
        op.axis != 0
    } else if let Some(op) = op.downcast_ref::<Gather>() {
        // Rows of a fixed table for the indices of a sample, or the same places of every sample.
        matches!((by_sample, op.axis), ([false, true], 0) | ([true, false], 1..))
    } else if let Some(op) = op.downcast_ref::<EinSum>() {
        products_of_samples(op, by_sample) && aligned(facts, by_sample)
    } else {
        false
    }
}

/// Whether every sample has products of its own: the host then chooses the kernel of each by sizes that are the sample's.
fn products_of_samples(op: &EinSum, by_sample: &[bool]) -> bool {
    let first = |places: &TVec<usize>| places[..] == [0];
    let mut axes = op.axes.iter_all_axes();
    !by_sample.contains(&false)
        && op.q_params.is_none()
        && axes.any(|axis| axis.inputs.iter().all(first) && axis.outputs.iter().all(first))
}

/// Whether inputs that are by sample have one first dimension, and the others of their rank repeat along it.
fn aligned(facts: &[&TypedFact], by_sample: &[bool]) -> bool {
    let first = facts.iter().zip(by_sample).find(|&(_, &by)| by).and_then(|(fact, _)| fact.shape.dims().first());
    let rank = facts[0].rank();
    let fits = |(fact, &by): (&&TypedFact, &bool)| match fact.shape.dims().first() {
        Some(dim) if by => Some(dim) == first,
        Some(dim) => dim.is_one(),
        None => false,
    };
    facts.iter().all(|fact| fact.rank() == rank) && facts.iter().zip(by_sample).all(fits)
}
