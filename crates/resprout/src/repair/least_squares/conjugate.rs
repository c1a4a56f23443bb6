//! Conjugate gradients for all outputs of a group at once. Their systems are submatrices of one matrix, so one product with
//! that matrix serves all of them.
//!
//! The preconditioner takes the matrix's largest directions exactly and the rest as a diagonal. It is a Nyström approximation:
//! Frangella, Tropp and Udell, Randomized Nyström preconditioning, SIAM J. Matrix Anal. Appl. 2023.
//!
//! Sums of up to 512 products are computed in `f32`, sums of these and all vectors in `f64`. The result of a row depends on
//! no other row.

use super::cost::Costs;
use super::equations::Equations;
use crate::linalg::{Cholesky as Small, dot};
use crate::random::SplitMix64;
use rayon::prelude::*;
use resprout_kernels::Isa;
use resprout_kernels::cholesky::Cholesky;
use resprout_kernels::dense::COLS;
use resprout_kernels::gram::{PackedRows, accumulate};
use resprout_kernels::low_rank::{Direction, RANK, expand, project};
use std::sync::Arc;

/// The relative error at which a row has converged, in the norm of the equations (the output's standard deviation). The
/// preconditioner estimates it.
const TOLERANCE: f64 = 1e-6;
/// Steps after which a row falls back to a decomposition.
const MOST_STEPS: usize = 100;

/// A matrix packed for products, and its largest directions.
pub(super) struct Conjugate {
    len: usize,
    packs: Vec<PackedRows>,
    directions: Vec<Direction>,
    /// The diagonal without the part of the directions.
    rest: Vec<f64>,
}

/// A sparse vector: indices and values.
type Vector<'v> = (&'v [u32], &'v [f64]);

/// The state of one output between two right sides.
pub(super) struct State {
    support: Arc<[u32]>,
    ridge: f64,
    weights: Vec<f64>,
    /// The right side minus the product of matrix and weights.
    residual: Vec<f64>,
    direction: Vec<f64>,
    /// `residual' * inv(preconditioner) * residual`
    square: f64,
    right: Vec<f64>,
    /// The output's variance. Errors are relative to it.
    scale: f64,
    inverse_diagonal: Vec<f64>,
    /// `1 + F' inv(D) F`
    core: Option<Cholesky>,
    started: bool,
    converged: bool,
    /// Whether a value is not finite, or a direction has no positive curvature.
    failed: bool,
}

impl Conjugate {
    /// Prepares the matrix of a group.
    pub fn new(equations: &Equations) -> Conjugate {
        let (len, width) = (equations.len, equations.width());
        let pack = |first: usize| {
            let rows = PackedRows::MOST.min(len - first);
            let mut packed = PackedRows::zeros(len, rows);
            for row in 0..rows {
                let values = &equations.matrix[(first + row) * width..][..len];
                packed.set_row(row, &values.iter().map(|&v| v as f32).collect::<Vec<_>>());
            }
            packed
        };
        let starts: Vec<usize> = (0..len).step_by(PackedRows::MOST).collect();
        let mut conjugate = Conjugate {
            len,
            packs: starts.into_par_iter().map(pack).collect(),
            directions: vec![[0.0; RANK]; len],
            rest: (0..len).map(|i| equations.diagonal(i)).collect(),
        };
        if let Some(directions) = conjugate.largest_directions() {
            conjugate.directions = directions;
            let squares = conjugate.directions.iter().map(|d| d.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>());
            conjugate.rest.iter_mut().zip(squares).for_each(|(rest, square)| *rest = (*rest - square).max(0.0));
        }
        conjugate
    }

    /// The seconds of [`new`](Self::new), in units of [`Costs`].
    pub fn setup(len: usize) -> f64 {
        3.0 * RANK as f64 * Costs::product(len)
    }

    /// `F` with `matrix = F F'` on a space of few dimensions. Random vectors span it after products with the matrix.
    fn largest_directions(&self) -> Option<Vec<Direction>> {
        let mut random = SplitMix64::new(0, self.len as u64);
        let all: Vec<u32> = (0..self.len as u32).collect();
        let mut space: Vec<Vec<f64>> = (0..RANK).map(|_| (0..self.len).map(|_| random.next_normal()).collect()).collect();
        let times = |space: &[Vec<f64>]| -> Vec<Vec<f64>> {
            let vectors: Vec<Vector> = space.iter().map(|v| (&all[..], &v[..])).collect();
            self.products(&vectors).chunks_exact(self.len).map(<[f64]>::to_vec).collect()
        };
        for _ in 0..2 {
            space = times(&space);
            orthonormalise(&mut space);
        }
        let images = times(&space);
        let inner = |at: usize| dot(&space[at / RANK], &images[at % RANK]);
        let mut core: Vec<f64> = (0..RANK * RANK).into_par_iter().map(inner).collect();
        let trace: f64 = (0..RANK).map(|i| core[i * RANK + i]).sum();
        (0..RANK).for_each(|i| core[i * RANK + i] += trace.abs() * 1e-7);
        let factor = Small::new(core, RANK)?;
        let direction = |i: usize| -> Direction {
            let mut values: Vec<f64> = images.iter().map(|image| image[i]).collect();
            factor.solve_lower(&mut values);
            std::array::from_fn(|c| values[c] as f32)
        };
        Some((0..self.len).into_par_iter().map(direction).collect())
    }

    /// The matrix times each of the vectors: `[vectors][K]`.
    fn products(&self, vectors: &[Vector]) -> Vec<f64> {
        let mut out = vec![0.0; vectors.len() * self.len];
        let pack = |(at, matrix): (usize, &PackedRows)| {
            let first = at * PackedRows::MOST;
            let mut packed = PackedRows::zeros(vectors.len(), matrix.rows());
            for (m, (indices, values)) in vectors.iter().enumerate() {
                let from = indices.partition_point(|&i| (i as usize) < first);
                let to = indices.partition_point(|&i| (i as usize) < first + matrix.rows());
                for (&i, &value) in indices[from..to].iter().zip(&values[from..to]) {
                    packed.set(i as usize - first, m, value as f32);
                }
            }
            packed
        };
        let left: Vec<PackedRows> = self.packs.par_iter().enumerate().map(pack).collect();
        // The vectors of a strip share each read of the matrix. The results do not depend on the strips.
        let strip = vectors.len().div_ceil(rayon::current_num_threads()).next_multiple_of(COLS).clamp(COLS, 8 * COLS);
        out.par_chunks_mut(strip * self.len).enumerate().for_each(|(i, out)| {
            accumulate(Isa::best(), &left, &self.packs, i * strip, 0, out);
        });
        out
    }

    /// The initial state of an output, with the weights it had.
    pub fn state(&self, support: &Arc<[u32]>, ridge: f64, prior: &[f64]) -> State {
        let inverse_diagonal: Vec<f64> = support.iter().map(|&i| 1.0 / (ridge + self.rest[i as usize])).collect();
        State {
            core: self.core(support, &inverse_diagonal),
            inverse_diagonal,
            support: support.clone(),
            ridge,
            weights: prior.to_vec(),
            residual: Vec::new(),
            direction: Vec::new(),
            square: 0.0,
            right: Vec::new(),
            scale: 0.0,
            started: false,
            converged: false,
            failed: false,
        }
    }

    fn core(&self, support: &[u32], inverse_diagonal: &[f64]) -> Option<Cholesky> {
        let mut core = vec![0.0; RANK * RANK];
        for (support, inverse) in support.chunks(PackedRows::MOST).zip(inverse_diagonal.chunks(PackedRows::MOST)) {
            let mut packed = PackedRows::zeros(RANK, support.len());
            for (row, (&i, inverse)) in support.iter().zip(inverse).enumerate() {
                let scale = inverse.sqrt() as f32;
                packed.set_row(row, &self.directions[i as usize].map(|v| v * scale));
            }
            let packed = [packed];
            accumulate(Isa::best(), &packed, &packed, 0, 0, &mut core);
        }
        let all: Vec<u32> = (0..RANK as u32).collect();
        Cholesky::new(Isa::best(), &core, RANK, &all, 1.0)
    }

    /// Solves every row's equations for a new right side, from the row's current state.
    pub fn solve(&self, states: &mut [Option<State>], rights: &[Vec<f64>]) {
        self.start(states);
        states.par_iter_mut().zip(rights).for_each(|(state, right)| {
            if let Some(state) = state {
                state.exchange(right);
                self.first_direction(state);
            }
        });
        for _ in 0..MOST_STEPS {
            let mut active: Vec<&mut State> =
                states.iter_mut().flatten().filter(|state| !state.converged && !state.failed).collect();
            if active.is_empty() {
                return;
            }
            let vectors: Vec<Vector> = active.iter().map(|state| (&state.support[..], &state.direction[..])).collect();
            let products = self.products(&vectors);
            active.par_iter_mut().zip(products.par_chunks_exact(self.len)).for_each(|(state, product)| self.step(state, product));
        }
    }

    /// The residuals of the initial weights, without the right sides.
    fn start(&self, states: &mut [Option<State>]) {
        let mut fresh: Vec<&mut State> = states.iter_mut().flatten().filter(|state| !state.started).collect();
        if fresh.is_empty() {
            return;
        }
        let vectors: Vec<Vector> = fresh.iter().map(|state| (&state.support[..], &state.weights[..])).collect();
        let products = self.products(&vectors);
        for (state, product) in fresh.iter_mut().zip(products.chunks_exact(self.len)) {
            // The ridge pulls toward these weights, so it has no part yet.
            state.residual = state.support.iter().map(|&i| -product[i as usize]).collect();
            state.right = vec![0.0; state.support.len()];
            let explained = -dot(&state.residual, &state.weights);
            state.scale = explained.max(0.0) + state.ridge * dot(&state.weights, &state.weights);
            state.started = true;
        }
    }

    fn first_direction(&self, state: &mut State) {
        state.direction = self.precondition(state);
        state.square = dot(&state.residual, &state.direction);
        state.check();
    }

    /// One step of a row: Golub and Van Loan, Matrix Computations, section 11.5.
    fn step(&self, state: &mut State, product: &[f64]) {
        let along = |(&i, p): (&u32, &f64)| product[i as usize] + state.ridge * p;
        let image: Vec<f64> = state.support.iter().zip(&state.direction).map(along).collect();
        let curvature = dot(&state.direction, &image);
        state.failed |= curvature.is_nan() || curvature <= 0.0;
        let length = state.square / curvature;
        state.scale = state.scale.max(length * state.square);
        state.weights.iter_mut().zip(&state.direction).for_each(|(w, p)| *w += length * p);
        state.residual.iter_mut().zip(&image).for_each(|(r, q)| *r -= length * q);
        let conditioned = self.precondition(state);
        let square = dot(&state.residual, &conditioned);
        let keep = square / state.square;
        state.direction.iter_mut().zip(&conditioned).for_each(|(p, z)| *p = z + keep * *p);
        state.square = square;
        state.check();
    }

    fn precondition(&self, state: &State) -> Vec<f64> {
        let scaled: Vec<f64> = state.residual.iter().zip(&state.inverse_diagonal).map(|(r, d)| r * d).collect();
        let Some(core) = &state.core else { return scaled };
        let (mut inner, mut back) = ([0.0; RANK], vec![0.0; scaled.len()]);
        project(Isa::best(), &self.directions, &state.support, &scaled, &mut inner);
        core.solve(Isa::best(), &mut inner);
        expand(Isa::best(), &self.directions, &state.support, &inner, &mut back);
        scaled.iter().zip(back).zip(&state.inverse_diagonal).map(|((s, b), d)| s - b * d).collect()
    }
}

impl State {
    /// Replaces the right side. The product of matrix and weights stays.
    fn exchange(&mut self, right: &[f64]) {
        for ((residual, old), new) in self.residual.iter_mut().zip(&self.right).zip(right) {
            *residual += new - old;
        }
        self.right = right.to_vec();
        self.converged = false;
    }

    fn check(&mut self) {
        self.converged = self.square <= TOLERANCE * TOLERANCE * self.scale;
        self.failed |= !(self.square.is_finite() && self.square >= 0.0 && self.scale.is_finite());
    }

    /// The solution, if the row has converged.
    pub fn weights(&self) -> Option<Vec<f64>> {
        (self.converged && !self.failed && self.weights.iter().all(|w| w.is_finite())).then(|| self.weights.clone())
    }
}

/// Modified Gram-Schmidt, applied twice for orthogonality up to rounding. Dependent vectors become zero.
fn orthonormalise(space: &mut [Vec<f64>]) {
    for at in 0..space.len() {
        let (done, rest) = space.split_at_mut(at);
        let vector = &mut rest[0];
        let before = dot(vector, vector);
        for _ in 0..2 {
            for other in done.iter() {
                let along = dot(other, vector);
                vector.iter_mut().zip(other).for_each(|(v, o)| *v -= along * o);
            }
        }
        let square = dot(vector, vector);
        let factor = if square > 1e-20 * before { 1.0 / square.sqrt() } else { 0.0 };
        vector.iter_mut().for_each(|v| *v *= factor);
    }
}
