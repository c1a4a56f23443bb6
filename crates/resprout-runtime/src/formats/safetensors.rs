//! safetensors: weights plus masks, in and out.
//!
//! A mask of parameter `NAME` is stored as the boolean tensor `NAME.mask`. Files of other programs are read by
//! [`super::weights`].

use crate::error::{Error, Result};
use crate::formats::weights::{Names, Number, Stored, add_bias};
use crate::formats::{atomic, sparse};
use crate::model::{Mask, Model};
use crate::tensor::Tensor;
use safetensors::View;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo, TensorView};
use std::borrow::Cow;
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

/// Writes tensors that are no model's.
pub fn write_tensors(tensors: &[(String, Tensor)], path: &Path) -> Result<()> {
    let tensors: Vec<Packed> = tensors.iter().map(|(name, tensor)| Packed::floats(name, Cow::Borrowed(tensor))).collect();
    atomic::write(path, &pack(&tensors, None).map_err(|e| e.at(path.display()))?)
}

/// A tensor of a file; its bytes are made when they are written.
pub(super) struct Packed<'m> {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Box<dyn Fn() -> Vec<u8> + 'm>,
}

impl<'m> Packed<'m> {
    pub fn floats(name: &str, tensor: Cow<'m, Tensor>) -> Packed<'m> {
        let shape = tensor.shape.clone();
        Packed { name: name.into(), dtype: Dtype::F32, shape, bytes: Box::new(move || tensor.to_le_bytes()) }
    }
}

impl View for &Packed<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned((self.bytes)())
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

pub(super) fn pack(tensors: &[Packed], metadata: Option<HashMap<String, String>>) -> Result<Vec<u8>> {
    let views = tensors.iter().map(|tensor| (&tensor.name, tensor));
    safetensors::serialize(views, metadata).map_err(|e| Error::format(e.to_string()))
}

/// The length of what [`pack`] makes, without making it.
pub(super) fn packed_len(tensors: &[Packed], metadata: Option<HashMap<String, String>>) -> Result<u64> {
    let mut sorted: Vec<&Packed> = tensors.iter().collect();
    // The order of the file: offsets are written as text, so their digits count.
    sorted.sort_by(|a, b| b.dtype.cmp(&a.dtype).then(a.name.cmp(&b.name)));
    let mut end = 0;
    let info = |tensor: &Packed| {
        let start = end;
        end += (&tensor).data_len();
        (tensor.name.clone(), TensorInfo { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets: (start, end) })
    };
    let infos = sorted.into_iter().map(info).collect();
    let failed = |e: &dyn std::fmt::Display| Error::format(e.to_string());
    let header = Metadata::new(metadata, infos).map_err(|e| failed(&e))?;
    let header = serde_json::to_string(&header).map_err(|e| failed(&e))?.len().next_multiple_of(8);
    Ok((8 + header + end) as u64)
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
        for (name, mask) in contents.masks {
            let mask = next.seen_mask(&name, mask)?;
            next.masks.insert(name, mask);
        }
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
    check(model, masked, view.shape())?;
    let mask = model.seen_mask(masked, Mask(view.data().iter().map(|&byte| byte != 0).collect()))?;
    model.masks.insert(masked.to_string(), mask);
    Ok(())
}

/// Files hold a parameter as the network's own file does.
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
