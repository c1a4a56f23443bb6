//! Networks on lines of sixteen lanes: a layout in which a sparse convolution only ever multiplies whole, aligned
//! vectors by a weight.
//!
//! A *line* is sixteen `f32`. The lanes are patches of one image, or images, or both: with `images * grid = 16`, lane
//! `(i, py, px)` of the line `(y, x)` holds the pixel `(py * ph + y, px * pw + x)` of image `i`, so every tap of every
//! convolution, strided or not, is one load of a line. The price is a border of lines around each patch that holds the
//! neighbours' pixels (or zeros outside of the image), filled by each layer whose output is read with taps.
//!
//! Where threads share the work on an image, the rows of patches are cut into a *band* for each of them. Bands lie apart in
//! memory, each with a border of its own: a thread that writes between lines that another reads is slower than one alone.
//!
//! A [`Program`] is a list of operations on such values in one arena. [`Builder`] makes it and checks every extent once;
//! running it needs no checks any more. Weights that are zero are not there: a convolution is a list of
//! `(offset, weight)` for each output channel.
//!
//! Each output value is one sum in a fixed order (bias, then what is added, then ascending input channel and tap), whatever the
//! tiles, the threads or the images that run together.

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
mod simd;
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
