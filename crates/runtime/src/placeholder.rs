//! The operators that tract carries for us: an expanded layer without its weights, and the clamp of Relu and Clip.
//!
//! tract only infers their shapes. A layer's identity is its index, so layers that look alike never merge.

use fpxint::{ConvGeometry, Geometry, MatMulGeometry, Padding};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::{InferenceOp, InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::logic::wire_with_rank_broadcast;

use crate::graph;

/// An expanded layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerOp {
    /// Its index in the model.
    pub layer: usize,
    /// What it computes.
    pub geometry: Geometry,
}

impl LayerOp {
    fn output_shape(&self, input: &[TDim]) -> TractResult<TVec<TDim>> {
        let mut shape: TVec<TDim> = input.into();
        match &self.geometry {
            Geometry::MatMul(g) => match shape.last_mut() {
                Some(last) => *last = g.n.to_dim(),
                None => bail!("a matrix product of a scalar"),
            },
            Geometry::Conv(g) => {
                ensure!(input.len() == 2 + g.spatial_rank, "input of rank {} to a convolution", input.len());
                shape[1] = g.channels_out.to_dim();
                for (i, axis) in (2 - g.spatial_rank..2).enumerate() {
                    shape[2 + i] = spatial(g, axis, &input[2 + i]);
                }
            }
        }
        Ok(shape)
    }

    fn check_channels(&self, input: &[TDim]) -> TractResult<()> {
        let (channels, wanted) = match &self.geometry {
            Geometry::MatMul(g) => (input.last(), g.k),
            Geometry::Conv(g) => (input.get(1), g.channels_in),
        };
        let found = channels.and_then(|c| c.to_usize().ok());
        ensure!(found.is_none_or(|c| c == wanted), "{} channels to a layer of {wanted}", found.unwrap_or(0));
        Ok(())
    }
}

/// Output size of a convolution along one axis.
fn spatial(g: &ConvGeometry, axis: usize, input: &TDim) -> TDim {
    match g.padding {
        Padding::Explicit(pads) => {
            let extent = (g.kernel[axis] - 1) * g.dilations[axis] + 1;
            let padded = input.clone() + (pads[axis] + pads[axis + 2]) as i64 - extent as i64;
            padded / g.strides[axis] + 1
        }
        Padding::SameUpper | Padding::SameLower => input.clone().div_ceil(g.strides[axis] as u64),
    }
}

impl Op for LayerOp {
    fn name(&self) -> StaticName {
        "ExpandedLayer".into()
    }

    op_as_typed_op!();
}

impl EvalOp for LayerOp {
    not_out_of_plan!();
}

impl TypedOp for LayerOp {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs[0].datum_type == f32::datum_type(), "a layer takes float32");
        self.check_channels(&inputs[0].shape.to_tvec())?;
        Ok(tvec!(f32::fact(self.output_shape(&inputs[0].shape.to_tvec())?)))
    }

    as_op!();
}

impl Expansion for LayerOp {
    fn name(&self) -> StaticName {
        "ExpandedLayer".into()
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
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, f32::datum_type())?;
        s.given(&inputs[0].shape, move |s, shape| {
            let shape = self.output_shape(&shape)?;
            s.equals(&outputs[0].shape, shape)
        })
    }

    fn runs_out_of_plan(&self) -> bool {
        false
    }
}

/// `x` clamped to `[low, high]`, keeping NaN: `if x < low {low}`, then `if x > high {high}`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Clamp {
    /// Smallest output.
    pub low: f32,
    /// Largest output.
    pub high: f32,
}

impl Eq for Clamp {}

impl Clamp {
    /// The clamp of one value.
    pub(crate) fn apply(&self, x: f32) -> f32 {
        let raised = if x < self.low { self.low } else { x };
        if raised > self.high { self.high } else { raised }
    }
}

impl Op for Clamp {
    fn name(&self) -> StaticName {
        "Clamp".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Clamp {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut tensor = args_1!(inputs).into_tensor();
        let mut plain = tensor.try_as_plain_ram_mut()?;
        plain.as_slice_mut::<f32>()?.iter_mut().for_each(|x| *x = self.apply(*x));
        Ok(tvec!(tensor.into_tvalue()))
    }
}

impl TypedOp for Clamp {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].without_value()))
    }

    as_op!();
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
            return model.wire_node(prefix, Clamp { low, high }, &inputs[..1]);
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
        check_input_arity(inputs, 1 + usize::from(self.low.is_input()) + usize::from(self.high.is_input()))?;
        check_output_arity(outputs, 1)?;
        s.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        s.equals(&inputs[0].shape, &outputs[0].shape)
    }
}

type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// The typed graph of a model's skeleton.
pub(crate) fn typed(source: &fpxint_onnx::Model) -> Result<TypedModel, crate::Error> {
    graph::check_operators(source)?;
    let mut operators = onnx();
    register(&mut operators);
    graph::typed(graph::read(&operators, &fpxint_onnx::skeleton(source)?, None)?)
}

/// Teaches `onnx` our operators; Relu and Clip become clamps.
fn register(onnx: &mut tract_onnx::Onnx) {
    onnx.op_register.insert("FpxConv", conv);
    onnx.op_register.insert("FpxMatMul", matmul);
    onnx.op_register
        .insert("Relu", |_, _| Ok((expand(Bounded { low: Bound::Number(0.0), high: Bound::Absent }), vec![])));
    onnx.op_register.insert("Clip", clip);
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

fn conv(_: &ParsingContext, node: &NodeProto) -> Built {
    let pair = |name: &str| -> TractResult<[usize; 2]> {
        let values: Vec<usize> = node.get_attr_vec(name)?;
        values.try_into().map_err(|_| format_err!("{name} is not a pair"))
    };
    let padding = match node.get_attr_opt::<String>("auto_pad")?.as_deref() {
        Some("SAME_UPPER") => Padding::SameUpper,
        Some("SAME_LOWER") => Padding::SameLower,
        _ => {
            let pads: Vec<usize> = node.get_attr_vec("pads")?;
            Padding::Explicit(pads.try_into().map_err(|_| format_err!("pads are not four"))?)
        }
    };
    let geometry = Geometry::Conv(ConvGeometry {
        spatial_rank: node.get_attr("spatial_rank")?,
        channels_in: node.get_attr("channels_in")?,
        channels_out: node.get_attr("channels_out")?,
        groups: node.get_attr("groups")?,
        kernel: pair("kernel")?,
        strides: pair("strides")?,
        dilations: pair("dilations")?,
        padding,
    });
    Ok((expand(LayerOp { layer: node.get_attr("layer")?, geometry }), vec![]))
}

fn matmul(_: &ParsingContext, node: &NodeProto) -> Built {
    let (k, n) = (node.get_attr("k")?, node.get_attr("n")?);
    let geometry = Geometry::MatMul(MatMulGeometry { k, n, transposed: false });
    Ok((expand(LayerOp { layer: node.get_attr("layer")?, geometry }), vec![]))
}
