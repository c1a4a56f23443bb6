//! No repair.

use super::{Build, Repair, Stage};
use crate::calibrate::{Needs, Visitor};
use crate::table::Entry;

pub(super) const ENTRY: Entry<Build> =
    Entry { name: "none", about: "nothing; needs no images", paper: "baseline", options: &[], build: |_| Ok(Box::new(Nothing)) };

struct Nothing;

impl Visitor for Nothing {
    fn needs(&self) -> Needs {
        Needs::default()
    }
}

impl Repair for Nothing {
    fn stage(&self) -> Stage {
        Stage::Weights
    }
}
