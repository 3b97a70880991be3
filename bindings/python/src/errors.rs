//! Errors of the library as the exceptions of `fpxint.errors`, each with its one-line message.

use std::any::Any;
use std::io;

use fpxint_cli::one_line;
use pyo3::prelude::*;

/// The exception of this name and message.
pub(crate) fn exception(py: Python<'_>, name: &str, message: &str) -> PyErr {
    let class = py.import("fpxint.errors").and_then(|module| module.getattr(name));
    match class.and_then(|class| class.call1((message,))) {
        Ok(value) => PyErr::from_value(value),
        Err(error) => error,
    }
}

/// The exception for an error of the library or of the command's modules.
pub(crate) fn raised(py: Python<'_>, error: &anyhow::Error) -> PyErr {
    let name = error.chain().find_map(class).unwrap_or("InputError");
    exception(py, name, &one_line(error))
}

/// The exception for a panic: a fault of ours or of a library.
pub(crate) fn panicked(py: Python<'_>, payload: &(dyn Any + Send)) -> PyErr {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
    exception(py, "RunError", &format!("fpxint failed on this input and should not have; please report it: {text}"))
}

/// Name of the class for an error that one of the libraries makes.
fn class(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref::<fpxint_runtime::Error>() {
        return Some(of_runtime(error));
    }
    if let Some(error) = error.downcast_ref::<fpxint_onnx::Error>() {
        return Some(of_onnx(error));
    }
    if let Some(error) = error.downcast_ref::<fpxint::Error>() {
        return Some(of_core(error));
    }
    if error.is::<fpxint_kernels::UnknownKernel>() {
        return Some("InputError");
    }
    error.is::<io::Error>().then_some("FileError")
}

fn of_runtime(error: &fpxint_runtime::Error) -> &'static str {
    use fpxint_runtime::Error;
    match error {
        Error::Onnx(error) => of_onnx(error),
        Error::Expand(error) => of_core(error),
        Error::Precision { .. } | Error::NoActivations { .. } => "PrecisionError",
        Error::Input { .. } | Error::Kernel(_) => "InputError",
        Error::Memory { .. } => "SizeError",
        Error::Run { .. } | Error::Threads { .. } => "RunError",
        _ => "ModelError",
    }
}

fn of_onnx(error: &fpxint_onnx::Error) -> &'static str {
    use fpxint_onnx::Error;
    match error {
        Error::Io { .. } | Error::Write { .. } => "FileError",
        Error::Limit { .. } => "LimitError",
        Error::Expand(error) => of_core(error),
        _ => "ModelError",
    }
}

fn of_core(error: &fpxint::Error) -> &'static str {
    use fpxint::Error;
    match error {
        Error::Precision { .. } | Error::Syntax(_) | Error::Order { .. } | Error::Goal(_) => "PrecisionError",
        Error::Shape { .. } => "InputError",
        _ => "ModelError",
    }
}
