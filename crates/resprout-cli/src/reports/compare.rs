//! Rows of `compare`.

use serde::Serialize;

/// One row: whatever is known of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Compared {
    pub name: String,
    /// Share of the prunable weights that is pruned.
    pub sparsity: Option<f64>,
    pub compression_ratio: Option<f64>,
    /// Multiply-accumulates per image that are left.
    pub macs: Option<u64>,
    pub theoretical_speedup: Option<f64>,
    /// Of the file; of studies, of a sparse file.
    pub bytes: Option<u64>,
    pub top1: Option<f64>,
    pub agreement: Option<f64>,
    pub kl: Option<f64>,
    /// Of a batch, where a file of `bench` tells.
    pub milliseconds: Option<f64>,
    /// SHA-256 of the model's file, by which times find their row.
    #[serde(skip)]
    pub sha256: Option<String>,
}
