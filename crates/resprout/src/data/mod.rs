//! Images from files: decoded, preprocessed, `NCHW`. Labels are read only on request.

mod cifar;
mod decode;
mod folder;
mod gaussian;
mod idx;
mod image_set;
mod labels;
pub mod layouts;
mod npy;
mod open;
pub mod preprocess;
mod raw;

pub use gaussian::gaussian;
pub use image_set::{ImageSet, Open};
pub use open::{DATASETS, LabelSource};
pub use preprocess::{PRESETS, Preprocess};
