//! Normalisations whose statistics depend on the image.

use super::binary::expanded;
use super::fact::{Fact, operand, position, shapes};
use super::general::{General, Images};
use super::reduce::reduce_shape;
use super::resolve::Resolved;
use super::{Attributes, axis_index, layout};
use crate::error::{Error, Result};
use crate::tensor::{Tensor, element_count};

/// A normalisation.
#[derive(Clone, Debug, PartialEq)]
pub enum NormOp {
    /// Over all axes from one on; the mean and the inverse deviation are further outputs.
    Layer {
        /// First normalised axis.
        axis: i64,
        /// Added to the variance.
        epsilon: f32,
        /// 0 for the values, 1 for the mean, 2 for the inverse deviation.
        output: usize,
    },
    /// The same without a mean.
    RootMeanSquare {
        /// First normalised axis.
        axis: i64,
        /// Added to the mean square.
        epsilon: f32,
    },
    /// Over the pixels of each channel in all images: a BatchNormalization in training mode.
    Batch {
        /// Added to the variance.
        epsilon: f32,
    },
    /// Over the pixels of each channel.
    Instance {
        /// Added to the variance.
        epsilon: f32,
    },
    /// Over the pixels of a group of channels.
    Group {
        /// The number of groups.
        groups: usize,
        /// Added to the variance.
        epsilon: f32,
    },
    /// Over given axes, without scale and shift.
    MeanVariance {
        /// The axes.
        axes: Vec<i64>,
    },
    /// By the squares of neighbouring channels.
    LocalResponse {
        /// Factor of the mean square.
        alpha: f32,
        /// Exponent.
        beta: f32,
        /// Added to the scaled mean square.
        bias: f32,
        /// The number of channels.
        size: usize,
    },
    /// By the norm along an axis.
    Lp {
        /// The axis.
        axis: i64,
        /// 1 or 2.
        p: i64,
    },
}

impl NormOp {
    pub(super) fn parse(kind: &str, a: &Attributes) -> Result<Option<NormOp>> {
        let epsilon = || a.float("epsilon", 1e-5);
        let positive = |name: &str| {
            let number = a.int(name, 0)?;
            usize::try_from(number).ok().filter(|&n| n > 0).ok_or_else(|| Error::format(format!("{name} {number}")))
        };
        Ok(Some(match kind {
            "LayerNormalization" if a.output < 3 => {
                NormOp::Layer { axis: a.int("axis", -1)?, epsilon: epsilon()?, output: a.output }
            }
            _ if a.output > 0 => return Ok(None),
            "RMSNormalization" => NormOp::RootMeanSquare { axis: a.int("axis", -1)?, epsilon: epsilon()? },
            "BatchNormalization" if a.flag("training_mode", false)? => NormOp::Batch { epsilon: epsilon()? },
            "InstanceNormalization" => NormOp::Instance { epsilon: epsilon()? },
            "GroupNormalization" => NormOp::Group { groups: positive("num_groups")?, epsilon: epsilon()? },
            "MeanVarianceNormalization" => NormOp::MeanVariance { axes: a.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]) },
            "LRN" => NormOp::LocalResponse {
                alpha: a.float("alpha", 1e-4)?,
                beta: a.float("beta", 0.75)?,
                bias: a.float("bias", 1.0)?,
                size: positive("size")?,
            },
            "LpNormalization" => NormOp::Lp { axis: a.int("axis", -1)?, p: a.int("p", 2)? },
            _ => return Ok(None),
        }))
    }

    /// The operation's name in ONNX.
    pub fn name(&self) -> &'static str {
        match self {
            NormOp::Layer { .. } => "LayerNormalization",
            NormOp::RootMeanSquare { .. } => "RMSNormalization",
            NormOp::Batch { .. } => "BatchNormalization",
            NormOp::Instance { .. } => "InstanceNormalization",
            NormOp::Group { .. } => "GroupNormalization",
            NormOp::MeanVariance { .. } => "MeanVarianceNormalization",
            NormOp::LocalResponse { .. } => "LRN",
            NormOp::Lp { .. } => "LpNormalization",
        }
    }

    pub(super) fn resolve(&self, inputs: &[Option<Fact>]) -> Result<Resolved> {
        let shape = operand(inputs, 0)?.shape.clone();
        match *self {
            NormOp::Layer { axis, epsilon, output } => trailing(inputs, axis, epsilon, output, true),
            NormOp::RootMeanSquare { axis, epsilon } => trailing(inputs, axis, epsilon, 0, false),
            NormOp::Batch { epsilon } => batch(inputs, epsilon),
            NormOp::Instance { epsilon } => grouped(inputs, usize::MAX, epsilon),
            NormOp::Group { groups, epsilon } => grouped(inputs, groups, epsilon),
            NormOp::MeanVariance { ref axes } => {
                let (axes, _) = reduce_shape(&shape, Some(axes), true)?;
                let images = Images::beside(shape.len(), &axes);
                Ok(General::of_one(images, move |input, out| mean_variance(input, &axes, 1e-9, out)).shaped(shape))
            }
            NormOp::LocalResponse { alpha, beta, bias, size } => {
                if shape.len() < 2 {
                    return Err(Error::data(format!("channels of shape {shape:?}")));
                }
                let images = Images::beside(shape.len(), &[1]);
                let run = move |input: &Tensor, out: &mut Tensor| local_response(input, [alpha, beta, bias], size, out);
                Ok(General::of_one(images, run).shaped(shape))
            }
            NormOp::Lp { axis, p } => {
                let axis = axis_index(axis, shape.len())?;
                if p != 1 && p != 2 {
                    return Err(Error::format(format!("p {p}: 1 or 2 is needed")));
                }
                let images = Images::beside(shape.len(), &[axis]);
                Ok(General::of_one(images, move |input, out| lp(input, axis, p, out)).shaped(shape))
            }
        }
    }
}

/// The mean and the inverse deviation of some numbers, or 0 and the inverse root of their mean square.
fn statistics(values: &[f32], epsilon: f32, centred: bool) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = if centred { values.iter().map(|&v| f64::from(v)).sum::<f64>() / count } else { 0.0 };
    let square = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
    (mean, 1.0 / (square + f64::from(epsilon)).sqrt())
}

/// Normalises the axes from `axis` on. Scale and shift are broadcast to these.
fn trailing(inputs: &[Option<Fact>], axis: i64, epsilon: f32, output: usize, centred: bool) -> Result<Resolved> {
    let shape = operand(inputs, 0)?.shape.clone();
    let first = axis_index(axis, shape.len())?;
    let rows: Vec<usize> = shape[first..].to_vec();
    let inner = element_count(&rows)?;
    for part in shapes(inputs).into_iter().skip(1) {
        if part.len() > shape.len() || super::binary::broadcast_shape(&shape, part).ok().as_ref() != Some(&shape) {
            return Err(Error::data(format!("scale or shift of shape {part:?} for values of shape {shape:?}")));
        }
    }
    let images = Images::beside(shape.len(), &(first..shape.len()).collect::<Vec<_>>());
    if output > 0 {
        let kept = (0..shape.len()).map(|axis| if axis < first { shape[axis] } else { 1 }).collect();
        let run = move |input: &Tensor, out: &mut Tensor| {
            for (out, row) in out.data.iter_mut().zip(input.data.chunks_exact(inner.max(1))) {
                let (mean, inverse) = statistics(row, epsilon, centred);
                *out = if output == 1 { mean } else { inverse } as f32;
            }
        };
        return Ok(General::of_one(images, run).shaped(kept));
    }
    let (scale, shift) = (position(inputs, 1), position(inputs, 2));
    let run = move |inputs: &[&Tensor], out: &mut Tensor, _| {
        let whole = |at: Option<usize>| {
            let part = inputs[at?];
            let fits = part.shape.len() <= rows.len();
            expanded(part, if fits { &rows } else { &inputs[0].shape }).ok()
        };
        let (scale, shift) = (whole(scale), whole(shift));
        let pairs = out.data.chunks_exact_mut(inner.max(1)).zip(inputs[0].data.chunks_exact(inner.max(1)));
        for (row, (out, values)) in pairs.enumerate() {
            let (mean, inverse) = statistics(values, epsilon, centred);
            out.iter_mut().zip(values).for_each(|(out, &v)| *out = ((f64::from(v) - mean) * inverse) as f32);
            if let Some(scale) = &scale {
                let scale = &scale.data[row * inner % scale.len()..][..inner];
                out.iter_mut().zip(scale).for_each(|(out, scale)| *out *= scale);
            }
            if let Some(shift) = &shift {
                let shift = &shift.data[row * inner % shift.len()..][..inner];
                out.iter_mut().zip(shift).for_each(|(out, shift)| *out += shift);
            }
        }
    };
    Ok(General::new(inputs.len().min(3), images, run).shaped(shape))
}

/// Normalises groups of channels with their pixels. Scale and shift are per channel, or per group before opset 21.
fn grouped(inputs: &[Option<Fact>], groups: usize, epsilon: f32) -> Result<Resolved> {
    let shape = operand(inputs, 0)?.shape.clone();
    let wrong = || Error::data(format!("channels of shape {shape:?}"));
    let channels = *shape.get(1).ok_or_else(wrong)?;
    let groups = groups.min(channels);
    let plane = element_count(&shape[2..])?;
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(Error::data(format!("{groups} groups of {channels} channels")));
    }
    for index in [1, 2] {
        let count = element_count(&operand(inputs, index)?.shape)?;
        if count != channels && count != groups {
            return Err(Error::data(format!("{count} factors or summands for {channels} channels")));
        }
    }
    let run = move |inputs: &[&Tensor], out: &mut Tensor, _| {
        let len = (channels / groups * plane).max(1);
        let pairs = out.data.chunks_exact_mut(len).zip(inputs[0].data.chunks_exact(len));
        for (index, (out, values)) in pairs.enumerate() {
            let (mean, inverse) = statistics(values, epsilon, true);
            for (i, (out, &v)) in out.iter_mut().zip(values).enumerate() {
                let channel = index % groups * (channels / groups) + i / plane;
                let at = |part: &Tensor| part.data[channel * part.len() / channels];
                *out = ((f64::from(v) - mean) * inverse) as f32 * at(inputs[1]) + at(inputs[2]);
            }
        }
    };
    // Without pixels there is nothing to normalise, and images stay apart.
    let mixed: Vec<usize> = (1..shape.len()).collect();
    Ok(General::new(3, Images::beside(shape.len(), &mixed), run).shaped(shape))
}

/// Normalises each channel over all images.
fn batch(inputs: &[Option<Fact>], epsilon: f32) -> Result<Resolved> {
    let shape = operand(inputs, 0)?.shape.clone();
    let channels = *shape.get(1).ok_or_else(|| Error::data(format!("channels of shape {shape:?}")))?;
    for index in [1, 2] {
        let count = element_count(&operand(inputs, index)?.shape)?;
        if count != channels {
            return Err(Error::data(format!("{count} factors or summands for {channels} channels")));
        }
    }
    let axes: Vec<usize> = (0..shape.len()).filter(|&axis| axis != 1).collect();
    let plane: usize = shape[2..].iter().product();
    let run = move |inputs: &[&Tensor], out: &mut Tensor, _| {
        mean_variance(inputs[0], &axes, epsilon, out);
        for (index, values) in out.data.chunks_exact_mut(plane.max(1)).enumerate() {
            let (scale, shift) = (inputs[1].data[index % channels], inputs[2].data[index % channels]);
            values.iter_mut().for_each(|v| *v = *v * scale + shift);
        }
    };
    let images = Images::Axes(vec![None; shape.len()]);
    Ok(General::new(3, images, run).shaped(shape))
}

fn mean_variance(input: &Tensor, axes: &[usize], epsilon: f32, out: &mut Tensor) {
    // The axes to normalise go to the end, and back afterwards.
    let rank = input.shape.len();
    let kept = (0..rank).filter(|axis| !axes.contains(axis));
    let perm: Vec<usize> = kept.chain(axes.iter().copied()).collect();
    let shape: Vec<usize> = perm.iter().map(|&axis| input.shape[axis]).collect();
    let mut moved = Tensor::new(shape, vec![0.0; input.len()]);
    layout::transpose(input, &perm, &mut moved);
    let inner: usize = axes.iter().map(|&axis| input.shape[axis]).product();
    for row in moved.data.chunks_exact_mut(inner.max(1)) {
        let (mean, inverse) = statistics(row, epsilon, true);
        row.iter_mut().for_each(|v| *v = ((f64::from(*v) - mean) * inverse) as f32);
    }
    let back: Vec<usize> = (0..rank).filter_map(|axis| perm.iter().position(|&from| from == axis)).collect();
    layout::transpose(&moved, &back, out);
}

fn local_response(input: &Tensor, [alpha, beta, bias]: [f32; 3], size: usize, out: &mut Tensor) {
    let (channels, plane) = (input.shape[1], input.shape[2..].iter().product::<usize>());
    let image = channels * plane;
    for (out, values) in out.data.chunks_exact_mut(image.max(1)).zip(input.data.chunks_exact(image.max(1))) {
        for (i, out) in out.iter_mut().enumerate() {
            let (channel, pixel) = (i / plane, i % plane);
            let first = channel.saturating_sub((size - 1) / 2);
            let last = channel.saturating_add(size / 2).min(channels - 1);
            let square: f64 = (first..=last).map(|c| f64::from(values[c * plane + pixel]).powi(2)).sum();
            let base = f64::from(bias) + f64::from(alpha) / size as f64 * square;
            *out = (f64::from(values[i]) / base.powf(f64::from(beta))) as f32;
        }
    }
}

fn lp(input: &Tensor, axis: usize, p: i64, out: &mut Tensor) {
    let (dim, step) = (input.shape[axis], input.shape[axis + 1..].iter().product::<usize>());
    let block = (dim * step).max(1);
    for (out, values) in out.data.chunks_exact_mut(block).zip(input.data.chunks_exact(block)) {
        for first in 0..step {
            let run = || (0..dim).map(|i| first + i * step);
            let size = |i: usize| f64::from(values[i]).abs();
            let norm = if p == 1 { run().map(size).sum() } else { run().map(|i| size(i).powi(2)).sum::<f64>().sqrt() };
            // Nothing but zeros stays as it is.
            run().for_each(|i| out[i] = if norm == 0.0 { 0.0 } else { (f64::from(values[i]) / norm) as f32 });
        }
    }
}
