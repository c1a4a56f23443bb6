//! What `demo` shows.

use resprout::eval::Evaluation;
use resprout::report::SparsityInfo;
use serde::Serialize;

/// What `demo` shows.
#[derive(Serialize)]
pub struct DemoReport {
    pub schema_version: u32,
    pub tool_version: &'static str,
    pub allocation: &'static str,
    pub calibration_images: usize,
    pub test_images: usize,
    pub dense: Evaluation,
    pub rows: Vec<DemoRow>,
}

/// One sparsity.
#[derive(Serialize)]
pub struct DemoRow {
    pub sparsity: SparsityInfo,
    pub pruned: Evaluation,
    pub recalibrated: Evaluation,
    pub least_squares: Evaluation,
    pub file: String,
    pub gzip_bytes: u64,
}
