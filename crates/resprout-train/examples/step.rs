//! Milliseconds of a training step by density: `step ARCH BATCH ROUNDS DENSITY...`
//!
//! Forward, loss, backward and update of one batch of noise, with random masks of each density in turns; medians.

use resprout::architectures::{Shape, build};
use resprout::linalg::median;
use resprout::model::Model;
use resprout::progress::Quiet;
use resprout::prune::{PruneOptions, prune};
use resprout::random::SplitMix64;
use resprout::tensor::Tensor;
use resprout_train::bench::{Stepper, time};
use resprout_train::optimiser::Sgd;

fn pruned(arch: &str, density: f64) -> resprout::Result<Model> {
    let mut model = build(arch, &Shape { classes: Some(10), image: None }, "kaiming-in", 1)?;
    if density < 1.0 {
        let options = PruneOptions {
            criterion: "random".into(),
            allocation: "uniform".into(),
            sparsity: 1.0 - density,
            ..PruneOptions::default()
        };
        prune(&mut model, &options, &Tensor::default(), &Quiet)?;
    }
    Ok(model)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [arch, batch, rounds, densities @ ..] = &arguments[..] else { return Err("step ARCH BATCH ROUNDS DENSITY...".into()) };
    let (batch, rounds): (usize, usize) = (batch.parse()?, rounds.parse()?);
    let densities: Vec<f64> = densities.iter().map(|density| density.parse()).collect::<Result<_, _>>()?;
    let image = if arch.starts_with("lenet") { [1, 28, 28] } else { [3, 32, 32] };
    let mut random = SplitMix64::new(1, 0);
    let images: Vec<f32> = (0..batch * image.iter().product::<usize>()).map(|_| random.next_normal() as f32).collect();
    let labels: Vec<usize> = (0..batch).map(|i| i % 10).collect();
    let models: Vec<Model> = densities.iter().map(|&density| pruned(arch, density)).collect::<Result<_, _>>()?;
    let sgd = Sgd { momentum: 0.9, nesterov: false, weight_decay: 1e-4, decay_all: true };
    let stepper = |model: &Model| Stepper::new(model, image, batch, sgd.clone());
    let mut steppers: Vec<Stepper> = models.iter().map(stepper).collect::<Result<_, _>>()?;
    let times = time(&mut steppers, &images, &labels, 1e-3, rounds, &Quiet)?;
    for (density, times) in densities.iter().zip(times) {
        println!("{density} {:.1}", median(&times.seconds) * 1e3);
    }
    Ok(())
}
