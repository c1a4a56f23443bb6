//! Images from files: an [`ImageSet`] finds and decodes them, a [`Preprocess`] makes them a network's input `[N, C, H, W]`.
//! Labels are read only on request.
//!
//! ```
//! use resprout::data::{ImageSet, LabelSource, Preprocess};
//!
//! # fn main() -> resprout::Result<()> {
//! # let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../resprout-cli/assets");
//! let set = ImageSet::open(&folder.join("digits-images-idx3-ubyte.gz"), &LabelSource::None)?;
//! let images = set.load(0..16, 1, &Preprocess::preset("raw")?)?; // 16 images of one channel
//! assert_eq!(images.shape, [16, 1, 8, 8]);
//! # Ok(())
//! # }
//! ```

mod cifar;
mod decode;
mod folder;
mod gaussian;
mod idx;
mod image_set;
mod labels;
#[doc(hidden)]
pub mod layouts;
mod npy;
mod open;
pub mod preprocess;
mod raw;

pub use gaussian::gaussian;
pub use image_set::{ImageSet, Open};
pub use open::{DATASETS, LabelSource};
pub use preprocess::{PRESETS, Preprocess};
