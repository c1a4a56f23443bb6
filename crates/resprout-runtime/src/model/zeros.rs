//! Zeros of a model that was pruned before.
//!
//! A trained weight is hardly ever exactly 0.0. If a tensor has a share of [`UNMISTAKABLE`] zeros or more, the model came
//! sparse, and every exact zero of its weights counts as pruned.

use super::{Mask, MaskTable, Model, PrunableRule};
use crate::error::Result;
use crate::ops::Op;
use serde::{Deserialize, Serialize};

/// The share of exact zeros in a tensor from which on they cannot be chance.
pub const UNMISTAKABLE: f64 = 0.05;

/// The zeros of a model that came sparse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CameSparse {
    /// Zeros of prunable weights, and weights that the file masks.
    pub zeros: usize,
    /// All prunable weights.
    pub prunable: usize,
    /// Whether the zeros may become weights again, instead of masks.
    pub regrown: bool,
}

impl std::fmt::Display for CameSparse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = 100.0 * self.zeros as f64 / self.prunable.max(1) as f64;
        write!(f, "came with {percent:.2} % zeros, {}", if self.regrown { "regrown" } else { "kept as mask" })
    }
}

impl Model {
    /// Makes the zeros of a model that came sparse its masks. With `regrow`, drops its masks instead. `None`, without a
    /// change, for a model that came dense.
    ///
    /// Call it before pruning or repairing a model that was pruned before: neither looks at zeros without a mask.
    ///
    /// # Errors
    /// As [`prunable`](Self::prunable).
    pub fn keep_zeros(&mut self, rule: &PrunableRule, regrow: bool) -> Result<Option<CameSparse>> {
        let (layers, _) = self.prunable(rule)?;
        let mut came = CameSparse { zeros: 0, prunable: 0, regrown: regrow };
        let mut sparse = false;
        for layer in &layers {
            let zeros = self.gone(&layer.param).map_or(0, |gone| gone.iter().filter(|&&gone| gone).count());
            came.zeros += zeros;
            came.prunable += layer.len();
            let masked = self.masks.get(&layer.param).is_some_and(|mask| mask.kept() < layer.len());
            sparse |= masked || zeros as f64 >= UNMISTAKABLE * layer.len() as f64;
        }
        if !sparse {
            return Ok(None);
        }
        if regrow {
            self.masks = MaskTable::default();
            return Ok(Some(came));
        }
        for name in self.weights() {
            if let Some(gone) = self.gone(&name).filter(|gone| gone.contains(&true)) {
                self.masks.insert(name, Mask(gone.into_iter().map(|gone| !gone).collect()));
            }
        }
        // A negative zero becomes a positive one.
        self.apply_masks();
        Ok(Some(came))
    }

    /// The elements of a parameter that are zero or masked.
    fn gone(&self, name: &str) -> Option<Vec<bool>> {
        let tensor = self.params.f32(name)?;
        let mask = self.masks.get(name);
        let gone = |(index, &value): (usize, &f32)| value == 0.0 || mask.is_some_and(|mask| !mask.0[index]);
        Some(tensor.data.iter().enumerate().map(gone).collect())
    }

    /// The weights of all layers, prunable or not. A repair may change any of them.
    fn weights(&self) -> Vec<String> {
        let holds = |op: &Op| matches!(op, Op::Conv(_) | Op::ConvTranspose(_) | Op::Gemm { .. } | Op::MatMul);
        let layers = self.graph.layers.iter().filter(|layer| holds(&layer.op));
        layers.filter_map(|layer| layer.input(1).map(String::from)).collect()
    }
}
