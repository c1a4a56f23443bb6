//! Convolution and its transpose: shape rules, and how the kernels run them.

use super::attributes::{Attributes, Padding, as_images, with_axes_of};
use crate::error::{Error, Result};
use crate::tensor::{Tensor, Value, element_count};
use rayon::prelude::*;
use resprout_kernels::conv::Scratch;
use resprout_kernels::{Activation, ConvShape, Isa, PackedConv, PackedDepthwise};
use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

thread_local! {
    // Buffers that each thread reuses. They carry no result from one call to the next.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Attributes of Conv.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvAttributes {
    /// Step between windows.
    pub stride: [usize; 2],
    /// Distance between taps.
    pub dilation: [usize; 2],
    /// Padding of the input.
    pub padding: Padding,
    /// Channel groups.
    pub groups: usize,
    /// Number of spatial axes, if the attributes have it.
    axes: Option<usize>,
}

impl ConvAttributes {
    pub(super) fn parse(kind: &str, a: &Attributes) -> Result<ConvAttributes> {
        let (groups, axes) = (groups(a)?, a.spatial_axes(kind)?);
        Ok(ConvAttributes { stride: a.pair("strides")?, dilation: a.pair("dilations")?, padding: a.padding()?, groups, axes })
    }

    /// Input and weight as shapes of images, if both have the same one or two spatial axes.
    fn as_images(&self, input: &[usize], weight: &[usize]) -> Result<([usize; 4], [usize; 4])> {
        let fits = input.len() == weight.len() && self.axes.is_none_or(|axes| axes + 2 == input.len());
        as_images(input).zip(as_images(weight)).filter(|_| fits).ok_or_else(|| {
            Error::unsupported(format!(
                "input {input:?} and weight {weight:?}: one or two spatial axes are needed, as many in both"
            ))
        })
    }

    /// The shape of the convolution and of its output. `input: [N, C, H, W]`, `weight: [M, C / groups, kh, kw]`, or both
    /// without height.
    pub fn shape(&self, input: &[usize], weight: &[usize]) -> Result<(ConvShape, Vec<usize>)> {
        let wrong = || Error::data(format!("input {input:?}, weight {weight:?} and {} groups do not fit together", self.groups));
        let ([n, in_channels, in_h, in_w], [out_channels, group_in, kh, kw]) = self.as_images(input, weight)?;
        let groups = self.groups;
        if out_channels % groups != 0 || group_in.checked_mul(groups) != Some(in_channels) || weight.contains(&0) {
            return Err(wrong());
        }
        let kernel = [kh, kw];
        let pads = self.padding.resolve([in_h, in_w], kernel, self.stride, self.dilation);
        let shape = ConvShape {
            in_channels,
            in_h,
            in_w,
            out_channels,
            kernel,
            stride: self.stride,
            dilation: self.dilation,
            pads,
            groups,
        };
        let (out_h, out_w) = shape.out_size();
        if out_h == 0 || out_w == 0 || in_h == 0 || in_w == 0 {
            return Err(wrong());
        }
        let out = with_axes_of(input, [n, out_channels, out_h, out_w]);
        element_count(&out)?;
        Ok((shape, out))
    }
}

/// The number of channel groups.
pub(super) fn groups(a: &Attributes) -> Result<usize> {
    let groups = a.int("group", 1)?;
    usize::try_from(groups).ok().filter(|&g| g > 0).ok_or_else(|| Error::format(format!("group {groups}")))
}

/// A convolution ready to run. It packs its weights on the first run: a compiled network never needs them.
pub struct Conv {
    shape: ConvShape,
    weight: Weight,
    bias: Vec<f32>,
    activation: Activation,
    packed: OnceLock<Box<Packed>>,
}

/// The weights of a convolution, `[M, C / groups, kh, kw]`.
pub(super) enum Weight {
    /// 32-bit floats, shared with the model.
    AsRead(Arc<Value>),
    /// With a BatchNormalization multiplied in.
    Folded(Vec<f32>),
}

enum Packed {
    /// For a matrix product.
    Matrix(PackedConv),
    /// For one channel after another.
    Depthwise(PackedDepthwise),
}

impl Conv {
    pub(super) fn new(shape: ConvShape, weight: Weight, bias: Vec<f32>, activation: Activation) -> Conv {
        Conv { shape, weight, bias, activation, packed: OnceLock::new() }
    }

    fn packed(&self) -> &Packed {
        self.packed.get_or_init(|| {
            let shape = self.shape.clone();
            match PackedDepthwise::fits(&shape) {
                true => Box::new(Packed::Depthwise(PackedDepthwise::new(shape, self.weight(), &self.bias, self.activation))),
                false => Box::new(Packed::Matrix(PackedConv::new(shape, self.weight(), &self.bias, self.activation))),
            }
        })
    }

    pub(crate) fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// `[M, C / groups, kh, kw]`
    pub(crate) fn weight(&self) -> &[f32] {
        match &self.weight {
            Weight::AsRead(value) => value.as_f32().map_or(&[], |tensor| &tensor.data),
            Weight::Folded(weight) => weight,
        }
    }

    /// `[M]`, or empty.
    pub(crate) fn bias(&self) -> &[f32] {
        &self.bias
    }

    pub(crate) fn activation(&self) -> Activation {
        self.activation
    }

    /// `parallel`: whether threads share the output channels of an image.
    pub(super) fn run(&self, input: &Tensor, out: &mut Tensor, isa: Isa, parallel: bool) {
        let shape = self.shape();
        let (out_h, out_w) = shape.out_size();
        let (image, plane) = (shape.in_channels * shape.in_h * shape.in_w, out_h * out_w);
        let images = input.data.chunks_exact(image).zip(out.data.chunks_exact_mut(shape.out_channels * plane));
        for (image, out) in images {
            if parallel {
                let share =
                    shape.out_channels.div_ceil(rayon::current_num_threads()).next_multiple_of(resprout_kernels::dense::ROWS);
                out.par_chunks_mut(share * plane).enumerate().for_each(|(i, out)| {
                    let first = i * share;
                    self.run_channels(image, first..first + out.len() / plane, out, isa);
                });
            } else {
                self.run_channels(image, 0..shape.out_channels, out, isa);
            }
        }
    }

    fn run_channels(&self, image: &[f32], channels: Range<usize>, out: &mut [f32], isa: Isa) {
        SCRATCH.with_borrow_mut(|scratch| match self.packed() {
            Packed::Matrix(conv) => conv.run(isa, image, channels, out, scratch),
            Packed::Depthwise(conv) => conv.run(isa, image, channels, out, scratch),
        });
    }
}

/// Attributes of ConvTranspose.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvTransposeAttributes {
    conv: ConvAttributes,
    output_padding: [usize; 2],
}

impl ConvTransposeAttributes {
    /// Channel groups.
    pub fn groups(&self) -> usize {
        self.conv.groups
    }

    pub(super) fn padding(&self) -> &Padding {
        &self.conv.padding
    }

    pub(super) fn parse(a: &Attributes) -> Result<ConvTransposeAttributes> {
        let conv = ConvAttributes::parse("ConvTranspose", a)?;
        if a.ints("output_shape")?.is_some() {
            return Err(Error::unsupported("ConvTranspose with output_shape"));
        }
        if !matches!(conv.padding, Padding::Fixed(_)) {
            return Err(Error::unsupported("ConvTranspose with auto_pad"));
        }
        let padding = a.ints("output_padding")?.unwrap_or(vec![0; 2]);
        let [h, w] = match padding[..] {
            [w] => [0, w],
            [h, w] => [h, w],
            _ => return Err(Error::format(format!("output_padding {padding:?}"))),
        };
        let below = |axis: usize, size: i64| (0..conv.stride[axis].max(conv.dilation[axis]) as i64).contains(&size);
        if !below(0, h) || !below(1, w) {
            return Err(Error::format(format!("output_padding {padding:?}")));
        }
        let output_padding = [h as usize, w as usize];
        Ok(ConvTransposeAttributes { conv, output_padding })
    }
}

/// A transposed convolution ready to run: a pointwise convolution to `M * kh * kw` channels per group, and sums of its
/// results where windows overlap.
pub struct ConvTranspose {
    columns: PackedConv,
    attributes: ConvAttributes,
    kernel: [usize; 2],
    pads: [usize; 4],
    /// Output shape of one image.
    out: [usize; 3],
    bias: Vec<f32>,
}

impl ConvTranspose {
    /// Resolves `input: [N, C, H, W]` and `weight: [C, M / groups, kh, kw]`. Returns the output's shape too.
    pub(super) fn resolve(
        a: &ConvTransposeAttributes,
        input: &[usize],
        weight: &Tensor,
        bias: &[f32],
    ) -> Result<(ConvTranspose, Vec<usize>)> {
        let groups = a.conv.groups;
        let wrong = || Error::data(format!("input {input:?}, weight {:?} and {groups} groups do not fit together", weight.shape));
        let ([n, channels, h, w], [weight_in, group_out, kh, kw]) = a.conv.as_images(input, &weight.shape)?;
        if weight_in != channels || channels % groups != 0 || weight.is_empty() || h == 0 || w == 0 {
            return Err(wrong());
        }
        let Padding::Fixed(pads) = a.conv.padding else { return Err(Error::unsupported("auto_pad")) };
        let mut size = [0; 2];
        for axis in 0..2 {
            let extent = ([kh, kw][axis] - 1) * a.conv.dilation[axis] + 1 + a.output_padding[axis];
            let full = ([h, w][axis] - 1) * a.conv.stride[axis] + extent;
            size[axis] = full.checked_sub(pads[axis] + pads[axis + 2]).filter(|&s| s > 0).ok_or_else(wrong)?;
        }
        let out_channels = group_out * groups;
        element_count(&[n, out_channels, size[0], size[1]])?;
        if !bias.is_empty() && bias.len() != out_channels {
            return Err(wrong());
        }
        let shape = ConvShape {
            in_channels: channels,
            in_h: h,
            in_w: w,
            out_channels: out_channels * kh * kw,
            kernel: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            pads: [0; 4],
            groups,
        };
        let columns = PackedConv::new(shape, &swap_channels(weight, groups), &[], Activation::None);
        let bias = if bias.is_empty() { vec![0.0; out_channels] } else { bias.to_vec() };
        let out = [out_channels, size[0], size[1]];
        let conv = ConvTranspose { columns, attributes: a.conv.clone(), kernel: [kh, kw], pads, out, bias };
        Ok((conv, with_axes_of(input, [n, out_channels, size[0], size[1]])))
    }

    pub(super) fn run(&self, input: &Tensor, out: &mut Tensor, isa: Isa) {
        let shape = self.columns.shape();
        let (pixels, image) = (shape.in_h * shape.in_w, shape.in_channels * shape.in_h * shape.in_w);
        let mut columns = vec![0.0; shape.out_channels * pixels];
        let [channels, out_h, out_w] = self.out;
        for (image, out) in input.data.chunks_exact(image).zip(out.data.chunks_exact_mut(channels * out_h * out_w)) {
            SCRATCH.with_borrow_mut(|scratch| self.columns.run(isa, image, 0..shape.out_channels, &mut columns, scratch));
            for (m, plane) in out.chunks_exact_mut(out_h * out_w).enumerate() {
                plane.fill(self.bias[m]);
                self.add_windows(&columns[m * self.kernel[0] * self.kernel[1] * pixels..], plane);
            }
        }
    }

    /// Adds `columns: [kh * kw, H, W]` of one output channel to its plane.
    fn add_windows(&self, columns: &[f32], plane: &mut [f32]) {
        let (a, shape, [_, out_h, out_w]) = (&self.attributes, self.columns.shape(), self.out);
        let target = |at: usize, k: usize, axis: usize, size: usize| {
            (at * a.stride[axis] + k * a.dilation[axis]).checked_sub(self.pads[axis]).filter(|&i| i < size)
        };
        for ky in 0..self.kernel[0] {
            for kx in 0..self.kernel[1] {
                let tap = &columns[(ky * self.kernel[1] + kx) * shape.in_h * shape.in_w..];
                for y in 0..shape.in_h {
                    let Some(oy) = target(y, ky, 0, out_h) else { continue };
                    for x in 0..shape.in_w {
                        if let Some(ox) = target(x, kx, 1, out_w) {
                            plane[oy * out_w + ox] += tap[y * shape.in_w + x];
                        }
                    }
                }
            }
        }
    }
}

/// Transposes `[C, M / groups, kh, kw]` to `[M * kh * kw, C / groups]`.
fn swap_channels(weight: &Tensor, groups: usize) -> Vec<f32> {
    let group_in = weight.shape[0] / groups;
    let per_input: usize = weight.shape[1..].iter().product();
    let mut out = Vec::with_capacity(weight.len());
    for group in 0..groups {
        let rows = &weight.data[group * group_in * per_input..][..group_in * per_input];
        out.extend(super::matrix::transposed(rows, group_in, per_input));
    }
    out
}
