//! Progress of long work, and its cancellation.

use crate::error::{Error, ErrorKind, Result};

/// Receives the progress of long work, and can stop it. The default methods do nothing; [`Quiet`] has them all.
///
/// Stages follow one another and are not nested. Several threads may call [`advance`](Self::advance).
pub trait Progress: Sync {
    /// A stage of `total` units begins. What a unit is depends on the stage: images, milliseconds, layers.
    fn begin(&self, _stage: &str, _total: u64) {}
    /// `units` more are done.
    fn advance(&self, _units: u64) {}
    /// The stage is over.
    fn end(&self) {}
    /// Whether the work is to stop. It is asked between layers or batches, and the work then ends in an error.
    fn cancelled(&self) -> bool {
        false
    }

    /// Fails if the work is to stop.
    ///
    /// # Errors
    /// Of kind `Interrupted`.
    fn check(&self) -> Result<()> {
        if self.cancelled() {
            return Err(Error::new(ErrorKind::Interrupted, "interrupted"));
        }
        Ok(())
    }
}

/// A [`Progress`] that hands on to another one, with other names of stages.
pub struct Renamed<'p, F> {
    inner: &'p dyn Progress,
    name: F,
}

impl<'p, F: Fn(&str) -> String + Sync> Renamed<'p, F> {
    /// Hands everything on to `inner`, with `name(stage)` in place of the stage.
    pub fn new(inner: &'p dyn Progress, name: F) -> Renamed<'p, F> {
        Renamed { inner, name }
    }
}

impl<F: Fn(&str) -> String + Sync> Progress for Renamed<'_, F> {
    fn begin(&self, stage: &str, total: u64) {
        self.inner.begin(&(self.name)(stage), total);
    }

    fn advance(&self, units: u64) {
        self.inner.advance(units);
    }

    fn end(&self) {
        self.inner.end();
    }

    fn cancelled(&self) -> bool {
        self.inner.cancelled()
    }
}

/// A [`Progress`] that shows nothing and never stops the work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {}
