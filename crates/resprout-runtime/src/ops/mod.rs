//! The operations: attributes, shape rules, forward.
//!
//! [`Op::parse`] reads attributes once. `resolve` turns an operation and the known `Fact`s of its inputs into a
//! [`Compute`] and the output's shape. Shape rule and forward are in one place, so they cannot disagree.

mod attention;
pub mod attributes;
mod binary;
mod compute;
pub mod conv;
mod einsum;
mod fact;
mod fold;
mod general;
#[cfg(test)]
mod hostile;
mod index;
mod layout;
mod matrix;
mod norm;
mod op;
mod parse;
mod pool;
mod quantize;
mod range;
mod rearrange;
mod recurrent;
mod reduce;
pub mod remap;
mod resize;
mod resolve;
mod sample;
mod special;
mod unary;
mod volume;

pub use crate::tensor::axis_index;
pub use attention::{Attention, RotaryEmbedding};
pub use attributes::{Attribute, Attributes};
pub use binary::{BinaryOp, Comparison};
pub use compute::Compute;
pub use conv::{ConvAttributes, ConvTransposeAttributes};
pub use fact::Fact;
pub use fold::fold;
pub use general::General;
pub(crate) use general::Images;
pub use index::{IndexOp, Update};
pub use layout::{permutation, transpose};
pub use norm::NormOp;
pub use op::Op;
pub(crate) use pool::Pool;
pub use pool::PoolAttributes;
pub use quantize::QuantizeOp;
pub use rearrange::{RearrangeOp, split_range};
pub use recurrent::Recurrent;
pub use reduce::{ArgExtreme, Reducer};
pub use remap::PadMode;
pub use resize::ResizeAttributes;
pub use resolve::{Fused, Resolved, batch_norm_affine, is_integer, output_shape, resolve};
pub use sample::{Outside, RoiAlign, SampleMode, SampleOp};
pub use unary::{MathOp, NarrowType, UnaryOp};
pub use volume::{VolumeConv, WindowAttributes, WindowPool};
