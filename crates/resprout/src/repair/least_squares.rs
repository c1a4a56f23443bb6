//! Fixed-mask least squares: every row of surviving weights is fitted anew to what the dense network
//! computes, from what the repaired network's layers before it deliver.

use super::{Build, Repair, Stage};
use crate::calibrate::normal::{Inputs, Sample};
use crate::calibrate::target::DenseTarget;
use crate::calibrate::{Needs, NormSite, NormalEquations, Visitor, WeightSite};
use crate::error::Result;
use crate::linalg::{Cholesky, dot};
use crate::table::{Entry, OptionSpec};
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "least-squares",
    about: "fits the surviving weights of every output to the dense network's, then its BatchNormalization",
    paper: "the fixed-mask step of Frantar and Alistarh, Optimal Brain Compression, NeurIPS 2022, in sequence with the \
            repaired network's own inputs",
    options: &[
        OptionSpec {
            name: "damp",
            about: "ridge, by the inputs' mean variance and the number of weights per output and image",
            default: "0.1",
        },
        OptionSpec { name: "rows", about: "about how many positions of all images are used per layer", default: "65536" },
        OptionSpec {
            name: "target",
            about: "layer, or sum to make good what the other summand behind the layer has lost",
            default: "sum",
        },
        OptionSpec { name: "activation", about: "rounds of fitting only what the activation behind lets through", default: "1" },
        OptionSpec { name: "norm", about: "the BatchNormalization behind: fit or recalibrate", default: "fit" },
        OptionSpec { name: "seed", about: "which positions are drawn", default: "0" },
    ],
    build: |options| {
        let norm = options.text("norm");
        let target = options.text("target");
        if !["fit", "recalibrate"].contains(&norm) {
            return Err(options.error("norm", "fit or recalibrate"));
        }
        if !["layer", "sum"].contains(&target) {
            return Err(options.error("target", "layer or sum"));
        }
        Ok(Box::new(LeastSquares {
            damp: options.parse("damp", "a number from 0 on", |&d: &f64| d >= 0.0 && d.is_finite())?,
            rows: options.parse("rows", "a number from 1 on", |&r: &usize| r > 0)?,
            sum: target == "sum",
            rounds: options.parse("activation", "a number of rounds up to 100", |&r: &usize| r <= 100)?,
            recalibrate: norm == "recalibrate",
            seed: options.parse("seed", "a number", |_: &u64| true)?,
        }))
    },
};

struct LeastSquares {
    damp: f64,
    rows: usize,
    sum: bool,
    rounds: usize,
    recalibrate: bool,
    seed: u64,
}

impl Visitor for LeastSquares {
    fn needs(&self) -> Needs {
        Needs { images: true, dense: true, weights: true, batch: None }
    }

    fn weights(&self, site: &mut WeightSite) -> Result<()> {
        let Some(inputs) = site.inputs() else { return Ok(()) };
        let sample = Sample::new(site, &inputs, self.rows, self.seed);
        // The fit is made behind the dense network's BatchNormalization.
        if site.norm.is_some() {
            site.norm.clone_from(&site.dense_norm);
        }
        let prior = site.weights.data.clone();
        let target = DenseTarget::new(site, self.sum, false)?;
        let groups = (0..inputs.groups()).into_par_iter();
        let mut equations: Vec<NormalEquations> =
            groups.map(|group| NormalEquations::new(site, &inputs, &sample, group, &target)).collect();
        self.fit(site, &equations, &inputs, &prior);
        for _ in 0..if site.has_activation() { self.rounds } else { 0 } {
            site.refresh()?;
            let target = DenseTarget::new(site, self.sum, true)?;
            let groups = equations.par_iter_mut().enumerate();
            groups.for_each(|(group, equations)| equations.retarget(site, &inputs, &sample, group, &target));
            self.fit(site, &equations, &inputs, &prior);
        }
        Ok(())
    }

    fn norm(&self, site: &mut NormSite) -> Result<()> {
        if self.recalibrate {
            super::batch_norm::exact(site);
        }
        Ok(())
    }
}

impl Repair for LeastSquares {
    fn stage(&self) -> Stage {
        Stage::Weights
    }
}

impl LeastSquares {
    /// Solves for every output, and lets bias or BatchNormalization take the intercept.
    fn fit(&self, site: &mut WeightSite, equations: &[NormalEquations], inputs: &Inputs, prior: &[f32]) {
        let centred = site.norm.is_some() || site.bias.is_some();
        let groups = equations.par_iter().enumerate();
        let solutions: Vec<Vec<Solution>> =
            groups.map(|(group, equations)| solve(site, equations, inputs.outputs(group), centred, self.damp, prior)).collect();
        let mut failed = 0;
        for (row, solution) in solutions.into_iter().flatten().enumerate() {
            let Some((weights, intercept)) = solution else {
                failed += 1;
                continue;
            };
            site.weights.row_mut(row).iter_mut().zip(&weights).for_each(|(to, from)| *to = *from as f32);
            match (&mut site.norm, &site.dense_norm, &mut site.bias) {
                (Some(norm), Some(dense), bias) => {
                    // The layer's own bias, if any, is part of what the dense network computes.
                    let own = bias.as_ref().map_or(0.0, |bias| bias[row]);
                    norm.mean[row] = dense.mean[row] - (intercept - own);
                }
                (_, _, Some(bias)) => bias[row] = intercept,
                _ => {}
            }
        }
        if failed > 0 {
            site.warnings.push(format!("the equations of {failed} outputs are singular; these keep their weights"));
        }
        site.touch();
    }
}

/// Weights (zeros where pruned) and intercept.
type Solution = Option<(Vec<f64>, f64)>;

/// Outputs with the same surviving weights share a decomposition. The ridge draws weights to `prior`,
/// what they were: where images say little, little changes.
fn solve(
    site: &WeightSite,
    equations: &NormalEquations,
    outputs: Range<usize>,
    centred: bool,
    damp: f64,
    prior: &[f32],
) -> Vec<Solution> {
    let len = site.weights.len;
    let first = outputs.start;
    let mut by_support: HashMap<Vec<u32>, Vec<usize>> = HashMap::new();
    for row in outputs.clone() {
        let support = (0..len).filter(|&i| site.weights.kept(row, i)).map(|i| i as u32).collect();
        by_support.entry(support).or_default().push(row);
    }
    let images = site.images() as f64;
    let ridge = damp * (0..len).map(|i| entry(equations, i, i, centred)).sum::<f64>() / len.max(1) as f64;
    let rows_of = |(support, rows): (Vec<u32>, Vec<usize>)| {
        // The fewer images for the weights of a row, the less they can say.
        let ridge = ridge * support.len() as f64 / images;
        let system = System::new(equations, support, centred, ridge);
        let solved = |row: usize| system.as_ref()?.solve(row - first, &prior[row * len..][..len]);
        rows.into_iter().map(|row| (row - first, solved(row))).collect::<Vec<_>>()
    };
    let solutions: Vec<(usize, Solution)> = by_support.into_par_iter().flat_map_iter(rows_of).collect();
    let mut ordered: Vec<Solution> = vec![None; outputs.len()];
    solutions.into_iter().for_each(|(row, solution)| ordered[row] = solution);
    ordered
}

fn entry(equations: &NormalEquations, i: usize, j: usize, centred: bool) -> f64 {
    if centred { equations.inputs.covariance(i, j) } else { equations.inputs.product(i, j) / equations.inputs.count }
}

/// The equations of the weights that survive in a row.
struct System<'e> {
    equations: &'e NormalEquations,
    support: Vec<u32>,
    centred: bool,
    /// `[n][n]` without ridge, the lower triangle.
    matrix: Vec<f64>,
    decomposed: Cholesky,
}

impl System<'_> {
    /// With more and more ridge where the equations are singular.
    fn new(equations: &NormalEquations, support: Vec<u32>, centred: bool, ridge: f64) -> Option<System<'_>> {
        let n = support.len();
        let mut matrix = vec![0.0; n * n];
        for (a, &i) in support.iter().enumerate() {
            for (b, &j) in support[..=a].iter().enumerate() {
                matrix[a * n + b] = entry(equations, j as usize, i as usize, centred);
            }
        }
        let mean = (0..n).map(|a| matrix[a * n + a]).sum::<f64>() / n.max(1) as f64;
        let mut ridge = ridge.max(mean * 1e-12).max(1e-300);
        for _ in 0..8 {
            let mut damped = matrix.clone();
            (0..n).for_each(|a| damped[a * n + a] += ridge);
            if let Some(decomposed) = Cholesky::new(damped, n) {
                return Some(System { equations, support, centred, matrix, decomposed });
            }
            ridge *= 10.0;
        }
        None
    }

    /// Weights and intercept of output `row` of the group.
    fn solve(&self, row: usize, prior: &[f32]) -> Solution {
        let (equations, n) = (self.equations, self.support.len());
        let prior: Vec<f64> = self.support.iter().map(|&i| f64::from(prior[i as usize])).collect();
        let wanted = |&i: &u32| match self.centred {
            true => equations.target_covariance(row, i as usize),
            false => equations.target_product(row, i as usize),
        };
        // The change of the weights from what their prior values leave to be explained.
        let mut change: Vec<f64> = self.support.iter().map(wanted).collect();
        for a in 0..n {
            let line = &self.matrix[a * n..][..=a];
            change[a] -= dot(line, &prior[..=a]);
            (0..a).for_each(|b| change[b] -= line[b] * prior[a]);
        }
        self.decomposed.solve(&mut change);
        let solution: Vec<f64> = prior.iter().zip(&change).map(|(prior, change)| prior + change).collect();
        let means: Vec<f64> = self.support.iter().map(|&i| equations.inputs.mean(i as usize)).collect();
        let intercept = if self.centred { equations.target_mean(row) - dot(&means, &solution) } else { 0.0 };
        let mut weights = vec![0.0; equations.inputs.width - 1];
        self.support.iter().zip(&solution).for_each(|(&i, &w)| weights[i as usize] = w);
        let finite = intercept.is_finite() && weights.iter().all(|&w| (w as f32).is_finite());
        finite.then_some((weights, intercept))
    }
}
