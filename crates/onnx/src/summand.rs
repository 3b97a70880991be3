//! The summands of an artefact's weight: integers times scales, dense for a term and sparse for the saturation part, and a bias.
//!
//! ```text
//! DequantizeLinear(integers, scale)   or   Mul(Cast(integers), scale);     floats, one a channel or one in all
//! ```
//!
//! Sparse integers are the `sparse_value` of a Constant, or a sparse initialiser.

use crate::constants::{Constant, wrap};
use crate::index::Index;
use crate::node::{input, int, onnx_op};
use crate::proto::{GraphProto, SparseTensorProto, tensor_proto::DataType};
use crate::tensor;

/// Axis of scales, and the values along it that share one; `None` for a scalar.
pub(crate) type Axis = Option<(usize, Option<usize>)>;

/// A term.
#[derive(Debug)]
pub(crate) struct Term {
    pub digits: Constant,
    /// Bits it is stored in.
    pub storage: u32,
    pub scale: Vec<f32>,
    pub axis: Axis,
}

/// The saturation part.
#[derive(Debug, Clone)]
pub(crate) struct Saturation {
    place: Place,
    shape: Vec<usize>,
    scale: Vec<f32>,
    axis: Axis,
}

/// Where a sparse tensor is.
#[derive(Debug, Clone, Copy)]
enum Place {
    Initialiser(usize),
    /// Node and attribute of a Constant.
    Attribute(usize, usize),
}

impl Place {
    /// The sparse tensor that `name` is, if it is one.
    fn find(index: &Index, name: &str) -> Option<Self> {
        if let Some(i) = index.sparse(name) {
            return Some(Self::Initialiser(i));
        }
        let node = index.maker(name).filter(|node| onnx_op(node) == "Constant")?;
        let held = node.attribute.iter().position(|a| a.name.as_deref() == Some("sparse_value"))?;
        Some(Self::Attribute(index.producer(name)?, held))
    }

    fn tensor(self, graph: &GraphProto) -> Option<&SparseTensorProto> {
        match self {
            Self::Initialiser(i) => graph.sparse_initializer.get(i),
            Self::Attribute(node, i) => graph.node.get(node)?.attribute.get(i)?.sparse_tensor.as_ref(),
        }
    }
}

/// Integers of any kind and their scales.
struct Scaled<'a> {
    /// Name of the integers.
    integers: &'a str,
    scale: Vec<f32>,
    scale_shape: Vec<usize>,
    /// The axis that the node states, where it states one.
    by_axis: Option<i64>,
    block: usize,
    /// Nodes that make it.
    nodes: Vec<usize>,
}

impl<'a> Scaled<'a> {
    fn find(index: &Index<'a>, name: &str) -> Option<Self> {
        let node = index.maker(name)?;
        let mut nodes = vec![index.producer(name)?];
        let (integers, by_axis) = match onnx_op(node) {
            "DequantizeLinear" if node.input.len() == 2 => (input(node, 0)?, Some(int(node, "axis", 1))),
            "Mul" if node.input.len() == 2 => {
                let cast = index.maker(input(node, 0)?).filter(|n| onnx_op(n) == "Cast")?;
                if int(cast, "to", 0) != i64::from(DataType::Float as i32) {
                    return None;
                }
                nodes.push(index.producer(input(node, 0)?)?);
                (input(cast, 0)?, None)
            }
            _ => return None,
        };
        let scales = Constant::direct(index, input(node, 1)?).filter(|c| c.dtype == DataType::Float as i32)?;
        let block = usize::try_from(int(node, "block_size", 0)).ok()?;
        let scale = scales.floats(index.graph)?;
        Some(Self { integers, scale, scale_shape: scales.shape, by_axis, block, nodes })
    }

    /// The axis of the scales for integers of a shape; the outer `None` where they do not fit.
    fn axis(&self, shape: &[usize]) -> Option<Axis> {
        let (rank, block) = (shape.len(), self.block);
        Some(match (self.by_axis, self.scale_shape.as_slice()) {
            (Some(axis), scales) if block > 0 => {
                let axis = wrap(axis, rank)?;
                let divided = |(i, &dim): (usize, &usize)| if i == axis { dim.div_ceil(block) } else { dim };
                let fits = scales.iter().copied().eq(shape.iter().enumerate().map(divided));
                fits.then_some(Some((axis, Some(block))))?
            }
            (_, []) => None,
            (Some(axis), &[len]) => Some((wrap(axis, rank).filter(|&axis| shape[axis] == len)?, None)),
            (None, scales) => Some((broadcast(scales, shape)?, None)),
            _ => return None,
        })
    }
}

/// The axis along which values of dimensions `of` lie that are broadcast to a shape of the same rank.
fn broadcast(of: &[usize], shape: &[usize]) -> Option<usize> {
    let axis = of.iter().position(|&dim| dim != 1).unwrap_or(0);
    let fits = |(i, &dim): (usize, &usize)| dim == if i == axis { shape[axis] } else { 1 };
    (of.len() == shape.len() && of.iter().enumerate().all(fits)).then_some(axis)
}

/// The bias of asymmetric weights.
#[derive(Debug, Clone)]
pub(crate) struct Asymmetry {
    values: Vec<f32>,
    shape: Vec<usize>,
}

impl Asymmetry {
    /// The bias that `name` is, if it is one.
    pub fn find(index: &Index, name: &str) -> Option<Self> {
        let floats = Constant::direct(index, name).filter(|c| c.dtype == DataType::Float as i32)?;
        Some(Self { values: floats.floats(index.graph)?, shape: floats.shape })
    }

    /// Whether it lies along the axis of a weight's scales, as many values as they are.
    pub fn is_beside(&self, term: &Term) -> bool {
        let axis = broadcast(&self.shape, &term.digits.shape);
        match term.axis {
            Some((along, None)) => axis == Some(along) && self.values.len() == term.scale.len(),
            _ => self.shape.is_empty() && term.scale.len() == 1,
        }
    }

    /// The bias in steps of the last term; says which one is no whole number of them.
    pub fn offsets(&self, last: &[f32]) -> Result<Vec<i32>, String> {
        let offset = |(i, (&bias, &step)): (usize, (&f32, &f32))| {
            let offset = if bias == 0.0 { 0.0 } else { f64::from(bias) / f64::from(step) };
            let is_whole = offset.round() == offset && offset.abs() <= f64::from(i32::MAX);
            if is_whole {
                Ok(offset as i32)
            } else {
                Err(format!("its bias {i}, {bias}, is no whole number of steps of {step}"))
            }
        };
        self.values.iter().zip(last).enumerate().map(offset).collect()
    }
}

impl Term {
    /// The term that makes `name`, if one does, and the nodes of it.
    pub fn find(index: &Index, name: &str) -> Option<(Self, Vec<usize>)> {
        let scaled = Scaled::find(index, name)?;
        let digits = Constant::direct(index, scaled.integers)?;
        let storage = tensor::digit_bits(digits.tensor(index.graph)?)?;
        let axis = scaled.axis(&digits.shape)?;
        Some((Self { digits, storage, scale: scaled.scale, axis }, scaled.nodes))
    }
}

impl Saturation {
    /// The saturation part that makes `name`, if one does, and the nodes of it.
    pub fn find(index: &Index, name: &str) -> Option<(Self, Vec<usize>)> {
        let mut scaled = Scaled::find(index, name)?;
        let place = Place::find(index, scaled.integers)?;
        let tensor = place.tensor(index.graph)?;
        if let Place::Attribute(node, _) = place {
            scaled.nodes.push(node);
        }
        let held = tensor.values.as_ref()?.data_type;
        [DataType::Int8, DataType::Int32].iter().find(|&&dtype| held == Some(dtype as i32))?;
        let shape = tensor.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect::<Option<Vec<_>>>()?;
        let axis = scaled.axis(&shape)?;
        Some((Self { place, shape, scale: scaled.scale, axis }, scaled.nodes))
    }

    /// Whether it has the shape and scales of a term, as it has of the first.
    pub fn is_beside(&self, term: &Term) -> bool {
        let scales = self.scale.iter().map(|s| s.to_bits()).eq(term.scale.iter().map(|s| s.to_bits()));
        scales && self.shape == term.digits.shape && self.axis == term.axis
    }

    /// Row-major indices and integers, in the order of the file; `None` where it does not hold as many of one as of the other.
    pub fn decode(&self, graph: &GraphProto) -> Option<Vec<(usize, i32)>> {
        let sparse = self.place.tensor(graph)?;
        let vector = |tensor: &Option<_>| tensor.as_ref().and_then(tensor::integers);
        let (indices, values) = (vector(&sparse.indices)?, vector(&sparse.values)?);
        if indices.len() != values.len() {
            return None;
        }
        let pair = |(&index, &value): (&i64, &i64)| Some((usize::try_from(index).ok()?, i32::try_from(value).ok()?));
        indices.iter().zip(&values).map(pair).collect()
    }
}
