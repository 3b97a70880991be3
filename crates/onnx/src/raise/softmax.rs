//! Softmax, LogSoftmax and Hardmax, which read their input as a matrix below opset 13.

use super::edit::{Edit, new_node};

/// Opset 13 normalises along one axis; below, along `axis` and all that follow it, which is 1 unless stated.
///
/// Both are the same where the axes that follow have size one. Elsewhere the matrix is spelt out: Flatten, the operator
/// along the last axis, and Reshape to the input's shape.
pub(super) fn softmax(edit: &mut Edit<'_>) -> Result<(), String> {
    if !edit.crosses(13) {
        return Ok(());
    }
    let axis = edit.take_int("axis")?.unwrap_or(1);
    let (x, y) = (edit.required_input(0)?, edit.required_output()?);
    let dims = edit.scope.dims(&x).or_else(|| edit.scope.dims(&y));
    if let Some(axis) = single_axis(axis, dims.as_deref()) {
        edit.set_int("axis", axis);
        return Ok(());
    }
    let (flat, shape, rows) = (edit.fresh("flat"), edit.fresh("shape"), edit.fresh("rows"));
    edit.set_int("axis", axis);
    let mut flatten = new_node("Flatten", vec![x.clone()], flat.clone());
    flatten.attribute = std::mem::take(&mut edit.node.attribute);
    edit.set_int("axis", -1);
    edit.before.push(flatten);
    edit.before.push(new_node("Shape", vec![x], shape.clone()));
    edit.node.input = vec![flat];
    edit.node.output = vec![rows.clone()];
    let mut reshape = new_node("Reshape", vec![rows, shape], y.clone());
    reshape.name = Some(edit.model.fresh(format!("{y}_reshape")));
    edit.after.push(reshape);
    Ok(())
}

/// The single axis that means the same, if the dimensions tell.
fn single_axis(axis: i64, dims: Option<&[Option<i64>]>) -> Option<i64> {
    if axis == -1 {
        return Some(-1);
    }
    let dims = dims?;
    let at = if axis < 0 { axis.checked_add(dims.len() as i64)? } else { axis };
    let (_, following) = dims.get(usize::try_from(at).ok()?..)?.split_first()?;
    match following {
        [] => Some(-1),
        _ => following.iter().all(|&size| size == Some(1)).then_some(at),
    }
}
