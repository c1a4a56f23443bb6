//! The flow of a network of absolute values: what SynFlow scores by.
//!
//! Its numbers grow with depth beyond any floating-point range (about 1e70 for ResNet-50), so every value is
//! kept as `x * 2^e` with `x` near one. Powers of two change no digit, so that this is the plain computation
//! but for sums whose terms differ by more than 2^126.

use super::forward::Pass;
use super::gates::Hold;
use super::ops::scale;
use super::{Instruction, Mode, Operand, Step, TrainProgram};
use crate::error::{data, unsupported};
use crate::parameters::Parameters;
use rayon::prelude::*;
use resprout::Result;
use resprout::ops::{BinaryOp, UnaryOp};
use resprout_kernels::batched::Buffer;
use std::sync::Arc;

/// Values between these powers of two are left as they are.
const RANGE: i32 = 16;

/// The exponent of each slot's factor.
pub(super) struct Exponents(Vec<i32>);

/// What a step's operands, summands and result are multiplied by.
pub(super) struct Scales {
    pub inputs: Vec<f32>,
    /// Of a bias, or of a normalisation's shift.
    pub shift: f32,
    pub out: f32,
    exponent: i32,
}

fn power(exponent: i32) -> f32 {
    // Below the range of f32 this is zero, as it should be.
    2f64.powi(exponent) as f32
}

impl Exponents {
    fn of(&self, operand: &Operand) -> i32 {
        if let Operand::Slot(slot) = operand { self.0[*slot] } else { 0 }
    }

    /// The factors with which a step's operands have one exponent.
    pub fn before(&self, step: &Step) -> Scales {
        let exponents: Vec<i32> = step.inputs.iter().map(|input| self.of(input)).collect();
        let largest = exponents.iter().copied().max().unwrap_or(0);
        let (exponent, inputs) = match step.instruction {
            Instruction::Binary(BinaryOp::Mul, _) => (exponents.iter().sum(), vec![1.0; exponents.len()]),
            Instruction::Binary(BinaryOp::Div, _) => {
                (exponents[0] - exponents[1..].iter().sum::<i32>(), vec![1.0; exponents.len()])
            }
            _ => (largest, exponents.iter().map(|own| power(own - largest)).collect()),
        };
        Scales { inputs, shift: power(-exponent), out: 1.0, exponent }
    }

    /// Brings the largest element of what was computed near one.
    pub fn after(&mut self, step: &Step, scales: Scales, out: &mut Arc<Buffer>) -> Result<Scales> {
        let mut scales = scales;
        if matches!(step.instruction, Instruction::Conv(_) | Instruction::Normalise { .. } | Instruction::Binary(..)) {
            let largest = out.par_iter().map(|value| if value.is_nan() { f32::INFINITY } else { value.abs() });
            let largest = largest.reduce(|| 0.0, f32::max);
            if !largest.is_finite() {
                return Err(data("its flow is not finite"));
            }
            let found = if largest > 0.0 { largest.log2().floor() as i32 } else { 0 };
            if found.abs() >= RANGE
                && let Some(out) = Arc::get_mut(out)
            {
                scales.out = power(-found);
                scale(out, scales.out);
                scales.exponent += found;
            }
        }
        self.0[step.output] = scales.exponent;
        Ok(scales)
    }
}

/// Whether a flow has a meaning through the step.
fn check(step: &Step) -> Result<()> {
    match &step.instruction {
        Instruction::Unary(UnaryOp::Relu | UnaryOp::LeakyRelu { .. }) => Ok(()),
        Instruction::Unary(UnaryOp::Clamp { low, .. }) if *low == 0.0 => Ok(()),
        Instruction::Unary(op) => Err(unsupported(format!("{op:?}: SynFlow has no meaning through it"))),
        Instruction::Remap(maps) if maps.fill != 0.0 && maps.axes.iter().flatten().any(Option::is_none) => {
            Err(unsupported("pads with other numbers than zero: SynFlow has no meaning through it"))
        }
        _ => Ok(()),
    }
}

impl TrainProgram {
    /// The gradients of the sum of outputs for an image of ones with respect to every trained parameter, all of
    /// them times the same power of two. Parameters must be absolute values. Batch normalisations use their
    /// running statistics; activations without an upper bound are applied, upper bounds are left out.
    pub(crate) fn flow(&mut self, parameters: &Parameters) -> Result<Vec<Option<Vec<f32>>>> {
        for step in &self.steps {
            check(step).map_err(|e| e.at(format!("layer {:?}", step.layer)))?;
        }
        let ones = vec![1.0; self.layout.images * self.shapes[0].iter().product::<usize>()];
        let mut pass = Pass {
            parameters,
            mode: Mode::Evaluation,
            hold: Hold::Free,
            statistics: Vec::new(),
            exponents: Some(Exponents(vec![0; self.shapes.len()])),
        };
        let forward = self.run(&mut pass, &ones, |_, _| false)?;
        let logits = vec![1.0; forward.logits.len()];
        Ok(self.backward(parameters, forward, Mode::Evaluation, &logits))
    }
}
