//! What acts or measures at the layers of a walk.

use super::needs::Needs;
use super::outline::Outline;
use super::site::{NormSite, WeightSite};
use crate::error::Result;
use crate::model::Model;

/// Acts at each layer, before the layer's output in the pruned network is final. Layers come in the order of the graph, and the
/// layers behind read what it has changed.
///
/// Pruned weights stay zero, whatever a visitor writes. A visitor that changes a [`WeightSite`] calls [`WeightSite::touch`];
/// without it, its changes are lost. One that changes a [`NormSite`] sets [`NormSite::changed`], so that the outcome counts it.
pub trait Visitor: Sync + Send {
    /// What it needs of the walk. Nothing else is there: [`WeightSite::pair`] fails without [`Needs::dense`].
    fn needs(&self) -> Needs;

    /// What it needs for this network, if that is less than for others.
    fn needs_for(&self, _model: &Model) -> Needs {
        self.needs()
    }

    /// The estimated seconds of [`weights`](Visitor::weights) at a layer, beyond reading the layer's outputs. Time limits and
    /// progress go by it.
    fn seconds(&self, _layer: &Outline) -> f64 {
        0.0
    }

    /// Acts at a Conv, Gemm or MatMul with weights. It is called if [`Needs::weights`] is set, and not for weights that several
    /// layers share.
    fn weights(&self, _site: &mut WeightSite) -> Result<()> {
        Ok(())
    }

    /// Acts at a BatchNormalization.
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
