//! Reads tensors of a file as parameters.

use super::proto::{AttributeProto, SparseTensorProto, TensorProto, data_type};
use crate::error::{Error, Result};
use crate::formats::ElementBudget;
use crate::model::{Param, ParamData, View};
use crate::tensor::{Array, Tensor, Value, element_count};
use half::{bf16, f16};
use prost::bytes::Bytes;
use std::sync::Arc;

/// The most elements of a constant that a node fills. A few bytes of a hostile file must not take all memory.
const LARGEST_FILLED: usize = 1 << 30;

/// The value of a Constant node, in any of its attributes; `None` for text.
pub(super) fn constant_param(attribute: &AttributeProto, budget: &mut ElementBudget) -> Result<Option<Param>> {
    let value = match attribute.name.as_str() {
        "value" => {
            let tensor = attribute.t.as_ref().ok_or_else(|| Error::format("a Constant without a tensor"))?;
            return read_tensor(tensor, None).map(Some);
        }
        "sparse_value" => {
            let sparse = attribute.sparse_tensor.as_ref().ok_or_else(|| Error::format("a Constant without a tensor"))?;
            let values = sparse.values.as_ref().ok_or_else(|| Error::format("a sparse tensor without values"))?;
            return expand_sparse(sparse, values, budget).map(|tensor| Some(Param::from_tensor(tensor)));
        }
        "value_float" => Value::F32(Array::new(vec![], vec![attribute.f])),
        "value_int" => Value::I64(Array::new(vec![], vec![attribute.i])),
        "value_floats" => Value::F32(Array::vector(attribute.floats.clone())),
        "value_ints" => Value::I64(Array::vector(attribute.ints.clone())),
        _ => return Ok(None),
    };
    Ok(Some(Param::from_value(value)))
}

/// The tensor of a ConstantOfShape; `None` if its type is opaque.
pub(super) fn filled(shape: &[i64], fill: Option<Param>) -> Result<Option<Param>> {
    let shape = read_dims(shape)?;
    if element_count(&shape)? > LARGEST_FILLED {
        return Err(Error::format(format!("a ConstantOfShape of shape {shape:?} is larger than a gigabyte of numbers")));
    }
    let fill = match &fill {
        Some(Param { data: ParamData::Narrow(..) | ParamData::Opaque(_), .. }) => return Ok(None),
        other => other.as_ref().and_then(Param::value),
    };
    Value::filled(shape, fill.map(|value| &**value)).map(|value| Some(Param::from_value(value)))
}

/// Expands a sparse tensor and takes its elements off `budget`.
pub(super) fn expand_sparse(sparse: &SparseTensorProto, values: &TensorProto, budget: &mut ElementBudget) -> Result<Tensor> {
    let shape = read_dims(&sparse.dims)?;
    let count = element_count(&shape)?;
    budget.take(count)?;
    let numbers = |tensor: &TensorProto| read_tensor(tensor, None);
    let (values, indices) = (numbers(values)?, numbers(sparse.indices.as_ref().ok_or_else(|| Error::format("no indices"))?)?);
    let values = values.f32().ok_or_else(|| Error::unsupported("values that are no 32-bit floats"))?;
    let Some(Value::I64(indices)) = indices.value().map(|value| &**value) else {
        return Err(Error::unsupported("indices that are no integers"));
    };
    let positions: Vec<usize> = match indices.shape[..] {
        [_] => indices.data.iter().map(|&at| usize::try_from(at).unwrap_or(usize::MAX)).collect(),
        [_, rank] if rank > 0 && rank == shape.len() => indices.data.chunks_exact(rank).map(|at| flat(at, &shape)).collect(),
        _ => return Err(Error::format(format!("indices of shape {:?} for a tensor of shape {shape:?}", indices.shape))),
    };
    if positions.len() != values.len() {
        return Err(Error::format(format!("{} values and {} indices", values.len(), positions.len())));
    }
    if positions.last().is_some_and(|&last| last >= count) || !positions.is_sorted_by(|a, b| a < b) {
        return Err(Error::format(format!("indices that do not ascend within the {count} elements of shape {shape:?}")));
    }
    let mut data = vec![0.0; count];
    positions.iter().zip(&values.data).for_each(|(&at, &value)| data[at] = value);
    Ok(Tensor::new(shape, data))
}

/// The index in the flattened tensor; beyond its end if an index is beyond its dimension.
fn flat(at: &[i64], shape: &[usize]) -> usize {
    at.iter().zip(shape).fold(0, |flat: usize, (&at, &side)| match usize::try_from(at) {
        Ok(at) if at < side => flat.saturating_mul(side).saturating_add(at),
        _ => usize::MAX,
    })
}

fn read_dims(dims: &[i64]) -> Result<Vec<usize>> {
    let positive = |&dim: &i64| usize::try_from(dim).map_err(|_| Error::format(format!("dimensions {dims:?} are negative")));
    dims.iter().map(positive).collect()
}

/// The raw bytes of a tensor; `None` for typed data.
fn raw<'t>(tensor: &'t TensorProto, outside: Option<&'t Bytes>) -> Result<Option<&'t Bytes>> {
    match outside {
        Some(bytes) => Ok(Some(bytes)),
        None if tensor.is_external() => Err(Error::unsupported("external data inside a node")),
        None => Ok((!tensor.raw_data.is_empty()).then_some(&tensor.raw_data)),
    }
}

/// The parameter of a tensor whose numbers were already read.
pub(super) fn float_param(tensor: &TensorProto, numbers: Vec<f32>) -> Result<Param> {
    let shape = read_dims(&tensor.dims)?;
    let count = element_count(&shape)?;
    floats(&shape, numbers, count).map(Param::from_value)
}

/// The parameter of a tensor with raw or typed data, or with bytes `outside` of it.
pub(super) fn read_tensor(tensor: &TensorProto, outside: Option<&Bytes>) -> Result<Param> {
    let shape = read_dims(&tensor.dims)?;
    let count = element_count(&shape)?;
    let raw = raw(tensor, outside)?;
    let data = match tensor.data_type {
        data_type::FLOAT => floats(&shape, numbers(raw, f32::from_le_bytes, &tensor.float_data, |&v| v)?, count)?,
        data_type::INT64 => ints(&shape, numbers(raw, i64::from_le_bytes, &tensor.int64_data, |&v| v)?, count)?,
        data_type::INT32 => {
            let values = numbers(raw, i32::from_le_bytes, &tensor.int32_data, |&v| v)?;
            ints(&shape, values.into_iter().map(i64::from).collect(), count)?
        }
        data_type::BOOL => {
            let values = numbers(raw, u8::from_le_bytes, &tensor.int32_data, |&v| v as u8)?;
            ints(&shape, values.into_iter().map(i64::from).collect(), count)?
        }
        other => {
            let needed = data_type::width(other).map(|width| count as u64 * width);
            if let (Some(raw), Some(needed)) = (raw, needed)
                && raw.len() as u64 != needed
            {
                return Err(Error::format(format!("shape {shape:?} needs {needed} bytes, the file holds {}", raw.len())));
            }
            let name = data_type::name(other);
            let data =
                narrow(tensor, outside, count)?.map_or(ParamData::Opaque(name), |value| ParamData::Narrow(name, Arc::new(value)));
            return Ok(Param { shape, data });
        }
    };
    Ok(Param { shape, data: ParamData::Value(Arc::new(data)) })
}

/// The numbers of another type in one that can be computed with.
fn narrow(tensor: &TensorProto, outside: Option<&Bytes>, count: usize) -> Result<Option<Value>> {
    let (shape, raw, small) = (read_dims(&tensor.dims)?, raw(tensor, outside)?, &tensor.int32_data);
    let wide = |v: &i32| i64::from(*v);
    let integers = match tensor.data_type {
        data_type::FLOAT16 | data_type::BFLOAT16 | data_type::DOUBLE => return Ok(widened(tensor, outside)?.map(Value::F32)),
        data_type::INT8 => numbers(raw, |b: [u8; 1]| i64::from(b[0] as i8), small, wide)?,
        data_type::UINT8 => numbers(raw, |b: [u8; 1]| i64::from(b[0]), small, wide)?,
        data_type::INT16 => numbers(raw, |b| i64::from(i16::from_le_bytes(b)), small, wide)?,
        data_type::UINT16 => numbers(raw, |b| i64::from(u16::from_le_bytes(b)), small, wide)?,
        data_type::UINT32 => numbers(raw, |b| i64::from(u32::from_le_bytes(b)), small, wide)?,
        _ => return Ok(None),
    };
    ints(&shape, integers, count).map(Some)
}

/// Converts a tensor of another floating-point or small integer type to 32-bit floats; `None` for other types.
pub(super) fn widened(tensor: &TensorProto, outside: Option<&Bytes>) -> Result<Option<Tensor>> {
    let shape = read_dims(&tensor.dims)?;
    let raw = raw(tensor, outside)?;
    let small = &tensor.int32_data;
    let data = match tensor.data_type {
        data_type::FLOAT16 => numbers(raw, |b| f16::from_le_bytes(b).to_f32(), small, |&v| f16::from_bits(v as u16).to_f32())?,
        data_type::BFLOAT16 => numbers(raw, |b| bf16::from_le_bytes(b).to_f32(), small, |&v| bf16::from_bits(v as u16).to_f32())?,
        data_type::DOUBLE => numbers(raw, |b| f64::from_le_bytes(b) as f32, &tensor.double_data, |&v| v as f32)?,
        data_type::INT8 => numbers(raw, |b: [u8; 1]| f32::from(b[0] as i8), small, |&v| v as f32)?,
        data_type::UINT8 => numbers(raw, |b: [u8; 1]| f32::from(b[0]), small, |&v| v as f32)?,
        _ => return Ok(None),
    };
    check_count(&shape, data.len(), element_count(&shape)?)?;
    Ok(Some(Tensor::new(shape, data)))
}

/// Type and bytes of a stored tensor: its own type if that holds every number exactly, otherwise 32-bit floats.
pub(super) fn stored_bytes(view: &View, stored: &Tensor) -> (i32, Vec<u8>) {
    let narrow = view.element.and_then(|element| Some((element, narrowed(&stored.data, element)?)));
    narrow.unwrap_or_else(|| (data_type::FLOAT, stored.to_le_bytes()))
}

/// The bytes of numbers in a type; `None` if it does not hold each of them exactly.
fn narrowed(numbers: &[f32], to: i32) -> Option<Vec<u8>> {
    let exact = |&v: &f32| match to {
        data_type::FLOAT16 => {
            Some(f16::from_f32(v)).filter(|h| h.to_f32().to_bits() == v.to_bits()).map(|h| h.to_le_bytes().to_vec())
        }
        data_type::BFLOAT16 => {
            Some(bf16::from_f32(v)).filter(|h| h.to_f32().to_bits() == v.to_bits()).map(|h| h.to_le_bytes().to_vec())
        }
        data_type::DOUBLE => Some(f64::from(v).to_le_bytes().to_vec()),
        _ => None,
    };
    numbers.iter().map(exact).collect::<Option<Vec<_>>>().map(|bytes| bytes.concat())
}

fn numbers<T, S, const BYTES: usize>(
    raw: Option<&Bytes>,
    decode: impl Fn([u8; BYTES]) -> T,
    typed: &[S],
    convert: impl Fn(&S) -> T,
) -> Result<Vec<T>> {
    let Some(raw) = raw else { return Ok(typed.iter().map(convert).collect()) };
    let (chunks, rest) = raw.as_chunks::<BYTES>();
    if !rest.is_empty() {
        return Err(Error::format(format!("{} bytes of data, not a multiple of the {BYTES}-byte element", raw.len())));
    }
    Ok(chunks.iter().map(|&chunk| decode(chunk)).collect())
}

fn floats(shape: &[usize], data: Vec<f32>, count: usize) -> Result<Value> {
    check_count(shape, data.len(), count)?;
    Ok(Value::F32(Tensor::new(shape.to_vec(), data)))
}

fn ints(shape: &[usize], data: Vec<i64>, count: usize) -> Result<Value> {
    check_count(shape, data.len(), count)?;
    Ok(Value::I64(Array::new(shape.to_vec(), data)))
}

fn check_count(shape: &[usize], found: usize, count: usize) -> Result<()> {
    if found != count {
        return Err(Error::format(format!("shape {shape:?} needs {count} elements, the file holds {found}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_types_hold_exact_numbers_only() {
        let exact = [0.5f32, -2.0, 0.0, -0.0, 65504.0];
        let bytes = narrowed(&exact, data_type::FLOAT16).unwrap();
        let tensor = TensorProto { dims: vec![5], data_type: data_type::FLOAT16, raw_data: bytes.into(), ..Default::default() };
        let back = widened(&tensor, None).unwrap().unwrap();
        assert!(back.same_bits(&Tensor::vector(exact.to_vec())));
        assert_eq!(narrowed(&[0.1], data_type::FLOAT16), None);
        assert_eq!(narrowed(&[70000.0], data_type::FLOAT16), None);
        assert_eq!(narrowed(&[0.1], data_type::DOUBLE).unwrap(), f64::from(0.1f32).to_le_bytes());
    }

    #[test]
    fn numbers_of_the_wrong_length_are_refused() {
        let short =
            TensorProto { dims: vec![3], data_type: data_type::FLOAT16, raw_data: vec![0; 4].into(), ..Default::default() };
        assert!(read_tensor(&short, None).is_err());
        assert!(widened(&short, None).is_err());
    }
}
