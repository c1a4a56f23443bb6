//! File formats: a [`Model`](crate::model::Model) is read from files and written to them.
//!
//! [`Model::open`](crate::model::Model::open) and [`Model::save`](crate::model::Model::save) choose the format by the name.
//!
//! | module | a file holds |
//! | --- | --- |
//! | [`onnx`] | a whole network |
//! | [`sparse`] | a whole network, small where it has many zeros |
//! | [`safetensors`] | weights and masks of a network that is known |
//! | [`pth`] | weights of a network that is known, as PyTorch writes them |
//!
//! [`weights`] reads weights of either kind, also from other programs, into a network.

#[doc(hidden)]
pub mod archive;
#[doc(hidden)]
pub mod atomic;
mod model_file;
pub mod onnx;
mod packed;
pub mod pth;
pub mod safetensors;
pub mod sparse;
mod state_dict;
pub mod weights;

use crate::error::{Error, Result};

/// The number of elements that the sparse tensors of a file may still have. A few bytes of a hostile file must not take all
/// memory.
struct ElementBudget(usize);

impl ElementBudget {
    /// As many floats as an ONNX file without sparse tensors can hold.
    const MOST: usize = 1 << 29;

    /// Takes elements off the budget; fails if it is used up.
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
