//! Solves a group's equations. Each output takes the cheaper of two solvers: a decomposition of its own, or conjugate
//! gradients that serve many outputs at once.

use super::conjugate::{Conjugate, State};
use super::cost::Costs;
use super::equations::{Equations, RowSystem, Support};
use crate::calibrate::WeightSite;
use rayon::prelude::*;
use resprout_kernels::Isa;
use resprout_kernels::cholesky::Cholesky;
use std::sync::Arc;

/// The number of ridges that are tried for singular equations, each ten times the last.
const TRIES: usize = 8;

/// Returns the weights that an output had, and its bias.
type Prior<'p> = &'p dyn Fn(&Support, usize) -> (Vec<f64>, f64);

/// The equations of a group, and how each support is solved.
pub(super) struct Solver<'e> {
    equations: &'e Equations,
    supports: &'e [Support],
    /// Whether a support is solved by conjugate gradients.
    iterative: Vec<bool>,
    conjugate: Option<Conjugate>,
}

impl<'e> Solver<'e> {
    /// Chooses a solver for every support.
    pub fn new(equations: &'e Equations, supports: &'e [Support]) -> Solver<'e> {
        let iterative = choose_iterative(equations, supports);
        let conjugate = iterative.contains(&true).then(|| Conjugate::new(equations));
        Solver { equations, supports, iterative, conjugate }
    }

    #[cfg(test)]
    fn with(equations: &'e Equations, supports: &'e [Support], iterative: bool) -> Solver<'e> {
        let conjugate = iterative.then(|| Conjugate::new(equations));
        Solver { equations, supports, iterative: vec![iterative; supports.len()], conjugate }
    }

    /// Supports in batches of up to `outputs` outputs and `bytes` bytes of decompositions.
    pub fn batches(&self, outputs: usize, bytes: usize) -> Vec<Vec<usize>> {
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let (mut outputs_left, mut bytes_left) = (0, 0);
        for (at, support) in self.supports.iter().enumerate() {
            let needed = if self.iterative[at] { 0 } else { Cholesky::bytes(support.indices.len()) };
            if batches.is_empty() || support.outputs.len() > outputs_left || needed > bytes_left {
                batches.push(Vec::new());
                (outputs_left, bytes_left) = (outputs, bytes);
            }
            outputs_left = outputs_left.saturating_sub(support.outputs.len());
            bytes_left = bytes_left.saturating_sub(needed);
            batches.last_mut().into_iter().for_each(|batch| batch.push(at));
        }
        batches
    }

    /// The decompositions of a batch, and the initial states of conjugate gradients.
    pub fn prepare(&self, batch: Vec<usize>, site: &WeightSite) -> Systems<'_> {
        let prior = |support: &Support, output: usize| {
            let weights = site.weights.row(output);
            (support.indices.iter().map(|&i| f64::from(weights[i as usize])).collect(), site.bias_of(output))
        };
        self.prepare_from(batch, &prior)
    }

    /// As [`prepare`](Self::prepare), with weights and biases from `prior`.
    fn prepare_from(&self, batch: Vec<usize>, prior: Prior) -> Systems<'_> {
        let factors: Vec<Option<Factor>> = batch
            .par_iter()
            .map(|&at| if self.iterative[at] { None } else { Factor::new(self.equations, &self.supports[at].indices) })
            .collect();
        let mut members = Vec::new();
        for (place, &at) in batch.iter().enumerate() {
            let support = &self.supports[at];
            members.extend(support.outputs.iter().map(|&output| {
                let (prior, own) = prior(support, output);
                Member { at, place, prior, own }
            }));
        }
        let state = |conjugate: &Conjugate, member: &Member| {
            let support = &self.supports[member.at].indices;
            conjugate.state(support, self.equations.ridge(support), &member.prior)
        };
        let states = match &self.conjugate {
            Some(conjugate) => {
                members.par_iter().map(|member| self.iterative[member.at].then(|| state(conjugate, member))).collect()
            }
            None => (0..members.len()).map(|_| None).collect(),
        };
        Systems { solver: self, factors, members, states }
    }
}

/// Whether each support is solved by conjugate gradients. The total gain must exceed the cost of their set-up.
fn choose_iterative(equations: &Equations, supports: &[Support]) -> Vec<bool> {
    let len = equations.len;
    let mean = (0..len).map(|i| equations.diagonal(i)).sum::<f64>() / len.max(1) as f64;
    let gain = |support: &Support| {
        let (n, ridge) = (support.indices.len(), equations.ridge(&support.indices) / mean.max(f64::MIN_POSITIVE));
        Costs::direct(n, len) - support.outputs.len() as f64 * Costs::conjugate(n, len, ridge)
    };
    let gains: Vec<f64> = supports.iter().map(gain).collect();
    let all: f64 = gains.iter().filter(|&&gain| gain > 0.0).sum();
    let pays = all > Conjugate::setup(len);
    gains.into_iter().map(|gain| pays && gain > 0.0).collect()
}

/// A decomposition and its ridge.
struct Factor {
    factor: Cholesky,
    ridge: f64,
}

impl Factor {
    /// The ridge grows while the equations are singular.
    fn new(equations: &Equations, support: &[u32]) -> Option<Factor> {
        let mut ridge = equations.ridge(support);
        for _ in 0..TRIES {
            let factor = Cholesky::new(Isa::best(), &equations.matrix, equations.width(), support, ridge);
            if let Some(factor) = factor {
                return Some(Factor { factor, ridge });
            }
            ridge *= 10.0;
        }
        None
    }

    /// The ridge pulls the weights toward `prior`, so directions without data keep their weights.
    fn solve(&self, right: &[f64], prior: &[f64]) -> Vec<f64> {
        let mut weights: Vec<f64> = right.iter().zip(prior).map(|(right, prior)| right + self.ridge * prior).collect();
        self.factor.solve(Isa::best(), &mut weights);
        weights
    }
}

/// An output of a batch.
struct Member {
    at: usize,
    place: usize,
    prior: Vec<f64>,
    own: f64,
}

/// A batch of outputs, to be solved for several right sides.
pub(super) struct Systems<'s> {
    solver: &'s Solver<'s>,
    factors: Vec<Option<Factor>>,
    members: Vec<Member>,
    states: Vec<Option<State>>,
}

impl Systems<'_> {
    /// Solves for products with targets, `[K + 1]` for each output of the batch.
    pub fn solve(&mut self, cross: Vec<Vec<f64>>) -> Vec<Option<RowSystem>> {
        let equations = self.solver.equations;
        let support = |member: &Member| &self.solver.supports[member.at].indices;
        let right = |(member, cross): (&Member, &Vec<f64>)| equations.right_side(support(member), cross, member.own);
        let rights: Vec<Vec<f64>> = self.members.par_iter().zip(&cross).map(right).collect();
        if let Some(conjugate) = &self.solver.conjugate {
            conjugate.solve(&mut self.states, &rights);
        }
        let all = self.members.par_iter().zip(&self.states).zip(rights.par_iter().zip(&cross));
        all.map(|((member, state), (right, cross))| {
            let indices: &Arc<[u32]> = support(member);
            let weights = match state.as_ref().and_then(State::weights) {
                Some(weights) => weights,
                // A row that does not converge falls back to a decomposition.
                None if state.is_some() => Factor::new(equations, indices)?.solve(right, &member.prior),
                None => self.factors[member.place].as_ref()?.solve(right, &member.prior),
            };
            equations.row(indices, weights, cross)
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::{Cholesky as Reference, dot};
    use crate::random::SplitMix64;

    /// Covariances of `rows` draws of `len` inputs with three common factors and very different variances. The products with
    /// targets of `outputs` random rows come second, `[outputs][len + 1]`, and the rows third.
    fn covariances(len: usize, rows: usize, outputs: usize) -> (Vec<f64>, Vec<Vec<f64>>, Vec<Vec<f64>>) {
        let mut random = SplitMix64::new(11, len as u64);
        let mut normal = |count: usize| -> Vec<f64> { (0..count).map(|_| random.next_normal()).collect() };
        let (factors, sizes) = (normal(3 * len), normal(len));
        let mut columns = vec![vec![0.0; rows]; len];
        for row in 0..rows {
            let (common, own) = (normal(3), normal(len));
            for i in 0..len {
                let shared: f64 = (0..3).map(|f| factors[f * len + i] * common[f]).sum();
                columns[i][row] = (shared + own[i]) * sizes[i].exp();
            }
        }
        let covariance = (0..len * len).map(|at| dot(&columns[at / len], &columns[at % len]) / rows as f64).collect::<Vec<_>>();
        let weights: Vec<Vec<f64>> = (0..outputs).map(|_| normal(len)).collect();
        let cross = |weights: &Vec<f64>| covariance.chunks_exact(len).map(|row| dot(row, weights)).chain([0.0]).collect();
        let cross = weights.iter().map(cross).collect();
        (covariance, cross, weights)
    }

    fn random_supports(len: usize, outputs: usize, density: f64) -> Vec<Support> {
        let mut random = SplitMix64::new(5, 0);
        let mut support = |output: usize| Support {
            indices: (0..len as u32).filter(|_| random.next_f64() < density).collect(),
            outputs: vec![output],
        };
        (0..outputs).map(&mut support).collect()
    }

    /// The solution of the reference implementation.
    fn reference(equations: &Equations, support: &[u32], right: &[f64], prior: &[f64]) -> Vec<f64> {
        let (n, ridge) = (support.len(), equations.ridge(support));
        let value = |at: usize| equations.matrix[support[at / n] as usize * equations.width() + support[at % n] as usize];
        let matrix = (0..n * n).map(|at| value(at) + if at / n == at % n { ridge } else { 0.0 }).collect();
        let mut x: Vec<f64> = right.iter().zip(prior).map(|(r, p)| r + ridge * p).collect();
        Reference::new(matrix, n).unwrap().solve(&mut x);
        x
    }

    /// The error in the norm of the equations, relative to the solution.
    fn error(equations: &Equations, support: &[u32], got: &[f64], expected: &[f64]) -> f64 {
        let energy = |x: &[f64]| {
            let value = |i: u32, j: u32| equations.matrix[i as usize * equations.width() + j as usize];
            let row = |i: u32| support.iter().zip(x).map(|(&j, x)| value(i, j) * x).sum::<f64>();
            support.iter().zip(x).map(|(&i, x)| x * row(i)).sum::<f64>()
        };
        let difference: Vec<f64> = got.iter().zip(expected).map(|(a, b)| a - b).collect();
        (energy(&difference).max(0.0) / energy(expected)).sqrt()
    }

    #[test]
    fn both_solvers_equal_the_reference_for_two_right_sides_in_turn() {
        let (len, outputs) = (300, 37);
        let (covariance, cross, weights) = covariances(len, 900, outputs);
        // Conjugate gradients stop at an estimate of the error, and sum products in `f32`.
        for (density, ridge, iterative, tolerance) in
            [(0.3, 1e-4, false, 1e-10), (0.3, 1e-4, true, 1e-5), (0.7, 1e-3, true, 1e-5), (1.0, 1e-3, true, 1e-5)]
        {
            let equations = Equations::of_matrix(&covariance, len, ridge);
            let supports = random_supports(len, outputs, density);
            let solver = Solver::with(&equations, &supports, iterative);
            let prior = |support: &Support, output: usize| {
                (support.indices.iter().map(|&i| weights[output][i as usize]).collect::<Vec<f64>>(), 0.0)
            };
            let mut systems = solver.prepare_from((0..outputs).collect(), &prior);
            for factor in [1.0, 0.8] {
                let scaled: Vec<Vec<f64>> = cross.iter().map(|row| row.iter().map(|v| v * factor).collect()).collect();
                let rows = systems.solve(scaled.clone());
                for ((support, row), cross) in supports.iter().zip(rows).zip(&scaled) {
                    let right = equations.right_side(&support.indices, cross, 0.0);
                    let expected = reference(&equations, &support.indices, &right, &prior(support, support.outputs[0]).0);
                    let error = error(&equations, &support.indices, &row.unwrap().weights, &expected);
                    assert!(error < tolerance, "density {density}, iterative {iterative}: {error}");
                }
            }
        }
    }

    /// A constant input, fewer rows than inputs, and no ridge. Both solvers must return finite weights or none.
    #[test]
    fn singular_equations_get_a_ridge_in_both_solvers() {
        let len = 80;
        let (mut covariance, cross, _) = covariances(len, 40, 4);
        for i in 0..len {
            (covariance[3 * len + i], covariance[i * len + 3]) = (0.0, 0.0);
        }
        let equations = Equations::of_matrix(&covariance, len, 0.0);
        let supports = random_supports(len, 4, 0.9);
        for iterative in [false, true] {
            let solver = Solver::with(&equations, &supports, iterative);
            let prior = |support: &Support, _: usize| (vec![0.0; support.indices.len()], 0.0);
            for row in solver.prepare_from((0..4).collect(), &prior).solve(cross.clone()) {
                assert!(row.is_none_or(|row| row.weights.iter().all(|w| w.is_finite())), "iterative {iterative}");
            }
        }
        let broken = Equations::of_matrix(&vec![f64::NAN; len * len], len, 0.0);
        for iterative in [false, true] {
            let solver = Solver::with(&broken, &supports, iterative);
            let prior = |support: &Support, _: usize| (vec![1.0; support.indices.len()], 0.0);
            assert!(solver.prepare_from((0..4).collect(), &prior).solve(cross.clone()).iter().all(Option::is_none));
        }
    }

    #[test]
    fn batches_hold_every_support_once_and_keep_their_limits() {
        let equations = Equations::of_matrix(&[1.0], 1, 0.0);
        let supports = random_supports(1, 10, 0.5);
        let solver = Solver::with(&equations, &supports, false);
        let batches = solver.batches(3, usize::MAX);
        assert!(batches.iter().all(|batch| batch.len() <= 3));
        assert_eq!(batches.concat(), (0..10).collect::<Vec<_>>());
        assert_eq!(solver.batches(3, 0).concat(), (0..10).collect::<Vec<_>>());
    }
}
