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

/// Progress that is ignored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {}
