//! Tensors in a safetensors container: how they are packed, and floats read from one.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use safetensors::View;
use safetensors::tensor::{Dtype, Metadata, TensorInfo, TensorView};
use std::borrow::Cow;
use std::collections::HashMap;

/// A tensor to be packed. Its bytes are made when they are written.
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

/// The bytes of a container with these tensors.
pub(super) fn pack(tensors: &[Packed], metadata: Option<HashMap<String, String>>) -> Result<Vec<u8>> {
    let views = tensors.iter().map(|tensor| (&tensor.name, tensor));
    safetensors::serialize(views, metadata).map_err(|e| Error::format(e.to_string()))
}

/// The length of the bytes that [`pack`] returns.
pub(super) fn packed_len(tensors: &[Packed], metadata: Option<HashMap<String, String>>) -> Result<u64> {
    let mut sorted: Vec<&Packed> = tensors.iter().collect();
    // The container sorts tensors so. The header holds offsets as text, so their digits count.
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

/// The numbers of a tensor, which must be 32-bit floats.
pub(super) fn floats(view: &TensorView) -> Result<Vec<f32>> {
    if view.dtype() != Dtype::F32 {
        return Err(Error::unsupported(format!("type {:?}, 32-bit floats are needed", view.dtype())));
    }
    let (chunks, _) = view.data().as_chunks::<4>();
    Ok(chunks.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect())
}
