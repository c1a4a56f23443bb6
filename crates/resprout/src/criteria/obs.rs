//! `score = w^2 / [H^-1]_pp`: the error of the layer's output when a weight goes and the other kept weights of its row
//! compensate.

use super::{Build, Criterion};
use crate::calibrate::WeightSite;
use crate::calibrate::normal::InputSums;
use crate::calibrate::sample::Sample;
use crate::error::Result;
use crate::linalg::Cholesky;
use crate::table::{Entry, OptionSpec};
use rayon::prelude::*;
use std::collections::HashMap;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "obs",
    about: "what the layer's output loses when the weight goes and the rest of its row makes good what it can; needs images",
    paper: "Hassibi and Stork, Optimal Brain Surgeon, NeurIPS 1992; per row with the layer's Gram matrix as in Frantar and \
            Alistarh, Optimal Brain Compression, NeurIPS 2022",
    options: &[
        OptionSpec { name: "damp", about: "ridge, by the mean variance of the layer's inputs", default: "0.001" },
        OptionSpec { name: "rows", about: "about how many positions of all images are used per layer", default: "65536" },
        OptionSpec {
            name: "unit",
            about: "what a loss is counted in: output (variance behind the BatchNormalization), layer (that, averaged over the layer) or raw",
            default: "output",
        },
    ],
    build: |options, seed| {
        let unit = match options.text("unit") {
            "output" => Unit::Output,
            "layer" => Unit::Layer,
            "raw" => Unit::Raw,
            _ => return Err(options.error("unit", "output, layer or raw")),
        };
        Ok(Box::new(Obs {
            damp: options.parse("damp", "a number above 0", |&d: &f64| d > 0.0 && d.is_finite())?,
            rows: options.parse("rows", "a number from 1 on", |&r: &usize| r > 0)?,
            unit,
            seed,
        }))
    },
};

struct Obs {
    damp: f64,
    rows: usize,
    unit: Unit,
    seed: u64,
}

enum Unit {
    Output,
    Layer,
    Raw,
}

impl Criterion for Obs {
    fn needs_images(&self) -> bool {
        true
    }

    fn score_site(&self, site: &WeightSite) -> Result<Option<Vec<f64>>> {
        let Some(inputs) = site.inputs() else { return Ok(None) };
        let sample = Sample::new(site, &inputs, self.rows, self.seed);
        let len = site.weights.len;
        let mut scores = vec![0.0; site.weights.data.len()];
        for group in 0..inputs.groups() {
            let sums = InputSums::new(site, &inputs, &sample, group);
            let ridge = self.damp * (0..len).map(|i| sums.covariance(i, i)).sum::<f64>() / len as f64;
            let mut by_support: HashMap<Vec<usize>, Vec<usize>> = HashMap::new();
            for row in inputs.outputs(group) {
                let support = (0..len).filter(|&i| site.weights.row(row)[i] != 0.0).collect();
                by_support.entry(support).or_default().push(row);
            }
            let done: Vec<(usize, Vec<(usize, f64)>)> = by_support
                .into_par_iter()
                .flat_map_iter(|(support, rows)| {
                    let losses = inverse_diagonal(&sums, &support, ridge);
                    let score = |row: usize| {
                        let weights = site.weights.row(row);
                        let of = |(&i, inverse): (&usize, &f64)| (i, f64::from(weights[i]).powi(2) / inverse);
                        (row, support.iter().zip(&losses).map(of).collect())
                    };
                    rows.into_iter().map(score).collect::<Vec<_>>()
                })
                .collect();
            for (row, losses) in done {
                let unit = self.unit(site, &sums, row);
                losses.into_iter().for_each(|(i, loss)| scores[row * len + i] = loss * unit);
            }
        }
        if matches!(self.unit, Unit::Layer) {
            let rows = site.weights.rows;
            let of = |row: usize| site.norm.as_ref().map_or(1.0, |norm| norm.gamma[row].powi(2));
            let mean = (0..rows).map(of).sum::<f64>() / rows as f64;
            scores.iter_mut().for_each(|score| *score /= mean.max(f64::MIN_POSITIVE));
        }
        // Pruned weights keep the score 0.
        Ok(Some(scores))
    }
}

impl Obs {
    fn unit(&self, site: &WeightSite, _sums: &InputSums, row: usize) -> f64 {
        let scale = site.norm.as_ref().map_or(1.0, |norm| norm.scale(row));
        match self.unit {
            Unit::Output => scale * scale,
            Unit::Layer => scale * scale,
            Unit::Raw => 1.0,
        }
    }
}

/// The diagonal of the inverse covariance of the inputs in `support`. The ridge grows until the matrix is positive definite.
fn inverse_diagonal(sums: &InputSums, support: &[usize], ridge: f64) -> Vec<f64> {
    let n = support.len();
    let mut matrix = vec![0.0; n * n];
    for a in 0..n {
        (0..=a).for_each(|b| matrix[a * n + b] = sums.covariance(support[b], support[a]));
    }
    let mut ridge = ridge.max(f64::MIN_POSITIVE);
    loop {
        let mut damped = matrix.clone();
        (0..n).for_each(|a| damped[a * n + a] += ridge);
        if let Some(cholesky) = Cholesky::new(damped, n) {
            return cholesky.inverse_diagonal();
        }
        ridge = ridge.max(1e-12) * 10.0;
    }
}
