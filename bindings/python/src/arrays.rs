//! Arrays of numpy as values of a model, where they lie, and values as arrays, without a copy.

use fpxint_runtime::{Value, ValueView};
use numpy::{Element, PyArray, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::errors::exception;

/// An array that may be read until it is dropped.
pub(crate) enum Held<'py> {
    F32(PyReadonlyArrayDyn<'py, f32>),
    F64(PyReadonlyArrayDyn<'py, f64>),
    I64(PyReadonlyArrayDyn<'py, i64>),
    I32(PyReadonlyArrayDyn<'py, i32>),
    I8(PyReadonlyArrayDyn<'py, i8>),
    U8(PyReadonlyArrayDyn<'py, u8>),
    Bool(PyReadonlyArrayDyn<'py, bool>),
}

/// The array, if it holds elements of this type.
fn typed<'py, T: Element>(array: &Bound<'py, PyUntypedArray>) -> Option<PyReadonlyArrayDyn<'py, T>> {
    array.cast::<PyArrayDyn<T>>().ok()?.try_readonly().ok()
}

impl<'py> Held<'py> {
    /// Holds an array; `name` says in errors what it is for.
    pub(crate) fn new(object: &Bound<'py, PyAny>, name: &str) -> PyResult<Self> {
        let py = object.py();
        let fault = |reason: &str| exception(py, "InputError", &format!("input `{name}`: {reason}"));
        let array = object.cast::<PyUntypedArray>().map_err(|_| fault("is no numpy array"))?;
        let held = None
            .or_else(|| typed(array).map(Self::F32))
            .or_else(|| typed(array).map(Self::I64))
            .or_else(|| typed(array).map(Self::F64))
            .or_else(|| typed(array).map(Self::I32))
            .or_else(|| typed(array).map(Self::I8))
            .or_else(|| typed(array).map(Self::U8))
            .or_else(|| typed(array).map(Self::Bool));
        held.ok_or_else(|| fault(&format!("holds {}, which no model takes here", array.dtype())))
    }

    /// The values where they lie.
    pub(crate) fn view(&self) -> ValueView<'_> {
        match self {
            Self::F32(a) => ValueView::F32(a.as_array()),
            Self::F64(a) => ValueView::F64(a.as_array()),
            Self::I64(a) => ValueView::I64(a.as_array()),
            Self::I32(a) => ValueView::I32(a.as_array()),
            Self::I8(a) => ValueView::I8(a.as_array()),
            Self::U8(a) => ValueView::U8(a.as_array()),
            Self::Bool(a) => ValueView::Bool(a.as_array()),
        }
    }

    /// The values as 32-bit floats.
    pub(crate) fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::F32(a) => a.as_array().iter().copied().collect(),
            Self::F64(a) => a.as_array().iter().map(|&v| v as f32).collect(),
            Self::I64(a) => a.as_array().iter().map(|&v| v as f32).collect(),
            Self::I32(a) => a.as_array().iter().map(|&v| v as f32).collect(),
            Self::I8(a) => a.as_array().iter().map(|&v| f32::from(v)).collect(),
            Self::U8(a) => a.as_array().iter().map(|&v| f32::from(v)).collect(),
            Self::Bool(a) => a.as_array().iter().map(|&v| f32::from(u8::from(v))).collect(),
        }
    }
}

/// A value as an array that takes over its memory.
pub(crate) fn array(py: Python<'_>, value: Value) -> Bound<'_, PyAny> {
    match value {
        Value::F32(a) => PyArray::from_owned_array(py, a).into_any(),
        Value::F64(a) => PyArray::from_owned_array(py, a).into_any(),
        Value::I64(a) => PyArray::from_owned_array(py, a).into_any(),
        Value::I32(a) => PyArray::from_owned_array(py, a).into_any(),
        Value::I8(a) => PyArray::from_owned_array(py, a).into_any(),
        Value::U8(a) => PyArray::from_owned_array(py, a).into_any(),
        Value::Bool(a) => PyArray::from_owned_array(py, a).into_any(),
    }
}
