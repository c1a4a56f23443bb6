//! What `eval` measures.

use resprout::data::Preprocess;
use resprout::report::{EvaluationReport, FileInfo};
use serde::Serialize;

/// What `eval` measures.
#[derive(Serialize)]
pub struct EvalReport {
    pub schema_version: u32,
    pub tool_version: &'static str,
    pub model: FileInfo,
    pub reference: Option<FileInfo>,
    pub preprocess: Preprocess,
    pub evaluation: EvaluationReport,
    pub images_per_second: f64,
    pub warnings: Vec<String>,
}
