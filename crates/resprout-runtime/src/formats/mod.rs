//! Ways in and out: files become a [`Model`](crate::model::Model) and back.

pub mod archive;
pub mod atomic;
pub mod onnx;
pub mod pth;
pub mod safetensors;
pub mod sparse;
pub mod weights;

use crate::error::{Error, Result};

/// Elements that the sparse tensors of a file may still have: a few bytes of a hostile file must not ask for all memory.
struct ElementBudget(usize);

impl ElementBudget {
    /// As many numbers as an ONNX file without sparse tensors could hold.
    const MOST: usize = 1 << 29;

    fn take(&mut self, count: usize) -> Result<()> {
        let left = self.0.checked_sub(count);
        self.0 = left.ok_or_else(|| Error::format(format!("all together have more than {} elements", ElementBudget::MOST)))?;
        Ok(())
    }
}

impl Default for ElementBudget {
    fn default() -> ElementBudget {
        ElementBudget(ElementBudget::MOST)
    }
}
