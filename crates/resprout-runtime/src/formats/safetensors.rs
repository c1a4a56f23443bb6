//! safetensors files: weights and masks.
//!
//! The mask of parameter `NAME` is the boolean tensor `NAME.mask`, true where a weight is kept. [`super::weights`] reads files
//! of other programs.

pub use super::state_dict::MASK_SUFFIX;

use super::packed::{Packed, floats, pack};
use super::state_dict::{Names, Number, Stored, add_bias};
use super::{atomic, sparse};
use crate::error::{Error, Result};
use crate::model::{Mask, Model};
use crate::tensor::Tensor;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

/// Writes every floating-point parameter and every mask.
pub fn write(model: &Model, path: &Path) -> Result<()> {
    let bytes = encode(model).map_err(|e| e.at(path.display()))?;
    atomic::write(path, &bytes)
}

/// The bytes of the file that [`write()`] writes.
pub fn encode(model: &Model) -> Result<Vec<u8>> {
    encode_with(model, &[], None)
}

/// As [`encode`], with extra tensors that are no parameters, and with text as metadata.
#[doc(hidden)]
pub fn encode_with(model: &Model, extra: &[(String, Tensor)], metadata: Option<HashMap<String, String>>) -> Result<Vec<u8>> {
    let mut tensors: Vec<Packed> = Vec::new();
    for (name, param) in model.params.iter() {
        if let Some(tensor) = param.f32() {
            tensors.push(Packed::floats(name, model.stored_tensor(name, tensor)?));
        }
    }
    tensors.extend(extra.iter().map(|(name, tensor)| Packed::floats(name, Cow::Borrowed(tensor))));
    for (name, _) in model.masks.iter() {
        let (shape, mask) = (model.stored_shape(name)?.unwrap_or_default(), model.stored_mask(name)?);
        let flags = move || mask.iter().flat_map(|mask| &mask.0).map(|&kept| u8::from(kept)).collect();
        tensors.push(Packed { name: format!("{name}{MASK_SUFFIX}"), dtype: Dtype::BOOL, shape, bytes: Box::new(flags) });
    }
    pack(&tensors, metadata)
}

/// Writes tensors of no model.
#[doc(hidden)]
pub fn write_tensors(tensors: &[(String, Tensor)], path: &Path) -> Result<()> {
    let tensors: Vec<Packed> = tensors.iter().map(|(name, tensor)| Packed::floats(name, Cow::Borrowed(tensor))).collect();
    atomic::write(path, &pack(&tensors, None).map_err(|e| e.at(path.display()))?)
}

/// Writes 64-bit numbers of no model, each tensor as name, shape and values. [`decode_numbers`] reads them.
#[doc(hidden)]
pub fn write_numbers(tensors: &[(String, Vec<usize>, Vec<f64>)], path: &Path) -> Result<()> {
    let mut packed: Vec<Packed> = Vec::new();
    for (name, shape, values) in tensors {
        let bytes = || values.iter().flat_map(|value| value.to_le_bytes()).collect();
        packed.push(Packed { name: name.clone(), dtype: Dtype::F64, shape: shape.clone(), bytes: Box::new(bytes) });
    }
    atomic::write(path, &pack(&packed, None).map_err(|e| e.at(path.display()))?)
}

fn open(bytes: &[u8]) -> Result<SafeTensors<'_>> {
    SafeTensors::deserialize(bytes).map_err(|e| Error::format(format!("not a safetensors file: {e}")))
}

/// The tensors of a file with 32-bit or 64-bit floats, by name.
#[doc(hidden)]
pub fn decode_numbers(bytes: &[u8]) -> Result<HashMap<String, Vec<f64>>> {
    let file = open(bytes)?;
    let numbers = |(name, view): (&str, TensorView)| {
        let values = match view.dtype() {
            Dtype::F64 => view.data().as_chunks::<8>().0.iter().map(|&chunk| f64::from_le_bytes(chunk)).collect(),
            _ => floats(&view).map_err(|e| e.at(format!("tensor {name:?}")))?.into_iter().map(f64::from).collect(),
        };
        Ok((name.to_string(), values))
    };
    file.iter().map(numbers).collect()
}

/// As [`decode_into`], for a file of [`encode_with`]. Also returns the extra tensors, whose names end in `suffix`, by the
/// rest of the name, and the text.
#[doc(hidden)]
#[allow(clippy::type_complexity)]
pub fn decode_with(
    model: &mut Model,
    bytes: &[u8],
    suffix: &str,
) -> Result<(HashMap<String, Vec<f32>>, HashMap<String, String>)> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| Error::format(format!("not a safetensors file: {e}")))?;
    let file = open(bytes)?;
    let (mut next, mut extra) = (model.clone(), HashMap::new());
    for (name, view) in file.iter() {
        match name.strip_suffix(suffix) {
            Some(of) => drop(extra.insert(of.to_string(), floats(&view).map_err(|e| e.at(format!("tensor {name:?}")))?)),
            None => place(&mut next, name, &view).map_err(|e| e.at(format!("tensor {name:?}")))?,
        }
    }
    next.apply_masks();
    *model = next;
    Ok((extra, header.metadata().clone().unwrap_or_default()))
}

/// Replaces parameters of `model` by those of a file of [`encode`], and takes over its masks. Names and shapes must be the
/// model's. Parameters that the file does not hold stay. Nothing is changed unless all of it fits.
///
/// # Errors
/// Of kind `Format` for a broken file, and `Data` for a name or a shape that the model does not have.
pub fn decode_into(model: &mut Model, bytes: &[u8]) -> Result<()> {
    let mut next = model.clone();
    if let Some(contents) = sparse::contents(bytes)? {
        for (name, tensor) in contents.tensors {
            replace(&mut next, &name, &tensor.shape, || Ok(tensor.data)).map_err(|e| e.at(format!("tensor {name:?}")))?;
        }
        for (name, mask) in contents.masks {
            let mask = next.seen_mask(&name, mask)?;
            next.masks.insert(name, mask);
        }
        *model = next;
        return Ok(());
    }
    let file = open(bytes)?;
    for (name, view) in file.iter() {
        place(&mut next, name, &view).map_err(|e| e.at(format!("tensor {name:?}")))?;
    }
    next.apply_masks();
    *model = next;
    Ok(())
}

/// Puts one tensor of a file, a parameter or a mask, into the model.
fn place(model: &mut Model, name: &str, view: &TensorView) -> Result<()> {
    let Some(masked) = name.strip_suffix(MASK_SUFFIX).filter(|_| view.dtype() == Dtype::BOOL) else {
        return replace(model, name, view.shape(), || floats(view));
    };
    check(model, masked, view.shape())?;
    let mask = model.seen_mask(masked, Mask(view.data().iter().map(|&byte| byte != 0).collect()))?;
    model.masks.insert(masked.to_string(), mask);
    Ok(())
}

/// Replaces a parameter. Its shape and data are those of the model's file.
fn replace(model: &mut Model, name: &str, shape: &[usize], data: impl FnOnce() -> Result<Vec<f32>>) -> Result<()> {
    if model.params.get(name).is_none() {
        add_bias(model, name, shape)?;
    }
    check(model, name, shape)?;
    let seen = model.as_seen(name, Tensor::new(shape.to_vec(), data()?))?;
    model.params.f32_mut(name).into_iter().for_each(|tensor| tensor.data.clone_from(&seen.data));
    Ok(())
}

/// Fails unless there is a parameter of that name and shape.
fn check(model: &Model, name: &str, shape: &[usize]) -> Result<()> {
    let stored = model.params.f32(name).map(|_| model.stored_shape(name)).transpose()?.flatten();
    let stored = stored.ok_or_else(|| Error::data("the model has no 32-bit float parameter of this name"))?;
    match stored == shape {
        true => Ok(()),
        false => Err(Error::data(format!("shape {shape:?} in the file, {stored:?} in the model"))),
    }
}

/// The tensors of any safetensors file.
pub(super) fn names(bytes: &[u8]) -> Result<Names<'_>> {
    let file = open(bytes)?;
    Ok(Names { tensors: file.iter().map(|(name, view)| (name.to_string(), stored(&view))).collect(), others: Vec::new() })
}

fn stored<'f>(view: &TensorView<'f>) -> Stored<'f> {
    let number = match view.dtype() {
        Dtype::F16 => Number::F16,
        Dtype::BF16 => Number::Bf16,
        Dtype::F32 => Number::F32,
        Dtype::F64 => Number::F64,
        Dtype::BOOL => Number::Bool,
        Dtype::U8 | Dtype::I8 => Number::Integer(1),
        Dtype::U16 | Dtype::I16 => Number::Integer(2),
        Dtype::U32 | Dtype::I32 => Number::Integer(4),
        Dtype::U64 | Dtype::I64 => Number::Integer(8),
        other => Number::Other(other.bitsize().div_ceil(8)),
    };
    Stored::contiguous(view.shape().to_vec(), format!("{:?}", view.dtype()), number, view.data())
}
