//! Sums of outer products, `sum_r left[r]' * right[r]`, over the rows of two matrices: Gram matrices
//! of a layer's inputs, and their products with its targets.
//!
//! Rows are positions of images, columns are features. Up to [`PackedRows::MOST`] products are summed in `f32`,
//! these sums in `f64`.

mod narrow;
mod packed_rows;
mod patches;
mod sparse;

pub use narrow::{NARROW, accumulate_narrow, narrow_stride};
pub use packed_rows::{PackedRows, accumulate, strip};
pub use patches::Patches;
pub use sparse::{CsrRow, sparse_cross, sparse_product};
