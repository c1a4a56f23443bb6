//! Facts: what is known about a value before anything is computed, and operands read from them.

use crate::error::{Error, Result};
use crate::tensor::{Tensor, Value};
use std::sync::Arc;

/// The known shape of a value, and its elements if it is a constant.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, if they do not depend on the input's.
    pub value: Option<Arc<Value>>,
    /// Whether the elements are integers or truth values. Computed ones are held as floats, exact up to 2^24.
    pub integer: bool,
}

impl Fact {
    /// A value that depends on the input.
    pub fn of_shape(shape: Vec<usize>) -> Fact {
        Fact { shape, value: None, integer: false }
    }

    /// The same for elements that are integers, or not.
    #[must_use]
    pub fn with_integers(self, integer: bool) -> Fact {
        Fact { integer, ..self }
    }

    /// A constant.
    pub fn constant(value: Arc<Value>) -> Fact {
        Fact { shape: value.shape().to_vec(), integer: value.as_i64().is_some(), value: Some(value) }
    }
}

/// The fact of an input that must be there.
pub(super) fn operand(inputs: &[Option<Fact>], index: usize) -> Result<&Fact> {
    inputs.get(index).and_then(Option::as_ref).ok_or_else(|| Error::data(format!("input {index} is missing")))
}

/// The shapes of all inputs that are there.
pub(super) fn shapes(inputs: &[Option<Fact>]) -> Vec<&[usize]> {
    inputs.iter().flatten().map(|fact| &fact.shape[..]).collect()
}

/// Where the `index`-th input is among those that are there.
pub(super) fn position(inputs: &[Option<Fact>], index: usize) -> Option<usize> {
    inputs.get(index)?.as_ref()?;
    Some(inputs[..index].iter().flatten().count())
}

/// An input that must be a constant of floats.
pub(super) fn constant_f32<'a>(inputs: &'a [Option<Fact>], index: usize, what: &str) -> Result<&'a Tensor> {
    let value = operand(inputs, index)?.value.as_ref();
    value
        .and_then(|v| v.as_f32())
        .ok_or_else(|| Error::unsupported(format!("a {what} that is computed, not a constant of 32-bit floats")))
}

/// An input that must be a constant, shared with the model.
pub(super) fn constant(inputs: &[Option<Fact>], index: usize) -> Result<Arc<Value>> {
    operand(inputs, index)?.value.clone().ok_or_else(|| Error::unsupported(format!("input {index} is computed, not a constant")))
}

/// A constant of floats, if the input is there.
pub(super) fn optional_f32(inputs: &[Option<Fact>], index: usize) -> Result<Option<&Tensor>> {
    match inputs.get(index).and_then(Option::as_ref) {
        None => Ok(None),
        Some(_) => constant_f32(inputs, index, "operand").map(Some),
    }
}

/// The bias of so many channels; empty without one.
pub(super) fn bias_of(inputs: &[Option<Fact>], index: usize, channels: usize) -> Result<&[f32]> {
    let bias = optional_f32(inputs, index)?.map_or(&[][..], |t| &t.data);
    if !bias.is_empty() && bias.len() != channels {
        return Err(Error::data(format!("a bias of {} elements for {channels} channels", bias.len())));
    }
    Ok(bias)
}

/// Constant integers, if the input is there.
pub(super) fn optional_i64(inputs: &[Option<Fact>], index: usize) -> Result<Option<Vec<i64>>> {
    let Some(fact) = inputs.get(index).and_then(Option::as_ref) else { return Ok(None) };
    let value = fact.value.as_ref().and_then(|v| v.as_i64());
    value
        .map(|v| Some(v.data.clone()))
        .ok_or_else(|| Error::unsupported(format!("input {index} is computed from the image's content")))
}

pub(super) fn required_i64(inputs: &[Option<Fact>], index: usize, what: &str) -> Result<Vec<i64>> {
    optional_i64(inputs, index)?.ok_or_else(|| Error::data(format!("{what} is missing")))
}

/// Axes from the attribute of older opsets, or from the input of newer ones.
pub(super) fn axes_of(attribute: Option<&[i64]>, inputs: &[Option<Fact>], index: usize) -> Result<Option<Vec<i64>>> {
    match attribute {
        Some(axes) => Ok(Some(axes.to_vec())),
        None => optional_i64(inputs, index),
    }
}
