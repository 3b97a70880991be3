//! Operators that differ between training and inference, and normalisations whose parameters changed shape.

use super::edit::Edit;

/// Opset 9 removed `spatial`; opset 14 made training an attribute, where further outputs had asked for it.
pub(super) fn batch_normalization(edit: &mut Edit<'_>) -> Result<(), String> {
    if edit.crosses(9) && edit.take_int("spatial")? == Some(0) {
        return Err("opset 9 removed statistics per element (spatial = 0)".into());
    }
    if edit.crosses(14) {
        if edit.node.output.iter().skip(1).any(|name| !name.is_empty()) {
            return Err("it has outputs of training, which opset 14 changed".into());
        }
        edit.node.output.truncate(1);
    }
    Ok(())
}

/// Opset 12 made `ratio` an input, without effect in inference; opset 10 changed the type of the mask.
pub(super) fn dropout(edit: &mut Edit<'_>) -> Result<(), String> {
    if !edit.crosses(12) {
        return Ok(());
    }
    edit.take_float("ratio")?;
    if let Some(mask) = edit.node.output.get(1).filter(|mask| !mask.is_empty()) {
        if edit.model.is_consumed(mask) {
            return Err("its mask is used, and opsets 10 and 12 changed the mask".into());
        }
        edit.dropped.push(mask.clone());
    }
    edit.node.output.truncate(1);
    Ok(())
}

/// Opset 21 wants a scale and a bias for each channel instead of one for each group.
pub(super) fn group_normalization(edit: &mut Edit<'_>) -> Result<(), String> {
    if !edit.crosses(21) {
        return Ok(());
    }
    let channels = edit.input(0).and_then(|x| edit.scope.dims(x)).and_then(|dims| dims.get(1).copied().flatten());
    if channels.is_some() && channels == edit.int("num_groups") {
        return Ok(());
    }
    Err("opset 21 wants its scale and bias for each channel, not for each group".into())
}
