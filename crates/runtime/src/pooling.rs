//! Pools and concatenation of channels-last values, into buffers that are reused: which nodes are pools, their windows once
//! sizes are known, and the concatenation itself.

use fpxint_kernels::{Pool, Pooling};
use rayon::prelude::*;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::{
    binary::TypedBinOp,
    cast::Cast,
    cnn::{MaxPool, PoolSpec, SumPool},
    element_wise::ElementWiseOp,
    math::{Mul, Recip},
    nn::{DataFormat, Reduce, Reducer},
};
use tract_onnx::tract_hir::internal::*;

use crate::Error;

/// A pool before the size of its image is known.
#[derive(Debug)]
pub(crate) struct PoolStep {
    spec: PoolSpec,
    pub pooling: Pooling,
}

impl PoolStep {
    /// The pool that a node is, over one or two axes of f32 values.
    pub(crate) fn of(model: &TypedModel, node: &TypedNode) -> Result<Option<Self>, Error> {
        let (spec, pooling) = if let Some(op) = node.op_as::<MaxPool>() {
            if op.with_index_outputs.is_some() {
                return Ok(None);
            }
            (&op.pool_spec, Pooling::Max)
        } else if let Some(op) = node.op_as::<SumPool>()
            && op.normalize
        {
            (&op.pool_spec, Pooling::Average { count_padding: op.count_include_pad })
        } else {
            return Ok(None);
        };
        let fact = model.node_input_facts(node.id).map_err(Error::graph)?[0];
        let runs = fact.datum_type == f32::datum_type()
            && spec.data_format == DataFormat::NCHW
            && (1..=2).contains(&spec.rank())
            && fact.rank() == 2 + spec.rank()
            && !spec.kernel_shape.iter().chain(&*spec.strides()).chain(&*spec.dilations()).any(|&extent| extent == 0);
        Ok(runs.then(|| Self { spec: spec.clone(), pooling }))
    }

    /// The windows over channels-last images of this shape, their dimensions (n, h, w, c), and the shape of what is made.
    pub(crate) fn windows(&self, shape: &[usize]) -> TractResult<(Pool, [usize; 4], TVec<usize>)> {
        let axes = self.spec.rank();
        ensure!(shape.len() == 2 + axes, "a pool over {axes} axes of a value of shape {shape:?}");
        let spatial = &shape[1..1 + axes];
        let dims = self.spec.computed_padding(spatial);
        // A 1-D pool has height 1.
        let pair = |of: &dyn Fn(usize) -> usize, one: usize| if axes == 2 { [of(0), of(1)] } else { [one, of(0)] };
        let [before, after] = [pair(&|i| dims[i].pad_before, 0), pair(&|i| dims[i].pad_after, 0)];
        let pool = Pool {
            pooling: self.pooling,
            kernel: pair(&|i| self.spec.kernel_shape[i], 1),
            strides: pair(&|i| self.spec.stride(i), 1),
            dilations: pair(&|i| self.spec.dilation(i), 1),
            pads: [before[0], before[1], after[0], after[1]],
            output: pair(&|i| dims[i].convoluted, 1),
        };
        let [h, w] = pair(&|i| spatial[i], 1);
        let mut made: TVec<usize> = shape.into();
        for (i, dim) in dims.iter().enumerate() {
            made[1 + i] = dim.convoluted;
        }
        Ok((pool, [shape[0], h, w, shape[1 + axes]], made))
    }
}

/// The node that ends the mean over all axes but the first two which begins at `node`: a sum, times the inverse of its number of
/// values.
pub(crate) fn mean_from(model: &TypedModel, node: &TypedNode) -> TractResult<Option<usize>> {
    let Some(op) = node.op_as::<Reduce>() else { return Ok(None) };
    let fact = model.outlet_fact(node.inputs[0])?;
    let axes = 2..fact.rank();
    if op.reducer != Reducer::Sum || fact.datum_type != f32::datum_type() || !axes.clone().eq(op.axes.iter().copied()) {
        return Ok(None);
    }
    let leaves = model.output_outlets()?.contains(&node.id.into());
    let ([next], false) = (&node.outputs[0].successors[..], leaves) else { return Ok(None) };
    let product = model.node(next.node);
    if axes.is_empty() || !product.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<Mul>()) {
        return Ok(None);
    }
    let count: TDim = axes.map(|axis| &fact.shape[axis]).product();
    let factor = product.inputs[1 - next.slot];
    Ok(is_inverse(model, factor, &count)?.then_some(product.id))
}

/// Whether a value is `1 / count`, as a number or as what will be one.
fn is_inverse(model: &TypedModel, value: OutletId, count: &TDim) -> TractResult<bool> {
    let fact = model.outlet_fact(value)?;
    if let Some(number) = &fact.uniform {
        let count = count.to_i64();
        return Ok(count.is_ok_and(|n| n > 0 && number.cast_to_scalar::<f32>().is_ok_and(|v| v == (n as f32).recip())));
    }
    let node = model.node(value.node);
    if !node.op_as::<ElementWiseOp>().is_some_and(|op| op.0.is::<Recip>()) {
        return Ok(false);
    }
    let cast = model.node(node.inputs[0].node);
    if !cast.op_is::<Cast>() {
        return Ok(false);
    }
    let Some(size) = &model.outlet_fact(cast.inputs[0])?.konst else { return Ok(false) };
    let size = size.cast_to::<TDim>()?;
    Ok(size.try_as_plain_ram()?.as_slice::<TDim>()? == [count.clone()])
}

/// `y (pixels, sum of channels)`: the channels of every part in turn; a part is its values and its channels.
pub(crate) fn concat_channels(parts: &[(&[f32], usize)], y: &mut [f32], threads: usize) {
    let total: usize = parts.iter().map(|(_, channels)| channels).sum::<usize>().max(1);
    let pixels = (y.len() / total).div_ceil(threads.max(1)).max(1);
    let join = |(block, y): (usize, &mut [f32])| {
        let mut start = 0;
        for &(x, channels) in parts {
            let x = &x[block * pixels * channels..];
            for (y, x) in y.chunks_exact_mut(total).zip(x.chunks_exact(channels.max(1))) {
                y[start..start + channels].copy_from_slice(x);
            }
            start += channels;
        }
    };
    if threads <= 1 {
        join((0, y));
    } else {
        y.par_chunks_mut(pixels * total).enumerate().for_each(join);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_follow_each_other() {
        for threads in [1, 2, 3] {
            let mut y = [0.0; 6];
            concat_channels(&[(&[1.0, 2.0], 1), (&[], 0), (&[3.0, 4.0, 5.0, 6.0], 2)], &mut y, threads);
            assert_eq!(y, [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
        }
    }
}
