//! Trains LeNet-300-100 to 90 % sparsity by progressive magnitude pruning, on images that need no download.
//!
//! ```console
//! cargo run --release -p resprout-train --example train
//! ```

use resprout::Result;
use resprout::architectures::{Shape, build};
use resprout::data::{ImageSet, Preprocess};
use resprout::progress::Quiet;
use resprout::random::SplitMix64;
use resprout_train::loader::Examples;
use resprout_train::recipe::Recipe;
use resprout_train::run::{Data, RunOptions, train};
use std::sync::Arc;

/// Noisy images of 28x28 pixels: class `c` is bright in columns `7 c` to `7 c + 6`.
fn stripes(count: usize, seed: u64) -> Result<ImageSet> {
    let mut random = SplitMix64::new(seed, 0);
    let mut pixel = |image: usize, at: usize| {
        let bright = if at % 28 / 7 == image % 4 { 100.0 } else { 0.0 };
        (bright + 120.0 * random.next_f64()) as u8
    };
    let pixels = (0..count).flat_map(|image| (0..784).map(move |at| (image, at))).map(|(image, at)| pixel(image, at)).collect();
    ImageSet::from_bytes("stripes", pixels, [count, 1, 28, 28], Some((0..count).map(|image| image % 4).collect()))
}

fn examples(count: usize, seed: u64) -> Result<Examples> {
    let indices = Arc::new((0..count).collect());
    Ok(Examples { set: Arc::new(stripes(count, seed)?), indices, preprocess: Preprocess::preset("mnist")?, channels: 1 })
}

fn main() -> Result<()> {
    let data = Data { train: examples(1024, 1)?, validation: None, test: Some(examples(256, 2)?) };
    let mut model = build("lenet-300-100", &Shape { classes: Some(4), image: None }, "kaiming-in", 0)?;
    let recipe = Recipe {
        arch: Some("lenet-300-100".into()),
        method: "progressive".into(),
        epochs: 6,
        batch: 32,
        sparsity: 0.9,
        rate: 0.02,
        ..Recipe::default()
    };
    let options = RunOptions { folder: None, resume: false, workers: 1 };
    let (outcome, _) = train(&mut model, &recipe, &data, &options, &Quiet)?;
    let correct = outcome.test.map_or(f64::NAN, |test| 100.0 * test.value);
    println!("{:.1} % of the weights removed, {correct:.1} % of the test images correct", 100.0 * outcome.sparsity);
    Ok(())
}
