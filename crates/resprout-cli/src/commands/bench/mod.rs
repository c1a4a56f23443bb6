//! `resprout bench`: latency and throughput, alone or alternating with ONNX Runtime.

mod baseline;
mod contend;
mod entrant;
mod plans;
pub mod timing;

use super::session::{open_session, session_options, thread_note};
use super::{check_json_target, file_info, read_computable, read_model, write_json};
use crate::args::BenchArgs;
use crate::render::text;
use crate::reports::bench::{BenchReport, Load};
use anyhow::Context;
use baseline::BaselineProcess;
use contend::Contenders;
use entrant::Entrant;
use resprout::data::{Preprocess, gaussian};
use resprout::model::{ElementType, Model};
use resprout::progress::Progress;
use resprout::report::SCHEMA_VERSION;
use resprout::session::{Session, SessionOptions, cpu_name};
use resprout::tensor::Tensor;
use resprout::{Error, ErrorKind, Result};
use std::time::Instant;
use timing::percentile;

pub fn run(args: &BenchArgs, threads: Option<usize>, progress: &dyn Progress) -> anyhow::Result<()> {
    check_json_target(args.json.as_deref())?;
    if args.rounds == 0 {
        return Err(Error::new(ErrorKind::Option, "--rounds 0: a number from 1 on is needed").into());
    }
    let model = read_computable(&args.model, &args.network)?;
    let image = image(args, &model)?;
    let threads = threads.map_or_else(|| args.bench_threads.clone(), |threads| vec![threads]);
    let mut warnings = Vec::new();
    let mut rows = Vec::new();
    let _contenders = Contenders::start(args.contend).context("--contend: cannot start threads")?;
    progress.begin("bench", (args.batch.len() * args.rounds) as u64);
    for &batch in &args.batch {
        let images = noise(&image, batch, takes_bytes(&model))?;
        let mut entrants = Vec::new();
        for &threads in &threads {
            progress.check()?;
            let options = session_options(&args.session, threads, batch);
            let (session, notes) = open_session(&args.model, &model, &image, &options, args.session.plan.as_deref())?;
            for note in notes.into_iter().chain(thread_note(&options)) {
                if !warnings.contains(&note) {
                    warnings.push(note);
                }
            }
            entrants.push(Entrant::new(args, session, options, &images)?);
        }
        for _ in 0..args.rounds {
            progress.check()?;
            entrants.iter_mut().try_for_each(|entrant| entrant.turn(&images))?;
            // Each session finds the machine as the one before left it.
            entrants.reverse();
            progress.advance(1);
        }
        if args.rounds % 2 == 1 {
            entrants.reverse();
        }
        for entrant in entrants {
            rows.push(entrant.row(args, &model, &images)?);
        }
    }
    progress.end();
    let first = session_options(&args.session, threads[0], args.batch[0]);
    let report = BenchReport {
        schema_version: SCHEMA_VERSION,
        tool_version: env!("CARGO_PKG_VERSION"),
        cpu: cpu_name(),
        isa: first.isa_name(),
        model: file_info(&args.model)?,
        contend: args.contend,
        load: load(args, &image, takes_bytes(&model), &first)?,
        image,
        rows,
        warnings,
    };
    if write_json(&report, args.json.as_deref())? {
        text::bench(&report, args.layers);
    }
    Ok(())
}

fn image(args: &BenchArgs, model: &Model) -> Result<Vec<usize>> {
    match (&args.input_shape, resprout::model::fixed_image(model)) {
        (Some(shape), _)
            if !shape.contains(&0)
                && let &[c, h, w] = &shape[..] =>
        {
            Ok(model.graph.image_layout().shape([c, h, w]).to_vec())
        }
        (Some(shape), _) => {
            Err(Error::new(ErrorKind::Option, format!("--input-shape {shape:?}: three numbers from 1 on are needed")))
        }
        (None, Some(image)) => Ok(image),
        (None, None) => {
            let message = "the model leaves the size of its images free; give --input-shape C,H,W";
            Err(Error::new(ErrorKind::Option, message))
        }
    }
}

/// How often the model is loaded.
const LOADS: usize = 5;

fn load(args: &BenchArgs, image: &[usize], bytes: bool, options: &SessionOptions) -> anyhow::Result<Load> {
    let options = SessionOptions { tune: 0.0, ..options.clone() };
    let mut baseline = args
        .against
        .as_ref()
        .map(|_| BaselineProcess::start(args, &noise(image, options.batch, bytes)?, &options))
        .transpose()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..LOADS {
        let start = Instant::now();
        Session::new(&read_model(&args.model, &args.network)?, image, &options)?;
        ours.push(start.elapsed().as_secs_f64());
        if let Some(baseline) = &mut baseline {
            theirs.push(baseline.request("load")?);
        }
    }
    let ratios: Vec<f64> = theirs.iter().zip(&ours).map(|(its, mine)| its / mine).collect();
    let median = |all: &[f64]| (!all.is_empty()).then(|| percentile(all, 0.5));
    Ok(Load { ours: percentile(&ours, 0.5), baseline: median(&theirs), ratio: median(&ratios) })
}

fn takes_bytes(model: &Model) -> bool {
    model.graph.inputs.first().is_some_and(|input| input.element == ElementType::Uint8)
}

fn noise(image: &[usize], batch: usize, bytes: bool) -> anyhow::Result<Tensor> {
    let &[channels, height, width] = image else { anyhow::bail!("images of shape {image:?}, three axes are needed") };
    // The axes are in the model's order already.
    Ok(gaussian(batch, [channels, height, width], &Preprocess { bytes, ..Preprocess::default() }, 0))
}
