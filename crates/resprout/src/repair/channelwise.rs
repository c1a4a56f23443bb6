//! One gain per output channel, without shrinkage.

use super::gains::{Shift, Spread, apply};
use super::layerwise::{CLAMP, SHIFT, clamp, shift};
use super::{Build, Repair, Stage};
use crate::calibrate::{Needs, Visitor, WeightSite};
use crate::error::Result;
use crate::table::Entry;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "channelwise",
    about: "multiplies each output channel's weights, so that it varies as much as the dense network's (naive matching); \
            where BatchNormalization was folded into weights this is its recalibration",
    paper: "Jordan et al., REPAIR, ICLR 2023, with the dense network as the goal",
    options: &[CLAMP, SHIFT],
    build: |options| Ok(Box::new(Channelwise { clamp: clamp(options)?, shift: shift(options)? })),
};

struct Channelwise {
    clamp: f64,
    shift: Shift,
}

impl Visitor for Channelwise {
    fn needs(&self) -> Needs {
        Needs { images: true, dense: true, weights: true, batch: None }
    }

    fn weights(&self, site: &mut WeightSite) -> Result<()> {
        let pair = site.pair()?;
        let spread = Spread::new(&pair);
        let gains: Vec<f64> = (0..spread.live.len()).map(|c| spread.channel(c).clamp(1.0 / self.clamp, self.clamp)).collect();
        apply(site, &pair, &gains, self.shift);
        Ok(())
    }
}

impl Repair for Channelwise {
    fn stage(&self) -> Stage {
        Stage::Weights
    }
}
