//! Progress of long work, and its cancellation.

use crate::error::{Error, ErrorKind, Result};

/// Receives the progress of long work. The default methods do nothing.
pub trait Progress: Sync {
    /// A stage of `total` units begins.
    fn begin(&self, _stage: &str, _total: u64) {}
    /// `units` more are done.
    fn advance(&self, _units: u64) {}
    /// The stage is over.
    fn end(&self) {}
    /// Whether the user has stopped the work.
    fn cancelled(&self) -> bool {
        false
    }

    /// Fails if the user has stopped the work.
    fn check(&self) -> Result<()> {
        if self.cancelled() {
            return Err(Error::new(ErrorKind::Interrupted, "interrupted; nothing was written"));
        }
        Ok(())
    }
}

/// Progress whose stages have other names.
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

/// Progress that is ignored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {}
