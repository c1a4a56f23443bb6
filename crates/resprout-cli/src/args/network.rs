//! Options that name a network: its file, its architecture, its weights.

use clap::Args;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Where a network comes from, besides its file.
#[derive(Args, Debug, Clone)]
pub struct NetworkArgs {
    /// The architecture that a file of weights alone belongs to (see `resprout list`)
    #[arg(long, value_name = "NAME")]
    pub arch: Option<String>,
    /// Its number of classes [default: the architecture's]
    #[arg(long, value_name = "N", requires = "arch")]
    pub classes: Option<NonZeroUsize>,
    /// Replace the model's weights by these: .safetensors (with masks), .pth, .pt or .th
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Compute weights that an ONNX file makes of constants (weight normalisation, masks, quantised weights), so that
    /// they can be pruned; the file that is written holds the result
    #[arg(long)]
    pub fold_weights: bool,
}

impl NetworkArgs {
    /// The same network with the weights of its own file.
    pub fn without_weights(&self) -> NetworkArgs {
        NetworkArgs { weights: None, ..self.clone() }
    }
}

/// A model file, or an architecture with weights of a file or fresh ones.
#[derive(Args, Debug)]
pub struct SourceArgs {
    /// The model, .onnx, or its weights with --arch; without one, --arch gets fresh weights
    #[arg(required_unless_present = "arch")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub network: NetworkArgs,
    /// How fresh weights are drawn (see `resprout list`) [default: kaiming-out]
    #[arg(long, value_name = "NAME")]
    pub init: Option<String>,
    /// Seed of fresh weights
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
}

impl SourceArgs {
    /// How fresh weights are drawn.
    pub fn init(&self) -> &str {
        self.init.as_deref().unwrap_or("kaiming-out")
    }
}
