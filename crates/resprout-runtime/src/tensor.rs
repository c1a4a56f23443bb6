//! Dense arrays with a shape, row-major.

use crate::error::{Error, Result};
use std::borrow::Cow;

/// A row-major array: the last axis is contiguous.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Array<T> {
    /// Length of each axis; empty for a scalar.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` elements.
    pub data: Vec<T>,
}

/// An array of `f32`: weights, activations, images (`[N, C, H, W]`).
pub type Tensor = Array<f32>;

impl<T> Array<T> {
    /// An array of the given shape.
    ///
    /// # Panics
    /// If the number of elements is not the product of the shape.
    pub fn new(shape: Vec<usize>, data: Vec<T>) -> Array<T> {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "elements of shape {shape:?}");
        Array { shape, data }
    }

    /// A one-dimensional array.
    pub fn vector(data: Vec<T>) -> Array<T> {
        Array { shape: vec![data.len()], data }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }
}

impl Tensor {
    /// The first `count` entries along the first axis.
    ///
    /// # Panics
    /// If the tensor is a scalar or has fewer entries.
    pub fn first(&self, count: usize) -> Tensor {
        let each: usize = self.shape[1..].iter().product();
        Tensor::new([&[count], &self.shape[1..]].concat(), self.data[..count * each].to_vec())
    }

    /// Splits the entries along the first axis: those without every `every`-th one, and every `every`-th one.
    ///
    /// # Panics
    /// If the tensor is a scalar or `every` is 0.
    pub fn hold_out(&self, every: usize) -> (Tensor, Tensor) {
        let (held, kept): (Vec<usize>, Vec<usize>) = (0..self.shape[0]).partition(|i| i % every == every - 1);
        (self.pick(&kept), self.pick(&held))
    }

    /// The entries at `indices` along the first axis.
    ///
    /// # Panics
    /// If the tensor is a scalar or an index is out of range.
    pub fn pick(&self, indices: &[usize]) -> Tensor {
        let each: usize = self.shape[1..].iter().product();
        let data = indices.iter().flat_map(|&i| self.data[i * each..][..each].iter().copied()).collect();
        Tensor::new([&[indices.len()], &self.shape[1..]].concat(), data)
    }

    /// Whether shape and elements are the same, to the bit.
    pub fn same_bits(&self, other: &Tensor) -> bool {
        self.shape == other.shape && self.data.iter().zip(&other.data).all(|(a, b)| a.to_bits() == b.to_bits())
    }

    /// Whether shape and elements are the same, except for the sign of zeros.
    pub fn same_numbers(&self, other: &Tensor) -> bool {
        let same = |(a, b): (&f32, &f32)| a == b || a.to_bits() == b.to_bits();
        self.shape == other.shape && self.data.iter().zip(&other.data).all(same)
    }

    /// The elements as little-endian bytes, as files hold them.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.data.len() * 4);
        self.data.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
        bytes
    }
}

/// A value of a graph: floats, or integers that describe shapes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// 32-bit floating point.
    F32(Tensor),
    /// Integers of any width, and truth values as 0 and 1.
    I64(Array<i64>),
}

impl Value {
    /// A value of the given shape. All elements are the one of `fill`, or 0.0 without it.
    pub(crate) fn filled(shape: Vec<usize>, fill: Option<&Value>) -> Result<Value> {
        let count = value_count(&shape)?;
        match fill {
            None => Ok(Value::F32(Tensor::new(shape, vec![0.0; count]))),
            Some(Value::F32(one)) if one.len() == 1 => Ok(Value::F32(Tensor::new(shape, vec![one.data[0]; count]))),
            Some(Value::I64(one)) if one.len() == 1 => Ok(Value::I64(Array::new(shape, vec![one.data[0]; count]))),
            Some(_) => Err(Error::format("a ConstantOfShape whose value has not exactly one element")),
        }
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        match self {
            Value::F32(array) => &array.shape,
            Value::I64(array) => &array.shape,
        }
    }

    /// The tensor, if the elements are floats.
    pub fn as_f32(&self) -> Option<&Tensor> {
        match self {
            Value::F32(array) => Some(array),
            Value::I64(_) => None,
        }
    }

    /// The elements as floats. An integer that no float holds exactly is an error.
    pub(crate) fn to_f32(&self) -> Result<Cow<'_, Tensor>> {
        let narrow = |&v: &i64| {
            let float = v as f32;
            // The largest integer becomes a float that is one larger.
            (float as i128 == i128::from(v)).then_some(float)
        };
        match self {
            Value::F32(array) => Ok(Cow::Borrowed(array)),
            Value::I64(array) => {
                let data: Option<Vec<f32>> = array.data.iter().map(narrow).collect();
                let data = data.ok_or_else(|| Error::unsupported("an integer that 32-bit floats do not hold exactly"))?;
                Ok(Cow::Owned(Tensor::new(array.shape.clone(), data)))
            }
        }
    }

    /// The array, if the elements are integers.
    pub fn as_i64(&self) -> Option<&Array<i64>> {
        match self {
            Value::I64(array) => Some(array),
            Value::F32(_) => None,
        }
    }
}

/// The number of elements of a shape.
///
/// # Errors
/// Of kind `Format` if 64-bit elements of this number do not fit into memory.
#[doc(hidden)]
pub fn element_count(shape: &[usize]) -> Result<usize> {
    shape
        .iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(dim))
        // Vec refuses allocations above isize::MAX bytes: elements have at most 8.
        .filter(|&count| count <= isize::MAX as usize / 8)
        .ok_or_else(|| Error::format(format!("a shape of {shape:?} has more elements than fit in memory")))
}

/// The most elements of a value (16 GiB of f32). A larger value is an error in the file, or an attack.
pub(crate) const LARGEST_VALUE: usize = 1 << 32;

/// The number of elements of a value before it is computed, or an error if it is too large.
pub(crate) fn value_count(shape: &[usize]) -> Result<usize> {
    let count = element_count(shape).ok().filter(|&count| count <= LARGEST_VALUE);
    count.ok_or_else(|| Error::data(format!("a value of shape {shape:?} is larger than memory")))
}

/// Row-major strides in elements.
#[doc(hidden)]
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * shape[axis + 1];
    }
    strides
}

/// Counts an axis from the front; a negative one counts from the back.
///
/// # Errors
/// Of kind `Data` if it is outside of a shape of `rank` axes.
#[doc(hidden)]
pub fn axis_index(axis: i64, rank: usize) -> Result<usize> {
    let from_front = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(from_front)
        .ok()
        .filter(|&index| index < rank)
        .ok_or_else(|| Error::data(format!("axis {axis} of a tensor with {rank} axes")))
}
