//! What can act or measure at the layers of a walk.

use super::{NormSite, Outline, WeightSite};
use crate::error::Result;
use crate::model::Model;

/// What a visitor asks of the walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Calibration images.
    pub images: bool,
    /// The dense network beside the pruned one.
    pub dense: bool,
    /// To be called at layers with weights.
    pub weights: bool,
    /// Images that are normalised together, where a batch's own statistics matter.
    pub batch: Option<usize>,
}

impl Needs {
    /// What all of them need together for this network.
    pub fn of(visitors: &[&dyn Visitor], model: &Model) -> Needs {
        visitors.iter().map(|visitor| visitor.needs_for(model)).fold(Needs::default(), |all, needs| Needs {
            images: all.images || needs.images,
            dense: all.dense || needs.dense,
            weights: all.weights || needs.weights,
            batch: all.batch.or(needs.batch),
        })
    }
}

/// Is called at each layer before the layer's output in the pruned network is final.
pub trait Visitor: Sync + Send {
    /// What it needs.
    fn needs(&self) -> Needs;

    /// What it needs for this network, where that depends on it.
    fn needs_for(&self, _model: &Model) -> Needs {
        self.needs()
    }

    /// About how many seconds [`weights`](Visitor::weights) takes at a layer, where that is more than looking at its outputs.
    fn seconds(&self, _layer: &Outline) -> f64 {
        0.0
    }

    /// At a Conv, Gemm or MatMul with weights.
    fn weights(&self, _site: &mut WeightSite) -> Result<()> {
        Ok(())
    }

    /// At a BatchNormalization.
    fn norm(&self, _site: &mut NormSite) -> Result<()> {
        Ok(())
    }
}
