//! safetensors: weights plus masks, in and out.
//!
//! A mask of parameter `NAME` is stored as the boolean tensor `NAME.mask`. Files of other programs are read by
//! [`super::weights`].

use crate::error::{Error, Result};
use crate::formats::weights::{Names, Number, Stored, add_bias};
use crate::formats::{atomic, sparse};
use crate::model::{Mask, Model};
use crate::tensor::Tensor;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::HashMap;
use std::path::Path;

/// What is appended to a parameter's name to name its mask.
pub const MASK_SUFFIX: &str = ".mask";

/// Writes every floating-point parameter and every mask.
pub fn write(model: &Model, path: &Path) -> Result<()> {
    let bytes = encode(model).map_err(|e| e.at(path.display()))?;
    atomic::write(path, &bytes)
}

/// The bytes of the file.
pub fn encode(model: &Model) -> Result<Vec<u8>> {
    encode_with(model, &[], None)
}

/// As [`encode`], with tensors that are no parameters and with text beside them.
pub fn encode_with(model: &Model, extra: &[(String, Tensor)], metadata: Option<HashMap<String, String>>) -> Result<Vec<u8>> {
    let mut tensors: Vec<Packed> = Vec::new();
    for (name, param) in model.params.iter() {
        if let Some(tensor) = param.f32() {
            tensors.push((name.to_string(), Dtype::F32, tensor.shape.clone(), tensor.to_le_bytes()));
        }
    }
    for (name, tensor) in extra {
        tensors.push((name.clone(), Dtype::F32, tensor.shape.clone(), tensor.to_le_bytes()));
    }
    for (name, mask) in model.masks.iter() {
        let shape = model.params.get(name).map(|param| param.shape.clone()).unwrap_or_default();
        tensors.push((format!("{name}{MASK_SUFFIX}"), Dtype::BOOL, shape, mask.0.iter().map(|&kept| u8::from(kept)).collect()));
    }
    pack(&tensors, metadata)
}

/// Writes tensors that are no model's.
pub fn write_tensors(tensors: &[(String, Tensor)], path: &Path) -> Result<()> {
    let tensors: Vec<Packed> =
        tensors.iter().map(|(name, tensor)| (name.clone(), Dtype::F32, tensor.shape.clone(), tensor.to_le_bytes())).collect();
    atomic::write(path, &pack(&tensors, None).map_err(|e| e.at(path.display()))?)
}

/// Name, type, shape and bytes.
pub(super) type Packed = (String, Dtype, Vec<usize>, Vec<u8>);

pub(super) fn pack(tensors: &[Packed], metadata: Option<HashMap<String, String>>) -> Result<Vec<u8>> {
    let mut views = Vec::with_capacity(tensors.len());
    for (name, dtype, shape, bytes) in tensors {
        let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(|e| Error::format(format!("{name:?}: {e}")))?;
        views.push((name.clone(), view));
    }
    safetensors::serialize(views, metadata).map_err(|e| Error::format(e.to_string()))
}

/// As [`decode_into`], for a file of [`encode_with`]: also returns the tensors whose names end in
/// `suffix`, by what is in front of it, and the text.
#[allow(clippy::type_complexity)]
pub fn decode_with(
    model: &mut Model,
    bytes: &[u8],
    suffix: &str,
) -> Result<(HashMap<String, Vec<f32>>, HashMap<String, String>)> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| Error::format(format!("not a safetensors file: {e}")))?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| Error::format(format!("not a safetensors file: {e}")))?;
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

/// Replaces parameters of `model` by those of a file of [`encode`], and takes over its masks. Names and shapes must
/// be the model's; parameters that the file does not hold stay. Nothing is changed unless all of it fits.
pub fn decode_into(model: &mut Model, bytes: &[u8]) -> Result<()> {
    let mut next = model.clone();
    if let Some(contents) = sparse::contents(bytes)? {
        for (name, tensor) in contents.tensors {
            replace(&mut next, &name, &tensor.shape, || Ok(tensor.data)).map_err(|e| e.at(format!("tensor {name:?}")))?;
        }
        contents.masks.into_iter().for_each(|(name, mask)| next.masks.insert(name, mask));
        *model = next;
        return Ok(());
    }
    let file = SafeTensors::deserialize(bytes).map_err(|e| Error::format(format!("not a safetensors file: {e}")))?;
    for (name, view) in file.iter() {
        place(&mut next, name, &view).map_err(|e| e.at(format!("tensor {name:?}")))?;
    }
    next.apply_masks();
    *model = next;
    Ok(())
}

fn place(model: &mut Model, name: &str, view: &TensorView) -> Result<()> {
    let Some(masked) = name.strip_suffix(MASK_SUFFIX).filter(|_| view.dtype() == Dtype::BOOL) else {
        return replace(model, name, view.shape(), || floats(view));
    };
    parameter(model, masked, view.shape())?;
    model.masks.insert(masked.to_string(), Mask(view.data().iter().map(|&byte| byte != 0).collect()));
    Ok(())
}

fn replace(model: &mut Model, name: &str, shape: &[usize], data: impl FnOnce() -> Result<Vec<f32>>) -> Result<()> {
    if model.params.get(name).is_none() {
        add_bias(model, name, shape)?;
    }
    parameter(model, name, shape)?.data = data()?;
    Ok(())
}

/// The parameter of that name, which must have that shape.
fn parameter<'m>(model: &'m mut Model, name: &str, shape: &[usize]) -> Result<&'m mut Tensor> {
    let missing = || Error::data("the model has no 32-bit float parameter of this name");
    let tensor = model.params.f32_mut(name).ok_or_else(missing)?;
    match tensor.shape == shape {
        true => Ok(tensor),
        false => Err(Error::data(format!("shape {shape:?} in the file, {:?} in the model", tensor.shape))),
    }
}

pub(super) fn floats(view: &TensorView) -> Result<Vec<f32>> {
    if view.dtype() != Dtype::F32 {
        return Err(Error::unsupported(format!("type {:?}, 32-bit floats are needed", view.dtype())));
    }
    let (chunks, _) = view.data().as_chunks::<4>();
    Ok(chunks.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect())
}

/// The tensors of any safetensors file.
pub(super) fn names(bytes: &[u8]) -> Result<Names<'_>> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| Error::format(format!("not a safetensors file: {e}")))?;
    Ok(Names { tensors: file.iter().map(|(name, view)| (name.to_string(), stored(&view))).collect(), others: Vec::new() })
}

fn stored<'f>(view: &TensorView<'f>) -> Stored<'f> {
    let number = match view.dtype() {
        Dtype::F16 => Number::F16,
        Dtype::BF16 => Number::Bf16,
        Dtype::F32 => Number::F32,
        Dtype::F64 => Number::F64,
        Dtype::BOOL => Number::Bool,
        Dtype::U8 | Dtype::I8 => Number::Whole(1),
        Dtype::U16 | Dtype::I16 => Number::Whole(2),
        Dtype::U32 | Dtype::I32 => Number::Whole(4),
        Dtype::U64 | Dtype::I64 => Number::Whole(8),
        other => Number::Other(other.bitsize().div_ceil(8)),
    };
    Stored::whole(view.shape().to_vec(), format!("{:?}", view.dtype()), number, view.data())
}
