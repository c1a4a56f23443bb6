//! The operations: attributes, shape rules, forward.
//!
//! [`Op::parse`] reads attributes once. [`resolve`] turns an operation and the known [`Fact`]s of its inputs into a
//! [`Compute`] and the output's shape. Shape rule and forward are in one place, so they cannot disagree.

pub mod attributes;
mod binary;
mod compute;
mod constant;
pub mod conv;
mod fact;
mod fold;
mod layout;
mod matrix;
mod op;
mod parse;
mod pool;
mod reduce;
pub mod remap;
mod resize;
mod resolve;
mod unary;

pub use crate::tensor::axis_index;
pub use attributes::{Attribute, Attributes};
pub use binary::BinaryOp;
pub use compute::Compute;
pub use constant::ConstantOp;
pub use conv::{ConvAttributes, ConvTransposeAttributes};
pub use fact::Fact;
pub use fold::fold;
pub use layout::{permutation, transpose};
pub use op::Op;
pub(crate) use pool::Pool;
pub use pool::PoolAttributes;
pub use remap::PadMode;
pub use resize::ResizeAttributes;
pub use resolve::{Fused, Resolved, batch_norm_affine, output_shape, resolve};
pub use unary::UnaryOp;
