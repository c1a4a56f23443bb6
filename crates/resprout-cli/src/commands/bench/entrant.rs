//! Sessions that are measured in turns.

use super::baseline::BaselineProcess;
use super::plans::{LAYER_RUNS, break_even, plans};
use super::timing::{PAUSE, percentile, seconds, times, turn};
use crate::args::BenchArgs;
use crate::reports::bench::{BaselineTimes, BenchRow};
use anyhow::Context;
use resprout::model::Model;
use resprout::session::{Session, SessionOptions};
use resprout::tensor::Tensor;

/// A session that is measured in turns with others, and the baseline beside it.
pub struct Entrant {
    options: SessionOptions,
    session: Session,
    /// What the session computes of the images.
    first: Tensor,
    baseline: Option<BaselineProcess>,
    ours: Vec<f64>,
    theirs: Vec<f64>,
    ratios: Vec<f64>,
}

impl Entrant {
    /// With a baseline where one is named.
    pub fn new(args: &BenchArgs, mut session: Session, options: SessionOptions, images: &Tensor) -> anyhow::Result<Entrant> {
        let baseline = args.against.as_ref().map(|_| BaselineProcess::start(args, images, &options)).transpose()?;
        let first = session.run(images)?.swap_remove(0);
        Ok(Entrant { options, session, first, baseline, ours: Vec::new(), theirs: Vec::new(), ratios: Vec::new() })
    }

    /// One turn of the session, then one of the baseline.
    pub fn turn(&mut self, images: &Tensor) -> anyhow::Result<()> {
        if self.baseline.is_some() {
            std::thread::sleep(PAUSE);
        }
        let ours = turn(|| seconds(&mut self.session, images))?;
        if let Some(baseline) = &mut self.baseline {
            let theirs = turn(|| baseline.request("go"))?;
            self.ratios.push(percentile(&theirs, 0.5) / percentile(&ours, 0.5));
            self.theirs.extend(theirs);
        }
        self.ours.extend(ours);
        Ok(())
    }

    /// What the turns come to, with the further measurements that the options name.
    pub fn row(self, args: &BenchArgs, model: &Model, images: &Tensor) -> anyhow::Result<BenchRow> {
        let Entrant { options, mut session, first, baseline, ours, theirs, ratios } = self;
        let baseline = baseline.map(|baseline| {
            let same = args.baseline_model.is_none();
            anyhow::Ok(BaselineTimes {
                name: format!("onnxruntime {}", baseline.version),
                times: times(&theirs, options.batch),
                ratio: percentile(&ratios, 0.5),
                difference: if same { Some(baseline.difference(&first)?) } else { None },
            })
        });
        let peak = resprout_kernels::engine::peak(options.started_threads()).context("cannot start threads")?;
        Ok(BenchRow {
            batch: options.batch,
            threads: options.threads,
            microbatch: session.microbatch(),
            ours: times(&ours, options.batch),
            baseline: baseline.transpose()?,
            peak,
            layers: if args.layers { session.layers(LAYER_RUNS) } else { Vec::new() },
            plans: if args.plans { Some(plans(args, model, &mut session, images, &options)?) } else { None },
            break_even: if args.break_even { break_even(model, &images.shape[1..], &options)? } else { Vec::new() },
        })
    }
}
