//! `y = x Wᵀ + b` for a block of rows.

use crate::dense::{COLS, ROWS, Tile};
use crate::{Activation, Isa};

/// A linear layer with its weights laid out for the micro-kernel.
pub struct PackedLinear {
    inputs: usize,
    outputs: usize,
    /// `[ceil(outputs / COLS)][K][COLS]`, unused columns zero.
    panels: Vec<f32>,
    bias: Vec<f32>,
    activation: Activation,
}

impl PackedLinear {
    /// `weight: [outputs, inputs]`, `bias: [outputs]` or empty.
    ///
    /// # Panics
    /// If a length does not match.
    pub fn new(inputs: usize, outputs: usize, weight: &[f32], bias: &[f32], activation: Activation) -> PackedLinear {
        assert_eq!(weight.len(), inputs * outputs, "weight of {inputs} -> {outputs}");
        assert!(bias.is_empty() || bias.len() == outputs, "bias of {inputs} -> {outputs}");
        let mut panels = vec![0.0; outputs.div_ceil(COLS) * inputs * COLS];
        for (m, row) in weight.chunks_exact(inputs.max(1)).enumerate() {
            let start = m / COLS * inputs * COLS + m % COLS;
            for (k, &value) in row.iter().enumerate() {
                panels[start + k * COLS] = value;
            }
        }
        let bias = if bias.is_empty() { vec![0.0; outputs] } else { bias.to_vec() };
        PackedLinear { inputs, outputs, panels, bias, activation }
    }

    /// Inputs and outputs of a row.
    pub fn size(&self) -> [usize; 2] {
        [self.inputs, self.outputs]
    }

    /// `[outputs, inputs]`, as it was given.
    pub fn weight(&self) -> Vec<f32> {
        let row = |m: usize| {
            let start = m / COLS * self.inputs * COLS + m % COLS;
            (0..self.inputs).map(move |k| self.panels[start + k * COLS])
        };
        (0..self.outputs).flat_map(row).collect()
    }

    /// `[outputs]`
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// What is applied last.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// `x: [rows, inputs]`, `out: [rows, outputs]`.
    ///
    /// # Panics
    /// If the slices are not whole rows of the same number.
    pub fn run(&self, isa: Isa, x: &[f32], out: &mut [f32]) {
        assert_eq!(x.len() * self.outputs, out.len() * self.inputs, "rows of {} -> {}", self.inputs, self.outputs);
        let k = self.inputs;
        let mut packed = vec![0.0; k * ROWS];
        let mut tile = Tile::ZERO;
        let row_blocks = x.chunks((ROWS * k).max(1)).zip(out.chunks_mut((ROWS * self.outputs).max(1)));
        for (x, out) in row_blocks {
            let rows = out.len() / self.outputs;
            for (r, row) in x.chunks_exact(k).enumerate() {
                row.iter().enumerate().for_each(|(step, &value)| packed[step * ROWS + r] = value);
            }
            for (panel, first) in (0..self.outputs).step_by(COLS).enumerate() {
                let cols = COLS.min(self.outputs - first);
                isa.tile(k, rows, cols, &packed, &self.panels[panel * k * COLS..], &mut tile);
                for (r, sums) in tile.0[..rows].iter().enumerate() {
                    let target = &mut out[r * self.outputs + first..][..cols];
                    for (j, value) in target.iter_mut().enumerate() {
                        *value = self.activation.apply(sums[j] + self.bias[first + j]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ISAS, reference};

    #[test]
    fn every_kernel_equals_the_reference_on_edge_sizes() {
        let value = |i: usize| ((i * 29 + 7) % 97) as f32 / 48.0 - 1.0;
        for rows in [0, 1, 2, 3, 5, 8, 9, 17] {
            for inputs in [1, 2, 31, 64] {
                for outputs in [1, 10, 16, 17, 32, 33, 65] {
                    let x: Vec<f32> = (0..rows * inputs).map(value).collect();
                    let w: Vec<f32> = (0..outputs * inputs).map(value).collect();
                    let bias: Vec<f32> = (0..outputs).map(value).collect();
                    let expected = reference::linear(rows, inputs, outputs, &x, &w, &bias);
                    let packed = PackedLinear::new(inputs, outputs, &w, &bias, Activation::None);
                    for isa in ISAS.iter().filter_map(|row| row.open()) {
                        let mut out = vec![f32::NAN; rows * outputs];
                        packed.run(isa, &x, &mut out);
                        for (got, want) in out.iter().zip(&expected) {
                            // 64 products of magnitude 1: far below 1e-5 * 64.
                            assert!((got - want).abs() < 1e-4, "{} {rows}x{inputs}x{outputs}", isa.name());
                        }
                    }
                }
            }
        }
    }
}
