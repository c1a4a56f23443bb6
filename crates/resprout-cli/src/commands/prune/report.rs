//! From what `prune` has done to its report.

use super::data::{Data, Origin};
use super::request::Request;
use crate::args::Format;
use crate::commands::{ONNX_SPARSE, file_info, model_files};
use resprout::calibrate::Checkup;
use resprout::data::Preprocess;
use resprout::model::{CameSparse, MergedNorms, Model};
use resprout::ops::Op;
use resprout::prune::PruneOptions;
use resprout::report::{self, Calibration, EvaluationReport, LayerRow, RepairReport, Report, SizeInfo};
use resprout::sparsify::Sparsified;
use resprout::structure::Pattern;
use resprout::structure::shrink::Cut;
use resprout::tensor::Tensor;
use resprout::{Result, eval};
use serde_json::json;

/// What `prune` has come to.
pub struct Outcome<'a> {
    pub result: &'a Sparsified,
    pub written: &'a Model,
    pub cuts: Vec<Cut>,
    pub norms: Option<MergedNorms>,
    pub checkup: Option<Checkup>,
    pub evaluation: Option<EvaluationReport>,
    pub came_sparse: Option<CameSparse>,
    /// Notes on how the model was read.
    pub notes: Vec<String>,
}

/// The whole report but for its seconds.
pub fn build_report(request: &Request, dense: &Model, all: Outcome, data: Data) -> Result<Report> {
    let Outcome { result, written, cuts, norms, checkup, evaluation, came_sparse, notes } = all;
    let Request { model: source, options, output, .. } = request;
    let (model, outcome) = (&result.repaired, &result.outcome);
    let image = data.images().map(|images| images.shape[1..].to_vec()).or_else(|| resprout::model::fixed_image(model));
    let macs = image.as_ref().and_then(|image| resprout::forward::layer_macs(model, image).ok());
    let layers = report::layer_rows(model, &outcome.layers, macs.as_ref())?;
    let (dense_file, sparse_file) = (file_info(&source.file)?, file_info(&output.file)?);
    let mut warnings = warnings(request, result, checkup.as_ref(), &data, &layers);
    warnings.splice(0..0, notes);
    warnings.extend(without_reference(request, came_sparse.as_ref()));
    warnings.extend(folded_threshold(&options.prune, dense));
    let preprocess = data.preprocess.map(|(preprocess, _)| preprocess);
    let mut listed = request.listed.clone();
    listed["preprocess"] = json!(preprocess);
    let calibration = data.calibration.filter(|_| data.needed);
    Ok(Report {
        schema_version: report::SCHEMA_VERSION,
        tool_version: env!("CARGO_PKG_VERSION").into(),
        sparsity: report::sparsity_info(model, &layers, request.sparsity(), macs.as_ref()),
        size: Some(SizeInfo {
            dense: report::sizes(dense, &model_files(&source.file)?, output.compress)?,
            sparse: report::sizes(written, &model_files(&output.file)?, output.compress)?,
        }),
        model: dense_file,
        reference: source.reference.as_ref().map(|path| file_info(path)).transpose()?,
        came_sparse,
        output: Some(sparse_file),
        shrunk: (!cuts.is_empty()).then(|| report::shrunk(model, written, image.as_deref(), cuts)),
        options: listed,
        seed: options.prune.seed,
        calibration: calibration.zip(preprocess).map(|((images, origin), preprocess)| used(&images, &origin, preprocess)),
        repair: request.repairs().then(|| repair_report(&options.repair, result, checkup)),
        layers,
        allocations: result.allocations.clone(),
        left_dense: outcome.left_dense.clone(),
        merged_norms: norms,
        evaluation,
        warnings,
        seconds: Vec::new(),
    })
}

/// The calibration images that were used.
fn used(images: &Tensor, origin: &Origin, preprocess: Preprocess) -> Calibration {
    let (path, data_free) = match origin {
        Origin::Set(set) => (set.path().display().to_string(), false),
        Origin::Noise => ("noise".into(), true),
    };
    Calibration { path, data_free, images: images.shape[0], images_sha256: eval::images_sha256(images), preprocess }
}

/// What the repair did; of `auto`, the chain that was chosen.
fn repair_report(repair: &str, result: &Sparsified, checkup: Option<Checkup>) -> RepairReport {
    let chosen = result.candidates.iter().find(|candidate| candidate.chosen);
    let done = &result.repair;
    RepairReport {
        chain: chosen.map_or(repair, |candidate| &candidate.repair).to_string(),
        steps: result.steps.clone(),
        changed: done.changed,
        batch_norms: done.batch_norms,
        folded: done.folded,
        added_bias: done.added_bias.clone(),
        fitted: done.fitted.clone(),
        statistics_only: done.statistics_only.clone(),
        trained: done.trained.clone(),
        expected_seconds: done.expected_seconds,
        seconds: done.seconds,
        candidates: result.candidates.clone(),
        checkup,
    }
}

/// What the user should know, in the order in which it came about.
fn warnings(request: &Request, result: &Sparsified, checkup: Option<&Checkup>, data: &Data, layers: &[LayerRow]) -> Vec<String> {
    let outcome = &result.outcome;
    let prunable = outcome.layers.iter().map(|layer| layer.len()).sum();
    let mut warnings: Vec<String> = report::reach_warning(prunable, &outcome.left_dense).into_iter().collect();
    warnings.extend(report::layer_warnings(layers));
    warnings.extend(report::path_warnings(&result.repaired, &result.outcome.layers, layers));
    if matches!(data.calibration, Some((_, Origin::Noise))) && data.needed {
        warnings.push(
            "DATA-FREE: calibrated on noise, not on images; this may do more harm than no repair: measure it before use".into(),
        );
    }
    warnings.extend(checkup.into_iter().flat_map(Checkup::warnings));
    warnings.extend(result.repair.warnings.iter().cloned());
    let added = &result.repair.added_bias;
    if !added.is_empty() {
        warnings.push(format!("{} layers were given a bias: {}", added.len(), added.join(", ")));
    }
    warnings.extend(data.preprocess.iter().flat_map(|(_, notes)| notes.clone()));
    warnings.extend(data.left_out());
    warnings.extend((request.output.format == Format::OnnxSparse).then(|| ONNX_SPARSE.into()));
    warnings
}

/// One threshold on the magnitudes of all layers means little where weights were multiplied by BatchNormalizations.
fn folded_threshold(options: &PruneOptions, dense: &Model) -> Option<String> {
    let threshold =
        options.pattern == Pattern::Unstructured && options.criterion == "magnitude" && options.allocation == "global";
    let norms = dense.graph.layers.iter().any(|layer| matches!(layer.op, Op::BatchNorm { .. }));
    (threshold && !norms && !dense.folded_norms().is_empty()).then(|| {
        "--allocation global: BatchNormalization may be folded into these weights, and one threshold on their magnitudes then \
         prunes far worse; lamp and erk compare within layers"
            .into()
    })
}

/// A repair by the dense network has nothing to compare with where only the sparse one is known.
fn without_reference(request: &Request, came_sparse: Option<&CameSparse>) -> Option<String> {
    let kept = came_sparse.is_some_and(|came| !came.regrown);
    (kept && request.model.reference.is_none() && request.repairs()).then(|| {
        "the model came sparse, and is compared with itself: what its zeros have cost is not seen; give the network from before \
         as --reference"
            .into()
    })
}
