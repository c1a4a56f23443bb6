//! A network compiled for images of one size.

use crate::model::Model;
use crate::raised;
use numpy::{PyArray1, PyArrayMethods, PyReadonlyArray4, PyUntypedArrayMethods};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use resprout::session::{self, SessionOptions};
use std::sync::Mutex;

/// A network compiled for images of one size, with zero weights left out.
#[pyclass(frozen, module = "resprout")]
pub struct Session {
    session: Mutex<session::Session>,
    image: [usize; 3],
}

#[pymethods]
impl Session {
    #[new]
    #[pyo3(signature = (model, image, threads, batch, tune, isa, pin))]
    fn new(
        py: Python<'_>,
        model: &Model,
        image: [usize; 3],
        threads: usize,
        batch: usize,
        tune: f64,
        isa: Option<String>,
        pin: bool,
    ) -> PyResult<Session> {
        let options = SessionOptions { threads, batch, tune, isa, pin, ..SessionOptions::default() };
        let model = model.0.clone();
        let session = py.detach(|| session::Session::new(&model, &image, &options)).map_err(raised)?;
        Ok(Session { session: Mutex::new(session), image })
    }

    /// The outputs of `images: [N, C, H, W]`, an array of `float32` in C order, which is read where it lies.
    fn run<'py>(&self, py: Python<'py>, images: PyReadonlyArray4<'py, f32>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let shape = images.shape().to_vec();
        if shape[1..] != self.image {
            return Err(PyValueError::new_err(format!("images of shape {:?}; the session is for {:?}", &shape[1..], self.image)));
        }
        // A slice of an array in Fortran order would have its numbers in another order.
        let data = images.as_slice().ok().filter(|_| images.is_c_contiguous());
        let data = data.ok_or_else(|| PyValueError::new_err("images: an array in C order is needed"))?;
        let run = || {
            // Another thread that has the session is waited for, with the interpreter free.
            let mut session = self.session.lock().map_err(|_| None)?;
            session.run_slice(data).map_err(Some)
        };
        let outputs = py.detach(run).map_err(|error: Option<resprout::Error>| {
            error.map_or_else(|| PyRuntimeError::new_err("the session has failed before"), raised)
        })?;
        let array = |output: resprout::tensor::Tensor| Ok(PyArray1::from_vec(py, output.data).reshape(output.shape)?.into_any());
        outputs.into_iter().map(array).collect()
    }

    /// Channels, height and width.
    #[getter]
    fn image(&self) -> [usize; 3] {
        self.image
    }
}
