//! No pruning.

use super::segment::{Build, plain};
use resprout::table::Entry;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "dense",
    about: "no pruning, whatever the sparsity; masks that the model brings along stay",
    paper: "",
    options: &[],
    build: |_, request| Ok(vec![plain(request.epochs)]),
};
