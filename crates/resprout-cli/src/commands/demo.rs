//! `resprout demo`: collapse and recovery on an embedded network, offline.

use super::write_json;
use crate::args::DemoArgs;
use crate::embedded;
use crate::render::text;
use crate::reports::demo::{DemoReport, DemoRow};
use resprout::data::ImageSet;
use resprout::eval::{self, Evaluation};
use resprout::formats::onnx::{self, Storage};
use resprout::forward::{Network, PlanOptions};
use resprout::model::Model;
use resprout::progress::{Progress, Quiet};
use resprout::prune::PruneOptions;
use resprout::repair::RepairOptions;
use resprout::report::{self, SCHEMA_VERSION};
use resprout::sparsify::{SparsifyOptions, sparsify};
use resprout::{Error, Result};

/// Of the training images, unlabelled.
const CALIBRATION: usize = 256;
const SPARSITIES: [f64; 6] = [0.5, 0.7, 0.8, 0.9, 0.93, 0.95];
const ALLOCATION: &str = "lamp";

pub fn run(args: &DemoArgs, progress: &dyn Progress) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.output).map_err(|e| Error::io(&args.output, e))?;
    let dense = onnx::parse(embedded::MODEL.to_vec(), None)?;
    let (calibration, test) = data()?;
    progress.begin("demo", SPARSITIES.len() as u64);
    let mut rows = Vec::new();
    let mut dense_evaluation = None;
    for sparsity in SPARSITIES {
        progress.check()?;
        let (row, evaluation) = one(&dense, sparsity, &calibration, &test, args)?;
        dense_evaluation = Some(evaluation);
        rows.push(row);
        progress.advance(1);
    }
    progress.end();
    let report = DemoReport {
        schema_version: SCHEMA_VERSION,
        tool_version: env!("CARGO_PKG_VERSION"),
        allocation: ALLOCATION,
        calibration_images: CALIBRATION,
        test_images: test.len(),
        dense: dense_evaluation.ok_or_else(|| anyhow::anyhow!("no sparsities"))?,
        rows,
    };
    write_json(&report, Some(&args.output.join("report.json")))?;
    if write_json(&report, args.json.then_some("-".as_ref()))? {
        text::demo(&report, &args.output);
    }
    Ok(())
}

fn data() -> Result<(resprout::tensor::Tensor, ImageSet)> {
    let splits = embedded::splits()?;
    let test = splits.test.ok_or_else(|| Error::new(resprout::ErrorKind::Data, "no test images"))?;
    Ok((splits.train.load(0..CALIBRATION, 1, &embedded::preprocess())?, test))
}

fn one(
    dense: &Model,
    sparsity: f64,
    calibration: &resprout::tensor::Tensor,
    test: &ImageSet,
    args: &DemoArgs,
) -> Result<(DemoRow, Evaluation)> {
    let prune = PruneOptions { sparsity, allocation: ALLOCATION.into(), ..PruneOptions::default() };
    let repair = |repair: &str| {
        let options = SparsifyOptions {
            prune: prune.clone(),
            repair: repair.into(),
            repair_rows: &[],
            repair_options: RepairOptions::default(),
            steps: 1,
            checkpoint: None,
        };
        sparsify(dense, calibration, &options, &Quiet)
    };
    let (recalibrated, fitted) = (repair("bn")?, repair("least-squares")?);

    let image = &calibration.shape[1..];
    let models = [dense, &fitted.pruned, &recalibrated.repaired, &fitted.repaired];
    let networks: Result<Vec<Network>> =
        models.into_iter().map(|model| Network::new(model, image, &PlanOptions::default())).collect();
    let networks = networks?;
    let run = eval::evaluate(&networks.iter().collect::<Vec<_>>(), test, &embedded::preprocess(), true, &Quiet)?;
    let path = args.output.join(format!("digits-{:.0}.onnx", sparsity * 100.0));
    onnx::write(&fitted.repaired, &path, Storage::Dense, |_| Ok(()))?;
    let macs = resprout::forward::layer_macs(&fitted.repaired, image)?;
    let rows = report::layer_rows(&fitted.repaired, &fitted.outcome.layers, Some(&macs))?;
    let mut evaluations = run.networks.into_iter();
    let mut next = || evaluations.next().ok_or_else(|| Error::new(resprout::ErrorKind::Data, "an evaluation is missing"));
    let (dense, pruned, recalibrated, least_squares) = (next()?, next()?, next()?, next()?);
    let row = DemoRow {
        sparsity: report::sparsity_info(&fitted.repaired, &rows, Some(sparsity), Some(&macs)),
        pruned,
        recalibrated,
        least_squares,
        file: path.display().to_string(),
        gzip_bytes: report::gzip_bytes(&onnx::encode(&fitted.repaired)?)?,
    };
    Ok((row, dense))
}
