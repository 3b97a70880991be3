//! Running a plan: steps in order over slots whose buffers are reused.

use std::collections::HashMap;

use fpxint::Geometry;
use fpxint_kernels::{Codes, Range, RowGrid};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::cnn::PoolSpec;
use tract_onnx::tract_hir::internal::*;

use crate::error::guarded;
use crate::layer::Layer;
use crate::layout::{permute, permuted_shape};
use crate::plan::{Action, Step};
use crate::pooling::{Window, concat_channels, max_pool};
use crate::{Error, Model, Value, graph};

/// Buffers of one call, kept for the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    codes: Codes,
    grids: Vec<RowGrid>,
    sums: Vec<i64>,
    /// Free f32 tensors by number of elements, for inputs of `shapes`.
    free: HashMap<usize, Vec<Tensor>>,
    shapes: Vec<Vec<usize>>,
}

/// A value, and its range by image where its producer measured it.
#[derive(Debug, Clone)]
struct Held {
    value: TValue,
    ranges: Option<Vec<Range>>,
    /// The buffer is the scratch's own, to be taken back.
    own: bool,
}

impl Held {
    /// A value whose buffer came from elsewhere.
    fn foreign(value: TValue) -> Self {
        Self { value, ranges: None, own: false }
    }

    /// A value in a buffer that the scratch gave.
    fn own(tensor: Tensor, ranges: Option<Vec<Range>>) -> Self {
        Self { value: tensor.into_tvalue(), ranges, own: true }
    }
}

impl Scratch {
    /// An f32 tensor of a shape, its content unspecified.
    fn take(&mut self, shape: &[usize]) -> TractResult<Tensor> {
        let len = element_count(shape)?;
        match self.free.get_mut(&len).and_then(Vec::pop) {
            Some(mut tensor) => {
                tensor.set_shape(shape)?;
                Ok(tensor)
            }
            None => Tensor::zero::<f32>(shape),
        }
    }

    /// Takes back a value that nothing reads any more.
    fn give(&mut self, held: Held) {
        if held.own && held.value.is_exclusive() {
            let tensor = held.value.into_tensor();
            self.free.entry(tensor.len()).or_default().push(tensor);
        }
    }

    /// Drops the buffers of inputs of other shapes.
    fn prepare(&mut self, shapes: &[&[usize]]) {
        if self.shapes != shapes {
            self.free.clear();
            self.shapes = shapes.iter().map(|s| s.to_vec()).collect();
        }
    }
}

impl Model {
    /// Runs the plan on checked inputs, in the order of the model's inputs.
    ///
    /// `after(step)` is called behind every step.
    pub(crate) fn execute(
        &self,
        inputs: &[&Value],
        scratch: &mut Scratch,
        after: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Vec<TValue>, Error> {
        let shapes: Vec<_> = inputs.iter().map(|v| v.shape()).collect();
        let symbols = graph::bind(&self.sources, &shapes)?;
        scratch.prepare(&shapes);
        let mut slots: Vec<Option<Held>> = vec![None; self.plan.slots];
        for (slot, tensor) in &self.plan.constants {
            slots[*slot] = Some(Held::foreign(TValue::from_const(tensor.clone())));
        }
        for ((&slot, value), source) in self.plan.inputs.iter().zip(inputs).zip(&self.sources) {
            slots[slot] = Some(Held::foreign(value.to_tensor(source.kind)?.into_tvalue()));
        }
        for (index, step) in self.plan.steps.iter().enumerate() {
            self.step(step, &mut slots, &symbols, scratch).map_err(|e| Error::run(&step.name, e))?;
            for &slot in &step.dead {
                if let Some(held) = slots[slot].take() {
                    scratch.give(held);
                }
            }
            after(index);
        }
        let output = |&slot: &usize| slots[slot].as_ref().map(|held| held.value.clone());
        let outputs: Option<Vec<_>> = self.plan.outputs.iter().map(output).collect();
        outputs.ok_or_else(|| Error::Graph("an output was never made".to_owned()))
    }

    fn step(
        &self,
        step: &Step,
        slots: &mut [Option<Held>],
        symbols: &SymbolValues,
        scratch: &mut Scratch,
    ) -> TractResult<()> {
        match &step.action {
            Action::Layer { layer } => {
                let made = self.layer(*layer, step, slots, scratch)?;
                slots[step.outputs[0]] = Some(made);
            }
            Action::Permute { to_last } => {
                let held = read(slots, step.inputs[0])?;
                let mut out = scratch.take(&permuted_shape(held.value.shape(), *to_last))?;
                permute(floats(&held.value)?, held.value.shape(), *to_last, floats_mut(&mut out)?);
                let ranges = held.ranges.clone();
                slots[step.outputs[0]] = Some(Held::own(out, ranges));
            }
            Action::Clamp(clamp) => {
                let held = read(slots, step.inputs[0])?;
                let mut out = scratch.take(held.value.shape())?;
                for (y, &x) in floats_mut(&mut out)?.iter_mut().zip(floats(&held.value)?) {
                    *y = clamp.apply(x);
                }
                slots[step.outputs[0]] = Some(Held::own(out, None));
            }
            Action::MaxPool(spec) => {
                let held = read(slots, step.inputs[0])?;
                let (size, window, shape) = pool_window(spec, held.value.shape())?;
                check_shape(&shape, &step.shapes[0], symbols)?;
                let mut out = scratch.take(&shape)?;
                max_pool(floats(&held.value)?, size, &window, floats_mut(&mut out)?, self.threads);
                slots[step.outputs[0]] = Some(Held::own(out, None));
            }
            Action::ConcatChannels => {
                let parts = step.inputs.iter().map(|&slot| read(slots, slot)).collect::<TractResult<Vec<_>>>()?;
                let mut shape: TVec<usize> = parts[0].value.shape().into();
                let channels = shape.len() - 1;
                ensure!(parts.iter().all(|p| p.value.shape()[..channels] == shape[..channels]), "parts of other sizes");
                shape[channels] = parts.iter().map(|p| p.value.shape()[channels]).sum();
                let mut out = scratch.take(&shape)?;
                let views = parts.iter().map(|p| Ok((floats(&p.value)?, p.value.shape()[channels])));
                concat_channels(&views.collect::<TractResult<Vec<_>>>()?, floats_mut(&mut out)?);
                let ranges = united(&parts);
                slots[step.outputs[0]] = Some(Held::own(out, ranges));
            }
            Action::Tract { op } => {
                let inputs: TVec<TValue> =
                    step.inputs.iter().map(|&slot| Ok(read(slots, slot)?.value.clone())).collect::<TractResult<_>>()?;
                let context = EvalContext { symbols, ..EvalContext::out_of_plan() };
                let outputs = guarded(|| match op.state(&context)? {
                    Some(mut state) => state.eval(&context, op.as_op(), inputs),
                    None => op.eval(&context, inputs),
                })?;
                for ((&slot, value), planned) in step.outputs.iter().zip(outputs).zip(&step.shapes) {
                    check_shape(value.shape(), planned, symbols)?;
                    slots[slot] = Some(Held::foreign(value));
                }
            }
        }
        Ok(())
    }

    /// Quantise, multiply, finish.
    fn layer(&self, index: usize, step: &Step, slots: &mut [Option<Held>], scratch: &mut Scratch) -> TractResult<Held> {
        let layer = &self.layers[index];
        let input = read(slots, step.inputs[0])?.value.clone();
        let known = slots[step.inputs[0]].as_mut().and_then(|held| held.ranges.clone());
        let (shape, measured) = self.quantise(layer, &input, known, scratch)?;
        if let (Some(ranges), Some(held)) = (measured, slots[step.inputs[0]].as_mut()) {
            held.ranges = Some(ranges);
        }
        let mut out = scratch.take(&shape)?;
        let residual = step.inputs.get(1).map(|&slot| read(slots, slot)).transpose()?;
        if let Some(residual) = residual {
            ensure!(
                residual.value.shape() == &shape[..],
                "a residual of shape {:?} to {shape:?}",
                residual.value.shape()
            );
        }
        let residual = residual.map(|held| floats(&held.value)).transpose()?;
        let y = floats_mut(&mut out)?;
        let (product, codes) = (&layer.product, &scratch.codes);
        let ranges = match &self.worker {
            None => product.fused(self.kernel, codes, residual, y, self.threads),
            Some(worker) => {
                scratch.sums.clear();
                scratch.sums.resize(y.len(), 0);
                product.partial(self.kernel, codes, &mut scratch.sums, self.threads);
                worker.reduce.all_reduce(index, &mut scratch.sums);
                product.finish(self.kernel, codes, &scratch.sums, residual, y, self.threads)
            }
        };
        let ranges = matches!(layer.geometry, Geometry::Conv(_)).then_some(ranges);
        Ok(Held::own(out, ranges))
    }

    /// Fills `scratch.codes`; returns the physical shape of the layer's output and, where they were measured here, the
    /// ranges of an image value.
    fn quantise(
        &self,
        layer: &Layer,
        input: &Tensor,
        known: Option<Vec<Range>>,
        scratch: &mut Scratch,
    ) -> TractResult<(TVec<usize>, Option<Vec<Range>>)> {
        let x = floats(input)?;
        let mut shape: TVec<usize> = input.shape().into();
        scratch.grids.clear();
        match &layer.geometry {
            Geometry::MatMul(g) => {
                ensure!(shape.last() == Some(&g.k), "input of shape {shape:?} to a product of depth {}", g.k);
                let ranges = Codes::ranges(self.kernel, x, g.k, self.threads);
                scratch.grids.extend(ranges.into_iter().map(|range| layer.grid(range)));
                scratch.codes.fill_rows(self.kernel, x, g.k, &scratch.grids, self.threads);
                *shape.last_mut().expect("rank was checked") = g.n;
                Ok((shape, None))
            }
            Geometry::Conv(g) => {
                ensure!(shape.last() == Some(&g.channels_in), "input of shape {shape:?} to {} channels", g.channels_in);
                ensure!(!x.is_empty(), "an image of shape {shape:?} holds no pixels");
                let (n, w) = (shape[0], shape[shape.len() - 2]);
                let h = if g.spatial_rank == 2 { shape[1] } else { 1 };
                let Some([oh, ow]) = g.output([h, w]) else {
                    bail!("an image of {h} x {w} is smaller than the kernel");
                };
                let measured = known.is_none();
                let len = x.len() / n.max(1);
                let ranges = known.unwrap_or_else(|| Codes::ranges(self.kernel, x, len, self.threads));
                scratch.grids.extend(ranges.iter().map(|&range| layer.grid(range)));
                let (image, pads) = ([n, h, w, g.channels_in], g.pads([h, w]));
                element_count(&[n, h + pads[0] + pads[2], w + pads[1] + pads[3], g.channels_in])?;
                element_count(&[n, oh, ow, g.channels_out])?;
                scratch.codes.fill_images(self.kernel, x, image, pads, &scratch.grids, self.threads);
                let shape = match g.spatial_rank {
                    2 => tvec![n, oh, ow, g.channels_out],
                    _ => tvec![n, ow, g.channels_out],
                };
                Ok((shape, measured.then_some(ranges)))
            }
        }
    }
}

/// Most elements of a value: what needs more is a mistake or an attack, not an image.
const MOST_ELEMENTS: usize = 1 << 31;

/// Elements of a value of this shape, within reason.
fn element_count(shape: &[usize]) -> TractResult<usize> {
    let count = shape.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim));
    match count {
        Some(count) if count <= MOST_ELEMENTS => Ok(count),
        _ => bail!("a value of shape {shape:?} has more than {MOST_ELEMENTS} elements"),
    }
}

/// Refuses an output of another shape than the one that the plan, and all that depends on it, was made for.
fn check_shape(shape: &[usize], planned: &[TDim], symbols: &SymbolValues) -> TractResult<()> {
    let fits = |(&size, dim): (&usize, &TDim)| dim.eval(symbols).to_i64().is_ok_and(|d| d == size as i64);
    let open = planned.iter().any(|dim| dim.eval(symbols).to_i64().is_err());
    ensure!(
        open || (shape.len() == planned.len() && shape.iter().zip(planned).all(fits)),
        "its output has shape {shape:?}, which is not the one inferred; export the model with fixed sizes"
    );
    Ok(())
}

/// Image size, window and output shape of a pool on a channels-last value.
fn pool_window(spec: &PoolSpec, shape: &[usize]) -> TractResult<([usize; 3], Window, TVec<usize>)> {
    let rank = shape.len();
    ensure!(rank == 3 || rank == 4, "a pool over {} axes", rank - 2);
    let (spatial, channels) = (&shape[1..rank - 1], shape[rank - 1]);
    let dims = spec.computed_padding(spatial);
    // A 1-D pool has height 1.
    let pair = |of: &dyn Fn(usize) -> usize, one: usize| if rank == 4 { [of(0), of(1)] } else { [one, of(0)] };
    let output = pair(&|i| dims[i].convoluted, 1);
    let window = Window {
        kernel: pair(&|i| spec.kernel_shape[i], 1),
        strides: pair(&|i| spec.stride(i), 1),
        dilations: pair(&|i| spec.dilation(i), 1),
        before: pair(&|i| dims[i].pad_before, 0),
        output,
    };
    let [h, w] = pair(&|i| spatial[i], 1);
    let mut made: TVec<usize> = shape.into();
    for (i, dim) in dims.iter().enumerate() {
        made[1 + i] = dim.convoluted;
    }
    Ok(([h, w, channels], window, made))
}

/// Ranges of values side by side, where all are known.
fn united(parts: &[&Held]) -> Option<Vec<Range>> {
    let known = parts.iter().map(|p| p.ranges.as_deref()).collect::<Option<Vec<_>>>()?;
    let (first, rest) = known.split_first()?;
    let unite = |(i, &range): (usize, &Range)| rest.iter().fold(range, |all, part| all.union(part[i]));
    Some(first.iter().enumerate().map(unite).collect())
}

fn read(slots: &[Option<Held>], slot: usize) -> TractResult<&Held> {
    slots[slot].as_ref().context("a value is read before it is made")
}

fn floats(tensor: &Tensor) -> TractResult<&[f32]> {
    tensor.try_as_plain_ram()?.as_slice::<f32>()
}

fn floats_mut(tensor: &mut Tensor) -> TractResult<&mut [f32]> {
    tensor.to_plain_array_view_mut::<f32>()?.into_slice().context("a tensor that is not contiguous")
}
