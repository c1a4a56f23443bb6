//! The values of a running plan, by slot.

use crate::tensor::Tensor;

/// Values on their way through a plan.
#[doc(hidden)]
#[derive(Default)]
pub struct Slots {
    batch: usize,
    values: Vec<Option<Tensor>>,
    /// Buffers of dead values, for reuse.
    spare: Vec<Vec<f32>>,
}

impl Slots {
    /// A tensor of the given shape with unspecified contents.
    pub fn take(&mut self, shape: &[usize]) -> Tensor {
        let len = shape.iter().product();
        let fit = (0..self.spare.len()).filter(|&i| self.spare[i].capacity() >= len).min_by_key(|&i| self.spare[i].capacity());
        let mut data = fit.map_or_else(|| Vec::with_capacity(len), |i| self.spare.swap_remove(i));
        data.resize(len, 0.0);
        Tensor { shape: shape.to_vec(), data }
    }

    /// The value in a slot.
    ///
    /// # Panics
    /// If the slot is empty: the plan's order guarantees that it is not.
    pub fn get(&self, slot: usize) -> &Tensor {
        self.values[slot].as_ref().expect("a plan reads a value only while it is alive")
    }

    /// Puts a value that was computed elsewhere into its slot.
    pub(crate) fn put(&mut self, slot: usize, tensor: Tensor) {
        self.values[slot] = Some(tensor);
    }

    /// The number of images in a run.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Frees the buffers of dead values.
    pub fn free_spare(&mut self) {
        self.spare.clear();
    }

    /// Makes room for `count` slots and puts the input into the first one.
    pub(super) fn start(&mut self, count: usize, input: Tensor) {
        self.values.resize_with(count, || None);
        self.batch = input.shape.first().copied().unwrap_or(1);
        self.values[0] = Some(input);
    }

    /// Takes the value out of a slot, for the same reason never an empty one.
    pub(super) fn remove(&mut self, slot: usize) -> Tensor {
        self.values[slot].take().expect("a plan reads a value only while it is alive")
    }

    /// Empties a slot and keeps its buffer.
    pub(super) fn release(&mut self, slot: usize) {
        if let Some(tensor) = self.values[slot].take() {
            self.spare.push(tensor.data);
        }
    }
}
