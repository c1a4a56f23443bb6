//! Slice, Pad and Resize: every output index takes its value from one input index per axis.

use super::attributes::Attributes;
use super::axis_index;
use super::binary::advance;
use crate::error::{Error, Result};
use crate::tensor::{Array, Tensor, element_count, strides};

/// What an output index outside the input reads.
const FILL: usize = usize::MAX;

/// For each axis, which input index each output index reads.
#[derive(Clone, Debug)]
pub struct Remap {
    axes: Vec<Vec<usize>>,
}

impl Remap {
    pub(super) fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(Vec::len).collect()
    }

    /// The part of a shape between starts and ends, after ONNX's clamping rules.
    pub(super) fn slice(shape: &[usize], starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]) -> Result<Remap> {
        if starts.len() != ends.len() || starts.len() != axes.len() || starts.len() != steps.len() {
            return Err(Error::data("starts, ends, axes and steps of different lengths"));
        }
        let mut maps: Vec<Vec<usize>> = shape.iter().map(|&dim| (0..dim).collect()).collect();
        for (i, &axis) in axes.iter().enumerate() {
            let axis = axis_index(axis, shape.len())?;
            maps[axis] = slice_axis(shape[axis] as i64, starts[i], ends[i], steps[i])?;
        }
        Ok(Remap { axes: maps })
    }

    /// `pads`: all begins, then all ends, for the given axes; negative ones cut off.
    pub(super) fn pad(shape: &[usize], pads: &[i64], axes: Option<&[i64]>, mode: PadMode) -> Result<Remap> {
        let all: Vec<i64> = (0..shape.len() as i64).collect();
        let axes = axes.unwrap_or(&all);
        if pads.len() != 2 * axes.len() {
            return Err(Error::data(format!("{} pads for {} axes", pads.len(), axes.len())));
        }
        let mut maps: Vec<Vec<usize>> = shape.iter().map(|&dim| (0..dim).collect()).collect();
        for (i, &axis) in axes.iter().enumerate() {
            let axis = axis_index(axis, shape.len())?;
            maps[axis] = mode.axis(shape[axis] as i64, pads[i], pads[i + axes.len()])?;
        }
        element_count(&maps.iter().map(Vec::len).collect::<Vec<_>>())?;
        Ok(Remap { axes: maps })
    }

    /// Start, end and step along each axis, where all of them are slices that go forward.
    pub fn ranges(&self) -> Option<Vec<(usize, usize, usize)>> {
        let range = |map: &Vec<usize>| {
            if map.contains(&FILL) {
                return None;
            }
            let (&first, &last) = (map.first()?, map.last()?);
            let step = map.get(1).map_or(Some(1), |second| second.checked_sub(first)).filter(|&step| step > 0)?;
            let even = map.iter().enumerate().all(|(i, &at)| at == first + i * step);
            even.then_some((first, last + 1, step))
        };
        self.axes.iter().map(range).collect()
    }

    /// How much is added in front and behind along each axis of an input of `shape`, where nothing is cut off.
    pub fn borders(&self, shape: &[usize]) -> Option<Vec<(usize, usize)>> {
        let border = |(map, &dim): (&Vec<usize>, &usize)| {
            // The whole axis lies somewhere in the map, in order.
            let starts = 0..(map.len() + 1).checked_sub(dim)?;
            let before = starts.into_iter().find(|&start| (0..dim).all(|i| map[start + i] == i))?;
            Some((before, map.len() - dim - before))
        };
        self.axes.iter().zip(shape).map(border).collect()
    }

    pub(super) fn run<T: Copy>(&self, input: &Array<T>, fill: T, out: &mut Array<T>) {
        let Some((last, outer)) = self.axes.split_last() else {
            out.data.copy_from_slice(&input.data);
            return;
        };
        if last.is_empty() {
            return;
        }
        let steps = strides(&input.shape);
        let contiguous = last.windows(2).all(|pair| pair[0] != FILL && pair[1] == pair[0].wrapping_add(1)) && last[0] != FILL;
        let outer_shape: Vec<usize> = outer.iter().map(Vec::len).collect();
        let mut index = vec![0; outer.len()];
        for row in out.data.chunks_exact_mut(last.len()) {
            let start = index.iter().zip(outer).zip(&steps).try_fold(0, |at, ((&i, map), step)| match map[i] {
                FILL => None,
                source => Some(at + source * step),
            });
            match start {
                None => row.fill(fill),
                Some(start) if contiguous => row.copy_from_slice(&input.data[start + last[0]..][..last.len()]),
                Some(start) => {
                    row.iter_mut().zip(last).for_each(|(to, &i)| *to = if i == FILL { fill } else { input.data[start + i] });
                }
            }
            advance(&mut index, &outer_shape);
        }
    }
}

fn slice_axis(dim: i64, start: i64, end: i64, step: i64) -> Result<Vec<usize>> {
    let from_front = |at: i64| if at < 0 { at.saturating_add(dim) } else { at };
    match step {
        0 => Err(Error::data("a slice with step 0")),
        1.. => {
            let (start, end) = (from_front(start).clamp(0, dim), from_front(end).clamp(0, dim));
            Ok((start..end).step_by(step as usize).map(|i| i as usize).collect())
        }
        _ => {
            let (start, end) = (from_front(start).clamp(-1, dim - 1), from_front(end).clamp(-1, dim - 1));
            let step = step.unsigned_abs() as usize;
            Ok((end + 1..=start).rev().step_by(step).map(|i| i as usize).collect())
        }
    }
}

/// How a border is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadMode {
    /// With one value.
    Constant,
    /// With the outermost pixel.
    Edge,
    /// Mirrored without repeating the outermost pixel.
    Reflect,
}

impl PadMode {
    pub(super) fn parse(text: Option<&str>) -> Result<PadMode> {
        match text {
            None | Some("constant") => Ok(PadMode::Constant),
            Some("edge") => Ok(PadMode::Edge),
            Some("reflect") => Ok(PadMode::Reflect),
            Some(other) => Err(Error::unsupported(format!("padding mode {other:?}"))),
        }
    }

    fn axis(self, dim: i64, before: i64, after: i64) -> Result<Vec<usize>> {
        let len = dim.checked_add(before).and_then(|len| len.checked_add(after)).filter(|len| (0..1 << 32).contains(len));
        let len = len.ok_or_else(|| Error::data(format!("pads {before} and {after} on {dim} elements")))?;
        let source = |at: i64| match self {
            _ if (0..dim).contains(&at) => Some(at as usize),
            PadMode::Constant => Some(FILL),
            PadMode::Edge => (dim > 0).then(|| at.clamp(0, dim - 1) as usize),
            PadMode::Reflect => {
                Some(if at < 0 { -at } else { 2 * (dim - 1) - at }).filter(|at| (0..dim).contains(at)).map(|at| at as usize)
            }
        };
        let map: Option<Vec<usize>> = (0..len).map(|i| source(i - before)).collect();
        map.ok_or_else(|| Error::data(format!("pads {before} and {after} are too wide for {dim} elements in mode {self:?}")))
    }
}

/// Attributes of Resize.
#[derive(Clone, Debug, PartialEq)]
pub struct ResizeAttributes {
    linear: bool,
    coordinates: Coordinates,
    rounding: Rounding,
    /// Opset 10 has the scales as second input, later ones as third.
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
}

impl ResizeAttributes {
    pub(super) fn parse(a: &Attributes) -> Result<ResizeAttributes> {
        let old = a.opset < 11;
        let text = |name: &str, default: &str| Ok::<_, Error>(a.text(name)?.unwrap_or_else(|| default.to_string()));
        let wrong = |name: &str, value: &str| Error::unsupported(format!("Resize with {name} {value:?}"));
        if a.flag("antialias", false)?
            || a.ints("axes")?.is_some()
            || a.text("keep_aspect_ratio_policy")?.is_some_and(|p| p != "stretch")
        {
            return Err(Error::unsupported("Resize with antialias, axes or an aspect ratio policy"));
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
        let rounding = match text("nearest_mode", if old { "floor" } else { "round_prefer_floor" })?.as_str() {
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

    /// From scales, or from sizes where there are no scales.
    pub(super) fn resolve(&self, shape: &[usize], scales: &[f32], sizes: &[i64]) -> Result<Resize> {
        let wrong = || Error::data(format!("Resize of shape {shape:?} with scales {scales:?} and sizes {sizes:?}"));
        let targets: Vec<(usize, f64)> = if scales.len() == shape.len() {
            let scaled = |(&dim, &scale): (&usize, &f32)| ((dim as f64 * f64::from(scale)).floor() as usize, f64::from(scale));
            shape.iter().zip(scales).map(scaled).collect()
        } else if sizes.len() == shape.len() {
            shape.iter().zip(sizes).map(|(&dim, &size)| (size.max(0) as usize, size as f64 / dim as f64)).collect()
        } else {
            return Err(wrong());
        };
        let limit = 1 << 24;
        if shape.contains(&0)
            || targets.iter().any(|&(size, scale)| !(1..limit).contains(&size) || scale.is_nan() || scale <= 0.0)
        {
            return Err(wrong());
        }
        let axes = shape.iter().zip(&targets).map(|(&dim, &(size, scale))| self.axis(dim, size, scale)).collect();
        Ok(Resize { axes })
    }

    fn axis(&self, dim: usize, size: usize, scale: f64) -> Vec<(usize, usize, f32)> {
        let position = |at: usize| match self.coordinates {
            Coordinates::HalfPixel => (at as f64 + 0.5) / scale - 0.5,
            Coordinates::PytorchHalfPixel if size == 1 => 0.0,
            Coordinates::PytorchHalfPixel => (at as f64 + 0.5) / scale - 0.5,
            Coordinates::AlignCorners if size == 1 => 0.0,
            Coordinates::AlignCorners => at as f64 * (dim - 1) as f64 / (size - 1) as f64,
            Coordinates::Asymmetric => at as f64 / scale,
        };
        let last = (dim - 1) as f64;
        let tap = |x: f64| {
            if self.linear {
                let x = x.clamp(0.0, last);
                let low = x.floor();
                return (low as usize, (low + 1.0).min(last) as usize, (x - low) as f32);
            }
            let nearest = match self.rounding {
                Rounding::PreferFloor => (x - 0.5).ceil(),
                Rounding::PreferCeil => (x + 0.5).floor(),
                Rounding::Floor => x.floor(),
                Rounding::Ceil => x.ceil(),
            };
            let index = nearest.clamp(0.0, last) as usize;
            (index, index, 0.0)
        };
        (0..size).map(|at| tap(position(at))).collect()
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

    /// One axis after the other.
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

    #[test]
    fn slices_clamp_like_numpy() {
        assert_eq!(slice_axis(5, 1, i64::MAX, 2).unwrap(), [1, 3]);
        assert_eq!(slice_axis(5, -1, i64::MIN, -1).unwrap(), [4, 3, 2, 1, 0]);
        assert_eq!(slice_axis(5, 3, 0, -2).unwrap(), [3, 1]);
        assert!(slice_axis(5, 4, 2, 1).unwrap().is_empty());
        assert!(slice_axis(5, 0, 5, 0).is_err());
    }

    #[test]
    fn pads_in_every_mode() {
        let input = Array::new(vec![3], vec![1, 2, 3]);
        let padded = |mode, pads: &[i64]| {
            let remap = Remap::pad(&[3], pads, None, mode)?;
            let mut out = Array::new(remap.shape(), vec![0; remap.shape()[0]]);
            remap.run(&input, 9, &mut out);
            Ok::<_, Error>(out.data)
        };
        assert_eq!(padded(PadMode::Constant, &[1, 2]).unwrap(), [9, 1, 2, 3, 9, 9]);
        assert_eq!(padded(PadMode::Constant, &[-1, 1]).unwrap(), [2, 3, 9]);
        assert_eq!(padded(PadMode::Edge, &[1, 1]).unwrap(), [1, 1, 2, 3, 3]);
        assert_eq!(padded(PadMode::Reflect, &[2, 1]).unwrap(), [3, 2, 1, 2, 3, 2]);
        assert!(padded(PadMode::Reflect, &[3, 0]).is_err());
        assert!(padded(PadMode::Constant, &[i64::MAX, 1]).is_err());
    }
}
