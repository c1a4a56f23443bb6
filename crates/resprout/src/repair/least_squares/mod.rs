//! Fixed-mask least squares: fits the kept weights of every output to the dense network's output. The inputs are those of
//! the repaired network.

mod conjugate;
mod cost;
mod equations;
mod solve;

use super::{Build, Repair, Stage};
use crate::calibrate::inputs::Inputs;
use crate::calibrate::normal::Rows;
use crate::calibrate::sample::Sample;
use crate::calibrate::target::DenseTarget;
use crate::calibrate::{Needs, NormSite, Outline, Visitor, WeightSite};
use crate::error::{Error, Result};
use crate::table::{Entry, OptionSpec};
use equations::{Equations, RowSystem};
use rayon::prelude::*;
use solve::Solver;

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
            damp: options.parse("damp", "a number from 0 on", |&damp| is_damp(damp))?,
            rows: options.parse("rows", "a number from 1 on", |&rows| are_rows(rows))?,
            sum: target == "sum",
            rounds: options.parse("activation", "a number of rounds up to 100", |&r: &usize| r <= 100)?,
            recalibrate: norm == "recalibrate",
            seed: options.parse("seed", "a number", |_: &u64| true)?,
        }))
    },
};

/// The repair `least-squares`: fits the kept weights of every output to the dense network's output, layer by layer.
///
/// It is the fixed-mask step of Frantar and Alistarh, Optimal Brain Compression, NeurIPS 2022. Each layer reads what the repaired
/// layers before it compute. The BatchNormalization behind it is fitted too. Defaults are those of the row in
/// [`REPAIRS`](super::REPAIRS).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LeastSquares {
    /// Ridge, relative to the inputs' mean variance and the number of weights per output and image; from 0 on. 0.1 by default.
    pub damp: f64,
    /// About how many positions of all images are used per layer; from 1 on, 65,536 by default.
    pub rows: usize,
    /// Whether a layer before a residual sum compensates for the error of the other summand. It does by default.
    pub sum: bool,
    /// Rounds in which errors beyond the bounds of the activation behind the layer do not count; up to 100, 1 by default.
    pub rounds: usize,
    /// Whether the BatchNormalization that follows is recalibrated instead of fitted: its mean and variance are measured again.
    /// It is fitted by default.
    pub recalibrate: bool,
    /// Seed of the drawn positions; 0 by default.
    pub seed: u64,
}

fn is_damp(damp: f64) -> bool {
    damp >= 0.0 && damp.is_finite()
}

fn are_rows(rows: usize) -> bool {
    rows > 0
}

impl Default for LeastSquares {
    fn default() -> LeastSquares {
        LeastSquares { damp: 0.1, rows: 65536, sum: true, rounds: 1, recalibrate: false, seed: 0 }
    }
}

impl Visitor for LeastSquares {
    fn needs(&self) -> Needs {
        Needs { images: true, dense: true, weights: true, batch: None }
    }

    fn seconds(&self, layer: &Outline) -> f64 {
        cost::seconds(layer, self.rows, if layer.activation { self.rounds } else { 0 }, self.damp)
    }

    fn weights(&self, site: &mut WeightSite) -> Result<()> {
        let LeastSquares { damp, rows, .. } = *self;
        if !is_damp(damp) || !are_rows(rows) {
            return Err(Error::option(format!(
                "repair least-squares: damp {damp}, rows {rows}: a number from 0 on and one from 1 on are needed"
            )));
        }
        if site.statistics_only {
            return super::bias::shift(site);
        }
        let Some(inputs) = site.inputs() else { return Ok(()) };
        let sample = Sample::new(site, &inputs, self.rows, self.seed);
        // The fit is in units after the dense network's BatchNormalization.
        if site.norm.is_some() {
            site.norm.clone_from(&site.dense_norm);
        }
        let rows: Vec<Option<RowSystem>> = {
            let site: &WeightSite = site;
            let target = DenseTarget::new(site, self.sum)?;
            let groups = (0..inputs.groups()).into_par_iter();
            groups.flat_map_iter(|group| self.group(site, &inputs, &sample, group, &target)).collect()
        };
        store(site, rows);
        Ok(())
    }

    fn norm(&self, site: &mut NormSite) -> Result<()> {
        if self.recalibrate || site.statistics_only {
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

/// Outputs per batch of solvers.
const BATCH_OUTPUTS: usize = 512;
/// Memory of a batch's decompositions.
const SOLVER_BYTES: usize = 256 << 20;

impl LeastSquares {
    /// Fits every output of a group; `None` where its equations are singular.
    fn group(
        &self,
        site: &WeightSite,
        inputs: &Inputs,
        sample: &Sample,
        group: usize,
        target: &DenseTarget,
    ) -> Vec<Option<RowSystem>> {
        let mut rows = Rows::new(site, inputs, sample, group, inputs.groups());
        let outputs: Vec<usize> = inputs.outputs(group).collect();
        let supports = equations::supports(site, &outputs);
        let (sums, cross) = rows.sums(Some((target, &equations::kept(&supports, &outputs))));
        let equations = Equations::new(site, sums, self.damp);
        let rounds = if site.has_activation() { self.rounds } else { 0 };
        let solver = Solver::new(&equations, &supports);
        let mut solutions: Vec<Option<RowSystem>> = vec![None; outputs.len()];
        let first = outputs[0];
        let right = |cross: &[f64], at: usize| cross[at * equations.width()..][..equations.width()].to_vec();
        for batch in solver.batches(BATCH_OUTPUTS, SOLVER_BYTES / inputs.groups()) {
            let members: Vec<usize> = batch.iter().flat_map(|&s| &supports[s].outputs).map(|&output| output - first).collect();
            let mut systems = solver.prepare(batch, site);
            let mut found = systems.solve(members.iter().map(|&m| right(&cross[..], m)).collect());
            for _ in 0..rounds {
                let current = equations::current(site, first, &members, &found);
                let outputs: Vec<usize> = members.iter().map(|&m| first + m).collect();
                let cross = rows.cross(&outputs, target, &current);
                found = systems.solve((0..members.len()).map(|at| right(&cross[..], at)).collect());
            }
            members.into_iter().zip(found).for_each(|(m, row)| solutions[m] = row);
        }
        solutions
    }
}

/// Writes the solutions. Bias or BatchNormalization takes the intercept.
fn store(site: &mut WeightSite, rows: Vec<Option<RowSystem>>) {
    let mut failed = 0;
    for (output, row) in rows.into_iter().enumerate() {
        let Some(RowSystem { support, weights, intercept }) = row else {
            failed += 1;
            continue;
        };
        let own = site.bias_of(output);
        let stored = site.weights.row_mut(output);
        stored.fill(0.0);
        support.iter().zip(&weights).for_each(|(&i, &w)| stored[i as usize] = w as f32);
        match (&mut site.norm, &site.dense_norm, &mut site.bias) {
            (Some(norm), Some(dense), _) => {
                // The dense network's output contains the layer's own bias, if any.
                norm.mean[output] = dense.mean[output] - (intercept - own);
            }
            (_, _, Some(bias)) => bias[output] = intercept,
            _ => {}
        }
    }
    if failed > 0 {
        site.warnings.push(format!("the equations of {failed} outputs are singular; these keep their weights"));
    }
    site.touch();
}
