//! Where the images of a batch are in a value, as long as each depends on itself alone. A network is run on a few images at
//! a time, and a last batch is filled up with zeros: where images are mixed, that would be something else.

use crate::ops::Compute;
use crate::tensor::Tensor;

/// The image that an element belongs to is its index along an axis, divided by `each`, modulo the number of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Images {
    pub axis: usize,
    pub each: usize,
}

/// An operand's shape, and where its images are; a constant is given whole.
pub(super) enum Part<'a> {
    Computed(&'a [usize], Option<Images>),
    Constant(&'a Tensor),
}

impl Part<'_> {
    fn shape(&self) -> &[usize] {
        match self {
            Part::Computed(shape, _) => shape,
            Part::Constant(tensor) => &tensor.shape,
        }
    }
}

fn inside(shape: &[usize], axis: usize) -> usize {
    shape[axis + 1..].iter().product()
}

/// Where `count` images are in what an operation makes of its operands; `None` where they are mixed.
pub(super) fn images(compute: &Compute, parts: &[Part], out: &[usize], count: usize) -> Option<Images> {
    match compute {
        Compute::MatMul => matmul(parts, out),
        Compute::Binary { .. } => aligned(parts, out.len(), |_| true),
        Compute::Concat(joined) => aligned(parts, out.len(), |axis| axis != *joined),
        _ => {
            let Part::Computed(shape, Some(images)) = parts.first()? else { return None };
            moved(compute, shape, *images, out, count)
        }
    }
}

fn moved(compute: &Compute, shape: &[usize], images: Images, out: &[usize], count: usize) -> Option<Images> {
    let Images { axis, each } = images;
    let stay = |stay: bool| stay.then_some(images);
    let to = |axis: usize| Some(Images { axis, each });
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
            Some(Images { axis, each: inner / inside(out, axis) })
        }
        Compute::Transpose(perm) => to(perm.iter().position(|&from| from == axis)?),
        Compute::Gather(at, _) if *at == axis => None,
        Compute::Gather(at, _) => to(if *at < axis { axis + out.len() - shape.len() } else { axis }),
        Compute::Expand => to(axis + out.len() - shape.len()).filter(|to| out[to.axis] == shape[axis]),
        Compute::MatMul | Compute::Binary { .. } | Compute::Concat(_) => None,
    }
}

/// Of operands whose last axes are the same: all have their images in one place, and constants are the same for all images.
fn aligned(parts: &[Part], rank: usize, fits: impl Fn(usize) -> bool) -> Option<Images> {
    let mut found: Option<Images> = None;
    for part in parts {
        if let Part::Computed(shape, images) = part {
            let images = (*images)?;
            let images = Images { axis: images.axis + rank - shape.len(), ..images };
            (found.is_none_or(|found| found == images) && fits(images.axis)).then_some(())?;
            found = Some(images);
        }
    }
    let found = found?;
    let same = |part: &Part| match part {
        Part::Constant(tensor) => (found.axis + tensor.shape.len()).checked_sub(rank).is_none_or(|axis| uniform(tensor, axis)),
        Part::Computed(..) => true,
    };
    parts.iter().all(same).then_some(found)
}

fn matmul(parts: &[Part], out: &[usize]) -> Option<Images> {
    let rank = out.len();
    let [left, right] = parts else { return None };
    match aligned(parts, rank, |axis| axis + 2 < rank) {
        Some(images) => Some(images),
        // Rows of the left or columns of the right one, if the other is the same for all.
        None => match (left, right) {
            (Part::Computed(shape, Some(images)), Part::Constant(_)) if images.axis + 2 == shape.len() => {
                Some(Images { axis: rank - 2, ..*images })
            }
            (Part::Constant(_), Part::Computed(shape, Some(images))) if images.axis + 1 == shape.len() => {
                Some(Images { axis: rank - 1, ..*images })
            }
            _ => None,
        },
    }
    .filter(|_| left.shape().len() > 1 && right.shape().len() > 1)
}

/// Whether the numbers are the same all along an axis.
fn uniform(tensor: &Tensor, axis: usize) -> bool {
    let (inner, dim) = (inside(&tensor.shape, axis), tensor.shape[axis]);
    dim == 1
        || tensor.data.chunks_exact((inner * dim).max(1)).all(|block| block.chunks_exact(inner).all(|row| row == &block[..inner]))
}
