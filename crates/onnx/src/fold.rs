//! Folding: an affine map per output channel that follows a layer becomes part of its weights and bias.
//!
//! ```text
//! y = (alpha x W + beta C) a + b        BatchNormalization: a = gamma / sqrt(variance + epsilon), b = beta - mean a
//!   = x (alpha a W) + (beta C a + b)    Mul by a constant: a; Add of a constant: b
//! ```
//!
//! in f64, rounded once to f32. Only where the layer's output has one reader and is no output of the graph. A layer that
//! is a series already keeps its integers, so only additions are folded into it.

use fpxint::Geometry;

use crate::Error;
use crate::constants::Constant;
use crate::index::Index;
use crate::layers::{Plan, Source};
use crate::node::{float, input, int, onnx_op};
use crate::proto::NodeProto;
use crate::tensor::is_float;

/// A constant map per channel, `y = x a + b`.
#[derive(Debug, Clone)]
pub(crate) enum Fold {
    /// BatchNormalization: gamma, beta, mean, variance and epsilon.
    Norm(Box<[Constant; 4]>, f64),
    /// `alpha` of a Gemm.
    Alpha(f64),
    /// `beta C` of a Gemm, the bias of a Conv, or Add.
    Add(Constant, f64),
    /// Mul.
    Mul(Constant),
}

/// The composed map; `None` where it is the identity.
#[derive(Debug, Default)]
pub(crate) struct Affine {
    pub factor: Option<Vec<f64>>,
    pub shift: Option<Vec<f64>>,
}

/// Absorbs into a plan the nodes that follow it.
pub(crate) fn absorb(index: &Index, plan: &mut Plan) {
    while let Some(at) = index.sole_reader(&plan.output) {
        let node = &index.graph.node[at];
        let Some(fold) = fold_of(index, plan, node).filter(|_| !node.output.is_empty()) else { break };
        plan.folds.push(fold);
        plan.absorbed.push(at);
        plan.output.clone_from(&node.output[0]);
    }
}

fn fold_of(index: &Index, plan: &Plan, node: &NodeProto) -> Option<Fold> {
    let is_series = matches!(plan.source, Source::Series(_));
    match onnx_op(node) {
        "BatchNormalization" if !is_series => norm(index, plan, node),
        op @ ("Add" | "Mul") if node.input.len() == 2 && !(is_series && op == "Mul") => {
            let other = usize::from(node.input[0] == plan.output);
            let constant = Constant::find(index, &node.input[other])?;
            if !is_float(constant.dtype) || !is_per_channel(index, plan, &constant.shape) {
                return None;
            }
            Some(if op == "Add" { Fold::Add(constant, 1.0) } else { Fold::Mul(constant) })
        }
        _ => None,
    }
}

/// BatchNormalization in inference mode over the layer's channels.
fn norm(index: &Index, plan: &Plan, node: &NodeProto) -> Option<Fold> {
    let channels = plan.geometry.channels_out();
    let others_unused = node.output.iter().skip(1).all(|name| name.is_empty() || !index.is_read(name));
    let by_channel = int(node, "training_mode", 0) == 0 && int(node, "spatial", 1) != 0;
    // BatchNormalization works along axis 1, a matrix product along its last.
    let axis_fits = match plan.geometry {
        Geometry::Conv(_) => true,
        Geometry::MatMul(_) => matmul_rank(index, plan) == 2,
    };
    if !others_unused || !by_channel || !axis_fits || input(node, 0) != Some(plan.output.as_str()) {
        return None;
    }
    let parameter = |i: usize| {
        let constant = Constant::find(index, input(node, i)?)?;
        (constant.shape == [channels] && is_float(constant.dtype)).then_some(constant)
    };
    let parameters = [parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?];
    Some(Fold::Norm(Box::new(parameters), f64::from(float(node, "epsilon", 1e-5))))
}

/// Broadcasts along everything but the channels of the plan's output, without adding axes to it.
fn is_per_channel(index: &Index, plan: &Plan, shape: &[usize]) -> bool {
    let (rank, from_end) = match &plan.geometry {
        Geometry::Conv(g) => (g.spatial_rank + 2, g.spatial_rank + 1),
        Geometry::MatMul(_) => (matmul_rank(index, plan), 1),
    };
    let channels = plan.geometry.channels_out();
    let fits = |(i, &dim): (usize, &usize)| dim == 1 || (shape.len() - i == from_end && dim == channels);
    shape.len() <= rank && shape.iter().enumerate().all(fits)
}

/// Rank of a matrix product, which is that of its input; 1 where it is not known: to a vector, a matrix of one row would add
/// an axis.
fn matmul_rank(index: &Index, plan: &Plan) -> usize {
    if plan.op_type == "Gemm" {
        return 2;
    }
    index.rank(&plan.input).or_else(|| index.rank(&plan.output)).unwrap_or(1)
}

/// Composes the folds of a plan; `values` reads a constant. `None` where one has another number of values than finding it
/// has shown.
pub(crate) fn compose(
    plan: &Plan,
    values: impl Fn(&Constant) -> Result<Vec<f64>, Error>,
) -> Result<Option<Affine>, Error> {
    let channels = plan.geometry.channels_out();
    let mut affine = Affine::default();
    for fold in &plan.folds {
        match fold {
            Fold::Alpha(alpha) => affine.scale(&vec![*alpha; channels]),
            Fold::Mul(constant) => match spread(values(constant)?, channels) {
                Some(factor) => affine.scale(&factor),
                None => return Ok(None),
            },
            Fold::Add(constant, beta) => {
                let shift: Vec<f64> = values(constant)?.iter().map(|v| v * beta).collect();
                match spread(shift, channels) {
                    Some(shift) => affine.add(&shift),
                    None => return Ok(None),
                }
            }
            Fold::Norm(parameters, epsilon) => {
                let values = parameters.iter().map(&values).collect::<Result<Vec<_>, _>>()?;
                let [gamma, beta, mean, variance] = values.as_slice() else { return Ok(None) };
                let factor: Vec<f64> = gamma.iter().zip(variance).map(|(g, v)| g / (v + epsilon).sqrt()).collect();
                affine.add(&mean.iter().map(|m| -m).collect::<Vec<_>>());
                affine.scale(&factor);
                affine.add(beta);
            }
        }
    }
    Ok(Some(affine))
}

/// One value a channel from that or from one value in all.
fn spread(values: Vec<f64>, channels: usize) -> Option<Vec<f64>> {
    match values.len() {
        len if len == channels => Some(values),
        1 => Some(vec![values[0]; channels]),
        _ => None,
    }
}

impl Affine {
    fn scale(&mut self, by: &[f64]) {
        for values in [&mut self.factor, &mut self.shift].into_iter().flatten() {
            values.iter_mut().zip(by).for_each(|(v, by)| *v *= by);
        }
        self.factor.get_or_insert_with(|| by.to_vec());
    }

    fn add(&mut self, values: &[f64]) {
        match &mut self.shift {
            Some(shift) => shift.iter_mut().zip(values).for_each(|(s, v)| *s += v),
            None => self.shift = Some(values.to_vec()),
        }
    }
}

/// `bias` shape of a Gemm or Conv: one value a channel, or for a Gemm also a scalar or a row.
pub(crate) fn is_bias(geometry: &Geometry, shape: &[usize]) -> bool {
    let channels = geometry.channels_out();
    match geometry {
        Geometry::Conv(_) => shape == [channels],
        Geometry::MatMul(_) => matches!(shape, [] | [1] | [1, 1]) || shape == [channels] || shape == [1, channels],
    }
}
