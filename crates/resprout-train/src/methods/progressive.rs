//! Sparsity that rises during one run of training: progressive (linear) and GMP (cubic).

use super::segment::{Build, MethodRequest, Ramp, TrainSegment, plain};
use crate::error::option;
use resprout::Result;
use resprout::table::{Entry, OptionSpec, Options};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "start", about: "share of training at which the sparsity starts to rise, in [0, 1)", default: "0" },
    OptionSpec { name: "end", about: "share of training at which it is reached, in (start, 1]", default: "0.6" },
    OptionSpec { name: "every", about: "epochs between two prunings, above 0", default: "1" },
];

pub(super) const PROGRESSIVE: Entry<Build> = Entry {
    name: "progressive",
    about: "the sparsity rises along a straight line; the smallest of the active weights go and never return",
    paper: "Qureshi, Benhidour, Kerrache, Aljeraisy, Finding sparse subnetworks in one training cycle via progressive \
            magnitude-based pruning, arXiv 2606.12278",
    options: OPTIONS,
    build: |options, request| build(options, request, 1),
};

pub(super) const GMP: Entry<Build> = Entry {
    name: "gmp",
    about: "gradual magnitude pruning: the sparsity rises as s (1 - (1 - t)^3)",
    paper: "Zhu, Gupta, To prune, or not to prune, ICLR workshop 2018",
    options: OPTIONS,
    build: |options, request| build(options, request, 3),
};

fn build(options: &Options, request: MethodRequest, power: i32) -> Result<Vec<TrainSegment>> {
    let start: f64 = options.parse("start", "a number in [0, 1)", |s| (0.0..1.0).contains(s))?;
    let end: f64 = options.parse("end", "a number in (0, 1]", |&e| e > 0.0 && e <= 1.0)?;
    let every: f64 = options.parse("every", "a number above 0", |&e: &f64| e > 0.0 && e.is_finite())?;
    if end <= start {
        return Err(option(format!(
            "method: the sparsity would be reached (end={end}) before it starts to rise (start={start})"
        )));
    }
    let epochs = request.epochs as f64;
    let ramp = Ramp { sparsity: request.sparsity, start: start * epochs, end: end * epochs, every, power };
    Ok(vec![TrainSegment { ramp: Some(ramp), ..plain(request.epochs) }])
}
