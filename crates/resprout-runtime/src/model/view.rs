//! Views: a layer reads a weight through nodes that only move or convert it. The parameter is what the layer reads; the
//! file keeps what it stores.

use crate::error::{Error, Result};
use crate::tensor::Array;

/// The steps from the tensor in the file to the parameter that a layer reads.
#[doc(hidden)]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// In the order from the file to the layer.
    pub steps: Vec<ViewStep>,
    /// The format's code of the stored type, if it is not 32-bit floats.
    pub element: Option<i32>,
}

/// A step of a view: one node.
#[derive(Clone, Debug, PartialEq)]
#[doc(hidden)]
pub enum ViewStep {
    /// Permutes axes.
    Transpose(Vec<usize>),
    /// Adds or removes axes of length 1.
    Axes {
        /// Stored.
        from: Vec<usize>,
        /// New.
        to: Vec<usize>,
    },
    /// Changes the shape in any other way.
    Reshape {
        /// Stored.
        from: Vec<usize>,
        /// New.
        to: Vec<usize>,
    },
}

impl ViewStep {
    /// The step between two shapes with the same elements.
    pub fn reshape(from: &[usize], to: &[usize]) -> ViewStep {
        let long = |shape: &[usize]| shape.iter().copied().filter(|&side| side != 1).collect::<Vec<_>>();
        let (from, to) = (from.to_vec(), to.to_vec());
        if long(&from) == long(&to) { ViewStep::Axes { from, to } } else { ViewStep::Reshape { from, to } }
    }
}

impl View {
    /// Whether channels can be cut out of the parameter. Nodes with a fixed shape prevent it.
    pub fn can_be_cut(&self) -> bool {
        !self.steps.iter().any(|step| matches!(step, ViewStep::Reshape { .. }))
    }

    /// Converts the parameter to the stored tensor.
    pub fn stored<T: Copy>(&self, mut array: Array<T>) -> Result<Array<T>> {
        for step in self.steps.iter().rev() {
            array = match step {
                ViewStep::Transpose(perm) => transposed(&array, &inverse(perm)),
                ViewStep::Axes { from, to } => {
                    let sides = array.shape.iter().zip(to).filter(|(_, to)| **to != 1).map(|(&side, _)| side);
                    let mut sides = sides.collect::<Vec<usize>>().into_iter();
                    let shape = from.iter().map(|&side| if side == 1 { 1 } else { sides.next().unwrap_or(1) }).collect();
                    reshaped(array, shape)?
                }
                ViewStep::Reshape { from, to } if array.shape == *to => reshaped(array, from.clone())?,
                ViewStep::Reshape { .. } => return Err(Error::unsupported("a weight that is reshaped in the file was cut")),
            };
        }
        Ok(array)
    }

    /// Converts a stored tensor to the parameter.
    pub fn seen<T: Copy>(&self, mut array: Array<T>) -> Result<Array<T>> {
        for step in &self.steps {
            array = match step {
                ViewStep::Transpose(perm) => transposed(&array, perm),
                ViewStep::Axes { to, .. } | ViewStep::Reshape { to, .. } => reshaped(array, to.clone())?,
            };
        }
        Ok(array)
    }
}

fn reshaped<T>(array: Array<T>, shape: Vec<usize>) -> Result<Array<T>> {
    if shape.iter().product::<usize>() != array.data.len() {
        return Err(Error::data(format!("a tensor of shape {:?} cannot be stored as {shape:?}", array.shape)));
    }
    Ok(Array::new(shape, array.data))
}

fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; perm.len()];
    perm.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
    inverse
}

fn transposed<T: Copy>(array: &Array<T>, perm: &[usize]) -> Array<T> {
    if array.data.is_empty() {
        return Array::new(perm.iter().map(|&axis| array.shape[axis]).collect(), Vec::new());
    }
    let shape: Vec<usize> = perm.iter().map(|&axis| array.shape[axis]).collect();
    let mut out = Array { shape, data: vec![array.data[0]; array.data.len()] };
    crate::ops::transpose(array, perm, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_and_seen_are_inverses() {
        let stored = Array::new(vec![2, 3, 1], (0..6).collect());
        let view = View {
            steps: vec![
                ViewStep::reshape(&[2, 3, 1], &[2, 3]),
                ViewStep::Transpose(vec![1, 0]),
                ViewStep::reshape(&[3, 2], &[3, 2, 1, 1]),
                ViewStep::reshape(&[3, 2, 1, 1], &[6, 1]),
            ],
            element: None,
        };
        let seen = view.seen(stored.clone()).unwrap();
        assert_eq!((&seen.shape[..], &seen.data[..]), (&[6, 1][..], &[0, 3, 1, 4, 2, 5][..]));
        assert_eq!(view.stored(seen).unwrap(), stored);
        assert!(!view.can_be_cut());
    }

    #[test]
    fn a_weight_that_was_cut_keeps_its_order_of_axes() {
        let view =
            View { steps: vec![ViewStep::Transpose(vec![1, 0]), ViewStep::reshape(&[3, 2], &[3, 2, 1, 1])], element: None };
        assert!(view.can_be_cut());
        let cut = Array::new(vec![2, 2, 1, 1], vec![0, 3, 1, 4]);
        let stored = view.stored(cut).unwrap();
        assert_eq!((stored.shape, stored.data), (vec![2, 2], vec![0, 1, 3, 4]));
    }
}
