//! Where a model is: a file, or bytes in memory.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use fpxint_onnx::{Limits, Model};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

/// A model that is not read yet.
pub(crate) enum Source {
    File(PathBuf),
    /// Bytes that are not copied, and the name that messages have for them.
    Memory(Bytes),
}

impl FromPyObject<'_, '_> for Source {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.extract::<PyBackedBytes>() {
            return Ok(Self::Memory(Bytes::from_owner(bytes)));
        }
        Ok(Self::File(object.extract()?))
    }
}

impl Source {
    /// What messages call it.
    pub(crate) fn label(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Memory(_) => Path::new("<bytes>"),
        }
    }

    /// Reads it.
    pub(crate) fn read(&self, limits: &Limits) -> anyhow::Result<Model> {
        Ok(match self {
            Self::File(path) => fpxint_onnx::read(path, limits)?,
            Self::Memory(bytes) => fpxint_onnx::parse(bytes.clone(), "<bytes>", limits)?,
        })
    }
}
