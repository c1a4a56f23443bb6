//! Constant folding: outputs that depend on constants and shapes alone.

use super::binary::{broadcast_shape, expand, expanded};
use super::fact::{Fact, operand};
use super::range::range;
use super::reduce::{reduce_i64, reduced_axes};
use super::resolve::{BOOL, FLOAT, Fused, INT64, expand_shape, gather, is_integer, renamed_shape, resolve, slice};
use super::{BinaryOp, MathOp, Op, UnaryOp, layout};
use crate::error::{Error, Result};
use crate::tensor::{Array, Tensor, Value, value_count};
use half::{bf16, f16};
use resprout_kernels::Isa;
use std::borrow::Cow;

/// The output's elements, where they depend on constants and shapes alone.
pub fn fold(op: &Op, inputs: &[Option<Fact>], isa: Isa) -> Result<Option<Value>> {
    match op {
        Op::Shape { start, end } => {
            return Ok(Some(Value::I64(Array::vector(shape_slice(&operand(inputs, 0)?.shape, *start, *end)))));
        }
        Op::Size => {
            let count = operand(inputs, 0)?.shape.iter().product::<usize>();
            return Ok(Some(Value::I64(Array::new(vec![], vec![count as i64]))));
        }
        _ => {}
    }
    // Only the type of the second input matters.
    if let (Op::CastLike, [Some(fact), Some(like)]) = (op, inputs)
        && let Some(value) = &fact.value
    {
        return cast(value, if like.integer { INT64 } else { FLOAT }).map(Some);
    }
    let known: Option<Vec<&Value>> = inputs.iter().flatten().map(|fact| fact.value.as_deref()).collect();
    let Some(values) = known.filter(|values| !values.is_empty()) else { return Ok(None) };
    match (op, &values[..]) {
        (Op::ConstantOfShape { value }, _) => return constant_of_shape(&values, value.as_deref()).map(Some),
        (Op::Cast { to }, [value]) => return cast(value, *to).map(Some),
        (Op::Range, values) => return range(values).map(Some),
        (Op::Where, [Value::I64(condition), Value::I64(a), Value::I64(b)]) => return choose(condition, a, b).map(Some),
        _ => {}
    }
    if let Value::I64(first) = values[0]
        && let Some(array) = fold_i64(op, inputs, first, &values)?
    {
        return Ok(Some(Value::I64(array)));
    }
    fold_f32(op, inputs, &values, isa).map(Some)
}

/// Folds an operation by its forward. Integers become floats, as they do where they depend on an image.
fn fold_f32(op: &Op, inputs: &[Option<Fact>], values: &[&Value], isa: Isa) -> Result<Value> {
    let resolved = resolve(op, inputs, &Fused::NONE)?;
    let count = resolved.compute.operand_count(values.len());
    let operands: Vec<Cow<Tensor>> = values[..count].iter().map(|value| value.to_f32()).collect::<Result<_>>()?;
    let mut out = Tensor::new(resolved.shape.clone(), vec![0.0; value_count(&resolved.shape)?]);
    resolved.compute.run(&operands.iter().map(|operand| &**operand).collect::<Vec<&Tensor>>(), &mut out, isa, false);
    match is_integer(op, inputs) {
        true => Ok(Value::I64(Array::new(out.shape, out.data.iter().map(|&v| v as i64).collect()))),
        false => Ok(Value::F32(out)),
    }
}

/// Folds an operation on integers exactly; `None` if it is none of those that shapes are computed with.
fn fold_i64(op: &Op, inputs: &[Option<Fact>], first: &Array<i64>, values: &[&Value]) -> Result<Option<Array<i64>>> {
    let arrays: Option<Vec<&Array<i64>>> = values.iter().map(|value| value.as_i64()).collect();
    let all = || arrays.clone().ok_or_else(|| Error::data("floats and integers are mixed"));
    let empty = |shape: Vec<usize>| Ok::<_, Error>(Array { data: vec![0; value_count(&shape)?], shape });
    let each = |of: fn(i64) -> i64| Array::new(first.shape.clone(), first.data.iter().map(|&v| of(v)).collect());
    Ok(Some(match op {
        // A mean divides, and a power may be one of floats.
        Op::Binary(BinaryOp::Mean | BinaryOp::Pow | BinaryOp::PRelu) => return Ok(None),
        Op::Binary(op) => {
            let arrays = all()?;
            let mut rest = arrays[1..].iter();
            rest.try_fold(first.clone(), |sum, next| op.run_i64(&sum, next))?
        }
        Op::Unary(UnaryOp::Math(MathOp::Neg)) => each(i64::wrapping_neg),
        Op::Unary(UnaryOp::Math(MathOp::Abs)) => each(i64::wrapping_abs),
        Op::Unary(UnaryOp::Math(MathOp::Not)) => each(|v| i64::from(v == 0)),
        Op::Reduce { reducer, axes, keep_dims, noop_with_empty_axes } => {
            let (axes, shape) = reduced_axes(inputs, axes.as_deref(), [*keep_dims, *noop_with_empty_axes])?;
            return reduce_i64(*reducer, first, &axes, shape);
        }
        Op::Rearrange(op) => {
            let Some(remap) = op.remap(inputs) else { return Ok(None) };
            let remap = remap?;
            let mut out = empty(remap.shape())?;
            remap.run(first, 0, &mut out);
            out
        }
        _ => return fold_moves(op, inputs, first, all),
    }))
}

/// Folds an operation that moves integers.
fn fold_moves<'v>(
    op: &Op,
    inputs: &[Option<Fact>],
    first: &Array<i64>,
    all: impl Fn() -> Result<Vec<&'v Array<i64>>>,
) -> Result<Option<Array<i64>>> {
    let empty = |shape: Vec<usize>| Ok::<_, Error>(Array { data: vec![0; value_count(&shape)?], shape });
    let mut out;
    match op {
        Op::Expand => {
            out = empty(expand_shape(inputs)?)?;
            expand(first, &mut out);
        }
        Op::Concat { axis } => {
            let arrays = all()?;
            let shapes: Vec<&[usize]> = arrays.iter().map(|a| &a.shape[..]).collect();
            let (shape, axis) = layout::concat_shape(&shapes, *axis)?;
            out = empty(shape)?;
            layout::concat(&arrays, axis, &mut out);
        }
        Op::Slice { .. } => {
            let remap = slice(op, inputs)?;
            out = empty(remap.shape())?;
            remap.run(first, 0, &mut out);
        }
        Op::Gather { axis } => {
            let (axis, indices, shape) = gather(*axis, inputs)?;
            out = empty(shape)?;
            layout::gather(first, axis, &indices, &mut out);
        }
        Op::Transpose { perm } => {
            let perm = layout::permutation(first.shape.len(), perm.as_deref())?;
            out = empty(perm.iter().map(|&axis| first.shape[axis]).collect())?;
            layout::transpose(first, &perm, &mut out);
        }
        Op::Flatten { .. } | Op::Reshape { .. } | Op::Squeeze { .. } | Op::Unsqueeze { .. } | Op::Identity => {
            out = Array::new(renamed_shape(op, inputs)?, first.data.clone());
        }
        _ => return Ok(None),
    }
    Ok(Some(out))
}

fn choose(condition: &Array<i64>, a: &Array<i64>, b: &Array<i64>) -> Result<Value> {
    let shape = broadcast_shape(&broadcast_shape(&a.shape, &b.shape)?, &condition.shape)?;
    let (condition, a, b) = (expanded(condition, &shape)?, expanded(a, &shape)?, expanded(b, &shape)?);
    let pick = |((&condition, &a), &b)| if condition != 0 { a } else { b };
    Ok(Value::I64(Array::new(shape, condition.data.iter().zip(&a.data).zip(&b.data).map(pick).collect())))
}

fn constant_of_shape(values: &[&Value], fill: Option<&Value>) -> Result<Value> {
    let dims = values[0].as_i64().ok_or_else(|| Error::data("a shape of integers is needed"))?;
    let shape: Option<Vec<usize>> = dims.data.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let shape = shape.ok_or_else(|| Error::data(format!("a shape of {:?}", dims.data)))?;
    Value::filled(shape, fill)
}

/// Converts a value to another type. A narrower integer keeps the low bits.
fn cast(value: &Value, to: i64) -> Result<Value> {
    let floats = |of: fn(f32) -> f32| -> Result<Value> {
        let value = match value {
            Value::F32(a) => map(a, of),
            Value::I64(a) => map(a, |v| of(v as f32)),
        };
        Ok(Value::F32(value))
    };
    let integers = |of: fn(i64) -> i64| -> Result<Value> {
        Ok(Value::I64(match value {
            Value::F32(a) => map(a, |v| of(v as i64)),
            Value::I64(a) => map(a, of),
        }))
    };
    match to {
        FLOAT | 11 => floats(|v| v),
        10 => floats(|v| f16::from_f32(v).to_f32()),
        16 => floats(|v| bf16::from_f32(v).to_f32()),
        2 => integers(|v| i64::from(v as u8)),
        3 => integers(|v| i64::from(v as i8)),
        4 => integers(|v| i64::from(v as u16)),
        5 => integers(|v| i64::from(v as i16)),
        // A float beyond the range becomes the nearest integer.
        6 if value.as_f32().is_some() => integers(|v| v.clamp(i64::from(i32::MIN), i64::from(i32::MAX))),
        6 => integers(|v| i64::from(v as i32)),
        INT64 => integers(|v| v),
        BOOL => Ok(Value::I64(match value {
            Value::F32(a) => map(a, |v| i64::from(v != 0.0)),
            Value::I64(a) => map(a, |v| i64::from(v != 0)),
        })),
        12 => integers(|v| i64::from(v as u32)),
        13 => integers(|v| v),
        _ => Err(Error::unsupported(format!("Cast to type {to}"))),
    }
}

/// Applies a function to every element.
fn map<T: Copy, U>(a: &Array<T>, of: impl Fn(T) -> U) -> Array<U> {
    Array::new(a.shape.clone(), a.data.iter().map(|&v| of(v)).collect())
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
    use crate::ops::{Comparison, RearrangeOp, Reducer};
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
        assert_eq!(folded(&Op::Cast { to: 6 }, &[ints(&[(1 << 32) + 5])]), ints(&[5]));
        assert_eq!(folded(&Op::Unary(UnaryOp::Math(MathOp::Neg)), &[ints(&[3])]), ints(&[-3]));
        assert_eq!(folded(&Op::Unary(UnaryOp::Math(MathOp::Sqrt)), &[floats(&[16.0])]), floats(&[4.0]));
        assert_eq!(folded(&Op::Unary(UnaryOp::Math(MathOp::Floor)), &[floats(&[-1.5])]), floats(&[-2.0]));
        assert_eq!(folded(&Op::Binary(BinaryOp::Max), &[ints(&[1, 5]), ints(&[3])]), ints(&[3, 5]));
        assert_eq!(folded(&Op::Binary(BinaryOp::Min), &[floats(&[1.0, 5.0]), floats(&[3.0])]), floats(&[1.0, 3.0]));
        assert_eq!(folded(&Op::Shape { start: 0, end: None }, std::slice::from_ref(&rows)), ints(&[2, 2]));
        assert_eq!(folded(&Op::Size, &[rows]), Value::I64(Array::new(vec![], vec![4])));
        let (truth, seven) = (ints(&[0, 1, 0]), ints(&[7]));
        let equal = Op::Binary(BinaryOp::Compare(Comparison::Equal));
        assert_eq!(folded(&equal, &[ints(&[1, -1, 3]), ints(&[-1])]), truth);
        assert_eq!(folded(&Op::Unary(UnaryOp::Math(MathOp::Not)), std::slice::from_ref(&truth)), ints(&[1, 0, 1]));
        assert_eq!(folded(&Op::Where, &[truth.clone(), seven, ints(&[1, 2, 3])]), ints(&[1, 7, 3]));
        assert_eq!(folded(&Op::Where, &[truth, floats(&[0.5]), floats(&[1.0])]), floats(&[1.0, 0.5, 1.0]));
    }

    #[test]
    fn integers_beyond_those_of_a_float() {
        let large = ints(&[i64::MAX, -(1 << 40)]);
        assert_eq!(folded(&Op::Rearrange(RearrangeOp::Tile), &[large.clone(), ints(&[1])]), large);
        // Where only the forward knows an operation, a number that a float does not hold is an error.
        let facts = [large, ints(&[0])].map(|value| Some(Fact::constant(Arc::new(value))));
        let sum = Op::Rearrange(RearrangeOp::CumSum { exclusive: false, reverse: false });
        assert!(fold(&sum, &facts, Isa::best()).unwrap_err().to_string().contains("exactly"));
    }

    #[test]
    fn products_over_axes() {
        let matrix = Value::I64(Array::new(vec![2, 3], vec![1, 2, 3, 4, 5, 6]));
        let over = |axes: Option<Vec<i64>>, keep_dims| {
            let op = Op::Reduce { reducer: Reducer::Prod, axes, keep_dims, noop_with_empty_axes: false };
            folded(&op, std::slice::from_ref(&matrix))
        };
        assert_eq!(over(None, false), Value::I64(Array::new(vec![], vec![720])));
        assert_eq!(over(Some(vec![0]), false), ints(&[4, 10, 18]));
        assert_eq!(over(Some(vec![-1]), true), Value::I64(Array::new(vec![2, 1], vec![6, 120])));
    }
}
