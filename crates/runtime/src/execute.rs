//! Running a plan: steps in order over slots whose buffers are reused.

use std::sync::atomic::Ordering;

use fpxint::{ActivationClip, ConvGeometry, Geometry};
use fpxint_kernels::{Codes, Range, Residual, global_average};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use crate::batch::After;
use crate::error::guarded;
use crate::held::{Coding, Held, Scratch};
use crate::layer::Layer;
use crate::layout::{permute, permuted_shape};
use crate::plan::{Action, Step};
use crate::pooling::concat_channels;
use crate::shared_run::Feed;
use crate::value::View;
use crate::{Error, Model, graph};

impl Model {
    /// Runs the plan on checked inputs, in the order of the model's inputs, with the threads that `scratch` says.
    ///
    /// `after(step)` is called behind every step.
    pub(crate) fn execute(
        &self,
        inputs: &[View<'_>],
        scratch: &mut Scratch,
        after: After<'_>,
    ) -> Result<Vec<TValue>, Error> {
        let shapes: Vec<_> = inputs.iter().map(View::shape).collect();
        let symbols = graph::bind(&self.sources, &shapes)?;
        let mut slots: Vec<Option<Held<'_>>> = (0..self.plan.slots).map(|_| None).collect();
        for (slot, tensor) in &self.plan.constants {
            slots[*slot] = Some(Held::host(TValue::from_const(tensor.clone())));
        }
        for ((&slot, view), source) in self.plan.inputs.iter().zip(inputs).zip(&self.sources) {
            slots[slot] = Some(match view.floats() {
                Some(values) if !self.plan.to_host[slot] && source.kind == f32::datum_type() => {
                    Held::input(values, view.shape())
                }
                _ => Held::host(view.to_tensor(source.kind)?.into_tvalue()),
            });
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
        let output = |&slot: &usize| made(&mut slots, slot)?.share();
        self.plan.outputs.iter().map(output).collect::<TractResult<_>>().map_err(Error::graph)
    }

    fn step<'a>(
        &self,
        step: &Step,
        slots: &mut [Option<Held<'a>>],
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
                let ranges = activation.run(self.kernel, held.floats()?, out.floats_mut()?, images, scratch.threads);
                out.ranges = (shape.len() > 2).then_some(ranges);
                slots[step.outputs[0]] = Some(out);
            }
            Action::Pool(pool) => {
                let held = read(slots, step.inputs[0])?;
                let (windows, images, shape) = pool.windows(held.shape())?;
                check_shape(&shape, &step.shapes[0], symbols)?;
                let finite = held.ranges.as_ref().is_some_and(|ranges| ranges.iter().all(|range| range.is_finite()));
                let mut out = take(scratch, &shape)?;
                let ranges =
                    windows.run(self.kernel, held.floats()?, images, finite, out.floats_mut()?, scratch.threads);
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
                out.ranges = Some(global_average(self.kernel, x, size, out.floats_mut()?, scratch.threads));
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
                concat_channels(&views.collect::<TractResult<Vec<_>>>()?, out.floats_mut()?, scratch.threads);
                out.ranges = united(&parts);
                slots[step.outputs[0]] = Some(out);
            }
            Action::Encoder(kind) => slots[step.outputs[0]] = Some(self.encoder(kind, step, slots, scratch)?),
            Action::Tract { op, .. } => {
                let mut share = |&slot: &usize| made(slots, slot)?.share();
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
    fn layer<'a>(
        &self,
        index: usize,
        step: &Step,
        slots: &mut [Option<Held<'a>>],
        scratch: &mut Scratch,
    ) -> TractResult<Held<'a>> {
        let layer = &self.layers[index];
        let input = made(slots, step.inputs[0])?;
        let shape = output_shape(&layer.geometry, input.shape())?;
        let (coding, codes) = self.codes(layer, input, scratch)?;
        if layer.clip != ActivationClip::None {
            let values = made(slots, step.inputs[0])?.shape().iter().product::<usize>();
            layer.entered[0].fetch_add(values as u64, Ordering::Relaxed);
            layer.entered[1].fetch_add(codes.beyond().len() as u64, Ordering::Relaxed);
        }
        if let (1, None) = (step.inputs.len(), &layer.shared)
            && let Some(out) = self.coded(index, step, (&codes, &shape), scratch)
        {
            made(slots, step.inputs[0])?.codes.push((coding, codes));
            return Ok(out);
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
        let (product, y) = (&layer.product, out.floats_mut()?);
        let ranges = match &layer.shared {
            None => product.fused(self.kernel, &codes, residual, y, scratch.threads),
            Some(shared) => {
                let images = codes.images();
                self.shared_layer(index, shared, Feed { codes: &codes, residual, images }, y, scratch)?
            }
        };
        self.note(index, &ranges);
        out.ranges = matches!(layer.geometry, Geometry::Conv(_)).then_some(ranges);
        made(slots, step.inputs[0])?.codes.push((coding, codes));
        Ok(out)
    }

    /// The codes of a layer's input, which another layer may have made already. Notes the range of images where it is measured.
    fn codes(&self, layer: &Layer, input: &mut Held<'_>, scratch: &mut Scratch) -> TractResult<(Coding, Codes)> {
        let images = match &layer.geometry {
            Geometry::MatMul(_) => None,
            Geometry::Conv(g) => Some((image_size(g, input.shape()), g)),
        };
        let pads = images.map(|([_, h, w, _], g)| g.pads([h, w]));
        let coding = Coding { pads, activations: layer.activations, clip: layer.clip };
        if let Some(known) = input.codes.iter().position(|(known, _)| *known == coding) {
            return Ok(input.codes.swap_remove(known));
        }
        let x = input.floats()?;
        let (kernel, threads, clips) = (self.kernel, scratch.threads, layer.clip != ActivationClip::None);
        let mut codes = scratch.codes.pop().unwrap_or_default();
        let grids = &mut scratch.grids;
        grids.clear();
        match (images, pads) {
            (Some((size, _)), Some(pads)) => {
                let unknown = input.ranges.is_none();
                let measured = unknown.then(|| Codes::ranges(kernel, x, x.len() / size[0].max(1), threads));
                let ranges = input.ranges.as_ref().or(measured.as_ref()).map_or(&[][..], |ranges| ranges);
                if clips {
                    codes.clip_images(kernel, x, size, pads, ranges, layer, threads);
                } else {
                    grids.extend(ranges.iter().map(|&range| layer.grid(range)));
                    codes.fill_images(kernel, x, size, pads, grids, threads);
                }
                if measured.is_some() {
                    input.ranges = measured;
                }
            }
            _ => {
                let k = layer.geometry.depth();
                match input.rows.as_deref().filter(|rows| rows.len() * k == x.len()) {
                    rows if clips => codes.clip_rows(kernel, x, k, rows, layer, threads),
                    Some(rows) => {
                        grids.extend(rows.iter().map(|&range| layer.grid(range)));
                        codes.fill_rows(kernel, x, k, grids, threads);
                    }
                    None => codes.measure_rows(kernel, x, k, |range| layer.grid(range), threads),
                }
            }
        }
        Ok((coding, codes))
    }
}

/// Images, height, width and channels of a convolution's input; a 1-D one has height 1.
pub(crate) fn image_size(g: &ConvGeometry, shape: &[usize]) -> [usize; 4] {
    let h = if g.spatial_rank == 2 { shape[1] } else { 1 };
    [shape[0], h, shape[shape.len() - 2], g.channels_in]
}

/// The physical shape of a layer's output for an input that it can take.
fn output_shape(geometry: &Geometry, input: &[usize]) -> TractResult<TVec<usize>> {
    let mut shape: TVec<usize> = input.into();
    match geometry {
        Geometry::MatMul(g) => {
            ensure!(shape.last() == Some(&g.k), "input of shape {shape:?} to a product of depth {}", g.k);
            *shape.last_mut().expect("rank was checked") = g.n;
            Ok(shape)
        }
        Geometry::Conv(g) => {
            ensure!(shape.last() == Some(&g.channels_in), "input of shape {shape:?} to {} channels", g.channels_in);
            ensure!(!shape.contains(&0), "an image of shape {shape:?} holds no pixels");
            let [n, h, w, _] = image_size(g, input);
            let Some([oh, ow]) = g.output([h, w]) else {
                bail!("an image of {h} x {w} is smaller than the kernel");
            };
            let pads = g.pads([h, w]);
            element_count(&[n, h + pads[0] + pads[2], w + pads[1] + pads[3], g.channels_in])?;
            element_count(&[n, oh, ow, g.channels_out])?;
            Ok(match g.spatial_rank {
                2 => tvec![n, oh, ow, g.channels_out],
                _ => tvec![n, ow, g.channels_out],
            })
        }
    }
}

/// Most elements of a value: what needs more is a mistake or an attack, not an image.
const MOST_ELEMENTS: usize = 1 << 31;

/// Elements of a value of this shape, within reason.
pub(crate) fn element_count(shape: &[usize]) -> TractResult<usize> {
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
fn united(parts: &[&Held<'_>]) -> Option<Vec<Range>> {
    let known = parts.iter().map(|p| p.ranges.as_deref()).collect::<Option<Vec<_>>>()?;
    let (first, rest) = known.split_first()?;
    let unite = |(i, &range): (usize, &Range)| rest.iter().fold(range, |all, part| all.union(part[i]));
    Some(first.iter().enumerate().map(unite).collect())
}

pub(crate) fn read<'s, 'a>(slots: &'s [Option<Held<'a>>], slot: usize) -> TractResult<&'s Held<'a>> {
    slots[slot].as_ref().context("a value is read before it is made")
}

fn made<'s, 'a>(slots: &'s mut [Option<Held<'a>>], slot: usize) -> TractResult<&'s mut Held<'a>> {
    slots[slot].as_mut().context("a value is read before it is made")
}
