//! Recalibrates the same pruned network twice: with BatchNormalization layers, and with them folded into the convolutions.
//!
//! ```console
//! python bench/fold_batch_norm.py model.onnx folded.onnx
//! cargo run --release -p resprout --example folded -- model.onnx folded.onnx data_batch_1.bin test_batch.bin 0.8 0.9
//! ```
//!
//! The masks are those of global magnitude on the unfolded weights. The images are CIFAR-10 batches, 1024 of them for
//! calibration. It prints top-1 in percent.

use resprout::data::{ImageSet, LabelSource, Preprocess};
use resprout::eval::evaluate;
use resprout::formats::onnx;
use resprout::forward::{Network, PlanOptions};
use resprout::model::Model;
use resprout::progress::Quiet;
use resprout::prune::{PruneOptions, prune};
use resprout::repair::{Chain, RepairOptions};
use resprout::tensor::Tensor;
use resprout::{Error, ErrorKind, Result};
use std::path::Path;

/// The number of calibration images.
const IMAGES: usize = 1024;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage = || Error::new(ErrorKind::Option, "MODEL FOLDED CALIBRATION TEST SPARSITY.. are needed");
    let [model, folded, calibration, test, sparsities @ ..] = &args[..] else { return Err(usage()) };
    let networks = [onnx::read(Path::new(model))?, onnx::read(Path::new(folded))?];
    let preprocess = Preprocess { resize: None, crop: None, ..Preprocess::preset("imagenet")? };
    let images = ImageSet::open(Path::new(calibration), &LabelSource::None)?.load(0..IMAGES, 3, &preprocess)?;
    let test = ImageSet::open(Path::new(test), &LabelSource::Auto)?;
    println!("| sparsity | repair | BatchNormalization | folded | difference |\n| --- | --- | --- | --- | --- |");
    for text in sparsities {
        let sparsity = text.parse().map_err(|_| usage())?;
        let mut masked = networks[0].clone();
        let options = PruneOptions { sparsity, allocation: "global".into(), ..PruneOptions::default() };
        prune(&mut masked, &options, &Tensor::default(), &Quiet)?;
        for chain in ["none", "bn"] {
            let top1 = |dense: &Model| {
                let mut model = dense.clone();
                model.masks = masked.masks.clone();
                model.apply_masks();
                Chain::parse(chain)?.repair(&mut model, dense, &images, &RepairOptions::default(), &Quiet)?;
                let network = Network::new(&model, &images.shape[1..], &PlanOptions::default())?;
                let run = evaluate(&[&network], &test, &preprocess, false, &Quiet)?;
                Ok::<f64, Error>(run.networks[0].top1.map_or(f64::NAN, |top1| 100.0 * top1.value))
            };
            let [norm, folded] = [top1(&networks[0])?, top1(&networks[1])?];
            println!("| {sparsity} | {chain} | {norm:.2} | {folded:.2} | {:+.2} |", folded - norm);
        }
    }
    Ok(())
}
