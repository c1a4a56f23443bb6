//! Elements in another order: parts of an axis, blocks of pixels as channels, repetitions, triangles, sorted elements.

use super::fact::{Fact, operand, optional_i64, required_i64};
use super::general::{General, Images};
use super::remap::Remap;
use super::resolve::Resolved;
use super::{Attributes, Compute, axis_index, layout};
use crate::error::{Error, Result};
use crate::tensor::{Tensor, element_count};

/// An operation that rearranges elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RearrangeOp {
    /// One of the parts of an axis.
    Split {
        /// May be negative.
        axis: i64,
        /// Attribute before opset 13.
        sizes: Option<Vec<i64>>,
        /// How many parts there are.
        parts: usize,
        /// Which of them.
        output: usize,
    },
    /// Repeats along each axis.
    Tile,
    /// Blocks of channels become blocks of pixels.
    DepthToSpace {
        /// Side of a block.
        block: usize,
        /// Whether channels are split before blocks rather than behind them.
        channels_first: bool,
    },
    /// Blocks of pixels become channels.
    SpaceToDepth {
        /// Side of a block.
        block: usize,
        /// Whether channels come before blocks rather than behind them.
        channels_first: bool,
    },
    /// One triangle of each matrix; zeros in the other.
    Trilu {
        /// Whether the upper one stays.
        upper: bool,
    },
    /// Sums of the elements so far.
    CumSum {
        /// Whether an element does not count itself.
        exclusive: bool,
        /// Whether it begins at the end.
        reverse: bool,
    },
    /// The largest or smallest elements along an axis, or their indices.
    TopK {
        /// May be negative.
        axis: i64,
        /// The number before opset 10.
        k: Option<i64>,
        /// Whether the largest ones are wanted.
        largest: bool,
        /// 0 for the elements, 1 for the indices.
        output: usize,
    },
    /// Cuts or pads the middle to a shape.
    CenterCropPad {
        /// All axes if absent.
        axes: Option<Vec<i64>>,
    },
    /// Reverses the first elements of each sequence.
    ReverseSequence {
        /// Axis of the sequences.
        batch: i64,
        /// Axis to reverse.
        time: i64,
    },
}

impl RearrangeOp {
    pub(super) fn parse(kind: &str, a: &Attributes) -> Result<Option<RearrangeOp>> {
        let block = || {
            let size = a.int("blocksize", 0)?;
            usize::try_from(size).ok().filter(|&n| n > 0).ok_or_else(|| Error::format(format!("blocksize {size}")))
        };
        Ok(Some(match kind {
            "Split" => {
                RearrangeOp::Split { axis: a.int("axis", 0)?, sizes: a.ints("split")?, parts: a.outputs, output: a.output }
            }
            "TopK" if a.output < 2 => RearrangeOp::TopK {
                axis: a.int("axis", -1)?,
                k: a.optional_int("k")?,
                largest: a.flag("largest", true)?,
                output: a.output,
            },
            _ if a.output > 0 => return Ok(None),
            "Tile" if a.opset >= 6 => RearrangeOp::Tile,
            "DepthToSpace" => {
                RearrangeOp::DepthToSpace { block: block()?, channels_first: a.text("mode")?.as_deref() == Some("CRD") }
            }
            "SpaceToDepth" => {
                RearrangeOp::SpaceToDepth { block: block()?, channels_first: a.text("mode")?.as_deref() == Some("CRD") }
            }
            "Trilu" => RearrangeOp::Trilu { upper: a.flag("upper", true)? },
            "CumSum" => RearrangeOp::CumSum { exclusive: a.flag("exclusive", false)?, reverse: a.flag("reverse", false)? },
            "CenterCropPad" => RearrangeOp::CenterCropPad { axes: a.ints("axes")? },
            "ReverseSequence" => RearrangeOp::ReverseSequence { batch: a.int("batch_axis", 1)?, time: a.int("time_axis", 0)? },
            _ => return Ok(None),
        }))
    }

    /// The operation's name in ONNX.
    pub fn name(&self) -> &'static str {
        match self {
            RearrangeOp::Split { .. } => "Split",
            RearrangeOp::Tile => "Tile",
            RearrangeOp::DepthToSpace { .. } => "DepthToSpace",
            RearrangeOp::SpaceToDepth { .. } => "SpaceToDepth",
            RearrangeOp::Trilu { .. } => "Trilu",
            RearrangeOp::CumSum { .. } => "CumSum",
            RearrangeOp::TopK { .. } => "TopK",
            RearrangeOp::CenterCropPad { .. } => "CenterCropPad",
            RearrangeOp::ReverseSequence { .. } => "ReverseSequence",
        }
    }

    /// Where it only selects elements along each axis, from which each comes.
    pub(super) fn remap(&self, inputs: &[Option<Fact>]) -> Option<Result<Remap>> {
        let shape = match operand(inputs, 0) {
            Ok(fact) => &fact.shape,
            Err(e) => return Some(Err(e)),
        };
        match self {
            RearrangeOp::Split { axis, sizes, parts, output } => Some(
                split_range(inputs, *axis, sizes.as_deref(), *parts, *output)
                    .and_then(|(axis, first, end)| Remap::slice(shape, &[first as i64], &[end as i64], &[axis as i64], &[1])),
            ),
            RearrangeOp::Tile => Some(tile(shape, inputs)),
            RearrangeOp::CenterCropPad { axes } => Some(center(shape, inputs, axes.as_deref())),
            _ => None,
        }
    }

    pub(super) fn resolve(&self, inputs: &[Option<Fact>]) -> Result<Resolved> {
        if let Some(remap) = self.remap(inputs) {
            let remap = remap?;
            let shape = remap.shape();
            element_count(&shape)?;
            return Ok(Resolved { shape, compute: Compute::Remap(remap, 0.0), macs: 0 });
        }
        let shape = operand(inputs, 0)?.shape.clone();
        match *self {
            RearrangeOp::DepthToSpace { block, channels_first } => depth_to_space(&shape, block, channels_first),
            RearrangeOp::SpaceToDepth { block, channels_first } => space_to_depth(&shape, block, channels_first),
            RearrangeOp::Trilu { upper } => trilu(inputs, shape, upper),
            RearrangeOp::CumSum { exclusive, reverse } => cumulative(inputs, shape, exclusive, reverse),
            RearrangeOp::TopK { axis, k, largest, output } => top_k(inputs, shape, axis, k, largest, output),
            RearrangeOp::ReverseSequence { batch, time } => reverse_sequence(inputs, shape, batch, time),
            RearrangeOp::Split { .. } | RearrangeOp::Tile | RearrangeOp::CenterCropPad { .. } => {
                Err(Error::data("elements that are not selected along axes"))
            }
        }
    }
}

/// Axis, first index and end of a part.
pub fn split_range(
    inputs: &[Option<Fact>],
    axis: i64,
    sizes: Option<&[i64]>,
    parts: usize,
    output: usize,
) -> Result<(usize, usize, usize)> {
    let shape = &operand(inputs, 0)?.shape;
    let axis = axis_index(axis, shape.len())?;
    let given = sizes.map_or_else(|| optional_i64(inputs, 1), |sizes| Ok(Some(sizes.to_vec())))?;
    let wrong = || Error::data(format!("axis {axis} of shape {shape:?} in {parts} parts of {given:?}"));
    let sizes: Vec<usize> = match &given {
        Some(sizes) => sizes.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<_>>().ok_or_else(wrong)?,
        None => {
            let each = shape[axis].div_ceil(parts.max(1));
            (0..parts).map(|part| each.min(shape[axis].saturating_sub(part * each))).collect()
        }
    };
    let total = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size));
    if total != Some(shape[axis]) || output >= sizes.len() {
        return Err(wrong());
    }
    let first = sizes[..output].iter().sum();
    Ok((axis, first, first + sizes[output]))
}

fn tile(shape: &[usize], inputs: &[Option<Fact>]) -> Result<Remap> {
    let repeats = required_i64(inputs, 1, "repeats")?;
    let counts: Option<Vec<usize>> = repeats.iter().map(|&count| usize::try_from(count).ok()).collect();
    let counts = counts.filter(|counts| counts.len() == shape.len());
    let counts = counts.ok_or_else(|| Error::data(format!("shape {shape:?} repeated {repeats:?} times")))?;
    let lengths: Option<Vec<usize>> = shape.iter().zip(&counts).map(|(dim, count)| dim.checked_mul(*count)).collect();
    crate::tensor::value_count(&lengths.ok_or_else(|| Error::data(format!("shape {shape:?} repeated {repeats:?} times")))?)?;
    let map = |(&dim, &count): (&usize, &usize)| (0..dim * count).map(|at| at % dim).collect();
    Ok(Remap::of_sources(shape.iter().zip(&counts).map(map).collect()))
}

fn center(shape: &[usize], inputs: &[Option<Fact>], axes: Option<&[i64]>) -> Result<Remap> {
    let target = required_i64(inputs, 1, "shape")?;
    let all: Vec<i64> = (0..shape.len() as i64).collect();
    let axes = axes.unwrap_or(&all);
    if axes.len() != target.len() {
        return Err(Error::data(format!("{} axes for a shape of {target:?}", axes.len())));
    }
    let mut pads = vec![0; 2 * axes.len()];
    for (i, (&axis, &size)) in axes.iter().zip(&target).enumerate() {
        let dim = shape[axis_index(axis, shape.len())?] as i64;
        let more = size.max(0).saturating_sub(dim);
        // Of an odd pixel more is behind when padded, and when cut as well.
        (pads[i], pads[i + axes.len()]) = if more >= 0 { (more / 2, more - more / 2) } else { (-(-more / 2), more + -more / 2) };
    }
    Remap::pad(shape, &pads, Some(axes), super::PadMode::Constant)
}

/// Reshapes, permutes axes, and reshapes to `out`.
fn permuted(shape: Vec<usize>, perm: Vec<usize>, out: Vec<usize>) -> Result<Resolved> {
    element_count(&out)?;
    let moved: Vec<usize> = perm.iter().map(|&axis| shape[axis]).collect();
    let images = Images::beside(out.len(), &[1, 2, 3]);
    let run = move |input: &Tensor, out: &mut Tensor| {
        let from = Tensor { shape: shape.clone(), data: input.data.clone() };
        let mut to = Tensor { shape: moved.clone(), data: std::mem::take(&mut out.data) };
        layout::transpose(&from, &perm, &mut to);
        out.data = to.data;
    };
    Ok(General::of_one(images, run).shaped(out))
}

fn depth_to_space(shape: &[usize], b: usize, channels_first: bool) -> Result<Resolved> {
    let wrong = || Error::data(format!("shape {shape:?} in blocks of {b}"));
    let &[n, channels, h, w] = shape else { return Err(wrong()) };
    let squared = b.checked_mul(b).filter(|&squared| channels.is_multiple_of(squared)).ok_or_else(wrong)?;
    let c = channels / squared;
    let out = vec![n, c, h.checked_mul(b).ok_or_else(wrong)?, w.checked_mul(b).ok_or_else(wrong)?];
    match channels_first {
        true => permuted(vec![n, c, b, b, h, w], vec![0, 1, 4, 2, 5, 3], out),
        false => permuted(vec![n, b, b, c, h, w], vec![0, 3, 4, 1, 5, 2], out),
    }
}

fn space_to_depth(shape: &[usize], b: usize, channels_first: bool) -> Result<Resolved> {
    let wrong = || Error::data(format!("shape {shape:?} in blocks of {b}"));
    let &[n, c, height, width] = shape else { return Err(wrong()) };
    if !height.is_multiple_of(b) || !width.is_multiple_of(b) {
        return Err(wrong());
    }
    let (h, w, squared) = (height / b, width / b, b.checked_mul(b).ok_or_else(wrong)?);
    let perm = if channels_first { vec![0, 1, 3, 5, 2, 4] } else { vec![0, 3, 5, 1, 2, 4] };
    permuted(vec![n, c, h, b, w, b], perm, vec![n, squared.checked_mul(c).ok_or_else(wrong)?, h, w])
}

fn trilu(inputs: &[Option<Fact>], shape: Vec<usize>, upper: bool) -> Result<Resolved> {
    let shift = optional_i64(inputs, 1)?.and_then(|k| k.first().copied()).unwrap_or(0);
    let &[.., rows, columns] = &shape[..] else { return Err(Error::data(format!("a triangle of shape {shape:?}"))) };
    let run = move |input: &Tensor, out: &mut Tensor| {
        for (i, (out, &v)) in out.data.iter_mut().zip(&input.data).enumerate() {
            let (row, column) = ((i / columns % rows) as i64, (i % columns) as i64);
            let above = column.saturating_sub(row);
            *out = if if upper { above >= shift } else { above <= shift } { v } else { 0.0 };
        }
    };
    // Every element stays at its index.
    Ok(General::of_one(Images::beside(shape.len(), &[shape.len() - 2, shape.len() - 1]), run).shaped(shape))
}

fn cumulative(inputs: &[Option<Fact>], shape: Vec<usize>, exclusive: bool, reverse: bool) -> Result<Resolved> {
    let axis = required_i64(inputs, 1, "axis")?.first().copied().unwrap_or(0);
    let axis = axis_index(axis, shape.len())?;
    let (dim, step) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let run = move |input: &Tensor, out: &mut Tensor| {
        let block = (dim * step).max(1);
        for (out, values) in out.data.chunks_exact_mut(block).zip(input.data.chunks_exact(block)) {
            for first in 0..step {
                let mut sum = 0f64;
                for i in 0..dim {
                    let at = first + step * if reverse { dim - 1 - i } else { i };
                    let next = sum + f64::from(values[at]);
                    out[at] = if exclusive { sum } else { next } as f32;
                    sum = next;
                }
            }
        }
    };
    Ok(General::of_one(Images::beside(shape.len(), &[axis]), run).shaped(shape))
}

fn top_k(
    inputs: &[Option<Fact>],
    shape: Vec<usize>,
    axis: i64,
    k: Option<i64>,
    largest: bool,
    output: usize,
) -> Result<Resolved> {
    let axis = axis_index(axis, shape.len())?;
    let given = k.map_or_else(|| required_i64(inputs, 1, "k"), |k| Ok(vec![k]))?;
    let k = given.first().and_then(|&k| usize::try_from(k).ok()).filter(|&k| k <= shape[axis]);
    let k = k.ok_or_else(|| Error::data(format!("the first {given:?} of {} elements", shape[axis])))?;
    let (dim, step) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let mut kept = shape.clone();
    kept[axis] = k;
    let run = move |input: &Tensor, out: &mut Tensor| {
        let blocks = out.data.chunks_exact_mut((k * step).max(1)).zip(input.data.chunks_exact((dim * step).max(1)));
        for (out, values) in blocks {
            for first in 0..step {
                let value = |i: usize| values[first + i * step];
                let mut order: Vec<usize> = (0..dim).collect();
                // Of equal elements, the one with the lower index comes first.
                order.sort_by(|&a, &b| if largest { value(b).total_cmp(&value(a)) } else { value(a).total_cmp(&value(b)) });
                for (i, &from) in order[..k].iter().enumerate() {
                    out[first + i * step] = if output == 0 { value(from) } else { from as f32 };
                }
            }
        }
    };
    Ok(General::of_one(Images::beside(shape.len(), &[axis]), run).shaped(kept))
}

fn reverse_sequence(inputs: &[Option<Fact>], shape: Vec<usize>, batch: i64, time: i64) -> Result<Resolved> {
    let lengths = required_i64(inputs, 1, "lengths")?;
    let wrong = || Error::data(format!("sequences of lengths {lengths:?} in shape {shape:?}"));
    let (0 | 1, 0 | 1, true, true) = (batch, time, batch != time, shape.len() > 1) else { return Err(wrong()) };
    let (batch, time) = (batch as usize, time as usize);
    let fits = |&&length: &&i64| length >= 0 && length <= shape[time] as i64;
    if lengths.len() != shape[batch] || lengths.iter().filter(fits).count() != lengths.len() {
        return Err(wrong());
    }
    let (rows, columns) = (shape[0], shape[1]);
    let inner: usize = shape[2..].iter().product();
    let run = move |input: &Tensor, out: &mut Tensor| {
        for i in 0..rows * columns {
            let place = [i / columns, i % columns];
            let (length, at) = (lengths[place[batch]] as usize, place[time]);
            let mut from = place;
            from[time] = if at < length { length - 1 - at } else { at };
            let source = (from[0] * columns + from[1]) * inner;
            out.data[i * inner..][..inner].copy_from_slice(&input.data[source..][..inner]);
        }
    };
    Ok(General::of_one(Images::beside(shape.len(), &[time]), run).shaped(shape))
}
