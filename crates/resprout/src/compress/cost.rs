//! What a network costs: time on this machine, bytes, operations, parameters.

use crate::error::Result;
use crate::formats::sparse;
use crate::forward::layer_macs;
use crate::linalg::median;
use crate::model::{Model, PrunableRule};
use crate::report::{layer_rows, sparsity_info};
use crate::session::{Session, SessionOptions};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// The cost of a network, and its ratio to the dense one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The median time of a batch, in milliseconds.
    pub milliseconds: f64,
    /// The dense network's median time divided by its own, both measured in turns.
    pub faster: f64,
    /// Bytes of its file as sparse safetensors.
    pub bytes: u64,
    /// Its share of the dense network's multiply-accumulates.
    pub macs: f64,
    /// The number of its parameters that are not zero, as a share of the dense network's.
    pub parameters: f64,
}

/// Measures networks beside the dense one.
#[doc(hidden)]
pub struct Meter {
    dense: Session,
    options: SessionOptions,
    image: Vec<usize>,
    pixels: Vec<f32>,
    macs: f64,
    parameters: f64,
    bytes: u64,
}

/// A measurement takes at least so long,
const LEAST_TIME: Duration = Duration::from_millis(400);
/// and at least so many rounds,
const LEAST_ROUNDS: usize = 7;
/// of which each runs a network for at least so long.
const ROUND: Duration = Duration::from_millis(4);

impl Meter {
    /// A meter for batches of `options.batch` images of shape `[C, H, W]`.
    ///
    /// # Errors
    /// As [`SessionBuilder::build`](crate::session::SessionBuilder::build).
    pub fn new(dense: &Model, image: &[usize], options: &SessionOptions) -> Result<Meter> {
        let session = Session::new(dense, image, options)?;
        // Not zeros: their products could be faster, or slower, than others.
        let pixels = (0..options.batch * image.iter().product::<usize>()).map(|i| (i % 17) as f32 / 17.0 - 0.5).collect();
        let (macs, parameters) = counts(dense, image)?;
        Ok(Meter {
            dense: session,
            options: options.clone(),
            image: image.to_vec(),
            pixels,
            macs,
            parameters,
            bytes: 4 * dense.params.float_count() as u64,
        })
    }

    /// Bytes of the dense network's parameters.
    pub fn dense_bytes(&self) -> u64 {
        self.bytes
    }

    /// Measures a network in turns with the dense one.
    pub fn measure(&mut self, model: &Model) -> Result<Cost> {
        let mut session = Session::new(model, &self.image, &self.options)?;
        let [dense, sparse] = self.times(&mut session)?;
        let (macs, parameters) = counts(model, &self.image)?;
        Ok(Cost {
            milliseconds: sparse * 1e3,
            faster: dense / sparse,
            bytes: sparse::encoded_len(model)?,
            macs: macs / self.macs.max(1.0),
            parameters: parameters / self.parameters.max(1.0),
        })
    }

    /// Median seconds of a batch, of the dense network and of the other one.
    fn times(&mut self, other: &mut Session) -> Result<[f64; 2]> {
        let pixels = &self.pixels;
        let time = |session: &mut Session, runs: usize| -> Result<f64> {
            let start = Instant::now();
            for _ in 0..runs {
                session.run_slice(pixels)?;
            }
            Ok(start.elapsed().as_secs_f64() / runs as f64)
        };
        let mut sessions = [&mut self.dense, other];
        let mut runs = [1, 1];
        for (session, runs) in sessions.iter_mut().zip(&mut runs) {
            time(session, 1)?;
            *runs = (ROUND.as_secs_f64() / time(session, 2)?).ceil().clamp(1.0, 1000.0) as usize;
        }
        let started = Instant::now();
        let mut times = [Vec::new(), Vec::new()];
        while started.elapsed() < LEAST_TIME || times[0].len() < LEAST_ROUNDS {
            for index in 0..2 {
                let seconds = time(sessions[index], runs[index])?;
                times[index].push(seconds);
            }
        }
        Ok(times.map(|times| median(&times)))
    }
}

/// Multiply-accumulates of an image with weights that are not zero, and such parameters.
fn counts(model: &Model, image: &[usize]) -> Result<(f64, f64)> {
    let macs = layer_macs(model, image)?;
    let (layers, _) = model.prunable(&PrunableRule { include_grouped: true, ..PrunableRule::default() })?;
    let rows = layer_rows(model, &layers, Some(&macs))?;
    let info = sparsity_info(model, &rows, None, Some(&macs));
    let left = info.parameters - (info.prunable - info.kept);
    Ok((info.macs_sparse.unwrap_or_default() as f64, left as f64))
}
