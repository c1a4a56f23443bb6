//! Attributes of a node, independent of the file format.

use crate::error::{Error, Result};
use crate::tensor::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// One attribute.
#[derive(Clone, Debug)]
pub enum Attribute {
    /// A float.
    Float(f32),
    /// An integer.
    Int(i64),
    /// Text.
    Text(String),
    /// Floats.
    Floats(Vec<f32>),
    /// Integers.
    Ints(Vec<i64>),
    /// Several texts.
    Texts(Vec<String>),
    /// A tensor.
    Tensor(Arc<Value>),
}

/// All attributes of a node, and the operator set that defines them.
#[derive(Clone, Debug)]
pub struct Attributes {
    /// Version of the standard operator set.
    pub opset: i64,
    /// Which of the node's outputs is meant.
    pub output: usize,
    /// How many outputs the node has.
    pub outputs: usize,
    values: HashMap<String, Attribute>,
}

impl Attributes {
    /// No attributes.
    pub fn new(opset: i64) -> Attributes {
        Attributes { opset, output: 0, outputs: 1, values: HashMap::new() }
    }

    /// Adds one.
    pub fn insert(&mut self, name: String, value: Attribute) {
        self.values.insert(name, value);
    }

    fn read<T>(&self, name: &str, kind: &str, read: impl Fn(&Attribute) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.values.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| Error::format(format!("attribute {name:?} is not {kind}")))
    }

    pub(crate) fn optional_float(&self, name: &str) -> Result<Option<f32>> {
        self.read(name, "a number", |value| match value {
            Attribute::Float(number) => Some(*number),
            _ => None,
        })
    }

    pub(crate) fn float(&self, name: &str, default: f32) -> Result<f32> {
        Ok(self.optional_float(name)?.unwrap_or(default))
    }

    pub(crate) fn optional_int(&self, name: &str) -> Result<Option<i64>> {
        self.read(name, "an integer", |value| match value {
            Attribute::Int(number) => Some(*number),
            _ => None,
        })
    }

    pub(crate) fn int(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.optional_int(name)?.unwrap_or(default))
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.optional_int(name)?.map_or(default, |number| number != 0))
    }

    pub(crate) fn ints(&self, name: &str) -> Result<Option<Vec<i64>>> {
        self.read(name, "a list of integers", |value| match value {
            Attribute::Ints(numbers) => Some(numbers.clone()),
            _ => None,
        })
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<String>> {
        self.read(name, "a text", |value| match value {
            Attribute::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    pub(crate) fn floats(&self, name: &str) -> Result<Option<Vec<f32>>> {
        self.read(name, "a list of numbers", |value| match value {
            Attribute::Floats(numbers) => Some(numbers.clone()),
            _ => None,
        })
    }

    pub(crate) fn texts(&self, name: &str) -> Result<Option<Vec<String>>> {
        self.read(name, "a list of texts", |value| match value {
            Attribute::Texts(texts) => Some(texts.clone()),
            _ => None,
        })
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<Option<Arc<Value>>> {
        self.read(name, "a tensor", |value| match value {
            Attribute::Tensor(tensor) => Some(tensor.clone()),
            _ => None,
        })
    }

    /// The number of spatial axes of a window operation by the length of its lists; `None` without lists. One or two axes
    /// are supported. Images with a single one have a height of 1.
    pub(crate) fn spatial_axes(&self, kind: &str) -> Result<Option<usize>> {
        let lists = [("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("output_padding", 1), ("pads", 2)];
        let mut found: Option<(&str, usize)> = None;
        for (name, each) in lists {
            let Some(numbers) = self.ints(name)? else { continue };
            let axes = numbers.len() / each;
            match found {
                _ if axes == 0 || numbers.len() % each != 0 => return Err(Error::format(format!("{name} {numbers:?}"))),
                Some((other, known)) if known != axes => {
                    return Err(Error::format(format!("{other} is for {known} axes, {name} for {axes}")));
                }
                _ => found = Some((name, axes)),
            }
        }
        match found {
            Some((_, axes)) if axes > 2 => Err(Error::unsupported(format!("{kind} of {axes} spatial axes"))),
            found => Ok(found.map(|(_, axes)| axes)),
        }
    }

    /// Positive numbers for height and width, 1 if absent.
    pub(crate) fn pair(&self, name: &str) -> Result<[usize; 2]> {
        match self.ints(name)? {
            None => Ok([1, 1]),
            Some(numbers) => window_pair(name, &numbers),
        }
    }

    /// The attribute `auto_pad`.
    pub(super) fn auto_pad(&self) -> Result<AutoPad> {
        match self.text("auto_pad")?.as_deref() {
            None | Some("" | "NOTSET") => Ok(AutoPad::Given),
            Some("VALID") => Ok(AutoPad::Valid),
            Some("SAME_UPPER") => Ok(AutoPad::Same { extra_first: false }),
            Some("SAME_LOWER") => Ok(AutoPad::Same { extra_first: true }),
            Some(other) => Err(Error::format(format!("auto_pad {other:?}"))),
        }
    }

    /// Padding (top, left, bottom, right), or the rule for it.
    pub(crate) fn padding(&self) -> Result<Padding> {
        match self.auto_pad()? {
            AutoPad::Given => {}
            AutoPad::Valid => return Ok(Padding::Fixed([0; 4])),
            AutoPad::Same { extra_first } => return Ok(Padding::Same { extra_first }),
        }
        let Some(numbers) = self.ints("pads")? else { return Ok(Padding::Fixed([0; 4])) };
        let valid = |p: &i64| usize::try_from(*p).ok().filter(|&p| p <= LARGEST_WINDOW);
        match numbers.iter().map_while(valid).collect::<Vec<_>>()[..] {
            [left, right] if numbers.len() == 2 => Ok(Padding::Fixed([0, left, 0, right])),
            [top, left, bottom, right] if numbers.len() == 4 => Ok(Padding::Fixed([top, left, bottom, right])),
            _ => Err(Error::format(format!("pads {numbers:?}: numbers from 0 on are needed"))),
        }
    }
}

/// Larger kernels, strides and pads are refused: a hostile file could make the arithmetic overflow.
pub(super) const LARGEST_WINDOW: usize = 1 << 16;

/// Positive numbers for height and width. A single number is the width, and the height is 1.
pub(crate) fn window_pair(name: &str, numbers: &[i64]) -> Result<[usize; 2]> {
    let valid = |n: &i64| usize::try_from(*n).ok().filter(|&n| (1..=LARGEST_WINDOW).contains(&n));
    match numbers.iter().map_while(valid).collect::<Vec<_>>()[..] {
        [w] if numbers.len() == 1 => Ok([1, w]),
        [h, w] if numbers.len() == 2 => Ok([h, w]),
        _ => Err(Error::format(format!("{name} {numbers:?}: positive numbers are needed"))),
    }
}

/// The shape as `[N, C, H, W]`. Images of `[N, C, L]` have a height of 1.
pub(super) fn as_images(shape: &[usize]) -> Option<[usize; 4]> {
    match *shape {
        [n, c, h, w] => Some([n, c, h, w]),
        [n, c, l] => Some([n, c, 1, l]),
        _ => None,
    }
}

/// The shape `[N, C, H, W]` with as many axes as `like` has.
pub(super) fn with_axes_of(like: &[usize], [n, c, h, w]: [usize; 4]) -> Vec<usize> {
    if like.len() == 3 { vec![n, c, w] } else { vec![n, c, h, w] }
}

/// How a window operation pads its input.
#[derive(Clone, Debug, PartialEq)]
pub enum Padding {
    /// Top, left, bottom, right.
    Fixed([usize; 4]),
    /// As much as makes `ceil(input / stride)` output positions.
    Same {
        /// Whether an odd pixel goes to the top and left.
        extra_first: bool,
    },
}

/// Where padding comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AutoPad {
    /// The attribute `pads`.
    Given,
    /// There is none.
    Valid,
    /// As of [`Padding::Same`].
    Same { extra_first: bool },
}

/// Padding in front and behind that makes `ceil(size / stride)` windows of this extent.
pub(super) fn same_padding(size: usize, stride: usize, extent: usize, extra_first: bool) -> [usize; 2] {
    let covered = (size.div_ceil(stride).max(1) - 1) * stride + extent;
    both_ends(covered.saturating_sub(size), extra_first)
}

/// Half of the elements in front and half behind.
pub(super) fn both_ends(total: usize, extra_first: bool) -> [usize; 2] {
    let (small, large) = (total / 2, total - total / 2);
    if extra_first { [large, small] } else { [small, large] }
}

impl Padding {
    /// The padding for an input of a given size.
    pub fn resolve(&self, input: [usize; 2], kernel: [usize; 2], stride: [usize; 2], dilation: [usize; 2]) -> [usize; 4] {
        let extra_first = match self {
            Padding::Fixed(pads) => return *pads,
            Padding::Same { extra_first } => *extra_first,
        };
        let mut pads = [0; 4];
        for axis in 0..2 {
            let extent = (kernel[axis] - 1) * dilation[axis] + 1;
            [pads[axis], pads[axis + 2]] = same_padding(input[axis], stride[axis], extent, extra_first);
        }
        pads
    }
}
