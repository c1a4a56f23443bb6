//! Values on the training device, and the operations on them that need no parameters.

use burn_core::tensor::ops::PadMode as EnginePadMode;
use burn_core::tensor::{Device, Tensor, activation};
use resprout::ops::{BinaryOp, UnaryOp};

/// A value on the device: a batch of images or a batch of rows.
#[derive(Clone)]
pub(super) enum DeviceBatch {
    Images(Tensor<4>),
    Rows(Tensor<2>),
}

impl DeviceBatch {
    pub(super) fn unary(self, op: UnaryOp) -> DeviceBatch {
        match self {
            DeviceBatch::Images(x) => DeviceBatch::Images(unary(op, x)),
            DeviceBatch::Rows(x) => DeviceBatch::Rows(unary(op, x)),
        }
    }

    pub(super) fn binary(op: BinaryOp, a: DeviceBatch, b: DeviceBatch) -> DeviceBatch {
        match (a, b) {
            (DeviceBatch::Rows(a), DeviceBatch::Rows(b)) => DeviceBatch::Rows(binary(op, a, b)),
            (a, b) => DeviceBatch::Images(binary(op, a.images(), b.images())),
        }
    }

    /// A tensor of a shape. As in numpy, missing axes come first and have length 1.
    pub(super) fn of(tensor: Tensor<1>, shape: &[usize]) -> DeviceBatch {
        let axis = |i: usize, rank: usize| (i + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
        match shape.len() {
            3 | 4 => DeviceBatch::Images(tensor.reshape(std::array::from_fn::<usize, 4, _>(|i| axis(i, 4)))),
            _ => DeviceBatch::Rows(tensor.reshape(std::array::from_fn::<usize, 2, _>(|i| axis(i, 2)))),
        }
    }

    pub(super) fn reshaped(self, shape: &[usize]) -> DeviceBatch {
        match (self, shape) {
            (DeviceBatch::Images(x), &[a, b]) => DeviceBatch::Rows(x.reshape([a, b])),
            (DeviceBatch::Rows(x), &[a, b]) => DeviceBatch::Rows(x.reshape([a, b])),
            (DeviceBatch::Images(x), &[a, b, c, d]) => DeviceBatch::Images(x.reshape([a, b, c, d])),
            (DeviceBatch::Rows(x), &[a, b, c, d]) => DeviceBatch::Images(x.reshape([a, b, c, d])),
            _ => unreachable!("shapes of other ranks are refused when the program is made"),
        }
    }

    pub(super) fn images(self) -> Tensor<4> {
        match self {
            DeviceBatch::Images(images) => images,
            DeviceBatch::Rows(rows) => {
                let [a, b] = rows.dims();
                // Beside images, rows are broadcast as an array of fewer axes.
                rows.reshape([1, 1, a, b])
            }
        }
    }

    pub(super) fn rows(self) -> Tensor<2> {
        match self {
            DeviceBatch::Rows(rows) => rows,
            DeviceBatch::Images(images) => images.flatten(1, 3),
        }
    }
}

pub(super) fn unary<const D: usize>(op: UnaryOp, x: Tensor<D>) -> Tensor<D> {
    match op {
        UnaryOp::Relu => activation::relu(x),
        UnaryOp::LeakyRelu { alpha } => activation::leaky_relu(x, f64::from(alpha)),
        UnaryOp::Sigmoid => activation::sigmoid(x),
        UnaryOp::HardSigmoid { alpha, beta } => (x * alpha + beta).clamp(0.0, 1.0),
        UnaryOp::HardSwish => x.clone() * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        UnaryOp::Neg => x.neg(),
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Floor => x.floor(),
        UnaryOp::Clamp { low, high } => match (low.is_finite(), high.is_finite()) {
            (true, true) => x.clamp(low, high),
            (true, false) => x.clamp_min(low),
            (false, true) => x.clamp_max(high),
            (false, false) => x,
        },
    }
}

fn binary<const D: usize>(op: BinaryOp, a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Max | BinaryOp::Min => unreachable!("refused when the program is made"),
    }
}

/// The tensor without its autodiff graph, if it has one.
pub(super) fn without_gradient<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if x.device().is_autodiff() { x.inner() } else { x }
}

/// A tensor without gradient, as an operand on `device`.
pub(super) fn constant<const D: usize>(x: &Tensor<D>, device: &Device) -> Tensor<D> {
    if device.is_autodiff() { Tensor::from_inner(x.clone()) } else { x.clone() }
}

pub(super) fn slice(mut x: Tensor<4>, ranges: &[(usize, usize, usize)]) -> Tensor<4> {
    for (axis, &(start, end, step)) in ranges.iter().enumerate() {
        if (start, step) != (0, 1) || end != x.dims()[axis] {
            let slice = burn_core::tensor::Slice::new(start as isize, Some(end as isize), step as isize);
            x = x.slice_dim(axis, slice);
        }
    }
    x
}

pub(super) fn pad(mut x: Tensor<4>, pads: &[(usize, usize)], mode: &EnginePadMode, device: &Device) -> Tensor<4> {
    for (axis, &(before, after)) in pads.iter().enumerate() {
        x = pad_axis(x, axis, before, after, mode, device);
    }
    x
}

fn pad_axis(x: Tensor<4>, axis: usize, before: usize, after: usize, mode: &EnginePadMode, device: &Device) -> Tensor<4> {
    if before == 0 && after == 0 {
        return x;
    }
    if axis >= 2 {
        let pads = if axis == 2 { (0, 0, before, after) } else { (before, after, 0, 0) };
        return x.pad(pads, *mode);
    }
    let EnginePadMode::Constant(value) = *mode else { unreachable!("refused when the program is made") };
    let constant = |count: usize| {
        let mut dims = x.dims();
        dims[axis] = count;
        Tensor::<4>::full(dims, value, device)
    };
    let parts = [(before > 0).then(|| constant(before)), Some(x.clone()), (after > 0).then(|| constant(after))];
    Tensor::cat(parts.into_iter().flatten().collect(), axis)
}
