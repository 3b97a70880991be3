//! The extension module `fpxint._fpxint`: arrays, exceptions and signals of Python around the library.
//!
//! It decides nothing: what precisions mean, how a plan is made and what a report says is the library's. The classes and
//! functions that users see are in the package's Python files.

#![deny(unsafe_code)]

mod arrays;
mod attended;
mod closeness;
mod errors;
mod expansion;
mod quantization;
mod session;
mod source;

use pyo3::prelude::*;

/// The library of fpxint as Python calls it; use the package `fpxint`.
#[pymodule]
mod _fpxint {
    #[pymodule_export]
    use crate::closeness::Tally;
    #[pymodule_export]
    use crate::expansion::{Expansion, precision_fault};
    #[pymodule_export]
    use crate::quantization::quantize;
    #[pymodule_export]
    use crate::session::Session;

    use super::{Bound, PyModule, PyModuleMethods, PyResult};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // A panic is told as an exception; nothing is printed beside it.
        std::panic::set_hook(Box::new(|_| {}));
        let kernels: Vec<_> = fpxint_kernels::available().iter().map(|kernel| kernel.name()).collect();
        module.add("kernels", kernels)?;
        module.add("version", env!("CARGO_PKG_VERSION"))
    }
}
