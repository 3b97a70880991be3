//! Operators that sample an image: Upsample, Resize, GridSample, RoiAlign.

use super::edit::Edit;
use super::table::below_22;

/// Opset 9 made `scales` an input; opset 10 replaced the operator by Resize.
pub(super) fn upsample(edit: &mut Edit<'_>) -> Result<(), String> {
    let scales = match edit.take_floats("scales")? {
        Some(scales) => {
            edit.set_floats(1, "scales", &scales);
            Some(scales)
        }
        None => edit.scope.floats(&edit.required_input(1)?),
    };
    edit.node.op_type = Some("Resize".into());
    old_sampling(edit, Some(scales.unwrap_or_default()))
}

/// Opset 11 stated how to sample; opset 13 made `roi` and `scales` optional and removed one way of sampling.
pub(super) fn resize(edit: &mut Edit<'_>) -> Result<(), String> {
    if edit.crosses(11) {
        let scales = edit.scope.floats(&edit.required_input(1)?);
        return old_sampling(edit, scales);
    }
    if edit.crosses(13) {
        if edit.text("coordinate_transformation_mode").as_deref() == Some("tf_half_pixel_for_nn") {
            return Err("opset 13 removed its coordinates tf_half_pixel_for_nn".into());
        }
        if edit.input(3).is_some() {
            edit.set_input(2, String::new());
        }
    }
    Ok(())
}

/// Spells out how opsets below 11 sample: position / scale, rounded down when growing and up when shrinking.
///
/// Moves the scales from input 1 to input 2. `scales`: their values, if constant.
fn old_sampling(edit: &mut Edit<'_>, scales: Option<Vec<f32>>) -> Result<(), String> {
    match edit.text("mode").as_deref() {
        None | Some("nearest") => {
            let scales = scales.ok_or("whether it grows or shrinks its input is not stated")?;
            edit.set_text("nearest_mode", nearest_mode(&scales)?);
        }
        Some("linear") => {}
        Some(mode) => return Err(format!("its mode `{mode}` is not known")),
    }
    edit.set_text("coordinate_transformation_mode", "asymmetric");
    let scales = edit.required_input(1)?;
    edit.set_input(1, String::new());
    edit.set_input(2, scales);
    Ok(())
}

fn nearest_mode(scales: &[f32]) -> Result<&'static str, String> {
    match (scales.iter().any(|&scale| scale < 1.0), scales.iter().any(|&scale| scale > 1.0)) {
        (false, _) => Ok("floor"),
        (true, false) => Ok("ceil"),
        (true, true) => Err("it grows one axis and shrinks another".into()),
    }
}

/// Opset 20 renamed the modes.
pub(super) fn grid_sample(edit: &mut Edit<'_>) -> Result<(), String> {
    if edit.crosses(20) {
        match edit.text("mode").as_deref() {
            Some("bilinear") => edit.set_text("mode", "linear"),
            Some("bicubic") => edit.set_text("mode", "cubic"),
            _ => {}
        }
    }
    Ok(())
}

/// Opset 16 shifts coordinates by half a pixel unless told otherwise; opset 22 is not implemented.
pub(super) fn roi_align(edit: &mut Edit<'_>) -> Result<(), String> {
    below_22(edit)?;
    if edit.crosses(16) {
        edit.set_text("coordinate_transformation_mode", "output_half_pixel");
    }
    Ok(())
}
