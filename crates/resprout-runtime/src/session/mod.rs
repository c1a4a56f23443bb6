//! Fast inference: a network as programs of the sparse engine (see [`resprout_kernels::engine`]), which leave zero weights
//! out. A weight counts as zero by its value, whether or not the model has a mask.
//!
//! ```
//! use resprout_runtime::{model::Model, session::Session, tensor::Tensor};
//!
//! # fn main() -> resprout_runtime::Result<()> {
//! # let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../resprout-cli/assets");
//! let model = Model::open(folder.join("digits.onnx"))?;
//! let mut session = Session::builder(&model).threads(2).build(&[1, 8, 8])?;
//! let outputs = session.run(&Tensor::new(vec![3, 1, 8, 8], vec![0.5; 3 * 64]))?;
//! assert_eq!(outputs[0].shape, [3, 10]);
//! # Ok(())
//! # }
//! ```
//!
//! A plan says how the network is computed: in *stages*, which are parts of it, each with a *microbatch*, the images that run
//! together in it. A *blocking* says how a convolution is cut into tiles. The default plan is chosen without measuring.
//! [`SessionBuilder::tune`] measures candidates instead, and a [`PlanFile`] keeps the result for the next start.

mod adaptive;
mod break_even;
mod builder;
mod noise;
mod options;
mod plan;
mod run;
mod stage;
mod stage_builder;
#[cfg(test)]
mod tests;
mod tune;

pub use break_even::break_evens;
pub use builder::SessionBuilder;
pub use options::SessionOptions;
pub use plan::{Chosen, PlanFile, StoredBlocking, StoredPlan, cpu_name};
pub use resprout_kernels::engine::Paths;
pub use run::Session;
pub use stage::StageStart;

use crate::error::Result;
use crate::model::Model;
use resprout_kernels::engine::Blocking;
use stage_builder::StageBuilder;
use std::time::Duration;

impl Session {
    /// Compiles `model` with options that are given one by one.
    pub fn builder(model: &Model) -> SessionBuilder<'_> {
        SessionBuilder::new(model)
    }

    /// Compiles `model` for images of shape `[C, H, W]`, or `[H, W, C]` where the network takes these.
    ///
    /// # Errors
    /// As [`SessionBuilder::build`].
    pub fn new(model: &Model, image: &[usize], options: &SessionOptions) -> Result<Session> {
        let builder = StageBuilder::new(model, image, options)?;
        let session = match options.tune > 0.0 {
            true => tune::fastest(&builder, Duration::from_secs_f64(options.tune.min(3600.0))),
            false => builder.build(&builder.default_stages()),
        };
        session.map(Session::adaptive)
    }

    /// As [`new`](Self::new) with a plan that another session has [`chosen`](Self::chosen). Nothing is measured. Parts of the
    /// plan that this network does not allow are left out.
    ///
    /// # Errors
    /// As [`SessionBuilder::build`].
    pub fn with_plan(model: &Model, image: &[usize], options: &SessionOptions, chosen: &Chosen) -> Result<Session> {
        let builder = StageBuilder::new(model, image, options)?;
        let mut session = builder.build(&builder.possible_stages(&chosen.stages))?;
        let blockings: Vec<Blocking> = chosen.blockings.iter().map(|&blocking| blocking.into()).collect();
        session.apply(&blockings);
        Ok(session.adaptive())
    }
}
