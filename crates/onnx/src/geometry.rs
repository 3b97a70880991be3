//! Geometry of a layer from a node's attributes and the dimensions of its weights.
//!
//! Attributes are as hostile as any other data: what would overflow a size computation is refused here. A refusal is a
//! sentence for people, because the node is then left as it is and listed as skipped.

use fpxint::{ConvGeometry, Geometry, MatMulGeometry, Padding};

use crate::attributes::MAX_EXTENT;
use crate::node::{attribute, int, ints};
use crate::proto::NodeProto;

/// Geometry of a Conv whose weights have dimensions `weight`.
pub(crate) fn conv(node: &NodeProto, weight: &[usize]) -> Result<Geometry, String> {
    let [channels_out, per_group, kernel @ ..] = weight else {
        return Err(format!("its weights have rank {}", weight.len()));
    };
    let spatial_rank = kernel.len();
    if !(1..=2).contains(&spatial_rank) {
        return Err(format!("a convolution over {spatial_rank} axes is not expanded, only over 1 or 2"));
    }
    if weight.contains(&0) {
        return Err("its weights are empty".to_owned());
    }
    if ints(node, "kernel_shape").is_some_and(|shape| !shape.iter().copied().eq(kernel.iter().map(|&k| k as i64))) {
        return Err("kernel_shape differs from the dimensions of its weights".to_owned());
    }
    let groups = usize::try_from(int(node, "group", 1)).ok().filter(|&g| g > 0 && channels_out % g == 0);
    let groups = groups.ok_or("its groups do not divide its output channels")?;
    Ok(Geometry::Conv(ConvGeometry {
        spatial_rank,
        channels_in: per_group.checked_mul(groups).ok_or("its input channels overflow")?,
        channels_out: *channels_out,
        groups,
        kernel: pair(Some(kernel.to_vec()), 1, spatial_rank, "kernel")?,
        strides: pair(extents(node, "strides", 1)?, 1, spatial_rank, "strides")?,
        dilations: pair(extents(node, "dilations", 1)?, 1, spatial_rank, "dilations")?,
        padding: padding(node, spatial_rank)?,
    }))
}

/// Geometry of a Gemm whose second operand has dimensions `weight`.
pub(crate) fn gemm(node: &NodeProto, weight: &[usize]) -> Result<Geometry, String> {
    if int(node, "transA", 0) != 0 {
        return Err("its first operand is transposed".to_owned());
    }
    matmul(weight, int(node, "transB", 0) != 0)
}

/// Geometry of a MatMul with weights of dimensions `weight`.
pub(crate) fn matmul(weight: &[usize], transposed: bool) -> Result<Geometry, String> {
    let &[rows, columns] = weight else {
        return Err(format!("its constant operand has rank {}, only matrices are expanded", weight.len()));
    };
    if rows == 0 || columns == 0 {
        return Err("its weights are empty".to_owned());
    }
    let (k, n) = if transposed { (columns, rows) } else { (rows, columns) };
    Ok(Geometry::MatMul(MatMulGeometry { k, n, transposed }))
}

/// An attribute of sizes, each at least `least`.
fn extents(node: &NodeProto, name: &str, least: i64) -> Result<Option<Vec<usize>>, String> {
    let Some(values) = ints(node, name) else { return Ok(None) };
    match values.iter().find(|v| !(least..=MAX_EXTENT).contains(*v)) {
        Some(bad) => Err(format!("{bad} in {name} is not within {least}..{MAX_EXTENT}")),
        None => Ok(Some(values.iter().map(|&v| v as usize).collect())),
    }
}

/// One value a spatial axis as height and width; a 1-D convolution has height 1.
fn pair(values: Option<Vec<usize>>, default: usize, rank: usize, name: &str) -> Result<[usize; 2], String> {
    match values.as_deref() {
        None => Ok([default; 2]),
        Some(&[width]) if rank == 1 => Ok([default, width]),
        Some(&[height, width]) if rank == 2 => Ok([height, width]),
        Some(other) => Err(format!("{name} has {} values for {rank} axes", other.len())),
    }
}

fn padding(node: &NodeProto, rank: usize) -> Result<Padding, String> {
    let auto = attribute(node, "auto_pad").and_then(|a| a.s.as_deref()).unwrap_or(b"NOTSET");
    match auto {
        b"SAME_UPPER" => return Ok(Padding::SameUpper),
        b"SAME_LOWER" => return Ok(Padding::SameLower),
        b"VALID" => return Ok(Padding::Explicit([0; 4])),
        b"NOTSET" | b"" => {}
        other => return Err(format!("auto_pad {} is unknown", String::from_utf8_lossy(other).escape_debug())),
    }
    match extents(node, "pads", 0)?.as_deref() {
        None => Ok(Padding::Explicit([0; 4])),
        Some(&[left, right]) if rank == 1 => Ok(Padding::Explicit([0, left, 0, right])),
        Some(&[top, left, bottom, right]) if rank == 2 => Ok(Padding::Explicit([top, left, bottom, right])),
        Some(other) => Err(format!("pads has {} values for {rank} axes", other.len())),
    }
}
