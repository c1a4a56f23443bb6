//! Options of `train` and `score`.

use super::network::SourceArgs;
use clap::Args;
use std::num::NonZeroUsize;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct ScoreArgs {
    /// Where to write the pruned model: .safetensors (weights and masks), .onnx or .pth
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub source: SourceArgs,
    /// Write the last round's scores too, .safetensors
    #[arg(long, value_name = "FILE")]
    pub scores: Option<PathBuf>,
    /// How it scores (see `resprout list`, pruning at initialisation); options as name:option=value
    #[arg(long, default_value = "synflow", value_name = "NAME")]
    pub method: String,
    /// Share of the prunable weights to remove
    #[arg(short, long, default_value_t = 0.9, value_name = "S", allow_negative_numbers = true)]
    pub sparsity: f64,
    /// How many weights each layer keeps (see `resprout list`)
    #[arg(long, default_value = "global", value_name = "NAME")]
    pub allocation: String,
    /// Leave these layers dense: name of a layer or weight, or re:REGEX; may be given several times
    #[arg(long, value_name = "NAME")]
    pub ignore: Vec<String>,
    /// Prune depthwise and grouped convolutions too
    #[arg(long)]
    pub include_grouped: bool,
    /// A check of what matters about the pruning (see `resprout list`)
    #[arg(long, default_value = "none", value_name = "NAME")]
    pub ablation: String,
    /// What is done to the weights that are left (see `resprout list`, repairs at initialisation)
    #[arg(long, default_value = "none", value_name = "NAME")]
    pub repair_init: String,
    /// Labelled images, for methods that look at any: a folder of a known layout, a path of images, or digits
    #[arg(long, value_name = "PATH")]
    pub data: Option<String>,
    /// Preprocessing (see `resprout list`) [default: chosen by the images' size]
    #[arg(long, value_name = "NAME", requires = "data")]
    pub preset: Option<String>,
    /// Images per batch [default: 128]
    #[arg(short, long, value_name = "N", requires = "data")]
    pub batch: Option<NonZeroUsize>,
    /// Channels, height and width of an image [default: those of the images, the model or the architecture]
    #[arg(long, value_name = "C,H,W", value_delimiter = ',', conflicts_with = "data")]
    pub input_shape: Option<Vec<usize>>,
    /// Where it runs (see `resprout list`)
    #[arg(long, default_value = "cpu", value_name = "NAME")]
    pub device: String,
    /// Write the report as JSON; - prints it instead of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct TrainArgs {
    /// A recipe, .yaml; options given beside it win
    pub recipe: Option<PathBuf>,
    /// The run's folder
    #[arg(short, long, value_name = "FOLDER", required_unless_present = "bench")]
    pub output: Option<PathBuf>,
    /// Time single steps instead, layer by layer, of the dense network and the pruned one; nothing is written [default: 5 rounds]
    #[arg(long, value_name = "ROUNDS", num_args = 0..=1, require_equals = true, default_missing_value = "5", conflicts_with_all = ["output", "resume"])]
    pub bench: Option<NonZeroUsize>,
    /// Go on from the folder's last checkpoint, or begin if there is none
    #[arg(long)]
    pub resume: bool,
    /// Threads that load images; the result does not depend on it
    #[arg(long, default_value = "2", value_name = "N")]
    pub workers: NonZeroUsize,
    #[command(flatten)]
    pub overrides: RecipeArgs,
    /// Write the report as JSON; - prints it instead of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Every key of a recipe. What is not given keeps the recipe's value, or the default shown.
#[derive(Args, Debug)]
pub struct RecipeArgs {
    /// Architecture (see `resprout list`)
    #[arg(long, value_name = "NAME")]
    pub arch: Option<String>,
    /// A model to train instead, .onnx
    #[arg(long, value_name = "FILE")]
    pub model: Option<String>,
    /// Weights to start from: .safetensors, .pth, .pt or .th
    #[arg(long, value_name = "FILE")]
    pub weights: Option<String>,
    /// How fresh weights are drawn (see `resprout list`) [default: kaiming-out]
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    pub init: Option<String>,
    /// How it prunes before training (see `resprout list`); the method is then dense [default: it does not]
    #[arg(long, value_name = "NAME")]
    pub prune_at_init: Option<String>,
    /// A check of what matters about that pruning (see `resprout list`) [default: none]
    #[arg(long, value_name = "NAME")]
    pub ablation: Option<String>,
    /// What is done to weights before training, after any pruning there (see `resprout list`) [default: none]
    #[arg(long, value_name = "NAME")]
    pub repair_init: Option<String>,
    /// A folder of a known layout (see `resprout list`), a path of training images, or digits [default: digits]
    #[arg(long, value_name = "PATH")]
    pub data: Option<String>,
    /// Test images, where the folder's layout does not tell
    #[arg(long, value_name = "PATH")]
    pub test: Option<String>,
    /// Share of the training images kept apart to choose the best epoch by [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    pub validation: Option<f64>,
    /// Preprocessing (see `resprout list`) [default: chosen by the images' size]
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Cut training images at random out of a black border of this many pixels [default: 0]
    #[arg(long, value_name = "PIXELS")]
    pub crop: Option<usize>,
    /// Mirror every second training image
    #[arg(long)]
    pub flip: bool,
    /// When it prunes (see `resprout list`); options as name:option=value [default: progressive]
    #[arg(long, value_name = "NAME")]
    pub method: Option<String>,
    /// Share of the prunable weights to remove [default: 0.9]
    #[arg(short, long, value_name = "S", allow_negative_numbers = true)]
    pub sparsity: Option<f64>,
    /// How weights are scored (see `resprout list`) [default: magnitude]
    #[arg(long, value_name = "NAME")]
    pub criterion: Option<String>,
    /// How many weights each layer keeps (see `resprout list`) [default: global]
    #[arg(long, value_name = "NAME")]
    pub allocation: Option<String>,
    /// Leave these layers dense: name of a layer or weight, or re:REGEX; may be given several times
    #[arg(long, value_name = "NAME")]
    pub ignore: Vec<String>,
    /// Prune depthwise and grouped convolutions too
    #[arg(long)]
    pub include_grouped: bool,
    /// All epochs of the run together [default: 10]
    #[arg(short, long, value_name = "N")]
    pub epochs: Option<usize>,
    /// Images per step [default: 128]
    #[arg(short, long, value_name = "N")]
    pub batch: Option<usize>,
    /// Initial learning rate [default: 0.1]
    #[arg(short, long, value_name = "R")]
    pub rate: Option<f64>,
    /// How the rate changes (see `resprout list`) [default: cosine]
    #[arg(long, value_name = "NAME")]
    pub schedule: Option<String>,
    /// Epochs over which the rate rises at first [default: 0]
    #[arg(long, value_name = "EPOCHS")]
    pub warm_up: Option<f64>,
    /// Momentum [default: 0.9]
    #[arg(long, value_name = "M")]
    pub momentum: Option<f64>,
    /// Let the momentum look ahead
    #[arg(long)]
    pub nesterov: bool,
    /// Weight decay [default: 0.0005]
    #[arg(long, value_name = "D")]
    pub weight_decay: Option<f64>,
    /// Whether biases and normalisation parameters decay too [default: true]
    #[arg(long, value_name = "BOOL")]
    pub decay_all: Option<bool>,
    /// Share of a target that is spread over all classes [default: 0]
    #[arg(long, value_name = "SHARE")]
    pub label_smoothing: Option<f64>,
    /// Seed of weights, order, augmentation and random masks [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Where it runs (see `resprout list`) [default: cpu]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
}

impl RecipeArgs {
    /// Sets what was given.
    pub fn apply(&self, recipe: &mut resprout_train::recipe::Recipe) {
        macro_rules! set {
            ($($key:ident),*) => { $(if let Some(value) = &self.$key { recipe.$key = value.clone(); })* };
        }
        macro_rules! set_some {
            ($($key:ident),*) => { $(if self.$key.is_some() { recipe.$key.clone_from(&self.$key); })* };
        }
        set_some!(arch, model, weights, test, preset, prune_at_init);
        set!(init, ablation, repair_init, data, validation, method, sparsity, criterion, allocation, epochs, batch, rate);
        set!(schedule, warm_up, momentum, weight_decay, decay_all, label_smoothing, seed, device);
        // The two ways to name a network exclude each other; what is typed wins.
        if self.arch.is_some() {
            recipe.model.clone_from(&self.model);
        } else if self.model.is_some() {
            recipe.arch = None;
        }
        if self.prune_at_init.is_some() && self.method.is_none() {
            recipe.method = "dense".into();
        }
        if let Some(crop) = self.crop {
            recipe.augment.crop = crop;
        }
        if !self.ignore.is_empty() {
            recipe.ignore.clone_from(&self.ignore);
        }
        recipe.augment.flip |= self.flip;
        recipe.nesterov |= self.nesterov;
        recipe.include_grouped |= self.include_grouped;
    }
}
