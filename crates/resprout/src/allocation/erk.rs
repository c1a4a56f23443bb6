//! Erdős–Rényi–Kernel: density in proportion to (sum of dimensions) / (product of dimensions).

use super::{Allocation, Build, LayerScores, Totals};
use crate::error::{Error, Result};
use crate::select::largest_remainder;
use crate::table::{Entry, OptionSpec};

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "erk",
    about: "Erdős–Rényi–Kernel: the larger a layer, the sparser; small ones may stay dense",
    paper: "Evci et al., Rigging the lottery, ICML 2020",
    options: &[OptionSpec { name: "power", about: "exponent of the raw density, positive", default: "1" }],
    build: |options| {
        let power = options.parse("power", "a positive number", |&power: &f64| Erk { power }.is_valid())?;
        Ok(Box::new(Erk { power }))
    },
};

/// The allocation `erk`, Erdős–Rényi–Kernel (Evci et al., Rigging the lottery, ICML 2020).
///
/// The density of a layer is in proportion to the sum of its weight's dimensions divided by their product, up to 1.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Erk {
    /// Exponent of that quotient, positive; 1 by default.
    pub power: f64,
}

impl Default for Erk {
    fn default() -> Erk {
        Erk { power: 1.0 }
    }
}

impl Allocation for Erk {
    fn allocate(&self, layers: &[LayerScores], totals: Totals) -> Result<Vec<usize>> {
        if !self.is_valid() {
            return Err(Error::option(format!("allocation erk: power {}: a positive number is needed", self.power)));
        }
        let sizes: Vec<f64> = layers.iter().map(|layer| layer.scores.len() as f64).collect();
        let raw: Vec<f64> = layers.iter().map(|layer| self.raw_density(layer.shape)).collect();
        let densities = solve(&sizes, &raw, 1.0 - totals.sparsity);
        let shares: Vec<f64> = densities.iter().zip(&sizes).map(|(density, size)| density * size).collect();
        Ok(largest_remainder(&shares, totals.keep))
    }
}

impl Erk {
    fn is_valid(&self) -> bool {
        self.power > 0.0 && self.power.is_finite()
    }

    fn raw_density(&self, shape: &[usize]) -> f64 {
        let (sum, product) = (shape.iter().sum::<usize>() as f64, shape.iter().product::<usize>() as f64);
        (sum / product).powf(self.power)
    }
}

/// `d_l = min(1, eps * raw_l)` with `sum d_l n_l = density * sum n_l`.
///
/// Every pass caps all layers that share the largest raw density, so the loop ends. A layer is capped only
/// if its share `eps * raw_l * n_l` exceeds its size `n_l`. So each cap leaves more for the others, and the budget holds.
fn solve(sizes: &[f64], raw: &[f64], density: f64) -> Vec<f64> {
    let mut capped = vec![false; sizes.len()];
    loop {
        let capped_size: f64 = (0..sizes.len()).filter(|&i| capped[i]).map(|i| sizes[i]).sum();
        let budget = density * sizes.iter().sum::<f64>() - capped_size;
        let open = || (0..sizes.len()).filter(|&i| !capped[i]);
        let weight: f64 = open().map(|i| raw[i] * sizes[i]).sum();
        let largest = open().map(|i| raw[i]).fold(0.0, f64::max);
        // At sparsity 0 all layers may be capped, and the divisor is 0.
        let epsilon = if weight > 0.0 { budget / weight } else { 0.0 };
        if epsilon * largest <= 1.0 {
            return (0..sizes.len()).map(|i| if capped[i] { 1.0 } else { epsilon * raw[i] }).collect();
        }
        let densest: Vec<usize> = open().filter(|&i| raw[i] == largest).collect();
        densest.into_iter().for_each(|i| capped[i] = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The prunable shapes of ResNet-18 with a 3x3 stem, 1x1 projections and a classifier for `classes`.
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
        let densities = solve(&sizes, &raw, 1.0 - sparsity);
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
    fn small_layers_stay_dense_and_the_sum_is_exact() {
        let (small, large) = (vec![0.0; 4], vec![0.0; 10_000]);
        let layers = [
            LayerScores { name: "w", shape: &[2, 2], scores: &small },
            LayerScores { name: "w", shape: &[100, 100], scores: &large },
        ];
        // Raw densities 1 and 0.02; their square roots leave the small layer open at 0.74.
        for (power, expected) in [(0.5, [3, 997]), (1.0, [4, 996]), (9.0, [4, 996])] {
            assert_eq!(Erk { power }.allocate(&layers, Totals { sparsity: 0.9, keep: 1000 }).unwrap(), expected);
        }
    }
}
