//! Prunes a network to a tenth of its weights, and writes it.
//!
//! ```console
//! cargo run --release -p resprout --example prune -- model.onnx sparse.onnx
//! ```
//!
//! No image is needed: the magnitude of the weights decides. Without arguments the digit network of this repository is
//! pruned, and nothing is written. The example `repair` restores what pruning breaks.

use resprout::Result;
use resprout::allocation::Erk;
use resprout::model::Model;
use resprout::sparsify::{Budget, Sparsified, Sparsify};
use resprout::tensor::Tensor;
use std::path::{Path, PathBuf};

fn main() -> Result<()> {
    let mut files = std::env::args().skip(1).map(PathBuf::from);
    let digits = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../resprout-cli/assets/digits.onnx");
    let dense = Model::open(files.next().unwrap_or_else(digits))?;
    let sparse = prune(&dense)?;
    for (layer, kept) in sparse.outcome.layers.iter().zip(&sparse.outcome.kept) {
        println!("{}: {kept} of {} weights left", layer.param, layer.len());
    }
    match files.next() {
        Some(file) => sparse.repaired.save(file),
        None => Ok(()),
    }
}

fn prune(dense: &Model) -> Result<Sparsified> {
    Sparsify::new(Budget::sparsity(0.9)).allocation(Erk::default()).run(dense, &Tensor::default())
}
