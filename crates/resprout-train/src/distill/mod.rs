//! The repair `distill`: trains what is left of a pruned network to compute what the dense one does, without labels.

mod batches;
mod blocks;
mod choice;
mod domain;
mod pair;
#[cfg(test)]
mod tests;
mod train;

use crate::error::{data, option};
use batches::Changes;
use resprout::calibrate::{Needs, Visitor};
use resprout::model::Model;
use resprout::progress::Progress;
use resprout::repair::{Build, NetworkRepair, Repair, RepairOptions, RepairOutcome, Rows, Stage};
use resprout::table::{Entry, OptionSpec, Options};
use resprout::tensor::Tensor;
use resprout::{ErrorKind, Result};

/// The repairs of this crate, to be handed to what reads names of repairs, such as
/// [`Sparsify::repair_rows`](resprout::sparsify::Sparsify::repair_rows).
pub static REPAIRS: Rows = &[ENTRY];

const ENTRY: Entry<Build> = Entry {
    name: "distill",
    about: "trains the surviving weights, scales and biases to match the dense network's outputs and blocks; statistics stay",
    paper: "Hinton, Vinyals, Dean, Distilling the knowledge in a neural network, 2015, without labels; block outputs as in Romero \
            et al., FitNets, ICLR 2015; scope=block after Li et al., BRECQ, ICLR 2021",
    options: &[
        OptionSpec { name: "steps", about: "the most training steps, in each step of pruning", default: "1500" },
        OptionSpec { name: "seconds", about: "about the most seconds, in each step of pruning; 0 for no limit", default: "0" },
        OptionSpec { name: "batch", about: "images per training step, from 2 on", default: "64" },
        OptionSpec { name: "rate", about: "the highest learning rate", default: "0.003" },
        OptionSpec { name: "temperature", about: "what logits are divided by", default: "2" },
        OptionSpec { name: "blocks", about: "weight of the block outputs' errors beside the logits' divergence", default: "1" },
        OptionSpec {
            name: "scope",
            about: "network, or block: one block after the other, each by its own output, the logits last",
            default: "network",
        },
        OptionSpec { name: "flip", about: "mirror images left to right: yes, no, or auto (of three channels)", default: "auto" },
        OptionSpec {
            name: "shift",
            about: "the most pixels of a shift, or auto (an eighth of the smaller side)",
            default: "auto",
        },
        OptionSpec { name: "mix", about: "share of images that are mixed with another one, from 0 to 1", default: "0.5" },
        OptionSpec {
            name: "domain",
            about: "check: no training on images far from those that the dense network knows; any: on all",
            default: "check",
        },
        OptionSpec { name: "seed", about: "order, changes and mixing of images", default: "0" },
    ],
    build: |options| Ok(Box::new(Distill::parse(options)?)),
};

/// The repair `distill`: trains the surviving weights, scales and biases of all layers to match the dense network on unlabelled
/// images. [`Sparsify::repair`](resprout::sparsify::Sparsify::repair) takes it, and
/// [`Distill::default`] has the values of the row.
///
/// Masks and the statistics of BatchNormalizations stay. An eighth of the images is held out, about 512 at most, from repairs
/// before it in the chain too. Of all states
/// that are judged by these images, the one that is nearest to the dense network is kept, and the start if none is nearer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Distill {
    /// The most training steps; from 1 on, 1500 by default.
    pub steps: usize,
    /// About the most seconds; `None` by default. With a limit the clock takes part, and results can differ between runs.
    pub seconds: Option<f64>,
    /// Images per training step; from 2 on, 64 by default.
    pub batch: usize,
    /// The highest learning rate of Adam, above 0; 0.003 by default.
    pub rate: f64,
    /// What logits of both networks are divided by, above 0; 2 by default.
    pub temperature: f64,
    /// Weight of the mean error of block outputs beside the logits' divergence; from 0 on, 1 by default.
    pub blocks: f64,
    /// Whether one block is trained after the other, each by its own output.
    pub by_block: bool,
    /// Whether images are mirrored left to right with probability 1/2; `None` for images of three channels.
    pub flip: Option<bool>,
    /// The most pixels of a shift; `None` for an eighth of the smaller side.
    pub shift: Option<usize>,
    /// Share of images that are mixed with another one, from 0 to 1; 0.5 by default.
    pub mix: f64,
    /// Whether images are trained on however far they are from those that the dense network was trained on. By default images
    /// beyond [`FAR`](resprout::calibrate::FAR) are not.
    pub any_domain: bool,
    /// Seed of order, changes and mixing.
    pub seed: u64,
}

impl Default for Distill {
    fn default() -> Distill {
        Distill {
            steps: 1500,
            seconds: None,
            batch: 64,
            rate: 3e-3,
            temperature: 2.0,
            blocks: 1.0,
            by_block: false,
            flip: None,
            shift: None,
            mix: 0.5,
            any_domain: false,
            seed: 0,
        }
    }
}

impl Distill {
    fn parse(options: &Options) -> Result<Distill> {
        let seconds: f64 = options.parse("seconds", "a number from 0 on", |&s: &f64| s >= 0.0 && s.is_finite())?;
        let positive = |name: &str| options.parse(name, "a number above 0", |&v: &f64| v > 0.0 && v.is_finite());
        let word = |name: &str, yes: &str, no: &str| match options.text(name) {
            text if text == yes => Ok(true),
            text if text == no => Ok(false),
            _ => Err(options.error(name, &format!("{yes} or {no}"))),
        };
        Ok(Distill {
            steps: options.parse("steps", "a number from 1 on", |&s: &usize| s > 0)?,
            seconds: (seconds > 0.0).then_some(seconds),
            batch: options.parse("batch", "a number of images from 2 on", |&b: &usize| b > 1)?,
            rate: positive("rate")?,
            temperature: positive("temperature")?,
            blocks: options.parse("blocks", "a number from 0 on", |&v: &f64| v >= 0.0 && v.is_finite())?,
            by_block: word("scope", "block", "network")?,
            flip: match options.text("flip") {
                "auto" => None,
                "yes" => Some(true),
                "no" => Some(false),
                _ => return Err(options.error("flip", "yes, no or auto")),
            },
            shift: match options.text("shift") {
                "auto" => None,
                _ => Some(options.parse("shift", "auto or a number of pixels", |_: &usize| true)?),
            },
            mix: options.parse("mix", "a number from 0 to 1", |v: &f64| (0.0..=1.0).contains(v))?,
            any_domain: word("domain", "any", "check")?,
            seed: options.parse("seed", "a number", |_: &u64| true)?,
        })
    }

    /// Fails on values that the fields do not allow.
    fn check(&self) -> Result<()> {
        let positive = |value: f64| value > 0.0 && value.is_finite();
        let numbers = positive(self.rate) && positive(self.temperature) && self.blocks >= 0.0 && self.blocks.is_finite();
        if self.steps == 0 || self.batch < 2 || !numbers || !(0.0..=1.0).contains(&self.mix) {
            return Err(option(format!("repair distill: {self:?}: one of these numbers is out of its range")));
        }
        Ok(())
    }

    /// How images `[C, H, W]` are changed. What is no image, or too small to be cut, is only mixed.
    fn changes(&self, image: &[usize]) -> Changes {
        let &[channels, height, width] = image else {
            return Changes { flip: false, shift: 0, mix: self.mix, cut: false };
        };
        let side = height.min(width);
        Changes {
            flip: self.flip.unwrap_or(channels == 3),
            shift: self.shift.unwrap_or(side / 8).min(side.saturating_sub(1)),
            mix: self.mix,
            cut: side > 1,
        }
    }
}

impl Visitor for Distill {
    fn needs(&self) -> Needs {
        Needs { images: true, ..Needs::default() }
    }
}

impl Repair for Distill {
    fn stage(&self) -> Stage {
        Stage::Network
    }

    fn network(&self) -> Option<&dyn NetworkRepair> {
        Some(self)
    }
}

/// The least number of images.
const FEWEST: usize = 16;
/// The most images that are held out, about.
const MOST_HELD_OUT: usize = 512;

impl NetworkRepair for Distill {
    fn repair(
        &self,
        model: &mut Model,
        dense: &Model,
        images: &Tensor,
        options: &RepairOptions,
        progress: &dyn Progress,
    ) -> Result<RepairOutcome> {
        self.check()?;
        let named = |e: resprout::Error| if e.kind() == ErrorKind::Interrupted { e } else { e.at("repair distill") };
        train::train(self, model, dense, images, options, progress).map_err(named)
    }

    fn holds_out(&self, images: usize) -> Option<usize> {
        (images >= FEWEST).then(|| every(images))
    }
}

/// Every so many-th image is held out: every eighth, or fewer of many.
fn every(images: usize) -> usize {
    8.max(images / MOST_HELD_OUT)
}

/// The images for training and those held out.
fn split(images: &Tensor) -> Result<(Tensor, Tensor)> {
    let count = images.shape.first().copied().unwrap_or(0);
    if count < FEWEST {
        return Err(data(format!("{count} calibration images; at least {FEWEST} are needed, every eighth to judge by")));
    }
    Ok(images.hold_out(every(count)))
}
