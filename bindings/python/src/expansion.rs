//! The series of one array.

use fpxint::{Clip, Error, Granularity, Method, Precision, Rounding, Series, expand_tensor_by};
use fpxint_kernels::with_default_floats;
use ndarray::{ArrayD, IxDyn};
use numpy::{PyArray, PyReadonlyArrayDyn};
use pyo3::prelude::*;

use crate::errors::{exception, raised};

/// What messages call the array.
const NAME: &str = "array";

/// An array expanded into integer terms (theorem 1).
#[pyclass(frozen)]
pub(crate) struct Expansion {
    made: Series,
    shape: Vec<usize>,
    is_per_channel: bool,
}

fn fault(py: Python<'_>, error: Error) -> PyErr {
    match &error {
        Error::NonFinite { .. } => exception(py, "InputError", &error.to_string()),
        _ => raised(py, &error.into()),
    }
}

#[pymethods]
impl Expansion {
    /// Expands an array; `axis` counts from the front.
    #[new]
    fn new(
        array: PyReadonlyArrayDyn<'_, f32>,
        precision: (u32, u32),
        axis: Option<usize>,
        clip: &str,
        rounding: &str,
        asymmetric: bool,
    ) -> PyResult<Self> {
        let py = array.py();
        let bad = |what: &str, text: &str| exception(py, "InputError", &format!("{what} {text:?} is unknown"));
        let clip = Clip::named(clip).ok_or_else(|| bad("clip", clip))?;
        let rounding = Rounding::named(rounding).ok_or_else(|| bad("rounding", rounding))?;
        let precision = Precision::new(precision.0, precision.1).map_err(|e| fault(py, e))?;
        let granularity = if axis.is_some() { Granularity::Channel } else { Granularity::Tensor };
        let method = Method { precision, granularity, rounding, clip, asymmetric };
        let view = array.as_array();
        let shape = view.shape().to_vec();
        let expand = || {
            let values: Vec<f32> = view.iter().copied().collect();
            let dims = if shape.is_empty() { &[1][..] } else { &shape };
            expand_tensor_by(NAME, &values, dims, axis.unwrap_or(0), &method)
        };
        let made = py.detach(|| with_default_floats(expand)).map_err(|e| fault(py, e))?;
        Ok(Self { made, shape, is_per_channel: axis.is_some() })
    }

    /// Bits per term and number of terms.
    fn precision(&self) -> (u32, u32) {
        let precision = self.made.precision();
        (precision.bits(), precision.order())
    }

    /// Digits of a term, counted from 1: int8 in the shape of the array.
    fn term<'py>(&self, py: Python<'py>, term: u32) -> PyResult<Bound<'py, PyAny>> {
        self.check(py, term)?;
        let digits = py.detach(|| self.made.term(term));
        self.shaped(py, digits)
    }

    /// Scales of a term: one, or one a channel.
    fn term_scales(&self, py: Python<'_>, term: u32) -> PyResult<Vec<f32>> {
        self.check(py, term)?;
        Ok(self.made.term_scales(term))
    }

    /// One, or one a channel.
    fn bias(&self) -> Vec<f32> {
        let bias = self.made.bias();
        if bias.is_empty() { vec![0.0; self.made.scales().len()] } else { bias }
    }

    /// Indices in row-major order and integers in units of the first scale.
    fn saturation<'py>(&self, py: Python<'py>) -> (Bound<'py, PyAny>, Bound<'py, PyAny>) {
        let (places, integers): (Vec<i64>, Vec<i32>) =
            self.made.saturation().into_iter().map(|(at, s)| (at as i64, s)).unzip();
        (PyArray::from_vec(py, places).into_any(), PyArray::from_vec(py, integers).into_any())
    }

    /// float64 in the shape of the array.
    fn reconstruct<'py>(&self, py: Python<'py>, terms: u32) -> PyResult<Bound<'py, PyAny>> {
        self.check(py, terms)?;
        let values = py.detach(|| with_default_floats(|| Ok(self.made.values(NAME, terms)?.collect::<Vec<f64>>())));
        self.shaped(py, values.map_err(|e| fault(py, e))?)
    }

    /// By channel, or one.
    fn bounds<'py>(&self, py: Python<'py>, terms: u32) -> PyResult<Bound<'py, PyAny>> {
        self.check(py, terms)?;
        let channels = 0..self.made.channels().count;
        let bounds = match self.is_per_channel {
            true => channels.map(|channel| self.made.bound(terms, channel)).collect(),
            false => vec![self.made.worst_bound(terms)],
        };
        Ok(PyArray::from_vec(py, bounds).into_any())
    }
}

impl Expansion {
    fn check(&self, py: Python<'_>, terms: u32) -> PyResult<()> {
        let order = self.made.precision().order();
        if (1..=order).contains(&terms) {
            return Ok(());
        }
        Err(exception(py, "PrecisionError", &format!("{terms} terms asked for, but the series has {order}")))
    }

    fn shaped<'py, T: numpy::Element>(&self, py: Python<'py>, values: Vec<T>) -> PyResult<Bound<'py, PyAny>> {
        let array = ArrayD::from_shape_vec(IxDyn(&self.shape), values);
        let array = array.map_err(|e| exception(py, "RunError", &format!("an array of another size: {e}")))?;
        Ok(PyArray::from_owned_array(py, array).into_any())
    }
}

/// What is wrong with a text that should be a precision.
#[pyfunction]
pub(crate) fn precision_fault(text: &str) -> Option<String> {
    text.parse::<Precision>().err().map(|error| error.to_string())
}
