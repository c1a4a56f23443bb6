//! A tensor in a file of weights.

use crate::error::{Error, Result};
use crate::tensor::{element_count, strides};

/// The type of stored numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::formats) enum Number {
    /// 16 bits, IEEE 754.
    F16,
    /// The upper 16 bits of a 32-bit float.
    Bf16,
    F32,
    F64,
    Bool,
    /// Of so many bytes: counters and indices.
    Integer(usize),
    /// Of so many bytes: complex, quantized, floats of 8 bits.
    Other(usize),
}

impl Number {
    /// Bytes of one number.
    pub(in crate::formats) fn bytes(self) -> usize {
        match self {
            Number::F16 | Number::Bf16 => 2,
            Number::F32 => 4,
            Number::F64 => 8,
            Number::Bool => 1,
            Number::Integer(bytes) | Number::Other(bytes) => bytes,
        }
    }
}

/// A tensor that is not decoded yet.
#[derive(Clone, Debug)]
pub(in crate::formats) struct Stored<'f> {
    pub(in crate::formats) shape: Vec<usize>,
    /// The type's name in the file.
    pub(in crate::formats) type_name: String,
    pub(in crate::formats) number: Number,
    /// The storage, which several tensors may share, or why it cannot be read.
    pub(in crate::formats) bytes: Result<&'f [u8], String>,
    /// The first number in the storage.
    pub(in crate::formats) offset: usize,
    /// The distance of neighbours along each axis, in numbers.
    pub(in crate::formats) strides: Vec<usize>,
}

impl<'f> Stored<'f> {
    /// A contiguous tensor that fills its storage.
    pub(in crate::formats) fn contiguous(shape: Vec<usize>, type_name: String, number: Number, bytes: &'f [u8]) -> Stored<'f> {
        // The other axes of an empty tensor may be of any length.
        let strides = if shape.contains(&0) { vec![0; shape.len()] } else { strides(&shape) };
        Stored { shape, type_name, number, bytes: Ok(bytes), offset: 0, strides }
    }

    /// The type's common name.
    pub(super) fn type_name(&self) -> &str {
        match self.number {
            Number::F16 => "float16",
            Number::Bf16 => "bfloat16",
            Number::F32 => "float32",
            Number::F64 => "float64",
            _ => &self.type_name,
        }
    }

    /// Whether the numbers can be weights.
    pub(super) fn is_float(&self) -> bool {
        matches!(self.number, Number::F16 | Number::Bf16 | Number::F32 | Number::F64)
    }

    /// Whether both are the same part of the same storage.
    pub(super) fn is_same_as(&self, other: &Stored) -> bool {
        let address = |stored: &Stored| stored.bytes.as_ref().ok().map(|bytes| (bytes.as_ptr() as usize, stored.offset));
        address(self).is_some() && address(self) == address(other) && self.shape == other.shape && self.strides == other.strides
    }

    /// The numbers as 32-bit floats, row-major. The caller has checked the shape: a stride of 0 could repeat a number any
    /// number of times.
    pub(in crate::formats) fn floats(&self) -> Result<Vec<f32>> {
        match self.number {
            Number::F32 => Ok(self.gather::<4>()?.map(f32::from_le_bytes).collect()),
            Number::F16 => Ok(self.gather::<2>()?.map(|bytes| half(u16::from_le_bytes(bytes))).collect()),
            Number::Bf16 => Ok(self.gather::<2>()?.map(|[low, high]| f32::from_le_bytes([0, 0, low, high])).collect()),
            Number::F64 => self.gather::<8>()?.map(|bytes| narrow(f64::from_le_bytes(bytes))).collect(),
            _ => Err(Error::unsupported(format!("numbers of type {}; floating-point numbers are needed", self.type_name))),
        }
    }

    /// A mask: whether each number is nonzero.
    pub(super) fn flags(&self) -> Result<Vec<bool>> {
        let wide = |bytes: &[u8]| bytes.iter().any(|&byte| byte != 0);
        match self.number {
            Number::Bool | Number::Integer(1) => Ok(self.gather::<1>()?.map(|bytes| wide(&bytes)).collect()),
            Number::Integer(8) => Ok(self.gather::<8>()?.map(|bytes| wide(&bytes)).collect()),
            _ => Ok(self.floats()?.into_iter().map(|value| value != 0.0).collect()),
        }
    }

    /// The bytes of every number in row-major order.
    fn gather<const N: usize>(&self) -> Result<impl Iterator<Item = [u8; N]>> {
        let bytes = self.bytes.clone().map_err(Error::unsupported)?;
        let numbers = bytes.as_chunks::<N>().0;
        let count = element_count(&self.shape)?;
        let outside =
            || Error::format(format!("shape {:?} reaches beyond the {} numbers of its storage", self.shape, numbers.len()));
        let last = self.last().ok_or_else(outside)?;
        if count > 0 && last >= numbers.len() {
            return Err(outside());
        }
        let mut at = vec![0; self.shape.len()];
        let mut place = self.offset;
        Ok((0..count).map(move |_| {
            let number = numbers[place];
            for axis in (0..at.len()).rev() {
                at[axis] += 1;
                place += self.strides[axis];
                if at[axis] < self.shape[axis] {
                    break;
                }
                place -= self.shape[axis] * self.strides[axis];
                at[axis] = 0;
            }
            number
        }))
    }

    /// The index of the last number in the storage; `None` if it overflows.
    fn last(&self) -> Option<usize> {
        let mut last = self.offset;
        for (&length, &stride) in self.shape.iter().zip(&self.strides) {
            last = last.checked_add(length.saturating_sub(1).checked_mul(stride)?)?;
        }
        // Stepping over the end of every axis must not overflow either.
        let steps = self
            .shape
            .iter()
            .zip(&self.strides)
            .map(|(&length, &stride)| length.checked_mul(stride))
            .collect::<Option<Vec<_>>>()?;
        steps.into_iter().try_fold(last, usize::checked_add)?;
        (self.shape.len() == self.strides.len()).then_some(last)
    }
}

/// Converts a 16-bit float to 32 bits, exactly.
fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (u32::from(bits >> 15) << 31, u32::from(bits >> 10 & 31), u32::from(bits & 1023));
    let magnitude = match exponent {
        // Zero and subnormal numbers are multiples of 2^-24.
        0 => fraction as f32 / 16_777_216.0,
        31 => f32::from_bits(0x7f80_0000 | fraction << 13),
        _ => f32::from_bits((exponent + 112) << 23 | fraction << 13),
    };
    f32::from_bits(magnitude.to_bits() | sign)
}

/// Rounds a 64-bit float to the nearest 32-bit one.
fn narrow(wide: f64) -> Result<f32> {
    let narrow = wide as f32;
    match wide.is_finite() && narrow.is_infinite() {
        true => Err(Error::data(format!("{wide:e} is too large for a 32-bit float"))),
        false => Ok(narrow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_follows_the_standard() {
        let cases: [(u16, f32); 9] = [
            (0x0000, 0.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x3555, 0.333_251_95),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0xfc00, f32::NEG_INFINITY),
        ];
        for (bits, value) in cases {
            assert_eq!(half(bits), value, "{bits:#x}");
        }
        assert!(half(0x7e00).is_nan() && half(0x8000).to_bits() == (-0.0f32).to_bits());
        assert!(narrow(1e39).is_err() && narrow(f64::INFINITY).unwrap().is_infinite());
    }

    #[test]
    fn strides_and_offsets_stay_inside_the_storage() {
        let bytes: Vec<u8> = (0..12).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let stored = |shape: &[usize], offset, strides: &[usize]| Stored {
            offset,
            strides: strides.to_vec(),
            ..Stored::contiguous(shape.to_vec(), "float32".into(), Number::F32, &bytes)
        };
        assert_eq!(stored(&[2, 3], 1, &[1, 4]).floats().unwrap(), [1., 5., 9., 2., 6., 10.]);
        assert_eq!(stored(&[], 11, &[]).floats().unwrap(), [11.]);
        assert_eq!(stored(&[2, 2], 3, &[0, 0]).floats().unwrap(), [3.0; 4]);
        assert!(stored(&[0, 5], 99, &[5, 1]).floats().unwrap().is_empty());
        for (shape, offset, strides) in
            [(&[2, 3][..], 2, &[1, 5][..]), (&[2, 2], 0, &[1]), (&[3], usize::MAX - 1, &[1]), (&[2], 0, &[usize::MAX])]
        {
            assert!(stored(shape, offset, strides).floats().is_err(), "{shape:?} {offset} {strides:?}");
        }
    }
}
