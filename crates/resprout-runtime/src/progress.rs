//! How long work tells what it is doing, and learns that it should stop.

use crate::error::{Error, ErrorKind, Result};

/// Receives the progress of long work. All methods have quiet defaults.
pub trait Progress: Sync {
    /// A stage of `total` units begins.
    fn begin(&self, _stage: &str, _total: u64) {}
    /// `units` more are done.
    fn advance(&self, _units: u64) {}
    /// The stage is over.
    fn end(&self) {}
    /// Whether the user has asked to stop.
    fn cancelled(&self) -> bool {
        false
    }

    /// Fails if the user has asked to stop.
    fn check(&self) -> Result<()> {
        if self.cancelled() {
            return Err(Error::new(ErrorKind::Interrupted, "interrupted; nothing was written"));
        }
        Ok(())
    }
}

/// Progress that nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {}
