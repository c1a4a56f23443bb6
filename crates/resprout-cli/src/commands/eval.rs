//! `resprout eval`: measure a model, alone or against the dense one.

use super::{check_json_target, file_info, images, read_computable, write_json};
use crate::args::EvalArgs;
use crate::render::text;
use crate::reports::eval::EvalReport;
use resprout::eval;
use resprout::forward::{Network, PlanOptions};
use resprout::progress::Progress;
use resprout::report::{EvaluationReport, SCHEMA_VERSION};
use std::time::Instant;

pub fn run(args: &EvalArgs, progress: &dyn Progress) -> anyhow::Result<()> {
    check_json_target(args.json.as_deref())?;
    let model = read_computable(&args.model, &args.network)?;
    let reference = args.reference.as_ref().map(|path| read_computable(path, &args.network.without_weights())).transpose()?;
    let set = images::open(&args.data, &args.images)?;
    let (preprocess, notes) = images::preprocess(&args.images, &model)?;
    let image = images::shape(&set, &model, &preprocess)?;
    let network = |model| Network::new(model, &image, &PlanOptions::default());
    let dense = reference.as_ref().map(network).transpose()?;
    let network = network(&model)?;

    let networks: Vec<&Network> = dense.iter().chain([&network]).collect();
    let names = if dense.is_some() { &["reference", "model"][..] } else { &["model"] };
    let start = Instant::now();
    let run = eval::evaluate(&networks, &set, &preprocess, dense.is_some(), progress)?;
    let images_per_second = (run.images * networks.len()) as f64 / start.elapsed().as_secs_f64();
    let report = EvalReport {
        schema_version: SCHEMA_VERSION,
        tool_version: env!("CARGO_PKG_VERSION"),
        model: file_info(&args.model)?,
        reference: args.reference.as_ref().map(|path| Ok::<_, anyhow::Error>(file_info(path)?)).transpose()?,
        preprocess,
        evaluation: EvaluationReport::new(run, names, set.path().display().to_string(), false),
        images_per_second,
        warnings: notes.into_iter().chain(set.left_out()).collect(),
    };
    if write_json(&report, args.json.as_deref())? {
        text::eval(&report);
    }
    Ok(())
}
