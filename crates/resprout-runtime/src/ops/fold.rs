//! Constant folding: outputs that depend on constants and shapes alone.

use super::binary::expand;
use super::constant::map;
use super::fact::{Fact, operand};
use super::resolve::{Fused, expand_shape, gather, renamed_shape, resolve, slice};
use super::{Op, UnaryOp, layout};
use crate::error::{Error, Result};
use crate::tensor::{Array, Tensor, Value, value_count};
use resprout_kernels::Isa;

/// The output's elements, where they depend on constants and shapes alone.
pub fn fold(op: &Op, inputs: &[Option<Fact>], isa: Isa) -> Result<Option<Value>> {
    if let Op::Shape { start, end } = op {
        return Ok(Some(Value::I64(Array::vector(shape_slice(&operand(inputs, 0)?.shape, *start, *end)))));
    }
    // Values computed from the images are 32-bit floats, so a constant cast like one of them becomes floats too.
    if let (Op::CastLike, [Some(Fact { value: Some(value), .. }), Some(Fact { value: None, .. })]) = (op, inputs) {
        return cast(value, FLOAT).map(Some);
    }
    let known: Option<Vec<&Value>> = inputs.iter().flatten().map(|fact| fact.value.as_deref()).collect();
    let Some(values) = known.filter(|values| !values.is_empty()) else { return Ok(None) };
    if let Op::ConstantOfShape { value } = op {
        return constant_of_shape(&values, value.as_deref()).map(Some);
    }
    match (op, &values[..]) {
        (Op::Cast { to }, [value]) => return cast(value, *to).map(Some),
        (Op::CastLike, [value, Value::F32(_)]) => return cast(value, FLOAT).map(Some),
        (Op::CastLike, [value, Value::I64(_)]) => return cast(value, INT64).map(Some),
        (Op::Constant(op), values) => return op.run(values).map(Some),
        _ => {}
    }
    match values[0] {
        Value::I64(_) => fold_i64(op, inputs, &values).map(|array| Some(Value::I64(array))),
        Value::F32(_) => {
            let resolved = resolve(op, inputs, &Fused::NONE)?;
            let operands: Option<Vec<&Tensor>> =
                values[..resolved.compute.operand_count(values.len())].iter().map(|value| value.as_f32()).collect();
            let operands = operands.ok_or_else(|| Error::data("floats and integers are mixed"))?;
            let mut out = Tensor::new(resolved.shape.clone(), vec![0.0; value_count(&resolved.shape)?]);
            resolved.compute.run(&operands, &mut out, isa, false);
            Ok(Some(Value::F32(out)))
        }
    }
}

/// Folds an operation on integers.
fn fold_i64(op: &Op, inputs: &[Option<Fact>], values: &[&Value]) -> Result<Array<i64>> {
    let arrays: Option<Vec<&Array<i64>>> = values.iter().map(|value| value.as_i64()).collect();
    let first = values[0].as_i64().ok_or_else(|| Error::data("integers are needed"))?;
    let all = || arrays.clone().ok_or_else(|| Error::data("floats and integers are mixed"));
    let empty = |shape: Vec<usize>| Ok::<_, Error>(Array { data: vec![0; value_count(&shape)?], shape });
    match op {
        Op::Binary(op) => {
            let arrays = all()?;
            let mut rest = arrays[1..].iter();
            rest.try_fold(first.clone(), |sum, next| op.run_i64(&sum, next))
        }
        Op::Unary(UnaryOp::Neg) => Ok(Array::new(first.shape.clone(), first.data.iter().map(|v| v.wrapping_neg()).collect())),
        Op::Expand => {
            let mut out = empty(expand_shape(inputs)?)?;
            expand(first, &mut out);
            Ok(out)
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
        other => Err(Error::unsupported(format!("{} of integers", other.name()))),
    }
}

fn constant_of_shape(values: &[&Value], fill: Option<&Value>) -> Result<Value> {
    let dims = values[0].as_i64().ok_or_else(|| Error::data("a shape of integers is needed"))?;
    let shape: Option<Vec<usize>> = dims.data.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let shape = shape.ok_or_else(|| Error::data(format!("a shape of {:?}", dims.data)))?;
    Value::filled(shape, fill)
}

/// Type codes of ONNX.
const FLOAT: i64 = 1;
const INT32: i64 = 6;
const INT64: i64 = 7;
const BOOL: i64 = 9;

/// Converts a value to another type. A narrower integer keeps the low bits.
fn cast(value: &Value, to: i64) -> Result<Value> {
    match (to, value) {
        (FLOAT, Value::F32(_)) | (INT64, Value::I64(_)) => Ok(value.clone()),
        (FLOAT, Value::I64(a)) => Ok(Value::F32(map(a, |v| v as f32))),
        (INT32, Value::F32(a)) => Ok(Value::I64(map(a, |v| i64::from(v as i32)))),
        (INT32, Value::I64(a)) => Ok(Value::I64(map(a, |v| i64::from(v as i32)))),
        (INT64, Value::F32(a)) => Ok(Value::I64(map(a, |v| v as i64))),
        (BOOL, Value::F32(a)) => Ok(Value::I64(map(a, |v| i64::from(v != 0.0)))),
        (BOOL, Value::I64(a)) => Ok(Value::I64(map(a, |v| i64::from(v != 0)))),
        _ => Err(Error::unsupported(format!("Cast to type {to}"))),
    }
}

/// The dimensions from `start` to `end` of a shape, as ONNX counts them.
fn shape_slice(shape: &[usize], start: i64, end: Option<i64>) -> Vec<i64> {
    let rank = shape.len() as i64;
    let clamp = |at: i64| if at < 0 { at.saturating_add(rank).max(0) } else { at.min(rank) };
    let (start, end) = (clamp(start), clamp(end.unwrap_or(rank)));
    (start..end).map(|axis| shape[axis as usize] as i64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::BinaryOp;
    use std::sync::Arc;

    fn folded(op: &Op, inputs: &[Value]) -> Value {
        let facts: Vec<Option<Fact>> = inputs.iter().map(|value| Some(Fact::constant(Arc::new(value.clone())))).collect();
        fold(op, &facts, Isa::best()).unwrap().unwrap()
    }

    fn ints(values: &[i64]) -> Value {
        Value::I64(Array::vector(values.to_vec()))
    }

    fn floats(values: &[f32]) -> Value {
        Value::F32(Array::vector(values.to_vec()))
    }

    #[test]
    fn shapes_as_exporters_compute_them() {
        let rows = Value::I64(Array::new(vec![2, 2], vec![3, 4, 3, 4]));
        assert_eq!(folded(&Op::Expand, &[ints(&[3, 4]), ints(&[2, 1])]), rows);
        assert_eq!(folded(&Op::Expand, &[floats(&[1.5]), ints(&[3])]), floats(&[1.5; 3]));
        assert_eq!(folded(&Op::CastLike, &[ints(&[2]), floats(&[0.5])]), floats(&[2.0]));
        assert_eq!(folded(&Op::CastLike, &[floats(&[-2.7]), ints(&[0])]), ints(&[-2]));
        assert_eq!(folded(&Op::Cast { to: BOOL }, &[floats(&[0.0, 0.5])]), ints(&[0, 1]));
        assert_eq!(folded(&Op::Cast { to: INT32 }, &[ints(&[(1 << 32) + 5])]), ints(&[5]));
        assert_eq!(folded(&Op::Unary(UnaryOp::Neg), &[ints(&[3])]), ints(&[-3]));
        assert_eq!(folded(&Op::Unary(UnaryOp::Sqrt), &[floats(&[16.0])]), floats(&[4.0]));
        assert_eq!(folded(&Op::Unary(UnaryOp::Floor), &[floats(&[-1.5])]), floats(&[-2.0]));
        assert_eq!(folded(&Op::Binary(BinaryOp::Max), &[ints(&[1, 5]), ints(&[3])]), ints(&[3, 5]));
        assert_eq!(folded(&Op::Binary(BinaryOp::Min), &[floats(&[1.0, 5.0]), floats(&[3.0])]), floats(&[1.0, 3.0]));
        assert_eq!(folded(&Op::Shape { start: 0, end: None }, &[rows]), ints(&[2, 2]));
    }
}
