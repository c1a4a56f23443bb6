//! Pruning and repair.

use crate::model::Model;
use crate::raised;
use numpy::{PyArray1, PyArrayMethods, PyReadonlyArray4, PyReadonlyArrayDyn};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use resprout::ErrorKind;
use resprout::calibrate::WeightSite;
use resprout::criteria::{Criterion, ScoreInput};
use resprout::data::{ImageSet, LabelSource, Preprocess};
use resprout::formats::safetensors;
use resprout::model::{Prunable, PrunableRule};
use resprout::progress::Progress;
use resprout::sparsify::{Budget, Sparsify};
use resprout::structure::Pattern;
use resprout::tensor::Tensor;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// A Python callable as a progress bar: `progress(stage, done, total)`. It also sees Ctrl-C, and its own exceptions stop the work.
struct Callback {
    call: Option<Py<PyAny>>,
    stage: Mutex<(String, u64, u64)>,
    raised: Mutex<Option<PyErr>>,
}

impl Callback {
    fn new(call: Option<Py<PyAny>>) -> Callback {
        Callback { call, stage: Mutex::default(), raised: Mutex::default() }
    }

    fn keep(&self, error: PyErr) {
        if let Ok(mut raised) = self.raised.lock() {
            raised.get_or_insert(error);
        }
    }

    fn tell(&self) {
        let Ok((stage, done, total)) = self.stage.lock().map(|stage| stage.clone()) else { return };
        if let Some(call) = &self.call {
            Python::attach(|py| call.call1(py, (stage, done, total)).map(drop)).unwrap_or_else(|error| self.keep(error));
        }
    }

    /// The exception that the callback has raised, or the error.
    fn error(&self, error: resprout::Error) -> PyErr {
        self.raised.lock().ok().and_then(|mut raised| raised.take()).unwrap_or_else(|| raised(error))
    }
}

impl Progress for Callback {
    fn begin(&self, stage: &str, total: u64) {
        if let Ok(mut now) = self.stage.lock() {
            *now = (stage.into(), 0, total);
        }
        self.tell();
    }

    fn advance(&self, units: u64) {
        if let Ok(mut now) = self.stage.lock() {
            now.1 += units;
        }
        self.tell();
    }

    fn cancelled(&self) -> bool {
        let signals = Python::attach(|py| py.check_signals());
        signals.unwrap_or_else(|error| self.keep(error));
        self.raised.lock().is_ok_and(|raised| raised.is_some())
    }
}

/// About how many positions of all images a criterion's inputs are measured over, in each layer.
const POSITIONS: usize = 65536;

/// A Python callable as a criterion: `score(name, weight)` returns an array of the weight's shape. `score(name, weight, inputs)`
/// is also given the root mean square of the input that each weight multiplies, in the same shape.
struct Scores {
    call: Py<PyAny>,
    /// Whether it takes the inputs.
    measured: bool,
    /// The prunable layers by name, where it takes the inputs.
    layers: HashMap<String, Prunable>,
    seed: u64,
    raised: Arc<Mutex<Option<PyErr>>>,
}

impl Scores {
    fn new(call: Py<PyAny>, model: &Model, rule: &PrunableRule, seed: u64) -> PyResult<Scores> {
        let (layers, _) = model.0.prunable(rule).map_err(raised)?;
        let layers = layers.into_iter().map(|layer| (layer.layer.clone(), layer)).collect();
        let measured = Python::attach(|py| takes_inputs(py, &call));
        Ok(Scores { call, measured, layers, seed, raised: Arc::default() })
    }

    /// The scores of a weight, with its inputs if they were measured, both in the order of the file.
    fn call(&self, layer: &Prunable, weights: &[f32], inputs: Option<Vec<f64>>) -> PyResult<Vec<f64>> {
        Python::attach(|py| {
            let shape = layer.shape.clone();
            let weight = PyArray1::from_slice(py, weights).reshape(shape.clone())?;
            let scores = match inputs {
                Some(inputs) => {
                    let inputs = PyArray1::from_vec(py, inputs).reshape(shape)?;
                    self.call.call1(py, (&layer.param, weight, inputs))?
                }
                None => self.call.call1(py, (&layer.param, weight))?,
            };
            let numpy = py.import("numpy")?;
            let scores = numpy.call_method1("asarray", (scores, "float64"))?;
            let scores: PyReadonlyArrayDyn<f64> = scores.extract()?;
            Ok(scores.as_array().iter().copied().collect())
        })
    }
}

/// Whether a callable needs a third argument. One whose third has a default does not.
fn takes_inputs(py: Python<'_>, call: &Py<PyAny>) -> bool {
    let Ok(signature) = py.import("inspect").and_then(|inspect| inspect.call_method1("signature", (call,))) else { return false };
    signature.call_method1("bind", ((), ())).is_err() && signature.call_method1("bind", ((), (), ())).is_ok()
}

impl Scores {
    /// Keeps an exception. Scores that are too few are an error, in whose place it is raised.
    fn kept(&self, scores: PyResult<Vec<f64>>) -> Vec<f64> {
        scores.unwrap_or_else(|error| {
            if let Ok(mut raised) = self.raised.lock() {
                raised.get_or_insert(error);
            }
            Vec::new()
        })
    }
}

impl Criterion for Scores {
    fn needs_images(&self) -> bool {
        self.measured
    }

    fn score(&self, layer: &ScoreInput) -> Vec<f64> {
        self.kept(self.call(layer.layer, layer.weights, None))
    }

    fn score_site(&self, site: &WeightSite) -> resprout::Result<Option<Vec<f64>>> {
        let Some(layer) = self.layers.get(site.name) else { return Ok(None) };
        let Some(inputs) = site.input_rms(POSITIONS, self.seed) else { return Ok(None) };
        let weights: Vec<f64> = site.weights.data.iter().map(|&w| f64::from(w)).collect();
        let weights: Vec<f32> = site.in_file_order(&weights).iter().map(|&w| w as f32).collect();
        let scores = self.kept(self.call(layer, &weights, Some(site.in_file_order(&inputs))));
        if scores.len() != layer.len() {
            let message = format!("score: {:?}: {} scores for {} weights", layer.param, scores.len(), layer.len());
            return Err(resprout::Error::new(ErrorKind::Data, message));
        }
        Ok(Some(site.from_file_order(&scores)))
    }
}

/// Prunes and repairs. `images: [N, C, H, W]` of `float32`, preprocessed. Returns the model and its sparsity as JSON.
#[pyfunction]
#[pyo3(signature = (model, images, sparsity, macs, pattern, criterion, allocation, repair, steps, seed, ignore, score, progress))]
pub fn prune(
    py: Python<'_>,
    model: &Model,
    images: Option<PyReadonlyArray4<f32>>,
    sparsity: f64,
    macs: Option<f64>,
    pattern: Option<&str>,
    criterion: Option<&str>,
    allocation: Option<&str>,
    repair: Option<&str>,
    steps: usize,
    seed: u64,
    ignore: Vec<String>,
    score: Option<Py<PyAny>>,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Model, String)> {
    let images = images.map_or_else(Tensor::default, |images| {
        let array = images.as_array();
        Tensor::new(array.shape().to_vec(), array.iter().copied().collect())
    });
    let mut budget = macs.map_or_else(|| Budget::sparsity(sparsity), Budget::macs);
    if let Some(pattern) = pattern {
        budget = budget.pattern(Pattern::parse(pattern).map_err(raised)?);
    }
    let rule = PrunableRule { ignore, ..PrunableRule::default() };
    let scores = score.map(|score| Scores::new(score, model, &rule, seed)).transpose()?;
    let failed = scores.as_ref().map(|scores| scores.raised.clone()).unwrap_or_default();
    let mut sparsify = Sparsify::new(budget).rule(rule).seed(seed).steps(steps).repair_rows(resprout_train::REPAIRS);
    if let Some(criterion) = criterion {
        sparsify = sparsify.criterion(criterion);
    }
    if let Some(scores) = scores {
        sparsify = sparsify.criterion(scores);
    }
    if let Some(allocation) = allocation {
        sparsify = sparsify.allocation(allocation);
    }
    if let Some(repair) = repair {
        sparsify = sparsify.repair(repair);
    }
    let callback = Callback::new(progress);
    let dense = model.0.clone();
    let done = py.detach(|| {
        let done = sparsify.run_with(&dense, &images, &callback)?;
        let prunable: usize = done.outcome.layers.iter().map(|layer| layer.len()).sum();
        let kept: usize = done.outcome.kept.iter().sum();
        let of_prunable = done.outcome.sparsity();
        let requested = macs.is_none().then_some(sparsity);
        let layers: Vec<_> = done.outcome.layers.iter().zip(&done.outcome.kept).collect();
        let row = |(layer, kept): &(&Prunable, &usize)| {
            serde_json::json!({ "layer": layer.layer, "param": layer.param, "weights": layer.len(), "kept": kept })
        };
        let report = serde_json::json!({
            "requested": requested, "of_prunable": of_prunable, "prunable": prunable, "kept": kept, "steps": done.steps,
            "layers": layers.iter().map(row).collect::<Vec<_>>(),
        });
        Ok((done.repaired, report.to_string()))
    });
    if let Ok(Some(error)) = failed.lock().map(|mut failed| failed.take()) {
        return Err(error);
    }
    let (repaired, info) = done.map_err(|error| callback.error(error))?;
    Ok((Model(Arc::new(repaired)), info))
}

/// Scores every prunable weight by a callable, and writes the scores as safetensors, for the command and for sweeps.
#[pyfunction]
#[pyo3(signature = (model, score, path, ignore))]
pub fn write_scores(model: &Model, score: Py<PyAny>, path: PathBuf, ignore: Vec<String>) -> PyResult<()> {
    let rule = PrunableRule { ignore, ..PrunableRule::default() };
    let (layers, _) = model.0.prunable(&rule).map_err(raised)?;
    let scores = Scores::new(score, model, &rule, 0)?;
    if scores.measured {
        return Err(PyValueError::new_err("score: one that takes inputs needs images, which a file of scores has not"));
    }
    let mut tensors = Vec::new();
    for layer in &layers {
        let weights = &model.0.weight(&layer.param).map_err(raised)?.data;
        let values = scores.call(layer, weights, None)?;
        if values.len() != layer.len() {
            let message = format!("score: {:?}: {} scores for {} weights", layer.param, values.len(), layer.len());
            return Err(PyValueError::new_err(message));
        }
        tensors.push((layer.param.clone(), layer.shape.clone(), values));
    }
    safetensors::write_numbers(&tensors, &path).map_err(raised)
}

/// Reads images from a file or folder, preprocessed: `[N, C, H, W]`.
#[pyfunction]
#[pyo3(signature = (path, channels, preset, limit))]
pub fn load_images<'py>(
    py: Python<'py>,
    path: PathBuf,
    channels: usize,
    preset: &str,
    limit: Option<usize>,
) -> PyResult<Bound<'py, PyAny>> {
    let loaded = py.detach(|| {
        let set = ImageSet::open(&path, &LabelSource::None)?;
        let count = limit.map_or(set.len(), |limit| limit.min(set.len()));
        set.load(0..count, channels, &Preprocess::preset(preset)?)
    });
    let tensor = loaded.map_err(raised)?;
    if tensor.data.is_empty() {
        return Err(PyValueError::new_err(format!("{}: no images", path.display())));
    }
    Ok(PyArray1::from_vec(py, tensor.data).reshape(tensor.shape)?.into_any())
}
