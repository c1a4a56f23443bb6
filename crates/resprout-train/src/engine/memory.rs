//! Buffers that go from value to value: a step allocates what the first one did.

use resprout_kernels::batched::Buffer;
use std::collections::HashMap;
use std::sync::Arc;

/// Buffers that nobody uses, by length.
#[derive(Default)]
pub(super) struct Memory(HashMap<usize, Vec<Buffer>>);

impl Memory {
    /// A buffer of this length; what is in it is not said.
    pub fn take(&mut self, len: usize) -> Buffer {
        self.0.get_mut(&len).and_then(Vec::pop).unwrap_or_else(|| Buffer::zeros(len))
    }

    /// Gives a buffer back.
    pub fn give(&mut self, buffer: Buffer) {
        self.0.entry(buffer.len()).or_default().push(buffer);
    }

    /// A buffer that nobody else reads: this one, or a copy.
    pub fn own(&mut self, buffer: Arc<Buffer>) -> Buffer {
        Arc::try_unwrap(buffer).unwrap_or_else(|shared| {
            let mut copy = self.take(shared.len());
            copy.copy_from_slice(&shared);
            copy
        })
    }

    /// The same of a buffer that others may still read.
    pub fn give_shared(&mut self, buffer: Arc<Buffer>) {
        if let Ok(buffer) = Arc::try_unwrap(buffer) {
            self.give(buffer);
        }
    }
}
