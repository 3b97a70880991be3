//! Values while a plan runs: where they lie, what is known of them, and the buffers that they leave for the next.

use std::collections::HashMap;

use fpxint::{ActivationClip, Precision};
use fpxint_kernels::{Buffer, Codes, Range, Room, RowGrid, Workspace};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use crate::execute::element_count;

/// Buffers of one call or part of it, kept for the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Codes of values that are gone.
    pub codes: Vec<Codes>,
    pub grids: Vec<RowGrid>,
    pub sums: Vec<i64>,
    /// Sums and room of every thread of a crew; the first room is that of a single worker too.
    own: Vec<(Vec<i64>, Room)>,
    /// Values of some output channels, residuals among them, and of all.
    pub channels: [Vec<f32>; 3],
    /// Threads that a step may use.
    pub threads: usize,
    /// Ranges of the rows of values that are gone.
    pub rows: Vec<Vec<Range>>,
    /// What attention keeps.
    pub attention: Workspace,
    /// Free buffers, the one last used at the end.
    free: Vec<Buffer>,
    /// Free tensors for the host by number of elements, for calls with inputs of `shapes`.
    tensors: HashMap<usize, Vec<Tensor>>,
    shapes: Vec<Vec<usize>>,
}

/// Where a value lies.
#[derive(Debug)]
pub(crate) enum Store<'a> {
    /// In an input of the call.
    Input(&'a [f32], &'a [usize]),
    /// In a buffer of ours.
    Buffer(Buffer, TVec<usize>),
    /// In a tensor of ours, for the host to read.
    Tensor(Tensor),
    /// Nowhere but in its codes.
    Codes(TVec<usize>),
    /// As the host takes and makes values; `own` is a tensor of ours.
    Host { value: TValue, own: bool },
}

/// What the codes of a value depend on beside it: rows of a matrix or images with a border, the precision and
/// the clip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Coding {
    /// Top, left, bottom and right of images; `None` for rows.
    pub pads: Option<[usize; 4]>,
    pub activations: Precision,
    pub clip: ActivationClip,
}

/// A value, and what layers have found out of it.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    store: Store<'a>,
    /// Its range by image, where it was measured.
    pub ranges: Option<Vec<Range>>,
    /// Its range by row, where it was measured.
    pub rows: Option<Vec<Range>>,
    /// Its codes, for other layers that read it.
    pub codes: Vec<(Coding, Codes)>,
}

impl<'a> Held<'a> {
    fn new(store: Store<'a>) -> Self {
        Self { store, ranges: None, rows: None, codes: Vec::new() }
    }

    /// An input that only our steps read.
    pub fn input(values: &'a [f32], shape: &'a [usize]) -> Self {
        Self::new(Store::Input(values, shape))
    }

    /// A value that the host made.
    pub fn host(value: TValue) -> Self {
        Self::new(Store::Host { value, own: false })
    }

    /// A value of which there are only codes.
    pub fn coded(shape: &[usize]) -> Self {
        Self::new(Store::Codes(shape.into()))
    }

    /// Dimensions.
    pub fn shape(&self) -> &[usize] {
        match &self.store {
            Store::Input(_, shape) => shape,
            Store::Buffer(_, shape) | Store::Codes(shape) => shape,
            Store::Tensor(tensor) => tensor.shape(),
            Store::Host { value, .. } => value.shape(),
        }
    }

    /// Its values.
    pub fn floats(&self) -> TractResult<&[f32]> {
        match &self.store {
            Store::Input(values, _) => Ok(values),
            Store::Buffer(buffer, shape) => Ok(buffer.floats(shape.iter().product())),
            Store::Tensor(tensor) => tensor.try_as_plain_ram()?.as_slice::<f32>(),
            Store::Codes(_) => bail!("a value of which there are only codes is read"),
            Store::Host { value, .. } => value.try_as_plain_ram()?.as_slice::<f32>(),
        }
    }

    /// What no magnitude of it exceeds; infinity where that is not known.
    pub fn largest(&self) -> f32 {
        let largest = |range: &Range| if range.is_finite() { range.high.max(-range.low) } else { f32::INFINITY };
        self.ranges
            .as_ref()
            .or(self.rows.as_ref())
            .map_or(f32::INFINITY, |all| all.iter().map(largest).fold(0.0, f32::max))
    }

    /// Its values, where it is ours.
    pub fn floats_mut(&mut self) -> TractResult<&mut [f32]> {
        match &mut self.store {
            Store::Buffer(buffer, shape) => Ok(buffer.floats_mut(shape.iter().product())),
            Store::Tensor(tensor) => {
                tensor.to_plain_array_view_mut::<f32>()?.into_slice().context("a tensor that is not contiguous")
            }
            Store::Input(..) | Store::Codes(_) | Store::Host { .. } => bail!("a value that is not ours is written"),
        }
    }

    /// The value as the host takes it; from then on the host's, until [`Scratch::give`] takes it back.
    pub fn share(&mut self) -> TractResult<TValue> {
        if let Store::Tensor(tensor) = &mut self.store {
            self.store = Store::Host { value: std::mem::take(tensor).into_tvalue(), own: true };
        }
        match &self.store {
            Store::Host { value, .. } => Ok(value.clone()),
            _ => Ok(Tensor::from_shape(self.shape(), self.floats()?)?.into_tvalue()),
        }
    }
}

impl Scratch {
    /// Sums and room for this many threads.
    pub fn own(&mut self, threads: usize) -> &mut [(Vec<i64>, Room)] {
        let there = self.own.len().max(threads);
        self.own.resize_with(there, Default::default);
        &mut self.own[..threads]
    }

    /// Room for one product at a time.
    pub fn room(&mut self) -> &mut Room {
        &mut self.own(1)[0].1
    }

    /// A value of a shape, its content unspecified: for the host to read, or in the buffer last used that holds it, which is
    /// likeliest to be in the cache still.
    pub fn take<'a>(&mut self, shape: &[usize], to_host: bool) -> TractResult<Held<'a>> {
        let len = element_count(shape)?;
        if to_host {
            let tensor = match self.tensors.get_mut(&len).and_then(Vec::pop) {
                Some(mut tensor) => {
                    tensor.set_shape(shape)?;
                    tensor
                }
                None => Tensor::zero::<f32>(shape)?,
            };
            return Ok(Held::new(Store::Tensor(tensor)));
        }
        let bytes = len * size_of::<f32>();
        let fits = self.free.iter().rposition(|buffer| buffer.capacity() >= bytes);
        // Where none holds it the largest grows, so that in time there are no more buffers than values alive at once.
        let largest = || (0..self.free.len()).max_by_key(|&i| self.free[i].capacity());
        let mut buffer = fits.or_else(largest).map_or_else(Buffer::default, |i| self.free.remove(i));
        buffer.reserve(bytes);
        Ok(Held::new(Store::Buffer(buffer, shape.into())))
    }

    /// Takes back a value that nothing reads any more.
    pub fn give(&mut self, held: Held<'_>) {
        self.rows.extend(held.rows);
        self.codes.extend(held.codes.into_iter().map(|(_, codes)| codes));
        match held.store {
            Store::Buffer(buffer, _) => self.free.push(buffer),
            Store::Tensor(tensor) => self.tensors.entry(tensor.len()).or_default().push(tensor),
            Store::Host { value, own: true } if value.is_exclusive() => {
                let tensor = value.into_tensor();
                self.tensors.entry(tensor.len()).or_default().push(tensor);
            }
            Store::Input(..) | Store::Codes(_) | Store::Host { .. } => {}
        }
    }

    /// Drops the tensors of calls whose inputs had other shapes. `shapes` are those of all samples of a call, whose parts may
    /// have fewer.
    pub fn prepare(&mut self, shapes: &[&[usize]]) {
        if self.shapes != shapes {
            self.tensors.clear();
            self.shapes = shapes.iter().map(|s| s.to_vec()).collect();
        }
    }
}
