//! Repairs: what is done to a pruned network with unlabelled images.
//!
//! A repair receives images only, never labels: label-free by type.

mod batch_norm;
mod none;

use crate::error::Result;
use crate::model::Model;
use crate::progress::Progress;
use crate::table::{Entry, Options};
use crate::tensor::Tensor;

/// What a repair did and what the user should know about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RepairOutcome {
    /// The number of layers that were changed.
    pub changed: usize,
    /// Warnings, each naming the layer.
    pub warnings: Vec<String>,
}

/// Changes parameters of a pruned network so that it works again.
pub trait Repair: Sync {
    /// Whether it needs calibration images.
    fn needs_images(&self) -> bool;
    /// Repairs the model; `images: [N, C, H, W]`, preprocessed. Pruned weights stay zero.
    fn repair(&self, model: &mut Model, images: &Tensor, progress: &dyn Progress) -> Result<RepairOutcome>;
}

/// Builds a repair from its options.
pub type Build = fn(&Options) -> Result<Box<dyn Repair>>;

/// All repairs.
pub static REPAIRS: &[Entry<Build>] = &[none::ENTRY, batch_norm::ENTRY];
