//! Resize and Upsample: along each axis, an output pixel is a sum of input pixels.
//!
//! Sizes and coordinates are computed in 32-bit arithmetic, step by step as ONNX Runtime does. A scale of 7/6 makes 7 rows
//! of 6, and a tie is within a millionth of one half. 64-bit arithmetic would differ for a third of all fractional scales.

use super::attributes::Attributes;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Attributes of Resize and of Upsample.
#[derive(Clone, Debug, PartialEq)]
pub struct ResizeAttributes {
    mode: Mode,
    coordinates: Coordinates,
    rounding: Rounding,
    antialias: bool,
    exclude_outside: bool,
    /// The value outside of the image, where a crop reads there.
    outside: f32,
    /// The axes that scales and sizes are for; all if absent.
    axes: Option<Vec<i64>>,
    policy: Policy,
    /// Attribute of an Upsample before opset 9.
    scales: Option<Vec<f32>>,
    /// The scales are the second input in opset 10, and the third one since.
    scales_input: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Nearest,
    Linear,
    /// With the coefficient of its kernel.
    Cubic(f32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    Crop,
}

/// What becomes of the aspect ratio where sizes are given.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Policy {
    Stretch,
    NotLarger,
    NotSmaller,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rounding {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
    /// Opset 10: up if the image gets smaller.
    BySize,
}

/// A fraction this close to one half is a tie.
const TIE: f32 = 1e-6;

impl Rounding {
    fn round(self, x: f32, scale: f32) -> f32 {
        let tie = (x - x.trunc() - 0.5).abs() < TIE;
        match self {
            Rounding::PreferFloor if tie => x.trunc(),
            Rounding::PreferCeil if tie => x.trunc() + 1.0,
            Rounding::PreferFloor | Rounding::PreferCeil => x.round(),
            Rounding::Floor => x.floor(),
            Rounding::Ceil => x.ceil(),
            Rounding::BySize if scale < 1.0 => x.ceil(),
            Rounding::BySize => x.trunc(),
        }
    }
}

/// An input pixel and its weight.
type Tap = (usize, f32);

impl ResizeAttributes {
    pub(super) fn parse(kind: &str, a: &Attributes) -> Result<ResizeAttributes> {
        let old = a.opset < 11 || kind == "Upsample";
        let text = |name: &str, default: &str| Ok::<_, Error>(a.text(name)?.unwrap_or_else(|| default.to_string()));
        let wrong = |name: &str, value: &str| Error::unsupported(format!("Resize of {name} {value:?}"));
        let policy = match text("keep_aspect_ratio_policy", "stretch")?.as_str() {
            "stretch" => Policy::Stretch,
            "not_larger" => Policy::NotLarger,
            "not_smaller" => Policy::NotSmaller,
            other => return Err(wrong("keep_aspect_ratio_policy", other)),
        };
        let mode = match text("mode", "nearest")?.as_str() {
            "nearest" => Mode::Nearest,
            "linear" | "bilinear" => Mode::Linear,
            "cubic" => Mode::Cubic(a.float("cubic_coeff_a", -0.75)?),
            other => return Err(wrong("mode", other)),
        };
        let coordinates = match text("coordinate_transformation_mode", if old { "asymmetric" } else { "half_pixel" })?.as_str() {
            "half_pixel" => Coordinates::HalfPixel,
            "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
            "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
            "align_corners" => Coordinates::AlignCorners,
            "asymmetric" => Coordinates::Asymmetric,
            "tf_crop_and_resize" => Coordinates::Crop,
            other => return Err(wrong("coordinate_transformation_mode", other)),
        };
        let rounding = match text("nearest_mode", "round_prefer_floor")?.as_str() {
            _ if old => Rounding::BySize,
            "round_prefer_floor" => Rounding::PreferFloor,
            "round_prefer_ceil" => Rounding::PreferCeil,
            "floor" => Rounding::Floor,
            "ceil" => Rounding::Ceil,
            other => return Err(wrong("nearest_mode", other)),
        };
        Ok(ResizeAttributes {
            mode,
            coordinates,
            rounding,
            antialias: a.flag("antialias", false)?,
            exclude_outside: a.flag("exclude_outside", false)?,
            outside: a.float("extrapolation_value", 0.0)?,
            axes: a.ints("axes")?,
            policy,
            scales: a.floats("scales")?,
            scales_input: if old { 1 } else { 2 },
        })
    }

    pub(super) fn scales_input(&self) -> usize {
        self.scales_input
    }

    /// The length and scale of every axis, by scales or by sizes if there are no scales.
    fn targets(&self, shape: &[usize], scales: &[f32], sizes: &[i64]) -> Result<Option<Vec<(usize, f32)>>> {
        let all: Vec<i64> = (0..shape.len() as i64).collect();
        let axes = self.axes.as_ref().unwrap_or(&all);
        let axes: Vec<usize> = axes.iter().map(|&axis| super::axis_index(axis, shape.len())).collect::<Result<_>>()?;
        let mut targets: Vec<(usize, f32)> = shape.iter().map(|&dim| (dim, 1.0)).collect();
        if scales.len() == axes.len() && !scales.is_empty() {
            axes.iter().zip(scales).for_each(|(&axis, &scale)| targets[axis] = ((shape[axis] as f32 * scale) as usize, scale));
        } else if sizes.len() == axes.len() && !sizes.is_empty() {
            let scale = |(&axis, &size): (&usize, &i64)| size as f32 / shape[axis] as f32;
            let all = axes.iter().zip(sizes).map(scale);
            let common = match self.policy {
                Policy::Stretch => None,
                Policy::NotLarger => Some(all.fold(f32::INFINITY, f32::min)),
                Policy::NotSmaller => Some(all.fold(f32::NEG_INFINITY, f32::max)),
            };
            for (&axis, &size) in axes.iter().zip(sizes) {
                targets[axis] = match common {
                    None => (size.max(0) as usize, size as f32 / shape[axis] as f32),
                    Some(scale) => ((shape[axis] as f32 * scale + 0.5).floor() as usize, scale),
                };
            }
        } else {
            return Ok(None);
        }
        Ok(Some(targets))
    }

    /// Resolves scales, or sizes if there are no scales. `region` are starts and ends of a crop.
    pub(super) fn resolve(&self, shape: &[usize], scales: &[f32], sizes: &[i64], region: &[f32]) -> Result<Resize> {
        let wrong = || Error::data(format!("Resize of shape {shape:?} with scales {scales:?} and sizes {sizes:?}"));
        let scales = self.scales.as_deref().unwrap_or(scales);
        let targets = self.targets(shape, scales, sizes)?.ok_or_else(wrong)?;
        let limit = 1 << 24;
        if shape.contains(&0)
            || targets.iter().any(|&(size, scale)| !(1..limit).contains(&size) || scale.is_nan() || scale <= 0.0)
        {
            return Err(wrong());
        }
        let crop = self.coordinates == Coordinates::Crop;
        let resized = targets.iter().map(|target| target.0).ne(shape.iter().copied());
        let axis = |axis: usize| {
            let ((size, scale), dim) = (targets[axis], shape[axis]);
            let ends = self.region(axis, shape.len(), region);
            if resized || crop { self.axis(dim, size, scale, ends) } else { (0..dim).map(|at| vec![(at, 1.0)]).collect() }
        };
        Ok(Resize { axes: (0..shape.len()).map(axis).collect(), outside: self.outside })
    }

    /// Start and end of a crop along an axis.
    fn region(&self, axis: usize, rank: usize, region: &[f32]) -> [f32; 2] {
        let place = match &self.axes {
            None => Some(axis),
            Some(axes) => axes.iter().position(|&other| super::axis_index(other, rank).ok() == Some(axis)),
        };
        let ends = place.and_then(|at| Some([*region.get(at)?, *region.get(at + region.len() / 2)?]));
        ends.unwrap_or([0.0, 1.0])
    }

    fn axis(&self, dim: usize, size: usize, scale: f32, [start, end]: [f32; 2]) -> Vec<Vec<Tap>> {
        let last = (dim - 1) as f32;
        let position = |at: f32| match self.coordinates {
            Coordinates::Crop if size > 1 => start * last + at * (end - start) * last / (size - 1) as f32,
            Coordinates::Crop => 0.5 * (start + end) * last,
            _ if scale == 1.0 => at,
            Coordinates::PytorchHalfPixel | Coordinates::AlignCorners if size == 1 => 0.0,
            Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => (at + 0.5) / scale - 0.5,
            Coordinates::HalfPixelSymmetric => {
                let center = dim as f32 / 2.0;
                center * (1.0 - size as f32 / (scale * dim as f32)) + (at + 0.5) / scale - 0.5
            }
            Coordinates::AlignCorners => at * last / (size - 1) as f32,
            Coordinates::Asymmetric => at / scale,
        };
        (0..size).map(|at| self.taps(position(at as f32), dim, scale)).collect()
    }

    /// The pixels around a place; none outside of the image of a crop.
    fn taps(&self, x: f32, dim: usize, scale: f32) -> Vec<Tap> {
        let last = (dim - 1) as f32;
        if self.coordinates == Coordinates::Crop && !(0.0..=last).contains(&x) {
            return Vec::new();
        }
        let narrow = if self.antialias { scale.min(1.0) } else { 1.0 };
        match self.mode {
            Mode::Nearest => vec![(self.rounding.round(x, scale).clamp(0.0, last) as usize, 1.0)],
            Mode::Linear if narrow < 1.0 => spread(x, dim, narrow, 1.0, self.exclude_outside, |d| (1.0 - d).max(0.0)),
            Mode::Linear => {
                let x = x.clamp(0.0, last);
                let low = x.floor();
                let weight = x - low;
                let high = (low + 1.0).min(last) as usize;
                if weight == 0.0 { vec![(low as usize, 1.0)] } else { vec![(low as usize, 1.0 - weight), (high, weight)] }
            }
            Mode::Cubic(a) => {
                let kernel = |d: f64| cubic_weights(d.fract(), f64::from(a))[if d < 1.0 { 1 } else { 0 }];
                let kernel = |d: f64| if d < 2.0 { kernel(d) } else { 0.0 };
                spread(x, dim, narrow, 2.0, self.exclude_outside, kernel)
            }
        }
    }
}

/// The pixels that a kernel of `radius` reaches around a place. It is stretched by `1 / narrow`. Pixels outside of the image
/// count as the outermost one, or are left out.
fn spread(x: f32, dim: usize, narrow: f32, radius: f64, exclude: bool, kernel: impl Fn(f64) -> f64) -> Vec<Tap> {
    let (x, narrow, last) = (f64::from(x), f64::from(narrow), dim as i64 - 1);
    let reach = radius / narrow;
    let inside = |at: &i64| !exclude || (0..=last).contains(at);
    let all: Vec<(i64, f64)> = ((x - reach).floor() as i64..=(x + reach).ceil() as i64)
        .filter(inside)
        .map(|at| (at.clamp(0, last), kernel((at as f64 - x).abs() * narrow)))
        .filter(|tap| tap.1 != 0.0)
        .collect();
    let sum: f64 = all.iter().map(|tap| tap.1).sum();
    all.into_iter().map(|(at, weight)| (at as usize, (weight / sum) as f32)).collect()
}

/// The weights of the four pixels around a place, which lies `t` behind the second one.
pub(super) fn cubic_weights(t: f64, a: f64) -> [f64; 4] {
    let near = |d: f64| ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
    let far = |d: f64| ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
    [far(1.0 + t), near(t), near(1.0 - t), far(2.0 - t)]
}

/// A resize for one input shape: per axis and output pixel, the input pixels with their weights.
#[derive(Clone, Debug)]
pub struct Resize {
    axes: Vec<Vec<Vec<Tap>>>,
    /// The value where there is no input pixel.
    outside: f32,
}

impl Resize {
    pub(super) fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(Vec::len).collect()
    }

    /// Whether an axis of length `dim` stays as it is.
    pub(crate) fn keeps(&self, axis: usize, dim: usize) -> bool {
        let taps = &self.axes[axis];
        taps.len() == dim && taps.iter().enumerate().all(|(at, taps)| taps[..] == [(at, 1.0)])
    }

    /// Resizes one axis after another.
    pub(super) fn run(&self, input: &Tensor, out: &mut Tensor) {
        let mut current = input.clone();
        for (axis, taps) in self.axes.iter().enumerate() {
            if !self.keeps(axis, current.shape[axis]) {
                current = resize_axis(&current, axis, taps, self.outside);
            }
        }
        out.data.copy_from_slice(&current.data);
    }
}

fn resize_axis(input: &Tensor, axis: usize, taps: &[Vec<Tap>], outside: f32) -> Tensor {
    let inner: usize = input.shape[axis + 1..].iter().product();
    let mut shape = input.shape.clone();
    shape[axis] = taps.len();
    let mut data = Vec::with_capacity(shape.iter().product());
    for block in input.data.chunks_exact((input.shape[axis] * inner).max(1)) {
        let row = |at: usize| &block[at * inner..][..inner];
        for taps in taps {
            match taps[..] {
                [] => data.extend(std::iter::repeat_n(outside, inner)),
                [(at, 1.0)] => data.extend_from_slice(row(at)),
                [(low, a), (high, b)] => data.extend(row(low).iter().zip(row(high)).map(|(x, y)| x * a + y * b)),
                _ => {
                    data.extend((0..inner).map(|i| taps.iter().map(|&(at, weight)| block[at * inner + i] * weight).sum::<f32>()))
                }
            }
        }
    }
    Tensor::new(shape, data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Attribute;

    /// The input pixels that a resize of a row of `dim` pixels reads.
    fn read(attributes: &[(&str, &str)], dim: usize, scale: f32) -> Vec<usize> {
        let mut all = Attributes::new(13);
        attributes.iter().for_each(|(name, value)| all.insert(name.to_string(), Attribute::Text(value.to_string())));
        let resize = ResizeAttributes::parse("Resize", &all).unwrap().resolve(&[dim], &[scale], &[], &[]).unwrap();
        resize.axes[0].iter().map(|taps| taps[0].0).collect()
    }

    /// Expected values are ONNX Runtime's.
    #[test]
    fn sizes_and_pixels_follow_32_bit_arithmetic() {
        assert_eq!(read(&[], 6, 7.0 / 6.0).len(), 7, "in 64 bits it would be 6");
        let asymmetric = ("coordinate_transformation_mode", "asymmetric");
        // Source 3.4999998 is a tie, and 7.4999995.
        let ceil = ("nearest_mode", "round_prefer_ceil");
        assert_eq!(read(&[asymmetric, ceil], 13, 4.0 / 7.0), [0, 2, 4, 5, 7, 9, 11]);
        assert_eq!(read(&[asymmetric, ceil], 10, 12.0 / 10.0), [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 8, 9]);
        // The same size keeps the pixels.
        assert_eq!(read(&[asymmetric], 3, 1.125), [0, 1, 2]);
    }
}
