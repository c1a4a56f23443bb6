//! Layers with weights in a plan, and the steps that follow them.

use crate::forward::{Plan, Step};
use crate::model::Model;
use crate::ops::{BinaryOp, Compute, Op};
use resprout_kernels::Activation;

/// What follows a layer with weights, as far as nothing else reads the values between.
#[derive(Clone, Debug)]
pub(super) struct Follow {
    /// The step of a BatchNormalization.
    pub norm: Option<usize>,
    /// The slot of the other summand of a sum, if it is computed before this layer.
    pub other: Option<usize>,
    /// The activation after them.
    pub activation: Activation,
    /// Shape of the weights as stored.
    pub weight_shape: Vec<usize>,
    /// Whether a BatchNormalization may be folded into the weights.
    pub folded: bool,
}

impl Follow {
    /// What follows the step `index` of a plan. The caller sets `folded`.
    pub fn new(plan: &Plan, index: usize, weight_shape: Vec<usize>) -> Follow {
        let mut follow = Follow { norm: None, other: None, activation: Activation::None, weight_shape, folded: false };
        let mut slot = plan.steps[index].output();
        let Some(mut reader) = only_reader(plan, slot) else { return follow };
        if plan.steps[reader].batch_norm.is_some() {
            follow.norm = Some(reader);
            slot = plan.steps[reader].output();
            let Some(next) = only_reader(plan, slot) else { return follow };
            reader = next;
        }
        let step = &plan.steps[reader];
        if let Compute::Binary { op: BinaryOp::Add, .. } = step.compute {
            let Some([a, b]) = step.two_slots() else { return follow };
            let other = if a == slot { b } else { a };
            let early = other == 0 || plan.steps[..index].iter().any(|step| step.output() == other);
            if !early || plan.steps[index].shape != step.shape {
                return follow;
            }
            follow.other = Some(other);
            let Some(next) = only_reader(plan, step.output()) else { return follow };
            reader = next;
        }
        if let Compute::Unary(op) = &plan.steps[reader].compute {
            follow.activation = op.as_activation().unwrap_or(Activation::None);
        }
        follow
    }
}

/// The only step that reads a slot, if it reads it once and the slot is no result.
fn only_reader(plan: &Plan, slot: usize) -> Option<usize> {
    if plan.is_result(slot) {
        return None;
    }
    let mut readers = (0..plan.steps.len()).flat_map(|i| plan.steps[i].input_slots().filter(|&s| s == slot).map(move |_| i));
    let reader = readers.next()?;
    readers.next().is_none().then_some(reader)
}

/// The weight of a step that multiplies by a parameter.
pub(super) fn weight_param(model: &Model, step: &Step) -> Option<String> {
    let layer = &model.graph.layers[step.layer];
    let product = matches!(step.compute, Compute::Conv(_) | Compute::Linear { .. });
    let param = layer.input(1).filter(|_| product && matches!(layer.op, Op::Conv(_) | Op::Gemm { .. } | Op::MatMul))?;
    model.params.f32(param).map(|_| param.to_string())
}
