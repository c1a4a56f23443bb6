//! The builder of a session: its options, one call each.

use super::{Chosen, Paths, Session, SessionOptions};
use crate::error::Result;
use crate::model::Model;

/// Builds a [`Session`]; made by [`Session::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing is compiled before `build`"]
pub struct SessionBuilder<'a> {
    model: &'a Model,
    options: SessionOptions,
    chosen: Option<Chosen>,
}

impl<'a> SessionBuilder<'a> {
    pub(super) fn new(model: &'a Model) -> SessionBuilder<'a> {
        SessionBuilder { model, options: SessionOptions::default(), chosen: None }
    }

    /// Threads that work on a batch, as [`SessionOptions::threads`]; 1 by default.
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = threads;
        self
    }

    /// Images of a typical batch, as [`SessionOptions::batch`]; 1 by default.
    pub fn batch(mut self, images: usize) -> Self {
        self.options.batch = images;
        self
    }

    /// Seconds for measuring plans, as [`SessionOptions::tune`]; 0 by default, which measures nothing.
    pub fn tune(mut self, seconds: f64) -> Self {
        self.options.tune = seconds;
        self
    }

    /// The instruction set, as [`SessionOptions::isa`]; the best one of this CPU by default.
    pub fn isa(mut self, name: &str) -> Self {
        self.options.isa = Some(name.into());
        self
    }

    /// How convolutions treat zeros, as [`SessionOptions::paths`]; [`Paths::Any`] by default.
    pub fn paths(mut self, paths: Paths) -> Self {
        self.options.paths = paths;
        self
    }

    /// Whether each thread stays on a CPU of its own, as [`SessionOptions::pin`]; not by default.
    pub fn pin(mut self, pin: bool) -> Self {
        self.options.pin = pin;
        self
    }

    /// Takes a plan that another session has [`chosen`](Session::chosen). Nothing is measured, whatever [`tune`](Self::tune)
    /// says.
    pub fn plan(mut self, chosen: Chosen) -> Self {
        self.chosen = Some(chosen);
        self
    }

    /// Compiles the network for images of shape `[C, H, W]`, or `[H, W, C]` where the network takes these.
    ///
    /// # Errors
    /// * `Option` for no threads, an empty batch, or an instruction set that is not known or that this CPU does not have.
    /// * `Data` for images of a shape that the network does not take.
    /// * `Unsupported` for operations that cannot be computed, and for batches that the model fixes to another number than
    ///   1, 2, 4, 8 or 16.
    /// * `Io` where threads cannot be started.
    pub fn build(self, image: &[usize]) -> Result<Session> {
        match &self.chosen {
            Some(chosen) => Session::with_plan(self.model, image, &self.options, chosen),
            None => Session::new(self.model, image, &self.options),
        }
    }
}
