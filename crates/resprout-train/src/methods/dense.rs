//! No pruning.

use super::{Build, plain};
use resprout::table::Entry;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "dense",
    about: "no pruning, whatever the sparsity asked for; masks that the model brings along stay",
    paper: "",
    options: &[],
    build: |_, ask| Ok(vec![plain(ask.epochs)]),
};
