//! CPU kernels on slices and shapes: no graph, no files. Only [`engine`] starts threads.
//!
//! Letters used throughout: `N` images, `C` input channels, `M` output channels or output
//! features, `K` length of a dot product, `P` output positions (`out_h * out_w`).
//! All buffers are row-major `f32`; images are `NCHW`.
//!
//! Every fast kernel has a reference implementation in [`mod@reference`], which is its specification. An [`Isa`] can only be
//! constructed where the CPU has its instructions: see [`ISAS`].
//!
//! Each output element is one sum in ascending `K`. So neither the number of threads nor the tiling changes a result.
//!
//! ```
//! use resprout_kernels::{Activation, Isa, PackedLinear};
//!
//! // y = max(W x + b, 0) for one row x.
//! let layer = PackedLinear::new(2, 2, &[1.0, 2.0, 3.0, -4.0], &[0.5, 0.0], Activation::Clamp { low: 0.0, high: f32::INFINITY });
//! let mut y = [0.0; 2];
//! layer.run(Isa::best(), &[1.0, 1.0], &mut y);
//! assert_eq!(y, [3.5, 0.0]);
//! ```

pub mod backward;
pub mod batched;
pub mod cholesky;
pub mod conv;
pub mod dense;
mod depthwise;
pub mod engine;
mod entries;
pub mod gram;
mod isa;
mod linear;
pub mod low_rank;
pub mod memory;
pub mod norm;
pub mod reference;
mod shape;
mod simd;
#[cfg(test)]
mod testing;

pub use backward::{InputGrad, WeightGrad};
pub use conv::PackedConv;
pub use depthwise::PackedDepthwise;
pub use isa::{ISAS, Isa, IsaRow};
pub use linear::PackedLinear;
pub use shape::ConvShape;

/// What happens to an output value before it is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `y = x`
    None,
    /// `y = min(max(x, low), high)`; ReLU is `low = 0`, `high = +inf`.
    Clamp {
        /// Lower bound.
        low: f32,
        /// Upper bound.
        high: f32,
    },
}

impl Activation {
    /// The activation of one value. `NaN` stays `NaN`: a broken network must not look healthy.
    #[inline(always)]
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Activation::None => x,
            Activation::Clamp { low, high } => {
                let y = if x < low { low } else { x };
                if y > high { high } else { y }
            }
        }
    }

    /// Applies the activation to every element.
    pub fn apply_to(self, values: &mut [f32]) {
        if let Activation::Clamp { .. } = self {
            values.iter_mut().for_each(|v| *v = self.apply(*v));
        }
    }
}
