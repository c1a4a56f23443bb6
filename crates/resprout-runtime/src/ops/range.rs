//! The numbers from a start to a limit, by steps.

use crate::error::{Error, Result};
use crate::tensor::{Array, Tensor, Value, value_count};

/// The numbers of a Range with these inputs.
pub(super) fn range(values: &[&Value]) -> Result<Value> {
    match values {
        [Value::I64(first), Value::I64(limit), Value::I64(step)] => range_i64(first, limit, step),
        [Value::F32(first), Value::F32(limit), Value::F32(step)] => range_f32(first, limit, step),
        _ => Err(Error::data("a Range of floats and integers")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: i64) -> Value {
        Value::I64(Array::new(vec![], vec![value]))
    }

    #[test]
    fn ranges_and_their_limits() {
        let ints = |values: &[i64]| Value::I64(Array::vector(values.to_vec()));
        assert_eq!(range(&[&one(5), &one(0), &one(-2)]).unwrap(), ints(&[5, 3, 1]));
        assert_eq!(range(&[&one(2), &one(2), &one(1)]).unwrap(), ints(&[]));
        assert!(range(&[&one(0), &one(1), &one(0)]).is_err());
        assert!(range(&[&one(i64::MIN), &one(i64::MAX), &one(1)]).is_err(), "larger than memory");
    }
}
