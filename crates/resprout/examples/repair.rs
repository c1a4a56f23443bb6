//! Prunes the digit network of this repository to 5 % of its weights, and repairs it with unlabelled images.
//!
//! ```console
//! cargo run --release -p resprout --example repair
//! ```
//!
//! It prints how many of the images each network classifies correctly. Labels only measure; the first 256 images are those of the repair.

use resprout::Result;
use resprout::data::{ImageSet, LabelSource, Preprocess};
use resprout::eval::evaluate;
use resprout::forward::{Network, PlanOptions};
use resprout::model::Model;
use resprout::progress::Quiet;
use resprout::sparsify::{Budget, Sparsify};
use std::path::Path;

fn main() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resprout-cli/assets");
    let labels = LabelSource::File(folder.join("digits-labels-idx1-ubyte.gz"));
    let digits = ImageSet::open(&folder.join("digits-images-idx3-ubyte.gz"), &labels)?;
    // As the network was trained: pixels of 0 to 16, standardised.
    let preprocess = Preprocess { mean: vec![4.884], std: vec![6.017], ..Preprocess::default() };
    let calibration = digits.load(0..256, 1, &preprocess)?;

    let dense = Model::open(folder.join("digits.onnx"))?;
    for repair in ["none", "bn", "least-squares"] {
        let sparse = Sparsify::new(Budget::sparsity(0.95)).repair(repair).run(&dense, &calibration)?;
        let network = Network::new(&sparse.repaired, &[1, 8, 8], &PlanOptions::default())?;
        let measured = evaluate(&[&network], &digits, &preprocess, false, &Quiet)?;
        if let Some(top1) = measured.networks[0].top1 {
            println!("{repair}: {:.1} % correct", 100.0 * top1.value);
        }
    }
    Ok(())
}
