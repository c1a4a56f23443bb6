//! Slice and Pad: every output index reads one input index per axis.

use super::axis_index;
use super::binary::advance;
use crate::error::{Error, Result};
use crate::tensor::{Array, element_count, strides};

/// The source of an output index that reads the fill value.
const FILL: usize = usize::MAX;

/// For each axis, the input index that each output index reads.
#[derive(Clone, Debug)]
pub struct Remap {
    axes: Vec<Vec<usize>>,
}

impl Remap {
    /// For each axis, the input index that each output index reads.
    pub(super) fn of_sources(axes: Vec<Vec<usize>>) -> Remap {
        Remap { axes }
    }

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

    /// Pads the given axes. `pads` are all begins, then all ends; negative ones cut off.
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

    /// For each axis, which input index each output index reads; `None` where it reads the filling number.
    pub fn sources(&self) -> Vec<Vec<Option<usize>>> {
        let axis = |map: &Vec<usize>| map.iter().map(|&at| (at != FILL).then_some(at)).collect();
        self.axes.iter().map(axis).collect()
    }

    /// Start, end and step along each axis, if all axes are sliced forward.
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

    /// Whether an axis of length `dim` stays as it is.
    pub(crate) fn keeps(&self, axis: usize, dim: usize) -> bool {
        self.axes[axis].iter().copied().eq(0..dim)
    }

    /// The fill values in front and behind along each axis of an input of `shape`. `None` if the remap does anything else,
    /// such as padding that repeats pixels.
    pub fn fill_pads(&self, shape: &[usize]) -> Option<Vec<(usize, usize)>> {
        let pads = |(map, &dim): (&Vec<usize>, &usize)| {
            let before = map.iter().position(|&at| at != FILL).unwrap_or(map.len().saturating_sub(dim));
            let behind = map.len().checked_sub(before + dim)?;
            let filled = |part: &[usize]| part.iter().all(|&at| at == FILL);
            let whole = map[before..before + dim].iter().copied().eq(0..dim);
            (whole && filled(&map[..before]) && filled(&map[before + dim..])).then_some((before, behind))
        };
        self.axes.iter().zip(shape).map(pads).collect()
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
            // Backwards, ONNX begins at the first element where NumPy would begin before it.
            let (start, end) = (from_front(start).clamp(0.min(dim - 1), dim - 1), from_front(end).clamp(-1, dim - 1));
            let step = step.unsigned_abs() as usize;
            Ok((end + 1..=start).rev().step_by(step).map(|i| i as usize).collect())
        }
    }
}

/// What fills the padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadMode {
    /// One value.
    Constant,
    /// The outermost pixel.
    Edge,
    /// Mirrored pixels, without repeating the outermost one.
    Reflect,
    /// The pixels of the other side.
    Wrap,
}

impl PadMode {
    pub(super) fn parse(text: Option<&str>) -> Result<PadMode> {
        match text {
            None | Some("constant") => Ok(PadMode::Constant),
            Some("edge") => Ok(PadMode::Edge),
            Some("reflect") => Ok(PadMode::Reflect),
            Some("wrap") => Ok(PadMode::Wrap),
            Some(other) => Err(Error::unsupported(format!("Pad of mode {other:?}"))),
        }
    }

    fn axis(self, dim: i64, before: i64, after: i64) -> Result<Vec<usize>> {
        let len = dim.checked_add(before).and_then(|len| len.checked_add(after)).filter(|len| (0..1 << 32).contains(len));
        let len = len.ok_or_else(|| Error::data(format!("pads {before} and {after} on {dim} elements")))?;
        // Negative pads cut off before the rest is filled.
        let (first, end) = ((-before).max(0), dim - (-after).max(0));
        let source = |at: i64| match self {
            _ if (first..end).contains(&at) => Some(at),
            PadMode::Constant => Some(-1),
            _ if first >= end => None,
            PadMode::Edge => Some(at.clamp(first, end - 1)),
            PadMode::Wrap => Some(first + (at - first).rem_euclid(end - first)),
            PadMode::Reflect => {
                Some(if at < first { 2 * first - at } else { 2 * (end - 1) - at }).filter(|at| (first..end).contains(at))
            }
        };
        let source = |at: i64| source(at).map(|at| usize::try_from(at).unwrap_or(FILL));
        let map: Option<Vec<usize>> = (0..len).map(|i| source(i - before)).collect();
        map.ok_or_else(|| Error::data(format!("pads {before} and {after} are too wide for {dim} elements in mode {self:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_clamp_as_onnx_says() {
        assert_eq!(slice_axis(5, 1, i64::MAX, 2).unwrap(), [1, 3]);
        assert_eq!(slice_axis(5, -1, i64::MIN, -1).unwrap(), [4, 3, 2, 1, 0]);
        assert_eq!(slice_axis(5, 3, 0, -2).unwrap(), [3, 1]);
        assert_eq!(slice_axis(5, -7, i64::MIN, -1).unwrap(), [0]);
        assert!(slice_axis(0, -1, i64::MIN, -1).unwrap().is_empty());
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
        assert_eq!(padded(PadMode::Wrap, &[4, 1]).unwrap(), [3, 1, 2, 3, 1, 2, 3, 1]);
        assert_eq!(padded(PadMode::Wrap, &[-1, 3]).unwrap(), [2, 3, 2, 3, 2]);
        assert_eq!(padded(PadMode::Reflect, &[-1, 1]).unwrap(), [2, 3, 2]);
        assert!(padded(PadMode::Reflect, &[3, 0]).is_err());
        assert!(padded(PadMode::Reflect, &[-2, 1]).is_err(), "one pixel has no mirror image");
        assert!(padded(PadMode::Constant, &[i64::MAX, 1]).is_err());
    }

    #[test]
    fn fill_pads_are_fill_values_only() {
        let fill_pads = |mode, pads: &[i64], dim: usize| Remap::pad(&[dim], pads, None, mode).unwrap().fill_pads(&[dim]);
        assert_eq!(fill_pads(PadMode::Constant, &[1, 2], 3), Some(vec![(1, 2)]));
        assert_eq!(fill_pads(PadMode::Constant, &[0, 0], 3), Some(vec![(0, 0)]));
        assert_eq!(fill_pads(PadMode::Constant, &[-1, 2], 3), None);
        for mode in [PadMode::Edge, PadMode::Reflect, PadMode::Wrap] {
            assert_eq!(fill_pads(mode, &[1, 2], 3), None, "{mode:?}");
            assert_eq!(fill_pads(mode, &[0, 0], 3), Some(vec![(0, 0)]), "{mode:?}");
        }
        assert_eq!(fill_pads(PadMode::Edge, &[1, 1], 1), None);
    }
}
