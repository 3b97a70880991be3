//! The operator that tract carries for us: an expanded layer without its weights.
//!
//! tract only infers their shapes. A layer's identity is its index, so layers that look alike never merge.

use fpxint::{ConvGeometry, Geometry, MatMulGeometry, Padding};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::{InferenceOp, InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::*;

use crate::{activation, encoder, graph};

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

/// What tract makes of a node.
pub(crate) type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// The typed graph of a model's skeleton.
pub(crate) fn typed(source: &fpxint_onnx::Model) -> Result<TypedModel, crate::Error> {
    graph::check_operators(source)?;
    let mut operators = onnx();
    register(&mut operators);
    graph::typed(graph::read(&operators, &fpxint_onnx::skeleton(source)?, None)?)
}

/// Teaches `onnx` our operators, activations and those of encoders among them.
fn register(onnx: &mut tract_onnx::Onnx) {
    onnx.op_register.insert("FpxConv", conv);
    onnx.op_register.insert("FpxMatMul", matmul);
    activation::register(onnx);
    encoder::register(onnx);
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
