//! The operations that a layer can have.

use super::{
    ArgExtreme, Attention, BinaryOp, ConvAttributes, ConvTransposeAttributes, IndexOp, NormOp, PadMode, PoolAttributes,
    QuantizeOp, RearrangeOp, Recurrent, Reducer, ResizeAttributes, RotaryEmbedding, SampleOp, UnaryOp, VolumeConv, WindowPool,
};
use crate::tensor::Value;
use std::sync::Arc;

/// An operation with its attributes. Inputs that may be attributes in older opsets are options here.
#[derive(Clone, Debug)]
pub enum Op {
    /// Convolution over one or two spatial axes.
    Conv(ConvAttributes),
    /// Its transpose.
    ConvTranspose(ConvTransposeAttributes),
    /// A convolution of another kind. Its weight can be pruned.
    OpaqueConv {
        /// Its name, for messages.
        name: String,
        /// How it is computed, if it can be.
        volume: Option<VolumeConv>,
        /// Channel groups.
        groups: usize,
        /// Whether it is a transpose.
        transposed: bool,
    },
    /// `alpha * A' * B' + beta * C`
    Gemm {
        /// Factor of the product.
        alpha: f32,
        /// Factor of the bias.
        beta: f32,
        /// Whether `A` is transposed.
        trans_a: bool,
        /// Whether `B` is transposed.
        trans_b: bool,
    },
    /// Matrix product over the last two axes.
    MatMul,
    /// `gamma * (x - mean) / sqrt(var + epsilon) + beta`, per channel.
    BatchNorm {
        /// Added to the variance.
        epsilon: f32,
    },
    /// One value in, one value out.
    Unary(UnaryOp),
    /// Clamps to bounds: attributes before opset 11, inputs since.
    Clip {
        /// Lower and upper attribute.
        bounds: [Option<f32>; 2],
    },
    /// Operands with broadcasting; `Sum` is a chain of `Add`.
    Binary(BinaryOp),
    /// The second operand where the first is true, the third elsewhere.
    Where,
    /// Joins along an axis.
    Concat {
        /// May be negative.
        axis: i64,
    },
    /// Cuts out; attributes before opset 10.
    Slice {
        /// Starts, ends, axes.
        attributes: Option<[Vec<i64>; 3]>,
    },
    /// Pads; attributes before opset 11.
    Pad {
        /// What fills the padding.
        mode: PadMode,
        /// Pads and value.
        attributes: Option<(Vec<i64>, f32)>,
    },
    /// Largest value of each window.
    MaxPool(PoolAttributes),
    /// Mean of each window.
    AveragePool(PoolAttributes),
    /// Mean over height and width.
    GlobalAveragePool,
    /// Mean over axes.
    ReduceMean {
        /// Attribute before opset 18.
        axes: Option<Vec<i64>>,
        /// Whether reduced axes stay with length 1.
        keep_dims: bool,
        /// Whether no axes means none rather than all.
        noop_with_empty_axes: bool,
    },
    /// Another reduction over axes.
    Reduce {
        /// What becomes of the elements.
        reducer: Reducer,
        /// Attribute before opset 18, of ReduceSum before 13.
        axes: Option<Vec<i64>>,
        /// Whether reduced axes stay with length 1.
        keep_dims: bool,
        /// Whether no axes means none rather than all.
        noop_with_empty_axes: bool,
    },
    /// A reduction over all spatial axes.
    GlobalPool {
        /// The operation's name.
        name: &'static str,
        /// What becomes of the pixels.
        reducer: Reducer,
    },
    /// The index of the largest or smallest element.
    Arg(ArgExtreme),
    /// Pooling of another kind than the plain ones.
    WindowPool(WindowPool),
    /// A normalisation whose statistics depend on the image.
    Norm(NormOp),
    /// To a matrix.
    Flatten {
        /// First axis of the second dimension.
        axis: i64,
    },
    /// To a shape given as input.
    Reshape {
        /// Whether 0 means 0 rather than "as it was".
        allow_zero: bool,
    },
    /// Permutes axes.
    Transpose {
        /// Reversed if absent.
        perm: Option<Vec<i64>>,
    },
    /// Drops axes of length 1.
    Squeeze {
        /// Attribute before opset 13.
        axes: Option<Vec<i64>>,
    },
    /// Adds axes of length 1.
    Unsqueeze {
        /// Attribute before opset 13.
        axes: Option<Vec<i64>>,
    },
    /// Scales images.
    Resize(ResizeAttributes),
    /// `exp(x) / sum exp(x)`, or its logarithm.
    Softmax {
        /// Axis, or the first of the flattened axes before opset 13.
        axis: i64,
        /// Whether all axes from `axis` on count as one (before opset 13).
        flatten: bool,
        /// Whether the logarithm is taken.
        log: bool,
    },
    /// The input as it is: Identity, and Dropout at inference.
    Identity,
    /// A constant that is not a parameter (text, sparse).
    OpaqueConstant,
    /// A tensor of one value, of a computed shape.
    ConstantOfShape {
        /// Zero if absent.
        value: Option<Arc<Value>>,
    },
    /// The input's shape.
    Shape {
        /// First axis.
        start: i64,
        /// Past the last axis.
        end: Option<i64>,
    },
    /// Elements by index along an axis.
    Gather {
        /// May be negative.
        axis: i64,
    },
    /// To another type.
    Cast {
        /// ONNX type code.
        to: i64,
    },
    /// To the type of the second input.
    CastLike,
    /// Repeats along axes of length 1, to a shape given as input.
    Expand,
    /// Elements by indices.
    Index(IndexOp),
    /// Elements in another order.
    Rearrange(RearrangeOp),
    /// Pixels at computed places.
    Sample(SampleOp),
    /// A recurrent layer.
    Recurrent(Recurrent),
    /// Attention over a sequence.
    Attention(Attention),
    /// Rotary positions.
    Rotary(RotaryEmbedding),
    /// Sums of products by an equation.
    Einsum(String),
    /// To or from quantised numbers.
    Quantize(QuantizeOp),
    /// The numbers from a start to a limit, by steps.
    Range,
    /// The number of elements.
    Size,
    /// Anything else. It stays in a written file and is an error in the forward.
    Unknown(String),
}

impl Op {
    /// The inputs that are weights if they are constants, the likeliest first.
    pub fn weight_inputs(&self) -> &'static [usize] {
        match self {
            Op::Conv(_) | Op::ConvTranspose(_) | Op::OpaqueConv { .. } | Op::Gemm { .. } => &[1],
            Op::MatMul => &[1, 0],
            _ => &[],
        }
    }

    /// The operation's name in ONNX, for tables and messages.
    pub fn name(&self) -> &str {
        match self {
            Op::Conv(_) => "Conv",
            Op::ConvTranspose(_) => "ConvTranspose",
            Op::OpaqueConv { name, .. } => name,
            Op::Gemm { .. } => "Gemm",
            Op::MatMul => "MatMul",
            Op::BatchNorm { .. } => "BatchNormalization",
            Op::Unary(op) => op.name(),
            Op::Clip { .. } => "Clip",
            Op::Binary(op) => op.name(),
            Op::Where => "Where",
            Op::Concat { .. } => "Concat",
            Op::Slice { .. } => "Slice",
            Op::Pad { .. } => "Pad",
            Op::MaxPool(_) => "MaxPool",
            Op::AveragePool(_) => "AveragePool",
            Op::GlobalAveragePool => "GlobalAveragePool",
            Op::ReduceMean { .. } => "ReduceMean",
            Op::Reduce { reducer, .. } => reducer.name(),
            Op::GlobalPool { name, .. } => name,
            Op::Arg(ArgExtreme { smallest: true, .. }) => "ArgMin",
            Op::Arg(_) => "ArgMax",
            Op::WindowPool(pool) => pool.name(),
            Op::Norm(op) => op.name(),
            Op::Flatten { .. } => "Flatten",
            Op::Reshape { .. } => "Reshape",
            Op::Transpose { .. } => "Transpose",
            Op::Squeeze { .. } => "Squeeze",
            Op::Unsqueeze { .. } => "Unsqueeze",
            Op::Resize(_) => "Resize",
            Op::Softmax { log: false, .. } => "Softmax",
            Op::Softmax { log: true, .. } => "LogSoftmax",
            Op::Identity => "Identity",
            Op::OpaqueConstant => "Constant",
            Op::ConstantOfShape { .. } => "ConstantOfShape",
            Op::Shape { .. } => "Shape",
            Op::Gather { .. } => "Gather",
            Op::Cast { .. } => "Cast",
            Op::CastLike => "CastLike",
            Op::Expand => "Expand",
            Op::Index(op) => op.name(),
            Op::Rearrange(op) => op.name(),
            Op::Sample(op) => op.name(),
            Op::Recurrent(op) => op.name(),
            Op::Attention(_) => "Attention",
            Op::Rotary(_) => "RotaryEmbedding",
            Op::Einsum(_) => "Einsum",
            Op::Quantize(op) => op.name(),
            Op::Range => "Range",
            Op::Size => "Size",
            Op::Unknown(name) => name,
        }
    }
}
