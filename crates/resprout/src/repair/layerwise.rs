//! One gain per layer.

use super::gains::{Shift, Spread, apply};
use super::{Build, Repair, Stage};
use crate::calibrate::{Needs, Visitor, WeightSite};
use crate::error::Result;
use crate::table::{Entry, OptionSpec, Options};

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "layerwise",
    about: "multiplies each layer's weights by one factor, so that its output varies as much as the dense network's",
    paper: "the layer-wise baseline of Adaptive Signal Resuscitation; our reading: summed variances of the channels",
    options: &[CLAMP, SHIFT],
    build: |options| Ok(Box::new(Layerwise { clamp: clamp(options)?, shift: shift(options)? })),
};

/// An option of all variance repairs.
pub(super) const CLAMP: OptionSpec = OptionSpec { name: "clamp", about: "gains stay within 1/clamp and clamp", default: "10" };
/// An option of all variance repairs.
pub(super) const SHIFT: OptionSpec = OptionSpec {
    name: "shift",
    about: "whose mean is restored too: auto (layers without BatchNormalization behind), yes (all) or no",
    default: "auto",
};

pub(super) fn clamp(options: &Options) -> Result<f64> {
    options.parse("clamp", "a number from 1 on", |&c: &f64| c >= 1.0)
}

pub(super) fn shift(options: &Options) -> Result<Shift> {
    match options.text("shift") {
        "auto" => Ok(Shift::WithoutNorm),
        "yes" => Ok(Shift::Always),
        "no" => Ok(Shift::Never),
        _ => Err(options.error("shift", "auto, yes or no")),
    }
}

struct Layerwise {
    clamp: f64,
    shift: Shift,
}

impl Visitor for Layerwise {
    fn needs(&self) -> Needs {
        Needs { images: true, dense: true, weights: true, batch: None }
    }

    fn weights(&self, site: &mut WeightSite) -> Result<()> {
        let pair = site.pair()?;
        let spread = Spread::new(&pair);
        let gain = spread.layer().clamp(1.0 / self.clamp, self.clamp);
        let gains: Vec<f64> = spread.live.iter().map(|&live| if live { gain } else { 1.0 }).collect();
        apply(site, &pair, &gains, self.shift);
        Ok(())
    }
}

impl Repair for Layerwise {
    fn stage(&self) -> Stage {
        Stage::Weights
    }
}
