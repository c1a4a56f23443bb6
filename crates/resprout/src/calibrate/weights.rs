//! Weights and biases as rows of outputs, and as the file stores them.

use crate::model::Mask;
use crate::ops::Op;
use crate::tensor::Tensor;

/// The weights of a layer, one row per output, whatever their order in the model's parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightRows {
    /// `M`: output channels or features.
    pub rows: usize,
    /// `K`: weights per output.
    pub len: usize,
    /// Groups of outputs that read different inputs.
    pub groups: usize,
    /// The weights, `[M][K]`.
    pub data: Vec<f32>,
    /// The mask, `[M][K]`, true for a kept weight; `None` for a dense layer.
    pub mask: Option<Vec<bool>>,
}

impl WeightRows {
    /// The weights of a layer; `None` where the layer is no product with a weight matrix.
    pub(super) fn read(op: &Op, weight: &Tensor, mask: Option<&Mask>) -> Option<WeightRows> {
        let transposed = is_transposed(op)?;
        let (rows, groups) = match op {
            Op::Conv(a) => (weight.shape[0], a.groups),
            _ => (weight.shape[usize::from(transposed)], 1),
        };
        let len = weight.len() / rows.max(1);
        let order = |i: usize| if transposed { i % len * rows + i / len } else { i };
        let factor = factor(op);
        let data = (0..weight.len()).map(|i| (f64::from(weight.data[order(i)]) * factor) as f32).collect();
        let mask = mask.map(|mask| (0..weight.len()).map(|i| mask.0[order(i)]).collect());
        Some(WeightRows { rows, len, groups, data, mask })
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.len..][..self.len]
    }

    /// One row, mutable.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.len..][..self.len]
    }

    /// Whether a weight is kept.
    pub fn kept(&self, row: usize, index: usize) -> bool {
        self.mask.as_ref().is_none_or(|mask| mask[row * self.len + index])
    }

    /// Whether every weight of a row is zero, so that its output is constant.
    pub fn is_dead(&self, row: usize) -> bool {
        self.row(row).iter().all(|&w| w == 0.0)
    }

    /// As the file stores them.
    pub(super) fn stored(&self, op: &Op, shape: &[usize]) -> Tensor {
        let order = self.file_order(op);
        let factor = factor(op);
        let data = (0..self.data.len()).map(|i| (f64::from(self.data[order(i)]) / factor) as f32).collect();
        Tensor::new(shape.to_vec(), data)
    }

    /// From an index in the file to one in the rows.
    pub(super) fn file_order(&self, op: &Op) -> impl Fn(usize) -> usize {
        let (outputs, len) = (self.rows, self.len);
        let transposed = is_transposed(op).unwrap_or(false);
        move |i| if transposed { i % outputs * len + i / outputs } else { i }
    }
}

/// The bias as the file stores it.
pub(super) fn stored_bias(op: &Op, bias: &[f64]) -> Vec<f32> {
    let beta = match op {
        Op::Gemm { beta, .. } => f64::from(*beta),
        _ => 1.0,
    };
    bias.iter().map(|b| (b / beta) as f32).collect()
}

/// Whether the file holds the weight matrix column by column; `None` where the layer is no product with a weight matrix.
fn is_transposed(op: &Op) -> Option<bool> {
    match op {
        Op::Conv(_) => Some(false),
        Op::Gemm { trans_b, .. } => Some(!trans_b),
        Op::MatMul => Some(true),
        _ => None,
    }
}

fn factor(op: &Op) -> f64 {
    match op {
        Op::Gemm { alpha, .. } => f64::from(*alpha),
        _ => 1.0,
    }
}
