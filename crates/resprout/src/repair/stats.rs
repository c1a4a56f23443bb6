//! Restores mean and standard deviation of the outputs of BatchNormalizations.

use super::gains::{Shift, Spread, apply};
use super::{Build, Repair, Stage};
use crate::calibrate::{Needs, NormSite, PairStats, Visitor, WeightSite};
use crate::error::Result;
use crate::table::Entry;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "stats",
    about: "gives every output of a BatchNormalization (or of a layer without one) the dense network's mean and deviation",
    paper: "the statistics correction of Frantar and Alistarh, Optimal Brain Compression, NeurIPS 2022",
    options: &[],
    build: |_| Ok(Box::new(Stats)),
};

struct Stats;

impl Visitor for Stats {
    fn needs(&self) -> Needs {
        Needs { images: true, dense: true, weights: true, batch: None }
    }

    fn weights(&self, site: &mut WeightSite) -> Result<()> {
        if site.norm.is_none() {
            let pair = site.pair()?;
            let spread = Spread::new(&pair);
            let gains: Vec<f64> = (0..spread.live.len()).map(|c| spread.channel(c)).collect();
            apply(site, &pair, &gains, Shift::WithoutNorm);
        }
        Ok(())
    }

    fn norm(&self, site: &mut NormSite) -> Result<()> {
        let pair = outputs(site, &site.pair()?)?;
        let spread = Spread::new(&pair);
        let gains: Vec<f64> = (0..spread.live.len()).map(|c| spread.channel(c)).collect();
        match_outputs(site, &pair, &gains);
        Ok(())
    }
}

impl Repair for Stats {
    fn stage(&self) -> Stage {
        Stage::Affine
    }
}

/// The statistics of a BatchNormalization's outputs in both networks, from those of its inputs.
pub(super) fn outputs(site: &NormSite, inputs: &PairStats) -> Result<PairStats> {
    let affine = |norm: &crate::calibrate::NormParams| {
        let each = |value: &dyn Fn(usize) -> f64| (0..norm.channels()).map(value).collect::<Vec<f64>>();
        (each(&|c| norm.scale(c)), each(&|c| norm.shift(c)))
    };
    let dense = site.dense_params.as_ref().unwrap_or(&site.params);
    Ok(super::gains::transformed(inputs, affine(dense), affine(&site.params)))
}

/// Sets scale and shift so that `y' = gain * (y - mean of y) + mean of the dense y`.
pub(super) fn match_outputs(site: &mut NormSite, outputs: &PairStats, gains: &[f64]) {
    let params = &mut site.params;
    for (c, &gain) in gains.iter().enumerate() {
        params.gamma[c] *= gain;
        params.beta[c] = gain * (params.beta[c] - outputs.sparse.mean[c]) + outputs.dense.mean[c];
    }
    site.changed = true;
}
