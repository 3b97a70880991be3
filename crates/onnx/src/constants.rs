//! Constant values: an initialiser or Constant node, seen through Identity, Transpose, Reshape, Squeeze, Unsqueeze and
//! casts between float types. Finding one decodes nothing; its values are computed when asked for.

use half::{bf16, f16};

use crate::index::Index;
use crate::node::{input, int, ints, onnx_op};
use crate::proto::{
    AttributeProto, GraphProto, NodeProto, TensorProto, attribute_proto::AttributeType, tensor_proto::DataType,
};
use crate::tensor;

/// Where the numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Initialiser(usize),
    /// Node and attribute of a Constant.
    Attribute(usize, usize),
}

/// What lies between the numbers and their reader.
#[derive(Debug, Clone, PartialEq, Eq)]
enum View {
    /// Axis `i` of the result is axis `perm[i]` of the operand.
    Transpose(Vec<usize>),
    Reshape(Vec<usize>),
    Cast(i32),
}

/// A constant value of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Constant {
    base: Base,
    /// In order of application.
    views: Vec<View>,
    base_shape: Vec<usize>,
    /// Dimensions of the value.
    pub shape: Vec<usize>,
    /// ONNX data type of the value.
    pub dtype: i32,
}

/// Longest chain of nodes looked through.
const MAX_CHAIN: usize = 64;

impl Constant {
    /// The constant that `name` is, if it is one.
    pub fn find(index: &Index, name: &str) -> Option<Self> {
        let mut chain = Vec::new();
        let mut name = name;
        let mut constant = loop {
            if let Some(constant) = Self::direct(index, name) {
                break constant;
            }
            let node = index.maker(name)?;
            let seen_through = ["Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Cast"];
            if chain.len() == MAX_CHAIN || !seen_through.contains(&onnx_op(node)) {
                return None;
            }
            chain.push(node);
            name = input(node, 0)?;
        };
        chain.into_iter().rev().try_for_each(|node| constant.look_through(index, node))?;
        Some(constant)
    }

    /// The initialiser or the output of a Constant node that `name` is, if it is one.
    pub fn direct(index: &Index, name: &str) -> Option<Self> {
        let base = match index.initialiser(name) {
            Some(i) => Base::Initialiser(i),
            None => {
                let node = index.maker(name).filter(|node| onnx_op(node) == "Constant")?;
                let held = |a: &AttributeProto| a.name.as_deref().is_some_and(|n| n.starts_with("value"));
                Base::Attribute(index.producer(name)?, node.attribute.iter().position(held)?)
            }
        };
        let (base_shape, dtype) = header(index.graph, base)?;
        Some(Self { base, views: Vec::new(), shape: base_shape.clone(), base_shape, dtype })
    }

    fn look_through(&mut self, index: &Index, node: &NodeProto) -> Option<()> {
        match onnx_op(node) {
            "Transpose" => {
                let perm = match ints(node, "perm") {
                    Some(perm) => perm.iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<Vec<_>>>()?,
                    None => (0..self.shape.len()).rev().collect(),
                };
                let mut sorted = perm.clone();
                sorted.sort_unstable();
                if !sorted.iter().copied().eq(0..self.shape.len()) {
                    return None;
                }
                self.shape = perm.iter().map(|&axis| self.shape[axis]).collect();
                self.views.push(View::Transpose(perm));
            }
            "Reshape" => {
                let wanted = Self::direct(index, input(node, 1)?)?.integers(index.graph)?;
                self.reshape(reshaped(&self.shape, &wanted, int(node, "allowzero", 0) != 0)?);
            }
            op @ ("Squeeze" | "Unsqueeze") => {
                let axes = match input(node, 1) {
                    Some(name) => Some(Self::direct(index, name)?.integers(index.graph)?),
                    None => ints(node, "axes").map(<[i64]>::to_vec),
                };
                self.reshape(if op == "Squeeze" {
                    squeezed(&self.shape, axes)?
                } else {
                    unsqueezed(&self.shape, axes?)?
                });
            }
            "Cast" => {
                let to = i32::try_from(int(node, "to", 0)).ok()?;
                if !tensor::is_float(self.dtype) || !tensor::is_float(to) {
                    return None;
                }
                self.dtype = to;
                self.views.push(View::Cast(to));
            }
            _ => {}
        }
        Some(())
    }

    fn reshape(&mut self, shape: Vec<usize>) {
        self.shape.clone_from(&shape);
        self.views.push(View::Reshape(shape));
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The initialiser that holds the numbers.
    pub fn initialiser<'a>(&self, graph: &'a GraphProto) -> Option<&'a TensorProto> {
        match self.base {
            Base::Initialiser(i) => graph.initializer.get(i),
            Base::Attribute(..) => None,
        }
    }

    /// The same constant of a graph whose first initialiser holds the numbers.
    pub fn of_first(&self) -> Self {
        Self { base: Base::Initialiser(0), ..self.clone() }
    }

    /// The tensor itself, when nothing lies between it and its reader.
    pub fn tensor<'a>(&self, graph: &'a GraphProto) -> Option<&'a TensorProto> {
        if !self.views.is_empty() {
            return None;
        }
        self.stored(graph)
    }

    /// The tensor that holds the numbers, whatever lies between it and its reader.
    pub fn stored<'a>(&self, graph: &'a GraphProto) -> Option<&'a TensorProto> {
        match self.base {
            Base::Initialiser(i) => graph.initializer.get(i),
            Base::Attribute(node, i) => graph.node.get(node)?.attribute.get(i)?.t.as_ref(),
        }
    }

    /// Name of the tensor for messages.
    pub fn name<'a>(&self, graph: &'a GraphProto) -> &'a str {
        match self.base {
            Base::Initialiser(i) => graph.initializer[i].name.as_deref().unwrap_or(""),
            Base::Attribute(node, _) => graph.node[node].output.first().map_or("", String::as_str),
        }
    }

    /// Values in f32, row-major. `None` unless the type is FLOAT, FLOAT16, BFLOAT16 or DOUBLE, the last rounded.
    pub fn floats(&self, graph: &GraphProto) -> Option<Vec<f32>> {
        let mut values = match self.stored(graph) {
            Some(tensor) => tensor::floats(tensor)?,
            None => self.doubles(graph)?.into_iter().map(|v| v as f32).collect(),
        };
        let mut shape = self.base_shape.clone();
        for view in &self.views {
            match view {
                View::Transpose(perm) => {
                    values = transposed(&values, &shape, perm);
                    shape = perm.iter().map(|&axis| shape[axis]).collect();
                }
                View::Reshape(new) => shape.clone_from(new),
                View::Cast(to) => cast(&mut values, *to),
            }
        }
        Some(values)
    }

    /// Values in f64, exactly, of a constant that is read directly; else as [`Constant::floats`].
    pub fn doubles(&self, graph: &GraphProto) -> Option<Vec<f64>> {
        if let Base::Attribute(node, i) = self.base {
            let a = graph.node.get(node)?.attribute.get(i)?;
            match a.name.as_deref() {
                Some("value_float") => return Some(vec![f64::from(a.f?)]),
                Some("value_floats") => return Some(a.floats.iter().map(|&v| f64::from(v)).collect()),
                _ => {}
            }
        }
        match self.tensor(graph) {
            Some(tensor) => tensor::doubles(tensor),
            None => Some(self.floats(graph)?.into_iter().map(f64::from).collect()),
        }
    }

    /// Values of an integer constant that is read directly.
    pub fn integers(&self, graph: &GraphProto) -> Option<Vec<i64>> {
        if let Base::Attribute(node, i) = self.base {
            let a = graph.node.get(node)?.attribute.get(i)?;
            match a.name.as_deref() {
                Some("value_int") => return Some(vec![a.i?]),
                Some("value_ints") => return Some(a.ints.clone()),
                _ => {}
            }
        }
        let tensor = self.stored(graph).filter(|_| self.shape.len() <= 1)?;
        tensor::integers(tensor)
    }
}

/// Dimensions and data type of a base.
fn header(graph: &GraphProto, base: Base) -> Option<(Vec<usize>, i32)> {
    let of_tensor = |t: &TensorProto| (tensor::shape(t), t.data_type.unwrap_or(0));
    match base {
        Base::Initialiser(i) => graph.initializer.get(i).map(of_tensor),
        Base::Attribute(node, i) => {
            let a = graph.node.get(node)?.attribute.get(i)?;
            match (a.name.as_deref()?, AttributeType::try_from(a.r#type.unwrap_or(0)).ok()?) {
                ("value", _) => a.t.as_ref().map(of_tensor),
                ("value_float", AttributeType::Float) => Some((Vec::new(), DataType::Float as i32)),
                ("value_floats", AttributeType::Floats) => Some((vec![a.floats.len()], DataType::Float as i32)),
                ("value_int", AttributeType::Int) => Some((Vec::new(), DataType::Int64 as i32)),
                ("value_ints", AttributeType::Ints) => Some((vec![a.ints.len()], DataType::Int64 as i32)),
                _ => None,
            }
        }
    }
}

/// Result of Reshape: 0 copies a dimension, -1 takes what is left.
fn reshaped(shape: &[usize], wanted: &[i64], allow_zero: bool) -> Option<Vec<usize>> {
    let total: usize = shape.iter().product();
    let mut free = None;
    let mut result = Vec::with_capacity(wanted.len());
    for (i, &dim) in wanted.iter().enumerate() {
        match dim {
            -1 if free.is_none() => {
                free = Some(i);
                result.push(1);
            }
            0 if !allow_zero => result.push(*shape.get(i)?),
            dim => result.push(usize::try_from(dim).ok()?),
        }
    }
    let known = result.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))?;
    if let Some(i) = free {
        result[i] = total.checked_div(known)?;
    }
    let filled = result.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))?;
    (filled == total).then_some(result)
}

fn squeezed(shape: &[usize], axes: Option<Vec<i64>>) -> Option<Vec<usize>> {
    let drop: Vec<usize> = match axes {
        Some(axes) => axes.iter().map(|&axis| wrap(axis, shape.len())).collect::<Option<_>>()?,
        None => (0..shape.len()).filter(|&axis| shape[axis] == 1).collect(),
    };
    if drop.iter().any(|&axis| shape[axis] != 1) {
        return None;
    }
    Some((0..shape.len()).filter(|axis| !drop.contains(axis)).map(|axis| shape[axis]).collect())
}

fn unsqueezed(shape: &[usize], axes: Vec<i64>) -> Option<Vec<usize>> {
    let rank = shape.len() + axes.len();
    let added: Vec<usize> = axes.iter().map(|&axis| wrap(axis, rank)).collect::<Option<_>>()?;
    let mut rest = shape.iter();
    let result: Option<Vec<usize>> =
        (0..rank).map(|axis| if added.contains(&axis) { Some(1) } else { rest.next().copied() }).collect();
    result.filter(|_| rest.next().is_none())
}

/// A possibly negative axis.
pub(crate) fn wrap(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis.checked_add(rank as i64)? } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

/// Rounds values to a float type and back.
fn cast(values: &mut [f32], to: i32) {
    match DataType::try_from(to) {
        Ok(DataType::Float16) => values.iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32()),
        Ok(DataType::Bfloat16) => values.iter_mut().for_each(|v| *v = bf16::from_f32(*v).to_f32()),
        _ => {}
    }
}

/// `y[i_perm[0], i_perm[1], ..] = x[i_0, i_1, ..]`; `perm` is a permutation of the axes of `shape`.
fn transposed(x: &[f32], shape: &[usize], perm: &[usize]) -> Vec<f32> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    let axes: Vec<(usize, usize)> = perm.iter().map(|&axis| (shape[axis], strides[axis])).collect();
    let mut counter = vec![0usize; axes.len()];
    let mut at = 0;
    let mut y = Vec::with_capacity(x.len());
    while y.len() < x.len() {
        y.push(x[at]);
        for (&(dim, stride), count) in axes.iter().zip(&mut counter).rev() {
            *count += 1;
            at += stride;
            if *count < dim {
                break;
            }
            at -= stride * dim;
            *count = 0;
        }
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshape_resolves_zeros_and_minus_one() {
        assert_eq!(reshaped(&[2, 3, 4], &[0, -1], false), Some(vec![2, 12]));
        assert_eq!(reshaped(&[2, 3, 4], &[-1], false), Some(vec![24]));
        assert_eq!(reshaped(&[2, 3, 4], &[4, 0, 2], false), Some(vec![4, 3, 2]));
        for wrong in [&[5, -1][..], &[-1, -1], &[0, 0, 0, 0], &[-2, -12], &[i64::MAX, i64::MAX]] {
            assert_eq!(reshaped(&[2, 3, 4], wrong, false), None, "{wrong:?}");
        }
        assert_eq!(reshaped(&[0, 3], &[0, -1], true), None);
        assert_eq!(reshaped(&[0, 3], &[3, 0], true), Some(vec![3, 0]));
    }

    #[test]
    fn squeeze_and_unsqueeze_invert() {
        assert_eq!(squeezed(&[1, 3, 1], None), Some(vec![3]));
        assert_eq!(squeezed(&[1, 3, 1], Some(vec![-1])), Some(vec![1, 3]));
        assert_eq!(squeezed(&[1, 3, 1], Some(vec![1])), None);
        assert_eq!(unsqueezed(&[3], vec![0, -1]), Some(vec![1, 3, 1]));
        assert_eq!(unsqueezed(&[3], vec![0, 0]), None);
        assert_eq!(unsqueezed(&[3], vec![5]), None);
    }

    #[test]
    fn transpose_moves_every_element() {
        let x: Vec<f32> = (0..24).map(|v| v as f32).collect();
        let y = transposed(&x, &[2, 3, 4], &[2, 0, 1]);
        for (i, j, k) in (0..24).map(|n| (n / 12, n / 4 % 3, n % 4)) {
            assert_eq!(y[k * 6 + i * 3 + j], x[i * 12 + j * 4 + k]);
        }
    }
}
