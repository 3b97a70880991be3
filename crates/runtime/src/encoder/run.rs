//! Running the steps of encoders.

use fpxint_kernels::{Attention, Extent, Mask, Operands, Rows, add, softmax, sum};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use super::EncoderStep;
use crate::Model;
use crate::execute::read;
use crate::held::{Held, Scratch};
use crate::plan::Step;

impl Model {
    /// Runs a step of an encoder.
    pub(crate) fn encoder<'a>(
        &self,
        kind: &EncoderStep,
        step: &Step,
        slots: &[Option<Held<'a>>],
        scratch: &mut Scratch,
    ) -> TractResult<Held<'a>> {
        let to_host = self.plan.to_host[step.outputs[0]];
        let held = read(slots, step.inputs[0])?;
        let (x, shape) = (held.floats()?, held.shape());
        match kind {
            EncoderStep::Norm(norm) => {
                let k = norm.scale.len();
                ensure!(shape.last() == Some(&k), "rows of {k} values in a value of shape {shape:?}");
                let mut out = scratch.take(shape, to_host)?;
                let mut rows = scratch.rows.pop().unwrap_or_default();
                norm.run(self.kernel, x, out.floats_mut()?, &mut rows, scratch.threads);
                out.rows = Some(rows);
                Ok(out)
            }
            EncoderStep::Rotation(rotation) => {
                let k = shape.last().copied().unwrap_or(0);
                ensure!(k > 0 && k.is_multiple_of(rotation.block()), "rows of {k} values to be rotated");
                let mut out = scratch.take(shape, to_host)?;
                let mut rows = scratch.rows.pop().unwrap_or_default();
                rotation.run(self.kernel, (x, k), out.floats_mut()?, &mut rows, scratch.threads);
                out.rows = Some(rows);
                Ok(out)
            }
            EncoderStep::Attention(attention, parts) => self.attention(attention, parts, step, slots, scratch),
            EncoderStep::Softmax => {
                let mut out = scratch.take(shape, to_host)?;
                let k = shape.last().copied().unwrap_or(1);
                softmax(self.kernel, x, k, out.floats_mut()?, scratch.threads);
                Ok(out)
            }
            EncoderStep::Sum { first, count } => {
                let axes = *first..first + count;
                ensure!(axes.end <= shape.len(), "a sum over axes {axes:?} of a value of shape {shape:?}");
                let mut made: TVec<usize> = shape.into();
                made[axes.clone()].fill(1);
                let size = |part: &[usize]| part.iter().product();
                let sizes = [size(&shape[..axes.start]), size(&shape[axes.clone()]), size(&shape[axes.end..])];
                let mut out = scratch.take(&made, to_host)?;
                sum(self.kernel, x, sizes, out.floats_mut()?, scratch.threads);
                Ok(out)
            }
            EncoderStep::Add => {
                let (b, mut out) = (read(slots, step.inputs[1])?, scratch.take(shape, to_host)?);
                let ones = b.shape().iter().take_while(|&&size| size == 1).count();
                ensure!(b.shape()[ones..] == shape[ones..], "a value of shape {:?} added to {shape:?}", b.shape());
                add(x, b.floats()?, out.floats_mut()?, scratch.threads);
                Ok(out)
            }
        }
    }

    fn attention<'a>(
        &self,
        attention: &Attention,
        parts: &[Option<[usize; 2]>; 3],
        step: &Step,
        slots: &[Option<Held<'a>>],
        scratch: &mut Scratch,
    ) -> TractResult<Held<'a>> {
        let operand = |i: usize| operand(read(slots, step.inputs[i])?, parts[i]);
        let ([q, k, v], heads) = ([operand(0)?, operand(1)?, operand(2)?], attention.heads);
        let [batch, queries, row] = q.sizes;
        let [keys, width] = [k.sizes[1], v.sizes[2]];
        ensure!(
            k.sizes == [batch, keys, row] && v.sizes[..2] == k.sizes[..2] && row % heads == 0 && width % heads == 0,
            "attention of {heads} heads on queries {:?}, keys {:?} and values {:?}",
            q.sizes,
            k.sizes,
            v.sizes
        );
        let extent = Extent { batch, queries, keys, depth: row / heads, width: width / heads };
        let mask = match step.inputs.get(3) {
            Some(&slot) => Some(mask(read(slots, slot)?, [batch, heads, queries, keys])?),
            None => None,
        };
        let operands = Operands { queries: q.rows, keys: k.rows, values: v.rows, mask };
        let mut out = scratch.take(&[batch, queries, width], self.plan.to_host[step.outputs[0]])?;
        attention.run(self.kernel, &operands, extent, out.floats_mut()?, &mut scratch.attention, scratch.threads);
        Ok(out)
    }
}

/// An operand of attention: its rows, and batch, sequence and values of a row.
struct Operand<'a> {
    rows: Rows<'a>,
    sizes: [usize; 3],
}

/// Columns of a value, all by default.
fn operand<'a>(held: &'a Held<'_>, part: Option<[usize; 2]>) -> TractResult<Operand<'a>> {
    let (values, shape) = (held.floats()?, held.shape());
    let &[batch, sequence, stride] = shape else { bail!("an operand of shape {shape:?}") };
    let [start, len] = part.unwrap_or([0, stride]);
    ensure!(start + len <= stride, "columns {start} .. {} of a value of shape {shape:?}", start + len);
    let values = values.get(start..).unwrap_or_default();
    Ok(Operand { rows: Rows { values, stride }, sizes: [batch, sequence, len] })
}

/// A mask that broadcasts to `sizes`.
fn mask<'a>(held: &'a Held<'_>, sizes: [usize; 4]) -> TractResult<Mask<'a>> {
    let (values, shape) = (held.floats()?, held.shape());
    ensure!(shape.len() <= 4, "a mask of shape {shape:?}");
    let (mut strides, mut stride) = ([0; 4], 1);
    for (i, &size) in shape.iter().rev().enumerate() {
        let axis = 3 - i;
        ensure!(size == sizes[axis] || size == 1, "a mask of shape {shape:?} for scores of shape {sizes:?}");
        if size > 1 {
            strides[axis] = stride;
        }
        stride *= size;
    }
    Ok(Mask { values, strides })
}
