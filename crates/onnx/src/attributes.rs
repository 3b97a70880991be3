//! Attributes that a host must never see: it would divide by zero, or ask for memory without bound.

use crate::node::{ints, onnx_op};
use crate::proto::NodeProto;

/// Largest kernel extent, stride, dilation or padding.
pub(crate) const MAX_EXTENT: i64 = 1 << 16;

/// What is wrong with the attributes of a node.
pub(crate) fn fault(node: &NodeProto) -> Option<String> {
    match onnx_op(node) {
        "Conv" | "ConvTranspose" | "MaxPool" | "AveragePool" | "LpPool" => {
            let ranges = [("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("pads", -MAX_EXTENT)];
            ranges.into_iter().find_map(|(name, least)| {
                let bad = ints(node, name)?.iter().find(|v| !(least..=MAX_EXTENT).contains(*v))?;
                Some(format!("{bad} in {name} is not within {least}..{MAX_EXTENT}"))
            })
        }
        "Transpose" => {
            let perm = ints(node, "perm").filter(|perm| !perm.is_empty())?;
            let mut sorted = perm.to_vec();
            sorted.sort_unstable();
            let is_permutation = sorted.iter().zip(0..).all(|(&axis, i)| axis == i);
            (!is_permutation).then(|| format!("{perm:?} in perm is no permutation"))
        }
        _ => None,
    }
}
