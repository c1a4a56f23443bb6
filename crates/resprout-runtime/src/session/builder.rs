//! Options of a session, one call each.

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

    /// As [`SessionOptions::threads`]; 1 without.
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = threads;
        self
    }

    /// As [`SessionOptions::batch`]; 1 without.
    pub fn batch(mut self, images: usize) -> Self {
        self.options.batch = images;
        self
    }

    /// As [`SessionOptions::tune`].
    pub fn tune(mut self, seconds: f64) -> Self {
        self.options.tune = seconds;
        self
    }

    /// As [`SessionOptions::isa`].
    pub fn isa(mut self, name: &str) -> Self {
        self.options.isa = Some(name.into());
        self
    }

    /// As [`SessionOptions::paths`].
    pub fn paths(mut self, paths: Paths) -> Self {
        self.options.paths = paths;
        self
    }

    /// As [`SessionOptions::pin`].
    pub fn pin(mut self, pin: bool) -> Self {
        self.options.pin = pin;
        self
    }

    /// Takes a plan that another session has [`chosen`](Session::chosen). Nothing is measured.
    pub fn plan(mut self, chosen: Chosen) -> Self {
        self.chosen = Some(chosen);
        self
    }

    /// Compiles the network for images of shape `[C, H, W]`.
    ///
    /// # Errors
    /// Of kind `Option` for options that make no sense here, and `Unsupported` for networks that cannot be computed for such
    /// images.
    pub fn build(self, image: &[usize]) -> Result<Session> {
        match &self.chosen {
            Some(chosen) => Session::with_plan(self.model, image, &self.options, chosen),
            None => Session::new(self.model, image, &self.options),
        }
    }
}
