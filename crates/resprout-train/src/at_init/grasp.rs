//! GraSP: keeps the weights whose removal would reduce the gradient flow most.

use super::gradients::mean_gradients_with;
use super::method::{BATCHES, Build, Input, Method, Score, Scores, positive};
use crate::engine::{Gates, Hold};
use crate::error::data;
use resprout::Result;
use resprout::model::{Model, Prunable};
use resprout::table::{Entry, OptionSpec};

/// The candidate steps of the finite difference, as shares of the weights' norm. The engine has no second derivatives, so `H
/// g` is a central difference. Long steps add the third derivative, short ones rounding. Activations are held: see
/// [`crate::engine::Gates`].
const STEPS: [f64; 5] = [3e-2, 1e-2, 3e-3, 1e-3, 3e-4];

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "grasp",
    about: "w (Hg), with the Hessian-gradient product from central differences: high where pruning would cost gradient norm",
    paper: "Wang, Zhang, Grosse, Picking winning tickets before training by preserving gradient flow, ICLR 2020",
    options: &[BATCHES, OptionSpec { name: "temperature", about: "what logits are divided by", default: "200" }],
    build: |options, sparsity| {
        let temperature = options.parse("temperature", "a number above 0", |&t: &f64| t > 0.0 && t.is_finite())?;
        let score = Box::new(Grasp { temperature });
        Ok(Method { rounds: vec![sparsity], returns: false, batches: positive(options, "batches")?, score })
    },
};

struct Grasp {
    temperature: f64,
}

impl Score for Grasp {
    fn score(&self, model: &Model, _: &Model, layers: &[Prunable], input: &Input) -> Result<Scores> {
        let (mut scores, _) = hessian_gradient(model, layers, input, self.temperature)?;
        for (name, scores) in &mut scores {
            let weights = &model.weight(name)?.data;
            scores.iter_mut().zip(weights).for_each(|(product, &weight)| *product *= f64::from(weight));
        }
        Ok(scores)
    }
}

/// `H g`, and the distance between its two best estimates, relative to its norm.
fn hessian_gradient(model: &Model, layers: &[Prunable], input: &Input, temperature: f64) -> Result<(Scores, f64)> {
    let mut gates: Vec<Gates> = input.batches.iter().map(|_| Gates::default()).collect();
    let mut noted = gates.iter_mut();
    let gradient = mean_gradients_with(model, layers, input, temperature, |_| noted.next().map_or(Hold::Free, Hold::Note))?;
    let around = Around { model, layers, input, temperature, gates: &gates };
    let length = norm(&gradient);
    if length == 0.0 {
        return Err(data("pruning at initialisation grasp: the gradient is zero, and has no flow to preserve"));
    }
    let mut squares = 0.0;
    for name in gradient.keys() {
        model.weight(name)?.data.iter().for_each(|&weight| squares += f64::from(weight) * f64::from(weight));
    }
    let unit = f64::sqrt(squares) / length;
    let mut last = around.difference(&gradient, STEPS[0] * unit)?;
    let mut best = (last.clone(), f64::INFINITY);
    for step in &STEPS[1..] {
        let next = around.difference(&gradient, step * unit)?;
        let error = distance(&last, &next) / norm(&next);
        // Two steps that agree are neither too short nor too long.
        if error < best.1 {
            best = (next.clone(), error);
        }
        last = next;
    }
    Ok(best)
}

/// The point around which gradients are compared.
struct Around<'a> {
    model: &'a Model,
    layers: &'a [Prunable],
    input: &'a Input<'a>,
    temperature: f64,
    gates: &'a [Gates],
}

impl Around<'_> {
    /// `(dL(w + step v) - dL(w - step v)) / (2 step)`
    fn difference(&self, v: &Scores, step: f64) -> Result<Scores> {
        let (mut ahead, behind) = (self.gradient(v, step)?, self.gradient(v, -step)?);
        for (name, ahead) in &mut ahead {
            ahead.iter_mut().zip(&behind[name]).for_each(|(ahead, behind)| *ahead = (*ahead - behind) / (2.0 * step));
        }
        Ok(ahead)
    }

    fn gradient(&self, v: &Scores, step: f64) -> Result<Scores> {
        let mut moved = self.model.clone();
        for (name, v) in v {
            let Some(tensor) = moved.params.f32_mut(name) else { continue };
            tensor.data.iter_mut().zip(v).for_each(|(weight, v)| *weight = (f64::from(*weight) + step * v) as f32);
        }
        mean_gradients_with(&moved, self.layers, self.input, self.temperature, |batch| Hold::Keep(&self.gates[batch]))
    }
}

fn norm(scores: &Scores) -> f64 {
    scores.values().flatten().map(|value| value * value).sum::<f64>().sqrt()
}

fn distance(a: &Scores, b: &Scores) -> f64 {
    a.values().flatten().zip(b.values().flatten()).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use resprout::architectures::{Shape, build};
    use resprout::model::PrunableRule;
    use resprout::random::SplitMix64;
    use resprout::tensor::Tensor;

    /// With free activations no two steps agree, because each crosses other jumps.
    #[test]
    fn two_steps_agree_about_the_product() {
        let model = build("resnet-20", &Shape { classes: None, image: None }, "kaiming-in", 1).unwrap();
        let (layers, _) = model.prunable(&PrunableRule::default()).unwrap();
        let mut random = SplitMix64::new(2, 0);
        let values = (0..16 * 3072).map(|_| random.next_normal() as f32).collect();
        let batches = [(Tensor::new(vec![16, 3, 32, 32], values), (0..16).map(|i| i % 10).collect())];
        let input = Input { batches: &batches, image: [3, 32, 32], device: "cpu", seed: 0 };
        let (product, error) = hessian_gradient(&model, &layers, &input, 200.0).unwrap();
        assert!(error < 1e-2 && norm(&product) > 0.0, "{error}");
    }
}
