//! Milliseconds of a training step by density: `step ARCH BATCH ROUNDS DENSITY...`
//!
//! Forward, loss, backward and update of one batch of noise, with random masks of each density in turns; medians.

use resprout::architectures::{Shape, build};
use resprout::model::Model;
use resprout::progress::Quiet;
use resprout::prune::{PruneOptions, prune};
use resprout::random::SplitMix64;
use resprout::tensor::Tensor;
use resprout_train::bench::Stepper;
use std::time::Instant;

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
    let mut steppers: Vec<Stepper> = models.iter().map(|model| Stepper::new(model, image, batch)).collect::<Result<_, _>>()?;
    let mut times = vec![Vec::new(); densities.len()];
    for round in 0..=rounds {
        for (stepper, times) in steppers.iter_mut().zip(&mut times) {
            let start = Instant::now();
            stepper.step(&images, &labels, 1e-3);
            times.extend((round > 0).then(|| start.elapsed().as_secs_f64() * 1e3));
        }
    }
    for (density, times) in densities.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        println!("{density} {:.1}", times[times.len() / 2]);
    }
    // Of the first density, layer by layer.
    if std::env::var_os("LAYERS").is_some() {
        for (layer, [forward, backward], macs) in steppers[0].layers(&images, &labels) {
            let rate = macs.map_or(String::new(), |macs| {
                format!("{:6.1} {:6.1} GMAC/s", macs as f64 / forward / 1e9, 2.0 * macs as f64 / backward / 1e9)
            });
            println!("{layer:40} {:8.2} {:8.2} ms {rate}", forward * 1e3, backward * 1e3);
        }
    }
    Ok(())
}
