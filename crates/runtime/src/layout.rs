//! NHWC between our steps: tract's operators on values whose channels were moved to the last axis.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::dyn_clone::clone_box;
use tract_onnx::tract_core::ops::{
    array::{Pad, Slice, TypedConcat},
    binary::TypedBinOp,
    cnn::{MaxPool, PoolSpec, SumPool},
    downsample::Downsample,
    element_wise::ElementWiseOp,
    nn::{DataFormat, Reduce},
};

/// How a value of logical shape `(n, c, ..)` lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// As the graph says.
    Plain,
    /// Channels last.
    ChannelsLast,
}

/// The same operator on inputs and output of rank `rank` with channels last, or `None` where it has none.
pub(crate) fn channels_last(typed: &dyn TypedOp, rank: usize) -> Option<Box<dyn TypedOp>> {
    let axis = |axis: usize| match axis {
        0 => 0,
        1 => rank - 1,
        other => other - 1,
    };
    let pool = |spec: &PoolSpec| {
        (spec.data_format == DataFormat::NCHW).then(|| PoolSpec { data_format: DataFormat::NHWC, ..spec.clone() })
    };
    let op = typed.as_op();
    if op.is::<ElementWiseOp>() || op.is::<TypedBinOp>() {
        return Some(clone_box(typed));
    }
    if let Some(op) = op.downcast_ref::<MaxPool>() {
        let plain = op.with_index_outputs.is_none().then_some(op)?;
        return Some(Box::new(MaxPool { pool_spec: pool(&plain.pool_spec)?, ..op.clone() }));
    }
    if let Some(op) = op.downcast_ref::<SumPool>() {
        return Some(Box::new(SumPool { pool_spec: pool(&op.pool_spec)?, ..op.clone() }));
    }
    if let Some(op) = op.downcast_ref::<TypedConcat>() {
        return Some(Box::new(TypedConcat { axis: axis(op.axis) }));
    }
    if let Some(op) = op.downcast_ref::<Slice>() {
        return Some(Box::new(Slice { axis: axis(op.axis), ..op.clone() }));
    }
    if let Some(op) = op.downcast_ref::<Downsample>() {
        return Some(Box::new(Downsample { axis: axis(op.axis), ..op.clone() }));
    }
    if let Some(op) = op.downcast_ref::<Reduce>() {
        let mut axes: TVec<usize> = op.axes.iter().map(|&a| axis(a)).collect();
        axes.sort_unstable();
        return Some(Box::new(Reduce { axes, ..op.clone() }));
    }
    if let Some(op) = op.downcast_ref::<Pad>() {
        let mut pads = op.pads.clone();
        if pads.len() == rank {
            pads[1..].rotate_left(1);
            return Some(Box::new(Pad { pads, ..op.clone() }));
        }
    }
    None
}

/// Moves axis 1 last (`to_last`) or the last axis to 1, from `x` of physical shape `shape` into `y`.
pub(crate) fn permute(x: &[f32], shape: &[usize], to_last: bool, y: &mut [f32]) {
    let images = shape[0];
    let (channels, pixels) = if to_last {
        (shape[1], shape[2..].iter().product::<usize>())
    } else {
        (shape[shape.len() - 1], shape[1..shape.len() - 1].iter().product::<usize>())
    };
    let (rows, columns) = if to_last { (channels, pixels) } else { (pixels, channels) };
    if x.is_empty() {
        return;
    }
    if rows == 1 || columns == 1 {
        return y.copy_from_slice(x);
    }
    for (x, y) in x.chunks_exact(rows * columns).zip(y.chunks_exact_mut(rows * columns)).take(images) {
        if rows == 3 { interleave(x, columns, y) } else { transpose(x, rows, columns, y) }
    }
}

/// `y (columns, 3) = x (3, columns)^T`: the colours of an image.
fn interleave(x: &[f32], columns: usize, y: &mut [f32]) {
    let (first, rest) = x.split_at(columns);
    let (second, third) = rest.split_at(columns);
    let (pixels, _) = y.as_chunks_mut::<3>();
    for (((pixel, &a), &b), &c) in pixels.iter_mut().zip(first).zip(second).zip(third) {
        *pixel = [a, b, c];
    }
}

/// `y (columns, rows) = x (rows, columns)^T`, by blocks that fit the first-level cache.
fn transpose(x: &[f32], rows: usize, columns: usize, y: &mut [f32]) {
    const BLOCK: usize = 32;
    for row in (0..rows).step_by(BLOCK) {
        for column in (0..columns).step_by(BLOCK) {
            for c in column..(column + BLOCK).min(columns) {
                let line = &mut y[c * rows..][row..(row + BLOCK).min(rows)];
                for (r, y) in line.iter_mut().enumerate() {
                    *y = x[(row + r) * columns + c];
                }
            }
        }
    }
}

/// The physical shape of a logical `(n, c, ..)` one with channels last, or back.
pub(crate) fn permuted_shape(shape: &[usize], to_last: bool) -> TVec<usize> {
    let mut shape: TVec<usize> = shape.into();
    if to_last {
        shape[1..].rotate_left(1);
    } else {
        shape[1..].rotate_right(1);
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permuting_there_and_back_is_the_identity() {
        for shape in [vec![2, 3, 5, 7], vec![1, 40, 33, 1], vec![3, 1, 6], vec![2, 70, 1, 1]] {
            let x: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
            let (mut y, mut z) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            permute(&x, &shape, true, &mut y);
            let last = permuted_shape(&shape, true);
            permute(&y, &last, false, &mut z);
            assert_eq!((z, permuted_shape(&last, false).to_vec()), (x, shape));
        }
        let mut y = [0.0; 6];
        permute(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &[1, 2, 3], true, &mut y);
        assert_eq!(y, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }
}
