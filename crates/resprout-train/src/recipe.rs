//! Recipes: everything that determines the result of a run, in one file.

use crate::at_init::{self, ablation};
use crate::device;
use crate::error::option;
use crate::loader::Augment;
use crate::methods::{self, Before, MethodRequest, TrainSegment};
use crate::optimiser::Sgd;
use crate::rates;
use resprout::formats::atomic;
use resprout::lipschitz;
use resprout::model::PrunableRule;
use resprout::prune::PruneOptions;
use resprout::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The recipe's name in a run's folder.
pub const RECIPE: &str = "recipe.yaml";

/// A run's recipe. In a file, unknown keys are errors, and missing keys have the values of [`Recipe::default`]. Text names rows
/// of tables, with options after colons: `method: gmp:end=0.8`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// A row of [`ARCHITECTURES`](resprout::architectures::ARCHITECTURES); `None` with a model file. One of both is needed.
    pub arch: Option<String>,
    /// A model file (.onnx) in place of an architecture.
    pub model: Option<String>,
    /// A file of weights to start from: .safetensors, .pth, .pt or .th; `None` for fresh ones, or those of the model file.
    pub weights: Option<String>,
    /// How fresh weights are drawn: a row of [`INITS`](resprout::architectures::INITS).
    pub init: String,
    /// A folder of a known layout, a path of training images, or `digits` for the embedded ones.
    pub data: String,
    /// Test images, if the layout of `data` has none.
    pub test: Option<String>,
    /// The share of training images that is held out for validation, in [0, 1).
    pub validation: f64,
    /// Preprocessing preset; `None` for the preset of the images.
    pub preset: Option<String>,
    /// Random changes to training images.
    pub augment: Augment,
    /// When training prunes: a row of [`METHODS`](crate::methods::METHODS).
    pub method: String,
    /// Share of the prunable weights to remove, in [0, 1).
    pub sparsity: f64,
    /// How weights are scored: a row of [`CRITERIA`](resprout::criteria::CRITERIA) that needs no images.
    pub criterion: String,
    /// How many weights each layer keeps: a row of [`ALLOCATIONS`](resprout::allocation::ALLOCATIONS).
    pub allocation: String,
    /// Pruning before training, with `method: dense`: a row of [`AT_INIT`](crate::at_init::AT_INIT).
    pub prune_at_init: Option<String>,
    /// A sanity check of that pruning: a row of [`ABLATIONS`](crate::at_init::ablation::ABLATIONS).
    pub ablation: String,
    /// A repair before training and after pruning at initialisation: a row of
    /// [`INIT_REPAIRS`](resprout::lipschitz::INIT_REPAIRS).
    pub repair_init: String,
    /// Layers to leave dense, as [`PrunableRule::ignore`].
    pub ignore: Vec<String>,
    /// Whether depthwise and grouped convolutions are pruned too.
    pub include_grouped: bool,
    /// The epochs of the whole run.
    pub epochs: usize,
    /// Images per step, from 2 on.
    pub batch: usize,
    /// Initial learning rate, above 0.
    pub rate: f64,
    /// How the rate changes: a row of [`SCHEDULES`](crate::rates::SCHEDULES).
    pub schedule: String,
    /// Epochs of the initial linear rise of the rate.
    pub warm_up: f64,
    /// Share of the running sum of gradients that each step keeps, in [0, 1).
    pub momentum: f64,
    /// Whether the momentum is Nesterov's.
    pub nesterov: bool,
    /// Factor of the weights that is added to their gradient, from 0 on.
    pub weight_decay: f64,
    /// Whether biases and normalisation parameters decay too.
    pub decay_all: bool,
    /// The share of a target that is divided among all classes, in [0, 1).
    pub label_smoothing: f64,
    /// Seed of weights, order, augmentation and random masks.
    pub seed: u64,
    /// Where training runs: a row of [`DEVICES`](crate::device::DEVICES).
    pub device: String,
}

impl Default for Recipe {
    fn default() -> Recipe {
        Recipe {
            arch: None,
            model: None,
            weights: None,
            init: "kaiming-out".into(),
            data: "digits".into(),
            test: None,
            validation: 0.1,
            preset: None,
            augment: Augment::default(),
            method: "progressive".into(),
            sparsity: 0.9,
            criterion: "magnitude".into(),
            allocation: "global".into(),
            prune_at_init: None,
            ablation: "none".into(),
            repair_init: "none".into(),
            ignore: Vec::new(),
            include_grouped: false,
            epochs: 10,
            batch: 128,
            rate: 0.1,
            schedule: "cosine".into(),
            warm_up: 0.0,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 5e-4,
            decay_all: true,
            label_smoothing: 0.0,
            seed: 0,
            device: "cpu".into(),
        }
    }
}

impl Recipe {
    /// Reads YAML. Missing keys have their default.
    ///
    /// # Errors
    /// Of kind `Io`, and `Option` for unknown keys and for values of another type. [`check`](Self::check) checks values.
    pub fn read(path: &Path) -> Result<Recipe> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        serde_saphyr::from_str(&text).map_err(|e| option(format!("{}: {e}", path.display())))
    }

    /// The recipe as YAML with all keys.
    pub fn to_yaml(&self) -> Result<String> {
        serde_saphyr::to_string(self).map_err(|e| Error::new(ErrorKind::Io, format!("{RECIPE}: {e}")))
    }

    /// Writes YAML atomically.
    pub fn write(&self, path: &Path) -> Result<()> {
        atomic::write(path, self.to_yaml()?.as_bytes())
    }

    /// Fails on the first invalid value, with its name.
    ///
    /// # Errors
    /// Of kind `Option`.
    pub fn check(&self) -> Result<()> {
        match (&self.arch, &self.model) {
            (None, None) => return Err(option("arch or model: one of them is needed")),
            (Some(_), Some(_)) => return Err(option("arch and model: only one of them can be trained")),
            _ => {}
        }
        self.prune_options(self.sparsity, false).check_without_images()?;
        lipschitz::find(&self.repair_init)?;
        let with_weights = self.weights.is_some() || self.model.is_some();
        ablation::find(&self.ablation)?.check(&self.ablation, self.prune_at_init.is_some(), with_weights)?;
        device::check(&self.device)?;
        let share = |value: f64, name: &str| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => Err(option(format!("{name} {value}: a number from 0 up to, but not including, 1 is needed"))),
        };
        share(self.validation, "validation")?;
        share(self.label_smoothing, "label smoothing")?;
        share(self.momentum, "momentum")?;
        if !(self.rate > 0.0 && self.rate.is_finite()) {
            return Err(option(format!("rate {}: a number above 0 is needed", self.rate)));
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return Err(option(format!("weight decay {}: a number from 0 on is needed", self.weight_decay)));
        }
        if self.batch < 2 {
            return Err(option(format!("batch {}: at least 2 images are needed, for their variance", self.batch)));
        }
        rates::find(&self.schedule)?;
        for segment in self.segments()? {
            rates::check_warm_up(self.warm_up, segment.epochs)?;
        }
        Ok(())
    }

    /// The method's segments of training.
    pub fn segments(&self) -> Result<Vec<TrainSegment>> {
        let mut segments = methods::segments(&self.method, MethodRequest { epochs: self.epochs, sparsity: self.sparsity })?;
        if let Some(text) = &self.prune_at_init {
            at_init::find(text, self.sparsity)?;
            match &mut segments[..] {
                [TrainSegment { before: before @ Before::Nothing, ramp: None, .. }] => {
                    *before = Before::PruneAtInit(self.sparsity)
                }
                _ => {
                    return Err(option(format!(
                        "pruning at initialisation {text}: goes with the method dense, not with {}",
                        self.method
                    )));
                }
            }
        }
        Ok(segments)
    }

    /// The optimiser.
    pub fn optimiser(&self) -> Sgd {
        Sgd { momentum: self.momentum, nesterov: self.nesterov, weight_decay: self.weight_decay, decay_all: self.decay_all }
    }

    /// The options of one pruning to `sparsity`.
    pub fn prune_options(&self, sparsity: f64, at_random: bool) -> PruneOptions {
        PruneOptions {
            sparsity,
            criterion: if at_random { "random".into() } else { self.criterion.clone() },
            allocation: self.allocation.clone(),
            rule: PrunableRule { ignore: self.ignore.clone(), include_grouped: self.include_grouped },
            seed: self.seed,
            ..PruneOptions::default()
        }
    }
}
