//! Erdős–Rényi–Kernel: density in proportion to (sum of dimensions) / (product of dimensions).

use super::{Allocation, Budget, Build, LayerScores};
use crate::error::{Error, Result};
use crate::select::largest_remainder;
use crate::table::{Entry, OptionSpec};

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "erk",
    about: "Erdős–Rényi–Kernel: the larger a layer, the sparser; small ones may stay dense",
    paper: "Evci et al., Rigging the lottery, ICML 2020",
    options: &[OptionSpec { name: "power", about: "exponent of the raw density, positive", default: "1" }],
    build: |options| {
        let power = options.parse("power", "a positive number", |&p: &f64| p > 0.0 && p.is_finite())?;
        Ok(Box::new(Erk { power }))
    },
};

struct Erk {
    power: f64,
}

impl Allocation for Erk {
    fn allocate(&self, layers: &[LayerScores], budget: Budget) -> Result<Vec<usize>> {
        let sizes: Vec<f64> = layers.iter().map(|layer| layer.scores.len() as f64).collect();
        let raw: Vec<f64> = layers.iter().map(|layer| self.raw_density(layer.shape)).collect();
        let densities = solve(&sizes, &raw, 1.0 - budget.sparsity).map_err(|e| match e {
            Overfull(dense) => {
                let names: Vec<&str> = dense.iter().map(|&i| layers[i].name).collect();
                Error::option(format!(
                    "erk: sparsity {} cannot be met: the layers that stay dense ({}) hold more than {} weights; choose a lower \
                     sparsity, another allocation, or a sparsity of their own for these layers",
                    budget.sparsity,
                    names.join(", "),
                    budget.keep
                ))
            }
        })?;
        let shares: Vec<f64> = densities.iter().zip(&sizes).map(|(density, size)| density * size).collect();
        Ok(largest_remainder(&shares, budget.keep))
    }
}

impl Erk {
    fn raw_density(&self, shape: &[usize]) -> f64 {
        let (sum, product) = (shape.iter().sum::<usize>() as f64, shape.iter().product::<usize>() as f64);
        (sum / product).powf(self.power)
    }
}

/// These layers are capped at density 1 and already hold more than the whole budget.
struct Overfull(Vec<usize>);

/// `d_l = min(1, eps * raw_l)` with `sum d_l n_l = density * sum n_l`. All layers that share the
/// largest raw density are capped together, so every pass makes progress.
fn solve(sizes: &[f64], raw: &[f64], density: f64) -> Result<Vec<f64>, Overfull> {
    let mut capped = vec![false; sizes.len()];
    loop {
        let capped_size: f64 = (0..sizes.len()).filter(|&i| capped[i]).map(|i| sizes[i]).sum();
        let room = density * sizes.iter().sum::<f64>() - capped_size;
        let open = || (0..sizes.len()).filter(|&i| !capped[i]);
        let weight: f64 = open().map(|i| raw[i] * sizes[i]).sum();
        if room < 0.0 {
            return Err(Overfull((0..sizes.len()).filter(|&i| capped[i]).collect()));
        }
        let largest = open().map(|i| raw[i]).fold(0.0, f64::max);
        let epsilon = room / weight;
        if weight == 0.0 || epsilon * largest <= 1.0 {
            return Ok((0..sizes.len()).map(|i| if capped[i] { 1.0 } else { epsilon * raw[i] }).collect());
        }
        let newly: Vec<usize> = open().filter(|&i| raw[i] == largest).collect();
        newly.into_iter().for_each(|i| capped[i] = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ResNet-18 with a 3x3 stem, 1x1 projections and a classifier for `classes`: prunable shapes.
    fn resnet18(classes: usize) -> Vec<Vec<usize>> {
        let mut shapes = vec![vec![64, 3, 3, 3]];
        for (i, width) in [64usize, 128, 256, 512].into_iter().enumerate() {
            let input = if i == 0 { 64 } else { width / 2 };
            shapes.extend([
                vec![width, input, 3, 3],
                vec![width, width, 3, 3],
                vec![width, width, 3, 3],
                vec![width, width, 3, 3],
            ]);
            if i > 0 {
                shapes.push(vec![width, input, 1, 1]);
            }
        }
        shapes.push(vec![classes, 512]);
        shapes
    }

    fn epsilon(shapes: &[Vec<usize>], sparsity: f64) -> (f64, usize) {
        let sizes: Vec<f64> = shapes.iter().map(|s| s.iter().product::<usize>() as f64).collect();
        let raw: Vec<f64> = shapes.iter().map(|s| Erk { power: 1.0 }.raw_density(s)).collect();
        let densities = solve(&sizes, &raw, 1.0 - sparsity).ok().unwrap();
        let capped = densities.iter().filter(|&&d| d == 1.0).count();
        let open = (0..raw.len()).find(|&i| densities[i] < 1.0).unwrap();
        (densities[open] / raw[open], capped)
    }

    #[test]
    fn reproduces_the_epsilon_of_resnet18() {
        // Computed independently from the formula: epsilon and number of layers left dense.
        for (classes, sparsity, expected, dense) in [
            (10, 0.90, 131.9619, 4),
            (10, 0.95, 64.0238, 3),
            (10, 0.955, 57.4441, 3),
            (100, 0.90, 126.8406, 4),
            (100, 0.95, 60.5323, 2),
        ] {
            let (epsilon, capped) = epsilon(&resnet18(classes), sparsity);
            assert!((epsilon - expected).abs() < 1e-4, "{classes} {sparsity}: {epsilon}");
            assert_eq!(capped, dense, "{classes} {sparsity}");
        }
    }

    #[test]
    fn a_budget_below_the_capped_layers_is_an_error() {
        let scores = vec![0.0; 10_000];
        let layer = |shape, n| LayerScores { name: "w", shape, scores: &scores[..n] };
        // 1x1 has raw density 2; capped, it takes more than the one weight there is... for a pair of them.
        let layers = [layer(&[2, 2], 4), layer(&[100, 100], 10_000)];
        let ok = Erk { power: 1.0 }.allocate(&layers, Budget { sparsity: 0.9, keep: 1000 }).unwrap();
        assert_eq!(ok.iter().sum::<usize>(), 1000);
        let error = Erk { power: 9.0 }.allocate(&layers, Budget { sparsity: 0.9997, keep: 3 }).unwrap_err();
        assert!(error.to_string().contains("cannot be met"), "{error}");
    }
}
