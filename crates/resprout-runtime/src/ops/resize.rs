//! Resize: along each axis, an output pixel is one input pixel or lies between two.
//!
//! Sizes and coordinates are computed in 32-bit arithmetic, step by step as ONNX Runtime does. A scale of 7/6 makes 7 rows
//! of 6, and a tie is within a millionth of one half. 64-bit arithmetic would differ for a third of all fractional scales.

use super::attributes::Attributes;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Attributes of Resize.
#[derive(Clone, Debug, PartialEq)]
pub struct ResizeAttributes {
    linear: bool,
    coordinates: Coordinates,
    rounding: Rounding,
    /// The scales are the second input in opset 10, and the third one since.
    scales_input: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Coordinates {
    HalfPixel,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
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

impl ResizeAttributes {
    pub(super) fn parse(a: &Attributes) -> Result<ResizeAttributes> {
        let old = a.opset < 11;
        let text = |name: &str, default: &str| Ok::<_, Error>(a.text(name)?.unwrap_or_else(|| default.to_string()));
        let wrong = |name: &str, value: &str| Error::unsupported(format!("Resize of {name} {value:?}"));
        if a.flag("antialias", false)? {
            return Err(Error::unsupported("Resize with antialias"));
        }
        if a.ints("axes")?.is_some() {
            return Err(Error::unsupported("Resize of given axes"));
        }
        if let Some(policy) = a.text("keep_aspect_ratio_policy")?.filter(|policy| policy != "stretch") {
            return Err(wrong("keep_aspect_ratio_policy", &policy));
        }
        let linear = match text("mode", "nearest")?.as_str() {
            "nearest" => false,
            "linear" => true,
            other => return Err(wrong("mode", other)),
        };
        let coordinates = match text("coordinate_transformation_mode", if old { "asymmetric" } else { "half_pixel" })?.as_str() {
            "half_pixel" => Coordinates::HalfPixel,
            "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
            "align_corners" => Coordinates::AlignCorners,
            "asymmetric" => Coordinates::Asymmetric,
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
        Ok(ResizeAttributes { linear, coordinates, rounding, scales_input: if old { 1 } else { 2 } })
    }

    pub(super) fn scales_input(&self) -> usize {
        self.scales_input
    }

    /// Resolves scales, or sizes if there are no scales.
    pub(super) fn resolve(&self, shape: &[usize], scales: &[f32], sizes: &[i64]) -> Result<Resize> {
        let wrong = || Error::data(format!("Resize of shape {shape:?} with scales {scales:?} and sizes {sizes:?}"));
        let targets: Vec<(usize, f32)> = if scales.len() == shape.len() {
            let scaled = |(&dim, &scale): (&usize, &f32)| ((dim as f32 * scale) as usize, scale);
            shape.iter().zip(scales).map(scaled).collect()
        } else if sizes.len() == shape.len() {
            shape.iter().zip(sizes).map(|(&dim, &size)| (size.max(0) as usize, size as f32 / dim as f32)).collect()
        } else {
            return Err(wrong());
        };
        let limit = 1 << 24;
        if shape.contains(&0)
            || targets.iter().any(|&(size, scale)| !(1..limit).contains(&size) || scale.is_nan() || scale <= 0.0)
        {
            return Err(wrong());
        }
        if targets.iter().map(|target| target.0).eq(shape.iter().copied()) {
            return Ok(Resize { axes: shape.iter().map(|&dim| (0..dim).map(|at| (at, at, 0.0)).collect()).collect() });
        }
        let axes = shape.iter().zip(&targets).map(|(&dim, &(size, scale))| self.axis(dim, size, scale)).collect();
        Ok(Resize { axes })
    }

    fn axis(&self, dim: usize, size: usize, scale: f32) -> Vec<(usize, usize, f32)> {
        let last = (dim - 1) as f32;
        let position = |at: f32| match self.coordinates {
            _ if scale == 1.0 => at,
            Coordinates::PytorchHalfPixel | Coordinates::AlignCorners if size == 1 => 0.0,
            Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => (at + 0.5) / scale - 0.5,
            Coordinates::AlignCorners => at * last / (size - 1) as f32,
            Coordinates::Asymmetric => at / scale,
        };
        let tap = |x: f32| {
            if self.linear {
                let x = x.clamp(0.0, last);
                let low = x.floor();
                return (low as usize, (low + 1.0).min(last) as usize, x - low);
            }
            let index = self.rounding.round(x, scale).clamp(0.0, last) as usize;
            (index, index, 0.0)
        };
        (0..size).map(|at| tap(position(at as f32))).collect()
    }
}

/// A resize for one input shape: per axis, the two neighbours and the weight of the second.
#[derive(Clone, Debug)]
pub struct Resize {
    axes: Vec<Vec<(usize, usize, f32)>>,
}

impl Resize {
    pub(super) fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(Vec::len).collect()
    }

    /// Whether an axis of length `dim` stays as it is.
    pub(crate) fn keeps(&self, axis: usize, dim: usize) -> bool {
        self.axes[axis].iter().map(|tap| (tap.0, tap.2)).eq((0..dim).map(|at| (at, 0.0)))
    }

    /// Resizes one axis after another.
    pub(super) fn run(&self, input: &Tensor, out: &mut Tensor) {
        let mut current = input.clone();
        for (axis, taps) in self.axes.iter().enumerate() {
            let unchanged = taps.len() == current.shape[axis] && taps.iter().enumerate().all(|(i, t)| t.0 == i && t.2 == 0.0);
            if !unchanged {
                current = resize_axis(&current, axis, taps);
            }
        }
        out.data.copy_from_slice(&current.data);
    }
}

fn resize_axis(input: &Tensor, axis: usize, taps: &[(usize, usize, f32)]) -> Tensor {
    let inner: usize = input.shape[axis + 1..].iter().product();
    let mut shape = input.shape.clone();
    shape[axis] = taps.len();
    let mut data = Vec::with_capacity(shape.iter().product());
    for block in input.data.chunks_exact((input.shape[axis] * inner).max(1)) {
        for &(low, high, weight) in taps {
            let pairs = block[low * inner..][..inner].iter().zip(&block[high * inner..][..inner]);
            data.extend(pairs.map(|(a, b)| if weight == 0.0 { *a } else { a * (1.0 - weight) + b * weight }));
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
        let resize = ResizeAttributes::parse(&all).unwrap().resolve(&[dim], &[scale], &[]).unwrap();
        resize.axes[0].iter().map(|tap| tap.0).collect()
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
