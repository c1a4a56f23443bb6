//! What `inspect` shows.

use resprout::model::LeftDense;
use resprout::report::{FileInfo, LayerRow, SparsityInfo};
use serde::Serialize;
use std::collections::BTreeMap;

/// What `inspect` shows.
#[derive(Serialize)]
pub struct Inspection {
    pub schema_version: u32,
    pub model: FileInfo,
    pub inputs: Vec<(String, Vec<String>)>,
    /// Of each input, the type of its numbers.
    pub input_types: Vec<String>,
    pub outputs: Vec<String>,
    pub operations: BTreeMap<String, usize>,
    pub layers: Vec<LayerRow>,
    pub left_dense: Vec<LeftDense>,
    pub sparsity: SparsityInfo,
    /// The image shape that operations are counted for.
    pub image: Option<Vec<usize>>,
    /// Why the model cannot be computed here, if so.
    pub forward_error: Option<String>,
}
