//! State dicts: the tensors of a file by name, and how they become the parameters of a model.

mod names;
mod place;
mod stored;

pub(super) use names::{Names, is_trainer};
pub(super) use place::{add_bias, place, state_names};
pub(super) use stored::{Number, Stored};

/// The mask of a parameter has its name and this suffix.
#[doc(hidden)]
pub const MASK_SUFFIX: &str = ".mask";
