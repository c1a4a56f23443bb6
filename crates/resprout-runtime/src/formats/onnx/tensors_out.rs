//! Writes tensors as messages of a file.

use super::changes::Stored;
use super::field;
use super::pieces::{Numbers, Pieces};
use super::proto::{AttributeProto, NodeProto, SparseTensorProto, TensorProto, data_type};
use super::splice::each_field;
use crate::error::{Error, Result};
use crate::tensor::{Array, Tensor};
use prost::Message;
use prost::bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint};

fn dims(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&dim| dim as i64).collect()
}

/// Decodes a tensor of the file.
pub(super) fn decode(tensor: &Bytes) -> Result<TensorProto> {
    TensorProto::decode(tensor.clone()).map_err(|e| Error::format(format!("a tensor cannot be read again: {e}")))
}

/// The tensor without its numbers, and the numbers.
pub(super) fn float_tensor<'m>(stored: &Stored<'m>) -> (TensorProto, Numbers<'m>) {
    let (data_type, numbers) = stored.numbers();
    (TensorProto { dims: dims(&stored.tensor.shape), data_type, ..Default::default() }, numbers)
}

/// The tensor with its numbers as raw data.
pub(super) fn with_numbers<'m>(head: &TensorProto, numbers: Numbers<'m>) -> Pieces<'m> {
    let mut out = Pieces::from(head.encode_to_vec());
    // Typed numbers are in the head. An empty field of raw data would count instead of them.
    if numbers.len() > 0 {
        out.field_of_numbers(field::TENSOR_RAW_DATA, numbers);
    }
    out
}

/// The tensor of integers.
pub(super) fn integer_tensor(numbers: &Array<i64>) -> TensorProto {
    let raw: Vec<u8> = numbers.data.iter().flat_map(|number| number.to_le_bytes()).collect();
    TensorProto { dims: dims(&numbers.shape), data_type: data_type::INT64, raw_data: raw.into(), ..Default::default() }
}

/// The nonzero elements of a tensor. A tensor of zeros keeps one of them: not every reader accepts an empty list.
pub(super) fn sparse_tensor(name: &str, tensor: &Tensor) -> SparseTensorProto {
    let mut indices: Vec<usize> = (0..tensor.len()).filter(|&at| tensor.data[at] != 0.0).collect();
    if indices.is_empty() {
        indices.push(0);
    }
    let values = Tensor::new(vec![indices.len()], indices.iter().map(|&at| tensor.data[at]).collect());
    let values = TensorProto {
        name: name.into(),
        dims: dims(&values.shape),
        data_type: data_type::FLOAT,
        raw_data: values.to_le_bytes().into(),
        ..Default::default()
    };
    let indices = Array::vector(indices.iter().map(|&at| at as i64).collect());
    SparseTensorProto { values: Some(values), indices: Some(integer_tensor(&indices)), dims: dims(&tensor.shape) }
}

/// The Constant node of a changed ConstantOfShape, whose elements may differ now.
pub(super) fn spelled_out(node: &Bytes, tensor: &Stored) -> Result<Vec<u8>> {
    let old = NodeProto::decode(node.clone()).map_err(|e| Error::format(format!("a node cannot be read again: {e}")))?;
    let (head, numbers) = float_tensor(tensor);
    let tensor = decode(&with_numbers(&head, numbers).into_vec().into())?;
    let attribute = AttributeProto { name: "value".into(), t: Some(tensor), r#type: 4, ..Default::default() };
    let node = NodeProto { input: vec![], op_type: "Constant".into(), attribute: vec![attribute], ..old };
    Ok(node.encode_to_vec())
}

/// Replaces the numbers of a tensor in their encoding, and its type and shape if they have changed.
pub(super) fn rewrite_tensor<'m>(tensor: &Bytes, new: &Stored<'m>) -> Result<Pieces<'m>> {
    let (element, numbers) = new.numbers();
    let old = decode(&without_data(tensor)?.0.into())?;
    let (mut out, typed) = without_data(tensor)?;
    let (same_shape, same_type) = (old.dims == dims(&new.tensor.shape), old.data_type == element);
    if !same_shape || !same_type {
        let changed = |number| (number == field::TENSOR_DIMS && !same_shape) || (number == field::TENSOR_DATA_TYPE && !same_type);
        let mut kept = Vec::with_capacity(out.len());
        each_field(&out.into(), |number, _, whole, _| {
            if !changed(number) {
                kept.extend_from_slice(whole);
            }
            Ok(())
        })?;
        out = kept;
    }
    if !same_shape {
        for &dim in &new.tensor.shape {
            encode_key(field::TENSOR_DIMS, WireType::Varint, &mut out);
            encode_varint(dim as u64, &mut out);
        }
    }
    if !same_type {
        encode_key(field::TENSOR_DATA_TYPE, WireType::Varint, &mut out);
        encode_varint(element as u64, &mut out);
    }
    // Raw data and packed floats have the same bytes.
    let tag = if typed && element == data_type::FLOAT { field::TENSOR_FLOAT_DATA } else { field::TENSOR_RAW_DATA };
    let mut out = Pieces::from(out);
    out.field_of_numbers(tag, numbers);
    Ok(out)
}

/// The tensor without the fields of its numbers, and whether these are typed floats instead of raw data.
fn without_data(tensor: &Bytes) -> Result<(Vec<u8>, bool)> {
    let numbers = [
        field::TENSOR_FLOAT_DATA,
        field::TENSOR_INT32_DATA,
        field::TENSOR_RAW_DATA,
        field::TENSOR_DOUBLE_DATA,
        field::TENSOR_EXTERNAL_DATA,
        field::TENSOR_DATA_LOCATION,
    ];
    let mut out = Vec::new();
    let mut typed = false;
    each_field(tensor, |number, _, whole, _| {
        typed |= number == field::TENSOR_FLOAT_DATA;
        if !numbers.contains(&number) {
            out.extend_from_slice(whole);
        }
        Ok(())
    })?;
    Ok((out, typed))
}
