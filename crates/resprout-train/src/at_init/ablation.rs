//! Sanity checks of pruning at initialisation: which property of a mask carries the result.

use super::method::{Input, Method, Scores};
use super::prune::prune_at_init;
use crate::error::option;
use resprout::Result;
use resprout::architectures::redraw;
use resprout::model::{Mask, MaskTable, Model};
use resprout::progress::Progress;
use resprout::prune::PruneOptions;
use resprout::random::SplitMix64;
use resprout::select;
use resprout::table::{self, Entry};

/// A stream of random numbers that neither weights nor batches use.
const SHUFFLE: u64 = 1 << 40;

/// The parameters of one pruning at initialisation, as [`prune_at_init`] takes them.
pub struct Pruning<'a> {
    /// How weights are scored.
    pub method: &'a Method,
    /// Sparsity, allocation, layers.
    pub options: &'a PruneOptions,
    /// Images, device, seed.
    pub input: &'a Input<'a>,
    /// How weights are drawn again: a row of [`INITS`](resprout::architectures::INITS).
    pub init: &'a str,
}

type Run = fn(&mut Model, &Pruning, &dyn Progress) -> Result<Scores>;

/// A check: a change to the masks that a method finds.
pub struct Ablation {
    /// Whether it needs trained weights: with fresh ones it equals the plain method.
    pub needs_weights: bool,
    run: Run,
}

const PAPER: &str = "Frankle et al., Pruning neural networks at initialization: why are we missing the mark?, ICLR 2021";

/// All checks.
pub static ABLATIONS: &[Entry<Ablation>] = &[
    Entry {
        name: "none",
        about: "masks and weights as the method leaves them",
        paper: "baseline",
        options: &[],
        build: Ablation { needs_weights: false, run: |model, pruning, progress| pruning.prune(model, progress) },
    },
    Entry {
        name: "reinit",
        about: "the masks, on weights that are drawn anew with the next seed",
        paper: PAPER,
        options: &[],
        build: Ablation { needs_weights: false, run: reinit },
    },
    Entry {
        name: "original",
        about: "the masks, on the weights from before a method rescaled them (resynflow)",
        paper: "RePaIR (pruning at initialisation), the author's code",
        options: &[],
        build: Ablation { needs_weights: false, run: original },
    },
    Entry {
        name: "shuffle",
        about: "each layer's mask in random order, on the weights from before",
        paper: PAPER,
        options: &[],
        build: Ablation { needs_weights: false, run: shuffle },
    },
    Entry {
        name: "ratios",
        about: "each layer's density as the method finds it on fresh weights, by magnitude on the given (trained) weights",
        paper: "RePaIR (pruning at initialisation), the author's code",
        options: &[],
        build: Ablation { needs_weights: true, run: ratios },
    },
];

/// Finds a check, a row of [`ABLATIONS`], by its name.
///
/// # Errors
/// Of kind `Option`.
pub fn find(name: &str) -> Result<&'static Ablation> {
    table::find(ABLATIONS, "ablation", name).map(|(entry, _)| &entry.build)
}

impl Ablation {
    /// Fails if the check of this name lacks what it needs. `pruned`: there is a pruning at initialisation. `with_weights`: the
    /// network's weights are trained.
    ///
    /// # Errors
    /// Of kind `Option`.
    pub fn check(&self, name: &str, pruned: bool, with_weights: bool) -> Result<()> {
        if name != "none" && !pruned {
            return Err(option(format!("ablation {name}: goes with pruning at initialisation, and there is none")));
        }
        if self.needs_weights && !with_weights {
            return Err(option(format!("ablation {name}: needs trained weights, and the network's are fresh")));
        }
        Ok(())
    }

    /// Prunes `model` in place and returns the method's last scores.
    ///
    /// # Errors
    /// As [`prune_at_init`].
    pub fn prune(&self, model: &mut Model, pruning: &Pruning, progress: &dyn Progress) -> Result<Scores> {
        (self.run)(model, pruning, progress)
    }
}

impl Pruning<'_> {
    fn prune(&self, model: &mut Model, progress: &dyn Progress) -> Result<Scores> {
        prune_at_init(model, self.method, self.options, self.input, progress)
    }
}

fn reinit(model: &mut Model, pruning: &Pruning, progress: &dyn Progress) -> Result<Scores> {
    let scores = pruning.prune(model, progress)?;
    redraw(model, pruning.init, pruning.input.seed.wrapping_add(1))?;
    Ok(scores)
}

fn original(model: &mut Model, pruning: &Pruning, progress: &dyn Progress) -> Result<Scores> {
    let before = model.clone();
    let scores = pruning.prune(model, progress)?;
    let masks = std::mem::take(&mut model.masks);
    restore(model, before, masks);
    Ok(scores)
}

fn shuffle(model: &mut Model, pruning: &Pruning, progress: &dyn Progress) -> Result<Scores> {
    let before = model.clone();
    let scores = pruning.prune(model, progress)?;
    let mut masks = MaskTable::default();
    for (index, (name, mask)) in model.masks.iter().enumerate() {
        let mut kept = mask.0.clone();
        SplitMix64::new(pruning.input.seed, SHUFFLE + index as u64).shuffle(&mut kept);
        masks.insert(name.to_string(), Mask(kept));
    }
    restore(model, before, masks);
    Ok(scores)
}

fn ratios(model: &mut Model, pruning: &Pruning, progress: &dyn Progress) -> Result<Scores> {
    let mut fresh = model.clone();
    redraw(&mut fresh, pruning.init, pruning.input.seed)?;
    let scores = pruning.prune(&mut fresh, progress)?;
    for (name, mask) in fresh.masks.iter() {
        let sizes: Vec<f64> = model.weight(name)?.data.iter().map(|weight| f64::from(weight.abs())).collect();
        let mask = select::mask(&sizes, mask.kept());
        model.masks.insert(name.to_string(), mask);
    }
    model.apply_masks();
    Ok(scores)
}

/// Restores the weights from before, under new masks.
fn restore(model: &mut Model, before: Model, masks: MaskTable) {
    *model = before;
    model.masks = masks;
    model.apply_masks();
}
