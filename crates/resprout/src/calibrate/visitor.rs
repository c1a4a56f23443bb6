//! What acts or measures at the layers of a walk.

use super::needs::Needs;
use super::outline::Outline;
use super::site::{NormSite, WeightSite};
use crate::error::Result;
use crate::model::Model;

/// Acts at each layer, before the layer's output in the pruned network is final.
pub trait Visitor: Sync + Send {
    /// What it needs.
    fn needs(&self) -> Needs;

    /// What it needs for this network.
    fn needs_for(&self, _model: &Model) -> Needs {
        self.needs()
    }

    /// The estimated seconds of [`weights`](Visitor::weights) at a layer, beyond reading the layer's outputs.
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

impl Needs {
    /// The combined needs of all visitors, for this network.
    pub fn of(visitors: &[&dyn Visitor], model: &Model) -> Needs {
        visitors.iter().map(|visitor| visitor.needs_for(model)).fold(Needs::default(), |all, needs| Needs {
            images: all.images || needs.images,
            dense: all.dense || needs.dense,
            weights: all.weights || needs.weights,
            batch: all.batch.or(needs.batch),
        })
    }
}
