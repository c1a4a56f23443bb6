//! The density below which leaving zeros out pays, for every shape of convolution in a network.

use super::options::SessionOptions;
use super::stage_builder::StageBuilder;
use crate::error::Result;
use crate::model::Model;
use resprout_kernels::ConvShape;
use resprout_kernels::engine::{BreakEven, break_even};
use std::time::Duration;

/// Measures, for every shape of convolution in the network, the density from which computing zeros too is faster.
///
/// `image` is `[C, H, W]`, `densities` are those that are tried, and `seconds` limits each measurement, up to 60. The name is
/// that of the first layer with the shape.
///
/// # Errors
/// As [`SessionBuilder::build`](super::SessionBuilder::build).
#[doc(hidden)]
pub fn break_evens(
    model: &Model,
    image: &[usize],
    options: &SessionOptions,
    densities: &[f64],
    seconds: f64,
) -> Result<Vec<(String, ConvShape, BreakEven)>> {
    let builder = StageBuilder::new(model, image, options)?;
    let session = builder.build(&builder.default_stages())?;
    let (isa, mut pool) = (options.find_isa()?, session.pool);
    let mut all: Vec<(String, ConvShape, BreakEven)> = Vec::new();
    for compiled in session.stages.iter().map(|stage| &stage.compiled) {
        for program in compiled.programs() {
            let names = program.names().filter_map(|(name, conv)| conv.map(|_| name));
            for (name, shape) in names.zip(program.shapes()) {
                if all.iter().any(|(_, known, _)| known == shape) {
                    continue;
                }
                let limit = Duration::from_secs_f64(seconds.clamp(0.0, 60.0));
                let found = break_even(isa, shape, compiled.microbatch, densities, &mut pool, limit);
                all.extend(found.map(|found| (name.to_string(), shape.clone(), found)));
            }
        }
    }
    Ok(all)
}
