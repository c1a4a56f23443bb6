//! The Python module `resprout._native`: what the package `resprout` is made of.

mod model;
mod prune;
mod session;

use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError, PyValueError};
use pyo3::prelude::*;
use resprout::{Error, ErrorKind};

/// The exception that fits an error.
fn raised(error: Error) -> PyErr {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Interrupted => PyKeyboardInterrupt::new_err(text),
        ErrorKind::Io => PyOSError::new_err(text),
        _ => PyValueError::new_err(text),
    }
}

/// Runs the command with these arguments, the program's name among them, and returns its exit code.
#[pyfunction]
fn command(py: Python<'_>, arguments: Vec<String>) -> u8 {
    py.detach(|| resprout_cli::main(arguments.into_iter().map(Into::into)))
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<model::Model>()?;
    module.add_class::<session::Session>()?;
    module.add_function(wrap_pyfunction!(prune::prune, module)?)?;
    module.add_function(wrap_pyfunction!(prune::load_images, module)?)?;
    module.add_function(wrap_pyfunction!(prune::write_scores, module)?)?;
    module.add_function(wrap_pyfunction!(command, module)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
