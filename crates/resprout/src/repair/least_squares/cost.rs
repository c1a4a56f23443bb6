//! A cost model of the solvers. Its constants are fixed, because the choice of a solver changes the last digits of the result.

use crate::calibrate::Outline;

/// Seconds on one core of a server CPU of 2023 with AVX-512.
pub(super) struct Costs;

/// Multiplications and additions per second in `f64` decompositions of large systems.
const DOUBLE: f64 = 45e9;
/// Multiplications and additions per second in `f32` products.
const SINGLE: f64 = 110e9;
/// Bytes per second of a matrix that is larger than the caches.
const MEMORY: f64 = 10e9;

impl Costs {
    /// Gathers and decomposes a system of `n` of `len` unknowns.
    pub fn direct(n: usize, len: usize) -> f64 {
        let (n, len) = (n as f64, len as f64);
        // Half of each row of the matrix is read, or one cache line of eight values per weight.
        let gather = n * len.min(8.0 * n) * 4.0 / MEMORY;
        n * n * n / 3.0 / DOUBLE + n * n * 3e-10 + gather + 2e-6
    }

    /// One product of the matrix with a row.
    pub fn product(len: usize) -> f64 {
        2.0 * (len * len) as f64 / SINGLE
    }

    /// The conjugate gradients of a row: the set-up, then steps of a product, the preconditioner and sums of vectors.
    pub fn conjugate(n: usize, len: usize, ridge: f64) -> f64 {
        let n = n as f64;
        Costs::steps(ridge) * (Costs::product(len) + n * 2.5e-8 + 5e-6) + n * 1.2e-7 + 15e-6
    }

    /// The steps of conjugate gradients from the weights that a row had. `ridge` is in units of the inputs' mean variance. A
    /// larger ridge needs fewer steps. Fitted on convolutions of ResNet-50.
    fn steps(ridge: f64) -> f64 {
        9.0 + 2.0 / ridge.max(1e-12).sqrt()
    }
}

/// The seconds of a fit: sums over the rows of the inputs, then the equations. Every further round repeats the sums of the
/// targets.
pub(super) fn seconds(layer: &Outline, most: usize, rounds: usize, damp: f64) -> f64 {
    let per_image = most.div_ceil(layer.images.max(1)).clamp(1, layer.positions.max(1));
    let (rows, len) = ((per_image * layer.images) as f64, layer.len as f64);
    let (groups, outputs) = (layer.groups as f64, layer.kept.len() as f64);
    let group_out = outputs / groups;
    let kept: f64 = layer.kept.iter().map(|&n| n as f64).sum();
    let times = 1.0 + rounds as f64;
    let products = groups * rows * (len * len / 2.0 + times * len * group_out) / PRODUCTS + rounds as f64 * rows * kept / SPARSE;
    // Windows are gathered once and again for each round. The Gram matrix is read and written once per pack.
    let moved = rows * groups * len * 4.0 * GATHER * times + groups * rows / 512.0 * len * len * 8.0;
    // The constants hold for one core of another machine.
    let speed = layer.speed.single / SINGLE;
    let mut equations = 0.0;
    for &n in &layer.kept {
        // A further round starts near its solution. A decomposition is kept.
        let conjugate = Costs::conjugate(n, layer.len, damp * n as f64 / layer.images as f64);
        equations += Costs::direct(n, layer.len).min(conjugate * (1.0 + 0.6 * rounds as f64));
    }
    2.0 * products / layer.speed.single + moved / layer.speed.bytes + equations / speed
}

/// Share of the micro-kernel's speed that sums over packed rows reach.
const PRODUCTS: f64 = 0.7;
/// Share of the micro-kernel's speed that products with sparse rows reach.
const SPARSE: f64 = 0.2;
/// The number of writes and reads of a gathered value.
const GATHER: f64 = 3.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_weights_are_cheap_to_decompose_and_many_are_not() {
        assert!(Costs::direct(460, 4608) < Costs::conjugate(460, 4608, 1.0));
        assert!(Costs::direct(2300, 4608) > Costs::conjugate(2300, 4608, 1.0));
        assert!(Costs::direct(288, 576) < Costs::conjugate(288, 576, 0.03));
    }
}
