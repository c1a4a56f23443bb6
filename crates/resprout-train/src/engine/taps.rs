//! Values inside of a network that a loss reads beside the logits, and programs that run in part.

use super::forward::Forward;
use super::layout::Layout;
use super::{Instruction, Operand, TrainProgram, lower};
use crate::parameters::Parameters;
use rayon::prelude::*;
use resprout::Result;
use resprout::model::Model;
use resprout_kernels::batched::Buffer;
use std::collections::HashSet;

/// The gradient of a tapped value.
pub(crate) struct TapGradient {
    pub(super) slot: usize,
    pub(super) gradient: Buffer,
}

/// Elements that are summed at a time: a fixed number, so that threads change no bit.
const SHARE: usize = 1 << 12;

impl TrainProgram {
    /// As [`new`](TrainProgram::new), with values that can be read after a forward pass, by name.
    pub(crate) fn tapped(model: &Model, parameters: &Parameters, shape: &[usize], taps: &[String]) -> Result<TrainProgram> {
        let count = shape.first().copied().unwrap_or(0);
        lower::lower(model, parameters, shape, Layout::of(count), taps)
    }

    /// Keeps nothing for a backward pass any more.
    pub(crate) fn forward_only(&mut self) {
        self.kept.fill(false);
        self.steps.iter_mut().for_each(|step| (step.release, step.release_backward) = (Vec::new(), Vec::new()));
        let mut seen: HashSet<usize> = self.taps.iter().copied().chain([self.output]).collect();
        self.taps.iter().for_each(|&slot| self.kept[slot] = true);
        for step in self.steps.iter_mut().rev() {
            let read = step.inputs.iter().filter_map(|input| if let Operand::Slot(slot) = input { Some(*slot) } else { None });
            step.release = read.filter(|&slot| seen.insert(slot)).collect();
        }
    }

    /// Ends forward passes with a tap, or with the logits for `None`. Backward passes leave out what lies before the tap `from`.
    pub(crate) fn restrict(&mut self, from: Option<usize>, to: Option<usize>) {
        let after = |tap: usize| 1 + self.steps.iter().position(|step| step.output == self.taps[tap]).unwrap_or(0);
        let (first, end) = (from.map_or(0, after), to.map_or(self.steps.len(), after));
        self.end = end;
        self.find_wanted(first);
    }

    /// The indices of the parameters that the steps read for which gradients are computed.
    pub(crate) fn trained_parameters(&self) -> HashSet<usize> {
        let mut found = HashSet::new();
        for step in self.steps.iter().take(self.end).filter(|step| self.wanted[step.output]) {
            found.extend(step.inputs.iter().filter_map(
                |input| {
                    if let Operand::Parameter(index) = input { Some(*index) } else { None }
                },
            ));
            match step.instruction {
                Instruction::Conv(index) => {
                    found.extend([self.convs[index].weight].into_iter().chain(self.convs[index].bias));
                }
                Instruction::Normalise { gamma, beta, .. } => found.extend([gamma, beta]),
                _ => {}
            }
        }
        found
    }

    /// Bytes of the values that a step holds at its peak, about.
    pub(crate) fn bytes(&self) -> usize {
        let kept = (0..self.shapes.len()).filter(|&slot| self.kept[slot]).map(|slot| self.len(slot)).sum::<usize>();
        let largest = (0..self.shapes.len()).map(|slot| self.len(slot)).max().unwrap_or(0);
        // Beside what is kept: gradients and values on their way.
        (kept + 4 * largest) * size_of::<f32>()
    }

    /// The mean squared error of a tapped value from `target`, by the target's variance, and its gradient times `weight`.
    /// `None` if the target is constant or not finite.
    pub(crate) fn tap_error(&mut self, tap: usize, value: &[f32], target: &[f32], weight: f64) -> Option<(f64, TapGradient)> {
        let slot = self.taps[tap];
        let each: usize = self.shapes[slot].iter().product();
        let count = (self.layout.images * each) as f64;
        let cleared = (self.layout.last_lanes() < self.layout.lanes).then(|| {
            let mut copy = self.memory.take(target.len());
            copy.copy_from_slice(target);
            self.layout.clear_empty(&mut copy, each);
            copy
        });
        let [sum, squares] = sums(cleared.as_deref().unwrap_or(target));
        cleared.into_iter().for_each(|copy| self.memory.give(copy));
        let mean = sum / count;
        let variance = squares / count - mean * mean;
        if !(variance > 1e-9 * (squares / count) && variance.is_finite()) {
            return None;
        }
        let factor = 2.0 * weight / (count * variance);
        let mut gradient = self.memory.take(value.len());
        let parts = gradient.par_chunks_mut(SHARE).zip(value.par_chunks(SHARE)).zip(target.par_chunks(SHARE));
        parts.for_each(|((gradient, value), target)| {
            let pairs = value.iter().zip(target);
            gradient.iter_mut().zip(pairs).for_each(|(gradient, (value, target))| *gradient = (value - target) * factor as f32);
        });
        self.layout.clear_empty(&mut gradient, each);
        // The squares of the differences are those of the gradient, by the factor's.
        let error = sums(&gradient)[1] / (factor * factor * count * variance);
        Some((error, TapGradient { slot, gradient }))
    }

    /// Takes back the memory of a forward pass that has no backward pass.
    pub(crate) fn finish(&mut self, forward: Forward) {
        forward.values.into_iter().flatten().for_each(|value| self.memory.give_shared(value));
    }

    /// A tapped value, as the engine lays it out.
    pub(crate) fn tap<'f>(&self, forward: &'f Forward, tap: usize) -> &'f [f32] {
        forward.values[self.taps[tap]].as_ref().map_or(&[], |value| &value[..])
    }
}

/// The sum of all numbers, and of their squares: of each share in `f32` vectors, the shares in `f64`.
fn sums(values: &[f32]) -> [f64; 2] {
    let part = |part: &[f32]| {
        let mut lanes = [[0.0f32; 16]; 2];
        let (whole, rest) = part.as_chunks::<16>();
        for chunk in whole {
            for (lane, &x) in chunk.iter().enumerate() {
                lanes[0][lane] += x;
                lanes[1][lane] += x * x;
            }
        }
        let wide = |lanes: &[f32]| lanes.iter().map(|&x| f64::from(x)).sum::<f64>();
        let squares = rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        [wide(&lanes[0]) + wide(rest), wide(&lanes[1]) + squares]
    };
    let parts: Vec<[f64; 2]> = values.par_chunks(SHARE).map(part).collect();
    parts.into_iter().fold([0.0; 2], |[sum, squares], part| [sum + part[0], squares + part[1]])
}
