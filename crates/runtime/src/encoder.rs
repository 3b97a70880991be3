//! Operators of encoders beside their layers: the operators that tract carries for us in their place, and which nodes are one.
//!
//! `FpxLayerNorm`, `FpxRmsNorm`, `FpxAttention` and `FpxRotation` come from the skeleton; a softmax over the last axis and a sum over adjacent
//! axes are recognised in the typed graph. All work on f32 values in the layout of the graph.

use fpxint_kernels::{Attention, Norm, Rotation};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::array::Slice;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer, Softmax, SoftmaxKind};
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::*;

use crate::activation::as_first_input;
use crate::placeholder::Built;

mod run;

/// What a step of an encoder does.
#[derive(Debug)]
pub(crate) enum EncoderStep {
    /// A normalisation of rows.
    Norm(Box<Norm>),
    /// A rotation of rows.
    Rotation(Rotation),
    /// Attention; columns `start .. start + len` of each of the first three inputs are its operands, all where `None`.
    Attention(Attention, [Option<[usize; 2]>; 3]),
    /// A softmax over the last axis.
    Softmax,
    /// The sum over `count` axes from `first` on.
    Sum { first: usize, count: usize },
    /// The first input plus the second, which repeats along the first axes.
    Add,
}

impl EncoderStep {
    /// What kind of step it is.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Norm(norm) if norm.rms => "RmsNorm",
            Self::Norm(_) => "LayerNorm",
            Self::Rotation(_) => "Rotation",
            Self::Attention(..) => "Attention",
            Self::Softmax => "Softmax",
            Self::Sum { .. } => "Sum",
            Self::Add => "Add",
        }
    }

    /// The step that a node is, with its inputs.
    pub(crate) fn of(model: &TypedModel, node: &TypedNode) -> TractResult<Option<(Self, TVec<OutletId>)>> {
        let inputs: TVec<OutletId> = node.inputs.iter().copied().collect();
        if let Some(NormOp(norm)) = node.op_as() {
            return Ok(Some((Self::Norm(Box::new(norm.clone())), inputs)));
        }
        if let Some(RotationOp(rotation)) = node.op_as() {
            let factors = Rotation::new(rotation.factors());
            return Ok(Some((Self::Rotation(factors.context("blocks of another size")?), inputs)));
        }
        if let Some(AttentionOp(attention)) = node.op_as() {
            return Self::attention(model, *attention, inputs).map(Some);
        }
        let fact = match node.inputs.first() {
            Some(&input) => model.outlet_fact(input)?,
            None => return Ok(None),
        };
        if fact.datum_type != f32::datum_type() {
            return Ok(None);
        }
        if let Some(swap) = added(model, node)? {
            return Ok(Some((Self::Add, if swap { inputs.into_iter().rev().collect() } else { inputs })));
        }
        let step = if let Some(op) = node.op_as::<Softmax>() {
            let last = fact.rank().checked_sub(1);
            (op.kind == SoftmaxKind::Softmax && op.axes.len() == 1 && op.axes.first().copied() == last)
                .then_some(Self::Softmax)
        } else if let Some(op) = node.op_as::<Reduce>() {
            let adjacent = op.axes.windows(2).all(|pair| pair[0] + 1 == pair[1]);
            let sum = Self::Sum { first: op.axes.first().copied().unwrap_or(0), count: op.axes.len() };
            (op.reducer == Reducer::Sum && adjacent && !op.axes.is_empty()).then_some(sum)
        } else {
            None
        };
        Ok(step.map(|step| (step, inputs)))
    }

    /// Attention on what its first three inputs are parts of.
    fn attention(
        model: &TypedModel,
        attention: Attention,
        mut inputs: TVec<OutletId>,
    ) -> TractResult<(Self, TVec<OutletId>)> {
        let mut parts = [None; 3];
        for (part, input) in parts.iter_mut().zip(&mut inputs) {
            if let Some((whole, columns)) = part_of(model, *input)? {
                (*part, *input) = (Some(columns), whole);
            }
        }
        Ok((Self::Attention(attention, parts), inputs))
    }
}

/// Whether the operands of a node are to be swapped, if it adds a value to one of its shape that is 1 along some first axes.
fn added(model: &TypedModel, node: &TypedNode) -> TractResult<Option<bool>> {
    let facts = model.node_input_facts(node.id)?;
    let adds = node.op_as::<TypedBinOp>().is_some_and(|op| op.0.name() == "Add");
    let &[a, b] = &facts[..] else { return Ok(None) };
    if !adds || a.rank() != b.rank() || facts.iter().any(|fact| fact.datum_type != f32::datum_type()) {
        return Ok(None);
    }
    let repeats = |whole: &TypedFact, part: &TypedFact| {
        let ones = part.shape.iter().take_while(|dim| dim.is_one()).count();
        whole.shape.dims()[ones..] == part.shape.dims()[ones..]
    };
    Ok(if repeats(a, b) { Some(false) } else { repeats(b, a).then_some(true) })
}

/// The value of which `outlet` is some columns that only attention reads, with the first of them and their number.
pub(crate) fn part_of(model: &TypedModel, outlet: OutletId) -> TractResult<Option<(OutletId, [usize; 2])>> {
    let node = model.node(outlet.node);
    let Some(op) = node.op_as::<Slice>() else { return Ok(None) };
    let fact = model.outlet_fact(node.inputs[0])?;
    let operand = |inlet: &InletId| inlet.slot < 3 && model.node(inlet.node).op_is::<AttentionOp>();
    let read = node.outputs[0].successors.iter().all(operand) && !model.output_outlets()?.contains(&outlet);
    Ok(match (op.start.to_usize(), op.end.to_usize()) {
        (Ok(start), Ok(end)) if read && op.axis + 1 == fact.rank() && start <= end => {
            Some((node.inputs[0], [start, end - start]))
        }
        _ => None,
    })
}

/// A normalisation of the last axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NormOp(Norm);

impl Eq for NormOp {}

impl Op for NormOp {
    fn name(&self) -> StaticName {
        if self.0.rms { "RmsNorm".into() } else { "LayerNorm".into() }
    }

    op_as_typed_op!();
}

impl EvalOp for NormOp {
    not_out_of_plan!();
}

impl TypedOp for NormOp {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let (x, k) = (inputs[0], self.0.scale.len());
        ensure!(x.datum_type == f32::datum_type(), "a normalisation takes float32");
        let fits = x.shape.last().is_some_and(|last| last.to_usize().is_ok_and(|last| last == k));
        ensure!(fits, "rows of {k} values in a value of shape {:?}", x.shape);
        Ok(tvec!(x.without_value()))
    }

    as_op!();
}

/// A normalisation before its constants are known.
#[derive(Debug, Clone)]
struct NormNode {
    epsilon: f32,
    rms: bool,
    inputs: usize,
}

impl Expansion for NormNode {
    fn name(&self) -> StaticName {
        "Norm".into()
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let vector = |input: OutletId| -> TractResult<Vec<f32>> {
            let constant = model.outlet_fact(input)?.konst.clone().context("scale and bias are constants")?;
            let plain = constant.try_as_plain_ram()?;
            Ok(plain.as_slice::<f32>()?.to_vec())
        };
        let scale = vector(inputs[1])?;
        let bias = inputs.get(2).map_or_else(|| Ok(vec![0.0; scale.len()]), |&bias| vector(bias))?;
        ensure!(scale.len() == bias.len(), "{} scales and {} biases", scale.len(), bias.len());
        let norm = Norm { scale, bias, epsilon: self.epsilon, rms: self.rms };
        model.wire_node(prefix, NormOp(norm), &inputs[..1])
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        as_first_input(s, self.inputs, inputs, outputs)
    }
}

/// A rotation of the last axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RotationOp(fpxint::Rotation);

impl Op for RotationOp {
    fn name(&self) -> StaticName {
        "Rotation".into()
    }

    op_as_typed_op!();
}

impl EvalOp for RotationOp {
    not_out_of_plan!();
}

impl TypedOp for RotationOp {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let (x, block) = (inputs[0], self.0.block());
        ensure!(x.datum_type == f32::datum_type(), "a rotation takes float32");
        // A size that is open here is checked when rows are there.
        let fits = |last: &TDim| last.to_usize().map_or(true, |last| last.is_multiple_of(block));
        ensure!(x.shape.last().is_some_and(fits), "rows of blocks of {block} in a value of shape {:?}", x.shape);
        Ok(tvec!(x.without_value()))
    }

    as_op!();
}

impl Expansion for RotationOp {
    fn name(&self) -> StaticName {
        "Rotation".into()
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        as_first_input(s, 1, inputs, outputs)
    }
}

/// Attention over rank-3 values whose heads lie side by side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AttentionOp(Attention);

impl Eq for AttentionOp {}

impl Op for AttentionOp {
    fn name(&self) -> StaticName {
        "Attention".into()
    }

    op_as_typed_op!();
}

impl EvalOp for AttentionOp {
    not_out_of_plan!();
}

impl TypedOp for AttentionOp {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let operands = &inputs[..3];
        ensure!(inputs.iter().all(|fact| fact.datum_type == f32::datum_type()), "attention takes float32");
        ensure!(operands.iter().all(|fact| fact.rank() == 3), "operands of attention have rank 3");
        ensure!(inputs.get(3).is_none_or(|mask| mask.rank() <= 4), "a mask has up to 4 axes");
        Ok(tvec!(f32::fact(attended(&operands[0].shape.to_tvec(), &operands[2].shape.to_tvec())?)))
    }

    as_op!();
}

/// Shape of what attention makes of queries and values.
fn attended(queries: &[TDim], values: &[TDim]) -> TractResult<TVec<TDim>> {
    match (queries, values) {
        ([batch, sequence, _], [_, _, width]) => Ok(tvec![batch.clone(), sequence.clone(), width.clone()]),
        _ => bail!("operands of attention have rank 3"),
    }
}

/// Attention before the shapes are known.
#[derive(Debug, Clone)]
struct AttentionNode {
    attention: Attention,
    inputs: usize,
}

impl Expansion for AttentionNode {
    fn name(&self) -> StaticName {
        "Attention".into()
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, AttentionOp(self.attention), inputs)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, self.inputs)?;
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, f32::datum_type())?;
        s.given_2(&inputs[0].shape, &inputs[2].shape, move |s, queries, values| {
            s.equals(&outputs[0].shape, attended(&queries, &values)?)
        })
    }
}

/// Teaches `onnx` these operators.
pub(crate) fn register(onnx: &mut tract_onnx::Onnx) {
    onnx.op_register.insert("FpxLayerNorm", |_, node| norm(node, false));
    onnx.op_register.insert("FpxRmsNorm", |_, node| norm(node, true));
    onnx.op_register.insert("FpxAttention", attention);
    onnx.op_register.insert("FpxRotation", rotation);
}

fn norm(node: &NodeProto, rms: bool) -> Built {
    let epsilon = node.get_attr("epsilon")?;
    Ok((expand(NormNode { epsilon, rms, inputs: node.input.len() }), vec![]))
}

fn rotation(_: &ParsingContext, node: &NodeProto) -> Built {
    let rotation = fpxint::Rotation::with_block(node.get_attr("block")?).context("blocks of another size")?;
    Ok((expand(RotationOp(rotation)), vec![]))
}

fn attention(_: &ParsingContext, node: &NodeProto) -> Built {
    let attention = Attention { heads: node.get_attr("heads")?, scale: node.get_attr("scale")?, steps: None };
    ensure!(attention.heads > 0 && (3..=4).contains(&node.input.len()), "attention of no heads or operands");
    Ok((expand(AttentionNode { attention, inputs: node.input.len() }), vec![]))
}
