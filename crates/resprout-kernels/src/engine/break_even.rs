//! The density above which the dense path of a convolution is faster than the sparse one.

use super::blocking::Paths;
use super::build::{Builder, Convolution};
use super::pool::ThreadPool;
use super::program::Program;
use crate::isa::Isa;
use crate::{Activation, ConvShape};
use std::time::Duration;

/// A convolution's times with random masks.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakEven {
    /// Seconds with all weights, on the dense path.
    pub dense: f64,
    /// Density, and seconds on the sparse path, for ascending densities.
    pub sparse: Vec<(f64, f64)>,
}

impl BreakEven {
    /// The density at which both take the same time, interpolated between two measured densities. It is 1 if the sparse path is never
    /// slower, and 0 if it always is.
    pub fn density(&self) -> f64 {
        let mut before = (0.0, 0.0);
        for &(density, seconds) in &self.sparse {
            if seconds > self.dense {
                let share = (self.dense - before.1) / (seconds - before.1);
                return if before.0 == 0.0 { 0.0 } else { before.0 + share * (density - before.0) };
            }
            before = (density, seconds);
        }
        1.0
    }
}

/// Measures a convolution of so many images with each of these densities, within about `limit` for each. `None` if the engine
/// does not support the shape.
pub fn break_even(
    isa: Isa,
    shape: &ConvShape,
    images: usize,
    densities: &[f64],
    pool: &mut ThreadPool,
    limit: Duration,
) -> Option<BreakEven> {
    let mut seconds = |density, paths| time(&mut program(isa, shape, [images, pool.threads()], density)?, pool, limit, paths);
    let dense = seconds(1.0, Paths::Dense)?;
    let sparse = densities.iter().map(|&density| Some((density, seconds(density, Paths::Sparse)?))).collect::<Option<_>>()?;
    Some(BreakEven { dense, sparse })
}

fn program(isa: Isa, shape: &ConvShape, [images, threads]: [usize; 2], density: f64) -> Option<Program> {
    if !Builder::knows(shape) {
        return None;
    }
    // A fixed sequence: the same masks in every run.
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let weights = shape.out_channels * shape.dot_length();
    let weight: Vec<f32> = (0..weights).map(|_| if uniform() < density { 0.01 } else { 0.0 }).collect();
    let mut builder = Builder::new(isa, images, threads);
    let input = builder.input(shape.in_channels, [shape.in_h, shape.in_w]);
    let activation = Activation::Clamp { low: 0.0, high: f32::INFINITY };
    let conv = Convolution { shape: shape.clone(), weight: &weight, bias: &[], activation, added: None };
    let output = builder.conv("conv", input, conv);
    builder.output(output);
    builder.finish()
}

/// Runs of which the least time counts.
const RUNS: usize = 10;

fn time(program: &mut Program, pool: &mut ThreadPool, limit: Duration, paths: Paths) -> Option<f64> {
    let mut arena = program.arena();
    let arenas = std::slice::from_mut(&mut arena);
    program.tune(arenas, pool, limit, paths);
    let (inputs, outputs) = program.sizes();
    let inputs: Vec<Vec<f32>> = inputs.iter().map(|&size| vec![0.5; size]).collect();
    let mut outputs: Vec<Vec<f32>> = outputs.iter().map(|&size| vec![0.0; size]).collect();
    let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let mut outputs: Vec<&mut [f32]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    let times = program.time(arenas, pool, &inputs, &mut outputs, RUNS);
    program.names().zip(times).find_map(|((_, conv), seconds)| conv.map(|_| seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_break_even_lies_between_the_densities_around_it() {
        let of = |sparse: &[(f64, f64)]| BreakEven { dense: 4.0, sparse: sparse.to_vec() }.density();
        assert_eq!(of(&[(0.25, 2.0), (0.5, 3.0), (1.0, 5.0)]), 0.75);
        assert_eq!(of(&[(0.25, 2.0), (1.0, 4.0)]), 1.0);
        assert_eq!(of(&[(0.25, 5.0)]), 0.0);
    }
}
