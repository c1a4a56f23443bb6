//! Networks on vectors of sixteen lanes: in this layout a sparse convolution only multiplies whole, aligned vectors by weights.
//!
//! A *vector* is sixteen `f32`. Its lanes are patches of one image, or images, or both: `images * grid = 16`. A patch has `ph` rows
//! and `pw` columns. Lane `(i, py, px)` of vector `(y, x)` holds pixel `(py * ph + y, px * pw + x)` of image `i`.
//! So every tap of every convolution, strided or not, loads one vector.
//!
//! The price is a *halo* of vectors around each patch, which hold the neighbours' pixels, or zeros outside of the image. Each
//! operation whose output is read with taps fills it.
//!
//! Where threads share the work on an image, the rows of patches are divided into a *row partition* for each thread. Partitions
//! lie apart in memory, each with its own halo: threads that write between vectors that others read would slow each other down.
//!
//! A [`Program`] is a list of operations on such values in one arena. [`Builder`] makes it and checks every extent once, so that
//! runs need no checks. Zero weights are not stored: a convolution is a list of `(offset, weight)` for each output channel.
//!
//! Each output value is one sum in a fixed order: bias, summand, then ascending input channel and tap. Neither tiles nor threads nor
//! the microbatch change it.

mod arena;
mod blocking;
mod break_even;
mod build;
mod conv;
mod layout;
mod measure;
mod moves;
mod op;
mod packed_sparse;
mod place;
mod pool;
mod program;
mod run;
mod shapes;
mod tile;
mod tiled_conv;

pub use arena::{Arena, LANES};
pub use blocking::{Blocking, Paths};
pub use break_even::{BreakEven, break_even};
pub use build::{Builder, Convolution};
pub use layout::wasted;
pub use measure::peak;
pub use op::Value;
pub use pool::{Loops, PoolOptions, ThreadPool, Worker, usable_threads};
pub use program::Program;
