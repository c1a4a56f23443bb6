//! The axis along which a value holds the images of a batch, as long as no image depends on another.
//!
//! A network runs a few images at a time, and zeros fill up a last batch. Both would change the result of a network that
//! mixes images.

use crate::ops::{Compute, Images};
use crate::tensor::Tensor;

/// An element at `index` along `axis` belongs to image `index / each`, modulo the number of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ImageAxis {
    pub axis: usize,
    pub each: usize,
}

impl ImageAxis {
    /// One entry along the first axis for each image, as in the input.
    pub const FIRST: ImageAxis = ImageAxis { axis: 0, each: 1 };
}

/// An operand: the shape and image axis of a computed value, or a constant.
pub(super) enum Operand<'a> {
    Computed(&'a [usize], Option<ImageAxis>),
    Constant(&'a Tensor),
}

impl Operand<'_> {
    fn shape(&self) -> &[usize] {
        match self {
            Operand::Computed(shape, _) => shape,
            Operand::Constant(tensor) => &tensor.shape,
        }
    }
}

fn inside(shape: &[usize], axis: usize) -> usize {
    shape[axis + 1..].iter().product()
}

/// The axis of `count` images in the result of an operation; `None` if it mixes them.
pub(super) fn result_axis(compute: &Compute, operands: &[Operand], out: &[usize], count: usize) -> Option<ImageAxis> {
    match compute {
        Compute::MatMul => matmul(operands, out),
        Compute::Binary { .. } => aligned(operands, out.len(), |_| true),
        Compute::Concat(joined) => aligned(operands, out.len(), |axis| axis != *joined),
        Compute::General(general) => match &general.images {
            Images::Aligned(mixed) => aligned(operands, out.len(), |axis| !mixed.contains(&axis)),
            Images::First(without) => all_first(operands, without, out, count),
            Images::Matched(places) => matched(operands, places),
            Images::Axes(places) => {
                let (Operand::Computed(_, Some(images)), rest) = operands.split_first()? else { return None };
                let alone = rest.iter().all(|operand| matches!(operand, Operand::Constant(_)));
                let axis = places.get(images.axis).copied().flatten().filter(|_| alone)?;
                Some(ImageAxis { axis, ..*images })
            }
        },
        _ => {
            let Operand::Computed(shape, Some(images)) = operands.first()? else { return None };
            moved_axis(compute, shape, *images, out, count)
        }
    }
}

/// The axis to which every computed operand brings the images. Constants must be the same for all images.
fn matched(operands: &[Operand], places: &[Vec<Option<usize>>]) -> Option<ImageAxis> {
    let mut found: Option<ImageAxis> = None;
    for (operand, places) in operands.iter().zip(places) {
        if let Operand::Computed(_, images) = operand {
            let images = (*images)?;
            let to = ImageAxis { axis: places.get(images.axis).copied().flatten()?, ..images };
            found.is_none_or(|found| found == to).then_some(())?;
            found = Some(to);
        }
    }
    let found = found?;
    let same = |(operand, places): (&Operand, &Vec<Option<usize>>)| match operand {
        Operand::Constant(tensor) => {
            places.iter().position(|place| *place == Some(found.axis)).is_none_or(|axis| uniform(tensor, axis))
        }
        Operand::Computed(..) => true,
    };
    operands.iter().zip(places).all(same).then_some(found)
}

/// The first axis, if all operands have the images there, each with one entry. Constants must be the same for all images, and
/// operands `without` images constants.
fn all_first(operands: &[Operand], without: &[usize], out: &[usize], count: usize) -> Option<ImageAxis> {
    let first = |(index, operand): (usize, &Operand)| match operand {
        Operand::Computed(_, images) => *images == Some(ImageAxis::FIRST) && !without.contains(&index),
        Operand::Constant(tensor) => without.contains(&index) || tensor.shape.is_empty() || uniform(tensor, 0),
    };
    (out.first() == Some(&count) && operands.iter().enumerate().all(first)).then_some(ImageAxis::FIRST)
}

fn moved_axis(compute: &Compute, shape: &[usize], images: ImageAxis, out: &[usize], count: usize) -> Option<ImageAxis> {
    let ImageAxis { axis, each } = images;
    let stay = |stay: bool| stay.then_some(images);
    let to = |axis: usize| Some(ImageAxis { axis, each });
    match compute {
        Compute::Conv(_) | Compute::ConvTranspose(_) | Compute::Affine { .. } | Compute::Pool(_) => stay(axis == 0),
        Compute::Linear { trans_a: None, .. } => stay(axis + 1 < shape.len()),
        Compute::Linear { trans_a: Some(_), .. } => to(0).filter(|_| axis == 1),
        Compute::Unary(_) => Some(images),
        Compute::Remap(remap, _) => stay(remap.keeps(axis, shape[axis])),
        Compute::Resize(resize) => stay(resize.keeps(axis, shape[axis])),
        Compute::Mean(axes) if axes.contains(&axis) => None,
        Compute::Mean(_) if out.len() == shape.len() => Some(images),
        Compute::Mean(axes) => to(axis - axes.iter().filter(|&&other| other < axis).count()),
        Compute::Softmax(softmax) => stay(softmax.keeps(inside(shape, axis), shape[axis])),
        Compute::Reshape => {
            let inner = each * inside(shape, axis);
            let holds = |&axis: &usize| {
                let step = inside(out, axis);
                step > 0 && inner.is_multiple_of(step) && (step * out[axis]).is_multiple_of(inner * count)
            };
            let axis = (0..out.len()).find(holds)?;
            Some(ImageAxis { axis, each: inner / inside(out, axis) })
        }
        Compute::Transpose(perm) => to(perm.iter().position(|&from| from == axis)?),
        Compute::Gather(at, indices) if *at == axis => {
            gathered(indices, images, &out[axis..=axis + out.len() - shape.len()], count)
        }
        Compute::Gather(at, _) => to(if *at < axis { axis + out.len() - shape.len() } else { axis }),
        Compute::Expand => to(axis + out.len() - shape.len()).filter(|to| out[to.axis] == shape[axis]),
        Compute::MatMul | Compute::Binary { .. } | Compute::Concat(_) | Compute::General(_) => None,
    }
}

/// The axis of the images among those of indices of `shape`, which pick elements along the images' axis. Exporters write a view
/// of all images as indices into their elements, one image behind the other.
fn gathered(indices: &[usize], images: ImageAxis, shape: &[usize], count: usize) -> Option<ImageAxis> {
    let holds = |&axis: &usize| {
        let (step, each) = (inside(shape, axis), shape[axis] / count.max(1));
        let image = |place: usize| place / step % shape[axis] / each;
        let whole = images.each > 0 && each > 0 && shape[axis].is_multiple_of(count) && indices.len() >= count * images.each;
        whole && indices.iter().enumerate().all(|(place, index)| index / images.each % count == image(place))
    };
    let axis = (0..shape.len()).find(holds)?;
    Some(ImageAxis { axis: images.axis + axis, each: shape[axis] / count.max(1) })
}

/// The common image axis of operands that are broadcast to `rank` axes. Constants must be the same for all images.
fn aligned(operands: &[Operand], rank: usize, fits: impl Fn(usize) -> bool) -> Option<ImageAxis> {
    let mut found: Option<ImageAxis> = None;
    for operand in operands {
        if let Operand::Computed(shape, images) = operand {
            let images = (*images)?;
            let images = ImageAxis { axis: images.axis + rank - shape.len(), ..images };
            (found.is_none_or(|found| found == images) && fits(images.axis)).then_some(())?;
            found = Some(images);
        }
    }
    let found = found?;
    let same = |operand: &Operand| match operand {
        Operand::Constant(tensor) => (found.axis + tensor.shape.len()).checked_sub(rank).is_none_or(|axis| uniform(tensor, axis)),
        Operand::Computed(..) => true,
    };
    operands.iter().all(same).then_some(found)
}

fn matmul(operands: &[Operand], out: &[usize]) -> Option<ImageAxis> {
    let rank = out.len();
    let [left, right] = operands else { return None };
    if left.shape().len() < 2 || right.shape().len() < 2 {
        return None;
    }
    match aligned(operands, rank, |axis| axis + 2 < rank) {
        Some(images) => Some(images),
        // Images are rows on the left or columns on the right, and the other side is a constant.
        None => match (left, right) {
            (Operand::Computed(shape, Some(images)), Operand::Constant(_)) if images.axis + 2 == shape.len() => {
                Some(ImageAxis { axis: rank - 2, ..*images })
            }
            (Operand::Constant(_), Operand::Computed(shape, Some(images))) if images.axis + 1 == shape.len() => {
                Some(ImageAxis { axis: rank - 1, ..*images })
            }
            _ => None,
        },
    }
}

/// Whether a tensor does not change along an axis.
fn uniform(tensor: &Tensor, axis: usize) -> bool {
    let (inner, dim) = (inside(&tensor.shape, axis), tensor.shape[axis]);
    dim == 1
        || tensor.data.chunks_exact((inner * dim).max(1)).all(|block| block.chunks_exact(inner).all(|row| row == &block[..inner]))
}
