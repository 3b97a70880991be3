//! Activations: the operator that tract carries for us in their place, and which nodes are one.
//!
//! tract's own are built on instructions that the CPU chooses and, for Relu and Clip, on `f32::max` and `min`, which drop a
//! NaN. Where the type is not f32 or a bound is not constant, tract's remain.

use fpxint_kernels::Activation;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::{element_wise::ElementWiseOp, nn};
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::activations;
use tract_onnx::tract_hir::ops::logic::wire_with_rank_broadcast;

use crate::placeholder::Built;

/// An activation of f32 values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Activate(Activation);

impl Eq for Activate {}

impl Op for Activate {
    fn name(&self) -> StaticName {
        self.0.name().into()
    }

    op_as_typed_op!();
}

impl EvalOp for Activate {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut tensor = args_1!(inputs).into_tensor();
        let mut plain = tensor.try_as_plain_ram_mut()?;
        plain.as_slice_mut::<f32>()?.iter_mut().for_each(|x| *x = self.0.apply(*x));
        Ok(tvec!(tensor.into_tvalue()))
    }
}

impl TypedOp for Activate {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].without_value()))
    }

    as_op!();
}

/// The activation that a node is: one of ours, or a Sigmoid or Silu in which tract recognised them.
pub(crate) fn of(model: &TypedModel, node: &TypedNode) -> TractResult<Option<Activation>> {
    if let Some(Activate(activation)) = node.op_as() {
        return Ok(Some(*activation));
    }
    let Some(op) = node.op_as::<ElementWiseOp>() else { return Ok(None) };
    let single = model.outlet_fact(node.inputs[0])?.datum_type == f32::datum_type();
    Ok(match () {
        () if !single => None,
        () if op.0.is::<nn::Sigmoid>() => Some(Activation::Sigmoid),
        () if op.0.is::<nn::Silu>() => Some(Activation::Silu),
        () => None,
    })
}

/// A node that is ours and always of f32.
#[derive(Debug, Clone)]
struct Ours(Activation);

impl Expansion for Ours {
    fn name(&self) -> StaticName {
        self.0.name().into()
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        ensure!(model.outlet_fact(inputs[0])?.datum_type == f32::datum_type(), "{} of float32", self.0.name());
        model.wire_node(prefix, Activate(self.0), inputs)
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

/// A node that is ours on f32 and the host's otherwise.
#[derive(Debug, Clone)]
struct OnFloat {
    ours: Activation,
    /// `None` for HardSwish.
    other: Option<Box<dyn Expansion>>,
}

impl Expansion for OnFloat {
    fn name(&self) -> StaticName {
        self.ours.name().into()
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        match &self.other {
            _ if model.outlet_fact(inputs[0])?.datum_type == f32::datum_type() => {
                model.wire_node(prefix, Activate(self.ours), inputs)
            }
            Some(other) => other.wire(prefix, model, inputs),
            None => model.wire_node(prefix, nn::hard_swish(), inputs),
        }
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

/// Relu and Clip before their bounds are known.
#[derive(Debug, Clone)]
struct Bounded {
    low: Bound,
    high: Bound,
}

/// A bound: none, a number, or an input of the node.
#[derive(Debug, Clone, Copy)]
enum Bound {
    Absent,
    Number(f32),
    Input(usize),
}

impl Bound {
    /// The bound as a number, where it is one.
    fn number(self, absent: f32, model: &TypedModel, inputs: &[OutletId]) -> TractResult<Option<f32>> {
        Ok(match self {
            Bound::Absent => Some(absent),
            Bound::Number(value) => Some(value),
            Bound::Input(i) => {
                let constant = model.outlet_fact(inputs[i])?.konst.clone();
                constant.filter(|k| k.len() == 1).and_then(|k| k.cast_to_scalar::<f32>().ok())
            }
        })
    }

    fn is_input(self) -> bool {
        matches!(self, Bound::Input(_))
    }
}

impl Expansion for Bounded {
    fn name(&self) -> StaticName {
        "Clip".into()
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let kind = model.outlet_fact(inputs[0])?.datum_type;
        let low = self.low.number(f32::NEG_INFINITY, model, inputs)?;
        let high = self.high.number(f32::INFINITY, model, inputs)?;
        if let (true, Some(low), Some(high)) = (kind == f32::datum_type(), low, high) {
            return model.wire_node(prefix, Activate(Activation::Clamp { low, high }), &inputs[..1]);
        }
        let mut wire = inputs[0];
        let sides =
            [("low", self.low, tract_core::ops::math::max()), ("high", self.high, tract_core::ops::math::min())];
        for (side, bound, op) in sides {
            let name = format!("{prefix}.{side}");
            let bound = match bound {
                Bound::Absent => continue,
                Bound::Input(i) => inputs[i],
                Bound::Number(v) => model.add_const(format!("{name}.bound"), tensor0(v))?,
            };
            let cast = tract_core::ops::cast::cast(kind);
            let bound = model.wire_node(format!("{name}.cast"), cast, &[bound])?[0];
            wire = wire_with_rank_broadcast(&name, model, op, &[wire, bound])?[0];
        }
        if wire != inputs[0] {
            model.rename_node(wire.node, prefix)?;
        }
        Ok(tvec!(wire))
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        let bounds = usize::from(self.low.is_input()) + usize::from(self.high.is_input());
        as_first_input(s, 1 + bounds, inputs, outputs)
    }
}

/// The one output has type and shape of the first of `arity` inputs.
pub(crate) fn as_first_input<'r, 'p: 'r>(
    s: &mut Solver<'r>,
    arity: usize,
    inputs: &'p [TensorProxy],
    outputs: &'p [TensorProxy],
) -> InferenceResult {
    check_input_arity(inputs, arity)?;
    check_output_arity(outputs, 1)?;
    s.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
    s.equals(&inputs[0].shape, &outputs[0].shape)
}

/// Teaches `onnx` the activations; Relu and Clip become clamps.
pub(crate) fn register(onnx: &mut tract_onnx::Onnx) {
    let known = &mut onnx.op_register;
    known.insert("Relu", |_, _| Ok((expand(Bounded { low: Bound::Number(0.0), high: Bound::Absent }), vec![])));
    known.insert("Clip", clip);
    known.insert("LeakyRelu", leaky_relu);
    known.insert("HardSigmoid", hard_sigmoid);
    known.insert("FpxGelu", gelu);
    known.insert("FpxSilu", |_, _| Ok((expand(Ours(Activation::Silu)), vec![])));
    known.insert("HardSwish", |_, _| Ok((expand(OnFloat { ours: Activation::HardSwish, other: None }), vec![])));
}

fn gelu(_: &ParsingContext, node: &NodeProto) -> Built {
    let tanh = node.get_attr_opt::<String>("approximate")?.is_some_and(|how| how == "tanh");
    Ok((expand(Ours(if tanh { Activation::GeluTanh } else { Activation::Gelu })), vec![]))
}

fn leaky_relu(_: &ParsingContext, node: &NodeProto) -> Built {
    let slope = node.get_attr_opt("alpha")?.unwrap_or(0.01);
    let other = Some(Box::new(activations::LeakyRelu(slope)) as Box<dyn Expansion>);
    Ok((expand(OnFloat { ours: Activation::LeakyRelu { slope }, other }), vec![]))
}

fn hard_sigmoid(_: &ParsingContext, node: &NodeProto) -> Built {
    let (slope, offset) = (node.get_attr_opt("alpha")?.unwrap_or(0.2), node.get_attr_opt("beta")?.unwrap_or(0.5));
    let other = Some(Box::new(activations::HardSigmoid(slope, offset)) as Box<dyn Expansion>);
    Ok((expand(OnFloat { ours: Activation::HardSigmoid { slope, offset }, other }), vec![]))
}

fn clip(context: &ParsingContext, node: &NodeProto) -> Built {
    let bounded = if context.onnx_operator_set_version < 11 {
        let bound =
            |name| -> TractResult<Bound> { Ok(node.get_attr_opt::<f32>(name)?.map_or(Bound::Absent, Bound::Number)) };
        Bounded { low: bound("min")?, high: bound("max")? }
    } else {
        let mut optional = tract_onnx::model::optional_inputs(node).skip(1);
        let mut bound = || optional.next().flatten().map_or(Bound::Absent, Bound::Input);
        Bounded { low: bound(), high: bound() }
    };
    Ok((expand(bounded), vec![]))
}
