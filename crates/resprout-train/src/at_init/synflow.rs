//! Synaptic flow: SynFlow and ReSynFlow.

use super::{Build, Input, Method, SCHEDULE, Score, Scores, rounds};
use crate::device;
use crate::lower::Program;
use crate::parameters::{Parameters, values};
use resprout::Result;
use resprout::lipschitz;
use resprout::model::{Model, Prunable};
use resprout::table::{Entry, OptionSpec};

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
        let absolute = absolute(model, !self.normalise)?;
        let device = device::open(input.device)?;
        let parameters = Parameters::new(&absolute, &device)?;
        let [c, h, w] = input.image;
        let program = Program::new(&absolute, &parameters, &[1, c, h, w])?;
        let gradients = program.flow(&parameters, input.image, &device)?;
        let score = |layer: &Prunable| {
            let weights = &absolute.weight(&layer.param)?.data;
            let gradient = parameters.index(&layer.param).and_then(|index| gradients[index].as_ref());
            let scores = match gradient {
                Some(gradient) => {
                    let pairs = values(gradient).into_iter().zip(weights);
                    pairs.map(|(gradient, &weight)| (f64::from(gradient) * f64::from(weight)).abs()).collect()
                }
                // Nothing flows through what the output does not depend on.
                None => vec![0.0; layer.len()],
            };
            Ok((layer.param.clone(), scores))
        };
        layers.iter().map(score).collect()
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

/// The network with absolute values: of every parameter, or of the weights of convolutions and linear layers alone.
fn absolute(model: &Model, everything: bool) -> Result<Model> {
    let names: Vec<String> = if everything {
        model.params.iter().map(|(name, _)| name.to_string()).collect()
    } else {
        lipschitz::layers(model)?.into_iter().map(|layer| layer.param).collect()
    };
    let mut absolute = model.clone();
    for name in names {
        if let Some(tensor) = absolute.params.f32_mut(&name) {
            tensor.data.iter_mut().for_each(|value| *value = value.abs());
        }
    }
    Ok(absolute)
}
