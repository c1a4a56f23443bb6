//! Operations that are computed from constants and shapes only. Exporters write them to work out a shape.

use super::binary::{broadcast_shape, expanded};
use super::reduce::reduce_shape;
use crate::error::{Error, Result};
use crate::tensor::{Array, Tensor, Value, strides, value_count};

/// An operation on constants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConstantOp {
    /// `a == b`
    Equal,
    /// `a < b`
    Less,
    /// `a > b`
    Greater,
    /// Both are true.
    And,
    /// One is true.
    Or,
    /// The value is false.
    Not,
    /// The second input where the first is true, the third elsewhere.
    Where,
    /// The numbers from a start to a limit, by steps.
    Range,
    /// The remainder of a division.
    Mod {
        /// Whether it has the dividend's sign rather than the divisor's.
        like_dividend: bool,
    },
    /// Product over axes.
    ReduceProd {
        /// Attribute before opset 18.
        axes: Option<Vec<i64>>,
        /// Whether reduced axes stay with length 1.
        keep_dims: bool,
        /// Whether no axes means none rather than all.
        noop_with_empty_axes: bool,
    },
}

impl ConstantOp {
    /// The operation's name in ONNX.
    pub fn name(&self) -> &'static str {
        match self {
            ConstantOp::Equal => "Equal",
            ConstantOp::Less => "Less",
            ConstantOp::Greater => "Greater",
            ConstantOp::And => "And",
            ConstantOp::Or => "Or",
            ConstantOp::Not => "Not",
            ConstantOp::Where => "Where",
            ConstantOp::Range => "Range",
            ConstantOp::Mod { .. } => "Mod",
            ConstantOp::ReduceProd { .. } => "ReduceProd",
        }
    }

    /// The result for the values of all inputs.
    pub(super) fn run(&self, values: &[&Value]) -> Result<Value> {
        match (self, values) {
            (ConstantOp::Not, [Value::I64(a)]) => Ok(Value::I64(map(a, |v| i64::from(v == 0)))),
            (ConstantOp::Where, [Value::I64(condition), Value::F32(a), Value::F32(b)]) => choose(condition, a, b).map(Value::F32),
            (ConstantOp::Where, [Value::I64(condition), Value::I64(a), Value::I64(b)]) => choose(condition, a, b).map(Value::I64),
            (ConstantOp::Range, [Value::I64(first), Value::I64(limit), Value::I64(step)]) => range_i64(first, limit, step),
            (ConstantOp::Range, [Value::F32(first), Value::F32(limit), Value::F32(step)]) => range_f32(first, limit, step),
            (ConstantOp::Mod { like_dividend }, [Value::I64(a), Value::I64(b)]) => remainder_i64(a, b, *like_dividend),
            (ConstantOp::Mod { like_dividend: true }, [Value::F32(a), Value::F32(b)]) => zip(a, b, |a, b| a % b).map(Value::F32),
            (ConstantOp::ReduceProd { axes, keep_dims, noop_with_empty_axes }, [value, rest @ ..]) => {
                let given = rest.first().and_then(|axes| axes.as_i64()).map(|axes| axes.data.clone());
                let axes = axes.clone().or(given).filter(|axes| !axes.is_empty());
                match value {
                    _ if axes.is_none() && *noop_with_empty_axes => Ok((*value).clone()),
                    Value::I64(a) => product(a, axes.as_deref(), *keep_dims, 1, i64::wrapping_mul).map(Value::I64),
                    Value::F32(a) => product(a, axes.as_deref(), *keep_dims, 1.0, |a, b| a * b).map(Value::F32),
                }
            }
            (_, [Value::I64(a), Value::I64(b)]) => {
                let truth = match self {
                    ConstantOp::Equal => |a, b| a == b,
                    ConstantOp::Less => |a, b| a < b,
                    ConstantOp::Greater => |a, b| a > b,
                    ConstantOp::And => |a, b| a != 0 && b != 0,
                    ConstantOp::Or => |a, b| a != 0 || b != 0,
                    _ => return Err(self.wrong(values)),
                };
                zip(a, b, |a: i64, b: i64| i64::from(truth(a, b))).map(Value::I64)
            }
            (_, [Value::F32(a), Value::F32(b)]) => {
                let truth = match self {
                    ConstantOp::Equal => |a, b| a == b,
                    ConstantOp::Less => |a, b| a < b,
                    ConstantOp::Greater => |a, b| a > b,
                    _ => return Err(self.wrong(values)),
                };
                zip(a, b, |a: f32, b: f32| i64::from(truth(a, b))).map(Value::I64)
            }
            _ => Err(self.wrong(values)),
        }
    }

    fn wrong(&self, values: &[&Value]) -> Error {
        let kinds: Vec<&str> = values.iter().map(|value| if value.as_f32().is_some() { "floats" } else { "integers" }).collect();
        Error::unsupported(format!("{} of {kinds:?}", self.name()))
    }
}

/// Applies a function to every element.
pub(super) fn map<T: Copy, U>(a: &Array<T>, of: impl Fn(T) -> U) -> Array<U> {
    Array::new(a.shape.clone(), a.data.iter().map(|&v| of(v)).collect())
}

fn zip<T: Copy, U>(a: &Array<T>, b: &Array<T>, of: impl Fn(T, T) -> U) -> Result<Array<U>> {
    let shape = broadcast_shape(&a.shape, &b.shape)?;
    let (a, b) = (expanded(a, &shape)?, expanded(b, &shape)?);
    Ok(Array::new(shape, a.data.iter().zip(&b.data).map(|(&a, &b)| of(a, b)).collect()))
}

fn choose<T: Copy>(condition: &Array<i64>, a: &Array<T>, b: &Array<T>) -> Result<Array<T>> {
    let shape = broadcast_shape(&broadcast_shape(&a.shape, &b.shape)?, &condition.shape)?;
    let (condition, a, b) = (expanded(condition, &shape)?, expanded(a, &shape)?, expanded(b, &shape)?);
    let pick = |((&condition, &a), &b)| if condition != 0 { a } else { b };
    Ok(Array::new(shape, condition.data.iter().zip(&a.data).zip(&b.data).map(pick).collect()))
}

fn scalar<T: Copy>(a: &Array<T>) -> Result<T> {
    match a.data[..] {
        [value] => Ok(value),
        _ => Err(Error::data(format!("a Range with a bound of shape {:?}", a.shape))),
    }
}

fn range_i64(first: &Array<i64>, limit: &Array<i64>, step: &Array<i64>) -> Result<Value> {
    let (first, limit, step) = (i128::from(scalar(first)?), i128::from(scalar(limit)?), i128::from(scalar(step)?));
    if step == 0 {
        return Err(Error::data("a Range with step 0"));
    }
    let distance = (limit - first) * step.signum();
    let count = ((distance + step.abs() - 1) / step.abs()).max(0);
    let count = value_count(&[usize::try_from(count).unwrap_or(usize::MAX)])?;
    Ok(Value::I64(Array::vector((0..count as i128).map(|i| (first + i * step) as i64).collect())))
}

fn range_f32(first: &Tensor, limit: &Tensor, step: &Tensor) -> Result<Value> {
    let (first, limit, step) = (scalar(first)?, scalar(limit)?, scalar(step)?);
    let count = ((f64::from(limit) - f64::from(first)) / f64::from(step)).ceil();
    if count.is_nan() {
        return Err(Error::data("a Range with step 0"));
    }
    let count = value_count(&[count.max(0.0) as usize])?;
    Ok(Value::F32(Array::vector((0..count).map(|i| first + i as f32 * step).collect())))
}

fn remainder_i64(a: &Array<i64>, b: &Array<i64>, like_dividend: bool) -> Result<Value> {
    if b.data.contains(&0) {
        return Err(Error::data("a shape computation divides by zero"));
    }
    let remainder = |a: i64, b: i64| {
        let rest = a.wrapping_rem(b);
        if !like_dividend && rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
    };
    zip(a, b, remainder).map(Value::I64)
}

fn product<T: Copy>(a: &Array<T>, axes: Option<&[i64]>, keep_dims: bool, one: T, times: impl Fn(T, T) -> T) -> Result<Array<T>> {
    let (reduced, shape) = reduce_shape(&a.shape, axes, keep_dims)?;
    let kept: Vec<usize> = (0..a.shape.len()).filter(|axis| !reduced.contains(axis)).collect();
    let inner = strides(&a.shape);
    let mut out = Array { data: vec![one; value_count(&shape)?], shape };
    for (index, &value) in a.data.iter().enumerate() {
        let at = kept.iter().fold(0, |at, &axis| at * a.shape[axis] + index / inner[axis] % a.shape[axis]);
        out.data[at] = times(out.data[at], value);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints(values: &[i64]) -> Value {
        Value::I64(Array::vector(values.to_vec()))
    }

    fn one(value: i64) -> Value {
        Value::I64(Array::new(vec![], vec![value]))
    }

    #[test]
    fn integer_operations() {
        let run = |op: ConstantOp, values: &[&Value]| op.run(values).unwrap();
        assert_eq!(run(ConstantOp::Equal, &[&ints(&[1, -1, 3]), &one(-1)]), ints(&[0, 1, 0]));
        let truth = ints(&[0, 1, 0]);
        assert_eq!(run(ConstantOp::Not, &[&truth]), ints(&[1, 0, 1]));
        assert_eq!(run(ConstantOp::Where, &[&truth, &one(7), &ints(&[1, 2, 3])]), ints(&[1, 7, 3]));
        assert_eq!(run(ConstantOp::Range, &[&one(5), &one(0), &one(-2)]), ints(&[5, 3, 1]));
        assert_eq!(run(ConstantOp::Range, &[&one(2), &one(2), &one(1)]), ints(&[]));
        let modulo = |like_dividend| ConstantOp::Mod { like_dividend };
        assert_eq!(run(modulo(false), &[&ints(&[-7, 7, -7]), &ints(&[3, -3, -3])]), ints(&[2, -2, -1]));
        assert_eq!(run(modulo(true), &[&ints(&[-7, 7, -7]), &ints(&[3, -3, -3])]), ints(&[-1, 1, -1]));
        for broken in [modulo(false).run(&[&one(1), &one(0)]), ConstantOp::Range.run(&[&one(0), &one(1), &one(0)])] {
            assert!(broken.is_err());
        }
        assert!(ConstantOp::Range.run(&[&one(i64::MIN), &one(i64::MAX), &one(1)]).is_err(), "larger than memory");
    }

    #[test]
    fn products_over_axes() {
        let matrix = Value::I64(Array::new(vec![2, 3], vec![1, 2, 3, 4, 5, 6]));
        let over = |axes: Option<Vec<i64>>, keep_dims| ConstantOp::ReduceProd { axes, keep_dims, noop_with_empty_axes: false };
        assert_eq!(over(None, false).run(&[&matrix]).unwrap(), one(720));
        assert_eq!(over(Some(vec![0]), false).run(&[&matrix]).unwrap(), ints(&[4, 10, 18]));
        let rows = over(Some(vec![-1]), true).run(&[&matrix]).unwrap();
        assert_eq!(rows, Value::I64(Array::new(vec![2, 1], vec![6, 120])));
    }
}
