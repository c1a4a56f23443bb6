//! From a model to a plan: folds shapes, resolves operations, and fuses what follows a layer into its step.

use super::Plan;
use super::image_axis::{ImageAxis, Operand as Source, result_axis};
use super::step::{BatchNormStep, Operand, Step};
use super::support::{check_supported, needed_values};
use crate::error::{Error, Result};
use crate::model::{Dim, Layer, Layout, Model};
use crate::ops::{BinaryOp, Compute, Fact, Fused, Op, Resolved, batch_norm_affine, fold, is_integer, resolve};
use crate::tensor::{Value, value_count};
use resprout_kernels::{Activation, Isa};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How a plan is made. By default everything is folded and fused, and nothing is tapped.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// Whether a BatchNormalization is multiplied into the convolution before it, where nothing else reads between.
    pub fold_batch_norm: bool,
    /// Whether an activation is applied by the step before it, where nothing else reads between.
    pub fuse_activation: bool,
    /// Taps: names of values to return besides the outputs.
    pub taps: Vec<String>,
}

impl Default for PlanOptions {
    fn default() -> PlanOptions {
        PlanOptions { fold_batch_norm: true, fuse_activation: true, taps: Vec::new() }
    }
}

impl Plan {
    /// Plans `model` for an input of `input_shape: [N, C, H, W]`.
    ///
    /// # Errors
    /// Of kind `Data` for a shape that the model does not take, and `Option` for an unknown tap. Of kind `Unsupported` for the
    /// first layer that cannot be computed, by name.
    pub fn new(model: &Model, input_shape: &[usize], options: &PlanOptions) -> Result<Plan> {
        let mut planner = Planner::new(model, input_shape, options)?;
        for index in 0..model.graph.layers.len() {
            planner.layer(index)?;
        }
        planner.finish(input_shape)
    }
}

struct Planner<'a> {
    model: &'a Model,
    options: &'a PlanOptions,
    readers: HashMap<&'a str, usize>,
    needed: HashSet<&'a str>,
    facts: HashMap<&'a str, Fact>,
    slots: HashMap<&'a str, usize>,
    done: HashSet<usize>,
    steps: Vec<Step>,
    /// The axis of the images, by slot; `None` where they are mixed.
    image_axes: Vec<Option<ImageAxis>>,
    mixer: Option<usize>,
}

impl<'a> Planner<'a> {
    fn new(model: &'a Model, input_shape: &[usize], options: &'a PlanOptions) -> Result<Planner<'a>> {
        check_supported(model)?;
        let input = &model.graph.inputs[0];
        check_input(&input.shape, input_shape, model.graph.image_layout())?;
        value_count(input_shape)?;
        let known = |tap: &&String| model.graph.layers.iter().any(|layer| layer.outputs.contains(tap));
        if let Some(tap) = options.taps.iter().find(|tap| !known(tap)) {
            return Err(Error::option(format!("tap {tap:?}: no layer writes such a value")));
        }
        let mut readers = model.graph.reader_counts();
        options.taps.iter().for_each(|tap| *readers.entry(tap).or_insert(0) += 1);
        let mut facts: HashMap<&str, Fact> = HashMap::new();
        let constants = model.params.iter().filter_map(|(name, param)| Some((name, Fact::constant(param.numbers()?.clone()))));
        facts.extend(constants);
        facts.insert(&input.name, Fact::of_shape(input_shape.to_vec()));
        let slots = HashMap::from([(input.name.as_str(), 0)]);
        let needed = needed_values(model, &options.taps);
        let image_axes = vec![Some(ImageAxis::FIRST)];
        let (done, steps, mixer) = (HashSet::new(), Vec::new(), None);
        Ok(Planner { model, options, readers, needed, facts, slots, done, steps, image_axes, mixer })
    }

    fn layer(&mut self, index: usize) -> Result<()> {
        let layer = &self.model.graph.layers[index];
        if self.done.contains(&index) || !layer.outputs.iter().any(|output| self.needed.contains(output.as_str())) {
            return Ok(());
        }
        self.step(index, layer).map_err(|e| e.at(format!("layer {:?} ({})", layer.name, layer.op.name())))
    }

    fn step(&mut self, index: usize, layer: &'a Layer) -> Result<()> {
        let inputs = self.input_facts(&layer.inputs)?;
        let output = layer.outputs.first().map(String::as_str).unwrap_or_default();
        if let Some(value) = fold(&layer.op, &inputs, Isa::best())? {
            self.facts.insert(output, Fact::constant(Arc::new(value)));
            return Ok(());
        }
        let (fused, output) = self.fuse(layer, output)?;
        let resolved = resolve(&layer.op, &inputs, &fused)?;
        value_count(&resolved.shape)?;
        let operands = self.operands(layer, resolved.compute.operand_count(layer.inputs.len()))?;
        let slot = self.slots.len();
        let image_axis = self.image_axis(&resolved, &operands);
        if image_axis.is_none() && self.mixer.is_none() {
            self.mixer = Some(index);
        }
        self.image_axes.push(image_axis);
        self.slots.insert(output, slot);
        let integer = is_integer(&layer.op, &inputs);
        self.facts.insert(output, Fact::of_shape(resolved.shape.clone()).with_integers(integer));
        self.steps.push(Step {
            layer: index,
            batch_norm: batch_norm_step(layer, fused.activation),
            compute: resolved.compute,
            shape: resolved.shape,
            macs: resolved.macs,
            inputs: operands,
            output: slot,
            release: Vec::new(),
        });
        Ok(())
    }

    fn input_facts(&self, names: &[String]) -> Result<Vec<Option<Fact>>> {
        let fact = |name: &String| match name.as_str() {
            "" => Ok(None),
            name => match self.facts.get(name) {
                Some(fact) => Ok(Some(fact.clone())),
                None if self.model.params.get(name).is_some() => {
                    Err(Error::unsupported(format!("parameter {name:?} has a type that cannot be computed with")))
                }
                None => Err(Error::unsupported(format!("reads {name:?}, a secondary output that is not computed"))),
            },
        };
        names.iter().map(fact).collect()
    }

    fn operands(&self, layer: &Layer, count: usize) -> Result<Vec<Operand>> {
        let names = layer.inputs.iter().take(count).filter(|name| !name.is_empty());
        names
            .map(|name| {
                match (self.slots.get(name.as_str()), self.facts.get(name.as_str()).and_then(|fact| fact.value.clone())) {
                    (Some(&slot), _) => Ok(Operand::Slot(slot)),
                    (None, Some(value)) => constant_operand(value).map_err(|e| e.at(format!("operand {name:?}"))),
                    (None, None) => Err(Error::unsupported(format!("operand {name:?} is not a tensor of numbers"))),
                }
            })
            .collect()
    }

    /// The axis of the images in a result.
    fn image_axis(&self, resolved: &Resolved, operands: &[Operand]) -> Option<ImageAxis> {
        let shape = |slot: usize| match slot {
            0 => self.facts[self.model.graph.inputs[0].name.as_str()].shape.as_slice(),
            slot => self.steps[slot - 1].shape.as_slice(),
        };
        let sources = operands.iter().map(|operand| match operand {
            Operand::Slot(slot) => Some(Source::Computed(shape(*slot), self.image_axes[*slot])),
            Operand::Constant(value) => value.as_f32().map(Source::Constant),
        });
        let sources: Vec<Source> = sources.collect::<Option<_>>()?;
        let count = shape(0).first().copied().unwrap_or(1);
        result_axis(&resolved.compute, &sources, &resolved.shape, count)
    }

    /// Fuses the layers behind this one into it, as long as each is the only reader: a BatchNormalization, then an
    /// activation. Returns the name of the last one's output too.
    fn fuse(&mut self, layer: &'a Layer, mut output: &'a str) -> Result<(Fused, &'a str)> {
        let mut fused = Fused::NONE;
        let foldable = matches!(layer.op, Op::Conv(_)) && self.options.fold_batch_norm;
        let can_activate = self.options.fuse_activation && matches!(layer.op, Op::Conv(_) | Op::BatchNorm { .. } | Op::Binary(_));
        while let Some((index, next)) = self.only_reader(output) {
            match &next.op {
                Op::BatchNorm { epsilon } if foldable && fused.affine.is_none() => {
                    // A later layer may compute its parameters; then it stays a step of its own.
                    let Ok(inputs) = self.input_facts_but_first(next) else { break };
                    let channels = inputs.get(1).and_then(Option::as_ref).map_or(0, |fact| fact.shape.iter().product());
                    let Ok(affine) = batch_norm_affine(&inputs, *epsilon, channels) else { break };
                    if self.out_channels(layer) != Some(channels) {
                        break;
                    }
                    fused.affine = Some(affine);
                }
                Op::Unary(_) | Op::Clip { .. } if can_activate => {
                    let Some(activation) = self.activation(next)? else { break };
                    fused.activation = activation;
                    self.done.insert(index);
                    return Ok((fused, &next.outputs[0]));
                }
                _ => break,
            }
            self.done.insert(index);
            output = &next.outputs[0];
        }
        Ok((fused, output))
    }

    fn out_channels(&self, layer: &Layer) -> Option<usize> {
        self.facts.get(layer.input(1)?).and_then(|weight| weight.shape.first().copied())
    }

    /// The layer that reads `value` as its first input, if nothing else does.
    fn only_reader(&self, value: &str) -> Option<(usize, &'a Layer)> {
        if self.readers.get(value) != Some(&1) || self.model.graph.outputs.iter().any(|output| output == value) {
            return None;
        }
        let position =
            self.model.graph.layers.iter().position(|layer| layer.inputs.first().is_some_and(|input| input == value))?;
        Some((position, &self.model.graph.layers[position]))
    }

    fn input_facts_but_first(&self, layer: &Layer) -> Result<Vec<Option<Fact>>> {
        Ok(std::iter::once(None).chain(self.input_facts(&layer.inputs[1..])?).collect())
    }

    /// The layer as an activation of a kernel, if it is one with constant bounds.
    fn activation(&self, layer: &Layer) -> Result<Option<Activation>> {
        match layer.op {
            Op::Unary(op) => Ok(op.as_activation()),
            _ => {
                let Ok(mut inputs) = self.input_facts_but_first(layer) else { return Ok(None) };
                inputs[0] = Some(Fact::of_shape(vec![]));
                match resolve(&layer.op, &inputs, &Fused::NONE).map(|resolved| resolved.compute) {
                    Ok(Compute::Unary(op)) => Ok(op.as_activation()),
                    _ => Ok(None),
                }
            }
        }
    }

    fn finish(mut self, input_shape: &[usize]) -> Result<Plan> {
        let mut results = Vec::new();
        let mut result_shapes = Vec::new();
        for name in self.model.graph.outputs.iter().chain(&self.options.taps) {
            let fact =
                self.facts.get(name.as_str()).ok_or_else(|| Error::unsupported(format!("output {name:?} is not computed")))?;
            result_shapes.push(fact.shape.clone());
            results.push(match (self.slots.get(name.as_str()), &fact.value) {
                (Some(&slot), _) => Operand::Slot(slot),
                (None, Some(value)) => constant_operand(value.clone()).map_err(|e| e.at(format!("output {name:?}")))?,
                (None, None) => return Err(Error::unsupported(format!("output {name:?} is not a tensor of numbers"))),
            });
        }
        let kept =
            results.iter().filter_map(|result| if let Operand::Slot(slot) = result { Some(*slot) } else { None }).collect();
        let first = Some(ImageAxis::FIRST);
        let independent = results.iter().all(|result| matches!(result, Operand::Slot(slot) if self.image_axes[*slot] == first));
        let slot_count = self.slots.len();
        release_dead(&mut self.steps, slot_count, &kept);
        let writer = |name: &String| self.model.graph.layers.iter().find(|layer| layer.outputs.contains(name));
        let output_ops =
            self.model.graph.outputs.iter().map(|name| writer(name).map_or(String::new(), |layer| layer.op.name().into()));
        Ok(Plan {
            output_ops: output_ops.collect(),
            steps: self.steps,
            input_shape: input_shape.to_vec(),
            result_shapes,
            continues: false,
            mixer: if independent { None } else { self.mixer.or(self.model.graph.layers.len().checked_sub(1)) },
            results,
            slot_count,
        })
    }
}

/// A constant of floats, or of integers that floats hold.
fn constant_operand(value: Arc<Value>) -> Result<Operand> {
    match value.as_f32() {
        Some(_) => Ok(Operand::Constant(value)),
        None => Ok(Operand::Constant(Arc::new(Value::F32(value.to_f32()?.into_owned())))),
    }
}

/// Lists with each step the slots that no later step reads. Swaps commuting operands so that the first one can be reused.
fn release_dead(steps: &mut [Step], slot_count: usize, kept: &HashSet<usize>) {
    let mut seen = vec![false; slot_count];
    for step in steps.iter_mut().rev() {
        // A result without readers dies at once.
        if !seen[step.output] && !kept.contains(&step.output) {
            step.release.push(step.output);
        }
        for input in &step.inputs {
            if let Operand::Slot(slot) = *input
                && !std::mem::replace(&mut seen[slot], true)
                && !kept.contains(&slot)
            {
                step.release.push(slot);
            }
        }
        let commutes = matches!(step.compute, Compute::Binary { op: BinaryOp::Add | BinaryOp::Mul, .. });
        if let (true, &[Operand::Slot(first), Operand::Slot(second)]) = (commutes, &step.inputs[..])
            && !step.release.contains(&first)
            && step.release.contains(&second)
        {
            step.inputs.swap(0, 1);
        }
    }
}

fn batch_norm_step(layer: &Layer, activation: Activation) -> Option<BatchNormStep> {
    let Op::BatchNorm { epsilon } = layer.op else { return None };
    let name = |index: usize| layer.input(index).unwrap_or_default().to_string();
    Some(BatchNormStep { params: [name(1), name(2), name(3), name(4)], epsilon, activation })
}

fn check_input(expected: &[Dim], given: &[usize], layout: Layout) -> Result<()> {
    let fits =
        expected.len() == given.len() && expected.iter().zip(given).all(|(e, g)| !matches!(e, Dim::Fixed(dim) if dim != g));
    if fits || expected.is_empty() {
        return Ok(());
    }
    let text = |dim: &Dim| match dim {
        Dim::Fixed(dim) => dim.to_string(),
        Dim::Free(_) => "any".to_string(),
    };
    let expected: Vec<String> = expected.iter().map(text).collect();
    let axes = match layout {
        Layout::ChannelsFirst => "batch, channels, height, width",
        Layout::ChannelsLast => "batch, height, width, channels",
    };
    Err(Error::data(format!("the model takes images of shape [{}], these have {given:?} ({axes})", expected.join(", "))))
}
