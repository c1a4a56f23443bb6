//! `resprout prune`: prune, repair, measure, write, report.

mod data;
mod report;
mod request;
mod verify;

use super::{check_computable, fold_batch_norm, read_model, read_model_and_notes, write_json, write_model};
use crate::args::PruneArgs;
use crate::render::{prune_page, text};
use data::Data;
use report::{Outcome, build_report};
use request::Request;
use resprout::formats::atomic;
use resprout::progress::Progress;
use resprout::sparsify::{sparsify, sparsify_from};
use resprout::structure::Pattern;
use resprout::structure::shrink::shrink;
use resprout::tensor::Tensor;
use std::time::Instant;
use verify::check_same;

pub fn run(args: &PruneArgs, progress: &dyn Progress) -> anyhow::Result<()> {
    prune(&Request::new(args)?, progress)
}

fn prune(request: &Request, progress: &dyn Progress) -> anyhow::Result<()> {
    let Request { model: source, options, output, .. } = request;
    let mut clock = Clock::start();
    let (mut model, notes) = read_model_and_notes(&source.file, &source.network)?;
    if request.images.compute() {
        check_computable(&model, &source.file)?;
    }
    let came_sparse = model.keep_zeros(&options.prune.rule, source.regrow)?;
    let model = model;
    let reference = source.reference.as_ref().map(|path| read_model(path, &source.network.without_weights())).transpose()?;
    let dense = reference.as_ref().unwrap_or(&model);
    let mut data = Data::open(&request.images, dense)?;
    clock.lap("read");
    let checkup = data.check_up(dense, options.repair_options.memory, progress)?;
    clock.lap("check images");

    let empty = Tensor::default();
    let images = data.images().unwrap_or(&empty);
    let result = match &reference {
        Some(dense) => sparsify_from(&model, dense, images, options, progress)?,
        None => sparsify(&model, images, options, progress)?,
    };
    clock.lap("prune and repair");
    let mut networks = vec![("dense", dense), ("pruned", &result.pruned)];
    if request.repairs() {
        networks.push(("repaired", &result.repaired));
    }
    let evaluation = if output.evaluate { data.evaluate(&networks, progress)? } else { None };
    clock.lap("evaluate");

    progress.check()?;
    let channels = options.prune.pattern == Pattern::Channel;
    let small = if output.shrink || channels { Some(shrink(&result.repaired)?) } else { None };
    if let Some((small, _)) = small.as_ref().filter(|(_, cuts)| !cuts.is_empty()) {
        check_same(&result.repaired, small, data.images())?;
    }
    let (mut written, cuts) = small.filter(|_| output.shrink).unwrap_or_else(|| (result.repaired.clone(), Vec::new()));
    let norms = if output.fold_bn { Some(fold_batch_norm(&mut written)?) } else { None };
    write_model(&written, &output.file, output.format, data.images())?;
    clock.lap("write");
    let outcome = Outcome { result: &result, written: &written, cuts, norms, checkup, evaluation, came_sparse, notes };
    let mut report = build_report(request, &model, outcome, data)?;
    clock.lap("report");
    report.seconds = clock.laps;
    if let Some(page) = &output.page {
        atomic::write(page, prune_page::page(&report).as_bytes())?;
    }
    if write_json(&report, output.json.as_deref())? {
        text::report(&report);
    }
    Ok(())
}

/// Seconds per stage.
struct Clock {
    last: Instant,
    laps: Vec<(String, f64)>,
}

impl Clock {
    fn start() -> Clock {
        Clock { last: Instant::now(), laps: Vec::new() }
    }

    fn lap(&mut self, stage: &str) {
        self.laps.push((stage.to_string(), self.last.elapsed().as_secs_f64()));
        self.last = Instant::now();
    }
}
