//! `resprout run`: inference on images, classes out.

use super::session::{open_session, session_options, thread_note};
use super::{check_json_target, images, read_computable, write_json};
use crate::args::RunArgs;
use crate::render::text;
use crate::reports::run::{Classes, Classified};
use resprout::data::{ImageSet, LabelSource};
use resprout::progress::Progress;
use resprout::report::SCHEMA_VERSION;
use std::time::Instant;

/// Images that are decoded at a time.
const DECODED: usize = 256;

pub fn run(args: &RunArgs, threads: usize, progress: &dyn Progress) -> anyhow::Result<()> {
    check_json_target(args.json.as_deref())?;
    let model = read_computable(&args.model, &args.network)?;
    // Labels are not even read.
    let mut set = ImageSet::open(&args.data, &LabelSource::None)?;
    if let Some(limit) = args.images.limit {
        set.truncate(limit.get());
    }
    let (preprocess, notes) = images::preprocess(&args.images, &model)?;
    let image = images::shape(&set, &model, &preprocess)?;
    let batch = set.len().min(DECODED);
    let options = session_options(&args.session, threads, batch);
    let (mut session, plan_notes) = open_session(&args.model, &model, &image, &options, args.session.plan.as_deref())?;
    let mut all = Vec::with_capacity(set.len());
    let mut seconds = 0.0;
    progress.begin("run", set.len() as u64);
    for start in (0..set.len()).step_by(DECODED) {
        progress.check()?;
        let range = start..set.len().min(start + DECODED);
        let decoded = set.load(range.clone(), images::channels(&model), &preprocess)?;
        let clock = Instant::now();
        let outputs = session.run(&decoded)?.swap_remove(0);
        seconds += clock.elapsed().as_secs_f64();
        let width = outputs.data.len() / range.len();
        let rows = range.clone().zip(outputs.data.chunks_exact(width.max(1)));
        all.extend(rows.map(|(index, row)| Classes { image: set.name(index), classes: highest(row, args.top.get()) }));
        progress.advance(range.len() as u64);
    }
    progress.end();
    let result = Classified {
        schema_version: SCHEMA_VERSION,
        tool_version: env!("CARGO_PKG_VERSION"),
        preprocess,
        images_per_second: all.len() as f64 / seconds,
        images: all,
        warnings: notes.into_iter().chain(plan_notes).chain(thread_note(&options)).chain(set.left_out()).collect(),
    };
    if write_json(&result, args.json.as_deref())? {
        text::classified(&result);
    }
    Ok(())
}

/// The highest outputs; of equal ones the first.
fn highest(row: &[f32], count: usize) -> Vec<(usize, f32)> {
    let mut order: Vec<(usize, f32)> = row.iter().copied().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    order.truncate(count);
    order
}
