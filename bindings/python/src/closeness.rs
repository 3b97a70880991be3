//! How close two models' outputs are.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::Held;

/// Differences between a reference's output and a model's, over all runs that were added.
#[pyclass(frozen)]
pub(crate) struct Tally(Mutex<fpxint_cli::metrics::Tally>);

#[pymethods]
impl Tally {
    #[new]
    fn new() -> Self {
        Self(Mutex::default())
    }

    /// Adds one run: two arrays of equal shape.
    fn add(&self, reference: &Bound<'_, PyAny>, output: &Bound<'_, PyAny>) -> PyResult<()> {
        let (a, b) = (Held::new(reference, "reference")?, Held::new(output, "output")?);
        let width = a.view().shape().last().copied().unwrap_or(1);
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tally.add(&a.to_f32(), &b.to_f32(), width);
        Ok(())
    }

    /// The figures, as `fpxint compare --json` has them.
    fn closeness<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyDict>> {
        let figures = self.0.lock().unwrap_or_else(PoisonError::into_inner).closeness(name);
        let made = PyDict::new(py);
        made.set_item("name", figures.name)?;
        made.set_item("max_abs", figures.max_abs)?;
        made.set_item("relative", figures.relative)?;
        made.set_item("cosine", figures.cosine)?;
        made.set_item("sqnr_db", figures.sqnr_db)?;
        made.set_item("argmax_agreement", figures.argmax_agreement)?;
        Ok(made)
    }
}
