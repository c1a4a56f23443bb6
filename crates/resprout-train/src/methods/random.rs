//! Pruning at random before training.

use super::segment::{Before, Build, TrainSegment, plain};
use resprout::table::Entry;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "random",
    about: "random weights are pruned before training, as many per layer as the allocation says",
    paper: "the control that every method must beat",
    options: &[],
    build: |_, request| Ok(vec![TrainSegment { before: Before::PruneAtRandom(request.sparsity), ..plain(request.epochs) }]),
};
