//! No repair: what pruning alone leaves.

use super::{Build, Repair, RepairOutcome};
use crate::error::Result;
use crate::model::Model;
use crate::progress::Progress;
use crate::table::Entry;
use crate::tensor::Tensor;

pub(super) const ENTRY: Entry<Build> =
    Entry { name: "none", about: "nothing; needs no images", paper: "baseline", options: &[], build: |_| Ok(Box::new(Nothing)) };

struct Nothing;

impl Repair for Nothing {
    fn needs_images(&self) -> bool {
        false
    }

    fn repair(&self, _model: &mut Model, _images: &Tensor, _progress: &dyn Progress) -> Result<RepairOutcome> {
        Ok(RepairOutcome::default())
    }
}
