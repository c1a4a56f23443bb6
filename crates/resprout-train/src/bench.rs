//! Single training steps, timed.

pub use crate::engine::LayerTimes;
use crate::engine::TrainProgram;
use crate::error::data;
use crate::optimiser::Sgd;
use crate::parameters::Parameters;
use crate::step::Descent;
use resprout::Result;
use resprout::linalg::median;
use resprout::model::Model;
use resprout::progress::Progress;
use std::time::Instant;

/// A model in training, without a run around it.
pub struct Stepper {
    parameters: Parameters,
    program: TrainProgram,
    optimiser: Sgd,
}

/// The times of a network's steps.
#[derive(Clone, Debug, Default)]
pub struct StepTimes {
    /// Seconds of every step: forward, loss, backward and update.
    pub seconds: Vec<f64>,
    /// The medians of the steps.
    pub layers: Vec<LayerTimes>,
}

impl Stepper {
    /// Prepares steps of `batch` images of shape `image: [C, H, W]`. The model is copied, and its masks are kept.
    ///
    /// # Errors
    /// As [`gradients()`](crate::gradients()).
    pub fn new(model: &Model, image: [usize; 3], batch: usize, optimiser: Sgd) -> Result<Stepper> {
        let parameters = Parameters::new(model)?;
        let program = TrainProgram::new(model, &parameters, &[&[batch][..], &image].concat())?;
        Ok(Stepper { parameters, program, optimiser })
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.program.classes()
    }

    /// One step of SGD on `images`, `[N, C, H, W]` flat, with one label each. Returns the mean cross-entropy in nats.
    pub fn step(&mut self, images: &[f32], labels: &[usize], rate: f64) -> f64 {
        let descent = Descent { optimiser: &self.optimiser, label_smoothing: 0.0, rate };
        descent.step(&mut self.program, &mut self.parameters, images, labels).0
    }
}

/// Steps of all networks in turns, `rounds` times after one that does not count.
///
/// # Errors
/// Of kind `Data` for a loss that is not finite, and `Interrupted`.
pub fn time(
    steppers: &mut [Stepper],
    images: &[f32],
    labels: &[usize],
    rate: f64,
    rounds: usize,
    progress: &dyn Progress,
) -> Result<Vec<StepTimes>> {
    let mut times = vec![StepTimes::default(); steppers.len()];
    let mut layers: Vec<Vec<Vec<LayerTimes>>> = vec![Vec::new(); steppers.len()];
    progress.begin("steps", (rounds + 1) as u64);
    for round in 0..=rounds {
        for ((stepper, times), layers) in steppers.iter_mut().zip(&mut times).zip(&mut layers) {
            progress.check()?;
            stepper.program.measure(true);
            let start = Instant::now();
            let loss = stepper.step(images, labels, rate);
            let seconds = start.elapsed().as_secs_f64();
            if !loss.is_finite() {
                return Err(data(format!("the loss became {loss} in step {}: a lower rate may help", round + 1)));
            }
            let measured = stepper.program.measure(false);
            if round > 0 {
                times.seconds.push(seconds);
                layers.push(measured);
            }
        }
        progress.advance(1);
    }
    progress.end();
    for (times, layers) in times.iter_mut().zip(&layers) {
        times.layers = medians(layers);
    }
    Ok(times)
}

fn medians(rounds: &[Vec<LayerTimes>]) -> Vec<LayerTimes> {
    let Some(first) = rounds.first() else { return Vec::new() };
    let of = |layer: usize, direction: usize| {
        median(&rounds.iter().map(|round| round[layer].seconds[direction]).collect::<Vec<f64>>())
    };
    let row = |(index, layer): (usize, &LayerTimes)| LayerTimes { seconds: [of(index, 0), of(index, 1)], ..layer.clone() };
    first.iter().enumerate().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use resprout::architectures::{Shape, build};
    use resprout::progress::Quiet;

    #[test]
    fn every_layer_has_its_time_and_its_operations() {
        let model = build("lenet-5", &Shape { classes: Some(10), image: None }, "kaiming-in", 1).unwrap();
        let sgd = Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0, decay_all: true };
        let mut steppers = [Stepper::new(&model, [1, 28, 28], 16, sgd).unwrap()];
        let times = time(&mut steppers, &[0.5; 16 * 784], &[3; 16], 0.01, 3, &Quiet).unwrap().swap_remove(0);
        assert_eq!(times.seconds.len(), 3);
        let macs: Vec<[u64; 2]> = times.layers.iter().filter_map(|layer| layer.macs).collect();
        let first = macs[0];
        // No gradient of the images is computed.
        assert!(first[0] == first[1] && macs[1..].iter().all(|[forward, backward]| *backward == 2 * forward), "{macs:?}");
        let busy = times.layers.iter().filter(|layer| layer.macs.is_some());
        assert!(busy.clone().count() == 4 && busy.clone().all(|layer| layer.seconds.iter().all(|&s| s > 0.0)));
        assert!(times.layers.iter().map(|layer| layer.seconds[0] + layer.seconds[1]).sum::<f64>() < times.seconds.iter().sum());
    }
}
