//! Windows over any number of spatial axes: convolutions of volumes, and pools that need more than the plain ones.
//!
//! Written for correctness. Images go through the kernels instead.

use super::attributes::{AutoPad, LARGEST_WINDOW, Padding, both_ends, same_padding};
use super::conv::groups;
use super::fact::{Fact, bias_of, constant_f32, operand, optional_f32};
use super::general::{General, Images};
use super::resolve::Resolved;
use super::{Attributes, Op};
use crate::error::{Error, Result};
use crate::tensor::{Tensor, element_count, strides};
use rayon::prelude::*;

/// Attributes of windows over any number of axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowAttributes {
    kernel: Option<Vec<usize>>,
    stride: Vec<usize>,
    dilation: Vec<usize>,
    pads: Vec<usize>,
    output_padding: Vec<usize>,
    output_shape: Option<Vec<i64>>,
    auto: AutoPad,
    ceil_mode: bool,
}

impl WindowAttributes {
    pub(super) fn parse(a: &Attributes) -> Result<WindowAttributes> {
        let auto = a.auto_pad()?;
        let list = |name: &str, least: i64| -> Result<Option<Vec<usize>>> {
            let Some(numbers) = a.ints(name)? else { return Ok(None) };
            let valid = |&n: &i64| usize::try_from(n).ok().filter(|&size| n >= least && size <= LARGEST_WINDOW);
            let read: Option<Vec<usize>> = numbers.iter().map(valid).collect();
            read.map(Some).ok_or_else(|| Error::format(format!("{name} {numbers:?}")))
        };
        Ok(WindowAttributes {
            kernel: list("kernel_shape", 1)?,
            stride: list("strides", 1)?.unwrap_or_default(),
            dilation: list("dilations", 1)?.unwrap_or_default(),
            pads: list("pads", 0)?.filter(|_| auto != AutoPad::Valid).unwrap_or_default(),
            output_padding: list("output_padding", 0)?.unwrap_or_default(),
            output_shape: a.ints("output_shape")?,
            auto,
            ceil_mode: a.flag("ceil_mode", false)?,
        })
    }

    /// One axis of `size` elements: padding in front, padding behind, and the number of windows.
    fn axis(&self, axis: usize, size: usize, kernel: usize) -> Result<[usize; 3]> {
        let (stride, extent) = (self.stride_of(axis), (kernel - 1) * self.dilation_of(axis) + 1);
        let axes = self.pads.len() / 2;
        let [before, behind] = match self.auto {
            AutoPad::Same { extra_first } => same_padding(size, stride, extent, extra_first),
            AutoPad::Given | AutoPad::Valid => [axis, axis + axes].map(|at| self.pads.get(at).copied().unwrap_or(0)),
        };
        let free = (size + before + behind).checked_sub(extent).ok_or_else(|| {
            Error::data(format!("a window of {extent} does not fit the padded input of {}", size + before + behind))
        })?;
        let mut count = if self.ceil_mode { free.div_ceil(stride) } else { free / stride } + 1;
        // A window that starts in the padding behind the image has no pixel.
        if self.ceil_mode && (count - 1) * stride >= size + before {
            count -= 1;
        }
        Ok([before, behind, count])
    }

    fn stride_of(&self, axis: usize) -> usize {
        self.stride.get(axis).copied().unwrap_or(1)
    }

    fn dilation_of(&self, axis: usize) -> usize {
        self.dilation.get(axis).copied().unwrap_or(1)
    }
}

/// For every window, the kernel's elements that lie inside the image, and where.
struct Windows {
    out: Vec<usize>,
    /// Element of the kernel and of the image, by window.
    taps: Vec<Vec<(usize, usize)>>,
    /// How many positions of each window lie inside the padded image.
    covered: Vec<usize>,
}

impl Windows {
    fn new(a: &WindowAttributes, image: &[usize], kernel: &[usize]) -> Result<Windows> {
        let lists = [a.stride.len(), a.dilation.len(), a.pads.len() / 2, a.output_padding.len()];
        if image.len() != kernel.len() || lists.iter().any(|&axes| axes != 0 && axes != image.len()) || kernel.contains(&0) {
            return Err(Error::data(format!("windows of {kernel:?} on an image of {image:?}")));
        }
        let axes: Vec<[usize; 3]> =
            (0..image.len()).map(|axis| a.axis(axis, image[axis], kernel[axis])).collect::<Result<_>>()?;
        let out: Vec<usize> = axes.iter().map(|axis| axis[2]).collect();
        Windows::at(a, image, kernel, &axes, out)
    }

    fn at(a: &WindowAttributes, image: &[usize], kernel: &[usize], axes: &[[usize; 3]], out: Vec<usize>) -> Result<Windows> {
        let kernel_len = element_count(kernel)?;
        let places = element_count(&out)?;
        // The lists below hold so many pairs.
        if places.saturating_mul(kernel_len) > 1 << 28 {
            return Err(Error::unsupported(format!("{places} windows of {kernel:?}")));
        }
        let (out_steps, kernel_steps, image_steps) = (strides(&out), strides(kernel), strides(image));
        let (mut taps, mut covered) = (Vec::with_capacity(places), Vec::with_capacity(places));
        for place in 0..places {
            let (mut inside, mut padded) = (Vec::new(), 0);
            for tap in 0..kernel_len {
                let position = |axis: usize| {
                    let at = place / out_steps[axis] % out[axis] * a.stride_of(axis);
                    at + tap / kernel_steps[axis] % kernel[axis] * a.dilation_of(axis)
                };
                let all = || 0..image.len();
                padded += usize::from(all().all(|axis| position(axis) < axes[axis][0] + image[axis] + axes[axis][1]));
                let at = all().try_fold(0, |at, axis| {
                    let index = position(axis).checked_sub(axes[axis][0]).filter(|&index| index < image[axis])?;
                    Some(at + index * image_steps[axis])
                });
                inside.extend(at.map(|at| (tap, at)));
            }
            taps.push(inside);
            covered.push(padded);
        }
        Ok(Windows { out, taps, covered })
    }
}

fn wrong(input: &[usize], weight: &[usize], groups: usize) -> Error {
    Error::data(format!("input {input:?}, weight {weight:?} and {groups} groups do not fit together"))
}

/// A convolution over any number of spatial axes, or its transpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeConv {
    attributes: WindowAttributes,
    groups: usize,
    transposed: bool,
}

impl VolumeConv {
    pub(super) fn parse(a: &Attributes, transposed: bool) -> Result<VolumeConv> {
        Ok(VolumeConv { attributes: WindowAttributes::parse(a)?, groups: groups(a)?, transposed })
    }

    /// A convolution whose attributes do not say how many axes it has, so that all lists are those of single steps.
    pub(super) fn plain(op: &Op) -> Option<VolumeConv> {
        let (groups, padding, transposed) = match op {
            Op::Conv(a) => (a.groups, &a.padding, false),
            Op::ConvTranspose(a) => (a.groups(), a.padding(), true),
            _ => return None,
        };
        let auto = match padding {
            Padding::Fixed(_) => AutoPad::Given,
            Padding::Same { extra_first } => AutoPad::Same { extra_first: *extra_first },
        };
        let none = Vec::new;
        let (stride, dilation, pads, output_padding) = (none(), none(), none(), none());
        let attributes =
            WindowAttributes { kernel: None, stride, dilation, pads, output_padding, output_shape: None, auto, ceil_mode: false };
        Some(VolumeConv { attributes, groups, transposed })
    }

    pub(super) fn resolve(&self, inputs: &[Option<Fact>]) -> Result<Resolved> {
        let input = operand(inputs, 0)?.shape.clone();
        let weight = constant_f32(inputs, 1, "weight")?;
        let wrong = || wrong(&input, &weight.shape, self.groups);
        if input.len() != weight.shape.len() || input.len() < 3 || input[2..].contains(&0) || weight.is_empty() {
            return Err(wrong());
        }
        if self.transposed { self.transpose(inputs, &input, weight) } else { self.convolution(inputs, &input, weight) }
    }

    fn convolution(&self, inputs: &[Option<Fact>], input: &[usize], weight: &Tensor) -> Result<Resolved> {
        let (outputs, group_in) = (weight.shape[0], weight.shape[1]);
        if !outputs.is_multiple_of(self.groups) || group_in.checked_mul(self.groups) != Some(input[1]) {
            return Err(wrong(input, &weight.shape, self.groups));
        }
        let windows = Windows::new(&self.attributes, &input[2..], &weight.shape[2..])?;
        let bias = bias_of(inputs, 2, outputs)?.to_vec();
        let out = [&[input[0], outputs], &windows.out[..]].concat();
        let macs = element_count(&out)? as u64 * (weight.len() / outputs) as u64;
        let (weight, per_group) = (weight.clone(), outputs / self.groups);
        let run = move |input: &Tensor, out: &mut Tensor| {
            let (plane, kernel) = (input.shape[2..].iter().product::<usize>(), weight.shape[2..].iter().product::<usize>());
            let positions = windows.taps.len();
            out.data.par_chunks_mut(positions.max(1)).enumerate().for_each(|(index, target)| {
                let (image, output) = (index / outputs, index % outputs);
                let first = (image * input.shape[1] + output / per_group * group_in) * plane;
                for (target, taps) in target.iter_mut().zip(&windows.taps) {
                    let channel = |c: usize| {
                        let (row, pixels) = (&weight.data[(output * group_in + c) * kernel..], &input.data[first + c * plane..]);
                        taps.iter().map(|&(tap, at)| f64::from(row[tap]) * f64::from(pixels[at])).sum::<f64>()
                    };
                    let sum: f64 = (0..group_in).map(channel).sum();
                    *target = (sum + f64::from(bias.get(output).copied().unwrap_or(0.0))) as f32;
                }
            });
        };
        let mixed: Vec<usize> = (1..input.len()).collect();
        let general = General::of_one(Images::beside(input.len(), &mixed), run);
        Ok(Resolved { macs, ..general.shaped(out) })
    }

    fn transpose(&self, inputs: &[Option<Fact>], input: &[usize], weight: &Tensor) -> Result<Resolved> {
        let (channels, group_out) = (weight.shape[0], weight.shape[1]);
        let outputs = group_out * self.groups;
        if channels != input[1] || !channels.is_multiple_of(self.groups) {
            return Err(wrong(input, &weight.shape, self.groups));
        }
        let (image, kernel) = (&input[2..], &weight.shape[2..]);
        let (axes, size) = self.grown(image, kernel)?;
        // Each input element is a window on the output.
        let windows = Windows::at(&self.attributes, &size, kernel, &axes, image.to_vec())?;
        let bias = optional_f32(inputs, 2)?.map_or_else(Vec::new, |bias| bias.data.clone());
        if !bias.is_empty() && bias.len() != outputs {
            return Err(wrong(input, &weight.shape, self.groups));
        }
        let out = [&[input[0], outputs], &size[..]].concat();
        element_count(&out)?;
        let macs = element_count(input)? as u64 * (weight.len() / channels) as u64;
        let (weight, per_group) = (weight.clone(), channels / self.groups);
        let run = move |input: &Tensor, out: &mut Tensor| {
            let kernel: usize = weight.shape[2..].iter().product();
            let (plane, pixels) = (windows.taps.len(), size.iter().product::<usize>());
            for (index, target) in out.data.chunks_exact_mut(pixels).enumerate() {
                let (image, output) = (index / outputs, index % outputs);
                let mut sums = vec![f64::from(bias.get(output).copied().unwrap_or(0.0)); pixels];
                for channel in output / group_out * per_group..(output / group_out + 1) * per_group {
                    let row = &weight.data[(channel * group_out + output % group_out) * kernel..];
                    let values = &input.data[(image * channels + channel) * plane..][..plane];
                    for (&value, taps) in values.iter().zip(&windows.taps) {
                        taps.iter().for_each(|&(tap, at)| sums[at] += f64::from(value) * f64::from(row[tap]));
                    }
                }
                target.iter_mut().zip(&sums).for_each(|(target, sum)| *target = *sum as f32);
            }
        };
        let mixed: Vec<usize> = (1..input.len()).collect();
        let general = General::of_one(Images::beside(input.len(), &mixed), run);
        Ok(Resolved { macs, ..general.shaped(out) })
    }

    /// Padding and size of a transposed convolution's output along each axis.
    fn grown(&self, image: &[usize], kernel: &[usize]) -> Result<(Vec<[usize; 3]>, Vec<usize>)> {
        let a = &self.attributes;
        let wrong = || Error::data(format!("a transposed convolution of {kernel:?} on an image of {image:?}"));
        let (mut axes, mut size) = (Vec::new(), Vec::new());
        for axis in 0..image.len() {
            let added = a.output_padding.get(axis).copied().unwrap_or(0);
            let full = (image[axis] - 1) * a.stride_of(axis) + (kernel[axis] - 1) * a.dilation_of(axis) + 1 + added;
            let half = a.pads.len() / 2;
            let wanted = match (&a.output_shape, a.auto) {
                // Some files give the batch and the channels too.
                (Some(shape), _) => shape.iter().rev().nth(image.len() - 1 - axis).and_then(|&size| usize::try_from(size).ok()),
                (None, AutoPad::Same { .. }) => Some(image[axis] * a.stride_of(axis)),
                (None, AutoPad::Given | AutoPad::Valid) => {
                    let [before, behind] = [axis, axis + half].map(|at| a.pads.get(at).copied().unwrap_or(0));
                    let length = full.checked_sub(before + behind).filter(|&length| length > 0).ok_or_else(wrong)?;
                    axes.push([before, behind, image[axis]]);
                    size.push(length);
                    continue;
                }
            };
            let wanted = wanted.filter(|&wanted| wanted > 0 && wanted < 1 << 24).ok_or_else(wrong)?;
            let total = full.saturating_sub(wanted);
            let [before, behind] = both_ends(total, a.auto != AutoPad::Same { extra_first: false });
            axes.push([before, behind, image[axis]]);
            size.push(wanted);
        }
        Ok((axes, size))
    }
}

/// A pooling over any number of axes.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowPool {
    attributes: WindowAttributes,
    kind: PoolKind,
    name: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum PoolKind {
    Max,
    /// The index of the largest one, of the image or of the whole batch.
    MaxIndex {
        columns_first: bool,
    },
    Mean {
        include_pad: bool,
    },
    Norm {
        p: f32,
    },
}

impl WindowPool {
    pub(super) fn parse(kind: &str, a: &Attributes) -> Result<Option<WindowPool>> {
        let (kind, name) = match (kind, a.output) {
            ("MaxPool", 0) => (PoolKind::Max, "MaxPool"),
            ("MaxPool", 1) => (PoolKind::MaxIndex { columns_first: a.flag("storage_order", false)? }, "MaxPool"),
            ("AveragePool", 0) => (PoolKind::Mean { include_pad: a.flag("count_include_pad", false)? }, "AveragePool"),
            ("LpPool", 0) => (PoolKind::Norm { p: a.int("p", 2)? as f32 }, "LpPool"),
            _ => return Ok(None),
        };
        let attributes = WindowAttributes::parse(a)?;
        match attributes.kernel {
            Some(_) => Ok(Some(WindowPool { attributes, kind, name })),
            None => Err(Error::format("kernel_shape is missing")),
        }
    }

    /// The operation's name in ONNX.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the result holds indices.
    pub(super) fn is_integer(&self) -> bool {
        matches!(self.kind, PoolKind::MaxIndex { .. })
    }

    pub(super) fn resolve(&self, inputs: &[Option<Fact>]) -> Result<Resolved> {
        let input = operand(inputs, 0)?.shape.clone();
        let kernel = self.attributes.kernel.clone().unwrap_or_default();
        if input.len() != kernel.len() + 2 {
            return Err(Error::data(format!("pooling over {} axes of shape {input:?}", kernel.len())));
        }
        let windows = Windows::new(&self.attributes, &input[2..], &kernel)?;
        let out = [&input[..2], &windows.out[..]].concat();
        element_count(&out)?;
        let kind = self.kind;
        let run = move |input: &Tensor, out: &mut Tensor| {
            let plane: usize = input.shape[2..].iter().product();
            let places = windows.taps.len().max(1);
            for (index, (out, values)) in out.data.chunks_exact_mut(places).zip(input.data.chunks_exact(plane.max(1))).enumerate()
            {
                for (place, (out, taps)) in out.iter_mut().zip(&windows.taps).enumerate() {
                    *out = kind.of(values, taps, windows.covered[place], &input.shape, index * plane);
                }
            }
        };
        let mixed: Vec<usize> = (2..input.len()).collect();
        Ok(General::of_one(Images::beside(input.len(), &mixed), run).shaped(out))
    }
}

impl PoolKind {
    fn of(self, values: &[f32], taps: &[(usize, usize)], covered: usize, shape: &[usize], first: usize) -> f32 {
        let inside = || taps.iter().map(|&(_, at)| f64::from(values[at]));
        match self {
            PoolKind::Max => taps
                .iter()
                .map(|&(_, at)| values[at])
                .fold(f32::NEG_INFINITY, |best, v| if v > best || v.is_nan() { v } else { best }),
            PoolKind::MaxIndex { columns_first } => {
                let best = taps.iter().map(|&(_, at)| at).reduce(|best, at| if values[at] > values[best] { at } else { best });
                let at = best.unwrap_or(0);
                match (columns_first, shape) {
                    (true, &[.., h, w]) => (first + at % w * h + at / w) as f32,
                    _ => (first + at) as f32,
                }
            }
            PoolKind::Mean { include_pad } => {
                let count = if include_pad { covered } else { taps.len() };
                (inside().sum::<f64>() / count.max(1) as f64) as f32
            }
            PoolKind::Norm { p } => inside().map(|v| v.abs().powf(f64::from(p))).sum::<f64>().powf(1.0 / f64::from(p)) as f32,
        }
    }
}
