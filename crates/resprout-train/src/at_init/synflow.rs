//! Synaptic flow: SynFlow and ReSynFlow.

use super::method::{Build, Input, Method, SCHEDULE, Score, Scores, rounds};
use crate::device;
use crate::engine::TrainProgram;
use crate::parameters::Parameters;
use rayon::prelude::*;
use resprout::Result;
use resprout::lipschitz;
use resprout::model::{Model, Prunable};
use resprout::table::{Entry, OptionSpec};
use std::collections::HashSet;

pub(super) const SYNFLOW: Entry<Build> = Entry {
    name: "synflow",
    about: "|w dR/dw|, R the sum of outputs for an image of ones of the network of absolute values; needs no data",
    paper: "Tanaka, Kunin, Yamins, Ganguli, Pruning neural networks without any data, NeurIPS 2020",
    options: &[OptionSpec { name: "rounds", about: "how many times it scores and prunes", default: "100" }, SCHEDULE],
    build: |options, sparsity| {
        let score = Box::new(Flow { normalise: false });
        Ok(Method { rounds: rounds(options, sparsity)?, returns: false, batches: 0, score })
    },
};

pub(super) const RESYNFLOW: Entry<Build> = Entry {
    name: "resynflow",
    about: "SynFlow with every layer's absolute weights divided by their largest singular value before each round; they stay so",
    paper: "RePaIR (pruning at initialisation), the author's code",
    options: &[
        OptionSpec { name: "rounds", about: "how many times it scores and prunes", default: "10" },
        OptionSpec { default: "linear", ..SCHEDULE },
    ],
    build: |options, sparsity| {
        let score = Box::new(Flow { normalise: true });
        Ok(Method { rounds: rounds(options, sparsity)?, returns: false, batches: 0, score })
    },
};

struct Flow {
    normalise: bool,
}

impl Score for Flow {
    fn score(&self, model: &Model, _: &Model, layers: &[Prunable], input: &Input) -> Result<Scores> {
        device::check(input.device)?;
        let parameters = self.absolute(model)?;
        let [c, h, w] = input.image;
        let mut program = TrainProgram::new(model, &parameters, &[1, c, h, w])?;
        let gradients = program.flow(&parameters)?;
        let score = |layer: &Prunable| {
            let weights = &model.weight(&layer.param)?.data;
            let gradient = parameters.index(&layer.param).and_then(|index| gradients[index].as_ref());
            let scores = match gradient {
                Some(gradient) => {
                    let pairs = gradient.iter().zip(weights);
                    pairs.map(|(&gradient, &weight)| (f64::from(gradient) * f64::from(weight)).abs()).collect()
                }
                // A parameter that the output does not depend on has no flow.
                None => vec![0.0; layer.len()],
            };
            Ok((layer.param.clone(), scores))
        };
        layers.par_iter().map(score).collect()
    }

    fn rescale(&self, model: &mut Model) -> Result<()> {
        if !self.normalise {
            return Ok(());
        }
        for layer in &lipschitz::layers(model)? {
            let Some(tensor) = model.params.f32_mut(&layer.param) else { continue };
            let absolute: Vec<f32> = tensor.data.iter().map(|weight| weight.abs()).collect();
            let sigma = lipschitz::sigma(layer, &absolute);
            if sigma > 0.0 {
                tensor.data.iter_mut().for_each(|weight| *weight = (f64::from(*weight) / sigma) as f32);
            }
        }
        Ok(())
    }
}

impl Flow {
    /// The absolute values of every parameter, or of the weights of convolutions and linear layers alone.
    fn absolute(&self, model: &Model) -> Result<Parameters> {
        let weights: HashSet<String> = lipschitz::layers(model)?.into_iter().map(|layer| layer.param).collect();
        let taken = |name: &str| !self.normalise || weights.contains(name);
        let absolute = |values: &[f32]| values.iter().map(|value| value.abs()).collect();
        Parameters::without_masks(model, |name, values| if taken(name) { absolute(values) } else { values.to_vec() })
    }
}
