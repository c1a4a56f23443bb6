//! Layers that move elements or axes, and the axis of the channels afterwards.

use super::{Channels, CouplingBuilder, ReshapeUse};
use crate::model::Layer;
use crate::ops::{Op, RearrangeOp, axis_index};

impl<'m> CouplingBuilder<'m> {
    /// Follows the channels through a layer that moves elements; `None` if it is unsupported.
    pub(super) fn moved(&mut self, index: usize, layer: &'m Layer) -> Option<()> {
        match &layer.op {
            Op::Flatten { .. } => {
                let to = self.regrouped(layer)?;
                self.set(layer, to)
            }
            Op::Reshape { allow_zero: false } => self.reshape(index, layer),
            Op::ReduceMean { axes, keep_dims, .. } | Op::Reduce { axes, keep_dims, .. } => {
                let axes = &axes.clone().or_else(|| self.integers(layer.input(1)))?;
                self.reduced(layer, axes, *keep_dims)
            }
            Op::Squeeze { axes } => {
                let axes = &axes.clone().or_else(|| self.integers(layer.input(1)))?;
                self.reduced(layer, axes, false)
            }
            Op::Unsqueeze { axes } => {
                let axes = &axes.clone().or_else(|| self.integers(layer.input(1)))?;
                let x = self.channels(layer)?;
                let rank = x.rank + axes.len();
                let new: Vec<usize> = axes.iter().map(|&axis| axis_index(axis, rank).ok()).collect::<Option<_>>()?;
                let axis = (0..rank).filter(|axis| !new.contains(axis)).nth(x.axis)?;
                self.set(layer, Channels { axis, rank, ..x })
            }
            Op::Transpose { perm } => {
                let x = self.channels(layer)?;
                let perm = perm.clone().unwrap_or_else(|| (0..x.rank as i64).rev().collect());
                let axis = perm.iter().position(|&from| axis_index(from, x.rank).ok() == Some(x.axis))?;
                self.set(layer, Channels { axis, ..x })
            }
            Op::Slice { attributes } => {
                let axes = match attributes {
                    Some([_, _, axes]) => axes.clone(),
                    None => self.integers(layer.input(3))?,
                };
                self.beside(layer, &axes)?;
                self.pass(layer)
            }
            Op::Rearrange(op) => self.rearranged(layer, op),
            Op::Gather { axis } => {
                let x = self.channels(layer)?;
                let at = *self.beside(layer, &[*axis])?.first()?;
                let more = self.constant(layer.input(1)?)?.shape().len();
                let axis = if at < x.axis { x.axis + more - 1 } else { x.axis };
                self.set(layer, Channels { axis, rank: x.rank + more - 1, ..x })
            }
            _ => None,
        }
    }

    fn rearranged(&mut self, layer: &'m Layer, op: &RearrangeOp) -> Option<()> {
        match op {
            RearrangeOp::Split { axis, sizes, parts, output } => {
                let x = self.channels(layer)?;
                if axis_index(*axis, x.rank).ok()? != x.axis {
                    return self.set(layer, x);
                }
                // Parts of given sizes would have to be written anew.
                (sizes.is_none() && layer.input(1).is_none() && x.labels.len().is_multiple_of(*parts)).then_some(())?;
                let size = x.labels.len() / parts;
                // All parts keep the same positions, so that they stay equal.
                (1..*parts).for_each(|part| self.join_all(&x.labels[..size], &x.labels[part * size..][..size]));
                let labels = x.labels[output * size..][..size].to_vec();
                self.set(layer, Channels { labels, ..x })
            }
            RearrangeOp::CumSum { .. } => {
                self.beside(layer, &self.integers(layer.input(1))?)?;
                self.pass(layer)
            }
            RearrangeOp::TopK { axis, .. } => {
                self.beside(layer, &[*axis])?;
                self.pass(layer)
            }
            _ => None,
        }
    }

    /// These axes of the first input, counted from the front; `None` if one of them is the axis of the channels.
    fn beside(&self, layer: &Layer, axes: &[i64]) -> Option<Vec<usize>> {
        let x = self.values.get(layer.input(0)?)?;
        axes.iter().map(|&axis| axis_index(axis, x.rank).ok().filter(|&axis| axis != x.axis)).collect()
    }

    /// Removes some axes, or sets their length to 1.
    fn reduced(&mut self, layer: &'m Layer, axes: &[i64], keep_dims: bool) -> Option<()> {
        let axes = self.beside(layer, axes)?;
        let x = self.channels(layer)?;
        // For some operations an empty list means all axes.
        (!axes.is_empty()).then_some(())?;
        if keep_dims {
            return self.set(layer, x);
        }
        let kept: Vec<usize> = (0..x.rank).filter(|axis| !axes.contains(axis)).collect();
        let axis = kept.iter().position(|&axis| axis == x.axis)?;
        self.set(layer, Channels { axis, rank: kept.len(), ..x })
    }

    /// The first input's channels in the result's shape of the same elements. Their axis is the first that alone determines
    /// the label of every element.
    fn regrouped(&self, layer: &Layer) -> Option<Channels> {
        let x = self.values.get(layer.input(0)?)?;
        let from = self.shapes.get(layer.input(0)?)?;
        let to = self.shapes.get(layer.outputs.first()?.as_str())?;
        let inside = |shape: &[usize], axis: usize| shape[axis + 1..].iter().product::<usize>();
        let (each, all) = (inside(from, x.axis), inside(from, x.axis) * x.labels.len());
        let total: usize = from.iter().product();
        let fits = |&axis: &usize| {
            let (step, period) = (inside(to, axis), inside(to, axis) * to[axis]);
            step > 0 && each.is_multiple_of(step) && (period.is_multiple_of(all) || period == total)
        };
        // The axis of the images must not move.
        let axis = (1..to.len()).find(fits).filter(|_| from.first() == to.first() && x.axis > 0)?;
        let step = inside(to, axis);
        let labels = (0..to[axis]).map(|i| x.labels[i * step / each % x.labels.len()]).collect();
        Some(Channels { labels, axis, rank: to.len() })
    }

    fn reshape(&mut self, index: usize, layer: &'m Layer) -> Option<()> {
        let x = self.channels(layer)?;
        let to = self.regrouped(layer)?;
        let target = self.target(layer.input(1)?)?;
        // A 0 copies the number of channels from an axis that the channels leave.
        let copied = to.axis != x.axis && target.get(x.axis) == Some(&Some(0));
        (target.len() == to.rank && !copied).then_some(())?;
        match target[to.axis]? {
            -1 => {}
            0 if to.axis == x.axis => {}
            number if number > 0 => {
                // Shrinking writes the number into a new target.
                let target: Vec<i64> = target.into_iter().collect::<Option<_>>()?;
                self.reshapes.push(ReshapeUse { layer: index, axis: to.axis, target, units: to.labels.clone() });
            }
            _ => return None,
        }
        self.set(layer, to)
    }

    /// A target shape; `None` stands for numbers that are computed from the shape of another value.
    fn target(&self, name: &str) -> Option<Vec<Option<i64>>> {
        if let Some(numbers) = self.integers(Some(name)) {
            return Some(numbers.into_iter().map(Some).collect());
        }
        let made = self.model.graph.layers.iter().find(|made| made.outputs.iter().any(|output| output == name))?;
        matches!(made.op, Op::Concat { axis: 0 }).then_some(())?;
        let parts = made.inputs.iter().map(|part| match self.integers(Some(part)) {
            Some(numbers) => Some(numbers.into_iter().map(Some).collect()),
            // A computed part stands for one number, so that the target has one for each axis.
            None => (self.shapes.get(part.as_str())? == &[1]).then(|| vec![None]),
        });
        Some(parts.collect::<Option<Vec<Vec<Option<i64>>>>>()?.concat())
    }

    /// Accepts a Shape if no layer reads its number of channels.
    pub(super) fn shape(&self, layer: &Layer, start: i64, end: Option<i64>) -> Option<()> {
        let x = self.values.get(layer.input(0)?)?;
        let axes: Vec<usize> = (0..x.rank).collect();
        let bound = |at: i64| if at < 0 { (at + x.rank as i64).max(0) } else { at.min(x.rank as i64) } as usize;
        let axes = axes.get(bound(start)..bound(end.unwrap_or(x.rank as i64))).unwrap_or_default();
        let Some(place) = axes.iter().position(|&axis| axis == x.axis) else { return Some(()) };
        let output = layer.outputs.first()?;
        let harmless = |reader: &Layer| {
            let indices = self.integers(reader.input(1));
            let at = |&index: &i64| axis_index(index, axes.len()).is_ok_and(|index| index != place);
            matches!(reader.op, Op::Gather { axis: 0 }) && indices.is_some_and(|indices| indices.iter().all(at))
        };
        let mut readers = self.model.graph.layers.iter().filter(|reader| reader.inputs.contains(output));
        readers.all(harmless).then_some(())
    }
}
