//! Dimensions of a node's outputs from those of its inputs.

use super::contents::{bounds, slices};
use super::facts::{Dim, Facts, MAX_RANK};
use crate::constants::wrap;
use crate::node::{int, ints};
use crate::proto::NodeProto;

/// Operators whose first output has the type of their first input, and its shape where no rule says otherwise.
const SAME: [&str; 49] = [
    "Abs",
    "BatchNormalization",
    "Ceil",
    "Clip",
    "Cos",
    "CumSum",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "FastGelu",
    "Floor",
    "FpxRotation",
    "Gelu",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "MeanVarianceNormalization",
    "Mish",
    "Neg",
    "QuickGelu",
    "RMSNormalization",
    "Reciprocal",
    "Relu",
    "Round",
    "ScatterElements",
    "ScatterND",
    "Selu",
    "Sigmoid",
    "Sign",
    "SimplifiedLayerNormalization",
    "Sin",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tanh",
    "Trilu",
    "Cast",
    "Not",
    "IsNaN",
    "IsInf",
];

/// Operators whose first output has the type of their first input, and a shape of its own.
const TYPED: [&str; 28] = [
    "Pow",
    "Reshape",
    "Transpose",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Split",
    "Slice",
    "Gather",
    "Expand",
    "Tile",
    "Pad",
    "Resize",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "ReduceMean",
    "ReduceSum",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL2",
    "Mod",
    "PRelu",
    "Einsum",
    "MultiHeadAttention",
    "Attention",
    "GatherElements",
];

pub(super) fn keeps_type(op: &str) -> bool {
    SAME.contains(&op) || TYPED.contains(&op)
}

/// Dimensions of the first output of a node; `None` where they are not followed.
pub(super) fn shape(facts: &Facts, node: &NodeProto, op: &str) -> Option<Vec<Dim>> {
    let of = |i: usize| facts.input(node, i)?.shape.as_deref();
    let content = |i: usize| facts.input(node, i)?.content.as_deref();
    match op {
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "PRelu" | "Equal" | "Less" | "Greater" | "LessOrEqual"
        | "GreaterOrEqual" | "And" | "Or" | "Xor" => broadcast(facts, of(0)?, of(1)?),
        "Where" => broadcast(facts, &broadcast(facts, of(0)?, of(1)?)?, of(2)?),
        "MatMul" => product(facts, of(0)?, of(1)?),
        "Gemm" => {
            let axis = |name: &str, flipped: usize| if int(node, name, 0) != 0 { 1 - flipped } else { flipped };
            Some(vec![*of(0)?.get(axis("transA", 0))?, *of(1)?.get(axis("transB", 1))?])
        }
        "FpxMatMul" => {
            let mut shape = of(0)?.to_vec();
            *shape.last_mut()? = Dim::Known(int(node, "n", 0));
            Some(shape)
        }
        "FpxConv" => spatial(facts, of(0)?, Some(Dim::Known(int(node, "channels_out", 0)))),
        "Conv" => spatial(facts, of(0)?, of(1)?.first().copied()),
        "MaxPool" | "AveragePool" | "GlobalAveragePool" => spatial(facts, of(0)?, None),
        "Shape" => Some(vec![Dim::Known(super::contents::content(facts, node, op)?.len() as i64)]),
        "Gather" => {
            let (data, indices) = (of(0)?, of(1)?);
            let axis = wrap(int(node, "axis", 0), data.len())?;
            Some([&data[..axis], indices, &data[axis + 1..]].concat())
        }
        "Concat" => concat(facts, node),
        "Slice" => slice(facts, node),
        "Expand" => broadcast(facts, of(0)?, content(1)?),
        "ConstantOfShape" => content(0).map(<[Dim]>::to_vec),
        "Range" => Some(vec![facts.fresh()]),
        "Reshape" => reshape(facts, node),
        "Flatten" => {
            let shape = of(0)?;
            let axis = if int(node, "axis", 1) == shape.len() as i64 {
                shape.len()
            } else {
                wrap(int(node, "axis", 1), shape.len())?
            };
            Some(vec![total(facts, &shape[..axis]), total(facts, &shape[axis..])])
        }
        "Transpose" => {
            let shape = of(0)?;
            match ints(node, "perm").filter(|perm| !perm.is_empty()) {
                Some(perm) => perm.iter().map(|&axis| shape.get(usize::try_from(axis).ok()?).copied()).collect(),
                None => Some(shape.iter().rev().copied().collect()),
            }
        }
        "Squeeze" | "Unsqueeze" => resized(facts, node, op),
        "Tile" | "Pad" | "Resize" => Some(of(0)?.iter().map(|_| facts.fresh()).collect()),
        "MultiHeadAttention" | "Attention" => {
            let (mut shape, v) = (of(0)?.to_vec(), of(2)?);
            *shape.get_mut(2)? = *v.get(2)?;
            (shape.len() == 3 && v.len() == 3).then_some(shape)
        }
        _ if op.starts_with("Reduce") => reduced(facts, node),
        _ if SAME.contains(&op) => of(0).map(<[Dim]>::to_vec),
        _ => None,
    }
}

/// The shape that two shapes broadcast to.
fn broadcast(facts: &Facts, a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let at = |shape: &[Dim], i: usize| match (i + shape.len()).checked_sub(rank) {
        Some(i) => shape.get(i).copied(),
        None => Some(Dim::Known(1)),
    };
    let one = |i: usize| {
        Some(match (at(a, i)?, at(b, i)?) {
            (x, y) if x == y => x,
            (Dim::Known(1), other) | (other, Dim::Known(1)) => other,
            (Dim::Known(size), Dim::Symbol(_)) | (Dim::Symbol(_), Dim::Known(size)) => Dim::Known(size),
            _ => facts.fresh(),
        })
    };
    (rank <= MAX_RANK).then(|| (0..rank).map(one).collect()).flatten()
}

fn product(facts: &Facts, a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let ([outer_a @ .., rows, _], [outer_b @ .., _, columns]) = (a, b) else { return None };
    let mut shape = broadcast(facts, outer_a, outer_b)?;
    shape.extend([*rows, *columns]);
    Some(shape)
}

/// Batch and channels with open axes behind them.
fn spatial(facts: &Facts, x: &[Dim], channels: Option<Dim>) -> Option<Vec<Dim>> {
    let [batch, own, rest @ ..] = x else { return None };
    let rest = rest.iter().map(|_| facts.fresh());
    Some([*batch, channels.unwrap_or(*own)].into_iter().chain(rest).collect())
}

fn concat(facts: &Facts, node: &NodeProto) -> Option<Vec<Dim>> {
    let shapes = || (0..node.input.len()).map(|i| facts.input(node, i)?.shape.as_deref());
    let mut shape = shapes().next()??.to_vec();
    let axis = wrap(int(node, "axis", 0), shape.len())?;
    let sum = shapes().try_fold(0i64, |sum, shape| sum.checked_add(shape?.get(axis)?.known()?));
    for other in shapes().flatten() {
        for (own, other) in shape.iter_mut().zip(other) {
            *own = if let Dim::Known(_) = other { *other } else { *own };
        }
    }
    shape[axis] = sum.map_or_else(|| facts.fresh(), Dim::Known);
    Some(shape)
}

/// Shapes of all outputs of a Split.
pub(super) fn split(facts: &Facts, node: &NodeProto) -> Vec<Vec<Dim>> {
    let outputs = node.output.len();
    let shapes = || {
        let shape = facts.input(node, 0)?.shape.as_ref()?;
        let axis = wrap(int(node, "axis", 0), shape.len())?;
        let sizes = match ints(node, "split") {
            Some(sizes) => Some(sizes.to_vec()),
            None => facts.input(node, 1).and_then(|fact| fact.numbers()),
        };
        let explicit = facts.input(node, 1).is_some() || sizes.is_some();
        let known = shape[axis].known().filter(|size| !explicit && size % outputs.max(1) as i64 == 0);
        let size = |i: usize| match &sizes {
            Some(sizes) => sizes.get(i).map_or_else(|| facts.fresh(), |&size| Dim::Known(size)),
            None => known.map_or_else(|| facts.fresh(), |size| Dim::Known(size / outputs.max(1) as i64)),
        };
        let part = |i: usize| {
            let mut part = shape.clone();
            part[axis] = size(i);
            part
        };
        Some((0..outputs).map(part).collect())
    };
    shapes().unwrap_or_default()
}

fn slice(facts: &Facts, node: &NodeProto) -> Option<Vec<Dim>> {
    let mut shape = facts.input(node, 0)?.shape.clone()?;
    let Some(slices) = slices(facts, node) else { return Some(shape.iter().map(|_| facts.fresh()).collect()) };
    for (axis, start, end) in slices {
        let axis = wrap(axis, shape.len())?;
        let dim = &mut shape[axis];
        *dim = match *dim {
            Dim::Known(size) => Dim::Known(bounds(start, end, usize::try_from(size).ok()?).len() as i64),
            whole if start == 0 && end >= i64::from(i32::MAX) => whole,
            _ => facts.fresh(),
        };
    }
    Some(shape)
}

/// Axes of an attribute or of input 1.
pub(super) fn axes(facts: &Facts, node: &NodeProto) -> Option<Vec<i64>> {
    match ints(node, "axes") {
        Some(axes) => Some(axes.to_vec()),
        None => facts.input(node, 1)?.numbers(),
    }
}

fn resized(facts: &Facts, node: &NodeProto, op: &str) -> Option<Vec<Dim>> {
    let shape = facts.input(node, 0)?.shape.as_ref()?;
    let axes = axes(facts, node)?;
    let added = if op == "Unsqueeze" { axes.len() } else { 0 };
    let rank = Some(shape.len() + added).filter(|&rank| rank <= MAX_RANK)?;
    let axes: Vec<usize> = axes.iter().map(|&axis| wrap(axis, rank)).collect::<Option<_>>()?;
    if op == "Squeeze" {
        return Some((0..rank).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).collect());
    }
    let mut rest = shape.iter().copied();
    (0..rank).map(|axis| if axes.contains(&axis) { Some(Dim::Known(1)) } else { rest.next() }).collect()
}

fn reduced(facts: &Facts, node: &NodeProto) -> Option<Vec<Dim>> {
    let shape = facts.input(node, 0)?.shape.as_ref()?;
    let axes = axes(facts, node)?;
    let axes: Vec<usize> = axes.iter().map(|&axis| wrap(axis, shape.len())).collect::<Option<_>>()?;
    if axes.is_empty() {
        return None;
    }
    let keep = int(node, "keepdims", 1) != 0;
    let kept = (0..shape.len()).filter(|axis| keep || !axes.contains(axis));
    Some(kept.map(|axis| if axes.contains(&axis) { Dim::Known(1) } else { shape[axis] }).collect())
}

fn reshape(facts: &Facts, node: &NodeProto) -> Option<Vec<Dim>> {
    let target = facts.input(node, 1)?;
    let Some(wanted) = &target.content else {
        let [len] = target.shape.as_deref()? else { return None };
        let rank = usize::try_from(len.known()?).ok().filter(|&rank| rank <= MAX_RANK)?;
        return Some((0..rank).map(|_| facts.fresh()).collect());
    };
    let shape = facts.input(node, 0)?.shape.as_deref();
    let copies = int(node, "allowzero", 0) == 0;
    let mut free = None;
    let mut result = Vec::with_capacity(wanted.len());
    for (i, &dim) in wanted.iter().enumerate() {
        result.push(match dim {
            Dim::Known(0) if copies => match shape {
                Some(shape) => *shape.get(i)?,
                None => facts.fresh(),
            },
            Dim::Known(-1) => {
                free = Some(i);
                Dim::Known(1)
            }
            other => other,
        });
    }
    if let Some(i) = free {
        result[i] = shape.and_then(|shape| quotient(shape, &result)).unwrap_or_else(|| facts.fresh());
    }
    Some(result)
}

/// Number of elements as one dimension.
fn total(facts: &Facts, shape: &[Dim]) -> Dim {
    quotient(shape, &[]).unwrap_or_else(|| facts.fresh())
}

/// The one dimension that the elements of `shape` leave beside `others`, where symbols cancel.
fn quotient(shape: &[Dim], others: &[Dim]) -> Option<Dim> {
    let (mut over, mut under) = (1i64, 1i64);
    let mut symbols = Vec::new();
    for &dim in shape {
        match dim {
            Dim::Known(size) => over = over.checked_mul(size)?,
            Dim::Symbol(_) => symbols.push(dim),
        }
    }
    for &dim in others {
        match dim {
            Dim::Known(size) => under = under.checked_mul(size)?,
            Dim::Symbol(_) => drop(symbols.swap_remove(symbols.iter().position(|&own| own == dim)?)),
        }
    }
    if over == 0 || over.checked_rem(under)? != 0 {
        return None;
    }
    match (&symbols[..], over.checked_div(under)?) {
        ([], size) => Some(Dim::Known(size)),
        ([symbol], 1) => Some(*symbol),
        _ => None,
    }
}
