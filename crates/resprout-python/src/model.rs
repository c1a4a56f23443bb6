//! A network.

use crate::raised;
use numpy::{PyArray1, PyArrayMethods, ToPyArray};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use resprout::formats::onnx::{self, Storage};
use resprout::model::PrunableRule;
use std::path::PathBuf;
use std::sync::Arc;

/// A network: its graph, weights and masks.
#[pyclass(frozen, module = "resprout")]
pub struct Model(pub Arc<resprout::model::Model>);

#[pymethods]
impl Model {
    /// Reads an ONNX file.
    #[staticmethod]
    fn read(py: Python<'_>, path: PathBuf) -> PyResult<Model> {
        py.detach(|| onnx::read(&path)).map(|model| Model(Arc::new(model))).map_err(raised)
    }

    /// Reads the bytes of an ONNX file.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, bytes: Vec<u8>) -> PyResult<Model> {
        py.detach(|| onnx::parse(bytes, None)).map(|model| Model(Arc::new(model))).map_err(raised)
    }

    /// The bytes of an ONNX file.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = py.detach(|| onnx::encode(&self.0)).map_err(raised)?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Writes an ONNX file, whole or not at all.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| onnx::write(&self.0, &path, Storage::Dense, |_| Ok(()))).map_err(raised)
    }

    /// Channels, height and width of the input; `None` where the file leaves one open.
    #[getter]
    fn image(&self) -> Option<[usize; 3]> {
        let image = resprout::model::fixed_image(&self.0)?;
        image.try_into().ok()
    }

    /// Names of the parameters that are tensors of floats.
    fn parameters(&self) -> Vec<String> {
        self.0.params.iter().filter(|(_, param)| param.f32().is_some()).map(|(name, _)| name.to_string()).collect()
    }

    /// A parameter, in its shape.
    fn parameter<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let tensor = self.0.params.get(name).and_then(|param| param.f32());
        let tensor = tensor.ok_or_else(|| PyKeyError::new_err(format!("no parameter of floats {name:?}")))?;
        Ok(tensor.data.to_pyarray(py).reshape(tensor.shape.clone())?.into_any())
    }

    /// The masks by parameter: `True` where a weight is kept.
    fn masks<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, mask) in self.0.masks.iter() {
            let shape = self.0.params.get(name).map(|param| param.shape.clone()).unwrap_or_default();
            dict.set_item(name, PyArray1::from_slice(py, &mask.0).reshape(shape)?)?;
        }
        Ok(dict)
    }

    /// Layer and parameter of each weight that can be pruned.
    fn prunable(&self) -> PyResult<Vec<(String, String)>> {
        let (layers, _) = self.0.prunable(&PrunableRule::default()).map_err(raised)?;
        Ok(layers.into_iter().map(|layer| (layer.layer, layer.param)).collect())
    }

    /// The share of the prunable weights that is zero.
    #[getter]
    fn sparsity(&self) -> PyResult<f64> {
        let (layers, _) = self.0.prunable(&PrunableRule::default()).map_err(raised)?;
        let (mut zeros, mut all) = (0, 0);
        for layer in &layers {
            let weights = &self.0.weight(&layer.param).map_err(raised)?.data;
            zeros += weights.iter().filter(|&&weight| weight == 0.0).count();
            all += weights.len();
        }
        Ok(zeros as f64 / (all as f64).max(1.0))
    }
}
