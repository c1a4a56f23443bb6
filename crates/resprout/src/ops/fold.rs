//! Shape computations: outputs that follow from constants and shapes alone.

use super::resolve::{Fact, Fused, gather, operand, renamed_shape, resolve, slice};
use super::{Op, layout};
use crate::error::{Error, Result};
use crate::tensor::{Array, Tensor, Value, value_count};
use resprout_kernels::Kernel;

/// The output's elements, where they follow from constants and shapes alone.
pub fn fold(op: &Op, inputs: &[Option<Fact>], kernel: Kernel) -> Result<Option<Value>> {
    if let Op::Shape { start, end } = op {
        return Ok(Some(Value::I64(Array::vector(shape_slice(&operand(inputs, 0)?.shape, *start, *end)))));
    }
    let known: Option<Vec<&Value>> = inputs.iter().flatten().map(|fact| fact.value.as_deref()).collect();
    let Some(values) = known.filter(|values| !values.is_empty()) else { return Ok(None) };
    if let Op::ConstantOfShape { value } = op {
        return constant_of_shape(&values, value.as_deref()).map(Some);
    }
    if let (Op::Cast { to }, [value]) = (op, &values[..]) {
        return cast(value, *to).map(Some);
    }
    match values[0] {
        Value::I64(_) => fold_i64(op, inputs, &values).map(|array| Some(Value::I64(array))),
        Value::F32(_) => {
            let resolved = resolve(op, inputs, &Fused::NONE)?;
            let operands: Option<Vec<&Tensor>> =
                values[..resolved.compute.operand_count(values.len())].iter().map(|value| value.as_f32()).collect();
            let operands = operands.ok_or_else(|| Error::data("numbers and whole numbers are mixed"))?;
            let mut out = Tensor::new(resolved.shape.clone(), vec![0.0; value_count(&resolved.shape)?]);
            resolved.compute.run(&operands, &mut out, kernel, false);
            Ok(Some(Value::F32(out)))
        }
    }
}

/// Shape computations.
fn fold_i64(op: &Op, inputs: &[Option<Fact>], values: &[&Value]) -> Result<Array<i64>> {
    let arrays: Option<Vec<&Array<i64>>> = values.iter().map(|value| value.as_i64()).collect();
    let first = values[0].as_i64().ok_or_else(|| Error::data("whole numbers are needed"))?;
    let all = || arrays.clone().ok_or_else(|| Error::data("numbers and whole numbers are mixed"));
    let empty = |shape: Vec<usize>| Ok::<_, Error>(Array { data: vec![0; value_count(&shape)?], shape });
    match op {
        Op::Binary(op) => {
            let arrays = all()?;
            let mut rest = arrays[1..].iter();
            rest.try_fold(first.clone(), |sum, next| op.run_i64(&sum, next))
        }
        Op::Concat { axis } => {
            let arrays = all()?;
            let shapes: Vec<&[usize]> = arrays.iter().map(|a| &a.shape[..]).collect();
            let (shape, axis) = layout::concat_shape(&shapes, *axis)?;
            let mut out = empty(shape)?;
            layout::concat(&arrays, axis, &mut out);
            Ok(out)
        }
        Op::Slice { .. } => {
            let remap = slice(op, inputs)?;
            let mut out = empty(remap.shape())?;
            remap.run(first, 0, &mut out);
            Ok(out)
        }
        Op::Gather { axis } => {
            let (axis, indices, shape) = gather(*axis, inputs)?;
            let mut out = empty(shape)?;
            layout::gather(first, axis, &indices, &mut out);
            Ok(out)
        }
        Op::Transpose { perm } => {
            let perm = layout::permutation(first.shape.len(), perm.as_deref())?;
            let mut out = empty(perm.iter().map(|&axis| first.shape[axis]).collect())?;
            layout::transpose(first, &perm, &mut out);
            Ok(out)
        }
        Op::Flatten { .. } | Op::Reshape { .. } | Op::Squeeze { .. } | Op::Unsqueeze { .. } | Op::Identity => {
            Ok(Array::new(renamed_shape(op, inputs)?, first.data.clone()))
        }
        other => Err(Error::unsupported(format!("{} of whole numbers", other.name()))),
    }
}

fn constant_of_shape(values: &[&Value], fill: Option<&Value>) -> Result<Value> {
    let dims = values[0].as_i64().ok_or_else(|| Error::data("a shape of whole numbers is needed"))?;
    let shape: Option<Vec<usize>> = dims.data.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let shape = shape.ok_or_else(|| Error::data(format!("a shape of {:?}", dims.data)))?;
    Value::filled(shape, fill)
}

fn cast(value: &Value, to: i64) -> Result<Value> {
    let truncated = |v: &f32| *v as i64;
    match (to, value) {
        (1, Value::F32(_)) | (6 | 7, Value::I64(_)) => Ok(value.clone()),
        (1, Value::I64(a)) => Ok(Value::F32(Tensor::new(a.shape.clone(), a.data.iter().map(|&v| v as f32).collect()))),
        (6 | 7, Value::F32(a)) => Ok(Value::I64(Array::new(a.shape.clone(), a.data.iter().map(truncated).collect()))),
        (9, Value::F32(a)) => Ok(Value::I64(Array::new(a.shape.clone(), a.data.iter().map(|&v| i64::from(v != 0.0)).collect()))),
        (9, Value::I64(a)) => Ok(Value::I64(Array::new(a.shape.clone(), a.data.iter().map(|&v| i64::from(v != 0)).collect()))),
        _ => Err(Error::unsupported(format!("Cast to type {to}"))),
    }
}

fn shape_slice(shape: &[usize], start: i64, end: Option<i64>) -> Vec<i64> {
    let rank = shape.len() as i64;
    let clamp = |at: i64| if at < 0 { at.saturating_add(rank).max(0) } else { at.min(rank) };
    let (start, end) = (clamp(start), clamp(end.unwrap_or(rank)));
    (start..end).map(|axis| shape[axis as usize] as i64).collect()
}
