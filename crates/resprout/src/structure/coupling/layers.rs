//! Layers with weights or with one value per channel, and layers that join channels.

use super::{Channels, CouplingBuilder, PadUse, Role};
use crate::model::Layer;
use crate::ops::{NormOp, Op, PadMode};
use crate::tensor::Value;
use std::collections::HashMap;
use std::sync::Arc;

impl<'m> CouplingBuilder<'m> {
    /// Follows one layer; `None` if it is unsupported.
    pub(super) fn layer(&mut self, index: usize, layer: &'m Layer) -> Option<()> {
        if self.fold(layer).is_some() {
            return Some(());
        }
        let computed = |name: &&String| !name.is_empty() && self.model.params.get(name).is_none();
        let labelled = layer.inputs.iter().filter(computed).any(|name| self.values.contains_key(name.as_str()));
        match &layer.op {
            Op::Conv(attributes) => self.conv(index, layer, attributes.groups),
            Op::OpaqueConv { volume: Some(_), groups: 1, transposed: false, .. } => self.conv(index, layer, 1),
            Op::ConvTranspose(_) => self.transposed(layer),
            Op::Gemm { trans_a: false, trans_b, .. } => self.gemm(layer, usize::from(*trans_b)),
            Op::MatMul => self.matmul(layer),
            // Arithmetic on shapes has no channels.
            _ if !labelled => match layer.op {
                Op::BatchNorm { .. } => None,
                _ => Some(()),
            },
            Op::BatchNorm { .. } => self.batch_norm(layer),
            Op::Norm(NormOp::Instance { .. }) => self.instance_norm(layer),
            Op::MaxPool(_) | Op::AveragePool(_) | Op::GlobalAveragePool | Op::GlobalPool { .. } | Op::WindowPool(_) => {
                let x = self.channels(layer)?;
                (x.axis == 1).then_some(())?;
                self.set(layer, x)
            }
            Op::Unary(_) | Op::Clip { .. } | Op::Identity | Op::CastLike => self.pass(layer),
            Op::Resize(_) if layer.input(3).is_none() => self.pass(layer),
            Op::Shape { start, end } => self.shape(layer, *start, *end),
            Op::Binary(_) | Op::Where => self.binary(layer),
            Op::Concat { axis } => self.concat(layer, *axis),
            Op::Pad { mode, attributes } => self.pad(index, layer, mode, attributes.is_some()),
            _ => self.moved(index, layer),
        }
    }

    /// The channels of the first input.
    pub(super) fn channels(&self, layer: &Layer) -> Option<Channels> {
        self.values.get(layer.input(0)?).cloned()
    }

    pub(super) fn pass(&mut self, layer: &'m Layer) -> Option<()> {
        let x = self.channels(layer)?;
        self.set(layer, x)
    }

    fn batch_norm(&mut self, layer: &'m Layer) -> Option<()> {
        let x = self.channels(layer)?;
        (x.axis == 1).then_some(())?;
        for (input, role) in [(1, Role::Channel), (2, Role::Channel), (3, Role::Constant), (4, Role::Constant)] {
            let name = layer.input(input)?;
            (self.model.params.f32(name)?.len() == x.labels.len()).then_some(())?;
            self.cut(layer, name, 0, role, &x.labels);
        }
        self.set(layer, x)
    }

    /// Scale and shift of every channel, by its own statistics.
    fn instance_norm(&mut self, layer: &'m Layer) -> Option<()> {
        let x = self.channels(layer)?;
        (x.axis == 1).then_some(())?;
        for input in [1, 2] {
            let name = layer.input(input)?;
            (self.model.params.f32(name)?.len() == x.labels.len()).then_some(())?;
            self.cut(layer, name, 0, Role::Channel, &x.labels);
        }
        self.set(layer, x)
    }

    fn conv(&mut self, index: usize, layer: &'m Layer, groups: usize) -> Option<()> {
        let name = layer.input(1)?;
        let weight = self.model.params.f32(name)?;
        let &[outputs, group_in, ..] = &weight.shape[..] else { return None };
        let (width, rank) = (group_in * groups, weight.shape.len());
        let x = self.input(layer, 1, width)?;
        (!x.is_empty() && outputs.is_multiple_of(groups)).then_some(())?;
        let out = self.fresh(outputs, None)?;
        if groups > 1 && group_in == 1 {
            (0..outputs).for_each(|j| self.join(out[j], x[j / (outputs / groups)]));
            self.depthwise.push((index, x));
        } else {
            // All groups keep the same positions, so that their sizes stay equal.
            for group in 1..groups {
                self.join_all(&x[..group_in], &x[group * group_in..][..group_in]);
                let size = outputs / groups;
                self.join_all(&out[..size], &out[group * size..][..size]);
            }
            self.cut(layer, name, 1, Role::Input, &x[..group_in]);
        }
        self.cut(layer, name, 0, Role::Output, &out);
        self.bias(layer, &out)?;
        self.set(layer, Channels { labels: out, axis: 1, rank })
    }

    fn transposed(&mut self, layer: &'m Layer) -> Option<()> {
        let Op::ConvTranspose(attributes) = &layer.op else { return None };
        let name = layer.input(1)?;
        let shape = &self.model.params.f32(name)?.shape;
        let &[inputs, outputs, ..] = &shape[..] else { return None };
        (attributes.groups() == 1).then_some(())?;
        let x = self.input(layer, 1, inputs)?;
        let out = self.fresh(outputs, None)?;
        self.cut(layer, name, 0, Role::Input, &x);
        self.cut(layer, name, 1, Role::Output, &out);
        self.bias(layer, &out)?;
        self.set(layer, Channels { labels: out, axis: 1, rank: shape.len() })
    }

    /// A bias as the third input.
    fn bias(&mut self, layer: &'m Layer, out: &[usize]) -> Option<()> {
        let Some(name) = layer.input(2) else { return Some(()) };
        let shape = &self.model.params.f32(name)?.shape;
        match shape.last() {
            Some(&last) if last == out.len() && shape.iter().product::<usize>() == last => {
                self.cut(layer, name, shape.len() - 1, Role::Channel, out);
                Some(())
            }
            _ => shape.iter().all(|&side| side == 1).then_some(()),
        }
    }

    /// Rows times a matrix whose input channels are the axis `in_axis`.
    fn gemm(&mut self, layer: &'m Layer, in_axis: usize) -> Option<()> {
        let out = self.product(layer, 1, in_axis)?;
        self.bias(layer, &out)?;
        self.set(layer, Channels { labels: out, axis: 1, rank: 2 })
    }

    /// The last axis of a value of any rank times a matrix.
    fn matmul(&mut self, layer: &'m Layer) -> Option<()> {
        let first = layer.input(0)?;
        let rank = self.values.get(first).map(|x| x.rank).or_else(|| self.shapes.get(first).map(Vec::len))?;
        let axis = rank.checked_sub(1).filter(|&axis| axis > 0)?;
        let out = self.product(layer, axis, 0)?;
        self.set(layer, Channels { labels: out, axis, rank })
    }

    /// The new channels of a matrix that reads those along `axis`.
    fn product(&mut self, layer: &'m Layer, axis: usize, in_axis: usize) -> Option<Vec<usize>> {
        let name = layer.input(1)?;
        let &[rows, columns] = &self.model.params.f32(name)?.shape[..] else { return None };
        let (inputs, outputs) = if in_axis == 0 { (rows, columns) } else { (columns, rows) };
        let x = self.input(layer, axis, inputs)?;
        let out = self.fresh(outputs, None)?;
        self.cut(layer, name, in_axis, Role::Input, &x);
        self.cut(layer, name, 1 - in_axis, Role::Output, &out);
        Some(out)
    }

    fn binary(&mut self, layer: &'m Layer) -> Option<()> {
        let constants: HashMap<&str, Vec<usize>> =
            layer.inputs.iter().filter_map(|name| Some((name.as_str(), self.constant(name)?.shape().to_vec()))).collect();
        let computed: Vec<&str> = layer.inputs.iter().map(String::as_str).filter(|name| !constants.contains_key(name)).collect();
        let operands: Option<Vec<Channels>> = computed.iter().map(|name| self.values.get(name).cloned()).collect();
        let operands = operands?;
        let ranks = operands.iter().map(|operand| operand.rank).chain(constants.values().map(Vec::len));
        let rank = ranks.max()?;
        // Axes align at the last one.
        let widest = operands.iter().max_by_key(|operand| operand.labels.len())?;
        let axis = widest.axis + rank - widest.rank;
        let widest = Channels { labels: widest.labels.clone(), axis, rank };
        for operand in &operands {
            (operand.axis + rank - operand.rank == axis).then_some(())?;
            match operand.labels.len() {
                width if width == widest.labels.len() => self.join_all(&operand.labels, &widest.labels),
                1 => self.freeze_labels(&operand.labels, "one for all channels"),
                _ => return None,
            }
        }
        for name in layer.inputs.iter().map(String::as_str) {
            let Some(shape) = constants.get(name) else { continue };
            let Some(own) = (axis + shape.len()).checked_sub(rank) else { continue };
            match shape[own] {
                1 => {}
                side if side == widest.labels.len() => {
                    let (param, own) = match self.unsqueezed.get(name) {
                        Some(param) => (*param, 0),
                        None => (name, own),
                    };
                    self.model.params.f32(param)?;
                    self.cut(layer, param, own, Role::Constant, &widest.labels);
                }
                _ => return None,
            }
        }
        self.set(layer, widest)
    }

    fn concat(&mut self, layer: &'m Layer, axis: i64) -> Option<()> {
        let parts: Option<Vec<Channels>> = layer.inputs.iter().map(|name| self.values.get(name.as_str()).cloned()).collect();
        let parts = parts?;
        let Channels { axis: channel_axis, rank, .. } = *parts.first()?;
        parts.iter().all(|part| part.axis == channel_axis && part.rank == rank).then_some(())?;
        let axis = crate::ops::axis_index(axis, rank).ok()?;
        if axis == channel_axis {
            let labels = parts.iter().flat_map(|part| part.labels.iter().copied()).collect();
            return self.set(layer, Channels { labels, axis, rank });
        }
        let first = &parts[0];
        parts.iter().all(|part| part.labels.len() == first.labels.len()).then_some(())?;
        parts[1..].iter().for_each(|part| self.join_all(&first.labels, &part.labels));
        self.set(layer, first.clone())
    }

    fn pad(&mut self, index: usize, layer: &'m Layer, mode: &PadMode, attributes: bool) -> Option<()> {
        let pads = match &layer.op {
            Op::Pad { attributes: Some((pads, _)), .. } => pads.clone(),
            _ => self.integers(layer.input(1))?,
        };
        let x = self.channels(layer)?;
        let Channels { axis, rank, .. } = x;
        (pads.len() == 2 * rank && layer.input(3).is_none()).then_some(())?;
        let (before, behind) = (pads[axis], pads[axis + rank]);
        if before == 0 && behind == 0 {
            return self.set(layer, x);
        }
        let is_zero = |value: Arc<Value>| value.as_f32().is_some_and(|value| value.data == [0.0]);
        let zero = layer.input(2).is_none_or(|name| self.constant(name).is_some_and(is_zero));
        let grows = before >= 0 && behind >= 0;
        (grows && zero && !attributes && matches!(mode, PadMode::Constant)).then_some(())?;
        let (before, behind) = (self.fresh(before as usize, None)?, self.fresh(behind as usize, None)?);
        let labels = [&before[..], &x.labels, &behind].concat();
        self.pads.push(PadUse { layer: index, axis, pads, before, behind });
        self.set(layer, Channels { labels, ..x })
    }
}
