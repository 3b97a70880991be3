//! Running a plan: steps in order over slots whose buffers are reused.

use std::collections::HashMap;

use fpxint::Geometry;
use fpxint_kernels::{Buffer, Codes, Range, Residual, RowGrid, global_average};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use crate::error::guarded;
use crate::layer::Layer;
use crate::layout::{permute, permuted_shape};
use crate::plan::{Action, Step};
use crate::pooling::concat_channels;
use crate::{Error, Model, Value, graph};

/// Buffers of one call, kept for the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    codes: Codes,
    grids: Vec<RowGrid>,
    sums: Vec<i64>,
    /// Free buffers, the one last used at the end.
    free: Vec<Buffer>,
    /// Free tensors for the host by number of elements, for inputs of `shapes`.
    tensors: HashMap<usize, Vec<Tensor>>,
    shapes: Vec<Vec<usize>>,
}

/// Where a value lies.
#[derive(Debug)]
enum Store {
    /// In a buffer of ours.
    Buffer(Buffer, TVec<usize>),
    /// In a tensor of ours, for the host to read.
    Tensor(Tensor),
    /// As the host takes and makes values; `own` is a tensor of ours.
    Host { value: TValue, own: bool },
}

/// A value, and its range by image where its producer measured it.
#[derive(Debug)]
struct Held {
    store: Store,
    ranges: Option<Vec<Range>>,
}

impl Held {
    /// A value that the host made.
    fn host(value: TValue) -> Self {
        Self { store: Store::Host { value, own: false }, ranges: None }
    }

    /// Dimensions.
    fn shape(&self) -> &[usize] {
        match &self.store {
            Store::Buffer(_, shape) => shape,
            Store::Tensor(tensor) => tensor.shape(),
            Store::Host { value, .. } => value.shape(),
        }
    }

    /// Its values.
    fn floats(&self) -> TractResult<&[f32]> {
        match &self.store {
            Store::Buffer(buffer, shape) => Ok(buffer.floats(shape.iter().product())),
            Store::Tensor(tensor) => tensor.try_as_plain_ram()?.as_slice::<f32>(),
            Store::Host { value, .. } => value.try_as_plain_ram()?.as_slice::<f32>(),
        }
    }

    /// What no magnitude of it exceeds; infinity where that is not known.
    fn largest(&self) -> f32 {
        let largest = |range: &Range| if range.is_finite() { range.high.max(-range.low) } else { f32::INFINITY };
        self.ranges.as_ref().map_or(f32::INFINITY, |all| all.iter().map(largest).fold(0.0, f32::max))
    }

    /// Its values, where it is ours.
    fn floats_mut(&mut self) -> TractResult<&mut [f32]> {
        match &mut self.store {
            Store::Buffer(buffer, shape) => Ok(buffer.floats_mut(shape.iter().product())),
            Store::Tensor(tensor) => {
                tensor.to_plain_array_view_mut::<f32>()?.into_slice().context("a tensor that is not contiguous")
            }
            Store::Host { .. } => bail!("a value of the host is written"),
        }
    }

    /// The value as the host takes it; from then on the host's, until [`Scratch::give`] takes it back.
    fn share(&mut self) -> TValue {
        if let Store::Tensor(tensor) = &mut self.store {
            self.store = Store::Host { value: std::mem::take(tensor).into_tvalue(), own: true };
        }
        match &self.store {
            Store::Host { value, .. } => value.clone(),
            Store::Tensor(tensor) => tensor.clone().into_tvalue(),
            Store::Buffer(buffer, shape) => {
                let values = buffer.floats(shape.iter().product());
                Tensor::from_shape(shape, values).unwrap_or_default().into_tvalue()
            }
        }
    }
}

impl Scratch {
    /// A value of a shape, its content unspecified: for the host to read, or in the buffer last used that holds it, which is
    /// likeliest to be in the cache still.
    fn take(&mut self, shape: &[usize], to_host: bool) -> TractResult<Held> {
        let len = element_count(shape)?;
        if to_host {
            let tensor = match self.tensors.get_mut(&len).and_then(Vec::pop) {
                Some(mut tensor) => {
                    tensor.set_shape(shape)?;
                    tensor
                }
                None => Tensor::zero::<f32>(shape)?,
            };
            return Ok(Held { store: Store::Tensor(tensor), ranges: None });
        }
        let bytes = len * size_of::<f32>();
        let fits = self.free.iter().rposition(|buffer| buffer.capacity() >= bytes);
        // Where none holds it the largest grows, so that in time there are no more buffers than values alive at once.
        let largest = || (0..self.free.len()).max_by_key(|&i| self.free[i].capacity());
        let mut buffer = fits.or_else(largest).map_or_else(Buffer::default, |i| self.free.remove(i));
        buffer.reserve(bytes);
        Ok(Held { store: Store::Buffer(buffer, shape.into()), ranges: None })
    }

    /// Takes back a value that nothing reads any more.
    fn give(&mut self, held: Held) {
        match held.store {
            Store::Buffer(buffer, _) => self.free.push(buffer),
            Store::Tensor(tensor) => self.tensors.entry(tensor.len()).or_default().push(tensor),
            Store::Host { value, own: true } if value.is_exclusive() => {
                let tensor = value.into_tensor();
                self.tensors.entry(tensor.len()).or_default().push(tensor);
            }
            Store::Host { .. } => {}
        }
    }

    /// Drops the tensors of inputs of other shapes.
    fn prepare(&mut self, shapes: &[&[usize]]) {
        if self.shapes != shapes {
            self.tensors.clear();
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
        let mut slots: Vec<Option<Held>> = (0..self.plan.slots).map(|_| None).collect();
        for (slot, tensor) in &self.plan.constants {
            slots[*slot] = Some(Held::host(TValue::from_const(tensor.clone())));
        }
        for ((&slot, value), source) in self.plan.inputs.iter().zip(inputs).zip(&self.sources) {
            slots[slot] = Some(Held::host(value.to_tensor(source.kind)?.into_tvalue()));
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
        let output = |&slot: &usize| slots[slot].as_mut().map(Held::share);
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
        let to_host = step.outputs.iter().any(|&slot| self.plan.to_host[slot]);
        let take = |scratch: &mut Scratch, shape: &[usize]| scratch.take(shape, to_host);
        match &step.action {
            Action::Layer { layer } => {
                let made = self.layer(*layer, step, slots, scratch)?;
                slots[step.outputs[0]] = Some(made);
            }
            Action::Permute { to_last } => {
                let held = read(slots, step.inputs[0])?;
                let mut out = take(scratch, &permuted_shape(held.shape(), *to_last))?;
                permute(held.floats()?, held.shape(), *to_last, out.floats_mut()?);
                out.ranges.clone_from(&held.ranges);
                slots[step.outputs[0]] = Some(out);
            }
            Action::Activate(activation) => {
                let held = read(slots, step.inputs[0])?;
                let shape = held.shape();
                let mut out = take(scratch, shape)?;
                // Only of what may be images is a range wanted.
                let images = if shape.len() > 2 { shape[0] } else { 1 };
                let ranges = activation.run(self.kernel, held.floats()?, out.floats_mut()?, images, self.threads);
                out.ranges = (shape.len() > 2).then_some(ranges);
                slots[step.outputs[0]] = Some(out);
            }
            Action::Pool(pool) => {
                let held = read(slots, step.inputs[0])?;
                let (windows, images, shape) = pool.windows(held.shape())?;
                check_shape(&shape, &step.shapes[0], symbols)?;
                let finite = held.ranges.as_ref().is_some_and(|ranges| ranges.iter().all(|range| range.is_finite()));
                let mut out = take(scratch, &shape)?;
                let ranges = windows.run(self.kernel, held.floats()?, images, finite, out.floats_mut()?, self.threads);
                out.ranges = Some(ranges);
                slots[step.outputs[0]] = Some(out);
            }
            Action::GlobalAverage => {
                let held = read(slots, step.inputs[0])?;
                let mut shape: TVec<usize> = held.shape().into();
                let (n, channels) = (shape[0], shape[shape.len() - 1]);
                let pixels = shape[1..shape.len() - 1].iter().product();
                shape[1..].fill(1);
                *shape.last_mut().expect("rank was planned") = channels;
                let mut out = take(scratch, &shape)?;
                let (x, size) = (held.floats()?, [n, pixels, channels]);
                out.ranges = Some(global_average(self.kernel, x, size, out.floats_mut()?, self.threads));
                slots[step.outputs[0]] = Some(out);
            }
            Action::ConcatChannels => {
                let parts = step.inputs.iter().map(|&slot| read(slots, slot)).collect::<TractResult<Vec<_>>>()?;
                let mut shape: TVec<usize> = parts[0].shape().into();
                let channels = shape.len() - 1;
                ensure!(parts.iter().all(|p| p.shape()[..channels] == shape[..channels]), "parts of other sizes");
                shape[channels] = parts.iter().map(|p| p.shape()[channels]).sum();
                let mut out = take(scratch, &shape)?;
                let views = parts.iter().map(|p| Ok((p.floats()?, p.shape()[channels])));
                concat_channels(&views.collect::<TractResult<Vec<_>>>()?, out.floats_mut()?, self.threads);
                out.ranges = united(&parts);
                slots[step.outputs[0]] = Some(out);
            }
            Action::Tract { op } => {
                let mut share = |&slot: &usize| Ok(made(slots, slot)?.share());
                let inputs: TVec<TValue> = step.inputs.iter().map(&mut share).collect::<TractResult<_>>()?;
                let context = EvalContext { symbols, ..EvalContext::out_of_plan() };
                let outputs = guarded(|| match op.state(&context)? {
                    Some(mut state) => state.eval(&context, op.as_op(), inputs),
                    None => op.eval(&context, inputs),
                })?;
                for ((&slot, value), planned) in step.outputs.iter().zip(outputs).zip(&step.shapes) {
                    check_shape(value.shape(), planned, symbols)?;
                    slots[slot] = Some(Held::host(value));
                }
            }
        }
        Ok(())
    }

    /// Quantise, multiply, finish.
    fn layer(&self, index: usize, step: &Step, slots: &mut [Option<Held>], scratch: &mut Scratch) -> TractResult<Held> {
        let layer = &self.layers[index];
        let input = made(slots, step.inputs[0])?;
        let (shape, measured) = self.quantise(layer, input, scratch)?;
        if measured.is_some() {
            input.ranges = measured;
        }
        let mut out = scratch.take(&shape, self.plan.to_host[step.outputs[0]])?;
        let residual = step.inputs.get(1).map(|&slot| read(slots, slot)).transpose()?;
        if let Some(residual) = residual {
            ensure!(residual.shape() == &shape[..], "a residual of shape {:?} to {shape:?}", residual.shape());
        }
        let residual = match residual {
            Some(held) => Some(Residual { values: held.floats()?, largest: held.largest() }),
            None => None,
        };
        let y = out.floats_mut()?;
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
        out.ranges = matches!(layer.geometry, Geometry::Conv(_)).then_some(ranges);
        Ok(out)
    }

    /// Fills `scratch.codes`; returns the physical shape of the layer's output and, where they were measured here, the
    /// ranges of an image value.
    fn quantise(
        &self,
        layer: &Layer,
        input: &Held,
        scratch: &mut Scratch,
    ) -> TractResult<(TVec<usize>, Option<Vec<Range>>)> {
        let x = input.floats()?;
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
                let len = x.len() / n.max(1);
                let unknown = input.ranges.is_none();
                let measured = unknown.then(|| Codes::ranges(self.kernel, x, len, self.threads));
                let ranges = input.ranges.as_ref().or(measured.as_ref());
                scratch.grids.extend(ranges.into_iter().flatten().map(|&range| layer.grid(range)));
                let (image, pads) = ([n, h, w, g.channels_in], g.pads([h, w]));
                element_count(&[n, h + pads[0] + pads[2], w + pads[1] + pads[3], g.channels_in])?;
                element_count(&[n, oh, ow, g.channels_out])?;
                scratch.codes.fill_images(self.kernel, x, image, pads, &scratch.grids, self.threads);
                let shape = match g.spatial_rank {
                    2 => tvec![n, oh, ow, g.channels_out],
                    _ => tvec![n, ow, g.channels_out],
                };
                Ok((shape, measured))
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

fn made(slots: &mut [Option<Held>], slot: usize) -> TractResult<&mut Held> {
    slots[slot].as_mut().context("a value is read before it is made")
}
