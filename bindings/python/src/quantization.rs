//! `quantize`: from a model to its artefact and report.

use std::ffi::OsString;

use fpxint_cli::{embedded, quantization};
use pyo3::prelude::*;

use crate::attended::attended;
use crate::errors::exception;
use crate::source::Source;

/// Expands a model as `fpxint quantize` does with these flags; the report as JSON and as a table.
#[pyfunction]
pub(crate) fn quantize(
    py: Python<'_>,
    source: Source,
    flags: Vec<OsString>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<(String, String)> {
    let parsed = embedded::quantize(source.label(), flags);
    let (mut common, arguments) = parsed.map_err(|text| exception(py, "InputError", &text))?;
    let report = attended(py, common.threads(), progress, |watch| {
        common.watch = Some(watch);
        let model = source.read(&common.limits())?;
        quantization::quantize(&common, &arguments, model)
    })?;
    let json = serde_json::to_string(&report).map_err(|e| exception(py, "RunError", &e.to_string()))?;
    Ok((json, report.to_string()))
}
