//! Bias correction: restores the means that pruning has shifted.

use super::gains::{Shift, apply};
use super::{Build, Repair, Stage};
use crate::calibrate::{Needs, NormSite, Visitor, WeightSite};
use crate::error::Result;
use crate::table::Entry;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "bias",
    about: "gives every channel the dense network's mean, by its bias or its BatchNormalization's running mean",
    paper: "bias correction as in Nagel et al., Data-free quantization, ICCV 2019, with measured means",
    options: &[],
    build: |_| Ok(Box::new(Bias)),
};

struct Bias;

impl Visitor for Bias {
    fn needs(&self) -> Needs {
        Needs { images: true, dense: true, weights: true, batch: None }
    }

    fn weights(&self, site: &mut WeightSite) -> Result<()> {
        shift(site)
    }

    fn norm(&self, site: &mut NormSite) -> Result<()> {
        let pair = site.pair()?;
        for (c, mean) in site.params.mean.iter_mut().enumerate() {
            *mean += pair.sparse.mean[c] - pair.dense.mean[c];
        }
        site.changed = true;
        Ok(())
    }
}

/// Shifts the means of a layer without BatchNormalization. A BatchNormalization is corrected at its own site.
pub(super) fn shift(site: &mut WeightSite) -> Result<()> {
    if site.norm.is_none() && site.bias.is_some() {
        let pair = site.pair()?;
        let gains = vec![1.0; site.weights.rows];
        apply(site, &pair, &gains, Shift::WithoutNorm);
    }
    Ok(())
}

impl Repair for Bias {
    fn stage(&self) -> Stage {
        Stage::Statistics
    }
}
