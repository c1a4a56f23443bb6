//! Pixels at computed places: GridSample, AffineGrid, RoiAlign, and windows added up.

use super::Attributes;
use super::fact::{Fact, operand, required_i64};
use super::general::{General, Images};
use super::resolve::Resolved;
use crate::error::{Error, Result};
use crate::tensor::{Tensor, element_count, strides};
use resprout_kernels::Isa;

/// An operation that reads between pixels.
#[derive(Clone, Debug, PartialEq)]
pub enum SampleOp {
    /// Pixels at the places of a grid.
    Grid {
        /// How pixels are combined.
        mode: SampleMode,
        /// What lies outside of the image.
        outside: Outside,
        /// Whether -1 and 1 are the centres of the outermost pixels.
        align_corners: bool,
    },
    /// The grid of an affine map.
    Affine {
        /// Whether -1 and 1 are the centres of the outermost pixels.
        align_corners: bool,
    },
    /// Means or maxima within boxes.
    Roi(RoiAlign),
}

/// How pixels around a place are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named after its interpolation")]
pub enum SampleMode {
    Nearest,
    Linear,
    Cubic,
}

/// What lies outside of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// Zeros.
    Zeros,
    /// The outermost pixel.
    Border,
    /// The mirrored image.
    Reflection,
}

/// The most samples along a side of a cell.
const MOST_SAMPLES: usize = 1024;

/// Attributes of RoiAlign.
#[derive(Clone, Debug, PartialEq)]
pub struct RoiAlign {
    half_pixel: bool,
    max: bool,
    size: [usize; 2],
    samples: usize,
    scale: f32,
}

impl SampleOp {
    pub(super) fn parse(kind: &str, a: &Attributes) -> Result<Option<SampleOp>> {
        let align_corners = a.flag("align_corners", false)?;
        let positive = |name: &str, default: i64| {
            let number = a.int(name, default)?;
            usize::try_from(number).map_err(|_| Error::format(format!("{name} {number}")))
        };
        Ok(Some(match kind {
            "GridSample" => {
                let mode = match a.text("mode")?.as_deref() {
                    None | Some("linear" | "bilinear") => SampleMode::Linear,
                    Some("nearest") => SampleMode::Nearest,
                    Some("cubic" | "bicubic") => SampleMode::Cubic,
                    Some(other) => return Err(Error::unsupported(format!("GridSample of mode {other:?}"))),
                };
                let outside = match a.text("padding_mode")?.as_deref() {
                    None | Some("zeros") => Outside::Zeros,
                    Some("border") => Outside::Border,
                    Some("reflection") => Outside::Reflection,
                    Some(other) => return Err(Error::unsupported(format!("GridSample of padding_mode {other:?}"))),
                };
                SampleOp::Grid { mode, outside, align_corners }
            }
            "AffineGrid" => SampleOp::Affine { align_corners },
            "RoiAlign" => {
                let half_pixel = match a.text("coordinate_transformation_mode")?.as_deref() {
                    None => a.opset >= 16,
                    Some(mode) => mode == "half_pixel",
                };
                let max = a.text("mode")?.as_deref() == Some("max");
                let size = [positive("output_height", 1)?, positive("output_width", 1)?];
                let (samples, scale) = (positive("sampling_ratio", 0)?, a.float("spatial_scale", 1.0)?);
                if samples > MOST_SAMPLES {
                    return Err(Error::format(format!("sampling_ratio {samples}")));
                }
                SampleOp::Roi(RoiAlign { half_pixel, max, size, samples, scale })
            }
            _ => return Ok(None),
        }))
    }

    /// The operation's name in ONNX.
    pub fn name(&self) -> &'static str {
        match self {
            SampleOp::Grid { .. } => "GridSample",
            SampleOp::Affine { .. } => "AffineGrid",
            SampleOp::Roi(_) => "RoiAlign",
        }
    }

    pub(super) fn resolve(&self, inputs: &[Option<Fact>]) -> Result<Resolved> {
        match self {
            SampleOp::Grid { mode, outside, align_corners } => grid_sample(inputs, *mode, *outside, *align_corners),
            SampleOp::Affine { align_corners } => affine_grid(inputs, *align_corners),
            SampleOp::Roi(roi) => roi.resolve(inputs),
        }
    }
}

/// The pixel at an integer place, by what lies outside.
fn pixel_at(at: i64, dim: usize, outside: Outside, align_corners: bool) -> Option<usize> {
    let last = dim as i64 - 1;
    match outside {
        _ if (0..=last).contains(&at) => Some(at as usize),
        Outside::Zeros => None,
        Outside::Border => Some(at.clamp(0, last) as usize),
        Outside::Reflection => {
            let (low, high) = if align_corners { (0.0, last as f64) } else { (-0.5, last as f64 + 0.5) };
            Some(reflect(at as f64, low, high).clamp(0.0, last as f64) as usize)
        }
    }
}

/// A place mirrored at two bounds until it lies between them.
fn reflect(x: f64, low: f64, high: f64) -> f64 {
    let span = high - low;
    if span <= 0.0 {
        return low;
    }
    let far = (x - low).rem_euclid(2.0 * span);
    low + if far > span { 2.0 * span - far } else { far }
}

/// Neighbours of a place along an axis, with their weights.
fn neighbours(x: f64, dim: usize, mode: SampleMode, outside: Outside, align_corners: bool) -> Vec<(Option<usize>, f64)> {
    let last = dim as f64 - 1.0;
    let x = match outside {
        _ if mode == SampleMode::Cubic => x,
        Outside::Zeros => x,
        Outside::Border => x.clamp(0.0, last),
        Outside::Reflection if align_corners => reflect(x, 0.0, last).clamp(0.0, last),
        Outside::Reflection => reflect(x, -0.5, last + 0.5).clamp(0.0, last),
    };
    if !x.is_finite() || x.abs() > 1e9 {
        return Vec::new();
    }
    let pixel = |at: f64| pixel_at(at as i64, dim, outside, align_corners);
    match mode {
        SampleMode::Nearest => vec![(pixel(x.round_ties_even()), 1.0)],
        SampleMode::Linear => {
            let low = x.floor();
            vec![(pixel(low), 1.0 - (x - low)), (pixel(low + 1.0), x - low)]
        }
        SampleMode::Cubic => {
            let low = x.floor();
            let weights = super::resize::cubic_weights(x - low, -0.75);
            (0..4).map(|i| (pixel(low - 1.0 + i as f64), weights[i])).collect()
        }
    }
}

fn grid_sample(inputs: &[Option<Fact>], mode: SampleMode, outside: Outside, align_corners: bool) -> Result<Resolved> {
    let (shape, grid) = (operand(inputs, 0)?.shape.clone(), operand(inputs, 1)?.shape.clone());
    let axes = shape.len().saturating_sub(2);
    let fits = axes > 0 && grid.len() == shape.len() && grid[0] == shape[0] && grid.last() == Some(&axes);
    if !fits || shape.contains(&0) {
        return Err(Error::data(format!("a grid of shape {grid:?} on an image of shape {shape:?}")));
    }
    let out = [&shape[..2], &grid[1..grid.len() - 1]].concat();
    element_count(&out)?;
    let (image, steps) = (shape[2..].to_vec(), strides(&shape[2..]));
    let plane: usize = image.iter().product();
    let places: usize = out[2..].iter().product();
    let channels = shape[1];
    let run = move |inputs: &[&Tensor], out: &mut Tensor, _: Isa| {
        for (index, place) in inputs[1].data.chunks_exact(axes).enumerate() {
            let mut taps = vec![(Some(0), 1.0)];
            // The grid's first number belongs to the last axis.
            for (axis, &at) in place.iter().rev().enumerate() {
                let (at, dim) = (f64::from(at), image[axis] as f64);
                let x = if align_corners { (at + 1.0) / 2.0 * (dim - 1.0) } else { ((at + 1.0) * dim - 1.0) / 2.0 };
                let near = neighbours(x, image[axis], mode, outside, align_corners);
                let join = |&(base, weight): &(Option<usize>, f64)| {
                    let step = steps[axis];
                    near.clone().into_iter().map(move |(at, w)| (base.zip(at).map(|(base, at)| base + at * step), weight * w))
                };
                taps = taps.iter().flat_map(join).collect();
            }
            let (image, at) = (index / places, index % places);
            for channel in 0..channels {
                let pixels = &inputs[0].data[(image * channels + channel) * plane..];
                let sum: f64 = taps.iter().filter_map(|&(tap, weight)| Some(f64::from(pixels[tap?]) * weight)).sum();
                out.data[(image * channels + channel) * places + at] = sum as f32;
            }
        }
    };
    Ok(General::new(2, Images::First(Vec::new()), run).shaped(out))
}

fn affine_grid(inputs: &[Option<Fact>], align_corners: bool) -> Result<Resolved> {
    let (theta, size) = (operand(inputs, 0)?.shape.clone(), required_i64(inputs, 1, "size")?);
    let image: Option<Vec<usize>> = size.iter().skip(2).map(|&dim| usize::try_from(dim).ok().filter(|&dim| dim > 0)).collect();
    let image = image.filter(|image| !image.is_empty() && theta.len() == 3 && theta[1..] == [image.len(), image.len() + 1]);
    let image = image.ok_or_else(|| Error::data(format!("a grid of size {size:?} for a map of shape {theta:?}")))?;
    let axes = image.len();
    let out = [&theta[..1], &image[..], &[axes]].concat();
    crate::tensor::value_count(&out)?;
    let (steps, places) = (strides(&image), image.iter().product::<usize>());
    let run = move |inputs: &[&Tensor], out: &mut Tensor, _: Isa| {
        for (index, target) in out.data.chunks_exact_mut(axes).enumerate() {
            let (map, place) = (&inputs[0].data[index / places * axes * (axes + 1)..], index % places);
            // The first number is the one of the last axis.
            let coordinate = |axis: usize| {
                let (at, dim) = ((place / steps[axis] % image[axis]) as f64, image[axis] as f64);
                if align_corners {
                    if dim > 1.0 { 2.0 * at / (dim - 1.0) - 1.0 } else { 0.0 }
                } else {
                    (2.0 * at + 1.0) / dim - 1.0
                }
            };
            for (row, target) in target.iter_mut().enumerate() {
                let numbers = &map[row * (axes + 1)..][..=axes];
                let sum: f64 = (0..axes).map(|i| f64::from(numbers[i]) * coordinate(axes - 1 - i)).sum();
                *target = (sum + f64::from(numbers[axes])) as f32;
            }
        }
    };
    Ok(General::new(1, Images::beside(3, &[1, 2]), run).shaped(out))
}

impl RoiAlign {
    fn resolve(&self, inputs: &[Option<Fact>]) -> Result<Resolved> {
        let (shape, boxes) = (operand(inputs, 0)?.shape.clone(), operand(inputs, 1)?.shape.clone());
        let (&[_, channels, h, w], &[count, 4]) = (&shape[..], &boxes[..]) else {
            return Err(Error::data(format!("boxes of shape {boxes:?} on images of shape {shape:?}")));
        };
        if operand(inputs, 2)?.shape != [count] || shape.contains(&0) || self.size.contains(&0) {
            return Err(Error::data(format!("boxes of shape {boxes:?} on images of shape {shape:?}")));
        }
        let out = vec![count, channels, self.size[0], self.size[1]];
        crate::tensor::value_count(&out)?;
        let own = self.clone();
        let run = move |inputs: &[&Tensor], out: &mut Tensor, _: Isa| {
            let per_box = channels * own.size[0] * own.size[1];
            for (index, target) in out.data.chunks_exact_mut(per_box).enumerate() {
                let image = (inputs[2].data[index].max(0.0) as usize).min(inputs[0].shape[0] - 1);
                let pixels = &inputs[0].data[image * channels * h * w..][..channels * h * w];
                own.align(&inputs[1].data[index * 4..][..4], pixels, [h, w], target);
            }
        };
        // Boxes of all images lie behind each other.
        Ok(General::new(3, Images::Axes(vec![None; 4]), run).shaped(out))
    }

    /// One box. `pixels` and `target` hold all channels.
    fn align(&self, corners: &[f32], pixels: &[f32], [h, w]: [usize; 2], target: &mut [f32]) {
        let shift = if self.half_pixel { 0.5 } else { 0.0 };
        let place = |at: f32| f64::from(at) * f64::from(self.scale) - shift;
        // Corners are x1, y1, x2, y2.
        let start = [place(corners[1]), place(corners[0])];
        let end = [place(corners[3]), place(corners[2])];
        let least = if self.half_pixel { f64::NEG_INFINITY } else { 1.0 };
        let bin = [0, 1].map(|axis| (end[axis] - start[axis]).max(least) / self.size[axis] as f64);
        let samples =
            bin.map(|size| if self.samples > 0 { self.samples } else { size.ceil().clamp(1.0, MOST_SAMPLES as f64) as usize });
        let bins = self.size[0] * self.size[1];
        for (i, target) in target.iter_mut().enumerate() {
            let (channel, cell) = (i / bins, [i % bins / self.size[1], i % self.size[1]]);
            let plane = &pixels[channel * h * w..][..h * w];
            let at = |axis: usize, sample: usize| {
                start[axis] + bin[axis] * (cell[axis] as f64 + (sample as f64 + 0.5) / samples[axis] as f64)
            };
            let values = (0..samples[0]).flat_map(|y| (0..samples[1]).map(move |x| (y, x)));
            let values = values.map(|(y, x)| bilinear(plane, [h, w], [at(0, y), at(1, x)], self.max));
            let count = (samples[0] * samples[1]) as f64;
            *target = if self.max { values.fold(f64::NEG_INFINITY, f64::max) } else { values.sum::<f64>() / count } as f32;
        }
    }
}

/// The value between four pixels, or the largest of their weighted values.
fn bilinear(plane: &[f32], size: [usize; 2], place: [f64; 2], max: bool) -> f64 {
    if (0..2).any(|axis| place[axis] < -1.0 || place[axis] > size[axis] as f64 || place[axis].is_nan()) {
        return 0.0;
    }
    let near = [0, 1].map(|axis| {
        let last = (size[axis] - 1) as f64;
        let at = place[axis].clamp(0.0, last);
        let low = at.floor();
        [(low as usize, 1.0 - (at - low)), ((low + 1.0).min(last) as usize, at - low)]
    });
    let corners = near[0].iter().flat_map(|y| near[1].iter().map(move |x| (y.0 * size[1] + x.0, y.1 * x.1)));
    let values = corners.map(|(at, weight)| f64::from(plane[at]) * weight);
    if max { values.fold(f64::NEG_INFINITY, f64::max) } else { values.sum() }
}
