//! Training, one pruning, and fine-tuning.

use super::segment::{Before, Build, TrainSegment, plain};
use crate::error::option;
use resprout::table::{Entry, OptionSpec};

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "one-shot",
    about: "dense training with its whole schedule, one pruning, and fine-tuning with a schedule of its own",
    paper: "Han, Pool, Tran, Dally, Learning both weights and connections, NeurIPS 2015",
    options: &[
        OptionSpec { name: "at", about: "share of the epochs before the pruning, in (0, 1)", default: "0.6" },
        OptionSpec { name: "rate", about: "factor of the learning rate in fine-tuning, above 0", default: "0.1" },
    ],
    build: |options, request| {
        let at: f64 = options.parse("at", "a number in (0, 1)", |&at| at > 0.0 && at < 1.0)?;
        let rate: f64 = options.parse("rate", "a number above 0", |&r: &f64| r > 0.0 && r.is_finite())?;
        let dense = ((at * request.epochs as f64).round() as usize).max(1);
        let rest = request.epochs.checked_sub(dense).filter(|&rest| rest > 0);
        let rest =
            rest.ok_or_else(|| option(format!("method one-shot: {} epochs leave none for fine-tuning", request.epochs)))?;
        Ok(vec![plain(dense), TrainSegment { rate, before: Before::Prune(request.sparsity), ..plain(rest) }])
    },
};
