//! Operators whose attributes became inputs.

use super::edit::Edit;

/// Opset 11 made `min` and `max` inputs; the limits of f32, their defaults, stand for no limit.
pub(super) fn clip(edit: &mut Edit<'_>) -> Result<(), String> {
    if !edit.crosses(11) {
        return Ok(());
    }
    let limits = [("min", edit.take_float("min")?, f32::MIN), ("max", edit.take_float("max")?, f32::MAX)];
    for (index, (role, limit, default)) in limits.into_iter().enumerate() {
        if let Some(limit) = limit.filter(|&limit| limit != default) {
            let elem_type = edit.float_type()?;
            edit.set_scalar(index + 1, role, elem_type, limit)?;
        }
    }
    Ok(())
}

/// Opset 11 made `pads` and `value` inputs.
pub(super) fn pad(edit: &mut Edit<'_>) -> Result<(), String> {
    if !edit.crosses(11) {
        return Ok(());
    }
    let pads = edit.take_required_ints("pads")?;
    let value = edit.take_float("value")?.unwrap_or(0.0);
    edit.set_int64s(1, "pads", &pads);
    if value.to_bits() != 0 {
        let elem_type = edit.float_type()?;
        edit.set_scalar(2, "value", elem_type, value)?;
    }
    Ok(())
}

/// Opset 10 made `starts`, `ends` and `axes` inputs; without axes, the first ones are meant.
pub(super) fn slice(edit: &mut Edit<'_>) -> Result<(), String> {
    if !edit.crosses(10) {
        return Ok(());
    }
    let starts = edit.take_required_ints("starts")?;
    let ends = edit.take_required_ints("ends")?;
    let axes = edit.take_ints("axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    edit.set_int64s(1, "starts", &starts);
    edit.set_int64s(2, "ends", &ends);
    edit.set_int64s(3, "axes", &axes);
    Ok(())
}

/// Opset 13 made `split` an input; opset 18 wants the number of outputs where it is absent.
pub(super) fn split(edit: &mut Edit<'_>) -> Result<(), String> {
    if edit.crosses(13)
        && let Some(lengths) = edit.take_ints("split")?.filter(|lengths| !lengths.is_empty())
    {
        edit.set_int64s(1, "split", &lengths);
    }
    if edit.crosses(18) && edit.input(1).is_none() {
        edit.set_int("num_outputs", edit.node.output.len() as i64);
    }
    Ok(())
}

/// Opset 13 made `axes` an input; without it, every axis of size one is meant.
pub(super) fn squeeze(edit: &mut Edit<'_>) -> Result<(), String> {
    if edit.crosses(13) { optional_axes(edit) } else { Ok(()) }
}

/// Opset 13 made `axes` an input.
pub(super) fn unsqueeze(edit: &mut Edit<'_>) -> Result<(), String> {
    if edit.crosses(13) {
        let axes = edit.take_required_ints("axes")?;
        edit.set_int64s(1, "axes", &axes);
    }
    Ok(())
}

/// Opset 13 made `axes` an input; without it, every axis is meant.
pub(super) fn reduce_sum(edit: &mut Edit<'_>) -> Result<(), String> {
    if edit.crosses(13) { optional_axes(edit) } else { Ok(()) }
}

/// Opset 18 made `axes` an input; without it, every axis is meant.
pub(super) fn reduce(edit: &mut Edit<'_>) -> Result<(), String> {
    if edit.crosses(18) { optional_axes(edit) } else { Ok(()) }
}

fn optional_axes(edit: &mut Edit<'_>) -> Result<(), String> {
    if let Some(axes) = edit.take_ints("axes")?.filter(|axes| !axes.is_empty()) {
        edit.set_int64s(1, "axes", &axes);
    }
    Ok(())
}

/// Opset 10 made `k` an input.
pub(super) fn top_k(edit: &mut Edit<'_>) -> Result<(), String> {
    if edit.crosses(10) {
        let k = edit.take_int("k")?.ok_or("it has no attribute `k`")?;
        edit.set_int64s(1, "k", &[k]);
    }
    Ok(())
}

/// Opset 20 made `axis` an input and changed its default.
pub(super) fn dft(edit: &mut Edit<'_>) -> Result<(), String> {
    if edit.crosses(20) {
        let axis = edit.take_int("axis")?.unwrap_or(1);
        edit.set_int64(2, "axis", axis);
    }
    Ok(())
}
