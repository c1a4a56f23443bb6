//! Quantised numbers, computed as floats that hold integers.

use super::fact::{Fact, operand, position};
use super::general::{General, Images};
use super::resolve::Resolved;
use super::special::round_half_even;
use super::{Attributes, axis_index};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use resprout_kernels::Isa;

/// To or from quantised numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantizeOp {
    /// Whether numbers are quantised rather than read.
    quantise: bool,
    axis: i64,
    block: usize,
    /// Smallest and largest quantised number.
    range: [i64; 2],
}

impl QuantizeOp {
    pub(super) fn parse(kind: &str, a: &Attributes) -> Result<Option<QuantizeOp>> {
        let quantise = match kind {
            "QuantizeLinear" => true,
            "DequantizeLinear" => false,
            _ => return Ok(None),
        };
        let block = a.int("block_size", 0)?;
        let block = usize::try_from(block).map_err(|_| Error::format(format!("block_size {block}")))?;
        let range = match a.int("output_dtype", 0)? {
            0 | 2 => [0, 255],
            3 => [-128, 127],
            4 => [0, 65535],
            5 => [-32768, 32767],
            6 => [i64::from(i32::MIN), i64::from(i32::MAX)],
            21 => [0, 15],
            22 => [-8, 7],
            25 => [0, 3],
            26 => [-2, 1],
            _ if !quantise => [0, 0],
            other => return Err(Error::unsupported(format!("{kind} to type {other}"))),
        };
        Ok(Some(QuantizeOp { quantise, axis: a.int("axis", 1)?, block, range }))
    }

    /// The operation's name in ONNX.
    pub fn name(&self) -> &'static str {
        if self.quantise { "QuantizeLinear" } else { "DequantizeLinear" }
    }

    /// Whether the result is an integer.
    pub(super) fn is_integer(&self) -> bool {
        self.quantise
    }

    pub(super) fn resolve(&self, inputs: &[Option<Fact>]) -> Result<Resolved> {
        let (shape, scale) = (operand(inputs, 0)?.shape.clone(), operand(inputs, 1)?.shape.clone());
        let wrong = || Error::data(format!("scales of shape {scale:?} for values of shape {shape:?}"));
        let scales: usize = scale.iter().product();
        // The index of an element's scale.
        let inner = |axis: usize| shape[axis + 1..].iter().product::<usize>();
        let (step, dim, block, beside) = match scale.len() {
            _ if scales == 1 => (1, 1, 1, 1),
            1 => {
                let axis = axis_index(self.axis, shape.len())?;
                if scale[0] != shape[axis] {
                    return Err(wrong());
                }
                (inner(axis), shape[axis], 1, 1)
            }
            rank => {
                let axis = axis_index(self.axis, shape.len())?;
                let fits = rank == shape.len() && (0..rank).all(|i| i == axis || scale[i] == shape[i]);
                if !fits || self.block == 0 || shape[axis].div_ceil(self.block) != scale[axis] {
                    return Err(wrong());
                }
                (inner(axis), shape[axis], self.block, inner(axis))
            }
        };
        let zero = position(inputs, 2);
        if zero.is_some() && operand(inputs, 2)?.shape.iter().product::<usize>() != scales {
            return Err(wrong());
        }
        let (quantise, [low, high]) = (self.quantise, self.range);
        let blocked = scale.len() > 1 && scales > 1;
        let run = move |inputs: &[&Tensor], out: &mut Tensor, _: Isa| {
            for (i, (out, &v)) in out.data.iter_mut().zip(&inputs[0].data).enumerate() {
                let along = i / step % dim / block;
                let at = if blocked { (i / (step * dim) * dim.div_ceil(block) + along) * beside + i % beside } else { along };
                let (scale, zero) = (inputs[1].data[at], zero.map_or(0.0, |zero| inputs[zero].data[at]));
                *out = match quantise {
                    true => (round_half_even(v / scale) + zero).clamp(low as f32, high as f32),
                    false => (v - zero) * scale,
                };
            }
        };
        Ok(General::new(3, Images::Axes((0..shape.len()).map(Some).collect()), run).shaped(shape))
    }
}
